"""Bytes -> values: the wavefront (specification sections 12.2 and 12.6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk import dtypes
from inrstore.chunk.dtypes import unordered
from inrstore.chunk.entropy.bits import Singles
from inrstore.chunk.entropy.residual import Residuals
from inrstore.chunk.frame import Reader
from inrstore.chunk.kernels import choice
from inrstore.chunk.predictor import compiled, regression
from inrstore.chunk.predictor import layout as layouts
from inrstore.chunk.predictor.kernel import Kernel, kernel_of
from inrstore.chunk.predictor.layout import Layout
from inrstore.chunk.predictor.planes import Padded
from inrstore.chunk.predictor.regions import Run
from inrstore.chunk.predictor.regression import PAD, Box, Neighbourhood, Stage
from inrstore.chunk.predictor.stages import StageView, base_of
from inrstore.errors import CorruptChunkError

_AT_ONCE = 2048
"""Values of a step that are worked on together: their regressors stay in the cache."""


def decode(reader: Reader, dtype: np.dtype[Any], box: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return the box of a predictor payload; `dtype` is little-endian.

    Raises
    ------
    CorruptChunkError
        Naming the field.
    """
    if not dtypes.is_short(dtype):
        raise CorruptChunkError("predictor.dtype", f"{dtype} is not coded in this mode")
    layout = layouts.read_layout(reader, box, 8 * dtype.itemsize)
    plan = []
    for group in layouts.groups(layout.lengths[0]):
        weights = regression.read_base(reader, len(group), group.start) if group.start else None
        steps = []
        for slices, distance in layouts.stages(layout.lengths[1], layout.top):
            neighbourhood = Neighbourhood(distance > 0, group.start > 0)
            size = len(group) * len(slices) * math.prod(layout.tiled_shape[2:])
            stage = regression.read_stage(reader, neighbourhood, layout.zeros, layout.grid, size)
            steps.append((slices, distance, neighbourhood, stage))
        plan.append((group, weights, steps))
    streams = Residuals(reader, "predictor", layout.values, layout.low, layout.high, regression.CLASSES * layout.zeros)
    loops = choice.find("predictor", layout.values)
    fast = None if loops is None else compiled.Streams(loops, streams)
    values = np.zeros(layout.tiled_shape, smallest(layout.low, layout.high))
    total = np.zeros(layout.tiled_shape[1:], np.int32) if len(plan) > 1 else None
    for group, weights, steps in plan:
        base: npt.NDArray[Any] | None = None if weights is None else base_of(values, group, weights, layout)
        errors = np.zeros((len(group), *layout.tiled_shape[1:]), np.uint16)
        mean = None if total is None or base is None else total // group.start
        for slices, distance, neighbourhood, stage in steps:
            view = StageView(layout, group, slices, distance, values, errors, base, mean)
            if fast is not None:
                weights_of = compiled.Weights(stage, neighbourhood, layout)
                for first, last in layout.blocks(view.planes):
                    compiled.decode_block(fast, weights_of, view, first, last, layout)
                continue
            kernel = kernel_of(stage, neighbourhood, layout.high - layout.low)
            for first, last in layout.blocks(view.planes):
                Wavefront(view, first, last, stage, neighbourhood, kernel, streams, layout).run()
        if total is not None:
            total += errors.sum(0, dtype=np.int32)
    if fast is not None:
        fast.finish()
    streams.finish()
    return assemble(values, layout, dtype, box)


def smallest(low: int, high: int) -> np.dtype[Any]:
    """Return the smallest type that holds a range around 0."""
    return np.min_scalar_type(min(low, -high - 1))


