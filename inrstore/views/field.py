"""A store as a function of place: values and derivatives anywhere, of networks by the network, of others by a spline.

A voxel's centre is at whole numbers, as in nibabel, and a voxel reaches half a step to each side; the image ends with
the outer faces of its outermost voxels. Everything that is decided for a voxel is decided for the places nearest to
it: which chunk answers, whether the mask holds it. So values of networks may jump half-way between two chunks.
"""

from __future__ import annotations

import math
import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import zarr

from inrstore.chunk.continuous import Continuous
from inrstore.chunk.decode import decode_inside, mode_of
from inrstore.errors import ConfigurationError, MissingDependencyError, StoreError
from inrstore.store import layout
from inrstore.store.attributes import TO_MM
from inrstore.store.reader import Store, naming
from inrstore.store.sealed import SealedStore
from inrstore.views import grids
from inrstore.views.scaled import dtype_of
from inrstore.views.splines import Read, interpolate

if TYPE_CHECKING:
    import torch
    import xarray

    from inrstore.store.reports import JobCallback
    from inrstore.views.resampled import ResampledReport

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
Measurements: TypeAlias = int | slice | Sequence[int] | npt.NDArray[Any] | None
Space: TypeAlias = Literal["world", "voxel"]

KEEP_BYTES = 64 << 20
"""Networks and masks that a field keeps."""
_FACE = 1e-6  # voxels: rounding of an affine and its inverse puts no place outside


@dataclass(frozen=True, eq=False)
class Samples:
    """What a field is at some points; `numpy.asarray` gives the values.

    Parameters
    ----------
    values : ndarray of float64, shape (points, measurements)
    gradients : ndarray of float64, shape (points, measurements, 3), or None
        Per mm along x, y, z of the world, or per voxel along i, j, k.
    points : dict of str to int
        How many points (times measurements) a "network" gave, a "spline", a "constant" chunk; how many are "outside".
    """

    values: Floats
    gradients: Floats | None
    points: dict[str, int]

    @property
    def kind(self) -> str:
        """What gave the values: "network", "spline" or "mixed"."""
        return kind_of(self.points)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self.values, dtype, copy=copy)


def kind_of(counts: dict[str, int]) -> str:
    """Return "network", "spline" or "mixed" for what parts are; constant ones count as neither unless all are."""
    found = [name for name in ("network", "spline") if counts.get(name)]
    return "mixed" if len(found) > 1 else found[0] if found else "spline"


