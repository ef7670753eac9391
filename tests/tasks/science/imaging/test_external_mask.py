"""Installed tools are run as programs of their own: found beforehand, bounded in time, and not believed blindly.

Their networks' weights cannot be part of a test: programs of the same names and arguments stand in for them.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tasks.records import ScanRejected
from tasks.science.imaging.external_mask import ExternalTool, external_mask, find_program, tool_version

COMMANDS: dict[ExternalTool, str] = {"hd-bet": "hd-bet", "synthstrip": "mri_synthstrip"}
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
AFFINE[:3, 3] = (-90, -100, -80)
AXES = np.indices((60, 70, 60)).astype(np.float32)
BALL = ((AXES - np.array([27, 35, 30]).reshape(3, 1, 1, 1)) ** 2).sum(axis=0) < 20**2  # 905 mL.
HEAD = np.where(BALL, 100, 10).astype(np.float32)

# What the tools document: HD-BET writes the mask beside -o, SynthStrip to -m.
STAND_IN = """#!{python}
import sys
import nibabel as nib
import numpy as np
options = dict(zip(sys.argv[1:], sys.argv[2:]))
mask = options.get("-m") or options["-o"].replace(".nii.gz", "_bet.nii.gz")
assert "-m" in options or {{"--save_bet_mask", "--no_bet_image", "--disable_tta"}} <= set(sys.argv)
image = nib.load(options["-i"])
brain = (np.asarray(image.dataobj) > 50).astype(np.uint8)
{change}
nib.save(nib.Nifti1Image(brain, affine), mask)
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, command: str, text: str) -> Path:
    program = folder / command
    program.write_text(text)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return program


def stand_in(change: str = "affine = image.affine") -> str:
    return STAND_IN.format(python=sys.executable, change=change)


@pytest.mark.parametrize("tool", list(COMMANDS))
def test_the_tools_mask_comes_back_on_the_scans_grid(
    tool: ExternalTool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, COMMANDS[tool], stand_in())
    np.testing.assert_array_equal(external_mask(HEAD, AFFINE, tool), BALL)


def test_axes_that_the_tool_turned_are_turned_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The same mask as a LAS image, as tools that think in that order write it.
    change = "affine = image.affine @ np.diag([-1.0, 1, 1, 1]); affine[0, 3] += 3 * 59; brain = brain[::-1]"
    install(tmp_path, monkeypatch, "hd-bet", stand_in(change))
    np.testing.assert_array_equal(external_mask(HEAD, AFFINE, "hd-bet"), BALL)


def test_a_missing_tool_is_said_before_any_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"hd-bet: pip install hd-bet"):
        find_program("hd-bet")
    with pytest.raises(ValueError, match=r"mri_synthstrip: install FreeSurfer .* nipreps-synthstrip: pip install"):
        external_mask(HEAD, AFFINE, "synthstrip")
    with pytest.raises(ValueError, match="no brain mask tool 'bet'; known are hd-bet, synthstrip"):
        find_program("bet")  # type: ignore[arg-type]


def test_the_other_synthstrip_serves_where_freesurfer_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "nipreps-synthstrip", stand_in())
    np.testing.assert_array_equal(external_mask(HEAD, AFFINE, "synthstrip"), BALL)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("raise SystemExit('no CUDA,\\x1b[31m no luck')", r"hd-bet failed with code 1: no CUDA,\[31m no luck"),
        ("sys.exit(0)", "ended well and wrote no mask"),
        ("affine = image.affine; brain[:] = 0", "wrote no usable mask"),
        ("affine = image.affine; brain[:] = 1; brain[0] = 0", "found a brain of 66"),
        ("affine = image.affine; brain[:] = 0; brain[:5, :5, :5] = 1", "found a brain of 3 mL"),
        ("affine = image.affine; brain = brain[1:]", "does not lie over the scan"),
        ("affine = image.affine.copy(); affine[0, 3] += 3", "does not lie over the scan"),
    ],
)
def test_a_tool_that_fails_costs_the_scan_and_says_why(
    change: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "hd-bet", stand_in(change))
    with pytest.raises(ScanRejected, match=reason) as said:
        external_mask(HEAD, AFFINE, "hd-bet")
    assert said.value.stage == "mask"


def test_a_tool_that_hangs_is_stopped_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traces = tmp_path / "child"
    text = f"#!/bin/sh\n(while :; do echo alive >> {traces}; /bin/sleep 0.1; done) &\nwait\n"
    install(tmp_path, monkeypatch, "hd-bet", text)
    begun = time.monotonic()
    with pytest.raises(ScanRejected, match=r"did not end within 1\.5 s"):
        external_mask(HEAD, AFFINE, "hd-bet", time_limit_s=1.5)
    assert time.monotonic() - begun < 20
    size = traces.stat().st_size
    time.sleep(0.5)
    assert traces.stat().st_size == size


def test_the_version_is_part_of_what_names_an_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = install(tmp_path, monkeypatch, "hd-bet", stand_in())
    first = tool_version("hd-bet")
    assert first.startswith("hd-bet sha256 ")
    program.write_text(stand_in() + "# another\n")
    assert tool_version("hd-bet") != first
    stamp = tmp_path / "build-stamp.txt"
    stamp.write_text("freesurfer-linux-ubuntu22_x86_64-7.4.1\n")
    install(tmp_path, monkeypatch, "mri_synthstrip", stand_in())
    monkeypatch.setenv("FREESURFER_HOME", str(tmp_path))
    assert tool_version("synthstrip") == "mri_synthstrip freesurfer-linux-ubuntu22_x86_64-7.4.1"
