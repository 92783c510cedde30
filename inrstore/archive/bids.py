"""The files of a BIDS dataset that change when its images become stores: the description and .bidsignore.

The archive is a derivative of the dataset (BIDS 1.8 and later, "dataset_description.json"). What these files
were is kept in the archive's record, and comes back with an export.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from inrstore.errors import SourceError

DESCRIPTION = "dataset_description.json"
IGNORE = ".bidsignore"

IGNORED = "**/*.zarr/**"
"""What is inside a store. The store itself stays visible: to the validator it is the data file of its sidecars."""


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


def ignore(original: bytes | None) -> bytes:
    """Return a .bidsignore by which the insides of stores are not taken for files of the dataset.

    Parameters
    ----------
    original : bytes or None
        The one of the dataset, if it has one; its lines stay.
    """
    text = original or b""
    if IGNORED.encode() in text.splitlines():
        return text
    if text and not text.endswith(b"\n"):
        text += b"\n"
    return text + IGNORED.encode() + b"\n"


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
