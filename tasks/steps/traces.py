"""What a store and this machine hold of one person: found before anything of it is taken away."""

from __future__ import annotations

import io
import itertools
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from infra import layout
from infra.settings import Settings
from infra.storage import Store
from tasks.records import Recipe, content_key
from tasks.steps.lineage import fits, scans_of_images
from tasks.steps.person import Person, indexes_of

CLINICAL = "clinical.parquet"


@dataclass(frozen=True)
class Names:
    """By what rows of tables are known to be a person's.

    Attributes:
        keys: Of the person's prepared scans.
        gone: Those of them that nobody else's equal bytes use.
        scans: scan_ids in indexes and fits.
    """

    keys: frozenset[str]
    gone: frozenset[str]
    scans: frozenset[str]


@dataclass(frozen=True)
class Traces:
    """Everything that goes, and where rows of it lie.

    Attributes:
        names: By what rows are known.
        objects: Keys of the store that go whole.
        rows: Key of a table → how many of its rows go.
        fits: Fits in which the scans played a part → those scans.
        files: Files and folders of this machine that go.
        kept: Prepared scans that stay, since another person's equal bytes use them.
    """

    names: Names
    objects: tuple[str, ...]
    rows: dict[str, int]
    fits: dict[str, pd.DataFrame]
    files: tuple[Path, ...]
    kept: tuple[str, ...]


def find_traces(settings: Settings, store: Store, person: Person, recipes: dict[str, Recipe]) -> Traces:
    """Find what was made of a person's images.

    Args:
        settings: Where this machine's files are.
        store: Where to look.
        person: From `find_person`.
        recipes: Recipes of the study by their digest; other studies' are known by what they have prepared.
    """
    by_digest = {digest[: layout.KEY_LENGTH]: recipe for digest, recipe in recipes.items()}
    keys, objects, kept = set(person.images), set(), set()
    for folder in sorted(store.names("prepared")):
        names = store.names(f"prepared/{folder}")
        candidates = _candidates(store, folder, names, person, by_digest.get(folder))
        keys |= set(candidates)
        pictures = store.names(f"montages/{folder}")
        for key, images in candidates.items():
            held = {
                f"prepared/{folder}/{key}{end}" for end in (".npy", ".json", ".excluded.json") if key + end in names
            }
            held |= {f"montages/{folder}/{key}.png"} if f"{key}.png" in pictures else set()
            if not held:
                continue
            if images <= set(person.shared["sha256"]):
                kept.add(f"prepared/{folder}/{key}.npy")
            else:
                objects |= held
    gone = frozenset(keys - {Path(name).stem for name in kept})
    trained = {fit.key: scans for fit in fits(store) if len(scans := scans_of_images(fit, keys))}
    whole = {*_reports(store, person), *_associations(store, person)}
    named = (scans["scan_id"] for scans in trained.values())
    names_of = Names(frozenset(keys), gone, frozenset(set(person.scans["scan_id"]).union(*named)))
    return Traces(
        names=names_of,
        objects=tuple(sorted(objects | whole)),
        rows=_table_rows(store, person, names_of, trained),
        fits=trained,
        files=tuple(_local_files(settings, store, person, gone, list(trained))),
        kept=tuple(sorted(kept)),
    )


def _candidates(
    store: Store, folder: str, names: set[str], person: Person, recipe: Recipe | None
) -> dict[str, set[str]]:
    """Under which names one recipe would keep the person's scans, and of which images each is made."""
    found = {image: {image} for image in person.images}
    contrasts, templates = _needs(store, folder, names, recipe)
    by_contrast = [sorted(set(person.scans.loc[person.scans["modality"] == c, "sha256"]) - {""}) for c in contrasts]
    for images in itertools.product(*by_contrast):
        for template in templates:
            found[content_key(images, template)] = set(images)
    return found


def _needs(store: Store, folder: str, names: set[str], recipe: Recipe | None) -> tuple[tuple[str, ...], list[str]]:
    """Contrasts and templates of a recipe: the study's own, or as its first sidecar tells."""
    if recipe is not None:
        return recipe.contrasts, [template.name for template in recipe.templates] or [""]
    sidecars = sorted(name for name in names if name.endswith(".json") and not name.endswith(".excluded.json"))
    if not sidecars:
        return (), []
    told = store.read_json(f"prepared/{folder}/{sidecars[0]}").get("recipe", {})
    contrasts = Recipe(channels=tuple(told.get("channels", ())), reference=told.get("reference", "T1w")).contrasts
    return contrasts, [template["name"] for template in told.get("templates", ())] or [""]


def shows(page: bytes, person: Person) -> bool:
    """Whether a report shows one of the person's cohorts: each holds a row per scan, so it goes and is written anew."""
    return any(f"manifest of {cohort}".encode() in page for cohort in person.cohorts)


def _reports(store: Store, person: Person) -> list[str]:
    keys = [f"reports/{name}" for name in sorted(store.names("reports"))]
    return [key for key, page in zip(keys, store.read_many(keys), strict=True) if shows(page, person)]


