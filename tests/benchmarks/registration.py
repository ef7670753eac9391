"""padflow's registration beside ANTs': similarity on real scans, error in mm where it is known, CPU time and memory.

`python -m tests.benchmarks.registration [--fresh]`. ANTs gets an environment of its own under `bench/` and what a user
would give it: the scan as it is (a raw head with its skull) and the skull-stripped template; for raw heads also, as a
reference, the template's brain as its mask. It needs about a minute per scan, so that its results are kept under
`bench/` until `--fresh` removes them; the timed scan is registered by both tools in the same run, in turns.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from scipy import ndimage

from tasks.science.imaging.template import MNI_FILES
from tests.benchmarks.registration_judge import Reference, distance_mm, similarity
from tests.benchmarks.registration_scans import Case, all_cases
from tests.benchmarks.rows import Row

PROJECT = Path(__file__).resolve().parents[2]
SHARED_DATA = PROJECT.parent / "shared" / "data"
FOLDER = PROJECT / "bench" / "registration"
ANTSPYX = "antspyx==0.6.3"
PADFLOW, ANTS, ANTS_FAST, ANTS_MASKED = "padflow", "ANTs Affine", "ANTs AffineFast", "ANTs Affine, brain mask"
CPU_BAR, PEAK_BAR_MIB = 6.0, 1536.0


def rows() -> list[Row]:
    """Measure, keep the tables of every scan under `bench/`, and give the rows of the README's table."""
    if not SHARED_DATA.is_dir():
        print(f"{SHARED_DATA} is absent: no real scans to register")
        return []
    cases = all_cases(SHARED_DATA, FOLDER / "scans")
    cost = timed(cases[0])
    similarities, errors, consistencies = judged(cases)
    for name, table in (("similarity", similarities), ("error", errors), ("consistency", consistencies)):
        table.to_csv(FOLDER / f"{name}.tsv", sep="\t", index=False, float_format="%.4f")
        print(table.to_string(index=False, float_format="%.4f"))
    return [*cost, *similarity_rows(similarities), *error_rows(errors, consistencies)]


def timed(case: Case) -> list[Row]:
    """Both tools on one scan, in turns: what else the machine does then touches both."""
    found = [registered(case, tool, f"timed-{turn}") for turn in (1, 2) for tool in (PADFLOW, ANTS)]
    padflow, ants = found[::2], found[1::2]
    cold_s = float(np.mean([one["first_cpu_s"] for one in padflow]))
    ours_s, theirs_s = (float(np.mean([one["cpu_s"] for one in tool])) for tool in (padflow, ants))
    peak_mib = max(one["peak_mib"] for one in padflow)
    ratio = theirs_s / ours_s
    return [
        Row(
            "one real 1 mm T1w, the whole recipe, one thread",
            f"≤ 1/{CPU_BAR:.0f} of ANTs `Affine`'s CPU time",
            f"1/{ratio:.1f}: {ours_s:.1f} s against {theirs_s:.1f} s",
            ratio >= CPU_BAR,
            f"a worker's first scan also reads the template: {cold_s:.1f} s",
        ),
        Row(
            "memory of a worker on a 1 mm scan",
            "peak ≤ 1.5 GiB, and returned",
            f"peak {peak_mib:.0f} MiB, {padflow[0]['left_mib']:.0f} MiB after it with the template",
            peak_mib <= PEAK_BAR_MIB,
        ),
    ]


