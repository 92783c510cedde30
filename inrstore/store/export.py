"""A store -> the files it was made from, header byte for byte, voxels chunk by chunk; their format says how."""

from __future__ import annotations

import gzip
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from inrstore.errors import ConfigurationError, StoreError
from inrstore.sources.format import Around, Output
from inrstore.sources.registry import format_of_kind, stem
from inrstore.store import layout
from inrstore.store.container import NewFile, explain
from inrstore.store.reader import Store
from inrstore.store.reports import Clock, JobCallback


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
        Size of the file; of several, of all.
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
    """Write the image of a store as a file of the format that it was made from, with the sidecars that it keeps.

    Every byte before the voxels is that of the source; the voxels have its dtype and byte order. A lossless
    store gives back the whole uncompressed file. Memory holds one chunk at a time.

    Parameters
    ----------
    store : path-like
        Path or URL of the store.
    out : path-like
        File to make, with an ending of that format, in small letters or capitals; must not exist. The same store
        always gives the same bytes. Of a format of several files the first: .hdr, which gets its .img beside it.
        The names of its sidecars (.json, .bval, .bvec, with the stem of this one) must be free, too.
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
    opened = Store(store)
    outputs = [(destination.with_name(output.name), output) for output in outputs_of(opened, destination)]
    clock = Clock(progress, len(opened.grid), opened.source_bytes)
    with ExitStack() as stack:
        partials = [stack.enter_context(NewFile(path)) for path, _ in outputs]
        for partial, (path, output) in zip(partials, outputs, strict=True):
            _write(opened, output, path, partial.path, clock)
        for partial in partials[::-1]:  # the file that an image is known by last
            partial.commit()
    size = sum(path.stat().st_size for path, _ in outputs)
    seconds = clock.seconds
    return ExportReport(
        store=opened.label,
        file=str(destination),
        source_bytes=opened.source_bytes,
        file_bytes=size,
        seconds=seconds,
        mb_per_s=opened.source_bytes / 1e6 / seconds,
    )


def outputs_of(store: Store, destination: Path) -> tuple[Output, ...]:
    """Return the files that a store is written as under a name: those of its format, and its sidecars.

    Raises
    ------
    StoreError
        If its format is not known, or what it says of the bytes around its voxels cannot be.
    ConfigurationError
        If the name is none of its format.
    """
    kind = str(store.attributes["source"].get("kind"))
    found = format_of_kind(kind)
    if found is None:
        raise StoreError(f"{store.label}: {store.root_key}: source: kind: {kind!r} is no format that can be written")
    names = found.names(destination.name)
    if not names or names[0] != destination.name:
        raise ConfigurationError(
            f"{destination}: the store was made from a {kind}; the name must end in {' or '.join(found.suffixes[0])}"
        )
    around = Around(
        kind=kind,
        header=store.header(),
        leading=store.small_bytes(layout.LEADING),
        trailing=store.small_bytes(layout.TRAILING),
    )
    beside = [Output(name=stem(destination.name) + ending, head=data, voxels=False)
              for ending, data in store.sidecars().items()]  # fmt: skip
    return (*found.write(names, around), *beside)


def _write(store: Store, output: Output, destination: Path, path: Path, clock: Clock) -> None:
    """Write a file: what is around the voxels, and the voxels if they are in it."""
    with _explained(destination), path.open("xb") as file:
        write_all(file.fileno(), output.plain, 0)
        if not output.packed:
            _write_content(store, output, file, len(output.plain), clock)
            return
        # Chunks hold all of t, the file is sorted by t: the voxels are laid out plain, then packed.
        with NewFile(destination) as laid, laid.path.open("x+b") as content:
            _write_content(store, output, content, 0, clock)
            content.seek(0)
            file.seek(len(output.plain))
            # A gzip stream that holds neither a name nor a time.
            with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed:
                shutil.copyfileobj(content, packed, 1 << 20)


@contextmanager
def _explained(destination: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise explain(destination, error) from error


def _write_content(store: Store, output: Output, file: BinaryIO, start: int, clock: Clock) -> None:
    """Write all but the plain bytes of a file, from `start` on."""
    handle = file.fileno()
    write_all(handle, output.head, start)
    start += len(output.head)
    if output.voxels:
        axes = output.axes or tuple(range(len(store.grid.shape)))
        shape = tuple(store.grid.shape[axis] for axis in axes)
        for done, index in enumerate(store.grid, 1):
            chunk = store.chunk(index).astype(store.source_dtype, copy=False)
            region = store.grid.region(index)
            for offset, run in runs(chunk.transpose(axes), tuple(region[axis] for axis in axes), shape):
                write_all(handle, run.tobytes(), start + offset)
            clock.tell("exporting", done)
        start += store.source_bytes
    write_all(handle, output.tail, start)


def runs(
    chunk: npt.NDArray[Any], region: tuple[slice, ...], shape: tuple[int, ...]
) -> list[tuple[int, npt.NDArray[Any]]]:
    """Return the pieces of a chunk that lie together in a C-ordered file, each with its offset in bytes.

    Parameters
    ----------
    chunk : ndarray
        Without padding, its axes as in the file.
    region : tuple of slice
        Where it lies.
    shape : tuple of int
        Of all.
    """
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


def write_all(handle: int, data: bytes, offset: int) -> None:
    """Write bytes to an open file at an offset."""
    view = memoryview(data)
    while view:
        done = os.pwrite(handle, view, offset)
        view, offset = view[done:], offset + done
