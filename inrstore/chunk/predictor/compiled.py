"""Blocks by compiled loops: the same as `decode.Wavefront` gives."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk.entropy.bits import Ints, Singles
from inrstore.chunk.entropy.rans import TOTAL
from inrstore.chunk.entropy.residual import Residuals
from inrstore.chunk.entropy.student import ESCAPE, UNUSED, ContextTables
from inrstore.chunk.predictor import regression
from inrstore.chunk.predictor.layout import Layout
from inrstore.chunk.predictor.planes import Padded, room
from inrstore.chunk.predictor.regression import PAD, Box, Neighbourhood, Stage
from inrstore.chunk.predictor.stages import StageView
from inrstore.errors import CorruptChunkError

_ERRORS = {
    1: ("symbols.words", "the stream ends early"),
    2: ("low_bits", "the bits end early"),
    3: ("form", "a value has a context that is not used"),
    4: ("escapes", "there are too few"),
    5: ("flag_stream.words", "the stream ends early"),
}
"""What the loops return, as in `kernels.predictor`."""
_SKEW_BELOW = 256
BUCKET_BITS = 4
"""As in `kernels.predictor`."""


class Streams:
    """The streams of a chunk as the loops want them.

    Parameters
    ----------
    loops : module
        `inrstore.chunk.kernels.predictor`.
    streams : Residuals
        Moved on by `finish`.
    """

    def __init__(self, loops: ModuleType, streams: Residuals) -> None:
        self.loops, self._streams = loops, streams
        self._memory, self._shape = np.zeros(0, np.float32), (0, 0, 0)
        flags, symbols, low = streams.flag_stream, streams.symbol_stream, streams.low
        none = np.zeros(0, np.uint32), np.zeros(0, np.uint16)
        self.arrays = (
            streams.tables.index, streams.tables.shifts, *_searchable(streams.tables), streams.ones,
            symbols.states, np.append(symbols.words, np.uint16(0)),
            *(none if flags is None else (flags.states, np.array(flags.words, np.uint16))),
            np.concatenate([low.data, np.zeros(8, np.uint8)]), streams.escapes)  # fmt: skip
        after = (0, 0) if flags is None else (flags.position, flags.lane)
        self.cursor = np.array(
            [symbols.position, symbols.lane, *after, low.position, low.end, streams.escaped], np.int64
        )

    def room(self, shape: tuple[int, int, int], size: int, clean: bool) -> Singles:
        """Return memory for the arrays of a block of this shape, whose pads are zeros; all of it, if it must be clean.

        That of the block before serves again where the shape is the same: pads lie where they lay, and what is inside
        is written before it is read.
        """
        if clean or shape != self._shape or size > len(self._memory):
            self._memory = np.zeros(0, np.float32)  # let go of before more is taken
            self._memory, self._shape = np.zeros(size, np.float32), shape
        return self._memory[:size]

    def finish(self) -> None:
        """Say how far the streams are read."""
        streams, at = self._streams, self.cursor.tolist()
        streams.symbol_stream.position, streams.symbol_stream.lane = at[0], at[1]
        if streams.flag_stream is not None:
            streams.flag_stream.position, streams.flag_stream.lane = at[2], at[3]
        streams.low.position, streams.escaped = at[4], at[6]

    def refuse(self, fault: int) -> None:
        """Raise what the loops found, if anything."""
        if fault:
            field, reason = _ERRORS[fault]
            raise CorruptChunkError(f"{self._streams.field}.{field}", reason)


def _searchable(tables: ContextTables) -> tuple[npt.NDArray[Any], ...]:
    """Return tables in which a symbol is looked for from the bucket of its slot on: they stay in the cache."""
    counts, symbols = [], []
    for count, peak in zip(tables.counts, tables.peaks, strict=True):
        counts.append(count)
        symbols.append(np.append(np.arange(-peak, peak + 1), ESCAPE))
    counts.append(np.array([TOTAL]))  # of contexts that are not used
    symbols.append(np.array([UNUSED]))
    slots = np.arange(0, TOTAL, 1 << BUCKET_BITS)
    buckets = np.empty((len(counts), len(slots)), np.uint16)
    starts, firsts = [], np.cumsum([0, *(len(count) + 1 for count in counts[:-1])])
    for row, count in zip(buckets, counts, strict=True):
        ends = np.cumsum(count)
        row[:] = ends.searchsorted(slots, "right")
        starts.append(np.concatenate([[0], ends]))
    blank = np.zeros(1, np.int64)
    every = [part for some in symbols for part in (some, blank)]
    return firsts, buckets.reshape(-1), np.concatenate(starts).astype(np.uint16), np.concatenate(every).astype(np.int16)


class Weights:
    """The weights of a stage as the loops want them.

    Parameters
    ----------
    stage : Stage
    neighbourhood : Neighbourhood
    layout : Layout
    """

    def __init__(self, stage: Stage, neighbourhood: Neighbourhood, layout: Layout) -> None:
        self.neighbourhood = neighbourhood
        every = stage.weights[None] if stage.differences is None else stage.differences.weights(stage.weights)
        size = -(-every.shape[2] // 8) * 8
        weights = np.zeros((*every.shape[:2], size), np.float32)
        weights[:, :, : every.shape[2]] = every
        activity = np.zeros(size, np.float32)
        activity[: len(stage.activity)] = stage.activity
        flags = np.zeros(1) if stage.flags is None else stage.flags
        rows, columns = layout.part_shape
        regions = np.zeros(rows, np.int64), np.zeros(columns, np.int64)
        if stage.differences is not None and stage.grid is not None:
            regions = stage.grid.numbers()
        numbers = [
            stage.fraction,
            stage.clip,
            stage.scale,
            layout.low,
            layout.high,
            neighbourhood.values,
            neighbourhood.later,
        ]
        self.near = np.array(neighbourhood.near, np.int64)
        self.arrays = (weights, activity, stage.thresholds.astype(np.float32), stage.errors.astype(np.float32),
                       flags.astype(np.float32), *regions, np.array(numbers, np.int64))  # fmt: skip


def decode_block(streams: Streams, weights: Weights, view: StageView, first: int, last: int, layout: Layout) -> None:
    """Decode the planes of a block and keep them in `view`.

    Raises
    ------
    CorruptChunkError
        Naming the field.
    """
    rows, columns = layout.part_shape
    planes, neighbourhood, loops = last - first, weights.neighbourhood, streams.loops
    size = room(rows, columns, planes, _SKEW_BELOW)
    memory = streams.room((rows, columns, planes), size * _arrays(neighbourhood, layout.zeros), layout.zeros)
    begins = iter(range(0, len(memory), size))
    begin_of: dict[int, int] = {}

    def make() -> Padded:
        begin = next(begins)
        out = Padded(rows, columns, planes, memory[begin : begin + size])
        begin_of[id(out)] = begin
        return out

    def pad(values: npt.NDArray[Any]) -> Padded:
        out = make()
        loops.spread(memory, *place_of(out), np.ascontiguousarray(values, np.float32).reshape(-1), *values.shape)
        return out

    def place_of(one: Padded) -> tuple[int, int, int]:
        down, across = (n // 4 for n in one.strides)
        return begin_of[id(one)] + PAD * (down + across), down, across

    def taken(one: Padded) -> Singles:
        out = np.empty((planes, rows, columns), np.float32)
        loops.collect(memory, *place_of(one), out.reshape(-1), *out.shape)
        return out

    arrays, flags = view.neighbours(first, last, pad)
    arrays |= {name: make() for name in (regression.OWN, regression.ERROR)}
    if layout.zeros:
        flags |= {regression.OWN: make()}
    places, flag_places = ({name: begin_of[id(one)] for name, one in some.items()} for some in (arrays, flags))
    down, across = (n // 4 for n in arrays[regression.OWN].strides)

    def offsets(boxes: Sequence[Box], begin: dict[str, int]) -> Ints:
        return np.array([begin[b.array] + (b.dy + y) * down + (b.dx + x) * across
                         for b in boxes for y in range(b.rows) for x in range(b.columns)], np.int64)  # fmt: skip

    geometry = np.array([rows, columns, planes, down, across, PAD * (down + across), places[regression.OWN],
                         places[regression.ERROR], flag_places.get(regression.OWN, 0)], np.int64)  # fmt: skip
    streams.refuse(loops.decode_block(
        memory, geometry, offsets(neighbourhood.boxes, places), offsets(neighbourhood.error_boxes, places),
        offsets(neighbourhood.value_boxes if layout.zeros else [], flag_places), weights.near, *weights.arrays,
        *streams.arrays, streams.cursor))  # fmt: skip
    own, error = taken(arrays[regression.OWN]), taken(arrays[regression.ERROR])
    if layout.zeros and ((own == 0) & (taken(flags[regression.OWN]) != 0)).any():
        raise CorruptChunkError("predictor.flag_stream", "a value that is not 0 by its flag is 0")
    view.store(first, last, own.transpose(1, 2, 0), error.transpose(1, 2, 0))


def _arrays(neighbourhood: Neighbourhood, zeros: bool) -> int:
    """Return how many arrays a block has: values and errors of its own and beside, bases, and flags."""
    beside = 2 * neighbourhood.slices
    return 2 + 2 * beside + 2 * neighbourhood.later + (1 + beside) * zeros
