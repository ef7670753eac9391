"""Brain masks by tools that a user has installed: HD-BET or SynthStrip, run as programs of their own.

They carry networks of hundreds of megabytes, under licences and with dependencies of their own; padflow asks for the
program on PATH only, so that nothing of them is needed by those who use the template's mask.

References: Isensee et al. 2019, doi:10.1002/hbm.24750 (HD-BET); Hoopes et al. 2022,
doi:10.1016/j.neuroimage.2022.119474 (SynthStrip).
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np

from ...records import ScanRejected
from ..arrays import Affine, Mask, Volume
from .nifti import read_volume
from .orientation import to_ras

ExternalTool = Literal["hd-bet", "synthstrip"]

TIME_LIMIT_S = 900.0
LEAST_BRAIN_ML, LARGEST_BRAIN_ML = 150.0, 2500.0  # Newborns have 300 to 400 mL; the largest adults 2,000.
GRID_TOLERANCE_MM = 0.01
LAST_BYTES = 4000


@dataclass(frozen=True)
class Program:
    """How a tool is called.

    Attributes:
        command: What must be on PATH.
        package: The Python package that tells its version, if it is one.
        install: How to get it.
        arguments: From the scan's file and the mask's file to a list of arguments.
    """

    command: str
    package: str
    install: str
    arguments: Callable[[Path, Path], list[str]]


def _hd_bet(scan: Path, mask: Path) -> list[str]:
    # HD-BET 2 writes the mask beside its output, with _bet before the ending.
    output = mask.with_name(mask.name.replace("_bet.nii.gz", ".nii.gz"))
    flags = ["-device", "cpu", "--disable_tta", "--save_bet_mask", "--no_bet_image"]
    return ["-i", str(scan), "-o", str(output), *flags]


def _synthstrip(scan: Path, mask: Path) -> list[str]:
    return ["-i", str(scan), "-o", str(mask.with_name("stripped.nii.gz")), "-m", str(mask)]


PROGRAMS: dict[ExternalTool, tuple[Program, ...]] = {
    "hd-bet": (Program("hd-bet", "hd_bet", "pip install hd-bet (version 2)", _hd_bet),),
    "synthstrip": (
        Program("mri_synthstrip", "", "install FreeSurfer 7.3 or later", _synthstrip),
        Program("nipreps-synthstrip", "nipreps-synthstrip", "pip install nipreps-synthstrip", _synthstrip),
    ),
}


def find_program(tool: ExternalTool) -> tuple[Program, Path]:
    """Find a tool, before any scan is touched.

    Args:
        tool: As the recipe names it.

    Returns:
        The program and where it is.

    Raises:
        ValueError: There is no such tool, or it is not installed.
    """
    if tool not in PROGRAMS:
        raise ValueError(f"there is no brain mask tool {tool!r}; known are {', '.join(PROGRAMS)}")
    for program in PROGRAMS[tool]:
        if place := shutil.which(program.command):
            return program, Path(place)
    ways = "; or ".join(f"{program.command}: {program.install}" for program in PROGRAMS[tool])
    raise ValueError(
        f"the recipe's mask is {tool!r}, and its command is not on PATH ({ways}); install it on every worker, or set "
        "the recipe's mask to auto"
    )


def tool_version(tool: ExternalTool) -> str:
    """Name what makes the masks, for the recipe's digest: another version gives other masks.

    Args:
        tool: As the recipe names it.

    Returns:
        Command and version; where the program tells none, the beginning of the SHA-256 of its file.

    Raises:
        ValueError: It is not installed.
    """
    program, place = find_program(tool)
    content = place.read_bytes()
    version = _package_version(content, program.package) if program.package else _freesurfer_version()
    return f"{program.command} {version or 'sha256 ' + hashlib.sha256(content).hexdigest()[:16]}"


def external_mask(volume: Volume, affine: Affine, tool: ExternalTool, time_limit_s: float = TIME_LIMIT_S) -> Mask:
    """Let an installed tool tell the brain in a raw head.

    Args:
        volume: In RAS+ order, which HD-BET needs, scanner intensities, shape (i, j, k).
        affine: Voxel indices to RAS+ mm.
        tool: As the recipe names it.
        time_limit_s: After that long it is stopped, with all that it started.

    Returns:
        True inside the brain, shape (i, j, k).

    Raises:
        ValueError: The tool is not installed.
        ScanRejected: It failed, took too long, or gave no mask of this scan.
    """
    program, place = find_program(tool)
    with tempfile.TemporaryDirectory(prefix="padflow-mask-") as folder:
        scan, mask = Path(folder) / "scan.nii.gz", Path(folder) / "mask_bet.nii.gz"
        image = nib.Nifti1Image(np.asarray(volume, dtype=np.float32), affine)
        image.set_sform(affine, 1)
        scan.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))
        _run([str(place), *program.arguments(scan, mask)], program.command, Path(folder), time_limit_s)
        if not mask.is_file():
            raise ScanRejected("mask", f"{program.command} ended well and wrote no mask; run it by hand on this scan")
        content = mask.read_bytes()
    return _checked(content, volume.shape, affine, program.command)


def _run(command: list[str], name: str, folder: Path, time_limit_s: float) -> None:
    """Run in a session of its own, with its words in a file: its children may outlive it and would hold a pipe open."""
    said = folder / "said.txt"
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), "1")
    with said.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=os.environ | threads,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=time_limit_s)
        except subprocess.TimeoutExpired:
            raise ScanRejected("mask", f"{name} did not end within {time_limit_s:g} s; run it by hand") from None
        finally:
            _end(process)
    if code != 0:
        raise ScanRejected("mask", f"{name} failed with code {code}: {_last_line(said)}")


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        process.wait()


def _last_line(said: Path) -> str:
    lines = said.read_bytes()[-LAST_BYTES:].decode(errors="replace").split("\n")
    printable = ("".join(c for c in line if c.isprintable()).strip() for line in reversed(lines))
    return next((line[:300] for line in printable if line), "it said nothing")


def _checked(content: bytes, shape: tuple[int, ...], affine: Affine, name: str) -> Mask:
    try:
        found, found_affine = to_ras(*read_volume(content))
    except ScanRejected as rejection:
        raise ScanRejected("mask", f"{name} wrote no usable mask: {rejection.reason}") from rejection
    if found.shape != shape or np.abs(found_affine - affine).max() > GRID_TOLERANCE_MM:
        raise ScanRejected(
            "mask",
            f"{name} wrote a mask of {found.shape} voxels that does not lie over the scan of {tuple(shape)}; "
            "run it by hand",
        )
    brain = found > 0.5
    volume_ml = float(brain.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000.0)
    if not LEAST_BRAIN_ML <= volume_ml <= LARGEST_BRAIN_ML:
        raise ScanRejected(
            "mask",
            f"{name} found a brain of {volume_ml:.0f} mL; {LEAST_BRAIN_ML:.0f} to {LARGEST_BRAIN_ML:.0f} mL are "
            "possible; look at the scan",
        )
    return brain


def _package_version(content: bytes, package: str) -> str:
    """Ask the Python that the program's first line names: it is seldom padflow's own."""
    first = content.split(b"\n", 1)[0].decode(errors="replace")
    if not first.startswith("#!") or "python" not in first:
        return ""
    asked = f"import importlib.metadata as m; print(m.version({package!r}))"
    try:
        answer = subprocess.run([*first[2:].split(), "-c", asked], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def _freesurfer_version() -> str:
    stamp = Path(os.environ.get("FREESURFER_HOME", "/nowhere")) / "build-stamp.txt"
    return stamp.read_text(errors="replace").strip() if stamp.is_file() else ""
