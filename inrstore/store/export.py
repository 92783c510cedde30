"""A store -> the NIfTI file it was made from, header byte for byte, voxels chunk by chunk."""

from __future__ import annotations

import gzip
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.errors import ConfigurationError, StoreError
from inrstore.store import layout
from inrstore.store.partial import explain
from inrstore.store.reader import Store
from inrstore.store.reports import Clock, JobCallback
from inrstore.store.writer import PartialFile

_SINGLE, _HEADER = (".nii", ".nii.gz"), (".hdr", ".hdr.gz")


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What an export made.

    Parameters
    ----------
    store, file : str
        From where, to where.
    source_bytes : int
        Uncompressed voxels.
    file_bytes : int
        Size of the file.
    seconds, mb_per_s : float
        Time taken, and million bytes of voxels written in a second.
    """

    store: str
    file: str
    source_bytes: int
    file_bytes: int
    seconds: float
    mb_per_s: float

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return dict(vars(self))


def export(
    store: str | os.PathLike[str], out: str | os.PathLike[str], *, progress: JobCallback | None = None
) -> ExportReport:
    """Write the image of a store as a NIfTI file.

    Every byte before the voxels is that of the source; the voxels have its dtype and byte order. A lossless
    store gives back the whole uncompressed file. Memory holds one chunk at a time.

    Parameters
    ----------
    store : path-like
        Path or URL of the store.
    out : path-like
        File to make, .nii or .nii.gz; must not exist. The same store always gives the same bytes. A store
        made from a pair gives a pair: .hdr or .hdr.gz, and the .img beside it.
    progress : callable, optional
        Called with a `JobProgress` for each chunk.

    Returns
    -------
    ExportReport

    Raises
    ------
    StoreError, CorruptChunkError, DestinationExistsError, ConfigurationError
    """
    destination = Path(out)
    if not destination.name.endswith(_SINGLE + _HEADER):
        raise ConfigurationError(f"{destination}: the name must end in {', '.join(_SINGLE + _HEADER)}")
    opened = Store(store)
    if not opened.sealed:
        raise StoreError(f"{opened.label}: {opened.root_key} was changed after the store was made")
    pair = _is_pair(opened)
    if pair != destination.name.endswith(_HEADER):
        kind, ends = ("pair", _HEADER) if pair else ("single file", _SINGLE)
        raise ConfigurationError(
            f"{destination}: the store was made from a {kind}; the name must end in {' or '.join(ends)}"
        )
    clock = Clock(progress, len(opened.grid), opened.source_bytes)
    header = opened.small_bytes(layout.HEADER)
    if pair:
        image = destination.with_name(image_name(destination.name))
        with PartialFile(image) as voxels, PartialFile(destination) as first:
            _write(opened, opened.small_bytes(layout.LEADING), image, voxels.path, clock)
            _write_small(header, destination, first.path)
            voxels.commit()
            first.commit()
        size = destination.stat().st_size + image.stat().st_size
    else:
        with PartialFile(destination) as packed:
            _write(opened, header, destination, packed.path, clock)
            packed.commit()
        size = destination.stat().st_size
    seconds = clock.seconds
    return ExportReport(
        store=opened.label,
        file=str(destination),
        source_bytes=opened.source_bytes,
        file_bytes=size,
        seconds=seconds,
        mb_per_s=opened.source_bytes / 1e6 / seconds,
    )


def image_name(header_name: str) -> str:
    """Return the name of the .img file that belongs to a .hdr file."""
    stem, end = header_name.rsplit(".hdr", 1)
    return f"{stem}.img{end}"


def _is_pair(store: Store) -> bool:
    return str(store.attributes["source"]["name"]).lower().endswith((*_HEADER, ".img", ".img.gz"))


def _write(store: Store, head: bytes, destination: Path, path: Path, clock: Clock) -> None:
    """Write `head`, the voxels and what followed them, gzipped if the name of the destination says so."""
    if not destination.name.endswith(".gz"):
        _write_plain(store, head, destination, path, clock)
        return
    # Chunks hold all of t, the file is sorted by t: the voxels are laid out plain, then packed.
    with PartialFile(destination) as plain:
        _write_plain(store, head, destination, plain.path, clock)
        try:
            with plain.path.open("rb") as source, _packer(path) as file:
                shutil.copyfileobj(source, file, 1 << 20)
        except OSError as error:
            raise explain(destination, error) from error


def _write_small(data: bytes, destination: Path, path: Path) -> None:
    try:
        if destination.name.endswith(".gz"):
            with _packer(path) as file:
                file.write(data)
        else:
            path.write_bytes(data)
    except OSError as error:
        raise explain(destination, error) from error


@contextmanager
def _packer(path: Path) -> Iterator[gzip.GzipFile]:
    """Open a gzip file that holds neither a name nor a time."""
    with (
        path.open("xb") as raw,
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as file,
    ):
        yield file


def _write_plain(store: Store, head: bytes, destination: Path, path: Path, clock: Clock) -> None:
    try:
        with path.open("xb", buffering=0) as file:
            _write_all(file.fileno(), head, 0)
            for done, index in enumerate(store.grid, 1):
                chunk = store.chunk(index).astype(store.source_dtype, copy=False)
                for offset, run in _runs(chunk, store.grid.region(index), store.grid.shape):
                    _write_all(file.fileno(), run.tobytes(), len(head) + offset)
                clock.tell("exporting", done)
            _write_all(file.fileno(), store.small_bytes(layout.TRAILING), len(head) + store.source_bytes)
    except OSError as error:
        raise explain(destination, error) from error


def _runs(
    chunk: npt.NDArray[Any], region: tuple[slice, ...], shape: tuple[int, ...]
) -> list[tuple[int, npt.NDArray[Any]]]:
    """Return the pieces of a chunk that lie together in a C-ordered file, each with its offset in bytes."""
    split = len(shape)
    while split > 0 and (split == len(shape) or chunk.shape[split] == shape[split]):
        split -= 1
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    start = sum(part.start * stride for part, stride in zip(region, strides, strict=True))
    pieces = []
    for lead in np.ndindex(chunk.shape[:split]):
        offset = start + sum(i * stride for i, stride in zip(lead, strides, strict=False))
        pieces.append((offset * chunk.itemsize, chunk[lead]))
    return pieces


def _write_all(handle: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(handle, view, offset)
        view, offset = view[done:], offset + done
