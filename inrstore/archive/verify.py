"""A store -> proof that it is whole: every chunk decoded, and the source compared if there is one."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

from inrstore.archive import layout
from inrstore.archive.quality import Promise
from inrstore.archive.reader import Store, files_of, stored_bytes
from inrstore.archive.reports import Clock, InfoReport, JobCallback, VerifyReport
from inrstore.archive.sources import Source, read_source
from inrstore.errors import CorruptChunkError, QualityError, StoreError
from inrstore.evaluate.metrics import ErrorStatistics, Measures, Ranges

_SHOWN = 5


def verify(
    store: str | os.PathLike[str],
    against: str | os.PathLike[str] | None = None,
    *,
    progress: JobCallback | None = None,
) -> VerifyReport:
    """Read everything in a store and check it.

    Parameters
    ----------
    store : path-like
        Directory of the store.
    against : path-like, optional
        The source it was made from. Its header must be the one in the store, and the quality is measured
        again. A file compressed anew is accepted, and reported as not the same file.
    progress : callable, optional
        Called with a `JobProgress` for each chunk.

    Returns
    -------
    VerifyReport
        If nothing is wrong.

    Raises
    ------
    StoreError
        Naming the chunks that are missing or corrupt, or the part of the source that differs.
    QualityError
        If the voxels are further from the source than the store promises.
    """
    opened = Store(store)
    clock = Clock(progress, len(opened.grid), opened.source_bytes)
    source, same_file = None, None
    if against is not None:
        source = read_source(against)
        same_file = _same_source(opened, source)
    for name in opened.small_names():
        opened.read(name)

    statistics = None
    if source is not None:
        statistics = ErrorStatistics(Ranges.of(source.voxels, layout.measurement_axes(opened.dims)))
    modes: Counter[str] = Counter()
    problems: list[StoreError | CorruptChunkError] = []
    for done, index in enumerate(opened.grid, 1):
        try:
            decoded = opened.chunk(index)
            modes[opened.describe(index).mode] += 1
        except (StoreError, CorruptChunkError) as error:
            problems.append(error)
        else:
            if statistics is not None and source is not None:
                region = opened.grid.region(index)
                statistics.add(source.voxels[region], decoded, region)
        clock.tell("decoding", done)
    if problems:
        text = "; ".join(str(problem) for problem in problems[:_SHOWN])
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise StoreError(
            f"{opened.path}: {len(problems)} of {len(opened.grid)} chunks are bad: {text}{more}"
        ) from problems[0]

    if statistics is not None:
        measures = statistics.result()
        broken = Promise.from_dict(opened.promised).broken_by(measures)
        if statistics.not_finite_changed:
            broken = f"{statistics.not_finite_changed} non-finite voxels changed"
        if broken:
            raise QualityError(f"{opened.path}: compared with {against}: {broken}")
    else:
        measures = stated(opened)
    expected = opened.expected_files()
    extra = tuple(sorted(name for name, _ in files_of(opened.path) if name not in expected))
    seconds = clock.seconds
    return VerifyReport(
        **_common(opened, measures, seconds),
        modes=dict(modes),
        against=None if against is None else os.fspath(against),
        same_file=same_file,
        extra_files=extra,
        mb_per_s=opened.source_bytes / 1e6 / seconds,
    )


def info(store: str | os.PathLike[str]) -> InfoReport:
    """Return what a store says of itself: sizes, modes, quality. Nothing is decoded.

    Parameters
    ----------
    store : path-like
        Directory of the store.
    """
    opened = Store(store)
    clock = Clock(None, len(opened.grid), opened.source_bytes)
    chunks: list[dict[str, Any]] = []
    for index in opened.grid:
        described = opened.describe(index)
        chunks.append(
            {
                "key": opened.key(index),
                "mode": described.mode,
                "bytes": described.frame_bytes,
                **described.details,
            }
        )
    return InfoReport(
        **_common(opened, stated(opened), clock.seconds),
        modes=dict(Counter(chunk["mode"] for chunk in chunks)),
        shape=opened.grid.shape,
        chunk_shape=opened.grid.chunks,
        dims=opened.dims,
        dtype=opened.source_dtype.name,
        zarr_format=opened.zarr_format,
        image_bytes=sum(chunk["bytes"] for chunk in chunks),
        source=dict(opened.attributes["source"]),
        chunk_list=tuple(chunks),
    )


def stated(store: Store) -> Measures:
    """Return the quality that was measured when the store was made."""
    try:
        names = ("psnr", "psnr_range", "rmse", "max_error", "lossless")
        return Measures(**{name: store.measured[name] for name in names})
    except KeyError as error:
        raise StoreError(f"{store.path}: attribute quality.{error.args[0]} is missing") from error


def _common(store: Store, measures: Measures, seconds: float) -> dict[str, Any]:
    size = stored_bytes(store.path)
    return {
        "store": str(store.path),
        **measures.to_dict(),
        "promised": store.promised,
        "source_bytes": store.source_bytes,
        "stored_bytes": size,
        "ratio": store.source_bytes / size,
        "chunks": len(store.grid),
        "seconds": seconds,
    }


def _same_source(store: Store, source: Source) -> bool:
    """Check that a source has the header of the store; return whether it is the very same file."""
    if source.sha256 == store.attributes["source"]["sha256"]:
        return True
    where = f"{store.path}: compared with {source.path}"
    if source.voxels.shape != store.grid.shape or source.voxels.dtype != store.source_dtype:
        raise StoreError(
            f"{where}: the source is {source.voxels.dtype} {source.voxels.shape}, "
            f"the store {store.source_dtype} {store.grid.shape}"
        )
    if source.header != store.read(layout.HEADER).tobytes():
        raise StoreError(f"{where}: the NIfTI header is another one")
    return False
