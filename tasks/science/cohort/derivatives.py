"""Prepared scans as a BIDS derivatives data set: names and what stands beside each image.

Names are made of checked labels only, so that no table and no sidecar can lead a file out of its folder.

Reference: BIDS 1.10, "Derivatives"; transforms are named as in BEP 014, which fMRIPrep follows too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .bids import ENTITY, ENTITY_ORDER
from .problems import quoted
from .subject_tables import LABEL

BIDS_VERSION = "1.10.0"
NAME_ORDER = ("sub", "ses", *ENTITY_ORDER[:-1], "from", "to", "mode", "space", "chunk", "desc")
# BIDS has no suffix for the ratio of two contrasts; as a T1w, readers would take it for one.
CHANNEL_SUFFIXES = {"ratio": "T1wT2wratio"}
CHANNEL_TEXTS = {"ratio": "Ratio of T1w to T2w"}
CHANNEL_CONTRASTS = {"ratio": ("T1w", "T2w")}
BIDS_IGNORE = "quality.tsv\nexcluded.tsv\n*_xfm.txt\n*_xfm.json\n*_T1wT2wratio.nii.gz\n*_T1wT2wratio.json\n"
XFM_TEXT = (
    "ITK affine in text, RAS to LPS turned as ITK wants it: maps points of the template (LPS+ mm) to points of the "
    "source image, so that antsApplyTransforms -i SOURCE -r TEMPLATE -t THIS and SimpleITK's Resample bring the source "
    "image to the template. It holds where a tool places the source image by SourceAffineRAS: in a file whose sform "
    "and qform disagree, padflow goes by the sform, and ITK may go by the other."
)


class DerivativeNames:
    """Where the files of one scan lie below the data set's root."""

    def __init__(self, scan_id: str, space: str, reference: str = "") -> None:
        """Take a scan's name apart.

        Args:
            scan_id: `cohort/` and the scan's BIDS name.
            space: Name of the template space; characters that a label cannot hold are left out.
            reference: Suffix of the image that was registered to the template; the scan's own where none is given.

        Raises:
            ValueError: The name is not made of BIDS labels.
        """
        *pairs, own_suffix = scan_id.rsplit("/", 1)[-1].split("_")
        self.reference = reference or own_suffix
        matches = [ENTITY.fullmatch(pair) for pair in pairs]
        self.entities = {match[1]: match[2] for match in matches if match}
        unknown = set(self.entities) - {"sub", "ses", *ENTITY_ORDER}
        sound = len(self.entities) == len(pairs) and "sub" in self.entities and not unknown
        if not sound or not all(re.fullmatch(LABEL, suffix) for suffix in (own_suffix, self.reference)):
            raise ValueError(f"scan {quoted(scan_id)} has no BIDS name to derive others from; index its cohort again")
        self.space = re.sub("[^A-Za-z0-9]", "", space)[:64]
        if not self.space:
            raise ValueError(f"the template's name {quoted(space)} has no letter or digit; name it in the recipe")

    def image(self, channel: str) -> str:
        """A channel's volume, without its ending."""
        suffix = CHANNEL_SUFFIXES.get(channel, channel)
        if not re.fullmatch(LABEL, suffix):
            raise ValueError(f"channel {quoted(channel)} cannot stand in a file name; expected letters and digits")
        return self._path({"space": self.space, "desc": "preproc"}, suffix)

    @property
    def mask(self) -> str:
        """The brain mask, without its ending."""
        return self._path({"space": self.space, "desc": "brain"}, "mask")

    @property
    def transform(self) -> str:
        """The affine from the image that was registered to the template, without its ending."""
        return self._path({"from": self.reference, "to": self.space, "mode": "image"}, "xfm")

    def _path(self, more: Mapping[str, str], suffix: str) -> str:
        entities = {**self.entities, **more}
        name = "_".join([*(f"{key}-{entities[key]}" for key in NAME_ORDER if key in entities), suffix])
        folders = [f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities]
        return "/".join([*folders, "anat", name])


def image_notes(channel: str, sources: Sequence[str], sidecar: Mapping[str, Any]) -> dict[str, Any]:
    """Say what a prepared volume is, for people and tools that know nothing of padflow.

    Args:
        channel: Which contrast it shows.
        sources: Paths of the raw images below the cohort's root.
        sidecar: How the scan was prepared.

    Returns:
        Fields of BIDS derivatives.
    """
    shown = CHANNEL_TEXTS.get(channel, channel)
    unit = "in units of its median over the brain" if channel == "ratio" else "z-scores within the brain"
    return {
        "Description": f"{shown}, bias-corrected, resampled once to the template's grid; {unit}",
        "SpatialReference": sidecar["space"],
        "Sources": bids_uris(sources),
        "SkullStripped": True,
        "Units": "arbitrary",
        "Resolution": f"{abs(sidecar['affine'][0][0]):g} mm isotropic",
    }


