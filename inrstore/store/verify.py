"""A store -> proof that it is whole: every file and chunk checked, and the source compared if there is one."""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from typing import Any

import numpy as np

from inrstore.errors import ConfigurationError, CorruptChunkError, QualityError, StoreError
from inrstore.evaluate.metrics import ErrorStatistics, Measures, Ranges
from inrstore.evaluate.noise import Excess, Noise
from inrstore.sources import Source, read_source
from inrstore.sources.strip import stripped
from inrstore.store import layout, manifest, masks
from inrstore.store.quality import Quality, noise_of
from inrstore.store.reader import Store
from inrstore.store.reports import Clock, InfoReport, JobCallback, VerifyReport

_SHOWN = 5


def verify(
    store: str | os.PathLike[str],
    against: str | os.PathLike[str] | None = None,
    *,
    fast: bool = False,
    subset: str | None = None,
    progress: JobCallback | None = None,
) -> VerifyReport:
    """Check a store: every file against the manifest, then every chunk by decoding it.

    Parameters
    ----------
    store : path-like
        Path or URL of the store.
    against : path-like, optional
        The source it was made from. Its header must be the one in the store, and the quality is measured
        again. A file compressed anew is accepted, and reported as not the same file.
    fast : bool
        Compare sizes and digests only; nothing is decoded.
    subset : str, optional
        "n/t" decodes the n-th of t parts of the chunks, for checking a large archive over t days.
    progress : callable, optional
        Called with a `JobProgress` for each chunk.

    Returns
    -------
    VerifyReport
        If nothing is wrong.

    Raises
    ------
    StoreError
        Naming the files that are missing or changed, or the part of the source that differs.
    QualityError
        If the voxels are further from the source than the store promises.
    """
    source = None if against is None else read_source(against)
    return verify_store(Store(store), source, fast=fast, subset=subset, progress=progress)


def verify_store(
    opened: Store,
    source: Source | None = None,
    *,
    fast: bool = False,
    subset: str | None = None,
    progress: JobCallback | None = None,
) -> VerifyReport:
    """Check a store that is open, against a source that is read; see `verify`."""
    part, parts = parse_subset(subset)
    if fast and (source is not None or subset):
        raise ConfigurationError("a fast check decodes nothing: it goes with neither a source nor a subset")
    if subset and source is not None:
        raise ConfigurationError("the quality is that of the whole image: a subset cannot be compared with a source")
    clock = Clock(progress, len(opened.grid), opened.source_bytes)
    _check_files(opened)
    same_file = None if source is None else _same_source(opened, source)
    for name in opened.small_names():
        opened.read(name)
    chosen = [] if fast else [index for number, index in enumerate(opened.grid) if number % parts == part]
    promised = Quality.from_dict(opened.promised)
    noise = None if source is None or promised.noise is None else _noise(opened, source)
    statistics, excess, modes = _decode(opened, chosen, source, noise, clock)

    measures = opened.stated()
    if statistics is not None:
        measures = statistics.result()
        broken = promised.broken_by(measures, None if excess is None else excess.ratios())
        if statistics.not_finite_changed:
            broken = f"{statistics.not_finite_changed} non-finite voxels changed"
        if broken:
            assert source is not None
            raise QualityError(f"{opened.label}: compared with {source.label}: {broken}")
    expected = {*opened.documents, *opened.manifest}
    extra = tuple(sorted(entry.key for entry in opened.files.walk() if entry.key not in expected))
    seconds = clock.seconds
    return VerifyReport(
        **_common(opened, measures, seconds),
        modes=dict(modes),
        against=None if source is None else source.label,
        same_file=same_file,
        extra_files=extra,
        chunks_decoded=len(chosen),
        mb_per_s=opened.source_bytes / 1e6 / seconds,
    )


def parse_subset(subset: str | None) -> tuple[int, int]:
    """Return (part, parts), counted from 0, of a text like "1/10"."""
    if subset is None:
        return 0, 1
    part, slash, parts = subset.partition("/")
    if not (slash and part.isascii() and parts.isascii() and part.isdigit() and parts.isdigit()):
        raise ConfigurationError(f"subset must look like 1/10, not {subset!r}")
    if not 1 <= int(part) <= int(parts):
        raise ConfigurationError(f"subset {subset}: there is no part {part} of {parts}")
    return int(part) - 1, int(parts)


def _check_files(opened: Store) -> None:
    """Compare every file with the manifest; name all that are bad."""
    problems: list[str] = []
    for key in opened.manifest:
        try:
            opened.file(key)
        except StoreError as error:
            problems.append(str(error).removeprefix(f"{opened.label}: "))
    _raise(opened, problems, len(opened.manifest) + len(opened.documents), "files")


