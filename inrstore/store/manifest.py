"""The manifest of a store: every file with its size and digest, sealed in the file that is written last.

It lies in the attributes of the group: `zarr.json` of Zarr v3, `.zattrs` of v2. A store without it is not
complete, for this package and, with v3, for every reader of Zarr. Specified in specs/store-1.md.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

from inrstore.errors import StoreError

Record: TypeAlias = tuple[int, str]
"""Size and digest of a file."""

MANIFEST = "manifest"
DIGEST_CHARACTERS = 22
NO_SEAL = "0" * DIGEST_CHARACTERS
_MARK = b'"seal":"'


def digest(data: bytes) -> str:
    """Return the first 16 bytes of the SHA-256 of `data` in base64url, 22 characters."""
    return shorten(hashlib.sha256(data).digest())


def shorten(sha256: bytes) -> str:
    """Return the digest that belongs to a whole SHA-256."""
    return _base64(sha256[:16])


def whole(sha256: bytes) -> str:
    """Return a whole SHA-256 in base64url, 43 characters."""
    return _base64(sha256)


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def make(files: Mapping[str, Record], decoded: str) -> dict[str, Any]:
    """Return a manifest that is not sealed yet.

    Parameters
    ----------
    files : mapping of str to (int, str)
        Size and digest of every file of the store but the one that will hold the manifest.
    decoded : str
        Digest of the decoded image: SHA-256 over the voxels of its chunks, in the order of the grid.
    """
    return {"files": {key: list(files[key]) for key in sorted(files)}, "decoded": decoded, "seal": NO_SEAL}


def seal(document: bytes) -> bytes:
    """Return a JSON document with the digest of itself in the place of `NO_SEAL`."""
    start = _place(document)
    return document[:start] + digest(document).encode() + document[start + DIGEST_CHARACTERS :]


def read_seal(document: bytes) -> str:
    """Return the seal of a document."""
    start = _place(document)
    return document[start : start + DIGEST_CHARACTERS].decode("latin1")


def sealed(document: bytes) -> bool:
    """Return whether a document is what its seal was made for."""
    start = _place(document)
    found = document[start : start + DIGEST_CHARACTERS]
    blank = document[:start] + NO_SEAL.encode() + document[start + DIGEST_CHARACTERS :]
    return digest(blank).encode() == found


def _place(document: bytes) -> int:
    """Return where the seal is. Inside a JSON string the mark would have backslashes."""
    start = document.rfind(_MARK)
    if start < 0:
        raise ValueError("the document has no seal")
    return start + len(_MARK)


def parse(found: Any, where: str) -> tuple[dict[str, Record], str]:
    """Return files and decoded digest of a manifest that comes from outside.

    Raises
    ------
    StoreError
        If it is not one.
    """
    try:
        files = {}
        for key, (size, mark) in found["files"].items():
            if type(size) is not int or not 0 <= size < math.inf or not isinstance(mark, str):
                raise ValueError(f"{key}: {size!r}, {mark!r}")
            files[str(key)] = (size, mark)
        return files, str(found["decoded"])
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise StoreError(f"{where}: the manifest is damaged: {error}") from error
