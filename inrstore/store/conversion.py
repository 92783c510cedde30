"""One image on its way to its store: what is still to be encoded, then measure, metadata, publish."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk.frame import VERSION as FORMAT_VERSION
from inrstore.chunk.frames import decode_chunk, describe_chunk
from inrstore.chunk.target import Target
from inrstore.errors import ConfigurationError, QualityError
from inrstore.evaluate.metrics import ErrorStatistics, Measures, Ranges
from inrstore.options import EncodeOptions
from inrstore.sources import Source
from inrstore.store import attributes, layout, manifest, masks
from inrstore.store.layout import Array, Grid, ZarrFormat
from inrstore.store.partial import Partial
from inrstore.store.quality import Promise
from inrstore.store.reader import Store, naming
from inrstore.store.reports import Clock, ConvertReport
from inrstore.store.writer import open_partial


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a store is to be.

    Parameters
    ----------
    promise : Promise
        Its quality.
    options : EncodeOptions
        Effort, device, seed.
    zarr_format : {3, 2}
        Format of the store.
    mask : str
        Path or URL of an image of the same grid; where it is 0 nothing is kept and 0 is read. Empty for none.
    """

    promise: Promise
    options: EncodeOptions = field(default_factory=EncodeOptions)
    zarr_format: ZarrFormat = 3
    mask: str = ""

    def __post_init__(self) -> None:
        if self.zarr_format not in (2, 3):
            raise ConfigurationError(f"zarr_format must be 2 or 3, not {self.zarr_format!r}")


class Conversion:
    """One image on its way to its store.

    Attributes
    ----------
    pending : list of tuple of int
        Chunks that are to be encoded.
    targets : dict
        What each chunk has to reach.
    """

    def __init__(self, source: Source, destination: str, wish: Wish) -> None:
        self.source, self.destination, self.wish = source, destination, wish
        self.dims = layout.image_dims(source.voxels.ndim)
        least = layout.TRANSFORMED_VALUES
        if wish.promise.lossless or wish.promise.max_error is not None:
            least = layout.LOSSLESS_VALUES
        elif wish.options.mode == "network":
            least = 0
        self.grid = Grid(source.voxels.shape, layout.choose_chunks(source.voxels.shape, self.dims, least))
        self.inside = masks.read_mask(wish.mask, source) if wish.mask else None
        self.ranges = Ranges.of(source.voxels, layout.measurement_axes(self.dims), self.inside)
        self.nominal = wish.promise.psnr_at_target(self.ranges)
        self.partial: Partial = open_partial(destination, self._job())
        finished = self.partial.finished()
        self.resumed = len(finished)
        self.pending = [index for index in self.grid if self.key(index) not in finished]
        targets = wish.promise.chunk_targets(self.grid, self.ranges, self.dims, self.cut) if self.pending else []
        self.targets: dict[tuple[int, ...], Target] = dict(zip(self.grid, targets, strict=False))

    def cut(self, index: tuple[int, ...]) -> tuple[npt.NDArray[Any], masks.Inside | None]:
        """Return a chunk, and its part of the mask if there is one."""
        inside = None if self.inside is None else masks.cut(self.inside, self.grid, index)
        return self.grid.cut(self.source.voxels, index), inside

    def key(self, index: tuple[int, ...]) -> str:
        """Return the path of a chunk inside the store."""
        return layout.chunk_key(self.wish.zarr_format, layout.IMAGE, index)

    def _job(self) -> dict[str, Any]:
        """Return what decides the bytes of a store. Where it is fitted may change between two runs."""
        wish = self.wish
        return {
            "source": self.source.name,
            "sha256": self.source.sha256,
            "quality": wish.promise.to_dict(),
            "preset": wish.options.preset,
            "mode": wish.options.mode,
            "seed": wish.options.seed,
            "zarr_format": wish.zarr_format,
            "mask": "" if self.inside is None else masks.describe(self.inside, "")["digest"],
            "tool": version("inrstore"),
            "format": FORMAT_VERSION,
        }

    def finish(self, clock: Clock) -> ConvertReport:
        """Decode what was written, write everything else, publish."""
        measures, worst, decoded, modes, files = self._measure(clock)
        broken = self.wish.promise.broken_by(measures)
        if broken:
            raise QualityError(f"{self.source.label}: {broken}; nothing was written")
        root = self._write_metadata(measures, worst, decoded, files)
        self.partial.publish(layout.root_key(self.wish.zarr_format), root)
        size = sum(size for size, _ in files.values()) + len(root)
        seconds, nbytes = clock.seconds, self.source.voxels.nbytes
        return ConvertReport(
            store=self.destination,
            **measures.to_dict(),
            worst_voxel=worst,
            promised=self.wish.promise.to_dict(),
            source_bytes=nbytes,
            stored_bytes=size,
            ratio=nbytes / size,
            chunks=len(self.grid),
            modes=modes,
            seconds=seconds,
            mb_per_s=nbytes / 1e6 / seconds,
            seal=manifest.read_seal(root),
            resumed_chunks=self.resumed,
        )

    def _measure(
        self, clock: Clock
    ) -> tuple[Measures, tuple[int, ...], str, dict[str, int], dict[str, manifest.Record]]:
        """Decode every chunk from the files just written and compare it with the source."""
        voxels = self.source.voxels
        statistics = ErrorStatistics(self.ranges)
        dtype = layout.stored_dtype(voxels.dtype)
        worst = (0,) * voxels.ndim
        sha256, modes, files = hashlib.sha256(), Counter[str](), dict[str, manifest.Record]()
        for done, index in enumerate(self.grid, 1):
            key = self.key(index)
            data = self.partial.read(key)
            files[key] = (len(data), manifest.digest(data))
            with naming(key):
                chunk = decode_chunk(data, self.grid.chunks, dtype)
                modes[describe_chunk(data).mode] += 1
            region = self.grid.region(index)
            decoded = chunk[tuple(slice(s.stop - s.start) for s in region)]
            sha256.update(decoded.tobytes())
            before = statistics.largest
            inside = None if self.inside is None else masks.within(self.inside, region)
            if inside is not None and decoded.any(where=~inside):
                raise QualityError(f"{self.source.label}: {key}: voxels outside the mask are not 0")
            statistics.add(voxels[region], decoded, region, inside)
            if statistics.largest > before:
                worst = _worst(voxels[region], decoded, region, inside)
            clock.tell("checking", done, 1.0)
        if statistics.not_finite_changed:
            raise QualityError(f"{self.source.label}: {statistics.not_finite_changed} non-finite voxels changed")
        # As people and NIfTI name a voxel: x first.
        return statistics.result(), worst[::-1], manifest.whole(sha256.digest()), dict(modes), files

    def _write_metadata(
        self, measures: Measures, worst: tuple[int, ...], decoded: str, files: dict[str, manifest.Record]
    ) -> bytes:
        """Write every file but the chunks of the image and the last one, which is returned; add them to `files`."""
        zarr_format = self.wish.zarr_format
        image = Array(
            layout.IMAGE,
            self.grid,
            layout.stored_dtype(self.source.voxels.dtype),
            self.dims,
            codec_document(self.wish.promise.target(self.ranges, self.dims), zarr_format),
            attributes.image_attributes(self.source),
        )
        small = attributes.small_arrays(self.source, self.dims)
        arrays = [image, *(array for array, _ in small)]
        quality = {"asked": self.wish.promise.to_dict(), **measures.to_dict(), "worst_voxel": list(worst)}
        tool = f"inrstore {version('inrstore')}"
        own = attributes.group_attributes(self.source, self.dims, zarr_format, tool, quality)
        if self.inside is not None:
            own[layout.ATTRIBUTES]["mask"] = masks.describe(self.inside, self.wish.mask.rpartition("/")[2])
        others = layout.metadata_files(zarr_format, own, arrays)
        for array, data in small:
            others[layout.chunk_key(zarr_format, array.name, (0,) * len(array.grid.shape))] = data
        for path, data in others.items():
            self.partial.write(path, data)
            files[path] = (len(data), manifest.digest(data))
        own[layout.ATTRIBUTES][manifest.MANIFEST] = manifest.make(files, decoded)
        return manifest.seal(layout.root_file(zarr_format, own, arrays))