class Field:
    """An image as a function of place; see `field`. Safe to use from several threads.

    Parameters
    ----------
    store : Store
    scaled, splines : bool
    keep : int
        Bytes of networks that are kept.

    Attributes
    ----------
    affine : ndarray of float64, shape (4, 4)
        Voxel indices (i, j, k, 1) -> millimetres of the world, as nibabel gives it (of a source that says so another
        unit).
    shape : tuple of int
        Voxels along i, j, k.
    measurements : int
        Values at each place: of axes beyond the third, the last one of a NIfTI slowest.
    scaled : bool
        Whether values are stored x scl_slope + scl_inter.
    splines : bool
        Whether networks are interpolated like other chunks.
    """

    def __init__(
        self, store: Store, *, scaled: bool = False, splines: bool = False, keep: int = KEEP_BYTES
    ) -> None:  # fmt: skip
        self.store, self.scaled, self.splines = store, scaled, splines
        if store.attributes["source"].get("kind") == "CIFTI":
            raise ConfigurationError(f"{store.label}: a CIFTI matrix is no function of place")
        self.affine = affine_of(store)
        self._lead = layout.measurement_axes(store.dims)
        self._axes = len(store.dims) - self._lead
        self._lengths = store.grid.shape[self._lead :]  # z, y, x, as far as there are any
        x, y, z = (*self._lengths[::-1], *(1,) * (3 - self._axes))
        self.shape: grids.Shape = (x, y, z)
        self.measurements = math.prod(store.grid.shape[: self._lead])
        self._slope, self._inter = (store.number(name) for name in ("scl_slope", "scl_inter")) if scaled else (1.0, 0.0)
        self._kept = _Kept(keep)
        self._image: Any = None
        self._inverse = np.linalg.inv(self.affine)
        self._counts: dict[str, int] | None = None

    def __reduce__(self) -> tuple[Callable[..., Field], tuple[Store, bool, bool, int]]:
        return _again, (self.store, self.scaled, self.splines, self._kept.most)

    def __repr__(self) -> str:
        return f"<field of {self.store.label}: {' x '.join(map(str, self.shape))}, {self.measurements} measurements>"

    @property
    def chunks(self) -> dict[str, int]:
        """How many chunks are a "network", are interpolated by a "spline", are "constant"; all frames are looked at."""
        if self._counts is None:
            counts = Counter(_kind(self.store.frame(index), self.splines) for index in self.store.grid)
            self._counts = dict(counts)
        return self._counts

    @property
    def kind(self) -> str:
        """What gives values: "network", "spline", or "mixed", of which `chunks` has the counts."""
        return kind_of(self.chunks)

    # ---- values at points

    def sample(
        self,
        points: npt.ArrayLike,
        *,
        space: Space = "world",
        gradient: bool = False,
        measurements: Measurements = None,
        outside: float | Literal["raise"] = math.nan,
    ) -> Samples:
        """Evaluate the field at points; only the chunks that they lie in are read.

        Parameters
        ----------
        points : array_like, shape (points, 3)
            Millimetres of the world (x, y, z: right, anterior, superior), or voxel indices (i, j, k), real numbers, in
            the order in which nibabel indexes the image.
        space : {"world", "voxel"}
            Which of the two.
        gradient : bool
            Give derivatives, too: per mm along the axes of the world, or per voxel along i, j, k.
        measurements : int, slice or sequence of int, optional
            Those wanted; all of them otherwise.
        outside : float or "raise"
            The value of points outside the image, those that are not finite among them; "raise" makes them an error.

        Returns
        -------
        Samples
            Values in float64, not rounded to the integers that the image has. Of what is outside the image, derivatives
            are NaN; outside a mask they are 0, and so are values (scaled: the intercept).

        Raises
        ------
        ConfigurationError
            For points of another shape, measurements that are not there, or points outside if these are an error.
        StoreError, CorruptChunkError
            If a chunk is missing, was changed, or is damaged.
        MissingDependencyError
            If values are to be interpolated, and scipy is not there.
        """
        places = self._voxels(points, space)
        chosen = self._chosen(measurements)
        values, slopes, counts = self._evaluate(places, chosen, gradient)
        values *= self._slope
        values += self._inter
        if counts["outside"]:
            out = ~self._within(places)
            if outside == "raise":
                first = np.asarray(points, np.float64)[np.flatnonzero(out)[0]].tolist()
                raise ConfigurationError(
                    f"{self.store.label}: points: {int(out.sum())} outside the image; the first is {first}"
                )
            values[out] = outside
        if not gradient:
            return Samples(values, None, dict(counts))
        slopes *= self._slope
        if space == "world":
            slopes = (slopes.reshape(-1, 3) @ self._inverse[:3, :3]).reshape(slopes.shape)
        return Samples(values, slopes, dict(counts))

    def module(self, chunk: Sequence[int] | None = None) -> torch.nn.Module:
        """Return the network of a chunk as a module of torch, for training on top of it.

        Parameters
        ----------
        chunk : sequence of int, optional
            Its place in the grid of chunks, as in its key: c/0/1/0/0 is (0, 1, 0, 0). The only one otherwise.

        Returns
        -------
        torch.nn.Module
            Takes voxel indices of the image, (points, 3), real numbers, and gives what `sample` does, (points,
            measurements), in the precision of its parameters (float32; `.double()` for float64). `measurements` says
            which ones these are. Outside the box of voxels that the network was fitted to, where the chunk is a
            constant, it gives that while `surrounded` is true; it knows of no mask and of no single exceptions.
            Parameters are float, normalised to inputs and outputs of about -1..1; outputs are limited to the range of
            the image while `limited` is true.

        Raises
        ------
        ConfigurationError
            If there are several chunks and none is named, there is no such chunk, or it is no network; or one whose
            values come from a table or that takes measurements for coordinates.
        MissingDependencyError
            Without torch.
        """
        counts = self.store.grid.counts
        if chunk is None and len(self.store.grid) > 1:
            raise ConfigurationError(f"{self.store.label}: chunk: there are {' x '.join(map(str, counts))}; name one")
        index = (0,) * len(counts) if chunk is None else tuple(int(i) for i in chunk)
        if len(index) != len(counts) or any(not 0 <= i < n for i, n in zip(index, counts, strict=True)):
            raise ConfigurationError(f"{self.store.label}: chunk: {index} is not inside {counts}")
        made = self._read(index, False)
        if not isinstance(made, Continuous):
            raise ConfigurationError(f"{self.store.label}: chunk: {self.store.key(index)} is no network")
        first = [i * n for i, n in zip(index, self.store.grid.chunks, strict=True)]
        try:
            found, measured = made.module(first, self.store.grid.shape, self._slope, self._inter)
        except ImportError as error:
            raise MissingDependencyError('a module needs torch: pip install "inrstore[fit]"') from error
        whole = tuple((measured + np.array(first[: self._lead], np.int64)).T)
        found.measurements = (
            np.ravel_multi_index(whole, self.store.grid.shape[: self._lead]) if whole else np.zeros(1, int)
        )
        module: torch.nn.Module = found
        return module

    # ---- grids

    def grid(
        self,
        spacing: float | Sequence[float] | None = None,
        *,
        shape: Sequence[int] | None = None,
        affine: npt.ArrayLike | None = None,
    ) -> xarray.DataArray:
        """Evaluate the field on another grid, lazily: values are made when they are needed.

        Parameters
        ----------
        spacing : float or sequence of three floats
            In mm, along all axes of the image or along i, j, k. The grid has the axes of the image, oblique ones too,
            and its centre, and as many voxels as come nearest to its extent. 1 mm if nothing is given.
        shape, affine : sequence of int, array_like (4, 4)
            Any other grid instead: voxels along i, j, k, and their indices -> mm. Outside the image values are NaN.

        Returns
        -------
        xarray.DataArray
            With the dimensions (..., t, z, y, x) that the image has, and coordinates in mm along the grid: from the
            centre of the image's first voxel, as `inrstore.open` has them; of any other grid from its own. Attributes:
            `affine` (16 numbers, row by row, of this grid), `kind` ("network", "spline", "mixed"), `values`.
            `nibabel.Nifti1Image(grid.values.T, numpy.reshape(grid.affine, (4, 4)))` is an image of it.

        Raises
        ------
        ConfigurationError, MissingDependencyError
        """
        if (shape is None) != (affine is None) or (shape is not None and spacing is not None):
            raise ConfigurationError("grid: a spacing is wanted, or shape and affine together")
        if shape is not None:
            return self._labelled(self.grid_of(*grids.checked(shape, affine), axes=3), parallel=False)
        return self._labelled(self.grid_of(*grids.spaced(self.shape, self.affine, 1.0 if spacing is None else spacing)))

    def level(self, level: int) -> xarray.DataArray:
        """Evaluate a level of the image's pyramid, 2^level times as coarse along each axis, lazily; nothing is stored.

        A voxel is the mean of the field at eight places inside it, a quarter of its width from its centre: of level 1
        these are the centres of the eight voxels that it covers. So a level costs an eighth of the one before.

        Parameters
        ----------
        level : int
            0 is the grid of the image.

        Returns
        -------
        xarray.DataArray
            As `grid` gives it; the first voxel begins where that of the image does.
        """
        made = grids.coarser(self.shape, self.affine, level)
        return self._labelled(self.grid_of(*made, average=level > 0))

    def export(
        self,
        out: str | os.PathLike[str],
        spacing: float | Sequence[float] = 1.0,
        *,
        progress: JobCallback | None = None,
    ) -> ResampledReport:
        """Write the field on a grid of another spacing as a NIfTI; memory holds a few planes at a time.

        Parameters
        ----------
        out : path-like
            File to make, .nii or .nii.gz; must not exist, and has its name when it is whole.
        spacing : float or sequence of three floats
            As in `grid`.
        progress : callable, optional
            Called with a `JobProgress` now and then.

        Returns
        -------
        ResampledReport

        Notes
        -----
        Voxels have the type of the source, integers are rounded; scaling, units and the rest of a NIfTI's header stay,
        as far as they are true of another grid: `inrstore.views.resampled.header`. Gradients (.bval, .bvec) are written
        beside it, since the axes are the same; a .json, which says how voxels were taken, is not.

        Raises
        ------
        ConfigurationError, DestinationExistsError, WriteError, StoreError, CorruptChunkError, MissingDependencyError
        """
        from inrstore.views import resampled

        if self.scaled:
            raise ConfigurationError("export: stored values are written, with their scaling in the header")
        grid = self.grid_of(*grids.spaced(self.shape, self.affine, spacing))
        return resampled.export(grid, self.store, out, self.chunks, self.kind, progress)

    def grid_of(
        self, shape: grids.Shape, affine: Floats, *, axes: int | None = None, average: bool = False
    ) -> grids.Grid:
        """Return the values of a grid as an array that evaluates what is asked for; see `grids.Grid`."""
        leading = self.store.grid.shape[: self._lead]
        dtype = dtype_of(self.store.dtype, self._slope, self._inter)
        return grids.Grid(self, shape, affine, leading, axes or self._axes, dtype, average=average)

    def _labelled(self, grid: grids.Grid, *, parallel: bool = True) -> xarray.DataArray:
        try:
            import xarray
        except ImportError as error:
            raise MissingDependencyError('a grid is a DataArray: pip install "inrstore[xarray]"') from error
        dims = (*self.store.dims[: self._lead], *"zyx"[3 - (grid.ndim - self._lead) :])
        unit = TO_MM.get(str(self.store.attributes["units"].get("space")), 1.0)
        steps, own = (np.linalg.norm(affine[:3, :3], axis=0) * unit for affine in (grid.affine, self.affine))
        first = (self._inverse @ grid.affine)[:3, 3] * own * parallel
        along = {name: (begin, step) for name, begin, step in zip("xyz", first, steps, strict=True)}
        coordinates = {name: (name, along[name][0] + along[name][1] * np.arange(n), {"units": "mm"})
                       for name, n in zip(dims, grid.shape, strict=True) if name in "xyz"}  # fmt: skip
        how = (
            "real: stored x scl_slope + scl_inter" if self.scaled else "stored: x scl_slope + scl_inter gives real ones"
        )
        said = {"affine": grid.affine.ravel().tolist(), "kind": self.kind, "values": how}
        return xarray.DataArray(grids.lazily(grid), coordinates, dims, layout.IMAGE, said)

    def _voxels(self, points: npt.ArrayLike, space: str) -> Floats:
        """Return points as voxel indices, (points, 3)."""
        places = np.asarray(points, np.float64)
        if places.ndim != 2 or places.shape[1] != 3:
            raise ConfigurationError(f"points: shape {places.shape} where (points, 3) is wanted")
        if space not in ("world", "voxel"):
            raise ConfigurationError(f"space must be world or voxel, not {space!r}")
        if space == "voxel":
            return places
        with np.errstate(invalid="ignore"):
            return np.asarray(places @ self._inverse[:3, :3].T + self._inverse[:3, 3])

    def _chosen(self, measurements: Measurements) -> Places:
        """Return the measurements wanted as positions along each leading axis, (wanted, axes)."""
        every = np.arange(self.measurements)
        try:
            flat = np.atleast_1d(every if measurements is None else every[measurements])
        except (IndexError, TypeError, ValueError) as error:
            raise ConfigurationError(f"measurements: {measurements!r}: there are {self.measurements}") from error
        if flat.ndim != 1:
            raise ConfigurationError("measurements: one number for each is wanted")
        if not self._lead:
            return np.zeros((len(flat), 0), np.int64)
        return np.stack(np.unravel_index(flat, self.store.grid.shape[: self._lead]), axis=1).astype(np.int64)

    def _within(self, places: Floats) -> npt.NDArray[np.bool_]:
        with np.errstate(invalid="ignore"):
            return np.asarray(((places >= -0.5 - _FACE) & (places <= np.array(self.shape) - 0.5 + _FACE)).all(1))

    def _evaluate(self, places: Floats, chosen: Places, gradient: bool) -> tuple[Floats, Floats, Counter[str]]:
        """Return stored values (points, measurements) and derivatives (.., 3) by voxel, i first, and what gave them."""
        values = np.full((len(places), len(chosen)), np.nan)
        slopes = np.full((len(places), len(chosen), 3 if gradient else 0), np.nan)
        inside = np.flatnonzero(self._within(places))
        counts = Counter(outside=(len(places) - len(inside)) * len(chosen))
        space = places[inside, : self._axes][:, ::-1].T  # (axes, points): z, y, x
        nearest = np.clip(np.floor(space + 0.5).astype(np.int64), 0, np.array(self._lengths)[:, None] - 1)
        chunks = np.array(self.store.grid.chunks, np.int64)
        leading, which = np.unique(chosen // chunks[: self._lead], axis=0, return_inverse=True)
        over = self.store.grid.counts[self._lead :]
        owner = np.ravel_multi_index(tuple(nearest // chunks[self._lead :, None]), over)
        order = np.argsort(owner, kind="stable")
        owners, starts = np.unique(owner[order], return_index=True)
        for number, start, stop in zip(owners.tolist(), starts, [*starts[1:], len(order)][: len(starts)], strict=True):
            part = order[start:stop]
            at = tuple(int(i) for i in np.unravel_index(number, over))
            for lead, ahead in enumerate(leading.tolist()):
                columns = np.flatnonzero(which.reshape(-1) == lead)
                kind, found, moved = self._chunk(
                    (*ahead, *at), space[:, part], nearest[:, part], chosen[columns], gradient
                )
                counts[kind] += found.size
                into = np.ix_(inside[part], columns)
                values[into] = found
                if gradient:
                    slopes[into] = 0.0
                    slopes[..., : self._axes][into] = moved[..., ::-1]
        return values, slopes, counts

    def _chunk(
        self, index: tuple[int, ...], places: Floats, nearest: Places, measured: Places, gradient: bool
    ) -> tuple[str, Floats, Floats]:
        """Evaluate points that belong to a chunk: what it is, values (points, measurements), slopes (.., axes)."""
        made = self._known(index)
        first = np.array(index, np.int64) * np.array(self.store.grid.chunks, np.int64)
        lead, space = first[: self._lead], first[self._lead :, None]
        if isinstance(made, Continuous):
            return "network", *made(places - space, nearest - space, measured - lead, gradient)
        if made.kind == "constant" and not self.chunks.get("spline"):
            values = self.store.chunk(index)[_index(measured - lead, nearest - space)].astype(np.float64)
            return "constant", values, np.zeros((*values.shape, self._axes if gradient else 0))
        values, slopes = interpolate(self._reader(measured), self._lengths, places, nearest, len(measured), gradient)
        if made.inside is not None:
            out = ~made.inside[_index(measured - lead, nearest - space)]
            values[out], slopes[out] = 0.0, 0.0
        return "spline", values, slopes

    def _known(self, index: tuple[int, ...]) -> Continuous | _Voxels:
        return self._kept.get(index, lambda: self._read(index, self.splines))

    def _read(self, index: tuple[int, ...], splines: bool) -> Continuous | _Voxels:
        """Read the frame of a chunk, as far as a field has to know it."""
        frame = self.store.frame(index)
        kind = _kind(frame, splines)
        with naming(self.store.key(index)):
            made = None
            if kind == "network":
                made = Continuous.read(frame, self.store.grid.chunks, self.store.dtype, self._axes)
            if made is not None:
                return made
            inside = None
            if "mask" in self.store.attributes:
                inside = decode_inside(frame, self.store.grid.chunks, self.store.dtype)
            return _Voxels("constant" if kind == "constant" else "spline", inside)

    def _reader(self, measured: Places) -> Read:
        """Return what reads voxels of some measurements: chunks are decoded once, and kept, by the codec."""
        image = self._decoded()

        def read(some: slice, parts: tuple[slice, ...]) -> npt.NDArray[Any]:
            lead = tuple(measured[some].T)
            if not lead:
                return np.repeat(np.asarray(image[parts])[None], some.stop - some.start, axis=0)
            spans = tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in lead)
            block = np.asarray(image[(*spans, *parts)])
            return np.asarray(block[tuple(axis - span.start for axis, span in zip(lead, spans, strict=True))])

        return read

    def _decoded(self) -> Any:
        """Return the decoded image as an array of zarr."""
        if self._image is None:
            self._image = zarr.open_array(SealedStore(self.store), path=layout.IMAGE, mode="r")
        return self._image


@dataclass(frozen=True, eq=False)
class _Voxels:
    """What a field knows of a chunk that is no network; `inside` is its part of the mask."""

    kind: str
    inside: npt.NDArray[np.bool_] | None

    @property
    def nbytes(self) -> int:
        return 0 if self.inside is None else self.inside.nbytes


class _Kept:
    """What chunks are, those used last, up to so many bytes and at least one."""

    def __init__(self, most: int) -> None:
        self.most, self._found = most, OrderedDict[tuple[int, ...], "Continuous | _Voxels"]()
        self._lock = threading.Lock()

    def get(self, key: tuple[int, ...], make: Callable[[], Continuous | _Voxels]) -> Continuous | _Voxels:
        with self._lock:
            found = self._found.get(key)
            if found is not None:
                self._found.move_to_end(key)
                return found
        found = make()
        with self._lock:
            self._found[key] = found
            while len(self._found) > 1 and sum(one.nbytes for one in self._found.values()) > self.most:
                self._found.popitem(last=False)
        return found


def _again(store: Store, scaled: bool, splines: bool, keep: int) -> Field:
    return Field(store, scaled=scaled, splines=splines, keep=keep)


def _kind(frame: bytes, splines: bool) -> str:
    """Return what a field makes of a frame; `splines` says that networks are interpolated."""
    mode = mode_of(frame)
    name = "" if mode is None else mode.name
    kinds = {"constant": "constant"} if splines else {"constant": "constant", "siren": "network"}
    return kinds.get(name, "spline")


def _index(measured: Places, nearest: Places) -> tuple[Places, ...]:
    """Return the index of (points, measurements) voxels of a chunk."""
    return (*(axis[None, :] for axis in measured.T), *(axis[:, None] for axis in nearest))


def affine_of(store: Store) -> Floats:
    """Return the affine of a store, which can be inverted.

    Raises
    ------
    StoreError
        If it is none.
    """
    try:
        affine = np.array(store.attributes["affine"], np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{store.label}: attribute affine: not 16 numbers") from error
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or affine[3].tolist() != [0, 0, 0, 1]:
        raise StoreError(f"{store.label}: attribute affine: not an affine of 4 x 4 finite numbers")
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    if not steps.all() or abs(np.linalg.det(affine[:3, :3] / steps)) < 1e-9:
        raise StoreError(f"{store.label}: attribute affine: voxels without a volume")
    return affine


def field(store: str | os.PathLike[str], *, scaled: bool = False, splines: bool = False) -> Field:
    """Open a store as a function of place: values and gradients anywhere, not at voxels alone.

    Where chunks are networks the network itself is evaluated at real coordinates, in float64, with its derivatives; at
    voxel centres it agrees with the decoded image but for roundings. Other chunks are interpolated by a cubic spline
    through their decoded voxels; `Field.kind` says which, and so does every result.

    Parameters
    ----------
    store : path-like
        Path or URL of the store.
    scaled : bool
        Give real values, stored value x scl_slope + scl_inter, instead of stored ones.
    splines : bool
        Interpolate decoded voxels where chunks are networks, too.

    Returns
    -------
    Field

    Raises
    ------
    StoreError
        If it is not a store of this package, was changed, or its affine cannot be inverted.
    ConfigurationError
        If it holds no places: a matrix (CIFTI).

    Examples
    --------
    >>> field = inrstore.field("dwi.ozx")                                     # doctest: +SKIP
    >>> found = field.sample([[10.5, -3.2, 40.0]], gradient=True)             # doctest: +SKIP
    >>> found.values.shape, found.gradients.shape, found.kind                 # doctest: +SKIP
    ((1, 33), (1, 33, 3), 'network')
    """
    return Field(Store(store), scaled=scaled, splines=splines)
