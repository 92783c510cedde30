"""An image file -> a store: read, encode, write, decode what was written, measure, publish."""

from __future__ import annotations

import math
import os
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

from inrstore.archive import attributes, layout
from inrstore.archive.layout import Array, Grid, ZarrFormat
from inrstore.archive.quality import Promise
from inrstore.archive.reader import naming, stored_bytes
from inrstore.archive.reports import Clock, ConvertReport, JobCallback
from inrstore.archive.sources import Source, read_source
from inrstore.archive.writer import PartialStore, refuse_existing
from inrstore.encoder import encode_chunks
from inrstore.errors import ConfigurationError, QualityError
from inrstore.evaluate.metrics import ErrorStatistics, Measures, Ranges
from inrstore.format.chunk import decode_chunk, describe_chunk
from inrstore.format.target import Target
from inrstore.options import Device, EncodeOptions, Preset, Progress


def convert(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    psnr: float | None = None,
    rmse: float | None = None,
    max_error: float | None = None,
    lossless: bool = False,
    preset: Preset = "balanced",
    device: Device = "auto",
    zarr_format: ZarrFormat = 3,
    seed: int = 0,
    progress: JobCallback | None = None,
) -> ConvertReport:
    """Convert an image to a store.

    The store appears under its name only when it is complete, on the disk, decoded again and found to keep
    its promise; after any error nothing is left. The source is only read.

    Parameters
    ----------
    src : path-like
        A NIfTI file, .nii or .nii.gz. FSL gradient files beside it are taken along.
    dst : path-like
        Directory to make; must not exist.
    psnr : float, optional
        Quality in dB, each measurement (volume) relative to its own range. 40 if no quality is given.
    rmse, max_error : float, optional
        Quality in stored units instead.
    lossless : bool
        Keep every bit instead.
    preset : {"fast", "balanced", "small"}
        Time to spend.
    device : {"auto", "cpu", "cuda"}
        Where networks are fitted.
    zarr_format : {3, 2}
        Format of the store.
    seed : int
        The same input, seed and kind of device give the same bytes.
    progress : callable, optional
        Called with a `JobProgress` now and then.

    Returns
    -------
    ConvertReport

    Raises
    ------
    SourceError, ConfigurationError, DestinationExistsError, StoreError, QualityError, MissingDependencyError
    """
    promise = Promise.of(psnr, rmse, max_error, lossless)
    options = EncodeOptions(preset=preset, device=device, seed=seed)
    if zarr_format not in (2, 3):
        raise ConfigurationError(f"zarr_format must be 2 or 3, not {zarr_format!r}")
    destination = Path(dst)
    refuse_existing(destination)
    source = read_source(src)
    dims = layout.image_dims(source.voxels.ndim)
    grid = Grid(source.voxels.shape, layout.choose_chunks(source.voxels.shape, dims))
    ranges = Ranges.of(source.voxels, layout.measurement_axes(dims))
    clock = Clock(progress, len(grid), source.voxels.nbytes)
    nominal = promise.psnr_at_target(ranges)

    def show(step: Progress) -> None:
        current = None
        if nominal is not None and step.rmse:
            current = nominal - 20 * math.log10(step.rmse)
        clock.tell(step.stage, step.chunks_done, step.fraction, current)

    with PartialStore(destination) as partial:
        clock.tell("encoding", 0)
        chunks = [grid.cut(source.voxels, index) for index in grid]
        targets = promise.chunk_targets(grid, ranges, dims, chunks)
        frames = encode_chunks(chunks, targets, options, show if progress else None)
        del chunks
        for index, frame in zip(grid, frames, strict=True):
            partial.write(layout.chunk_key(zarr_format, layout.IMAGE, index), frame)
        modes = Counter(describe_chunk(frame).mode for frame in frames)
        del frames
        measures = _measure(partial, source, grid, ranges, zarr_format, clock)
        broken = promise.broken_by(measures)
        if broken:
            raise QualityError(f"{source.path}: {broken}; nothing was written")
        target = promise.target(ranges, dims)
        for path, data in _other_files(source, dims, grid, target, zarr_format, promise, measures).items():
            partial.write(path, data)
        partial.commit()

    seconds = clock.seconds
    size = stored_bytes(destination)
    return ConvertReport(
        store=str(destination),
        **measures.to_dict(),
        promised=promise.to_dict(),
        source_bytes=source.voxels.nbytes,
        stored_bytes=size,
        ratio=source.voxels.nbytes / size,
        chunks=len(grid),
        modes=dict(modes),
        seconds=seconds,
        mb_per_s=source.voxels.nbytes / 1e6 / seconds,
    )


def _measure(
    partial: PartialStore, source: Source, grid: Grid, ranges: Ranges, zarr_format: ZarrFormat, clock: Clock
) -> Measures:
    """Decode every chunk from the files just written and compare it with the source."""
    statistics = ErrorStatistics(ranges)
    dtype = layout.stored_dtype(source.voxels.dtype)
    for done, index in enumerate(grid, 1):
        key = layout.chunk_key(zarr_format, layout.IMAGE, index)
        data = partial.read(key)
        with naming(key):
            chunk = decode_chunk(data, grid.chunks, dtype)
        region = grid.region(index)
        decoded = chunk[tuple(slice(s.stop - s.start) for s in region)]
        statistics.add(source.voxels[region], decoded, region)
        clock.tell("checking", done, 1.0)
    if statistics.not_finite_changed:
        raise QualityError(f"{source.path}: {statistics.not_finite_changed} non-finite voxels changed")
    return statistics.result()


def _other_files(
    source: Source,
    dims: tuple[str, ...],
    grid: Grid,
    target: Target,
    zarr_format: ZarrFormat,
    promise: Promise,
    measures: Measures,
) -> dict[str, bytes]:
    """Return every file of the store but the chunks of the image."""
    image = Array(
        layout.IMAGE,
        grid,
        layout.stored_dtype(source.voxels.dtype),
        dims,
        codec_document(target, zarr_format),
        attributes.image_attributes(source),
    )
    small = attributes.small_arrays(source, dims)
    quality = {"asked": promise.to_dict(), **measures.to_dict()}
    own = attributes.group_attributes(source, dims, zarr_format, f"inrstore {version('inrstore')}", quality)
    files = layout.metadata_files(zarr_format, own, [image, *(array for array, _ in small)])
    for array, data in small:
        index = (0,) * len(array.grid.shape)
        files[layout.chunk_key(zarr_format, array.name, index)] = data
    return files


def codec_document(target: Target, zarr_format: ZarrFormat) -> dict[str, Any]:
    """Return the codec's entry in the metadata of the image, as the codec itself would write it."""
    if zarr_format == 3:
        from inrstore.codecs.zarr import InrCodec

        return InrCodec(**target.to_dict()).to_dict()
    from inrstore.codecs.numcodecs import InrNumcodec

    return InrNumcodec(**target.to_dict()).get_config()
