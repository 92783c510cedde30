"""Files of a source -> the same files in the archive, byte for byte; one that is there is compared, never replaced."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from importlib.metadata import version

from inrstore import files
from inrstore.archive import bids
from inrstore.archive.holdings import blocks
from inrstore.archive.items import Outcome
from inrstore.archive.record import ORIGINALS
from inrstore.errors import StoreError
from inrstore.files import Place, WritablePlace
from inrstore.store import manifest

_MAX_BIDS_BYTES = 1 << 24


class Digest:
    """Blocks that pass by, with their size and digest.

    Parameters
    ----------
    passing : iterator of bytes
    """

    def __init__(self, passing: Iterator[bytes]) -> None:
        self._blocks, self._sha256 = passing, hashlib.sha256()
        self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        for block in self._blocks:
            self.size += len(block)
            self._sha256.update(block)
            yield block

    @property
    def value(self) -> str:
        """The digest of what has passed."""
        return manifest.shorten(self._sha256.digest())


def copy(place: Place, own: str, target: WritablePlace, out: str, key: str) -> Outcome:
    """Copy a file.

    Parameters
    ----------
    place, own : Place, str
        The file, and its key there.
    target, out : WritablePlace, str
        The archive, and where the file goes.
    key : str
        The file's key in the source.

    Raises
    ------
    SourceError, OSError
        If it cannot be read or written.
    StoreError
        If another file is there already.
    """
    began = time.perf_counter()
    resumed = target.size(out) is not None
    with place.open(own) as file:
        reading = Digest(blocks(file))
        if resumed:
            _drain(reading)
        else:
            target.write_blocks(out, reading)
    if resumed:
        with target.open(out) as file:
            written = Digest(blocks(file))
            _drain(written)
        if written.value != reading.value:
            raise StoreError(f"{target.label(out)}: is there already, and differs from the source's file")
    return Outcome(
        kind="copy", key=key, out=out, status="copied", source_bytes=reading.size, stored_bytes=reading.size,
        digest=reading.value, seconds=time.perf_counter() - began, resumed=resumed,
    )  # fmt: skip


def _drain(passing: Digest) -> None:
    for _ in passing:
        pass


def copy_of_dataset(place: Place, key: str, target: WritablePlace, source: str) -> list[Outcome]:
    """Write what `dataset_description.json` or `.bidsignore` of a BIDS dataset becomes; keep what it was.

    Parameters
    ----------
    place, key : Place, str
        The dataset, and the file.
    target : WritablePlace
        The archive.
    source : str
        How the dataset is called.

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
    if key == bids.IGNORE:
        data = bids.ignore(original)
    else:
        data = bids.description(original or b"", version=version("inrstore"), source=source, label=place.label(key))
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
