"""The manifest of a store: a digest of every chunk, sealed in the group's document, which holds the others, too.

It lies in the attributes of the group: `zarr.json` of Zarr v3, `.zattrs` of v2. A store without it is not
complete, for this package and, with v3, for every reader of Zarr. Specified in specs/store-1.md, section 2.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from typing import Any

from inrstore.errors import StoreError

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


def make(digests: Iterable[str], decoded: str, documents: bytes = b"") -> dict[str, Any]:
    """Return a manifest that is not sealed yet.

    Parameters
    ----------
    digests : iterable of str
        Of every chunk, in the order of `inrstore.store.layout.chunk_keys`.
    decoded : str
        Digest of the decoded image: SHA-256 over the voxels of its chunks, in the order of the grid.
    documents : bytes
        The consolidated metadata, if they lie in a file of their own (Zarr v2).
    """
    own = {"documents": digest(documents)} if documents else {}
    return {"digests": "".join(digests), "decoded": decoded, **own, "seal": NO_SEAL}


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


def parse(found: Any, keys: Iterable[str], count: int, where: str) -> tuple[dict[str, str], str]:
    """Return the digest of each chunk, and that of the decoded image, of a manifest that comes from outside.

    Parameters
    ----------
    found : object
        The manifest.
    keys : iterable of str
        The chunks, in order.
    count : int
        How many they are; a forged grid has more than there are digests, and is not counted through.
    where : str
        How messages name it.

    Raises
    ------
    StoreError
        If it is not one, or not one of these chunks.
    """
    try:
        digests, decoded = found["digests"], found["decoded"]
        if not isinstance(digests, str) or not isinstance(decoded, str):
            raise TypeError("digests or decoded is no text")
        if len(digests) != DIGEST_CHARACTERS * count:
            raise ValueError(f"digests of {len(digests) / DIGEST_CHARACTERS:g} chunks where there are {count}")
    except (TypeError, KeyError, ValueError) as error:
        raise StoreError(f"{where}: the manifest is damaged: {error}") from error
    parts = (digests[i : i + DIGEST_CHARACTERS] for i in range(0, len(digests), DIGEST_CHARACTERS))
    return dict(zip(keys, parts, strict=True)), decoded
