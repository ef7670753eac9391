"""Ctrl-C, `kill` and a killed command: padflow ends within seconds and leaves no process behind."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from types import FrameType

import psutil

from flows.progress_bars import console
from infra.local_files import one_at_a_time

# Long enough to tell Prefect and MLflow; what still runs then is killed. Outputs appear whole or not at all.
UNWIND_WITHIN_S = 4.0
EXIT_INTERRUPTED = 128 + signal.SIGINT
# `read` ends with the pipe, and the pipe with padflow, however that ends.
KILL_WITH_PIPE = 'read _; kill "$0" 2>/dev/null'


interrupted = threading.Event()


def unwind_on_signals() -> None:
    """From here on Ctrl-C is this process's own to handle, in order.

    A terminal sends it to every process of the command. Workers and the embedded server would die before they are told
    to, and the flow would wait for them: so they inherit a mask that keeps it from them.
    """
    signal.signal(signal.SIGTERM, _unwind)
    if any(thread.name == _wait_for_interrupt.__name__ for thread in threading.enumerate()):
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    threading.Thread(target=_wait_for_interrupt, name=_wait_for_interrupt.__name__, daemon=True).start()


def how_to_go_on() -> str:
    """The line that a user needs after a command was stopped."""
    command = shlex.join(["padflow", *sys.argv[1:]])
    return f"stopped; what is done is kept in the store. To go on: {command}"


def start_embedded_server() -> None:
    """Start Prefect's own server unless the user names one, and have it end with this process even by SIGKILL."""
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import get_current_settings

    if get_current_settings().api.url:
        return
    server = SubprocessASGIServer()
    if server.running:
        return
    home = get_current_settings().home
    # Two servers that make the tables of one database at the same time end with half of them each.
    with one_at_a_time(home / "starting.lock"):
        server.start()
    if server.server_process is not None:
        end_with_this_process(server.server_process.pid)


def end_with_this_process(pid: int) -> None:
    """Have another process ended once this one is gone."""
    subprocess.Popen(["sh", "-c", KILL_WITH_PIPE, str(pid)], stdin=subprocess.PIPE, start_new_session=True)


def _wait_for_interrupt() -> None:
    signal.sigwait({signal.SIGINT})
    interrupted.set()
    console.print(how_to_go_on(), style="yellow", markup=False, highlight=False, soft_wrap=True)
    # A true signal, since the main thread mostly sits in a lock, which nothing else ends.
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    # Pressed again: at once.
    signal.sigtimedwait({signal.SIGINT}, UNWIND_WITHIN_S)
    _leave(EXIT_INTERRUPTED)


def _unwind(number: int, _: FrameType | None) -> None:
    if interrupted.is_set():
        sys.exit(EXIT_INTERRUPTED)
    console.print(how_to_go_on(), style="yellow", markup=False, highlight=False, soft_wrap=True)
    threading.Timer(UNWIND_WITHIN_S, _leave, [128 + number]).start()
    sys.exit(128 + number)


def _leave(code: int) -> None:
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()
    os._exit(code)
