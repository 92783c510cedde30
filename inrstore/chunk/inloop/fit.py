"""A correcting network fitted to one chunk: Adam in numpy, weights quantised in the loop (specification section 16).

SIREN: Sitzmann et al., arXiv:2006.09661; one hidden layer of sines. Adam: Kingma and Ba, arXiv:1412.6980. What is
fitted is small (some hundred weights), so one thread of a processor does it in seconds; all products are made in
pieces, and the bytes do not depend on the number of threads.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk.inloop.correction import MOST_SHIFT, Correction, Volumes, inputs_of
from inrstore.chunk.inr.layers import AMPLITUDE, BY_NAME, Layer
from inrstore.chunk.inr.network import MAX_SHIFT, MIN_SHIFT, Network, Values, pack_gain, unpack_gain
from inrstore.chunk.linear import product, products, solved

Singles = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

MAGNITUDE = 511
_SPREADS = 5.0  # an input's range, in its own standard deviations
_LEVELS = 7.0  # standard deviation of weights in their own steps: about 5 bits each
_PHASES = 64  # steps of a bias in a turn
_RATE, _LAST_RATE = 1e-2, 2e-4
_BETAS = 0.9, 0.99
_RIDGE = 1e-3
_ROUNDED_FROM = 0.6  # of the steps
_SOLVED_FROM = 40_000  # positions
Offsets = tuple[tuple[int, ...], ...]

_ALL: Offsets = tuple(o for o in itertools.product((-2, -1, 0, 1, 2), repeat=3) if any(o))
FACES: Offsets = tuple(o for o in _ALL if sum(map(abs, o)) == 1)
"""Offsets of the six neighbours that share a face with a position."""
WIDE: Offsets = tuple(o for o in _ALL if max(map(abs, o)) == 1 or sorted(map(abs, o)) == [0, 0, 2])
"""Offsets of the 26 neighbours and of the six behind those that share a face."""
FLAT: Offsets = tuple(o for o in _ALL if sum(map(abs, o[1:])) <= (2, 1, 0)[abs(o[0])])
"""Offsets of the twelve nearest within a slice, five in each slice beside it, and one in each behind those."""


@dataclass(frozen=True)
class Plan:
    """Size of a network, and how long it is fitted.

    Parameters
    ----------
    leading : int
        Components that it reads and corrects.
    near : int
        Of those, how many it reads neighbours of.
    units : int
        Sines.
    steps : int
    batch : int
        Positions in each step.
    offsets : tuple of offsets
        Slices, rows and columns from a position to each neighbour.
    """

    leading: int
    near: int
    units: int
    steps: int = 1500
    batch: int = 2048
    offsets: Offsets = FACES

    def within(self, components: int, lengths: tuple[int, ...]) -> Plan:
        """Return the plan for a chunk with so many components, without neighbours along axes of one place."""
        leading = min(self.leading, components)
        offsets = tuple(o for o in self.offsets if not any(d and n == 1 for d, n in zip(o, lengths, strict=True)))
        return replace(self, leading=leading, near=min(self.near, leading), offsets=offsets)

    @property
    def parameters(self) -> int:
        """How many weights that takes."""
        return self.units * (2 * self.leading + self.near * len(self.offsets) + 1)


@dataclass(frozen=True)
class View:
    """What a network sees of one chunk.

    Parameters
    ----------
    volumes : ndarray of float64, shape (components, slices, rows, columns)
        Integers, as readers have them.
    wanted : ndarray, shape (leading or more, slices, rows, columns)
        What they should be.
    inside : ndarray of bool, shape (slices, rows, columns), optional
        Positions that count.
    """

    volumes: Volumes
    wanted: npt.NDArray[Any]
    inside: npt.NDArray[np.bool_] | None = None

    @property
    def positions(self) -> int:
        """How many of them count."""
        return math.prod(self.volumes.shape[1:]) if self.inside is None else int(self.inside.sum())


def fit(views: Sequence[View], plan: Plan) -> Correction:
    """Return the correction that brings decoded components nearest to the wanted ones.

    Parameters
    ----------
    views : sequence of View
        One for each chunk that it serves, or for some of them.
    plan : Plan
        With no more components than there are.
    """
    frame = _frame([view.volumes for view in views], plan)
    rng = np.random.default_rng(plan.units)
    x, y = _samples(frame, views, plan, rng)
    return replace(frame, network=_Fit(x, y, plan, rng).run())


def _frame(each: Sequence[Volumes], plan: Plan) -> Correction:
    """Return shifts that bring all inputs to the same range, without a network."""
    shifts, differences = [], []
    for k in range(plan.leading):
        shifts.append(_shift_of(_spread([volumes[k] for volumes in each])))
        if k < plan.near:
            change = [_spread([np.diff(volumes[k], axis=axis) for volumes in each]) for axis in range(3)
                      if all(volumes.shape[axis + 1] > 1 for volumes in each)]  # fmt: skip
            differences.append(_shift_of(max(change, default=0.0)))
    nothing: Any = None
    offsets = np.array(plan.offsets, np.int64).reshape(-1, 3)
    return Correction(tuple(shifts), tuple(differences), offsets, nothing)


def _spread(each: Sequence[npt.NDArray[Any]]) -> float:
    """Return the standard deviation within arrays."""
    return math.sqrt(sum(float(a.var()) for a in each) / len(each))


def _shift_of(spread: float) -> int:
    return min(MOST_SHIFT, max(0, math.ceil(math.log2(max(_SPREADS * spread, 1) / MAGNITUDE))))


def _samples(frame: Correction, views: Sequence[View], plan: Plan, rng: np.random.Generator) -> tuple[Singles, Singles]:
    """Return inputs and wanted corrections at some positions, both (numbers, positions)."""
    total = sum(view.positions for view in views)
    share = min(1.0, max(_SOLVED_FROM, plan.steps * plan.batch // 16) / max(1, total))
    xs, ys = [], []
    for view in views:
        for index, inputs in inputs_of(frame, view.volumes, MAGNITUDE):
            missing = view.wanted[: plan.leading][index] - view.volumes[: plan.leading][index]
            missing = missing.reshape(plan.leading, -1)
            pick = rng.random(inputs.shape[1]) < share
            if view.inside is not None:
                pick &= view.inside[index[1:]].reshape(-1)
            xs.append(inputs[:, pick])
            ys.append(missing[:, pick].astype(np.float32))
    return np.concatenate(xs, 1), np.concatenate(ys, 1)


class _Fit:
    """One network while it is fitted; inputs and outputs have a spread of about 1."""

    def __init__(self, x: Singles, y: Singles, plan: Plan, rng: np.random.Generator) -> None:
        self._plan, self._rng = plan, rng
        self._in = np.maximum(x.std(1), 1).astype(np.float32)
        self._out = np.float32(max(float(np.sqrt((y.astype(np.float64) ** 2).mean())), 1e-3))
        x /= self._in[:, None]
        y /= self._out
        order = rng.permutation(x.shape[1])  # once, so that a batch is a piece of memory
        self._x, self._y, self._next = x.take(order, 1), y.take(order, 1), 0
        bound = math.sqrt(1.5 / len(x))
        self._weights = rng.uniform(-bound, bound, (plan.units, len(x))).astype(np.float32)
        self._biases = rng.uniform(-np.pi / 2, np.pi / 2, plan.units).astype(np.float32)
        self._readout = np.zeros((len(y), plan.units), np.float32)
        self._grain: np.float32 | None = None  # radians of a weight's step for a unit of an input
        self._gains: Singles | None = None

    def run(self) -> Network:
        """Fit, round in the loop, and return the integers."""
        plan = self._plan
        self._solve()
        moments = [(np.zeros_like(p), np.zeros_like(p)) for p in self._parameters]
        rounded_from = round(_ROUNDED_FROM * plan.steps)
        for step in range(1, plan.steps + 1):
            if step == rounded_from:
                self._choose_grains()
            rate = _LAST_RATE + (_RATE - _LAST_RATE) * 0.5 * (1 + math.cos(math.pi * step / plan.steps))
            for p, g, (mean, square) in zip(self._parameters, self._gradients(), moments, strict=True):
                mean += (1 - _BETAS[0]) * (g - mean)
                square += (1 - _BETAS[1]) * (g * g - square)
                scale = np.sqrt(square / (1 - _BETAS[1] ** step)) + 1e-9
                p -= np.float32(rate / (1 - _BETAS[0] ** step)) * mean / scale
        if self._grain is None:
            self._choose_grains()
        self._solve()
        return self._network()

    @property
    def _parameters(self) -> tuple[Singles, Singles, Singles]:
        return self._weights, self._biases, self._readout

    def _choose_grains(self) -> None:
        raw = self._weights / self._in
        self._grain = np.float32(max(float(np.sqrt((raw**2).mean())), 1e-9) / _LEVELS)
        self._gains = np.maximum(np.sqrt((self._readout**2).mean(1)), 1e-6) / np.float32(_LEVELS)

    def _rounded(self) -> tuple[Singles, Singles, Singles]:
        """Return weights, biases and read-out as they will be coded, in the units of the fit."""
        if self._grain is None or self._gains is None:
            return self._parameters
        step = self._grain * self._in
        turn = np.float32(2 * np.pi / _PHASES)
        gains = self._gains[:, None]
        return (np.rint(self._weights / step) * step, np.rint(self._biases / turn) * turn,
                np.rint(self._readout / gains) * gains)  # fmt: skip

    def _picked(self, count: int) -> tuple[Singles, Singles]:
        """Return inputs and wanted corrections of so many positions."""
        begin, last = self._next, self._x.shape[1] - count
        if begin > last:  # another round, of other batches
            begin = int(self._rng.integers(0, min(count, last + 1)))
        self._next = begin + count
        return self._x[:, begin : self._next], self._y[:, begin : self._next]

    def _gradients(self) -> tuple[npt.NDArray[Any], ...]:
        x, y = self._picked(min(self._x.shape[1], self._plan.batch))
        weights, biases, readout = self._rounded()
        z = product(weights, x) + biases[:, None]
        hidden = np.sin(z)
        error = product(readout, hidden) - y
        back = product(np.ascontiguousarray(readout.T), error) * np.cos(z)
        count = np.float32(y.shape[1])
        return products(back, x) / count, back.mean(1), products(error, hidden) / count

    def _solve(self) -> None:
        """Set the read-out by least squares, for the weights as they will be coded."""
        x, y = self._picked(min(self._x.shape[1], _SOLVED_FROM))
        weights, biases, _ = self._rounded()
        hidden = np.sin(product(weights, x) + biases[:, None])
        square = products(hidden, hidden) / y.shape[1]
        square += _RIDGE * max(float(np.trace(square)) / len(square), 1e-6) * np.eye(len(square))
        self._readout[:] = solved(square, (products(hidden, y) / y.shape[1])).T

    def _network(self) -> Network:
        assert self._grain is not None and self._gains is not None
        turns = float(self._grain) / (2 * np.pi)
        multiplier = max(1, round(turns * 2.0**32))
        weights = np.clip(np.rint(self._weights / self._in / self._grain), -1023, 1023).astype(np.int64)
        biases = np.rint(self._biases / (2 * np.pi / _PHASES)).astype(np.int64)
        biases = (biases + _PHASES // 2) % _PHASES - _PHASES // 2
        readout = np.clip(np.rint(self._readout / self._gains[:, None]), -1023, 1023).astype(np.int64)
        real = self._gains.astype(np.float64) * float(self._out) / AMPLITUDE  # of an output, for a unit of the sum
        shift = min(MAX_SHIFT, max(MIN_SHIFT, math.floor(20 - math.log2(float(real.max())))))
        gains = unpack_gain(np.array([pack_gain(float(g) * 2.0**shift) for g in real], np.int64))
        layer = Layer(BY_NAME["sine"], weights, biases, multiplier)
        return Network(Values(len(self._in), MAGNITUDE), (layer,), (1 << 32) // _PHASES, readout, gains,
                       np.zeros(len(readout), np.int64), shift)  # fmt: skip