def sources_of(channel: str, paths: Mapping[str, str], reference: str) -> list[str]:
    """Which raw images a volume shows, and last the one by which it was placed.

    >>> sources_of("ratio", {"T1w": "a_T1w.nii.gz", "T2w": "a_T2w.nii.gz"}, "T1w")
    ['a_T1w.nii.gz', 'a_T2w.nii.gz']
    >>> sources_of("FLAIR", {"T1w": "a_T1w.nii.gz", "FLAIR": "a_FLAIR.nii.gz"}, "T1w")
    ['a_FLAIR.nii.gz', 'a_T1w.nii.gz']

    Args:
        channel: Which contrast the volume shows.
        paths: BIDS suffix to the path of each raw image that the scan is prepared from.
        reference: Suffix of the image that was registered to the template.
    """
    contrasts = dict.fromkeys([*CHANNEL_CONTRASTS.get(channel, (channel,)), reference])
    return [paths[contrast] for contrast in contrasts if contrast in paths]


def mask_notes(sources: Sequence[str], sidecar: Mapping[str, Any]) -> dict[str, Any]:
    """Say where a brain mask comes from."""
    return {
        "Description": "Where the prepared volumes are not 0, holes filled",
        # Scans prepared by an older recipe are stripped, and do not say so.
        "Type": "Brain" if sidecar.get("recipe", {}).get("skull_strip", True) else "ROI",
        "SpatialReference": sidecar["space"],
        "Sources": bids_uris(sources),
        "Resolution": f"{abs(sidecar['affine'][0][0]):g} mm isotropic",
        "MaskKind": sidecar["mask_kind"],
    }


def transform_notes(sources: Sequence[str], sidecar: Mapping[str, Any]) -> dict[str, Any]:
    """Say which way a transform maps, which its file cannot."""
    return {
        "Description": XFM_TEXT,
        "Sources": bids_uris(sources),
        "SpatialReference": sidecar["space"],
        "SourceAffineRAS": sidecar["native_affine"],
        "SourceToTemplateRAS": sidecar["native_to_mni"],
    }


def bids_uris(paths: Sequence[str]) -> list[str]:
    """Name raw images so that a reader finds them wherever the raw data set stands.

    >>> bids_uris(["sub-01/anat/sub-01_T1w.nii.gz"])
    ['bids:raw:sub-01/anat/sub-01_T1w.nii.gz']
    """
    return [f"bids:raw:{path}" for path in paths]


def dataset_description(cohort: str, study: str, version: str, root_uri: str) -> dict[str, Any]:
    """Describe one cohort's derivatives.

    Args:
        cohort: The cohort's name.
        study: The study's name.
        version: padflow's version.
        root_uri: URI of the raw data set, free of credentials.
    """
    made_by = {"Name": "padflow", "Version": version, "Description": f"padflow export of study {study}"}
    return {
        "Name": f"{cohort}: scans prepared for the study {study}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [made_by],
        "SourceDatasets": [{"URL": root_uri}],
        "DatasetLinks": {"raw": root_uri},
        "PadflowStudy": study,
    }


def readme(cohort: str, study: str, counts: Mapping[str, int]) -> str:
    """Say in words what lies in a cohort's derivatives, and what became of every indexed scan.

    Args:
        cohort: The cohort's name.
        study: The study's name.
        counts: Scans that are `indexed`, `prepared`, `excluded`, `unused` and `missing`.
    """
    return f"""# {cohort}: scans prepared for the study {study}

BIDS derivatives, written by `padflow export`. Of {counts["indexed"]} indexed scans {counts["prepared"]} are here;
{counts["excluded"]} were excluded, {counts["unused"]} not asked for and {counts["missing"]} not prepared yet.

- `*_desc-preproc_*.nii.gz`: z-scores within the brain, 0 outside, float32, on the template's grid. The suffix is the
  contrast; `T1wT2wratio` is the ratio image, for which BIDS has no suffix, in units of its median over the brain.
- `*_desc-brain_mask.nii.gz`: 1 inside the brain.
- `*_xfm.txt`: the affine from the raw image to the template, an ITK text file (LPS+ mm, template to raw points):
  `antsApplyTransforms -d 3 -i RAW -r PREPARED -t XFM -o OUT`.
- The JSON beside each file says from which raw image it was made, how, and how good it is.
- `participants.tsv` and `sub-*/sub-*_sessions.tsv`: the people whose scans are here.
- `quality.tsv`: one row per scan that is here. `excluded.tsv`: one row per scan that is not, with the reason.

Together, `quality.tsv` and `excluded.tsv` have one row per indexed scan.
"""