def _decode(
    opened: Store, chosen: list[tuple[int, ...]], source: Source | None, noise: Noise | None, clock: Clock
) -> tuple[ErrorStatistics | None, Excess | None, Counter[str]]:
    """Decode chunks; compare them with the source if there is one, and all of them with the digest of the image."""
    inside = _inside(opened) if chosen else None
    statistics = None
    if source is not None:
        statistics = ErrorStatistics(Ranges.of(source.voxels, layout.measurement_axes(opened.dims), inside))
    excess = None if noise is None else Excess(noise)
    modes, sha256, problems = Counter[str](), hashlib.sha256(), list[str]()
    for done, index in enumerate(chosen, 1):
        try:
            decoded = opened.chunk(index)
            modes[opened.describe(index).mode] += 1
        except (StoreError, CorruptChunkError) as error:
            problems.append(str(error))
        else:
            sha256.update(np.ascontiguousarray(decoded).reshape(-1).data)
            if statistics is not None and source is not None:
                region = opened.grid.region(index)
                kept = None if inside is None else masks.within(inside, region)
                statistics.add(source.voxels[region], decoded, region, kept)
                if excess is not None:
                    excess.add(source.voxels[region], decoded, region)
        clock.tell("decoding", done)
    _raise(opened, problems, len(opened.grid), "chunks")
    if len(chosen) == len(opened.grid) and manifest.whole(sha256.digest()) != opened.decoded_digest:
        raise StoreError(f"{opened.label}: the decoded image is not the one that was checked when the store was made")
    return statistics, excess, modes


def _noise(opened: Store, source: Source) -> Noise:
    """Return the noise of the source, measured again as it was when the store was made.

    Raises
    ------
    StoreError
        If that was in a way this program does not know.
    """
    estimator = (opened.said("noise") or {}).get("estimator")
    noise = noise_of(source, layout.measurement_axes(opened.dims), _inside(opened))
    if estimator != noise.estimator:
        raise StoreError(f"{opened.label}: attribute quality.noise.estimator: {estimator!r} is not {noise.estimator}, "
                         "by which the noise of its source is measured")  # fmt: skip
    return noise


def _inside(opened: Store) -> masks.Inside | None:
    """Return the mask of a store after a check that it is the one that was given."""
    try:
        inside = opened.inside()
    except CorruptChunkError as error:
        raise StoreError(f"{opened.label}: the mask cannot be read: {error}") from error
    if inside is not None:
        said = opened.attributes["mask"]
        if not isinstance(said, dict) or said.get("digest") != masks.describe(inside, "")["digest"]:
            raise StoreError(f"{opened.label}: the mask in the chunks is not the one that was given")
    return inside


def _raise(opened: Store, problems: list[str], of: int, what: str) -> None:
    if problems:
        text = "; ".join(problems[:_SHOWN])
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise StoreError(f"{opened.label}: {len(problems)} of {of} {what} are bad: {text}{more}")


def info(store: str | os.PathLike[str]) -> InfoReport:
    """Return what a store says of itself: sizes, modes, quality. Nothing is decoded.

    Parameters
    ----------
    store : path-like
        Path or URL of the store.
    """
    opened = Store(store)
    clock = Clock(None, len(opened.grid), opened.source_bytes)
    chunks: list[dict[str, Any]] = []
    by_mode: dict[str, dict[str, int]] = {}
    for index in opened.grid:
        described = opened.describe(index)
        raw = math.prod(part.stop - part.start for part in opened.grid.region(index)) * opened.source_dtype.itemsize
        sums = by_mode.setdefault(described.mode, {"bytes": 0, "saved": 0})
        sums["bytes"] += described.frame_bytes
        sums["saved"] += raw - described.frame_bytes
        chunks.append(
            {
                "key": opened.key(index),
                "mode": described.mode,
                "bytes": described.frame_bytes,
                **described.details,
            }
        )
    return InfoReport(
        **_common(opened, opened.stated(), clock.seconds),
        modes=dict(Counter(chunk["mode"] for chunk in chunks)),
        shape=opened.grid.shape,
        chunk_shape=opened.grid.chunks,
        dims=opened.dims,
        dtype=opened.source_dtype.name,
        zarr_format=opened.zarr_format,
        image_bytes=sum(chunk["bytes"] for chunk in chunks),
        source=dict(opened.attributes["source"]),
        seal=opened.seal,
        chunk_list=tuple(chunks),
        mode_bytes=by_mode,
    )


def _common(store: Store, measures: Measures, seconds: float) -> dict[str, Any]:
    size = store.stored_bytes()
    return {
        "store": store.label,
        **measures.to_dict(),
        "promised": store.promised,
        "noise": store.said("noise"),
        "preserve": store.said("preserve"),
        "default": store.default,
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
    where = f"{store.label}: compared with {source.label}"
    if source.voxels.shape != store.grid.shape or source.voxels.dtype != store.source_dtype:
        raise StoreError(
            f"{where}: the source is {source.voxels.dtype} {source.voxels.shape}, "
            f"the store {store.source_dtype} {store.grid.shape}"
        )
    if "stripped" in store.attributes:
        source, _ = stripped(source)
    if source.header != store.header():
        raise StoreError(f"{where}: the header is another one")
    for name, found in ((layout.LEADING, source.leading), (layout.TRAILING, source.trailing)):
        if found != store.small_bytes(name):
            raise StoreError(f"{where}: the {name} bytes around the voxels are others")
    return False
