"""What storage does wrong: which faults pass by themselves, how long padflow waits for that, and how each is said."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

# Enough for a server that sheds load; a store that is down for longer is said, and the next run goes on. With pauses of
# 7.5 s in all, and botocore's own repeats between them, an error that is answered at once is given up after 4 to 26 s.
ATTEMPTS = 5
FIRST_PAUSE_S = 0.5
# No attempt begins later. Only a server that stays silent, each time until the client's timeout, takes so long.
PATIENCE_S = 120.0
TRANSPORTS = ("botocore", "aiobotocore", "aiohttp", "urllib3", "fsspec", "gcsfs", "adlfs", "azure", "google")
# The local file system or the server said no, and would say so again.
LASTING_ERRNOS = {
    errno.ENOSPC: "no space is left",
    errno.EDQUOT: "the quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "access is denied",
    errno.EPERM: "access is denied",
}
FREE_SPACE = "Free some space there, or give another --store"
ASK_ACCESS = "Ask for permission to read and write there, or give another --store"
RENEW = "Renew AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or the profile"
LASTING_CODES = {
    "ExpiredToken": ("the credentials have expired", RENEW),
    "TokenRefreshRequired": ("the credentials have expired", RENEW),
    "InvalidAccessKeyId": ("the access key is unknown there", RENEW),
    "InvalidToken": ("the session token is not valid", RENEW),
    "SignatureDoesNotMatch": ("the secret key does not fit the access key", RENEW),
    "RequestTimeTooSkewed": ("this machine's clock is wrong", "Set the clock"),
    "AccessDenied": ("access is denied", ASK_ACCESS),
    "AllAccessDisabled": ("access is denied", ASK_ACCESS),
    # The answer to HEAD has no body that would say which.
    "403": ("access is denied, or the credentials have expired", f"{ASK_ACCESS}. {RENEW}"),
    "NoSuchBucket": ("there is no such bucket", "Create it, or correct the URL"),
    "QuotaExceeded": ("the quota is used up", FREE_SPACE),
}
PASSING_CODES = {
    "BadDigest",
    "IncompleteBody",
    "RequestTimeout",
    "SlowDown",
    "XAmzContentSHA256Mismatch",
    "408",
    "429",
    # 409 where another writer is at the same key: S3 asks for the upload again, and then says who was first.
    "ConditionalRequestConflict",
    "OperationAborted",
}
LEAST_SERVER_STATUS = 500
NOT_IMPLEMENTED_STATUS = 501


class StorageFault(OSError):
    """Storage failed although padflow was patient: the scan is left for the next run."""


class StorageRefused(StorageFault):
    """Storage said no in a way that does not pass: full, read-only, expired or missing credentials."""


class SourceChanged(OSError):
    """The bytes are not those of the manifest: the next index will see the new ones."""


def patiently(action: Callable[[], T], place: str) -> T:
    """Do something with storage, again after a growing pause where the fault may pass.

    Five attempts in all: about 15 s where an S3 server answers each with 503, two minutes where it stays silent.

    Args:
        action: What to do; whole, so that a body which was cut short is read anew from its beginning.
        place: The URL it is done to, for the message.

    Returns:
        What the action gives.

    Raises:
        FileNotFoundError: It is not there.
        FileExistsError: It is there, where it was to be made.
        StorageRefused: It will not pass.
        StorageFault: It did not pass in time.
    """
    start = time.monotonic()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return action()
        except (FileExistsError, IsADirectoryError, NotADirectoryError, StorageFault, SourceChanged):
            raise
        except Exception as error:
            if not _of_storage(error):
                raise
            refusal = _refusal(error)
            if refusal is not None:
                raise StorageRefused(f"{place}: {refusal}") from error
            if isinstance(error, FileNotFoundError):
                raise
            waited_s = time.monotonic() - start
            if attempt == ATTEMPTS or waited_s > PATIENCE_S:
                raise StorageFault(
                    f"{place}: {_fault(error)}, {attempt} times within {waited_s:.0f} s. "
                    "Check the server and the network, then run the same command again: what is done is kept."
                ) from error
        # Workers that failed together must not come back together.
        time.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))  # noqa: S311
    raise AssertionError("the last attempt returns or raises")


def storage_code(error: BaseException) -> str:
    """The code that an S3 server answered with, or nothing."""
    return _code_and_status(error)[0]


def _of_storage(error: Exception) -> bool:
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in TRANSPORTS


def _response(error: BaseException) -> dict[str, Any]:
    """What an S3 server answered; s3fs keeps it as the cause of the error that it makes of it."""
    for each in (error, error.__cause__):
        response = getattr(each, "response", None)
        if isinstance(response, dict):
            return response
    return {}


def _code_and_status(error: BaseException) -> tuple[str, int]:
    response = _response(error)
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return str(response.get("Error", {}).get("Code", "")), int(status or 0)


def _refusal(error: Exception) -> str | None:
    """What a lasting fault is and what to do, or None where it may pass."""
    code, status = _code_and_status(error)
    if code in LASTING_CODES:
        found, step = LASTING_CODES[code]
        return f"{found} ({code}). {step}, then run the same command again: what is done is kept."
    if "Credentials" in type(error).__name__ or "ProfileNotFound" in type(error).__name__:
        return "found no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
    if type(error).__name__ == "ParamValidationError":
        return f"the URL is not one: {' '.join(str(error).split())}."
    number = getattr(error, "errno", None)
    if isinstance(error, PermissionError) and not code:
        number = number or errno.EACCES
    if number in LASTING_ERRNOS and not code and not status:
        step = FREE_SPACE if number in (errno.ENOSPC, errno.EDQUOT) else ASK_ACCESS
        return f"{LASTING_ERRNOS[number]}. {step}, then run the same command again: what is done is kept."
    passes = status >= LEAST_SERVER_STATUS and status != NOT_IMPLEMENTED_STATUS
    if status and not passes and code not in PASSING_CODES and not isinstance(error, FileNotFoundError):
        return f"the server answered {status} {code}: {error}."
    return None


def _fault(error: Exception) -> str:
    """What happened, in a few words: botocore and aiohttp go on for lines."""
    code, status = _code_and_status(error)
    if status:
        return f"the server answered {status} {code}".rstrip()
    name = type(error).__name__
    if "Timeout" in name:
        return "the server did not answer in time"
    if "Payload" in name or "Streaming" in name or "IncompleteRead" in name:
        return "the answer was cut short"
    if "Connect" in name:
        return "no connection to the server"
    return f"{name}: {(str(error).splitlines() or [''])[0][:200]}"
