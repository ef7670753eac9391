"""Index of a BIDS root: every anatomical scan once, the clinical table, and whatever is irregular, said.

Names follow the Brain Imaging Data Structure (Gorgolewski et al. 2016, doi:10.1038/sdata.2016.44).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from .clinical_table import clinical_table
from .manifest import ABSENT, UNREAD_REASONS, manifest_frame, same_content, unread_kind
from .problems import Problem, examples, problems_frame, quoted
from .subject_tables import LABEL, PARTICIPANTS_NOTES_PATH, PARTICIPANTS_PATH

MODALITIES = frozenset({"T1w", "T2w", "PDw", "T2starw", "FLAIR", "PDT2", "UNIT1"})
"""Suffixes of whole-head anatomical images; in-plane images, angiograms and maps are not studied."""
ENTITY_ORDER = ("task", "acq", "ce", "rec", "run", "echo", "flip", "inv", "mt", "part", "chunk")
OTHER_DATATYPES = frozenset(
    ("func", "dwi", "fmap", "perf", "pet", "meg", "eeg", "ieeg", "beh", "micr", "motion", "nirs", "mrs")
)
IGNORED_ROOTS = frozenset({"derivatives", "sourcedata", "code", "stimuli"})
LONGEST_PATH = 1024
# A participants.tsv of a million people with ten columns has about 100 MB.
MAX_TABLE_BYTES = 2**28
UNSAFE_TEXT = re.compile(
    r"[\x00-\x1f\x7f-\x9f\\\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]|^/|^[A-Za-z]:|//|(^|/)\.{1,2}(/|$)"
)
COHORT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
ANATOMICAL_PATH = re.compile(rf"(sub-{LABEL})/(?:(ses-{LABEL})/)?anat/([^/]+?)\.nii(?:\.gz)?")
SESSIONS_TABLE = re.compile(rf"(sub-{LABEL})/\1_sessions\.tsv")
ENTITY = re.compile(rf"([a-z]+)-({LABEL})")


@dataclass(frozen=True)
class FileInfo:
    """One file of a store's listing.

    Attributes:
        path: Relative to the BIDS root, with forward slashes.
        size_bytes: Its size.
        version: The store's mark of the bytes: an ETag or a modification time.
    """

    path: str
    size_bytes: int
    version: str

    @property
    def unread(self) -> str:
        """Why an image's bytes are not read: a key of `UNREAD_REASONS`, or "" where they are."""
        return unread_kind(self.size_bytes, self.version)


@dataclass(frozen=True)
class BidsIndex:
    """A cohort as found.

    Attributes:
        manifest: One row per scan, with the columns of `manifest.MANIFEST_DTYPES`.
        clinical: One row per subject and session; see `clinical_table.clinical_table`.
        problems: Columns path, kind, message.
    """

    manifest: pd.DataFrame
    clinical: pd.DataFrame
    problems: pd.DataFrame


@dataclass(frozen=True)
class _Scan:
    file: FileInfo
    participant_id: str
    session_id: str
    run: str
    modality: str
    entities: str
    name: str


def index_bids(
    cohort: str,
    listing: Sequence[FileInfo],
    read: Callable[[str], bytes],
    hashes: Callable[[Sequence[FileInfo]], dict[str, str]],
) -> BidsIndex:
    """Index a cohort, so that everything later counts against one table of what was there.

    No irregularity stops an index: each is a row of `problems`. Every NIfTI file that is or seems to be anatomical
    stands in the manifest or in `problems`.

    Args:
        cohort: The cohort's name, the first part of each scan_id.
        listing: Every file below the BIDS root.
        read: Gives a file's bytes; called for participants.tsv, participants.json and each sessions.tsv.
        hashes: Gives the SHA-256 of each file by path; called once, with those of the manifest's files that are worth
            reading.

    Returns:
        The manifest, the clinical table and the problems.

    Raises:
        ValueError: The cohort's name cannot stand in a scan_id, or a hash is missing.
    """
    if not COHORT_NAME.fullmatch(cohort):
        raise ValueError(
            f"cohort name {quoted(cohort)}: expected up to 64 letters, digits, dots, dashes or underscores, "
            "beginning with a letter or digit. Rename the cohort."
        )
    said: list[Problem] = []
    files = _safe_files(listing, said)
    scans = _one_file_per_scan(cohort, _find_scans(files, said), said)
    manifest = _manifest(cohort, scans, hashes)
    _say_layout(files, manifest, said)
    _say_content(manifest, said)
    _say_stray_tables(files, said)
    tables = {path: read(path) for path in table_paths(files)}
    participants_tsv = tables.pop(PARTICIPANTS_PATH, None)
    participants_json = tables.pop(PARTICIPANTS_NOTES_PATH, None)
    sessions = {path.split("/")[0]: data for path, data in tables.items()}
    clinical, clinical_problems = clinical_table(
        participants_tsv, sessions, manifest, participants_json, _subject_folders(files)
    )
    return BidsIndex(manifest, clinical, pd.concat([problems_frame(said), clinical_problems], ignore_index=True))


