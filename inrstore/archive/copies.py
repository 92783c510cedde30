"""Files that are no images -> the same files in the archive, byte for byte; one that is there is never replaced.

Two files of a BIDS dataset change when its images become stores, the description and .bidsignore: the archive is a
derivative of the dataset (BIDS 1.8 and later, "dataset_description.json"). What they were is kept in the archive's
record, and comes back with an export.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any
from urllib.parse import quote

from inrstore import files
from inrstore.archive.manifest import Digest, ManifestEntry, digest_of, source_kind
from inrstore.archive.outcomes import Outcome
from inrstore.errors import SourceError, StoreError
from inrstore.files import Place, WritablePlace
from inrstore.files.names import RECORD
from inrstore.store import manifest

DESCRIPTION = "dataset_description.json"
IGNORE = ".bidsignore"

IGNORED = {"ozx": ("**/*.ozx", "sub-*/**/*.json"), "zarr": ("**/*.zarr/**",)}
"""What a validator is not to see: stores that are a file, which BIDS does not know, with their sidecars; or what is
inside stores that are a folder, which itself is the data file of its sidecars to the validator."""

ORIGINALS = f"{RECORD}/originals"
_MAX_BIDS_BYTES = 1 << 24


def copy(place: Place, own: str, target: WritablePlace, out: str, key: str, known: str = "") -> Outcome:
    """Copy a file.

    Parameters
    ----------
    place, own : Place, str
        The file, and its key there.
    target, out : WritablePlace, str
        The archive, and where the file goes.
    key : str
        The file's key in the source.
    known : str
        Digest of the file that the archive has, and that may be replaced.

    Raises
    ------
    SourceError, OSError
        If it cannot be read or written.
    StoreError
        If another file is there already.
    """
    began = time.perf_counter()
    resumed = target.size(out) is not None
    if resumed:
        with place.open(own) as file:
            size, digest = digest_of(file)
    else:
        size, digest = _write(place, own, target, out)
    if resumed:
        with target.open(out) as file:
            written = digest_of(file)
        if written != (size, digest):
            if not known:
                raise StoreError(f"{target.label(out)}: is there already, and differs from the source's file")
            if written[1] != known:
                raise StoreError(f"{target.label(out)}: is there already, and is not what this archive wrote")
            resumed = False
            size, digest = _write(place, own, target, out)
    return Outcome(
        kind="copy", key=key, out=out, status="copied", source_bytes=size, stored_bytes=size,
        digest=digest, seconds=time.perf_counter() - began, resumed=resumed,
    )  # fmt: skip


def _write(place: Place, own: str, target: WritablePlace, out: str) -> tuple[int, str]:
    """Write a file of the source; nothing is left of one that becomes another meanwhile."""
    before = place.stamp(own)
    with place.open(own) as file:
        reading = Digest(file)

        def blocks() -> Iterator[bytes]:
            yield from reading
            if place.stamp(own) != before:
                raise SourceError(f"{place.label(own)}: was changed while it was read")

        target.write_blocks(out, blocks())
    return reading.size, reading.value


def copy_of_dataset(place: Place, key: str, target: WritablePlace, source: str, container: str) -> list[Outcome]:
    """Write what `dataset_description.json` or `.bidsignore` of a BIDS dataset becomes; keep what it was.

    Parameters
    ----------
    place, key : Place, str
        The dataset, and the file.
    target : WritablePlace
        The archive.
    source : str
        How the dataset is called.
    container : {"ozx", "zarr"}
        What its stores are.

    Returns
    -------
    list of Outcome
        Of the file, and of what it was.

    Raises
    ------
    SourceError, OSError
    """
    original, kept = None, []
    if place.size(key) is not None:
        original = files.read(place, key, _MAX_BIDS_BYTES)
        kept = [_written(target, key, f"{ORIGINALS}/{key}", original, len(original))]
    if key == IGNORE:
        data = ignore(original, container)
    else:
        data = description(original or b"", version=version("inrstore"), source=source, label=place.label(key))
    return [_written(target, key, key, data, len(original or b"")), *kept]


def _written(target: WritablePlace, key: str, out: str, data: bytes, size: int) -> Outcome:
    resumed = write(target, out, data)
    return Outcome(
        kind="copy", key=key, out=out, status="copied", source_bytes=size, stored_bytes=len(data),
        digest=manifest.digest(data), resumed=resumed,
    )  # fmt: skip


def write(target: WritablePlace, out: str, data: bytes) -> bool:
    """Write a small file of this program unless it is there already; return whether it was."""
    if target.size(out) == len(data) and files.read(target, out, len(data)) == data:
        return True
    target.write(out, data)
    return False


def is_made(job: Mapping[str, Any], entry: ManifestEntry) -> bool:
    """Return whether a file is none of the source's: one of the record, or a description that was changed for BIDS."""
    return entry.kind == "record" or (
        entry.kind == "file" and source_kind(job) == "bids" and entry.out in (DESCRIPTION, IGNORE)
    )


def original_of(place: Place, entry: ManifestEntry) -> str | None:
    """Return where the archive keeps what a file of its own replaced, or None if it replaced nothing."""
    kept = f"{ORIGINALS}/{entry.out}"
    return kept if entry.kind == "file" and place.size(kept) is not None else None


def description(original: bytes, *, version: str, source: str, label: str) -> bytes:
    """Return the description of the archive.

    Name, BIDSVersion, Authors, License and whatever else is known of the dataset stays. DatasetType becomes
    "derivative", GeneratedBy gains this program, SourceDatasets what the dataset was; its DOI is moved there,
    because it is not that of the archive.

    Parameters
    ----------
    original : bytes
        The description of the dataset.
    version : str
        Of this package.
    source : str
        Path or URL of the dataset. Of a path only the last part is written.
    label : str
        How messages name the description.

    Raises
    ------
    SourceError
        If it is not a JSON object, or a field in question has another type than BIDS gives it.
    """
    try:
        found = json.loads(original.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{label}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise SourceError(f"{label}: not a JSON object")
    out: dict[str, Any] = {key: value for key, value in found.items() if key != "DatasetDOI"}
    out["DatasetType"] = "derivative"
    out["GeneratedBy"] = [*_objects(found, "GeneratedBy", label), _generated_by(version)]
    out["SourceDatasets"] = [*_objects(found, "SourceDatasets", label), _source(found.get("DatasetDOI"), source)]
    return (json.dumps(out, indent=2, ensure_ascii=False) + "\n").encode()


def ignore(original: bytes | None, container: str) -> bytes:
    """Return a .bidsignore by which the insides of stores are not taken for files of the dataset.

    Parameters
    ----------
    original : bytes or None
        The one of the dataset, if it has one; its lines stay.
    container : {"ozx", "zarr"}
        What the stores are.
    """
    text = original or b""
    missing = [line.encode() for line in IGNORED[container] if line.encode() not in text.splitlines()]
    if text and missing and not text.endswith(b"\n"):
        text += b"\n"
    return text + b"".join(line + b"\n" for line in missing)


def _generated_by(version: str) -> dict[str, str]:
    return {"Name": "inrstore", "Version": version, "Description": "Images as Zarr stores, every other file as it was"}


def _source(doi: Any, source: str) -> dict[str, str]:
    if isinstance(doi, str) and doi:
        return {"DOI": doi}
    if "://" in source:
        return {"URL": source}
    name = source.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return {"URL": quote(name)}


def _objects(found: dict[str, Any], name: str, label: str) -> list[Any]:
    values = found.get(name, [])
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise SourceError(f"{label}: {name}: not a list of objects")
    return values
