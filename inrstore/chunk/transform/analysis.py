"""Values -> wavelet coefficients of their components, for one chunk or for chunks that share a basis and a step.

The KLT over measurements is that of Karhunen and Loeve: the eigenvectors of their covariance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk import quality
from inrstore.chunk.boxes import Box, extremes
from inrstore.chunk.entropy.bits import Ints
from inrstore.chunk.linear import eigh, product, products, solved
from inrstore.chunk.outputs import bounds, exponent_of, fits
from inrstore.chunk.transform.compiled_encode import forward
from inrstore.chunk.transform.header import arrangement
from inrstore.chunk.transform.subbands import LEAST_LENGTH, Subband, Triple, levels_of, subbands_of
from inrstore.chunk.transform.wavelet import UNIT, gain_of

Singles = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Volumes = dict[tuple[int, Triple], Singles]

_GAINS = 255  # largest gain with several measurements: their ranges need no more digits
_FINE_GAIN = 1 << 15
_SCALE = float(1 << 13)  # least scale of the basis
_COLUMN = 0.07  # of the target: how far a rounded column may carry its component into others
_NOTHING, _NOTHING_OF_FIRST = 1e-3, 1e-6  # standard deviations that are none, in errors and parts of the first
_LOOKED_AT, _LOOKED_AT_VALUES = 6, 3_000_000  # components that the number of levels is chosen by, at least


@dataclass
class Part:
    """What one box became.

    Attributes
    ----------
    box : Box
    lengths : tuple of int
        Slices, rows, columns.
    leading : ndarray of float32, shape (components, slices, rows, columns)
        The first components themselves.
    positions : ndarray of bool, shape (slices, rows, columns), or None
        Where all measurements are known.
    subbands : list of Subband
    coefficients : dict of ndarray of float32, shape (components, z, y, x)
        By level and key.
    """

    box: Box
    lengths: Triple
    leading: Singles
    positions: npt.NDArray[np.bool_] | None
    subbands: list[Subband]
    coefficients: Volumes

    @cached_property
    def energy(self) -> Doubles:
        """Sums of squares, shape (subbands, components)."""
        each = [self.coefficients[b.level, b.key] for b in self.subbands]
        return np.array([[quality.sum_of_squares(row) for row in values] for values in each])


class Analysis:
    """The components of some boxes; all is measured in targets: squares of what is huge or tiny leave float32.

    Parameters
    ----------
    boxes : sequence of Box
        Of one number of measurements.
    axis : int or None
        Of measurements.
    scale : ndarray of float64
        Errors of each measurement are divided by it.
    rmse : float
        The target.
    leading : int
        Components that are kept as they are, besides their coefficients.

    Attributes
    ----------
    parts : list of Part
        Empty where 30 bits are too few for the values.
    levels : tuple of int
        How often slices, rows and columns are halved, in all parts.
    """

    def __init__(self, boxes: Sequence[Box], axis: int | None, scale: Doubles, rmse: float, leading: int) -> None:
        self.axis, first = axis, boxes[0].core
        self.measurements = arrangement(first.shape, axis)[0]
        self.parts: list[Part] = []
        self.size = sum(box.core.size for box in boxes)
        self.scale = np.broadcast_to(np.asarray(scale, np.float64) * rmse, (self.measurements,))
        found = extremes(boxes)
        self.exponent = exponent_of(found, float(self.scale.min()))
        if self.exponent is None:
            return
        self.low, self.high = bounds(found, self.exponent)
        if not fits(self.low, self.high):
            return
        self.grain = 2.0**self.exponent
        if self.measurements > 1:
            self._gains = np.maximum(1, np.rint(self.scale / self.scale.max() * _GAINS)).astype(np.int64)
            self.unit = self._gains * (float(self.scale.max()) / _GAINS)  # what a measurement is divided by
        else:
            self._gains, self.unit = np.array([_FINE_GAIN], np.int64), self.scale
        self._centre(boxes)
        self._klt(boxes)
        for box in boxes:
            self._take(box, leading)
        self._halve()

    def _centre(self, boxes: Sequence[Box]) -> None:
        """Find the mean of each measurement."""
        means, counts = np.zeros((len(boxes), self.measurements)), np.zeros((len(boxes), self.measurements))
        for row, box in enumerate(boxes):
            values, known = _rows(box, self.axis)
            for k, (v, here) in enumerate(zip(values, known, strict=True)):
                counts[row, k] = np.count_nonzero(here)
                if counts[row, k]:
                    means[row, k] = v[here].mean(dtype=np.float64)
        self.mean: Doubles = (means * (counts / np.maximum(counts.sum(0), 1))).sum(0)

    def _values(self, box: Box) -> tuple[Any, Any]:
        values, known = _rows(box, self.axis)
        values -= self.mean[:, None]
        values /= self.unit[:, None]
        if box.inside is not None:
            values[~known] = 0
        return values, known

    def _klt(self, boxes: Sequence[Box]) -> None:
        """Find the eigenvectors of the covariance as columns, the largest first, and the spread of each component."""
        count = self.measurements
        self.vectors, self.spread = np.ones((1, 1)), np.ones(1)
        if count == 1:
            return
        covariance, columns = np.zeros((count, count)), 0
        for box in boxes:
            values, _ = self._values(box)
            for begin in range(0, values.shape[1], 1 << 16):
                part = values[:, begin : begin + (1 << 16)].astype(np.float64)
                covariance += products(part, part)
            columns += values.shape[1]
        found, vectors = eigh(covariance / columns)
        # The sign of an eigenvector means nothing; a fixed one keeps results the same.
        vectors *= np.where(vectors.sum(0) < 0, -1.0, 1.0)
        self.vectors, self.spread = vectors[:, ::-1].copy(), np.sqrt(np.maximum(found[::-1], 0))

    def _take(self, box: Box, leading: int) -> None:
        """Make the components of a box."""
        lengths = arrangement(box.core.shape, self.axis)[1]
        values, known = self._values(box)
        positions = None if box.inside is None else known.all(0).reshape(lengths)
        components = product(self.vectors.T.astype(np.float32), values) if self.measurements > 1 else values
        del values, known  # as large as all that is kept later on
        volumes = components.astype(np.float32, copy=False).reshape(-1, *lengths)
        self.parts.append(Part(box, lengths, volumes[:leading].copy(), positions, [], {(0, (0, 0, 0)): volumes}))

    def _halve(self) -> None:
        """Transform the components."""
        usual, *deeper = (
            tuple(min(each) for each in zip(*(levels_of(p.lengths, n) for p in self.parts), strict=True))
            for n in (LEAST_LENGTH, 3, 2)
        )
        self.levels = self._best_levels((usual[0], usual[1], usual[2]), [levels[0] for levels in deeper])
        for part in self.parts:
            part.subbands, part.coefficients = _halved(part.coefficients[0, (0, 0, 0)], part.lengths, self.levels)

    def _best_levels(self, usual: Triple, deeper: Sequence[int]) -> Triple:
        """Return how often to halve each axis; slices may be too few or too thick for what helps in the plane."""
        choices = sorted({usual, (0, *usual[1:]), *((deep, *usual[1:]) for deep in deeper)}, reverse=True)
        if len(choices) == 1:
            return usual
        part = self.parts[len(self.parts) // 2]
        volumes = part.coefficients[0, (0, 0, 0)]
        some = max(_LOOKED_AT, _LOOKED_AT_VALUES // math.prod(part.lengths))
        leading = volumes[:some].astype(np.float32)
        costs, step = [], 0.0
        for levels in choices:
            _, coefficients = _halved(leading, part.lengths, levels)
            step = step or _first_step(coefficients, 2.5)
            costs.append(sum(float(np.log2(1 + np.abs(v) / np.float32(step)).sum()) for v in coefficients.values()))
        return choices[int(np.argmin(costs))]

    def basis(self, step: float) -> tuple[Ints, Ints, Ints, int, Singles | None] | None:
        """Return basis, column shifts, gains, shift, and what turns components into those of the rounded basis."""
        measurements = self.measurements
        wanted = step * float(self.unit[0]) / (UNIT * self.grain)  # outputs for one internal unit
        if measurements == 1:
            shift = math.floor(math.log2(2.0 * _FINE_GAIN / wanted))
            if not 1 <= shift <= 45:
                return None
            gain = round(wanted * 2.0**shift)
            return np.ones((1, 1), np.int64), np.zeros(1, np.int64), np.array([min(gain, 65535)]), shift, None
        wanted /= float(self._gains[0])
        shift = math.ceil(math.log2(_SCALE / wanted))
        if not 1 <= shift <= 45:
            return None
        scale = wanted * 2.0**shift
        unit = _COLUMN / np.maximum(self.spread, _NOTHING)
        shifts = np.clip(np.floor(np.log2(np.maximum(unit * scale, 1))), 0, 11).astype(np.int64)
        # Components without variance have directions by chance, whose roundings would be made up for by others.
        count = max(1, int((self.spread > max(_NOTHING, _NOTHING_OF_FIRST * float(self.spread[0]))).sum()))
        while True:
            basis = np.rint(self.vectors * (scale / 2.0**shifts)).astype(np.int64)
            rounded = basis * 2.0**shifts / scale
            try:
                if count == measurements:
                    turn = solved(rounded, self.vectors)
                else:
                    turn, some = np.zeros((measurements, measurements)), np.ascontiguousarray(rounded[:, :count].T)
                    turn[:count] = solved(products(some, some), products(some, np.ascontiguousarray(self.vectors.T)))
            except np.linalg.LinAlgError:  # columns of components without variance were rounded to nothing
                if not shifts.any():
                    return None
                shifts = np.maximum(shifts - 1, 0)
            else:
                return basis, shifts, self._gains, shift, turn.astype(np.float32)

    def wanted(self, part: Part, step: float, count: int) -> Singles:
        """Return the leading components of a part in the units of readers."""
        made = self.basis(step)
        assert made is not None
        turn = made[-1]
        flat = part.leading.reshape(len(part.leading), -1)
        turned = flat if turn is None else product(turn[:count, : len(flat)], flat)
        out: Singles = (turned[:count] * np.float32(UNIT / step)).reshape(-1, *part.lengths)
        return out


def _halved(volumes: Singles, lengths: Triple, levels: Triple) -> tuple[list[Subband], Volumes]:
    """Return the subbands of components, and their coefficients."""
    coefficients = forward(volumes, levels)
    subbands = subbands_of(lengths, levels)
    for subband in subbands:
        coefficients[subband.level, subband.key] /= np.float32(gain_of(subband.key, subband.level, levels) / UNIT)
    return subbands, coefficients


def _first_step(coefficients: Volumes, step: float) -> float:
    """Return about the step that keeps the target, by errors of coefficients (nearly those of values)."""
    picked = []
    for values in coefficients.values():
        flat = values.reshape(-1)
        every = max(1, flat.size // 200_000)
        picked.append((np.abs(flat[::every]), every))
    total = sum(p.size * every for p, every in picked)
    for _ in range(30):
        wrong = 0.0
        for size, every in picked:
            left = size - step * np.floor(size / np.float32(step) + np.float32(0.36))
            wrong += every * quality.sum_of_squares(left)
        ratio = max(math.sqrt(wrong / total), 1e-6)
        if 0.98 < ratio < 1.0 or step > 1e6:
            break
        step *= min(max((0.99 / ratio) ** 1.25, 0.5), 2.0)
    return step


def _rows(box: Box, axis: int | None) -> tuple[Any, Any]:
    """Return values, shape (measurements, voxels), as floats, and which are known."""
    core = box.core
    moved = core[None] if axis is None else np.moveaxis(core, axis, 0)
    rows = moved.reshape(len(moved), -1).astype(np.float32 if core.dtype.itemsize <= 2 else np.float64)
    known: Any = np.broadcast_to(np.True_, rows.shape)
    if box.inside is not None:
        whole = np.broadcast_to(box.inside, core.shape)
        known = (whole[None] if axis is None else np.moveaxis(whole, axis, 0)).reshape(rows.shape)
    return rows, known