def table_paths(listing: Sequence[FileInfo]) -> list[str]:
    """Name the tables that an index reads, so that a store can fetch thousands of them together beforehand.

    Args:
        listing: Every file below the BIDS root.

    Returns:
        Paths of participants.tsv, participants.json and each sub-*/sub-*_sessions.tsv, of those that are
        there and not too large to hold in memory.
    """
    return list(dict.fromkeys(file.path for file in listing if _is_table(file) and not _why_unread_table(file)))


def _is_table(file: FileInfo) -> bool:
    fixed = (PARTICIPANTS_PATH, PARTICIPANTS_NOTES_PATH)
    return file.path in fixed or SESSIONS_TABLE.fullmatch(file.path) is not None


def _why_unread_table(file: FileInfo) -> str:
    if file.version == ABSENT:
        return "The table is a broken link, so it is not read. Fetch it (such as with `datalad get`)."
    if file.size_bytes > MAX_TABLE_BYTES:
        found = f"The table has {file.size_bytes} bytes, over the limit of {MAX_TABLE_BYTES}, so it is not read."
        return f"{found} Find out what made it so large."
    return ""


def _safe_files(listing: Sequence[FileInfo], said: list[Problem]) -> list[FileInfo]:
    safe = []
    for file in listing:
        if UNSAFE_TEXT.search(file.path) or not 0 < len(file.path) <= LONGEST_PATH:
            message = (
                "The name has '..', a backslash, a control character or the like, or is too long. Rename the file."
            )
            said.append(Problem(quoted(file.path), "unsafe-path", message))
        else:
            safe.append(file)
    return safe


def _find_scans(files: Sequence[FileInfo], said: list[Problem]) -> list[_Scan]:
    scans = []
    for file in files:
        folders = file.path.split("/")[:-1]
        if not file.path.casefold().endswith((".nii", ".nii.gz")) or _is_elsewhere(folders):
            continue
        match = ANATOMICAL_PATH.fullmatch(file.path)
        if match is None:
            message = (
                "An image is expected in sub-*/anat/ or sub-*/ses-*/anat/, named *.nii or *.nii.gz. Move it there."
            )
            said.append(Problem(file.path, "misplaced", message))
            continue
        scan = _parse_name(file, match[1], match[2] or "", match[3], said)
        if scan is not None:
            scans.append(scan)
    return scans


def _is_elsewhere(folders: Sequence[str]) -> bool:
    top = folders[0] if folders else ""
    other_kind = top.startswith("sub-") and folders[-1] in OTHER_DATATYPES
    return top in IGNORED_ROOTS or top.startswith(".") or other_kind


def _parse_name(file: FileInfo, participant_id: str, session_id: str, name: str, said: list[Problem]) -> _Scan | None:
    expected = [part for part in (participant_id, session_id) if part]
    *parts, suffix = name.split("_")
    matches = [ENTITY.fullmatch(part) for part in parts[len(expected) :]]
    values: dict[str, str] = {match[1]: match[2] for match in matches if match}
    complaint, kind = "", "not-bids"
    if parts[: len(expected)] != expected or {"sub", "ses"} & set(values):
        complaint, kind = f"the name should begin with {'_'.join(expected)}_, like its folders", "name-mismatch"
    elif len(values) != len(matches):
        complaint = "after subject and session a name has key-value pairs, each key once, and a suffix"
    elif unknown := sorted(set(values) - set(ENTITY_ORDER)):
        complaint = f"raw anatomical images have no {examples(unknown)} in their name"
    elif not values.get("run", "0").isdecimal():
        complaint = f"a run is a number, not {values['run']}"
    elif suffix not in MODALITIES:
        complaint, kind = f"{quoted(suffix)} is none of {', '.join(sorted(MODALITIES))}", "other-suffix"
    if complaint:
        said.append(Problem(file.path, kind, f"Not indexed: {complaint}. Rename it, or leave it out on purpose."))
        return None
    ordered = [f"{key}-{values[key]}" for key in ENTITY_ORDER if key in values]
    run = str(int(values["run"])) if "run" in values else ""
    entities = "_".join(pair for pair in ordered if not pair.startswith("run-"))
    return _Scan(file, participant_id, session_id, run, suffix, entities, "_".join([*expected, *ordered, suffix]))


