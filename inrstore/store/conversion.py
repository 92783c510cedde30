"""One image on its way to its store: what is still to be encoded, then measure, metadata, publish."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.chunk.decode import decode_chunk, describe_chunk
from inrstore.chunk.encode import Together
from inrstore.chunk.quality import Target, rmse
from inrstore.chunk.shared import Shared, texts_of
from inrstore.chunk.shared import of as shared_of
from inrstore.errors import ConfigurationError, QualityError
from inrstore.evaluate.metrics import ErrorStatistics, Measures, Ranges
from inrstore.evaluate.noise import Excess
from inrstore.sources import Source
from inrstore.sources.strip import stripped
from inrstore.store import attributes, layout, manifest, masks
from inrstore.store.container import Member, is_zip, publish, refuse_existing
from inrstore.store.defaults import quality_for
from inrstore.store.layout import Array, Grid, ZarrFormat
from inrstore.store.options import Options
from inrstore.store.quality import noise_of
from inrstore.store.reader import Store, naming
from inrstore.store.reports import Clock, ConvertReport

_TINY = 1e-12
"""Error over the target where there was none: a promise is a positive number."""
_ROWS = 1 << 18
"""Values that are compared at once where the worst one is looked for."""
_AIMS = 0.99, 0.975, 0.965
"""Of what a measurement may be off: what is aimed at when chunks are coded again, each time."""
_REFINED = 8
"""Times that they are at most."""


class Conversion:
    """One image on its way to its store.

    Attributes
    ----------
    targets : dict
        What each chunk has to reach.
    frames : dict
        Chunks that are encoded.
    """

    def __init__(
        self, source: Source, destination: str, options: Options, work: str = "", replaces: str = "",
        shares: npt.NDArray[np.float64] | None = None,
    ) -> None:  # fmt: skip
        self.dropped: tuple[str, ...] = ()
        if options.strip:
            source, self.dropped = stripped(source)
        self.source, self.destination = source, destination
        self.work, self.replaces = work, replaces
        if is_zip(destination) and options.zarr_format == 2:
            raise ConfigurationError(f"{destination}: a zipped OME-Zarr is of Zarr format 3")
        if not replaces:
            refuse_existing(destination)
        self.dims = layout.image_dims(source.voxels.ndim)
        leading = layout.measurement_axes(self.dims)
        self.inside = masks.read_mask(options.mask, source) if options.mask else None
        self.ranges = Ranges.of(source.voxels, leading, self.inside)
        self.default: dict[str, Any] = {}
        if options.quality.default:
            quality, self.default = quality_for(source, options.modality, self.inside)
            options = replace(options, quality=quality)
        self.options = options
        chunks = chunks_for(source.voxels.shape, self.dims, options, spatial=source.spatial)
        self.grid = Grid(source.voxels.shape, chunks)
        self.nominal = options.quality.psnr_at_target(self.ranges)
        self.noise = noise_of(source, leading, self.inside) if options.quality.noise is not None else None
        self._refined = 0
        self._sigma = None if self.noise is None else self.noise.sigma * (1.0 if shares is None else shares)
        self.targets: dict[tuple[int, ...], Target] = self._targets(self._sigma)
        self.preserved: dict[str, Any] | None = None
        self.frames: dict[tuple[int, ...], bytes] = {}
        self._worst, self._parameters = 1.0, tuple[bytes, ...]()
        self._promised = options.quality

    def _targets(self, sigma: npt.NDArray[np.float64] | None) -> dict[tuple[int, ...], Target]:
        targets = self.options.quality.chunk_targets(self.grid, self.ranges, self.dims, self.cut, sigma)
        return dict(zip(self.grid, targets, strict=True))

    @property
    def shares(self) -> npt.NDArray[np.float64] | None:
        """What each measurement may be off, over its noise; None where that is nothing to go by."""
        return None if self.noise is None or self._sigma is None else np.asarray(self._sigma / self.noise.sigma)

    @property
    def stored(self) -> int:
        """Bytes of the chunks."""
        return sum(map(len, self.frames.values()))

    def decoded(self) -> npt.NDArray[Any]:
        """Return the image as readers decode it."""
        out = np.zeros(self.grid.shape, layout.stored_dtype(self.source.voxels.dtype))
        for index in self.grid:
            out[self.grid.region(index)] = self._decoded(index)
        return out

    def refine(self) -> bool:
        """Return whether chunks have to be coded again: a measurement is further off than its noise allows.

        Chunks keep a mean over their measurements; which share of it each one gets, only shows when it is decoded. So
        those that got too much are asked for more, the others for less, and in the end all for more.
        """
        if self.noise is None or self._sigma is None or self.options.quality.noise is None:
            return False
        excess = Excess(self.noise)
        for index in self.grid:
            region = self.grid.region(index)
            excess.add(self.source.voxels[region], self._decoded(index), region)
        ratios = excess.ratios() / self.options.quality.noise
        if ratios.max(initial=0.0) <= 1:
            return False
        if self._refined == _REFINED and self.options.strict:
            return False  # networks hold every chunk, or the image fails
        self._refined += 1
        if self._refined > _REFINED:
            self.targets = dict.fromkeys(self.grid, Target(lossless=True))
            self._sigma = None
        else:
            if self._refined <= len(_AIMS):
                self._sigma = self._sigma * np.clip(_AIMS[self._refined - 1] / np.maximum(ratios, 1e-3), 0.25, 1.25)
            else:
                self._sigma = self._sigma * (0.997 / float(ratios.max())) ** (self._refined - len(_AIMS))
            self.targets = self._targets(self._sigma)
        self.frames, self._worst, self._parameters = {}, 1.0, ()
        return True

    def _decoded(self, index: tuple[int, ...]) -> npt.NDArray[Any]:
        """Return a chunk as readers decode it, without its padding."""
        dtype = layout.stored_dtype(self.source.voxels.dtype)
        with naming(self.key(index)):
            chunk = decode_chunk(self.frames[index], self.grid.chunks, dtype, shared_of(*self._parameters))
        return chunk[tuple(slice(s.stop - s.start) for s in self.grid.region(index))]

    def cut(self, index: tuple[int, ...]) -> tuple[npt.NDArray[Any], masks.Inside | None]:
        """Return a chunk, and its part of the mask if there is one."""
        inside = None if self.inside is None else masks.cut(self.inside, self.grid, index)
        return self.grid.cut(self.source.voxels, index), inside

    def together(self) -> list[list[tuple[int, ...]]]:
        """Return the chunks that keep a target rmse together, those of one target each; nothing if each is for itself.

        Chunks have different targets where they hold different measurements.
        """
        groups: dict[Target, list[tuple[int, ...]]] = {}
        for index, target in self.targets.items():
            groups.setdefault(target, []).append(index)
        if len(self.targets) < 2 or self.options.strict or any(target.rmse is None for target in groups):
            return []
        # A group may bring a parameter for each 2^27 values.
        size = math.prod(self.grid.chunks)
        parameters = sum(math.ceil(len(group) * size / limits.MAX_CHUNK_VALUES) for group in groups.values())
        return list(groups.values()) if len(groups) == 1 or parameters <= limits.MAX_SHARED else []

    def take(self, indices: Sequence[tuple[int, ...]], made: Together) -> None:
        """Keep the frames of chunks that keep their target together, and what they share."""
        self.frames.update(zip(indices, made.frames, strict=True))
        self._worst = max(self._worst, made.worst)
        self._parameters += made.parameters

    def name(self, shared: Shared, frames: Mapping[tuple[int, ...], bytes]) -> None:
        """Take the frames that name a shared network and are smaller, if together they save more than it takes."""
        smaller = {index: frame for index, frame in frames.items() if len(frame) < len(self.frames[index])}
        used = {bytes.fromhex(describe_chunk(frame).details["shared"]) for frame in smaller.values()}
        parameters = tuple(data for digest, data in shared.items() if digest in used)
        saved = sum(len(self.frames[index]) - len(frame) for index, frame in smaller.items())
        if saved > sum(len(text) for text in texts_of(parameters)):  # as the metadata hold them
            self.frames.update(smaller)
            self._parameters += parameters

    def key(self, index: tuple[int, ...]) -> str:
        """Return the path of a chunk inside the store."""
        return layout.chunk_key(self.options.zarr_format, layout.IMAGE, index)

    def finish(self, clock: Clock) -> ConvertReport:
        """Decode the chunks, measure, write everything and give the store its name."""
        measures, ratios, worst, decoded, modes = self._measure(clock)
        broken = self.options.quality.broken_by(measures, ratios)
        if broken:
            raise QualityError(f"{self.source.label}: {broken}; nothing was written")
        self._promised = self.options.quality.kept_by(measures)
        members, ome = self._members(measures, worst, decoded)
        size = publish(self.destination, members, work=self.work, ome=ome, replaces=self.replaces)
        seconds, nbytes = clock.seconds, self.source.voxels.nbytes
        return ConvertReport(
            store=self.destination,
            **measures.to_dict(),
            worst_voxel=worst,
            promised=self._promised.to_dict(),
            noise=None if self.noise is None else self.noise.describe(),
            preserve=self.preserved,
            default=self.default,
            source_bytes=nbytes,
            stored_bytes=size,
            ratio=nbytes / size,
            chunks=len(self.grid),
            modes=modes,
            seconds=seconds,
            mb_per_s=nbytes / 1e6 / seconds,
            seal=manifest.read_seal(members[0][1]),
            shape=self.source.voxels.shape,
            dims=self.dims,
            stripped=self.dropped,
            dtype=self.source.voxels.dtype.name,
            warnings=self.source.warnings,
            kept=None if self.inside is None else float(self.inside.mean()),
        )

    def _measure(
        self, clock: Clock
    ) -> tuple[Measures, npt.NDArray[np.float64] | None, tuple[int, ...], str, dict[str, int]]:
        """Decode every chunk and compare it with the source."""
        voxels = self.source.voxels
        statistics = ErrorStatistics(self.ranges)
        dtype = layout.stored_dtype(voxels.dtype)
        worst = (0,) * voxels.ndim
        sha256, modes, largest = hashlib.sha256(), Counter[str](), 0.0
        shared = shared_of(*self._parameters)
        excess = None if self.noise is None else Excess(self.noise)
        for done, index in enumerate(self.grid, 1):
            data, key = self.frames[index], self.key(index)
            with naming(key):
                chunk = decode_chunk(data, self.grid.chunks, dtype, shared)
                modes[describe_chunk(data).mode] += 1
            region = self.grid.region(index)
            decoded = chunk[tuple(slice(s.stop - s.start) for s in region)]
            sha256.update(np.ascontiguousarray(decoded).reshape(-1).data)
            before = statistics.largest
            inside = None if self.inside is None else masks.within(self.inside, region)
            if inside is not None and decoded.any(where=~inside):
                raise QualityError(f"{self.source.label}: {key}: voxels outside the mask are not 0")
            statistics.add(voxels[region], decoded, region, inside)
            if excess is not None:
                excess.add(voxels[region], decoded, region)
            if statistics.largest > before:
                worst = _worst(voxels[region], decoded, region, inside)
            if self.options.found:
                reached = rmse(self.cut(index)[0], chunk, self.targets[index]) / (self.targets[index].rmse or 1.0)
                largest = max(largest, reached)
            clock.tell("checking", done, 1.0)
        if self.options.found:
            self._worst = largest * (1 + 1e-6) or _TINY
        if statistics.not_finite_changed:
            raise QualityError(f"{self.source.label}: {statistics.not_finite_changed} non-finite voxels changed")
        # As people and NIfTI name a voxel: x first.
        ratios = None if excess is None else excess.ratios()
        return statistics.result(), ratios, worst[::-1], manifest.whole(sha256.digest()), dict(modes)

    def _members(self, measures: Measures, worst: tuple[int, ...], decoded: str) -> tuple[list[Member], bool]:
        """Return every file of the store, the sealed document of the group first, and whether it is an OME-Zarr."""
        zarr_format = self.options.zarr_format
        image = Array(
            layout.IMAGE,
            self.grid,
            layout.stored_dtype(self.source.voxels.dtype),
            self.dims,
            codec_document(
                self.options.quality.bound(list(self.targets.values()), self._worst),
                zarr_format,
                self.grid.chunks,
                layout.stored_dtype(self.source.voxels.dtype),
                self._parameters,
            ),
            attributes.image_attributes(self.source),
        )
        small = attributes.small_arrays(self.source, self.dims)
        arrays = [image, *(array for array, _ in small)]
        default = {"default": self.default} if self.default else {}
        quality = {"asked": self._promised.to_dict(), **default, **measures.to_dict(), "worst_voxel": list(worst)}
        if self.noise is not None:
            quality["noise"] = self.noise.describe()
        if self.preserved is not None:
            quality["preserve"] = self.preserved
        tool = f"inrstore {version('inrstore')}"
        group = attributes.group_attributes(self.source, self.dims, zarr_format, tool, quality)
        own = group[layout.ATTRIBUTES]
        if self.options.network is not None and not self.options.quality.lossless:
            own["network"] = {"preset": self.options.preset, **self.options.network.to_dict()}
        if self.options.strip:
            own["stripped"] = list(self.dropped)
        if self.inside is not None:
            own["mask"] = masks.describe(self.inside, self.options.mask.rpartition("/")[2])
        content = layout.metadata_files(zarr_format, group, arrays)
        for array, data in small:
            content[layout.chunk_key(zarr_format, array.name, (0,) * len(array.grid.shape))] = data
        content |= {self.key(index): frame for index, frame in self.frames.items()}
        grids = [(array.name, array.grid) for array in arrays]
        keys = list(layout.chunk_keys(zarr_format, grids))
        digests = (manifest.digest(content[key]) for key in keys)
        own[manifest.MANIFEST] = manifest.make(digests, decoded, content.get(".zmetadata", b""))
        root = manifest.seal(layout.root_file(zarr_format, group, arrays))
        order = [*layout.document_keys(zarr_format, (name for name, _ in grids)), *keys]
        return [(layout.root_key(zarr_format), root), *((key, content[key]) for key in order)], len(group) > 1


def _worst(
    original: npt.NDArray[Any], decoded: npt.NDArray[Any], region: tuple[slice, ...], inside: masks.Inside | None
) -> tuple[int, ...]:
    """Return the index in the image of the largest error of a block."""
    where = None if inside is None else np.broadcast_to(inside, original.shape)
    largest, found = -1.0, (0,) * original.ndim
    rows = max(1, _ROWS // math.prod(original.shape[1:]))
    for first in range(0, len(original), rows):  # of a whole block differences would be the most memory of a conversion
        part = slice(first, first + rows)
        with np.errstate(invalid="ignore"):
            error = np.abs(original[part].astype(np.float64) - decoded[part].astype(np.float64))
        np.copyto(error, -1.0, where=np.isnan(error))
        if where is not None:
            np.copyto(error, -1.0, where=~where[part])
        if error.max() > largest:
            largest = float(error.max())
            place = np.unravel_index(int(error.argmax()), error.shape)
            found = first + int(place[0]), *(int(i) for i in place[1:])
    return tuple(i + part.start for i, part in zip(found, region, strict=True))


PATCH = 64
"""Voxels along each axis of a chunk, where networks are for cubes."""


def chunks_for(
    shape: Sequence[int], dims: tuple[str, ...], options: Options, *, spatial: bool = True
) -> tuple[int, ...]:
    """Return the chunk shape of an image.

    Parameters
    ----------
    shape, dims : sequence of int, tuple of str
        Lengths and names of its axes.
    options : Options
    spatial : bool
        As in `Source`.
    """
    if options.planar and not options.quality.lossless:
        planes = options.chunks if isinstance(options.chunks, tuple) else tuple(shape[-2:])
        single = (1, *planes[-2:]) if len(shape) > 2 else planes
        return layout.choose_chunks(shape, dims, asked=single, voxels=1)
    if options.cubes and options.chunks == "auto" and not options.quality.lossless:
        return layout.choose_chunks(shape, dims, asked=(PATCH,) * 3, voxels=1)
    several = math.prod(shape[: layout.measurement_axes(dims)]) > 1
    least = layout.TRANSFORMED_VALUES if several else min(layout.SINGLE_VALUES, layout.TRANSFORMED_VALUES)
    voxels = min(layout.TRANSFORMED_VOXELS, layout.CHUNK_VOXELS)
    most: int | None = limits.MAX_TRANSFORM_COMPONENTS
    if options.quality.lossless or options.quality.max_error is not None:
        least, voxels, most = layout.LOSSLESS_VALUES, layout.CHUNK_VOXELS, None
    elif options.strict:
        least, voxels = 0, layout.CHUNK_VOXELS
    if not spatial and not options.strict:
        # Lines of a matrix have no neighbours in space: smaller chunks lose nothing, and take less memory.
        least, voxels = min(least, layout.SINGLE_VALUES), 1
    return layout.choose_chunks(shape, dims, least, options.chunks, voxels, most)


def report_of(store: Store) -> ConvertReport:
    """Return the report of a store that was converted earlier, from what it says of itself."""
    size, nbytes = store.stored_bytes(), store.source_bytes
    modes = Counter(store.describe(index).mode for index in store.grid)
    return ConvertReport(
        store=store.label,
        **store.stated().to_dict(),
        worst_voxel=tuple(store.measured.get("worst_voxel", ())),
        promised=store.promised,
        noise=store.said("noise"),
        preserve=store.said("preserve"),
        default=store.default,
        source_bytes=nbytes,
        stored_bytes=size,
        ratio=nbytes / size,
        chunks=len(store.grid),
        modes=dict(modes),
        seconds=0.0,
        mb_per_s=0.0,
        seal=store.seal,
        shape=store.grid.shape,
        dims=store.dims,
        stripped=tuple(map(str, store.attributes.get("stripped", ()))),
        dtype=store.source_dtype.name,
        warnings=store.warnings(),
    )


def codec_document(target: Target, zarr_format: ZarrFormat, chunks: tuple[int, ...], dtype: np.dtype[Any],
                   parameters: Sequence[bytes] = ()) -> dict[str, Any]:  # fmt: skip
    """Return the codec's entry in the metadata of the image, as the codec itself would write it."""
    if zarr_format == 3:
        from inrstore.codecs.zarr import InrCodec

        return InrCodec(**target.to_dict(), shared=texts_of(parameters)).to_dict()
    from inrstore.codecs.numcodecs import InrNumcodec

    made = InrNumcodec(**target.to_dict(), shared=parameters, chunk_shape=chunks, dtype=dtype)
    return made.get_config()
