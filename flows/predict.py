"""Brain age of new scans by a registered model, without a study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from flows.progress_bars import counter, progress_bars
from infra import registry, tracking
from infra.settings import Settings


def predict_images(settings: Settings, model_uri: str, images: Sequence[str], age_years: float | None) -> pd.DataFrame:
    """Predict raw scans one by one; an image that cannot be used is a row with a reason.

    Args:
        settings: Where the registry is.
        model_uri: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        images: Paths or URLs of NIfTI files.
        age_years: Chronological age of the subject, where all images are of one subject; gives brain-PAD too.

    Returns:
        One row per image: predicted age, spread, brain-PAD, `status` and `reason`.
    """
    tracking.connect(settings)
    model = registry.load(model_uri)
    located = [image if "://" in image else str(Path(image).absolute()) for image in images]
    inputs = pd.DataFrame({"image": located})
    if age_years is not None:
        inputs["age_years"] = float(age_years)
    with progress_bars() as progress:
        outputs = registry.predict(model, inputs, counter(progress, "predict")(len(inputs)))
    return pd.concat([pd.DataFrame({"image": list(images)}), outputs.reset_index(drop=True)], axis=1)