def _one_file_per_scan(cohort: str, scans: Sequence[_Scan], said: list[Problem]) -> list[_Scan]:
    by_name: dict[str, list[_Scan]] = defaultdict(list)
    for scan in scans:
        by_name[scan.name].append(scan)
    kept = []
    for repeats in by_name.values():
        best, *others = sorted(repeats, key=_preference)
        kept.append(best)
        for other in others:
            message = f"The same scan as {best.file.path}, which is taken. Remove one of the two."
            said.append(Problem(other.file.path, "duplicate-file", message))
    return kept


def _preference(scan: _Scan) -> tuple[bool, bool, str]:
    return scan.file.unread != "", not scan.file.path.endswith(".gz"), scan.file.path


def _manifest(
    cohort: str, scans: Sequence[_Scan], hashes: Callable[[Sequence[FileInfo]], dict[str, str]]
) -> pd.DataFrame:
    worth_reading = [scan.file for scan in scans if not scan.file.unread]
    sha256 = hashes(worth_reading)
    unhashed = [file.path for file in worth_reading if not sha256.get(file.path)]
    if unhashed:
        raise ValueError(f"no SHA-256 came back for {examples(unhashed)}; expected one for each file asked for.")
    return manifest_frame(
        [
            {
                "scan_id": f"{cohort}/{scan.name}",
                "cohort": cohort,
                "participant_id": scan.participant_id,
                "session_id": scan.session_id,
                "run": scan.run,
                "modality": scan.modality,
                "path": scan.file.path,
                "size_bytes": scan.file.size_bytes,
                "version": scan.file.version,
                "sha256": sha256.get(scan.file.path, ""),
                "entities": scan.entities,
            }
            for scan in scans
        ]
    )


def _say_layout(files: Sequence[FileInfo], manifest: pd.DataFrame, said: list[Problem]) -> None:
    if not any(file.path == "dataset_description.json" for file in files):
        message = "There is no dataset_description.json, which every BIDS root has. Check that this is the root."
        said.append(Problem("dataset_description.json", "not-bids-root", message))
    for file in files:
        if _is_table(file) and (message := _why_unread_table(file)):
            said.append(Problem(file.path, "unusable-table", message))
    if len(manifest) == 0:
        nested = [file.path.split("/sub-", 1)[0] for file in files if "/sub-" in file.path and "/anat/" in file.path]
        inside = sorted({root for root in nested if not root.startswith("sub-")} - IGNORED_ROOTS)
        hint = f" The BIDS root may be {quoted(inside[0] + '/')} inside." if inside else ""
        message = f"No anatomical scan was found among {len(files)} files.{hint} Check the cohort's address."
        said.append(Problem("", "no-scans", message))


def _say_stray_tables(files: Sequence[FileInfo], said: list[Problem]) -> None:
    """A table of sessions in another subject's folder would give nobody's ages, in silence."""
    for file in files:
        *folders, name = file.path.split("/")
        if not name.endswith("_sessions.tsv") or not folders or not folders[0].startswith("sub-"):
            continue
        expected = f"{folders[0]}/{folders[0]}_sessions.tsv"
        if file.path != expected:
            named = name.removesuffix("_sessions.tsv")
            kind = "misplaced" if named == folders[0] else "wrong-subject"
            message = (
                f"The table's name says {quoted(named)}, its folder {'/'.join(folders)}; expected {expected}, so it is "
                "not used. Find out whose it is, and move or rename it."
            )
            said.append(Problem(file.path, kind, message))


def _subject_folders(files: Sequence[FileInfo]) -> set[str]:
    """Every sub-* and sub-*/ses-* that holds a file."""
    split = [file.path.split("/") for file in files if file.path.startswith("sub-")]
    deep = {f"{parts[0]}/{parts[1]}" for parts in split if len(parts) > 2}
    return {parts[0] for parts in split if len(parts) > 1} | deep


def _say_content(manifest: pd.DataFrame, said: list[Problem]) -> None:
    for path, size_bytes, version in zip(manifest["path"], manifest["size_bytes"], manifest["version"], strict=True):
        kind = unread_kind(size_bytes, version)
        if kind:
            reason = UNREAD_REASONS[kind]
            said.append(Problem(path, kind, f"{reason[0].upper()}{reason[1:]}."))
    all_paths, owners = manifest["path"].tolist(), manifest["participant_id"].tolist()
    for repeats in same_content(manifest):
        paths = [all_paths[position] for position in repeats]
        people = len({owners[position] for position in repeats})
        whose = f"of {people} subjects" if people > 1 else "of one subject"
        message = f"The same bytes stand in {len(paths)} scans {whose}: {examples(paths)}. Find out whose they are."
        said.append(Problem(paths[0], "duplicate-content", message))