def judged(cases: list[Case]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Every case under every tool: similarities, errors to planted truths, consistency under a known move."""
    reference = mni_reference()
    found = {case.name: {tool: transform(case, tool) for tool in tools(case)} for case in cases}
    similarities, errors, consistencies = [], [], []
    for case in cases:
        transforms = {tool: matrix for tool, matrix in found[case.name].items() if matrix is not None}
        about = {"scan": case.name, "group": case.group}
        if case.truth is not None:
            for tool, matrix in transforms.items():
                mean_mm, worst_mm = distance_mm(matrix, case.truth, reference)
                errors.append({**about, "tool": tool, "mean_mm": mean_mm, "worst_mm": worst_mm})
        elif case.moved_from is not None:
            original, known = case.moved_from
            for tool, matrix in transforms.items():
                mean_mm, worst_mm = distance_mm(matrix @ known, found[original][tool], reference)
                consistencies.append({**about, "tool": tool, "mean_mm": mean_mm, "worst_mm": worst_mm})
        else:
            image = nib.load(case.path)
            volume = np.asarray(image.dataobj, dtype=np.float32)
            for tool, (ncc, mi) in similarity(volume, image.affine, transforms, reference).items():
                similarities.append({**about, "tool": tool, "ncc": ncc, "mi": mi})
    return pd.DataFrame(similarities), pd.DataFrame(errors), pd.DataFrame(consistencies)


def similarity_rows(table: pd.DataFrame) -> list[Row]:
    """Paired differences over the adults' real scans; infants' contrast is not the template's, so they only inform."""
    adults = table[table["group"] != "infant"]
    made = []
    for measure, name in (("ncc", "NCC"), ("mi", "mutual information")):
        wide = adults.pivot_table(index="scan", columns="tool", values=measure, sort=False)
        apart = (wide[PADFLOW] - wide[ANTS]).dropna()
        groups = adults.drop_duplicates("scan").set_index("scan")["group"][apart.index]
        by_group = "; ".join(f"{group} {apart[groups == group].mean():+.4f}" for group in groups.unique())
        masked = (wide[PADFLOW] - wide[ANTS_MASKED]).dropna()
        made.append(
            Row(
                f"{name} with the template, {len(apart)} real scans",
                "no worse than ANTs `Affine`",
                f"{wide[PADFLOW].mean():.4f} against {wide.loc[apart.index, ANTS].mean():.4f}",
                bool(apart.mean() >= 0),
                f"paired difference {apart.mean():+.4f}, worst {apart.min():+.4f} ({apart.idxmin()}), "
                f"{(apart >= 0).sum()} of {len(apart)} no lower; {by_group}; "
                f"to ANTs with the template's brain as its mask, {len(masked)} raw heads: "
                f"median {masked.median():+.4f}, worst {masked.min():+.4f}",
            )
        )
    return made


def error_rows(errors: pd.DataFrame, consistencies: pd.DataFrame) -> list[Row]:
    """Errors in mm: on phantoms with planted transforms, and how well real scans follow a known move."""
    made = []
    for group, table in [*errors.groupby("group"), ("real scans, moved by a known affine", consistencies)]:
        by_tool = table.groupby("tool")[["mean_mm", "worst_mm"]].agg({"mean_mm": "mean", "worst_mm": "max"})
        ours, theirs = by_tool.loc[PADFLOW], by_tool.loc[ANTS]
        others = by_tool.drop([PADFLOW, ANTS])["mean_mm"]
        made.append(
            Row(
                f"registration error, {group} ({table['scan'].nunique()})",
                "no worse than ANTs `Affine`",
                f"{ours['mean_mm']:.2f} mm (worst point {ours['worst_mm']:.1f}) "
                f"against {theirs['mean_mm']:.2f} mm ({theirs['worst_mm']:.1f})",
                bool(ours["mean_mm"] <= theirs["mean_mm"]),
                "; ".join(f"{tool} {mean_mm:.2f} mm" for tool, mean_mm in others.items()),
            )
        )
    return made


def tools(case: Case) -> list[str]:
    """Who registers a case."""
    return [PADFLOW, ANTS, ANTS_FAST, *([ANTS_MASKED] if case.group in ("raw head", "phantom head") else [])]


def transform(case: Case, tool: str) -> np.ndarray | None:
    """The scan's RAS+ mm to MNI; None where the tool gives none."""
    found = registered(case, tool)
    return np.array(found["to_mni"]) if "to_mni" in found else None


def registered(case: Case, tool: str, run: str = "kept") -> dict[str, Any]:
    """Register a scan by one tool in a process of its own; ANTs' results are kept, padflow's and timed ones are not."""
    result = FOLDER / tool.replace(" ", "-").replace(",", "") / f"{case.name.replace(' ', '_')}-{run}.json"
    if tool != PADFLOW and run == "kept" and result.exists():
        return dict(json.loads(result.read_text()))
    result.parent.mkdir(parents=True, exist_ok=True)
    if tool == PADFLOW:
        command = [sys.executable, "-m", "tests.benchmarks.registration_padflow", str(case.path), str(result)]
        command += ["1" if run == "kept" else "2"]
    else:
        script = Path(__file__).with_name("registration_ants.py")
        kind = "AffineFast" if tool == ANTS_FAST else "Affine"
        command = [str(ants_python()), str(script), kind, str(template_path()), str(case.path), str(result)]
        command += [str(brain_mask())] if tool == ANTS_MASKED else []
    subprocess.run(command, check=True, cwd=PROJECT)
    return dict(json.loads(result.read_text()))


def ants_python() -> Path:
    """The interpreter of ANTs' environment, which is made where it is missing."""
    environment = FOLDER / "ants"
    python = environment / "bin" / "python"
    if not (environment / ".installed").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", ANTSPYX], check=True)
        (environment / ".installed").touch()
    return python


def template_path() -> Path:
    """MNI's T1w as a file, in nilearn's folder."""
    package = find_spec("nilearn")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("nilearn carries the MNI template; install it (nilearn>=0.14)")
    return Path(package.submodule_search_locations[0]) / "datasets" / "data" / MNI_FILES["t1"]


def mni_reference() -> Reference:
    """The template that judges, read apart from padflow's own reader."""
    image = nib.load(template_path())
    volume = np.asarray(image.dataobj, dtype=np.float32)
    return Reference(volume, image.affine, ndimage.binary_fill_holes(volume > 0))


def brain_mask() -> Path:
    """The template's brain as a file for ANTs."""
    path = FOLDER / "brain_mask.nii.gz"
    if not path.exists():
        reference = mni_reference()
        nib.save(nib.Nifti1Image(reference.brain.astype(np.uint8), reference.affine), path)
    return path


def main() -> None:
    """Measure and print."""
    if "--fresh" in sys.argv[1:]:
        for tool in (ANTS, ANTS_FAST, ANTS_MASKED):
            shutil.rmtree(FOLDER / tool.replace(" ", "-").replace(",", ""), ignore_errors=True)
    for row in rows():
        print(f"{row.what}: {row.found} (bar: {row.bar or 'none'}; met: {row.met}) {row.note}")


if __name__ == "__main__":
    main()