def assemble(tiles: npt.NDArray[Any], layout: Layout, dtype: np.dtype[Any], box: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return the box of decoded values in their own type."""
    bits = dtypes.bits_dtype(dtype.itemsize)
    # Modulo the width of the type: base + step v fits it.
    ordered = layouts.join(tiles, layout).astype(bits)
    ordered *= bits.type(layout.step & ((1 << 8 * dtype.itemsize) - 1))
    ordered += bits.type(layout.base)
    if layout.swap:
        ordered = ordered.swapaxes(2, 3)
    out = np.empty_like(ordered, order="C")
    out[layout.order] = ordered
    return unordered(out.reshape(box), dtype)


class Wavefront:
    """One block: its arrays, and the steps that fill them."""

    def __init__(self, view: StageView, first: int, last: int, stage: Stage, neighbourhood: Neighbourhood,
                 kernel: Kernel, streams: Residuals, layout: Layout) -> None:  # fmt: skip
        self._view, self._first, self._last = view, first, last
        self._kernel, self._streams, self._layout = kernel, streams, layout
        self.rows, self.columns = layout.part_shape
        self.planes = last - first
        arrays, flags = view.neighbours(first, last)
        self._own, self._error = (Padded(self.rows, self.columns, self.planes) for _ in range(2))
        self._flag = Padded(self.rows, self.columns, self.planes) if layout.zeros else None
        arrays |= {regression.OWN: self._own, regression.ERROR: self._error}
        if self._flag is not None:
            flags |= {regression.OWN: self._flag}
        self._grid = None if stage.differences is None else stage.grid
        self._numbers = None if self._grid is None else self._grid.numbers()
        self._later = neighbourhood.later
        self._wide = min(self.planes, _AT_ONCE)
        most = min(self.rows, max(1, _AT_ONCE // self._wide)) * self._wide
        self._iota = np.arange(most)
        self._regressors = np.ones((neighbourhood.regressors + 1) * most, np.float32)
        self._errors = np.empty(neighbourhood.errors * most, np.float32)
        self._flags = np.empty(neighbourhood.values * most if layout.zeros else 0, np.float32)
        self._boxes = self._sources(neighbourhood.boxes, arrays)
        self._error_boxes = self._sources(neighbourhood.error_boxes, arrays)
        self._flag_boxes = self._sources(neighbourhood.value_boxes if layout.zeros else [], flags)
        self._low, self._high = np.int32(layout.low), np.int32(layout.high)
        self._half, self._quarter = np.int32(1 << (stage.fraction - 1)), np.int32(stage.fraction - 2)

    def _sources(self, boxes: Sequence[Box], arrays: dict[str, Padded]) -> list[tuple[Singles, int, int, int]]:
        """Return memory, offset, rows and columns of each box."""
        return [(arrays[b.array].memory, b.dy * self._own.strides[0] + b.dx * self._own.strides[1], b.rows, b.columns)
                for b in boxes]  # fmt: skip

    def run(self) -> None:
        """Decode the block and keep it."""
        rows, columns = self.rows, self.columns
        at_once = max(1, _AT_ONCE // self._wide)
        across, down = self._own.strides[1], self._own.strides[0]
        for step in range(columns + 2 * (rows - 1)):
            begin, end = max(0, (step - columns + 2) // 2), min(rows - 1, step // 2) + 1
            for row in range(begin, end, at_once):
                offset = (PAD + row) * down + (PAD + step - 2 * row) * across
                count, runs = min(at_once, end - row), list[Run]()
                if self._grid is not None and self._numbers is not None:
                    runs = self._grid.runs(self._numbers, row, count, step)
                for plane in range(0, self.planes, self._wide):
                    width = min(self._wide, self.planes - plane)
                    self._take(count, width, offset + 4 * plane, [(r, a * width, b * width) for r, a, b in runs])
        if self._flag is not None and ((self._own.inside == 0) & (self._flag.inside != 0)).any():
            raise CorruptChunkError("predictor.flag_stream", "a value that is not 0 by its flag is 0")
        self._view.store(self._first, self._last, self._own.inside, self._error.inside)

    def _copy(self, sources: list[tuple[Singles, int, int, int]], buffer: Singles, shape: tuple[int, int],
              offset: int, extra: int = 0) -> Singles:  # fmt: skip
        """Fill a buffer with the boxes around the positions of a step; return it, one row for each neighbour."""
        rows, width = shape
        down, across = self._own.strides
        strides = (down, across, self._own.along, 4)
        n, i = rows * width, 0
        for memory, at, h, w in sources:
            area = (h, w, rows, width)
            np.copyto(
                np.ndarray(area, np.float32, buffer, 4 * i * n),
                np.ndarray(area, np.float32, memory, offset + at, strides),
            )
            i += h * w
        return np.ndarray((i + extra, n), np.float32, buffer)

    def _take(self, rows: int, width: int, offset: int, runs: list[Run]) -> None:
        """Decode the values of `rows` rows and `width` planes of a step; `offset` is the address of the first."""
        kernel, streams, n, shape = self._kernel, self._streams, rows * width, (rows, width)
        flags = live = None
        if self._flag is not None:
            flags = self._copy(self._flag_boxes, self._flags, shape, offset)
            bits = streams.flags(kernel.classes(flags))
            live = bits.nonzero()[0]
            if not live.size:
                return  # the arrays hold zeros already
            self._put(self._flag, shape, offset, bits)
            if live.size == n:
                live = None
        regressors = self._copy(self._boxes, self._regressors, shape, offset, 1)
        regressors[-1] = 1
        centre = kernel.centre(regressors, flags)
        predicted, active = kernel.predict(regressors, centre, self._iota[:n], runs)
        expected = kernel.expected(active, self._copy(self._error_boxes, self._errors, shape, offset))
        if live is not None:
            predicted, expected = predicted[live], expected[live]
        rounded = predicted + self._half
        phase = rounded >> self._quarter
        phase &= 3
        rounded >>= kernel.fraction
        np.maximum(rounded, self._low, out=rounded)
        np.minimum(rounded, self._high, out=rounded)
        difference, escapes = streams.take(expected, phase)
        rounded += difference
        np.maximum(rounded, self._low, out=rounded)
        np.minimum(rounded, self._high, out=rounded)
        if escapes.size:
            rounded[escapes] = streams.next_escapes(escapes.size)
        error = rounded << kernel.fraction
        error -= predicted
        np.abs(error, out=error)
        error >>= self._quarter
        np.minimum(error, regression.MAX_ERROR, out=error)
        if live is not None:
            whole = np.zeros((2, n), np.int32)
            whole[0, live], whole[1, live] = rounded, error
            rounded, error = whole
        self._put(self._own, shape, offset, rounded - centre if self._later else rounded)
        self._put(self._error, shape, offset, error)

    def _put(self, target: Padded, shape: tuple[int, int], offset: int, values: npt.NDArray[Any]) -> None:
        out = np.ndarray(shape, np.float32, target.memory, offset, (target.along, 4))
        out[...] = values.reshape(shape)
