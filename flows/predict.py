"""Brain age of new scans by a registered model, without a study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pandas as pd

from flows.progress_bars import counter, progress_bars
from infra import registry, tracking
from infra.image_roots import recordable
from infra.settings import Settings
from tasks.records import Contrast


def predict_images(settings: Settings, model_uri: str, images: Sequence[str], age_years: float | None) -> pd.DataFrame:
    """Predict raw scans one by one; an image that cannot be used is a row with a reason.

    Args:
        settings: Where the registry is.
        model_uri: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        images: Paths or URLs of NIfTI files; `T1w=PATH,T2w=PATH` where the model needs several images of a session.
        age_years: Chronological age of the subject, where all images are of one subject; gives brain-PAD too.

    Returns:
        One row per image: predicted age, spread, brain-PAD, `status`, `reason`, quality, and which model said it.
    """
    client = tracking.connect(settings)
    named = [session_images(image) for image in images]
    # The files that the user names are theirs to read, and nothing beside them.
    version = registry.exact_version(client, model_uri)
    model = registry.load(version, recordable(uri for session in named for uri in session.values()))
    inputs = pd.DataFrame(named).astype(object)
    inputs = inputs.where(inputs.notna(), None)
    if age_years is not None:
        inputs["age_years"] = float(age_years)
    with progress_bars() as progress:
        outputs = registry.predict(model, inputs, counter(progress, "predict")(len(inputs)))
    told = outputs.reset_index(drop=True).assign(model_version=version)
    return pd.concat([pd.DataFrame({"image": list(images)}), told], axis=1)


def session_images(image: str) -> dict[str, str]:
    """Read what a user named: one file, or one per contrast.

    >>> session_images("s3://site/sub-01_T1w.nii.gz")
    {'image': 's3://site/sub-01_T1w.nii.gz'}
    >>> session_images("T1w=s3://site/a.nii.gz,T2w=s3://site/b.nii.gz")
    {'T1w': 's3://site/a.nii.gz', 'T2w': 's3://site/b.nii.gz'}
    """
    pairs = [part.partition("=")[::2] for part in image.split(",")]
    named = dict(pairs) if all(contrast in get_args(Contrast) for contrast, _ in pairs) else {"image": image}
    return {contrast: uri if "://" in uri else str(Path(uri).absolute()) for contrast, uri in named.items()}
