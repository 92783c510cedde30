"""Values -> neural payloads (specification section 13): a given network, tables fitted to what it leaves.

All that a reader knows at a value are true values, for the coding is lossless; so predictions are made for many
values at once, without the reader's order, and where torch has CUDA its exact products may make them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.chunk.dtypes import is_short, ordered
from inrstore.chunk.entropy.contexts import contexts
from inrstore.chunk.entropy.residual_encode import coded, lanes_of
from inrstore.chunk.entropy.student import StudentTable
from inrstore.chunk.least_squares import combined, solve_not_negative
from inrstore.chunk.mask import Mask
from inrstore.chunk.neural.decode import Expectation, Header, Predictions, error_of, rounded, shared_network
from inrstore.chunk.neural.neighbourhood import ERRORS, Volume, fold
from inrstore.chunk.neural.network import UNIT, Network
from inrstore.chunk.neural.scale import gain_of
from inrstore.chunk.task import Task
from inrstore.errors import CorruptChunkError

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.int32]
Corrections = Callable[[Network, int, npt.NDArray[np.uint16], Ints, Ints, npt.NDArray[np.int32]], Ints]
"""Gives the corrections of a network: network, gain, values with zeros around, neighbours, places, centres."""

SMALLEST = 2000
"""Values under which tables cost more than they save."""
_SAMPLE = 20_000
_TRIAL = 6_000
_GAINS = (0.5, 0.71, 1.0, 1.41, 2.0)
_INPUTS, _MANY_INPUTS = 1 << 22, 1 << 26


@dataclass(frozen=True)
class Coding:
    """A chunk, the network that predicts it, and the header.

    Parameters
    ----------
    volume : Volume
    network : Network
    header : Header
    padded : ndarray of uint16
        The values with zeros around, flat.
    """

    volume: Volume
    network: Network
    header: Header
    padded: npt.NDArray[np.uint16] = field(repr=False)

    @cached_property
    def order(self) -> Ints:
        """Places of all values in the order of decoding."""
        return np.concatenate(list(self.volume.waves()))

    @cached_property
    def predictions(self) -> Predictions:
        """What a reader would predict."""
        return Predictions(self.volume, self.network, self.header)

    def predict(self, corrections: Corrections | None = None) -> Words:
        """Return the prediction of every value in the order of decoding, in parts of 256."""
        order, predictions, network = self.order, self.predictions, self.network
        neighbours = self.volume.shifts(network.neighbourhood.offsets)
        p = np.empty(len(order), np.int32)
        at_once = max(1, (_INPUTS if corrections is None else _MANY_INPUTS) // len(neighbours))
        for begin in range(0, len(order), at_once):
            run = order[begin : begin + at_once]
            mean, _ = predictions.near(self.padded, run)
            if corrections is None:
                p[begin : begin + at_once] = predictions.predict(self.padded, run, mean)
            else:
                centre = mean if network.local else np.full(len(run), self.header.offset, np.int32)
                found = corrections(network, self.header.gain, self.padded, neighbours, run, centre)
                p[begin : begin + at_once] = predictions.limited(found, centre)
        return p

    def payload(self, p: Words, *, shared: bool, table: StudentTable | None = None) -> bytes:
        """Return the payload of the values so predicted; `table` takes the place of fitted tables."""
        known = self.padded[self.order].astype(np.int32)
        errors = np.zeros(self.padded.shape, np.uint16)
        errors[self.order] = error_of(known, p)
        expectation = self._expectation(errors)
        whole, phase = rounded(p)
        places = self._contexts(errors, expectation) + phase
        network = self.network.digest if shared else self.network.data
        found = coded((known - whole).astype(np.int64), places, known.astype(np.int64), table)
        lanes = lanes_of(len(p))
        streams = found.tables + bytes([lanes]) + found.rest + found.stream(lanes)
        return self.header.write(network, shared) + expectation.write() + streams

    def _expectation(self, errors: npt.NDArray[np.uint16]) -> Expectation:
        """Return the weights that make the expected error, in 1/1024, of differences and errors (in quarters)."""
        order = self.order
        pick = order if len(order) <= _SAMPLE else np.random.default_rng(1).choice(order, _SAMPLE)
        near = self.predictions.near(self.padded, pick)[1].astype(np.float64)
        around = errors.take(self.volume.shifts(ERRORS)[:, None] + pick).astype(np.float64) / 4
        rows = np.concatenate([near, np.ones((1, len(pick))), around])
        wanted = errors[pick].astype(np.float64) / 4
        level = around.mean(0)
        for _ in range(3):
            found = solve_not_negative(rows, wanted, 1 / (level + 0.3) ** 2)
            level = combined(found, rows)
        split = len(near)
        weights = np.concatenate([found[:split] * 1024, found[split + 1 :] * 256])
        whole = np.floor(weights * min(1.0, 4000 / max(1.0, weights.sum())) + 0.5).astype(np.int64)
        added = int(min(round(float(found[split]) * 1024), 16_000))
        return Expectation(np.append(whole[:split], added), whole[split:])

    def _contexts(self, errors: npt.NDArray[np.uint16], expectation: Expectation) -> Ints:
        """Return four times the context of every value."""
        order, shifts = self.order, self.volume.shifts(ERRORS)[:, None]
        out = np.empty(len(order), np.int64)
        near_weights, error_weights = (w.astype(np.float32) for w in (expectation.near[:-1], expectation.errors))
        for begin in range(0, len(order), 1 << 16):
            run = order[begin : begin + (1 << 16)]
            near = self.predictions.near(self.padded, run)[1].astype(np.float32)
            expected = (near_weights @ near).astype(np.int32)
            expected += (error_weights @ errors.take(shifts + run).astype(np.float32)).astype(np.int32)
            out[begin : begin + (1 << 16)] = contexts(expected + np.int32(expectation.near[-1]))
        return out


def bid(task: Task) -> bytes | None:
    """Return the lossless payload that the best of the shared networks makes, or None."""
    networks = [found for data in task.context.shared.values() if (found := shared_network(data)) is not None]
    if not networks or not task.target.lossless:
        return None
    corrections = None
    if task.options.device == "cuda":  # torch makes the products there, to the same bits
        from inrstore.chunk.inr.fit.lossless import Exact

        corrections = Exact("cuda")
    core, around = task.cropped
    payload = encode(core, networks, around.mask, corrections=corrections)
    return None if payload is None else task.sealed(payload)


def encode(core: npt.NDArray[Any], networks: Sequence[Network], inside: Mask | None = None, *, shared: bool = True,
           corrections: Corrections | None = None) -> bytes | None:  # fmt: skip
    """Return the payload after the envelope, with the best of the networks, or None for what the mode does not hold.

    Parameters
    ----------
    core : ndarray
        Little-endian, at least one value.
    networks : sequence of Network
    inside : ndarray of bool, optional
        Values elsewhere are free; broadcasts to the core.
    shared : bool
        The network is named by its digest; otherwise the payload holds it.
    corrections : callable, optional
        Makes the products elsewhere, to the same bits; `inrstore.chunk.inr.fit.lossless.Exact` is one.
    """
    coding = choose(core, networks, inside)
    return None if coding is None else coding.payload(coding.predict(corrections), shared=shared)


def choose(core: npt.NDArray[Any], networks: Sequence[Network], inside: Mask | None = None) -> Coding | None:
    """Return how to code the values, with the best of the networks; the parameters are those of `encode`."""
    if core.size < SMALLEST or not is_short(core.dtype) or not networks:
        return None
    mapped = steps_of(core, inside)
    if mapped is None:
        return None
    base, step, values = mapped
    whole, best = values.reshape(fold(values.shape)), None
    for network in networks:
        try:
            volume = Volume(fold(values.shape), network.neighbourhood)
        except CorruptChunkError:
            continue
        cost, header = _best_header(whole, volume, network, base, step)
        if best is None or cost < best[0]:
            best = cost, Coding(volume, network, header, volume.padded(whole).reshape(-1))
    return None if best is None else best[1]


def steps_of(core: npt.NDArray[Any], inside: Mask | None) -> tuple[int, int, npt.NDArray[np.uint16]] | None:
    """Return base, step and v; None if the range is too large. What is outside the mask becomes 0."""
    pattern = ordered(core)
    known = pattern.reshape(-1) if inside is None else pattern[np.broadcast_to(inside, pattern.shape)]
    base = int(known.min())
    gaps = known - pattern.dtype.type(base)
    step = max(1, int(np.gcd.reduce(gaps[:1000])))
    step = step if step == 1 else max(1, int(np.gcd.reduce(gaps)))
    if int(gaps.max()) // step > limits.MAX_PREDICTOR_RANGE:
        return None
    if inside is not None:
        pattern = np.where(inside, pattern, pattern.dtype.type(base))
    return base, step, ((pattern - pattern.dtype.type(base)) // pattern.dtype.type(step)).astype(np.uint16)


def _best_header(whole: npt.NDArray[np.uint16], volume: Volume, network: Network, base: int, step: int
            ) -> tuple[float, Header]:  # fmt: skip
    """Return the cost of a value in bits, about, and the header with the best gain."""
    padded, places = volume.padded(whole).reshape(-1), _places(volume)
    if len(places) > _TRIAL:
        places = np.random.default_rng(0).choice(places, _TRIAL)
    typical, offset = gain_of(whole, network.local, network.clip)
    known, best = padded[places].astype(np.int32), None
    gains = {max(1, min(65535, round(typical * f))) for f in _GAINS} | {UNIT} if network.local else {typical}
    for gain in sorted(gains):
        header = Header(base, step, int(whole.max(initial=0)), offset, gain)
        predictions = Predictions(volume, network, header)
        p = predictions.predict(padded, places, predictions.near(padded, places)[0])
        cost = float(np.log2(np.abs((known << 8) - p) + 128.0).mean())
        if best is None or cost < best[0]:
            best = cost, header
    assert best is not None
    return best


def _places(volume: Volume) -> Ints:
    """Return the places of all values, in memory order."""
    m, z, y, x = volume.lengths
    _, pz, py, px = volume.shape
    before, beside = volume.pads
    slices = (np.arange(m)[:, None] * pz + np.arange(before, before + z)).reshape(-1, 1)
    rows = (slices * py + np.arange(beside, beside + y)).reshape(-1, 1)
    return (rows * px + np.arange(beside, beside + x)).reshape(-1)
