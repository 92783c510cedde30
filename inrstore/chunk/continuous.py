"""A chunk that is a network, between its voxels too: sections 4 and 5 of the specification at real positions.

The network gives values anywhere; what its envelope says of single voxels (border, mask, exceptions) holds for every
place that is nearest to such a voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk import dtypes, numbers
from inrstore.chunk.decode import decode_network
from inrstore.chunk.envelope import Envelope
from inrstore.chunk.inr.real import Floats, RealNetwork
from inrstore.chunk.inr.siren import Siren
from inrstore.chunk.numbers import Linear, Table
from inrstore.errors import ConfigurationError

Places = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Continuous:
    """The network of a chunk as a function of place.

    Parameters
    ----------
    envelope : Envelope
    siren : Siren
    real : RealNetwork
        Of the same integers.
    dtype : numpy.dtype
        Of the chunk, little-endian.
    axes : int
        The last so many axes of the chunk are places, those before them measurements.
    """

    envelope: Envelope
    siren: Siren
    real: RealNetwork
    dtype: np.dtype[Any]
    axes: int

    @classmethod
    def read(cls, data: bytes, shape: tuple[int, ...], dtype: npt.DTypeLike, axes: int) -> Continuous | None:
        """Return the function of a frame; None if it is no network, or one whose outputs run along an axis of space."""
        found = decode_network(data, shape, dtype)
        if found is None:
            return None
        around, made = found
        if made.channel_axis is not None and made.channel_axis >= len(shape) - axes:
            return None
        return cls(around, made, RealNetwork.of(made.network), dtypes.little(np.dtype(dtype)), axes)

    @property
    def nbytes(self) -> int:
        """Bytes in memory, roughly."""
        around, size = self.envelope, self.real.nbytes
        for array in (around.mask, around.exceptions, around.values):
            size += 0 if array is None else array.nbytes
        return size

    @property
    def lead(self) -> int:
        """Axes of measurements."""
        return len(self.envelope.start) - self.axes

    @property
    def _fill(self) -> float:
        """Stored value of all that is outside the box."""
        return float(np.frombuffer(self.envelope.fill, self.dtype)[0]) if self.envelope.fill else 0.0

    def __call__(self, places: Floats, nearest: Places, measured: Places, gradient: bool) -> tuple[Floats, Floats]:
        """Evaluate the chunk.

        Parameters
        ----------
        places : ndarray of float64, shape (axes, points)
            Positions in the chunk; a voxel's centre is at whole numbers.
        nearest : ndarray of int64, shape (axes, points)
            The voxel that each belongs to, in the chunk.
        measured : ndarray of int64, shape (measurements, leading axes)
            The measurements wanted, as positions in the chunk.
        gradient : bool
            Whether derivatives are wanted.

        Returns
        -------
        values : ndarray of float64, shape (points, measurements)
            Stored values, not rounded.
        slopes : ndarray of float64, shape (points, measurements, axes)
            By position, along the axes of space in the order of the chunk; of no axes without `gradient`.
        """
        around, points, count = self.envelope, places.shape[1], len(measured)
        fill = self._fill
        values = np.full((points, count), fill)
        slopes = np.zeros((points, count, self.axes if gradient else 0))
        start, stop = np.array(around.start), np.array(around.stop)
        first, last = start[self.lead :, None], stop[self.lead :, None]
        here = np.flatnonzero(((nearest >= first) & (nearest < last)).all(0))
        among = np.flatnonzero(((measured >= start[: self.lead]) & (measured < stop[: self.lead])).all(1))
        if not here.size or not among.size:
            return values, slopes
        boxed, voxel, wanted = places[:, here] - first, nearest[:, here] - first, measured[among] - start[: self.lead]
        found, moved = self._network(boxed, wanted, gradient)
        self._surround(found, moved, voxel, wanted, fill)
        values[np.ix_(here, among)] = found
        if gradient:
            slopes[np.ix_(here, among)] = moved
        return values, slopes

    def module(
        self, first: Sequence[int], shape: Sequence[int], scale: float = 1.0, offset: float = 0.0
    ) -> tuple[Any, Places]:
        """Return the network as a module of torch, and which measurements of the chunk its outputs are.

        Parameters
        ----------
        first, shape : sequence of int
            Where the chunk begins in the image, and the shape of that; of measurements beyond it there are no outputs.
        scale, offset : float
            What a stored value is multiplied by, and what is added.

        Raises
        ------
        ConfigurationError
            For values that come from a table, and for measurements that are inputs of the network.
        """
        from inrstore.chunk.inr.fit.module import Place

        made, around, box, lead = self.siren, self.envelope, self.envelope.box_shape, self.lead
        if any(box[axis] > 1 for axis in range(lead) if axis != made.channel_axis):
            raise ConfigurationError("module: the network takes measurements for coordinates")
        factor, added = 1.0, 0.0
        if isinstance(around.numbers, Linear):
            kind = around.numbers
            factor, added = kind.factor if kind.coding == numbers.PRODUCT else 1 / kind.factor, kind.offset
        elif isinstance(around.numbers, Table):
            raise ConfigurationError("module: the values of the chunk come from a table, which has no gradients")
        axes: list[int | None] = []
        centres = []
        for axis in self._inputs:
            axes.append(len(box) - 1 - axis if axis >= lead and box[axis] > 1 else None)
            begin = first[axis] + around.start[axis]
            centres.append(begin + (box[axis] - 1) / 2)
        longest = float(max([1, *(box[axis] - 1 for axis in range(lead, len(box)))]))
        measured = np.argwhere(np.ones(box[:lead], np.bool_)) + np.array(around.start[:lead], np.int64)
        inside = (measured < np.array(shape[:lead], np.int64) - np.array(first[:lead], np.int64)).all(1)
        # The last axis of the chunk is i; a place has three indices, also of an image that has fewer axes.
        space = range(len(box) - 1, lead - 1, -1)
        beyond = [1 << 30] * (3 - len(space))
        edges = ([first[axis] + around.start[axis] for axis in space] + [-one for one in beyond],
                 [first[axis] + around.stop[axis] for axis in space] + beyond)  # fmt: skip
        place = Place(self.real, np.flatnonzero(inside), axes, centres, longest, (made.low, made.high),
                      2.0**made.exponent * factor * scale, added * scale + offset, edges,
                      self._fill * scale + offset)  # fmt: skip
        return place, measured[inside]

    @property
    def _inputs(self) -> list[int]:
        """The axes that the inputs of the network follow."""
        box = self.envelope.box_shape
        axes = [axis for axis in range(len(box)) if axis != self.siren.channel_axis]
        if len(axes) == self.real.inputs:
            return axes
        return [axis for axis in axes if box[axis] > 1]  # along others a network needs none

    def _network(self, places: Floats, wanted: Places, gradient: bool) -> tuple[Floats, Floats]:
        """Return values (points, measurements) and slopes (.., axes) of the network alone, at positions in the box."""
        made, box, lead = self.siren, self.envelope.box_shape, self.lead
        space = self._inputs
        # Nothing says what a network does along an axis on which it has seen one position.
        held = [axis for axis in range(lead, len(box)) if box[axis] > 1]
        along = [space.index(axis) for axis in held] if gradient else []
        others = [axis for axis in range(lead) if axis != made.channel_axis]
        values = np.empty((places.shape[1], len(wanted)))
        slopes = np.zeros((places.shape[1], len(wanted), self.axes if gradient else 0))
        grain = 2.0**made.exponent
        for fixed in sorted({tuple(row) for row in wanted[:, others].tolist()}):
            columns = np.flatnonzero((wanted[:, others] == np.array(fixed, np.int64)).all(1))
            outputs = np.zeros(1, np.intp) if made.channel_axis is None else wanted[columns, made.channel_axis]
            inputs = np.zeros((len(space), places.shape[1]))
            for axis, position in zip(others, fixed, strict=True):
                if axis in space:
                    inputs[space.index(axis)] = 2 * position - (box[axis] - 1)
            for axis in held:
                inputs[space.index(axis)] = 2 * places[axis - lead] - (box[axis] - 1)
            found, moved = self.real(inputs, outputs, along)
            if made.channel_axis is None:  # all columns are the same measurement then
                found, moved = (np.repeat(a, len(columns), axis=0) for a in (found, moved))
            limited = (found < made.low) | (found > made.high)
            values[:, columns] = np.clip(found, made.low, made.high).T * grain
            if along:
                moved[np.broadcast_to(limited[:, None, :], moved.shape)] = 0.0
                into = np.ix_(np.arange(places.shape[1]), columns, np.array(held) - lead)
                slopes[into] = moved.transpose(2, 0, 1) * (2 * grain)
        return self._numbers(values, slopes)

    def _numbers(self, values: Floats, slopes: Floats) -> tuple[Floats, Floats]:
        """Return what the numbers of an envelope make of real ones; between places in a table it is linear."""
        kind = self.envelope.numbers
        if isinstance(kind, Linear):
            factor = kind.factor if kind.coding == numbers.PRODUCT else 1 / kind.factor
            return kind.exact(values), slopes * factor
        if isinstance(kind, Table):
            entries = kind.entries.astype(np.float64)
            low = np.clip(np.floor(values), 0, max(0, len(entries) - 2)).astype(np.intp)
            steps = np.diff(entries, append=entries[-1:])
            return np.interp(values, np.arange(len(entries)), entries), slopes * steps[low][..., None]
        return values, slopes

    def _surround(self, values: Floats, slopes: Floats, voxel: Places, wanted: Places, fill: float) -> None:
        """Put in what the envelope says of the voxels that points are nearest to."""
        around = self.envelope
        index = (*(wanted[:, axis][None, :] for axis in range(self.lead)), *(row[:, None] for row in voxel))
        if around.exceptions is not None and around.values is not None:
            odd = np.broadcast_to(around.exceptions[index], values.shape)
            if odd.any():
                exact = np.zeros(around.box_shape, self.dtype)
                exact[around.exceptions] = around.values
                values[odd] = np.broadcast_to(exact[index], values.shape)[odd]
                slopes[odd] = np.nan
        if around.mask is not None:
            narrow = [np.minimum(part, n - 1) for part, n in zip(index, around.mask.shape, strict=True)]
            outside = np.broadcast_to(~around.mask[tuple(narrow)], values.shape)
            values[outside] = fill
            slopes[outside] = 0.0
