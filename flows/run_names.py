"""Names of flow runs that say what runs: a list of a month's runs in Prefect is read by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect.runtime import flow_run


def run_name() -> str:
    """The flow's name, the study's, and its profile where it has one: `preprocess my-study#tiny`."""
    return named(str(flow_run.get_flow_name()), dict(flow_run.get_parameters()))


def named(flow_name: str, parameters: dict[str, Any]) -> str:
    """Say what a run of these parameters is about.

    >>> named("train", {"study_path": "/studies/my-study.toml#tiny"})
    'train my-study#tiny'
    >>> named("retraining", {"study": "my-study", "profile": None})
    'retraining my-study'
    """
    path, _, profile = str(parameters.get("study_path") or parameters.get("study") or "").partition("#")
    profile = profile or str(parameters.get("profile") or "")
    return " ".join(filter(None, [flow_name, Path(path).stem + (f"#{profile}" if profile else "")]))
