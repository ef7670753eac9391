"""One affine registration by ANTs, in ANTs' own environment: imports nothing of padflow, since ANTs pins older numpy.

Run as `python registration_ants.py KIND TEMPLATE SCAN RESULT [MASK]`. The result is JSON: the scan's RAS+ mm to the
template's, row by row, and the CPU seconds of the registration alone (reading the images is not counted).
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path

os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
os.environ["ANTS_RANDOM_SEED"] = "1"

import ants
import numpy as np

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def scan_to_template(transform_file: str) -> np.ndarray:
    """Turn ITK's affine, which takes the fixed image's points to the moving one's in LPS, around and into RAS+ mm."""
    transform = ants.read_transform(transform_file)
    numbers, centre = np.array(transform.parameters), np.array(transform.fixed_parameters)
    to_scan = np.eye(4)
    to_scan[:3, :3] = numbers[:9].reshape(3, 3)
    to_scan[:3, 3] = numbers[9:] + centre - to_scan[:3, :3] @ centre
    return np.linalg.inv(LPS_TO_RAS @ to_scan @ LPS_TO_RAS)


def main(kind: str, template: str, scan: str, result: str, mask: str | None = None) -> None:
    """Register and write the result."""
    ants.config._random_seed = 1
    fixed, moving = ants.image_read(template), ants.image_read(scan)
    options = {"mask": ants.image_read(mask), "mask_all_stages": True} if mask else {}
    start = time.process_time()
    found = ants.registration(fixed, moving, type_of_transform=kind, **options)
    cpu_s = time.process_time() - start
    matrix = scan_to_template(next(name for name in found["fwdtransforms"] if name.endswith(".mat")))
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    Path(result).write_text(json.dumps({"to_mni": matrix.tolist(), "cpu_s": cpu_s, "peak_mib": peak_mib}))


if __name__ == "__main__":
    main(*sys.argv[1:])
