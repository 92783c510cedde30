"""One stage of the predictor: its fit by least squares, and its symbols (specification sections 12.5 and 12.6)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.chunk.entropy.bits import Ints, Singles
from inrstore.chunk.entropy.contexts import contexts
from inrstore.chunk.kernels import choice
from inrstore.chunk.least_squares import Doubles, Floats, combined, logistic, solve, solve_not_negative
from inrstore.chunk.predictor import regression
from inrstore.chunk.predictor.compiled import Weights
from inrstore.chunk.predictor.compiled_encode import expect, predict
from inrstore.chunk.predictor.decode import smallest
from inrstore.chunk.predictor.kernel import Kernel, kernel_of
from inrstore.chunk.predictor.layout import Layout
from inrstore.chunk.predictor.planes import Padded
from inrstore.chunk.predictor.regions import Run
from inrstore.chunk.predictor.regression import MAX_ERROR, PAD, Box, Neighbourhood, Stage, reach
from inrstore.chunk.predictor.stages import StageView

SAMPLE, _LARGE_SAMPLE = 40_000, 160_000
SETS, _VALUES_PER_SET = 8, 16_000
_MOST_CLIP, _ENOUGH_CLIP = 8191, 2047
_LEAST_FRACTION, _MOST_FRACTION = 4, 12
_AT_ONCE = 2048
_ROUNDS, _SMALL = 3, 12_000  # of weighted least squares; the last one is not worth its time in small stages


@dataclass
class Coded:
    """What the streams will hold, stage by stage, in the order of decoding."""

    errors: list[npt.NDArray[np.signedinteger[Any]]] = field(default_factory=list)
    places: list[npt.NDArray[np.uint8]] = field(default_factory=list)  # four times the context, plus the phase
    values: list[npt.NDArray[np.uint16]] = field(default_factory=list)  # above the lowest one
    flags: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    classes: list[Ints] = field(default_factory=list)


class StageFit:
    """One stage: its arrays as a reader sees them, the fit, and the symbols.

    Parameters
    ----------
    layout : Layout
    view : StageView
    neighbourhood : Neighbourhood
    """

    def __init__(self, layout: Layout, view: StageView, neighbourhood: Neighbourhood) -> None:
        self._layout, self._view, self.neighbourhood = layout, view, neighbourhood
        self.rows, self.columns = layout.part_shape
        at = view.index(0, view.planes)
        self._arrays, self._flags = view.neighbours(0, view.planes)
        own = self._padded(view.residuals(at).transpose(1, 2, 0))
        self._arrays[regression.OWN] = own
        self.known = view.values[at].transpose(1, 2, 0).astype(np.int32, order="C")
        if layout.zeros:
            self._flags[regression.OWN] = self._padded(self.known != 0)
        self._span = layout.high - layout.low
        self._rng = np.random.default_rng(view.planes)
        self.size = self.known.size
        self.coded = int(np.count_nonzero(self.known)) if layout.zeros else self.size
        self._sampled: tuple[Floats, Singles, Doubles] | None = None

    def _padded(self, inside: npt.NDArray[Any]) -> Padded:
        out = Padded(*inside.shape)
        out.inside[...] = inside
        return out

    # ---- samples ----

    def picked(self, count: int) -> tuple[Ints, Ints]:
        """Return places to learn from (no background), and places for the flags."""
        zeros = self._layout.zeros
        if self.size <= count:
            pick = np.arange(self.size)
        else:
            pick = self._rng.integers(0, self.size, count * (3 if zeros else 1))
        everywhere = pick[:count]
        if zeros:
            pick = pick[self.known.reshape(-1)[pick] != 0][:count]
        return (pick if len(pick) > 1 else np.zeros(2, np.int64)), everywhere

    def gathered(self, boxes: list[Box], arrays: dict[str, Padded], pick: Ints, more: int = 0) -> Singles:
        """Return the neighbours of single places, shape (neighbours, places), and so many rows of ones after them."""
        out = np.ones((sum(b.rows * b.columns for b in boxes) + more, len(pick)), np.float32)
        if len(pick) == self.size:  # all of them, in order
            self._fill(boxes, arrays, range(self.rows), range(self.columns), out)
            return out
        row, column, plane = np.unravel_index(pick, self.known.shape)
        begins: dict[tuple[int, int], Ints] = {}
        places = ((b, i, j) for b in boxes for i in range(b.rows) for j in range(b.columns))
        for k, (b, i, j) in enumerate(places):
            one = arrays[b.array]
            down, across = (n // 4 for n in one.strides)
            if (down, across) not in begins:
                begins[down, across] = (PAD + row) * down + (PAD + column) * across + plane
            out[k] = one.memory.take(begins[down, across] + ((b.dy + i) * down + (b.dx + j) * across))
        return out

    def sample(self, pick: Ints) -> tuple[Singles, Doubles, Singles | None]:
        """Return regressors, what they are to give, and flags at some places."""
        kernel = Kernel(self._bare(_MOST_CLIP), self.neighbourhood, self._span)
        rows = self.gathered(self.neighbourhood.boxes, self._arrays, pick, 1)
        flags = self.gathered(self.neighbourhood.value_boxes, self._flags, pick) if self._layout.zeros else None
        centre = kernel.centre(rows, flags)
        wanted: Doubles = self.known.reshape(-1)[pick].astype(np.float64) - centre
        return rows, wanted, flags

    def block(self, rows: range, columns: range) -> Singles:
        """Return regressors and, in the last row, what they are to give, of positions in all planes (no background)."""
        kernel = Kernel(self._bare(_MOST_CLIP), self.neighbourhood, self._span)
        shape = len(rows), len(columns), self.known.shape[2]
        out, flags = np.ones((self.neighbourhood.regressors + 2, math.prod(shape)), np.float32), None
        self._fill(self.neighbourhood.boxes, self._arrays, rows, columns, out)
        known = self.known[rows.start : rows.stop : rows.step, columns.start : columns.stop].reshape(-1)
        if self._layout.zeros:
            flags = np.empty((self.neighbourhood.values, known.size), np.float32)
            self._fill(self.neighbourhood.value_boxes, self._flags, rows, columns, flags)
        np.subtract(known, kernel.centre(out[:-1], flags), out=out[-1])
        return out.take(np.flatnonzero(known), 1) if self._layout.zeros else out

    def thresholds(self, sets: int) -> Ints:
        """Return the activities that part the sample of the fit into so many sets."""
        assert self._sampled is not None
        found = np.unique(np.rint(np.quantile(self._sampled[0], np.linspace(0, 1, sets + 1)[1:-1]))).astype(np.int64)
        return found[found < limits.EXACT_FLOAT32 // 2]

    def loss(self, stage: Stage) -> float:
        """Return the mean of log2 of the errors in the sample, with the same weights everywhere."""
        assert self._sampled is not None
        active, rows, wanted = self._sampled
        which, left = stage.thresholds.searchsorted(active), np.empty(len(wanted))
        for one, weights in enumerate(stage.weights / 2.0**stage.fraction):
            mine = np.flatnonzero(which == one)
            left[mine] = wanted[mine] - combined(weights, rows[:, mine])
        return float(np.log2(np.abs(left) + 0.5).mean())

    def _bare(self, clip: int) -> Stage:
        k = self.neighbourhood.regressors + 1
        none = np.zeros((1, k), np.int64)
        return Stage(8, clip, none, np.zeros(0, np.int64), none[0], 0, np.zeros(self.neighbourhood.errors, np.int64))

    # ---- the fit ----

    def fitted(self, most_sets: int = SETS) -> Stage:
        """Return the stage with all weights but those of errors, the same everywhere; no more sets than that."""
        # Where every place has weights of its own, those of the sample are little more than where to begin.
        large = SAMPLE if self._layout.has_regions else _LARGE_SAMPLE
        pick, everywhere = self.picked(min(max(SAMPLE, self.size // 8), large))
        rows, wanted, _ = self.sample(pick)
        flag_weights = None
        if self._layout.zeros:
            _, _, flags = self.sample(everywhere)
            assert flags is not None
            set_ = self.known.reshape(-1)[everywhere] != 0
            found = logistic(np.concatenate([flags, np.ones((1, flags.shape[1]))]).astype(np.float64), set_)
            flag_weights = np.rint(found * 256).astype(np.int64)
        magnitudes, weights = np.abs(rows), np.ones(len(wanted))
        level: Floats | None = None
        for _ in range(_ROUNDS if self.size > _SMALL else _ROUNDS - 1):
            linear = solve(rows, wanted, weights)
            left = np.abs(wanted - combined(linear, rows))
            trust = 1 / (left + 1) if level is None else 1 / (level + 0.5)
            activity = solve_not_negative(magnitudes, left, trust * trust)
            level = combined(activity, magnitudes) + 0.05
            weights = 1 / (level**2 + 0.1)
        whole_activity = np.rint(activity * 256).astype(np.int64)
        active = combined(whole_activity.astype(np.float64), magnitudes)
        sets = min(most_sets, 1 + self.size // _VALUES_PER_SET)
        self._sampled = active, rows, wanted
        edges = self.thresholds(sets)
        which = edges.searchsorted(active)
        found = np.stack([self._one_set(rows, wanted, weights, which == i, linear) for i in range(len(edges) + 1)])
        spread = np.median(np.abs(wanted - combined(linear, rows))) + 0.3
        squares = np.square(rows[:-1], out=magnitudes[:-1])
        noise = np.sqrt(self.neighbourhood.regressors * squares.mean() + 1e-9) / 3.5
        fraction = int(np.clip(np.ceil(np.log2(noise / (0.03 * spread))), 6, _MOST_FRACTION))
        fraction, clip, whole = self.exact(found, whole_activity[None], fraction)
        while reach(whole_activity[None], clip)[0] >= limits.EXACT_FLOAT32:
            whole_activity >>= 1  # no real image comes here
        return Stage(
            fraction, clip, whole, edges, whole_activity, 0, np.zeros(self.neighbourhood.errors, np.int64), flag_weights
        )

    def _one_set(self, rows: Singles, wanted: Doubles, weights: Floats, mine: npt.NDArray[np.bool_],
                 otherwise: Doubles) -> Doubles:  # fmt: skip
        if mine.sum() <= 3 * self.neighbourhood.regressors:
            return otherwise
        return solve(rows[:, mine], wanted[mine], weights[mine], 1e-5)

    def exact(self, found: Doubles, activity: Ints, fraction: int) -> tuple[int, int, Ints]:
        """Return fraction, clip and weights whose sums stay exact: less fraction first, then a smaller clip."""
        while True:
            whole = np.rint(found * 2.0**fraction).astype(np.int64)
            both = np.concatenate([whole, activity])
            room = limits.EXACT_FLOAT32 - 1 - np.abs(both[:, -1])
            clip = int(min(_MOST_CLIP, (room // np.maximum(1, np.abs(both[:, :-1]).sum(1))).min()))
            if clip >= min(_ENOUGH_CLIP, self._span) or fraction == _LEAST_FRACTION:
                break
            fraction -= 1
        if clip < 1:  # weights beyond all measure: predict nothing but the centre
            whole, clip = np.zeros_like(whole), 1
        return fraction, max(1, min(clip, self._span)), whole

    # ---- symbols ----

    def code(self, coded: Coded, stage: Stage) -> Stage:
        """Keep the errors of the fitted stage in the view, and add its symbols; return it with all weights."""
        self._sampled = None
        loops = choice.find("predictor_encode", self.size)
        shape = self.known.shape
        difference, phase = np.empty(shape, np.int32), np.empty(shape, np.uint8)
        error, active = np.empty(shape, np.float32), np.empty(shape, np.float32)
        classes = np.zeros(shape, np.uint8) if self._layout.zeros else None
        out = difference, phase, error, active
        if loops is None:
            self._predict(stage, *out, classes)
        else:
            weights = Weights(stage, self.neighbourhood, self._layout)
            predict(loops, weights, self.neighbourhood.boxes, self._arrays, self._flags, self.known, out, classes)
        if classes is not None:
            error *= self.known != 0
        self._arrays[regression.ERROR] = self._padded(error)
        scale, weights_of_errors = self._fit_expected(active, error)
        stage = replace(stage, scale=scale, errors=weights_of_errors)
        if loops is None:
            phase += self._contexts(stage, active)
        else:
            expect(loops, self.neighbourhood.error_boxes, self._arrays, weights_of_errors, scale, active, phase)
        at = self._view.index(0, self._view.planes)
        self._view.errors[at] = error.transpose(2, 0, 1)
        self._add(coded, difference, phase, classes)
        return stage

    def _predict(self, stage: Stage, difference: npt.NDArray[np.int32], phase: npt.NDArray[np.uint8], error: Singles,
                 active: Singles, classes: npt.NDArray[np.uint8] | None) -> None:  # fmt: skip
        """Fill in values less their predictions, phases, errors, activities and classes."""
        kernel = kernel_of(stage, self.neighbourhood, self._span)
        numbers = None if stage.differences is None or stage.grid is None else stage.grid.numbers()
        shape = self.known.shape
        low, high = self._layout.low, self._layout.high
        across = range(self.columns)
        for begin, end in self._pieces():
            run = slice(begin, end)
            count = (end - begin) * shape[1] * shape[2]
            rows = np.ones((self.neighbourhood.regressors + 1, count), np.float32)
            self._fill(self.neighbourhood.boxes, self._arrays, range(begin, end), across, rows)
            flags = None
            if classes is not None:
                flags = np.empty((self.neighbourhood.values, count), np.float32)
                self._fill(self.neighbourhood.value_boxes, self._flags, range(begin, end), across, flags)
                classes[run].reshape(-1)[:] = kernel.classes(flags)
            centre = kernel.centre(rows, flags)
            predicted, active[run].reshape(-1)[:] = kernel.predict(
                rows, centre, np.arange(count), [] if numbers is None else _runs(numbers, begin, end, shape[2])
            )
            known, moved = self.known[run].reshape(-1), predicted + np.int32(1 << (stage.fraction - 1))
            phase[run].reshape(-1)[:] = moved >> (stage.fraction - 2) & 3
            difference[run].reshape(-1)[:] = known - np.clip(moved >> stage.fraction, low, high)
            size = np.abs((known << stage.fraction) - predicted) >> (stage.fraction - 2)
            error[run].reshape(-1)[:] = np.minimum(size, MAX_ERROR)

    def _contexts(self, stage: Stage, active: Singles) -> npt.NDArray[np.uint8]:
        """Return four times the contexts; `active` is used up."""
        expected = Kernel(stage, self.neighbourhood, self._span).scaled(active)
        everywhere, across, i = range(self.rows), range(self.columns), 0
        for box in self.neighbourhood.error_boxes:
            for j in range(box.columns):
                error_there = self._shifted(box, 0, j, everywhere, across, self._arrays)
                expected += (np.float32(stage.errors[i]) * error_there).astype(np.int32)
                i += 1
        return contexts(expected).astype(np.uint8)

    def _pieces(self) -> Iterator[tuple[int, int]]:
        rows, columns, planes = self.known.shape
        size = max(1, _AT_ONCE // (columns * planes))
        for begin in range(0, rows, size):
            yield begin, min(rows, begin + size)

    def _shifted(self, box: Box, i: int, j: int, rows: range, columns: range, arrays: dict[str, Padded]) -> Singles:
        up, left = PAD + box.dy + i, PAD + box.dx + j
        found: Singles = arrays[box.array].array[
            up + rows.start : up + rows.stop : rows.step, left + columns.start : left + columns.stop]  # fmt: skip
        return found

    def _fill(self, boxes: list[Box], arrays: dict[str, Padded], rows: range, columns: range, out: Singles) -> None:
        k = 0
        for box in boxes:
            for i in range(box.rows):
                for j in range(box.columns):
                    source = self._shifted(box, i, j, rows, columns, arrays)
                    out[k].reshape(source.shape)[...] = source
                    k += 1

    def _fit_expected(self, active: Singles, error: Singles) -> tuple[int, Ints]:
        """Return the weights that make the expected error, in 1/1024, of activity and errors (in quarters)."""
        pick, _ = self.picked(SAMPLE)
        around = self.gathered(self.neighbourhood.error_boxes, self._arrays, pick)
        rows: Singles = np.concatenate([active.reshape(-1)[pick][None] / np.float32(256), around / np.float32(4)])
        wanted, level = error.reshape(-1)[pick].astype(np.float64) / 4, rows[0]
        for _ in range(2):
            found = solve_not_negative(rows, wanted, 1 / (level + 0.3) ** 2)
            level = combined(found, rows)
        scale, weights = min(1023, round(float(found[0]) * 256)), np.rint(found[1:] * 256)
        return scale, np.floor(weights * min(1.0, 4096 / max(1.0, weights.sum()))).astype(np.int64)

    def _add(self, coded: Coded, difference: npt.NDArray[np.int32], places: npt.NDArray[np.uint8],
             classes: npt.NDArray[np.uint8] | None) -> None:  # fmt: skip
        wave, kind = _wave(self.rows, self.columns), smallest(-self._span, self._span)
        for first, last in self._layout.blocks(self._view.planes):

            def in_order(a: npt.NDArray[Any], first: int = first, last: int = last) -> npt.NDArray[Any]:
                return a[:, :, first:last].reshape(-1, last - first)[wave].reshape(-1)

            known = in_order(self.known)
            here: Any = slice(None)
            if classes is not None:
                here = known != 0
                coded.flags.append(here)
                coded.classes.append(in_order(classes).astype(np.int64))
            coded.errors.append(in_order(difference)[here].astype(kind, copy=False))
            coded.places.append(in_order(places)[here])
            coded.values.append((known[here] - self._layout.low).astype(np.uint16))


def _runs(numbers: tuple[Ints, Ints], begin: int, end: int, planes: int) -> list[Run]:
    """Return the pieces of consecutive values (row, column, plane) that lie in one region."""
    found = (numbers[0][begin:end, None] + numbers[1]).reshape(-1)
    ends = [*(np.flatnonzero(np.diff(found)) + 1).tolist(), len(found)]
    return [(int(found[a]), a * planes, b * planes) for a, b in itertools.pairwise([0, *ends])]


@lru_cache(maxsize=2)
def _wave(rows: int, columns: int) -> Ints:
    """Return the places of a plane in the order of decoding."""
    y, x = np.divmod(np.arange(rows * columns), columns)
    return np.lexsort((y, x + 2 * y))
