"""One of every kind of bad scan."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np


def spoil(cohort: Path) -> dict[str, str]:
    """Put one of every kind of bad scan into a phantom cohort.

    Returns:
        Participant → a part of the reason that must be given.
    """
    scans = sorted(cohort.glob("sub-*/anat/*_T1w.nii.gz"))
    corrupt, truncated, series, zero, ageless, repeated = scans[:6]
    corrupt.write_bytes(b"this is no image " * 100)
    truncated.write_bytes(truncated.read_bytes()[: truncated.stat().st_size // 2])
    image = nibabel.nifti1.load(series)
    volume = np.asarray(image.dataobj)
    nibabel.nifti1.save(nibabel.nifti1.Nifti1Image(np.stack([volume] * 3, axis=-1), image.affine), series)
    image = nibabel.nifti1.load(zero)
    nibabel.nifti1.save(nibabel.nifti1.Nifti1Image(np.zeros(image.shape, np.int16), image.affine), zero)
    table = cohort / "participants.tsv"
    lines = table.read_text().splitlines()
    position = lines[0].split("\t").index("age")
    for number, line in enumerate(lines):
        cells = line.split("\t")
        if cells[0] == subject_of(ageless):
            cells[position] = "n/a"
            lines[number] = "\t".join(cells)
    table.write_text("\n".join(lines) + "\n")
    second = repeated.with_name(repeated.name.replace("_T1w", "_run-2_T1w"))
    image = nibabel.nifti1.load(repeated)
    # A true repeat: the same head in other bytes.
    again = np.asarray(image.dataobj, dtype=np.float32) * np.float32(1.01)
    nibabel.nifti1.save(nibabel.nifti1.Nifti1Image(again, image.affine), second)
    repeated.rename(repeated.with_name(repeated.name.replace("_T1w", "_run-1_T1w")))
    return {
        subject_of(corrupt): "",
        subject_of(truncated): "",
        subject_of(series): "3",
        subject_of(zero): "",
        subject_of(ageless): "age",
        subject_of(repeated): "run",
    }


def subject_of(scan: Path) -> str:
    """The participant whose scan a file is."""
    return scan.name.split("_")[0]
