"""Values -> transform payloads: KLT, wavelets, and the step that just keeps a target (specification section 14).

The KLT over measurements is that of Karhunen and Loeve: the eigenvectors of their covariance. One step serves all
components and subbands, which is optimal for an orthonormal transform (reverse water-filling).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.chunk import envelope, quality
from inrstore.chunk.entropy.bits import Ints
from inrstore.chunk.inloop.fit import WIDE, Plan, fit
from inrstore.chunk.linear import eigh, product, products, solved
from inrstore.chunk.outputs import bounds, exponent_of, fits
from inrstore.chunk.task import Task
from inrstore.chunk.transform.compiled_encode import components_of, forward, outputs, scan, synthesis
from inrstore.chunk.transform.header import Header, arrangement, kinds_of
from inrstore.chunk.transform.rdoq import Chooser
from inrstore.chunk.transform.spectrum import Spectrum
from inrstore.chunk.transform.steps import Steps
from inrstore.chunk.transform.subbands import Triple, levels_of, subbands_of
from inrstore.chunk.transform.wavelet import UNIT, gain_of
from inrstore.chunk.transform.weights import START, Sampler, fitted
from inrstore.errors import CorruptChunkError
from inrstore.options import Preset

Singles = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Error = Callable[[npt.NDArray[Any]], float]

_GAINS = 255  # largest gain with several measurements: their ranges need no more digits
_FINE_GAIN = 1 << 15
_SCALE = float(1 << 13)  # least scale of the basis
_COLUMN = 0.07  # of the target: how far a rounded column may carry its component into others
_COLUMN_BITS = 6.0  # of a number of the basis, about
_LEAST = 256
_AIM, _CLOSE = 0.9992, 0.999  # of the target: the error that is looked for, and one that ends the search
_ENOUGH = 0.9975  # ends it after all rounds; further ones are for what is still farther off
_MORE = 8  # such rounds
_MOST_VALUE = 1 << 22
_LOOKED_AT, _LOOKED_AT_VALUES = 6, 3_000_000  # components that the number of levels is chosen by, at least
_PLANS = (Plan(4, 1, 8), Plan(8, 2, 16), Plan(12, 3, 24), Plan(16, 4, 32))
_PLANS_OF_ONE = tuple(Plan(1, 1, units, offsets=WIDE) for units in (8, 16, 32))
_BYTES_PER_WEIGHT, _NETWORK_SHARE = 0.65, 0.08
_COARSER, _CORRECTED = 1.07, 7
_SAMPLED = 3  # scans that weights are fitted to; errors of values are looked at from the last one on
_CARRIED = 1.04  # errors of values for those of coefficients, before it is known
_EXPECTED = 0.985, 1.004  # errors that are worth a look at values
_FINER = 0.75  # the step whose components the first scan looks at
_NEAR, _RELEASED = 1.04, 2  # how far steps may go from the one that components were chosen for, but for so many scans


@dataclass(frozen=True)
class Effort:
    """How hard a step is looked for.

    Parameters
    ----------
    rounds : int
        Times that all coefficients are chosen.
    networks : int
        Sizes of a correcting network that are tried; 0 for none.
    network_steps : int
        Of each fit.
    """

    rounds: int = 6
    networks: int = 0
    network_steps: int = 1500


EFFORTS: dict[Preset, Effort] = {"fast": Effort(3), "balanced": Effort(6, 1), "small": Effort(10, 3, 4000)}
"""What presets mean to this mode."""


def bid(task: Task) -> bytes | None:
    """Return the payload of a chunk with a target rmse, or None."""
    rmse, options = task.target.rmse, task.options
    if rmse is None or options.mode == "network" or task.chunk.dtype.kind not in "iuf":
        return None
    core, around = task.split

    def error(decoded: npt.NDArray[Any]) -> float:
        rebuilt = envelope.join(np.array(decoded), around, task.chunk.shape)
        return quality.rmse(task.values, rebuilt, task.target, around.box, around.mask)

    effort = EFFORTS[options.preset]
    if options.mode == "transform":
        effort = replace(effort, networks=0)
    coded = encode(core, task.channel_axis, task.scales, rmse, error, around.mask, effort)
    return None if coded is None else task.sealed(coded, split=True)


def encode(core: npt.NDArray[Any], channel_axis: int | None, scale: Doubles, rmse: float, error: Error,
           inside: npt.NDArray[np.bool_] | None = None, effort: Effort | None = None) -> bytes | None:  # fmt: skip
    """Return the smallest payload after the envelope whose error is at most `rmse`, or None.

    Parameters
    ----------
    core : ndarray
        Finite values.
    channel_axis : int or None
        Axis of measurements.
    scale : ndarray of float64, shape (measurements,) or (1,)
        Errors of each measurement are divided by it.
    rmse : float
    error : callable
        Returns the error of decoded values, shape of `core`, in the same units.
    inside : ndarray of bool, optional
        Values elsewhere are free; broadcasts to the core.
    effort : Effort, optional
    """
    measurements, lengths = arrangement(core.shape, channel_axis)
    if (
        not _LEAST <= core.size <= limits.MAX_TRANSFORM_VALUES
        or measurements > limits.MAX_TRANSFORM_COMPONENTS
        or core.dtype.kind not in "iuf"
    ):
        return None
    effort = effort or Effort()
    search = _Search(core, channel_axis, measurements, lengths, scale, rmse, inside, effort.networks > 0)
    if search.exponent is None:
        return None
    return search.run(error, effort)


class _TooLargeError(Exception):
    """A coefficient is larger than the format holds."""


@dataclass(frozen=True)
class _Plain:
    """What was found without a network."""

    payload: bytes
    step: float
    weights: Ints
    biases: tuple[int, int]
    most: Ints
    error: float
    components: int


class _Search:
    """One chunk: its components, and what is known of the step so far."""

    def __init__(self, core: npt.NDArray[Any], axis: int | None, measurements: int, lengths: Triple, scale: Doubles,
                 rmse: float, inside: npt.NDArray[np.bool_] | None, corrected: bool) -> None:  # fmt: skip
        self._core, self._axis, self._lengths, self._target = core, axis, lengths, rmse
        self._rmse = 1.0  # all is measured in targets: squares of what is huge or tiny leave float32
        self._scale = np.broadcast_to(np.asarray(scale, np.float64) * rmse, (measurements,))
        self.exponent = exponent_of(core, float(self._scale.min()))
        if self.exponent is None:
            return
        self._grain = 2.0**self.exponent
        if measurements > 1:
            self._gains = np.maximum(1, np.rint(self._scale / self._scale.max() * _GAINS)).astype(np.int64)
            self._unit = self._gains * (float(self._scale.max()) / _GAINS)  # what a measurement is divided by
        else:
            self._gains, self._unit = np.array([_FINE_GAIN], np.int64), self._scale
        values, known = _rows(core, axis, inside)
        self._mean = np.array([float(v[k].mean(dtype=np.float64)) for v, k in zip(values, known, strict=True)])
        values -= self._mean[:, None]
        values /= self._unit[:, None]
        if inside is not None:
            values[~known] = 0
        self._vectors, self._spread = _klt(values)
        components = product(self._vectors.T.astype(np.float32), values) if measurements > 1 else values
        self._positions = None if inside is None else known.all(0).reshape(lengths)
        del values, known  # as large as all that is kept later on
        components = components.astype(np.float32, copy=False)
        self._leading = components[: _PLANS[-1].leading if corrected else 0].copy()
        self._use(components.reshape(-1, *lengths), self._best_levels(components))
        self._energy = np.array([[quality.sum_of_squares(row) for row in self._subbands_of[b.level, b.key]]
                                 for b in self._subbands])  # fmt: skip
        column = _COLUMN_BITS * measurements if measurements > 1 else 0.0
        self._spectrum = Spectrum(self._subbands, self._subbands_of, column)

    def _use(self, volumes: Singles, levels: Triple) -> None:
        """Transform the components."""
        self._levels = levels
        self._subbands = subbands_of(self._lengths, levels)
        self._subbands_of = forward(volumes, levels)
        for subband in self._subbands:
            gain = gain_of(subband.key, subband.level, levels) / UNIT
            self._subbands_of[subband.level, subband.key] /= np.float32(gain)

    def _best_levels(self, components: Singles) -> Triple:
        """Return how often to halve each axis; slices may be too few or too thick for what helps in the plane."""
        usual, deep = levels_of(self._lengths), levels_of(self._lengths, 3)
        choices = sorted({usual, (deep[0], *usual[1:]), (0, *usual[1:])}, reverse=True)
        if len(choices) == 1:
            return usual
        some = max(_LOOKED_AT, _LOOKED_AT_VALUES // components.shape[1])
        leading = components[:some].astype(np.float32).reshape(-1, *self._lengths)
        costs, step = [], 0.0
        for levels in choices:
            self._use(leading, levels)
            step = step or self._first_step(self._rmse * 2.5)
            costs.append(
                sum(float(np.log2(1 + np.abs(v) / np.float32(step)).sum()) for v in self._subbands_of.values())
            )
        return choices[int(np.argmin(costs))]

    def run(self, error: Error, effort: Effort) -> bytes | None:
        """Return the smallest payload found that keeps the target, with a correcting network where that pays."""
        plain = self._plain(error, effort)
        if plain is None:
            return None
        best = plain.payload
        for plan in self._plans(plain, effort):
            found = self._corrected(error, plain, plan)
            if found is not None and len(found) < len(best):
                best = found
        return best

    def _plans(self, plain: _Plain, effort: Effort) -> list[Plan]:
        """Return the sizes of networks whose bytes the chunk may earn back, the likeliest first."""
        found: list[Plan] = []
        if self._positions is not None and not self._positions.any():  # nowhere are all measurements known
            return found
        for plan in _PLANS if len(self._unit) > 1 else _PLANS_OF_ONE:
            plan = replace(plan.within(plain.components, self._lengths), steps=effort.network_steps)
            if _BYTES_PER_WEIGHT * plan.parameters < _NETWORK_SHARE * len(plain.payload):
                found.append(plan)
        return found[::-1][: effort.networks]

    def _corrected(self, error: Error, plain: _Plain, plan: Plan) -> bytes | None:
        """Return the payload of a coarser step whose components a network brings nearer to the true ones."""
        step, best, correction = plain.step * _COARSER, None, None
        coarsest, steps = 0.0, Steps()
        for _ in range(_CORRECTED):
            made = self._code(step, plain.weights, plain.biases, plain.most, sample=False)
            if made is None:
                break
            streams, header, coefficients, *_ = made
            volumes = components_of(header, self._lengths, self._subbands, coefficients)
            if len(volumes) < plan.leading:
                break
            if correction is None:
                correction = fit(volumes, self._wanted(step, plan.leading), self._positions, plan)
            try:
                correction.network.check()
                correction.apply(volumes)
                decoded = outputs(header, volumes, self._core.dtype, self._core.shape)
            except CorruptChunkError:
                break
            del volumes
            ratio = error(decoded) / self._target / self._rmse
            steps.watch(step, ratio)
            steps.add(step, ratio)
            if ratio <= 1:
                if step > coarsest:
                    best, coarsest = replace(header, correction=correction).write() + streams(), step
                if ratio >= _ENOUGH:
                    break
            if steps.narrow:
                break
            step = steps.following(step, ratio, self._spectrum.slope(step, plain.most), _AIM)
            if best is None and step <= plain.step:
                break
            del made, streams, coefficients
        return best

    def _wanted(self, step: float, count: int) -> Singles:
        """Return the leading components in the units of readers."""
        made = self._basis(step)
        assert made is not None
        turn = made[-1]
        flat = self._leading.reshape(len(self._leading), -1)
        turned = flat if turn is None else product(turn[:count, : len(flat)], flat)
        out: Singles = (turned[:count] * np.float32(UNIT / step)).reshape(-1, *self._lengths)
        return out

    def _plain(self, error: Error, effort: Effort) -> _Plain | None:
        """Search the step; return the fewest bytes found that keep the target."""
        step = chosen_at = self._spectrum.first_step(self._rmse)
        most = self._spectrum.worthwhile(step * _FINER)
        weights, biases = START[: kinds_of(self._levels)], (0, 0)
        best: _Plain | None = None
        steps = Steps()
        carried, misses = _CARRIED, 0
        for attempt in range(effort.rounds + _MORE):
            moved = max(step / chosen_at, chosen_at / step)
            released = attempt < _SAMPLED + _RELEASED or best is None
            if 0 < attempt < _SAMPLED or (released and moved > _NEAR):
                # Near the end they stay, so that the error follows the step smoothly.
                most, chosen_at = self._spectrum.worthwhile(step), step
                steps = Steps()
            made = self._code(step, weights, biases, most, sample=attempt < _SAMPLED)
            if made is None:
                return best
            streams, header, coefficients, chooser, sampler = made
            found = self._left(header.active, step * step * chooser.left)
            steps.watch(step, found)
            ratio = found * carried  # errors of values take longer
            wanted = attempt > effort.rounds or _EXPECTED[0] < ratio < _EXPECTED[1]
            if attempt == _SAMPLED - 1 or (attempt >= _SAMPLED and wanted):
                try:
                    ratio = error(synthesis(header, self._lengths, self._subbands, coefficients, self._core.dtype,
                                            self._core.shape)) / self._target / self._rmse  # fmt: skip
                except CorruptChunkError:
                    return best
                carried = ratio / found if found else 1.0
                steps.add(step, ratio)
                misses += ratio > 1 and attempt >= _SAMPLED
                if ratio <= 1 and (best is None or ratio > best.error):
                    payload = header.write() + streams()
                    if best is None or len(payload) < len(best.payload):
                        best = _Plain(payload, step, weights, biases, most, ratio, header.basis.shape[1])
                if best is not None and (
                    best.error >= _CLOSE
                    or (attempt >= effort.rounds and best.error >= _ENOUGH)
                    or steps.narrow
                    or not header.active.any()
                ):
                    return best
            if attempt < _SAMPLED:
                biases = _biases(chooser)
                weights = fitted(sampler, kinds_of(self._levels))
                self._spectrum.learn(step, chooser.worth)
            aim = _AIM if best is not None else 1 - (1 - _AIM) * 2**misses
            step = steps.following(step, ratio, self._spectrum.slope(step, most), aim)
            del made, streams, coefficients, chooser, sampler  # before as much is made again
        return best

    def _left(self, active: Ints, coded: float) -> float:
        """Return the error of coefficients in targets, from the squares of those coded."""
        beyond = np.arange(self._energy.shape[1]) >= active[:, None]
        return math.sqrt((float(self._energy[beyond].sum()) + coded) / self._core.size) / self._rmse

    def _first_step(self, step: float) -> float:
        """Return about the step that keeps the target, by errors of coefficients (nearly those of values)."""
        picked = []
        for subband in self._subbands:
            flat = self._subbands_of[subband.level, subband.key].reshape(-1)
            every = max(1, flat.size // 200_000)
            picked.append((np.abs(flat[::every]), every))
        total = sum(p.size * every for p, every in picked)
        for _ in range(30):
            wrong = 0.0
            for size, every in picked:
                left = size - step * np.floor(size / np.float32(step) + np.float32(0.36))
                wrong += every * quality.sum_of_squares(left)
            ratio = max(math.sqrt(wrong / total) / self._rmse, 1e-6)
            if 0.98 < ratio < 1.0 or step > 1e6 * self._rmse:
                break
            step *= min(max((0.99 / ratio) ** 1.25, 0.5), 2.0)
        return step

    def _code(self, step: float, weights: Ints, biases: tuple[int, int], most: Ints, sample: bool) -> Any:
        """Choose all coefficients for a step, of so many components of each subband at most.

        None where the format cannot hold them.
        """
        assert self.exponent is not None
        made = self._basis(step)
        if made is None:
            return None
        basis, shifts, gains, shift, turn = made
        scaled: dict[tuple[int, Triple], Singles] = {}  # of the subband that is coded; all would be a second image
        active = np.zeros(len(self._subbands), np.int64)
        most = np.minimum(most, math.prod(self._lengths))  # more components than positions say nothing

        def scale_each() -> Iterator[int]:
            for number, subband in enumerate(self._subbands):
                scaled.clear()
                place = subband.level, subband.key
                values = self._subbands_of[place]
                if not most[number]:
                    scaled[place] = values[:0]
                    yield 0
                    continue
                flat = values.reshape(len(values), -1)
                turned = flat[: most[number]] if turn is None else product(turn[: most[number]], flat)
                whole = (turned * np.float32(1 / step)).reshape(-1, *values.shape[1:])
                largest = np.abs(whole).max(axis=(1, 2, 3), initial=0)
                if largest.max(initial=0) > _MOST_VALUE:
                    raise _TooLargeError
                active[number] = int((largest >= 0.5).nonzero()[0].max(initial=-1)) + 1
                scaled[place] = whole[: active[number]]
                yield active[number]

        chooser = Chooser(self._subbands, scaled)
        sampler = Sampler() if sample else None
        try:
            coefficients = scan(self._subbands, scale_each(), self._levels, weights, chooser, sampler)
        except _TooLargeError:
            return None
        components = max(1, int(active.max()))
        offset_shift = max(0, math.floor(math.log2(0.03 * self._rmse * float(self._scale.min()) / self._grain)) + shift)
        offset_shift = min(offset_shift, shift)
        offsets = np.rint(self._mean / self._grain * 2.0 ** (shift - offset_shift)).astype(np.int64)
        low, high = bounds(self._core, self.exponent)
        if not fits(low, high):
            return None
        header = Header(self._axis, self._levels, biases, shift, offset_shift, self.exponent, low, high, gains, offsets,
                        shifts[:components], basis[:, :components], active, weights)  # fmt: skip
        return (lambda: chooser.streams(coefficients)), header, coefficients, chooser, sampler

    def _basis(self, step: float) -> tuple[Ints, Ints, Ints, int, Singles | None] | None:
        """Return basis, column shifts, gains, shift, and what turns components into those of the rounded basis."""
        measurements = len(self._unit)
        wanted = step * float(self._unit[0]) / (UNIT * self._grain)  # outputs for one internal unit
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
        unit = _COLUMN * self._rmse / np.maximum(self._spread, self._rmse * 1e-3)
        shifts = np.clip(np.floor(np.log2(np.maximum(unit * scale, 1))), 0, 11).astype(np.int64)
        basis = np.rint(self._vectors * (scale / 2.0**shifts)).astype(np.int64)
        turn = solved(basis * 2.0**shifts / scale, self._vectors)
        return basis, shifts, self._gains, shift, turn.astype(np.float32)


def _rows(core: npt.NDArray[Any], axis: int | None, inside: npt.NDArray[np.bool_] | None) -> tuple[Any, Any]:
    """Return values, shape (measurements, voxels), as float32 around their middle, and which are known."""
    moved = core[None] if axis is None else np.moveaxis(core, axis, 0)
    rows = moved.reshape(len(moved), -1).astype(np.float32 if core.dtype.itemsize <= 2 else np.float64)
    known: Any = np.broadcast_to(np.True_, rows.shape)
    if inside is not None:
        whole = np.broadcast_to(inside, core.shape)
        known = (whole[None] if axis is None else np.moveaxis(whole, axis, 0)).reshape(rows.shape)
    return rows, known


def _klt(values: npt.NDArray[Any]) -> tuple[Doubles, Doubles]:
    """Return eigenvectors of the covariance as columns, the largest first, and the spread of each component."""
    if len(values) == 1:
        return np.ones((1, 1)), np.ones(1)
    covariance = np.zeros((len(values), len(values)))
    for begin in range(0, values.shape[1], 1 << 16):
        part = values[:, begin : begin + (1 << 16)].astype(np.float64)
        covariance += products(part, part)
    found, vectors = eigh(covariance / values.shape[1])
    # The sign of an eigenvector means nothing; a fixed one keeps results the same.
    vectors *= np.where(vectors.sum(0) < 0, -1.0, 1.0)
    return vectors[:, ::-1].copy(), np.sqrt(np.maximum(found[::-1], 0))


def _biases(chooser: Chooser) -> tuple[int, int]:
    """Return how far magnitudes of 1, and larger ones, should be raised, in 1/128."""
    count, low = chooser.excess
    first, rest = (np.clip(np.rint(128 * low / np.maximum(count, 1)), -60, 60) * (count > 20)).astype(int)
    return int(first), int(rest)
