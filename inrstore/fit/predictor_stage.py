"""One stage of the predictor: its fit by least squares, and its symbols (specification sections 12.5 and 12.6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.fit.least_squares import Doubles, combined, logistic, solve, solve_not_negative
from inrstore.format.predictor import regression
from inrstore.format.predictor.integers import Ints, Singles
from inrstore.format.predictor.layout import Layout
from inrstore.format.predictor.planes import Padded
from inrstore.format.predictor.regression import MAX_ERROR, PAD, Box, Kernel, Neighbourhood, Stage, reach
from inrstore.format.predictor.stages import StageView
from inrstore.format.predictor.tables import contexts

SAMPLE, _LARGE_SAMPLE = 40_000, 160_000
_SETS, _VALUES_PER_SET = 8, 16_000
_MOST_CLIP, _ENOUGH_CLIP = 8191, 2047
_LEAST_FRACTION, _MOST_FRACTION = 4, 12
_AT_ONCE = 2048


@dataclass
class Coded:
    """What the streams will hold, stage by stage, in the order of decoding."""

    errors: list[Ints] = field(default_factory=list)
    places: list[Ints] = field(default_factory=list)  # four times the context, plus the phase
    values: list[Ints] = field(default_factory=list)
    flags: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    classes: list[Ints] = field(default_factory=list)


class StageFit:
    """One stage: its arrays as a reader sees them, the fit, and the symbols.

    Parameters
    ----------
    layout : Layout
    view : StageView
    hood : Neighbourhood
    """

    def __init__(self, layout: Layout, view: StageView, hood: Neighbourhood) -> None:
        self._layout, self._view, self._hood = layout, view, hood
        self.rows, self.columns = layout.part_shape
        at = view.index(0, view.planes)
        self._arrays, self._flags = view.neighbours(0, view.planes)
        own = self._padded(view.residuals(at).transpose(1, 2, 0))
        self._arrays[regression.OWN] = own
        self.known = view.values[at].transpose(1, 2, 0).astype(np.int32)
        if layout.zeros:
            self._flags[regression.OWN] = self._padded(self.known != 0)
        self._span = layout.high - layout.low
        self._rng = np.random.default_rng(view.planes)
        self.size = self.known.size

    def _padded(self, inside: npt.NDArray[Any]) -> Padded:
        out = Padded(*inside.shape)
        out.inside[...] = inside
        out.pad_all()
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

    def gathered(self, boxes: list[Box], arrays: dict[str, Padded], pick: Ints) -> Singles:
        """Return the neighbours of single places, shape (neighbours, places)."""
        row, column, plane = np.unravel_index(pick, self.known.shape)
        return np.stack([
            arrays[b.array].array[PAD + row + b.dy + i, PAD + column + b.dx + j, plane]
            for b in boxes for i in range(b.rows) for j in range(b.columns)
        ])  # fmt: skip

    def sample(self, pick: Ints) -> tuple[Doubles, Doubles, Singles | None]:
        """Return regressors, what they are to give, and flags at some places."""
        kernel = Kernel(self._bare(_MOST_CLIP), self._hood, self._span)
        rows = np.ones((self._hood.regressors + 1, len(pick)), np.float32)
        rows[:-1] = self.gathered(self._hood.boxes, self._arrays, pick)
        flags = self.gathered(self._hood.value_boxes, self._flags, pick) if self._layout.zeros else None
        centre = kernel.centre(rows, flags)
        wanted: Doubles = self.known.reshape(-1)[pick].astype(np.float64) - centre
        return rows.astype(np.float64), wanted, flags

    def _bare(self, clip: int) -> Stage:
        k = self._hood.regressors + 1
        none = np.zeros((1, k), np.int64)
        return Stage(8, clip, none, np.zeros(0, np.int64), none[0], 0, np.zeros(self._hood.errors, np.int64))

    # ---- the fit ----

    def _fit(self) -> Stage:
        pick, everywhere = self.picked(min(max(SAMPLE, self.size // 8), _LARGE_SAMPLE))
        rows, wanted, _ = self.sample(pick)
        flag_weights = None
        if self._layout.zeros:
            _, _, flags = self.sample(everywhere)
            assert flags is not None
            set_ = self.known.reshape(-1)[everywhere] != 0
            found = logistic(np.concatenate([flags, np.ones((1, flags.shape[1]))]).astype(np.float64), set_)
            flag_weights = np.rint(found * 256).astype(np.int64)
        magnitudes, weights = np.abs(rows), np.ones(len(wanted))
        level: Doubles | None = None
        for _ in range(3):
            linear = solve(rows, wanted, weights)
            left = np.abs(wanted - combined(linear, rows))
            trust = 1 / (left + 1) if level is None else 1 / (level + 0.5)
            activity = solve_not_negative(magnitudes, left, trust * trust)
            level = combined(activity, magnitudes) + 0.05
            weights = 1 / (level**2 + 0.1)
        whole_activity = np.rint(activity * 256).astype(np.int64)
        active = combined(whole_activity.astype(np.float64), magnitudes)
        sets = min(_SETS, 1 + self.size // _VALUES_PER_SET)
        edges = np.unique(np.rint(np.quantile(active, np.linspace(0, 1, sets + 1)[1:-1]))).astype(np.int64)
        which = edges.searchsorted(active)
        found = np.stack([self._one_set(rows, wanted, weights, which == i, linear) for i in range(len(edges) + 1)])
        spread = np.median(np.abs(wanted - combined(linear, rows))) + 0.3
        noise = np.sqrt(self._hood.regressors * (rows[:-1] ** 2).mean() + 1e-9) / 3.5
        fraction = int(np.clip(np.ceil(np.log2(noise / (0.03 * spread))), 6, _MOST_FRACTION))
        fraction, clip, whole = self._exact(found, whole_activity[None], fraction)
        while reach(whole_activity[None], clip)[0] >= limits.EXACT_FLOAT32:
            whole_activity >>= 1  # no real image comes here
        edges = edges[edges < limits.EXACT_FLOAT32 // 2]
        whole = whole[: len(edges) + 1]
        return Stage(
            fraction, clip, whole, edges, whole_activity, 0, np.zeros(self._hood.errors, np.int64), flag_weights
        )

    def _one_set(self, rows: Doubles, wanted: Doubles, weights: Doubles, mine: npt.NDArray[np.bool_],
                 otherwise: Doubles) -> Doubles:  # fmt: skip
        if mine.sum() <= 3 * self._hood.regressors:
            return otherwise
        return solve(rows[:, mine], wanted[mine], weights[mine], 1e-5)

    def _exact(self, found: Doubles, activity: Ints, fraction: int) -> tuple[int, int, Ints]:
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

    def code(self, coded: Coded) -> Stage:
        """Fit the stage, keep its errors in the view, and add its symbols; return it with all weights."""
        stage = self._fit()
        kernel = Kernel(stage, self._hood, self._span)
        shape = self.known.shape
        difference, phase = np.empty(shape, np.int32), np.empty(shape, np.uint8)
        error, active = np.empty(shape, np.float32), np.empty(shape, np.float32)
        classes = np.zeros(shape, np.uint8) if self._layout.zeros else None
        low, high = self._layout.low, self._layout.high
        for begin, end in self._runs():
            run = slice(begin, end)
            count = (end - begin) * shape[1] * shape[2]
            rows = np.ones((self._hood.regressors + 1, count), np.float32)
            self._fill(self._hood.boxes, self._arrays, begin, end, rows)
            flags = None
            if classes is not None:
                flags = np.empty((self._hood.values, count), np.float32)
                self._fill(self._hood.value_boxes, self._flags, begin, end, flags)
                classes[run].reshape(-1)[:] = kernel.classes(flags)
            centre = kernel.centre(rows, flags)
            predicted, active[run].reshape(-1)[:] = kernel.predict(rows, centre, np.arange(count))
            known, moved = self.known[run].reshape(-1), predicted + np.int32(1 << (stage.fraction - 1))
            phase[run].reshape(-1)[:] = moved >> (stage.fraction - 2) & 3
            difference[run].reshape(-1)[:] = known - np.clip(moved >> stage.fraction, low, high)
            size = np.abs((known << stage.fraction) - predicted) >> (stage.fraction - 2)
            error[run].reshape(-1)[:] = np.minimum(size, MAX_ERROR)
        if classes is not None:
            error *= self.known != 0
        self._arrays[regression.ERROR] = self._padded(error)
        scale, weights = self._fit_expected(active, error)
        stage = replace(stage, scale=scale, errors=weights)
        expected = Kernel(stage, self._hood, self._span).scaled(active)
        i = 0
        for box in self._hood.error_boxes:
            for j in range(box.columns):
                expected += (np.float32(weights[i]) * self._shifted(box, 0, j, 0, shape[0])).astype(np.int32)
                i += 1
        at = self._view.index(0, self._view.planes)
        self._view.errors[at] = error.transpose(2, 0, 1)
        self._add(coded, difference, contexts(expected) + phase, classes)
        return stage

    def _runs(self) -> Iterator[tuple[int, int]]:
        rows, columns, planes = self.known.shape
        size = max(1, _AT_ONCE // (columns * planes))
        for begin in range(0, rows, size):
            yield begin, min(rows, begin + size)

    def _shifted(self, box: Box, i: int, j: int, begin: int, end: int, arrays: dict[str, Padded] | None = None
                 ) -> Singles:  # fmt: skip
        array = (arrays or self._arrays)[box.array].array
        first = PAD + box.dx + j
        return array[PAD + begin + box.dy + i : PAD + end + box.dy + i, first : first + self.columns]

    def _fill(self, boxes: list[Box], arrays: dict[str, Padded], begin: int, end: int, out: Singles) -> None:
        k = 0
        for box in boxes:
            for i in range(box.rows):
                for j in range(box.columns):
                    source = self._shifted(box, i, j, begin, end, arrays)
                    out[k].reshape(source.shape)[...] = source
                    k += 1

    def _fit_expected(self, active: Singles, error: Singles) -> tuple[int, Ints]:
        """Return the weights that make the expected error, in 1/1024, of activity and errors (in quarters)."""
        pick, _ = self.picked(SAMPLE)
        around = self.gathered(self._hood.error_boxes, self._arrays, pick)
        rows = np.concatenate([active.reshape(-1)[pick][None] / 256, around / 4]).astype(np.float64)
        wanted, level = error.reshape(-1)[pick].astype(np.float64) / 4, rows[0]
        for _ in range(2):
            found = solve_not_negative(rows, wanted, 1 / (level + 0.3) ** 2)
            level = combined(found, rows)
        scale, weights = min(1023, round(float(found[0]) * 256)), np.rint(found[1:] * 256)
        return scale, np.floor(weights * min(1.0, 4096 / max(1.0, weights.sum()))).astype(np.int64)

    def _add(self, coded: Coded, difference: npt.NDArray[np.int32], places: Ints,
             classes: npt.NDArray[np.uint8] | None) -> None:  # fmt: skip
        wave = _wave(self.rows, self.columns)
        for first, last in self._layout.blocks(self._view.planes):

            def in_order(a: npt.NDArray[Any], first: int = first, last: int = last) -> npt.NDArray[Any]:
                return a[:, :, first:last].reshape(-1, last - first)[wave].reshape(-1)

            known = in_order(self.known)
            here: Any = slice(None)
            if classes is not None:
                here = known != 0
                coded.flags.append(here)
                coded.classes.append(in_order(classes).astype(np.int64))
            coded.errors.append(in_order(difference)[here].astype(np.int64))
            coded.places.append(in_order(places)[here])
            coded.values.append(known[here].astype(np.int64))


@lru_cache(maxsize=2)
def _wave(rows: int, columns: int) -> Ints:
    """Return the places of a plane in the order of decoding."""
    y, x = np.divmod(np.arange(rows * columns), columns)
    return np.lexsort((y, x + 2 * y))