def may_show(content: bytes, person: Person) -> bool:
    """Whether a file of an association names the person or one of their cohorts: figures draw a point per scan."""
    return any(name.encode() in content for name in (person.participant_id, *person.cohorts))


def _associations(store: Store, person: Person) -> list[str]:
    """Fitted associations whose rows are the person's among others', and what was published of such ones."""
    fitted = [f"associations/{name}" for name in sorted(store.names("associations"))]
    published = [f"publications/{name}" for name in sorted(store.names("publications"))]
    participant, cohorts = f'"{person.participant_id}"'.encode(), [f'"{name}"'.encode() for name in person.cohorts]
    found = [
        key
        for key, text in zip(fitted, store.read_many(fitted), strict=True)
        if participant in text and any(cohort in text for cohort in cohorts)
    ]
    for key in published:
        with zipfile.ZipFile(io.BytesIO(store.read(key))) as archive:
            found += [key] if any(may_show(archive.read(name), person) for name in archive.namelist()) else []
    return found


def rows_that_go(table: pd.DataFrame, person: Person, names: Names) -> pd.Series:
    """Which rows of a table are the person's, by whatever names scans in it."""
    if "scan_id" in table:
        theirs = table["scan_id"].isin(names.scans)
        if "scan_key" not in table:
            return theirs
        # Two data sets of one cohort's name may each have such a scan.
        return table["scan_key"].isin(names.gone) | (theirs & table["scan_key"].isin(names.keys))
    if "participant_id" in table:
        theirs = table["participant_id"] == person.participant_id
        return theirs & table["cohort"].isin(person.cohorts) if "cohort" in table else theirs
    return table["key"].isin(names.gone) if "key" in table else pd.Series(False, table.index)


def _table_rows(store: Store, person: Person, names: Names, trained: dict[str, pd.DataFrame]) -> dict[str, int]:
    keys = [f"{index}/{CLINICAL}" for folder in person.folders for index in indexes_of(store, folder)]
    for folder in ("quality", "predictions", "validations", "robustness"):
        keys += [key for key in _objects(store, folder) if key.endswith((".parquet", ".csv"))]
    for fit_key in trained:
        members = store.read_json(layout.fit_record(fit_key))["members"]
        keys += [f"{layout.fit_folder(fit_key)}/{member}/predictions.csv" for member in members]
    counts = {key: int(rows_that_go(read_any_table(store, key), person, names).sum()) for key in keys}
    return {key: count for key, count in counts.items() if count}


def _objects(store: Store, folder: str) -> list[str]:
    """Objects in a folder and in those below it; a key without a dot is a folder."""
    found = []
    for name in sorted(store.names(folder)):
        key = f"{folder}/{name}"
        found += [key] if "." in name else _objects(store, key)
    return found


def read_any_table(store: Store, key: str) -> pd.DataFrame:
    """A table of the store, by what its name ends with."""
    return csv_table(store.read(key)) if key.endswith(".csv") else store.read_table(key)


def csv_table(content: bytes) -> pd.DataFrame:
    """A table whose cells stay as they are written; an empty one has no header."""
    text = io.BytesIO(content)
    return pd.read_csv(text, dtype=str, keep_default_na=False) if content.strip() else pd.DataFrame()


def _local_files(
    settings: Settings, store: Store, person: Person, gone: frozenset[str], fit_keys: list[str]
) -> list[Path]:
    home = settings.home
    folders = [home / "training" / key[: layout.KEY_LENGTH] for key in fit_keys]
    found = [folder for folder in folders if folder.exists()]
    found += [path for path in (home / "white-matter").glob("*/*.npy") if path.name.split("-")[0] in gone]
    if not store.is_local:
        found += [path for path in settings.cache.glob("*/prepared/*/*") if path.name.split(".")[0] in gone]
    found += [path for path in (home / "reports").glob("*.html") if shows(path.read_bytes(), person)]
    return sorted(found)


def counts_of(traces: Traces) -> dict[str, Any]:
    """How much of each kind."""
    folders = [key.split("/")[0] for key in traces.objects]
    kinds = ("cohorts", "quality", "predictions", "fits", "validations", "robustness")
    tables = {kind: sum(n for key, n in traces.rows.items() if key.startswith(f"{kind}/")) for kind in kinds}
    return {
        "prepared scans": sum(key.endswith(".npy") for key in traces.objects),
        "exclusions": sum(key.endswith(".excluded.json") for key in traces.objects),
        "pictures": folders.count("montages"),
        "reports": folders.count("reports"),
        "associations": folders.count("associations") + folders.count("publications"),
        "clinical rows": tables["cohorts"],
        "quality rows": tables["quality"],
        "predictions": tables["predictions"] + tables["fits"] + tables["validations"] + tables["robustness"],
        "files and folders of this machine": len(traces.files),
    }
