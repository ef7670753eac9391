"""An HTTP proxy before a store that does what networks and servers do wrong, as a test asks for it."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import unquote, urlsplit

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}
STALL_LIMIT_S = 60.0


@dataclass(frozen=True)
class Refuse:
    """Answer with a status and S3's error document, without asking the server."""

    status: int
    code: str


@dataclass(frozen=True)
class Stall:
    """Take the request and stay silent; with a body begun, or before any answer."""

    after_bytes: int | None = None


@dataclass(frozen=True)
class CutShort:
    """Promise the whole body and hang up in its middle."""


@dataclass(frozen=True)
class OtherBytes:
    """Give a body of the same length in which a byte is wrong."""


@dataclass(frozen=True)
class LoseAnswer:
    """Let the server do it, then hang up instead of saying so."""


Fault = Refuse | Stall | CutShort | OtherBytes | LoseAnswer
# Method, unquoted path, how many such requests came before this one.
Plan = Callable[[str, str, int], Fault | None]


class FaultProxy:
    """Forwards to an S3 server what the plan does not spoil; counts requests and faults."""

    def __init__(self, upstream: str, plan: Plan = lambda *_: None) -> None:
        self.plan = plan
        self.requests: Counter[tuple[str, str]] = Counter()
        self.faults: Counter[str] = Counter()
        self.released = threading.Event()
        self._lock = threading.Lock()
        self._upstream = urlsplit(upstream).netloc
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def planned(self, method: str, path: str) -> Fault | None:
        """What is to happen to a request; counts it."""
        with self._lock:
            before = self.requests[method, path]
            self.requests[method, path] += 1
            fault = self.plan(method, path, before)
            if fault is not None:
                self.faults[type(fault).__name__ + (f" {fault.status}" if isinstance(fault, Refuse) else "")] += 1
            return fault

    def forward(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        """The server's own answer."""
        connection = http.client.HTTPConnection(self._upstream, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = unquote(urlsplit(self.path).path)
                fault = proxy.planned(self.command, path)
                if isinstance(fault, Refuse):
                    self.send(fault.status, {"Content-Type": "application/xml"}, refusal(fault))
                    return
                if isinstance(fault, Stall) and fault.after_bytes is None:
                    proxy.released.wait(STALL_LIMIT_S)
                    self.hang_up()
                    return
                headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
                status, answered, content = proxy.forward(self.command, self.path, body, headers)
                if isinstance(fault, LoseAnswer):
                    self.hang_up()
                elif isinstance(fault, (CutShort, Stall)):
                    end = len(content) // 2 if isinstance(fault, CutShort) else fault.after_bytes
                    self.send(status, answered, content, content[:end])
                    if isinstance(fault, Stall):
                        proxy.released.wait(STALL_LIMIT_S)
                    self.hang_up()
                else:
                    if isinstance(fault, OtherBytes) and content:
                        content = content[:-1] + bytes([content[-1] ^ 0xFF])
                    self.send(status, answered, content)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer

            def send(self, status: int, headers: dict[str, str], content: bytes, sent: bytes | None = None) -> None:
                self.send_response(status)
                length = headers.get("Content-Length", headers.get("content-length", "0"))
                for name, value in headers.items():
                    if name.lower() not in HOP_BY_HOP:
                        self.send_header(name, value)
                is_head = self.command == "HEAD"
                self.send_header("Content-Length", length if is_head else str(len(content)))
                self.end_headers()
                if not is_head:
                    self.wfile.write(content if sent is None else sent)
                    self.wfile.flush()

            def hang_up(self) -> None:
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def refusal(fault: Refuse) -> bytes:
    """S3's error document."""
    text = f"<Error><Code>{fault.code}</Code><Message>The proxy says {fault.code}</Message></Error>"
    return f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode()
