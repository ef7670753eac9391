"""The 24 real 1 mm T1w scans beside the checkout, where they are."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tasks.records import ScanRef

ROOT = Path(__file__).resolve().parents[3] / "shared" / "data" / "ds002748"
WHY_ABSENT = "The real scans (../shared/data/ds002748) do not stand beside this checkout."


def raw_scans() -> list[Path]:
    """Their files, or none."""
    return sorted(ROOT.glob("sub-*/anat/*_T1w.nii.gz"))


def scan_ref(path: Path) -> ScanRef:
    """The record of a file, as an index would give it."""
    content = path.read_bytes()
    name = path.name.removesuffix(".nii.gz")
    return ScanRef(
        scan_id=f"real/{name}",
        cohort="real",
        participant_id=name.split("_")[0],
        session_id="",
        run="",
        modality="T1w",
        uri=str(path.resolve()),
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
