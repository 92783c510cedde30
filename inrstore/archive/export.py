"""A store -> the NIfTI file it was made from, header byte for byte, voxels chunk by chunk."""

from __future__ import annotations

import gzip
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.archive import layout
from inrstore.archive.reader import Store
from inrstore.archive.reports import Clock, JobCallback
from inrstore.archive.writer import PartialFile, explain
from inrstore.errors import ConfigurationError


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
    store gives back the whole uncompressed file (but for bytes after the voxels, which mean nothing). Memory
    holds one chunk at a time.

    Parameters
    ----------
    store : path-like
        Directory of the store.
    out : path-like
        File to make, .nii or .nii.gz; must not exist. The same store always gives the same bytes.
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
    if not destination.name.endswith((".nii", ".nii.gz")):
        raise ConfigurationError(f"{destination}: the name must end in .nii or .nii.gz")
    with PartialFile(destination) as packed:
        opened = Store(store)
        clock = Clock(progress, len(opened.grid), opened.source_bytes)
        if destination.suffix == ".gz":
            # Chunks hold all of t, the file is sorted by t: the voxels are laid out plain, then packed.
            with PartialFile(destination) as plain:
                _write(opened, plain.path, destination, clock)
                _compress(plain.path, packed.path, destination)
        else:
            _write(opened, packed.path, destination, clock)
        packed.commit()
    seconds = clock.seconds
    return ExportReport(
        store=str(opened.path),
        file=str(destination),
        source_bytes=opened.source_bytes,
        file_bytes=destination.stat().st_size,
        seconds=seconds,
        mb_per_s=opened.source_bytes / 1e6 / seconds,
    )


def _write(store: Store, path: Path, destination: Path, clock: Clock) -> None:
    header = store.read(layout.HEADER).tobytes()
    try:
        with path.open("xb", buffering=0) as file:
            _write_all(file.fileno(), header, 0)
            for done, index in enumerate(store.grid, 1):
                chunk = store.chunk(index).astype(store.source_dtype, copy=False)
                for offset, run in _runs(chunk, store.grid.region(index), store.grid.shape):
                    _write_all(file.fileno(), run.tobytes(), len(header) + offset)
                clock.tell("exporting", done)
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


def _compress(plain: Path, packed: Path, destination: Path) -> None:
    try:
        with (
            plain.open("rb") as source,
            packed.open("xb") as raw,
            gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as file,
        ):
            shutil.copyfileobj(source, file, 1 << 20)
    except OSError as error:
        raise explain(destination, error) from error
