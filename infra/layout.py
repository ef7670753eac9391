"""Where everything lies in the store: one function per kind of object, so that no key is spelled twice."""

from __future__ import annotations

from importlib.metadata import version

from tasks.records import digest

KEY_LENGTH = 16


def cohort_folder(cohort: str, root: str) -> str:
    """Indexes of one cohort; the root is part of the name, so that two data sets of one name stay apart."""
    return f"cohorts/{cohort}-{digest(root)[:8]}"


def latest_index(cohort: str, root: str) -> str:
    """Which index of a cohort is the newest."""
    return f"{cohort_folder(cohort, root)}/latest.json"


def index_table(cohort: str, root: str, index_digest: str, table: str) -> str:
    """One table (manifest, clinical, problems) of one index."""
    return f"{cohort_folder(cohort, root)}/{index_digest[:KEY_LENGTH]}/{table}.parquet"


def prepared_folder(recipe_digest: str) -> str:
    """Prepared and excluded scans of one recipe, flat, so that one listing tells what is done."""
    return f"prepared/{recipe_digest[:KEY_LENGTH]}"


def prepared_volume(recipe_digest: str, sha256: str) -> str:
    """A prepared volume, `.npy` float16; it counts only with its sidecar."""
    return f"{prepared_folder(recipe_digest)}/{sha256}.npy"


def prepared_sidecar(recipe_digest: str, sha256: str) -> str:
    """What a prepared volume is; written last."""
    return f"{prepared_folder(recipe_digest)}/{sha256}.json"


def excluded_scan(recipe_digest: str, sha256: str) -> str:
    """Why a scan has no prepared volume."""
    return f"{prepared_folder(recipe_digest)}/{sha256}.excluded.json"


def preflight_probe() -> str:
    """What workers write to see whether they may; always the same bytes."""
    return "preflight/probe.txt"


def montage_folder(recipe_digest: str) -> str:
    """Pictures of one recipe; a folder of its own, so that the listing of prepared scans stays short."""
    return f"montages/{recipe_digest[:KEY_LENGTH]}"


def montage(recipe_digest: str, key: str) -> str:
    """The picture of a prepared scan."""
    return f"{montage_folder(recipe_digest)}/{key}.png"


def quality_table(recipe_digest: str, cohort: str, root: str) -> str:
    """Quality figures of a cohort's prepared scans in one object, since ten thousand sidecars take minutes to read."""
    return f"quality/{recipe_digest[:KEY_LENGTH]}/{cohort_folder(cohort, root).removeprefix('cohorts/')}.parquet"


def splits(study: str, key: str) -> str:
    """The persistent parts of a study's training cohort."""
    return f"studies/{study}/splits-{key[:KEY_LENGTH]}.parquet"


def fit_folder(fit_key: str) -> str:
    """A fitted model: weights, reports, curves."""
    return f"fits/{fit_key[:KEY_LENGTH]}"


def fit_record(fit_key: str) -> str:
    """What was fitted; written last."""
    return f"{fit_folder(fit_key)}/fit.json"


def registration(fit_key: str, *registry: str) -> str:
    """Under which version a fit stands in one registry; the registry's address is hashed, as it may hold a password."""
    return f"{fit_folder(fit_key)}/registered-{digest(registry)[:8]}.json"


def all_decisions() -> str:
    """Chains of every model in every registry, a folder each."""
    return "decisions"


def decisions(model: str, registry_digest: str) -> str:
    """Decisions on one model in one registry."""
    return f"{all_decisions()}/{model}-{registry_digest[:8]}"


def decision(folder: str, number: int) -> str:
    """One decision; never written twice."""
    return f"{folder}/{number:06d}.json"


def decision_told(folder: str, number: int) -> str:
    """That the registry shows a decision: the digest of its bytes."""
    return f"{folder}/{number:06d}.told"


def predictions(key: str) -> str:
    """One cohort's predictions by one model."""
    return f"predictions/{key[:KEY_LENGTH]}.parquet"


def validation(key: str) -> str:
    """Metrics of the external cohorts."""
    return f"validations/{key[:KEY_LENGTH]}.parquet"


def validation_table(key: str, name: str, suffix: str) -> str:
    """One of the other tables of a validation: `parquet` to read, `csv` to open."""
    return f"validations/{key[:KEY_LENGTH]}/{name}.{suffix}"


def robustness_table(key: str, name: str, suffix: str) -> str:
    """What became of the scans that were made worse, and how the error grew."""
    return f"robustness/{key[:KEY_LENGTH]}/{name}.{suffix}"


def association(key: str) -> str:
    """One fitted association."""
    return f"associations/{key[:KEY_LENGTH]}.json"


def publication(key: str) -> str:
    """Tables, figures and methods of a model's associations, as one archive."""
    return f"publications/{key[:KEY_LENGTH]}.zip"


def explanation(key: str, name: str) -> str:
    """One file of one method's maps; `record.json` is written last."""
    return f"explanations/{key[:KEY_LENGTH]}/{name}"


def withdrawal(root: str, participant_id: str) -> str:
    """That a person's consent is withdrawn; the listing of this folder tells how many are."""
    return f"withdrawn/{digest([root, participant_id])[:KEY_LENGTH]}.json"


def report(key: str) -> str:
    """The HTML report of one state of a study."""
    return f"reports/{key[:KEY_LENGTH]}.html"


def library_versions(*names: str) -> dict[str, str]:
    """Versions that outputs depend on, without local labels: the CPU and CUDA builds of a version share keys."""
    return {name: version(name).split("+")[0] for name in names}
