"""The lock: every transitive version, in a form that plain pip installs with and without a GPU.

`python -m infra.lock write` resolves pyproject.toml into requirements.lock; `python -m infra.lock check` shows that
every pin resolves for the Python versions that the project supports. Versions carry no local label (`2.13.0`, not
`2.13.0+cpu`) and CUDA packages are left to torch's own pins, which name them exactly, so that one file serves both
kinds of machine.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

LOCK = Path(__file__).parents[1] / "requirements.lock"
PYTHON_VERSIONS = ("3.11", "3.12", "3.13")
CUDA_PACKAGE = re.compile(r"^(nvidia-|cuda-|triton\b|pytorch-triton)")
HEADER = "# Written by `make lock` from pyproject.toml: every transitive version. Do not edit.\n"


def portable_pins(compiled: str) -> list[str]:
    """Keep what every machine shares: no CUDA packages, no local version labels, no options of this machine.

    >>> portable_pins("--find-links /wheels\\ntorch==2.13.0+cpu\\nnvidia-nccl-cu13==2.1\\nrich==15.0.0  # via x\\n")
    ['rich==15.0.0', 'torch==2.13.0']
    """
    pins = []
    for line in compiled.splitlines():
        requirement = line.split("#")[0].strip()
        if not requirement or requirement.startswith("-") or CUDA_PACKAGE.match(requirement):
            continue
        pins.append(re.sub(r"\+[a-z0-9.]+", "", requirement))
    return sorted(pins)


def write() -> None:
    """Resolve the ranges of pyproject.toml; existing pins are kept where they still fit."""
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "requirements.txt"
        if LOCK.exists():
            draft.write_text(LOCK.read_text())
        options = [
            "--quiet",
            "--extra",
            "dev",
            "--extra",
            "slurm",
            "--strip-extras",
            "--no-annotate",
            "--no-header",
            "--allow-unsafe",
        ]
        options += ["--no-emit-find-links", "--no-emit-index-url", "--output-file", str(draft), "pyproject.toml"]
        subprocess.run([sys.executable, "-m", "piptools", "compile", *options], check=True, cwd=LOCK.parent)
        pins = portable_pins(draft.read_text())
    LOCK.write_text(HEADER + "\n".join(pins) + "\n")
    print(f"{LOCK.name}: {len(pins)} pins")


def resolved_names(python_version: str) -> set[str]:
    """Resolve the lock for another Python without installing it; wheels only, so nothing is executed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        command += ["--only-binary=:all:", "--python-version", python_version, "--target", folder]
        pip = subprocess.run([*command, "--report", str(report), "-r", str(LOCK)], capture_output=True, text=True)
        if pip.returncode:
            raise SystemExit(f"Python {python_version} cannot resolve {LOCK.name}:\n{pip.stderr}")
        installed = json.loads(report.read_text())["install"]
    return {normalised(item["metadata"]["name"]) for item in installed}


def normalised(name: str) -> str:
    """A package name as PEP 503 compares it.

    >>> normalised("Jaraco.Classes_x")
    'jaraco-classes-x'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def check() -> None:
    """Fail where a supported Python needs a package that the lock does not pin."""
    pinned = {normalised(re.split(r"[=;\[ ]", line)[0]) for line in LOCK.read_text().splitlines()}
    for python_version in PYTHON_VERSIONS:
        names = resolved_names(python_version)
        loose = sorted(name for name in names if name not in pinned and not CUDA_PACKAGE.match(name))
        if loose:
            raise SystemExit(f"Python {python_version}: not pinned: {', '.join(loose)}; run `make lock`")
        print(f"Python {python_version}: {len(names)} packages resolve, every one pinned (CUDA by torch itself)")


if __name__ == "__main__":
    {"write": write, "check": check}[sys.argv[1]]()
