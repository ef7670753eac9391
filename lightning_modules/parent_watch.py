"""End a rank whose flow is gone: a killed flow must leave no orphan that trains on."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

POLL_INTERVAL_S = 1.0
ORPHANED_EXIT_CODE = 75


def watch_parents() -> None:
    """Start a daemon thread that ends this process once the flow or the launcher is gone.

    The flow is the process that `PADFLOW_PARENT_PID` names, if set; the launcher is the parent process when
    torch.distributed.run started this one.
    """
    flow_pid = os.environ.get("PADFLOW_PARENT_PID", "")
    if flow_pid and not flow_pid.isdecimal():
        raise ValueError(f"PADFLOW_PARENT_PID is {flow_pid!r}; expected a process id.")
    launcher_pid = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None
    if flow_pid or launcher_pid is not None:
        arguments = (int(flow_pid) if flow_pid else None, launcher_pid)
        threading.Thread(target=_watch, args=arguments, name="parent-watch", daemon=True).start()


def _watch(flow_pid: int | None, launcher_pid: int | None) -> None:
    while True:
        if flow_pid is not None and not _runs(flow_pid):
            _leave(f"the flow (process {flow_pid}) is gone")
        if launcher_pid is not None and os.getppid() != launcher_pid:
            _leave(f"the launcher (process {launcher_pid}) is gone")
        time.sleep(POLL_INTERVAL_S)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    status = Path(f"/proc/{pid}/stat")
    # A killed process that nobody has waited for still takes signals; Linux calls it Z.
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


def _leave(reason: str) -> None:
    print(f"lightning_modules: {reason}; this rank stops.", file=sys.stderr, flush=True)
    # Not sys.exit: the main thread may sit in a collective that never returns.
    os._exit(ORPHANED_EXIT_CODE)
