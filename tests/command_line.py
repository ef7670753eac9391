"""`padflow` as a user runs it: in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TIMEOUT_S = 500


class CommandLine:
    """Commands in one home folder; what they print goes to files, since a full pipe would stop them."""

    def __init__(self, home: Path, data: str, **environment: str) -> None:
        # MLflow puts the server that some other test asked for into the environment.
        others = ("PADFLOW_", "PREFECT_", "MLFLOW_")
        keep = {name: value for name, value in os.environ.items() if not name.startswith(others)}
        self.home = home
        self.patience_s = TIMEOUT_S
        # Prefect makes its own folder but not the one above it.
        (home / "prefect").mkdir(parents=True, exist_ok=True)
        self.environment = {
            **keep,
            "PADFLOW_HOME": str(home),
            "PADFLOW_DATA": data,
            "PADFLOW_WORKERS": "2",
            "PREFECT_HOME": str(home / "prefect"),
            "COLUMNS": "160",
            **environment,
        }

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a command in a process group of its own and go on."""
        command = [sys.executable, "-m", "flows.cli", *arguments]
        with self._file("out").open("wb") as out, self._file("err").open("wb") as err:
            return subprocess.Popen(command, env=self.environment, stdout=out, stderr=err, start_new_session=True)

    def finish(self, process: subprocess.Popen[bytes], code: int = 0) -> str:
        """Wait for a started command, check its exit code, and give what it printed to standard output."""
        try:
            process.wait(timeout=self.patience_s)
        finally:
            process.kill()
        assert process.returncode == code, f"exit {process.returncode}\n{self.stderr[-6000:]}"
        return self._file("out").read_text()

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """Run a command to its end."""
        return self.finish(self.start(*arguments), code)

    @property
    def stderr(self) -> str:
        """What the last command printed beside its result."""
        return self._file("err").read_text()

    def _file(self, name: str) -> Path:
        return self.home / f"last-command.{name}"
