"""Neighbourhoods in raster order, and the steps in which their values can be decoded (sections 13.2 and 13.4)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.chunk.frame import Reader
from inrstore.errors import LimitExceededError

Ints = npt.NDArray[np.int64]
Lengths = tuple[int, int, int, int]

_LEAST_PAD = 3

CENTRE = ((0, -1, -1), (0, -1, 0), (0, -1, 1), (0, 0, -1))
"""Neighbours (dz, dy, dx) whose mean is the centre."""
NEAR = tuple((-1, dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)) + CENTRE
"""Neighbours that say how large an error to expect."""
ERRORS = tuple(
    [(-1, dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    + [(0, -2, dx) for dx in (-1, 0, 1)]
    + [(0, -1, dx) for dx in (-2, -1, 0, 1)]
    + [(0, 0, dx) for dx in (-3, -2, -1)]
)
"""Neighbours whose own errors do."""


@dataclass(frozen=True)
class Neighbourhood:
    """A causal neighbourhood: half a square in a value's own slice, whole squares in the slices before.

    Parameters
    ----------
    radii : tuple of int
        Radius of the square in the own slice, in the slice before, and so on.

    Raises
    ------
    LimitExceededError
        When there are too many, or one is too large.
    """

    radii: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.radii) <= limits.MAX_NEURAL_SLICES:
            raise LimitExceededError("neural.slices", f"{len(self.radii)}")
        if self.radii[0] < 1 or not all(0 <= r <= limits.MAX_NEURAL_RADIUS for r in self.radii):
            raise LimitExceededError("neural.radii", f"{self.radii}")

    @property
    def offsets(self) -> tuple[tuple[int, int, int], ...]:
        """(dz, dy, dx) of the neighbours in raster order."""
        out = []
        for back in range(len(self.radii) - 1, -1, -1):
            r = self.radii[back]
            square = [(-back, dy, dx) for dy in range(-r, r + 1) for dx in range(-r, r + 1)]
            out += square if back else square[: len(square) // 2]
        return tuple(out)

    @property
    def slopes(self) -> tuple[int, int]:
        """A and b: all neighbours of a value at s = x + a y + b z lie at smaller s."""
        a = self.radii[0] + 1
        beside = [r * (1 + a) // back for back, r in enumerate(self.radii) if back]
        return a, 1 + max([1 + a, *beside])

    def write(self) -> bytes:
        """Return the bytes of the fields `slices` and `radii`."""
        return bytes([len(self.radii), *self.radii])


def cube(radius: int) -> Neighbourhood:
    """Return the causal half of a cube; radius 5 is 11 x 11 x 11."""
    return Neighbourhood((radius,) * (radius + 1))


PYRAMID = Neighbourhood((6, 4, 2, 0))
"""13 x 13 (the causal half), 9 x 9, 5 x 5 and 1 x 1."""


def read_neighbourhood(reader: Reader) -> Neighbourhood:
    """Parse a neighbourhood."""
    slices = reader.number("B", "neural.slices")
    if slices > limits.MAX_NEURAL_SLICES:
        raise LimitExceededError("neural.slices", f"{slices}")
    return Neighbourhood(tuple(reader.take(slices, "neural.radii")))


def fold(box: tuple[int, ...]) -> Lengths:
    """Return measurements, slices, rows and columns of a box."""
    whole = (1, 1, 1, 1, *box)
    slices, rows, columns = whole[-3:]
    return math.prod(whole[:-3]), slices, rows, columns


@dataclass(frozen=True)
class Volume:
    """Where the values of a chunk lie among zeros that stand for all outside, as one array (m, z, y, x).

    Parameters
    ----------
    lengths : tuple of int
        Measurements, slices, rows, columns.
    neighbourhood : Neighbourhood

    Raises
    ------
    LimitExceededError
        When it has too many values, or takes too many steps.
    """

    lengths: Lengths
    neighbourhood: Neighbourhood

    def __post_init__(self) -> None:
        if math.prod(self.shape) > limits.MAX_NEURAL_VALUES:
            raise LimitExceededError("neural.radii", f"{self.shape} values with those around")
        if self.steps > limits.predictor_steps(self.values):
            raise LimitExceededError("neural.steps", f"{self.steps} steps for {self.values} values")

    @property
    def values(self) -> int:
        """Values of the chunk."""
        return math.prod(self.lengths)

    @property
    def pads(self) -> tuple[int, int]:
        """Slices before, and rows and columns on each side."""
        return max(1, len(self.neighbourhood.radii) - 1), max(_LEAST_PAD, *self.neighbourhood.radii)

    @property
    def shape(self) -> Lengths:
        """Shape with zeros around."""
        m, z, y, x = self.lengths
        before, beside = self.pads
        return m, z + before, y + 2 * beside, x + 2 * beside

    @property
    def steps(self) -> int:
        """Decoding steps, empty ones included."""
        _, z, y, x = self.lengths
        a, b = self.neighbourhood.slopes
        return x + a * (y - 1) + b * (z - 1)

    def inside(self, array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Return the view of the values of an array of `shape`."""
        before, beside = self.pads
        _, _, y, x = self.lengths
        return array[:, before:, beside : beside + y, beside : beside + x]

    def padded(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.uint16]:
        """Return values (m, z, y, x) among zeros."""
        out = np.zeros(self.shape, np.uint16)
        self.inside(out)[...] = values
        return out

    def shifts(self, offsets: tuple[tuple[int, int, int], ...]) -> Ints:
        """Return the distances in memory of neighbours (dz, dy, dx)."""
        _, _, y, x = self.shape
        return np.array([(dz * y + dy) * x + dx for dz, dy, dx in offsets], np.int64).reshape(-1)

    def waves(self) -> Iterator[Ints]:
        """Yield the places of the values of each step: measurements, slices and rows ascending."""
        m, z, y, x = self.lengths
        _, padded_z, padded_y, padded_x = self.shape
        before, beside = self.pads
        first = (before * padded_y + beside) * padded_x + beside
        volumes = np.arange(m, dtype=np.int64) * (padded_z * padded_y * padded_x) + first
        a, b = self.neighbourhood.slopes
        for s in range(self.steps):
            slices = np.arange(max(0, -(-(s - (x - 1) - a * (y - 1)) // b)), min(z - 1, s // b) + 1)
            rest = s - b * slices
            low = np.maximum(0, -((x - 1 - rest) // a))
            count = np.maximum(0, np.minimum(y - 1, rest // a) + 1 - low)
            total = int(count.sum())
            if not total:
                continue
            row = np.arange(total) + (low - np.cumsum(count) + count).repeat(count)
            slice_, column = slices.repeat(count), rest.repeat(count) - a * row
            places = (slice_ * padded_y + row) * padded_x + column
            yield (volumes[:, None] + places).reshape(-1)
