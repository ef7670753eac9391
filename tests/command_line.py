"""`padflow` as a user runs it: in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


class CommandLine:
    """`padflow` in processes of its own, as a user runs it, in one home folder."""

    def __init__(self, home: Path, data: str, **environment: str) -> None:
        keep = {name: value for name, value in os.environ.items() if not name.startswith(("PADFLOW_", "PREFECT_"))}
        self.environment = {
            **keep,
            "PADFLOW_HOME": str(home),
            "PADFLOW_DATA": data,
            "PADFLOW_WORKERS": "2",
            "PREFECT_HOME": str(home / "prefect"),
            "COLUMNS": "160",
            **environment,
        }
        self.home = home

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command in a process group of its own and go on."""
        command = [sys.executable, "-m", "flows.cli", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, env=self.environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """Run a command to its end, check its exit code, and give what it printed to standard output."""
        process = self.start(*arguments)
        try:
            stdout, stderr = process.communicate(timeout=500)
        finally:
            process.kill()
        assert process.returncode == code, f"exit {process.returncode}\n{stdout[-3000:]}\n{stderr[-6000:]}"
        self.stderr = stderr
        return stdout