def _worst(
    original: npt.NDArray[Any], decoded: npt.NDArray[Any], region: tuple[slice, ...], inside: masks.Inside | None
) -> tuple[int, ...]:
    """Return the index in the image of the largest error of a block."""
    with np.errstate(invalid="ignore"):
        error = np.abs(original.astype(np.float64) - decoded.astype(np.float64))
    if inside is not None:
        np.copyto(error, 0.0, where=~inside)
    found = np.unravel_index(int(np.nanargmax(error)), error.shape)
    return tuple(int(i) + part.start for i, part in zip(found, region, strict=True))


def report_of(store: Store) -> ConvertReport:
    """Return the report of a store that was converted earlier, from what it says of itself."""
    size, nbytes = store.stored_bytes(), store.source_bytes
    modes = Counter(store.describe(index).mode for index in store.grid)
    return ConvertReport(
        store=store.label,
        **store.stated().to_dict(),
        worst_voxel=tuple(store.measured.get("worst_voxel", ())),
        promised=store.promised,
        source_bytes=nbytes,
        stored_bytes=size,
        ratio=nbytes / size,
        chunks=len(store.grid),
        modes=dict(modes),
        seconds=0.0,
        mb_per_s=0.0,
        seal=store.seal,
        resumed_chunks=len(store.grid),
    )


def codec_document(target: Target, zarr_format: ZarrFormat) -> dict[str, Any]:
    """Return the codec's entry in the metadata of the image, as the codec itself would write it."""
    if zarr_format == 3:
        from inrstore.codecs.zarr import InrCodec

        return InrCodec(**target.to_dict()).to_dict()
    from inrstore.codecs.numcodecs import InrNumcodec

    return InrNumcodec(**target.to_dict()).get_config()
