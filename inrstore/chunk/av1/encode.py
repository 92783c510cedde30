"""Boxes -> av1 payloads: the axis, quantiser and step that just keep a target (specification section 15).

Chunks of one image have the same ones, so that bits go where they save most.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.chunk.av1 import library
from inrstore.chunk.av1.decode import FINE, LEVELS, MOST_OFFSET, MOST_SHIFT, Header, box_of, samples_of
from inrstore.chunk.boxes import Box, Offer, extremes, together
from inrstore.chunk.inloop.correction import Correction
from inrstore.chunk.inloop.fit import FLAT, WIDE, Plan, View, fit
from inrstore.chunk.outputs import bounds, exponent_of, fits
from inrstore.chunk.task import Task
from inrstore.errors import CorruptChunkError, MissingDependencyError
from inrstore.options import Preset, available_cores

Plane = tuple[int, int]

_LEAST = 1 << 12  # values; fewer cost less than the headers of a sequence
_FINEST = 1.5  # levels; the transform is smaller for targets below
_QUANTISERS = 63
_CLOSE, _AIM = 0.995, 0.9975
_GAIN = 1 << 20
_COARSEST = 256.0  # steps against the finest: gains stay below 2^32
_PADDED = 2.0  # of a frame: pixels for each that has a value, at most
_BY_QUANTISER, _BY_STEP = 0.042, 0.55
"""About d log(error) / d quantiser, and / d log(step)."""
_BYTES_BY_ERROR = 1.4
"""About -d log(bytes) / d log(error), to compare what differs in both."""
_PLANS = (Plan(1, 1, 16, 3000, 4096, FLAT), Plan(1, 1, 32, 3000, 4096, FLAT), Plan(1, 1, 64, 4000, 4096, WIDE))
_BYTES_PER_WEIGHT, _NETWORK_SHARE = 0.75, 0.03
_PAYS = 0.99
"""Bytes with a network over those without, at most: reading takes many times longer with it."""
_COARSER = 1.04
"""About how much larger errors may be before a network."""
_ROOM, _WIDEST = 1.05, 1.3  # steps, against the finest: to begin with, and before another quantiser is taken


@dataclass(frozen=True)
class Effort:
    """How hard a sequence is encoded.

    Parameters
    ----------
    quick, final : int
        SVT-AV1's presets: to look with, and to keep.
    finals : int
        Most encodes with the second one.
    networks : int
        Sizes of a correcting network that are tried; 0 for none.
    """

    quick: int = 7
    final: int = 1
    finals: int = 5
    networks: int = 0


EFFORTS: dict[Preset, Effort] = {"fast": Effort(7, 6), "balanced": Effort(7, 1), "small": Effort(7, 0, 6, 3)}
"""What presets mean to this mode."""


@dataclass(frozen=True)
class Trial:
    """One encode.

    Parameters
    ----------
    plane : tuple of int
        The axes of rows and columns.
    quantiser : int
    step : float
        Of the samples, against the finest.
    payloads : list of bytes
        One for each box.
    ratio : float
        Error over target.
    correction : Correction, optional
    """

    plane: Plane
    quantiser: int
    step: float
    payloads: list[bytes]
    ratio: float
    correction: Correction | None = None

    @property
    def size(self) -> int:
        """Bytes of all payloads."""
        return sum(map(len, self.payloads))

    @property
    def cost(self) -> float:
        """Logarithm of the bytes that it would take to meet the target so."""
        return math.log(self.size) + _BYTES_BY_ERROR * math.log(self.ratio)


def bid(task: Task) -> bytes | None:
    """Return the payload of a chunk of one channel with a target rmse, or None; see `bids`."""
    found = bids([task], task.options.threads)
    return None if found is None else found.payloads[0]


def bids(tasks: Sequence[Task], threads: int = 0, passed: Callable[[], None] | None = None) -> Offer | None:
    """Return what keeps one target rmse for chunks of one channel together, or None.

    Parameters
    ----------
    tasks : sequence of Task
        With the same target, options and kind of values.
    threads : int
        Of the encoder; 0 takes the cores available.
    passed : callable, optional
        Called each time that all have been coded.

    Raises
    ------
    MissingDependencyError
        If this mode was asked for and PyAV is absent, or brings an encoder whose streams no chunk may hold.
    """
    first = tasks[0]
    rmse, options = first.target.rmse, first.options
    if rmse is None or options.mode not in ("auto", "av1") or first.chunk.dtype.kind not in "iuf":
        return None
    if options.mode == "auto" and not library.is_installed():
        return None
    boxes, axis = [task.box for task in tasks], first.channel_axis
    if axis is not None and any(box.core.shape[axis] > 1 for box in boxes):
        return None
    scale = float(first.scales[0])
    try:
        coded = encode(boxes, rmse, scale, EFFORTS[options.preset], threads, passed)
    except CorruptChunkError as refused:  # another release of the encoder may use what section 15.2 forbids
        if options.mode == "auto" or refused.field != "av1.stream":
            return None
        raise MissingDependencyError(
            f"mode av1: the SVT-AV1 that PyAV brings makes streams that a chunk may not hold ({refused.reason}); "
            "install another release of av, or leave the mode to auto"
        ) from refused
    if coded is None:
        return None
    return Offer([t.sealed(payload, split=True) for t, payload in zip(tasks, coded, strict=True)])


def encode(boxes: Sequence[Box], rmse: float, scale: float = 1.0, effort: Effort | None = None,
           threads: int = 0, passed: Callable[[], None] | None = None) -> list[bytes] | None:  # fmt: skip
    """Return the payloads after the envelope whose error is together just below the target, or None.

    Parameters
    ----------
    boxes : sequence of Box
        Of one dtype.
    rmse : float
        In the units of the errors of boxes.
    scale : float
        Stored units in one of these.
    effort : Effort, optional
    threads : int, optional
        Of the encoder; 0 takes the cores available.
    passed : callable, optional
        Called each time that all have been coded.
    """
    known = [_planes(box.core.shape) for box in boxes]
    planes = [plane for plane in known[0] if all(plane in other for other in known)]
    values = extremes(boxes)
    exponent = exponent_of(values, rmse * scale)
    if exponent is None or not planes or min(box.core.size for box in boxes) < _LEAST:
        return None
    if not fits(*bounds(values, exponent)):
        return None
    search = _Search(boxes, exponent, rmse, threads or available_cores(), passed)
    if not rmse * scale >= _FINEST * search.finest > 0:
        return None
    return search.run(planes, rmse * scale, effort or Effort())


@dataclass(frozen=True)
class _Coded:
    """Streams, and the header that goes with them but for a correction."""

    header: Header
    quantiser: int
    step: float
    streams: list[bytes]


class _Search:
    """Boxes as samples, and encodes of them."""

    def __init__(self, boxes: Sequence[Box], exponent: int, rmse: float, threads: int,
                 passed: Callable[[], None] | None) -> None:  # fmt: skip
        self._passed = passed or (lambda: None)
        self._boxes, self._exponent, self._rmse, self._threads = boxes, exponent, rmse, threads
        self._low_high = bounds(extremes(boxes), exponent)
        self._values = [_values(box) for box in boxes]
        self._low = min(float(values.min()) for values in self._values)
        self.finest = (max(float(values.max()) for values in self._values) - self._low) / (LEVELS - 1)

    def run(self, planes: Sequence[Plane], rmse: float, effort: Effort) -> list[bytes] | None:
        """Look with a quick preset where the target is, and meet it with the final one."""
        start = _clipped(round(30 + math.log(rmse / self.finest / 8.6) / _BY_QUANTISER))
        look = min((self._encode(plane, start, 1.0, effort.quick) for plane in planes), key=lambda t: t.cost)
        slope = _BY_QUANTISER
        for _ in range(3):
            quantiser = _clipped(look.quantiser - round(math.log(look.ratio) / slope))
            if quantiser == look.quantiser:
                break
            found = self._encode(look.plane, quantiser, 1.0, effort.quick)
            slope = math.log(found.ratio / look.ratio) / (quantiser - look.quantiser)
            slope, look = min(max(slope, 0.02), 0.15), found
        best, last = self._meet(look, slope, lambda setting: self._encode(look.plane, *setting, effort.final),
                                effort.finals)  # fmt: skip
        if best is None or not effort.networks:
            return None if best is None else best.payloads
        return self._corrected(best, last, slope, effort).payloads

    def _corrected(self, best: Trial, last: Trial, slope: float, effort: Effort) -> Trial:
        """Return the smaller of the best trial and one of coarser sequences that a network corrects."""
        within = [plan.within(1, self._lengths(last.plane)) for plan in _PLANS]
        share = _NETWORK_SHARE * best.size / len(self._boxes)
        plans = [p for p in within if _BYTES_PER_WEIGHT * p.parameters < share]
        if not plans or any(box.core.size > limits.MAX_TRANSFORM_VALUES for box in self._boxes):  # section 15.1
            return best
        setting = _setting(last, slope, _BY_STEP, math.log(_COARSER), keep=True) or (last.quantiser, last.step)
        coded = self._coded(last.plane, *setting, effort.final, filters=False)
        networks = [self._fitted(coded, plan) for plan in plans[-effort.networks :]]
        trials = [self._tried(coded, network) for network in networks if network is not None]
        first = min(trials, key=lambda t: t.cost, default=None)
        most = _PAYS * best.size
        if first is None or first.cost > math.log(max(most, 1)):
            return best

        def again(setting: tuple[int, float]) -> Trial:
            return self._tried(self._coded(last.plane, *setting, effort.final, filters=False), first.correction)

        found, _ = self._meet(first, slope, again, effort.finals)
        return found if found is not None and found.size < most else best

    def _meet(self, look: Trial, slope: float, encode: Callable[[tuple[int, float]], Trial],
              most: int) -> tuple[Trial | None, Trial]:  # fmt: skip
        """Return the smallest of some encodes that keeps the target, and the last of them."""
        best: Trial | None = None
        aim, last, by_step = math.log(_AIM), look, _BY_STEP
        for number in range(most):
            setting = _setting(last, slope, by_step, aim, keep=number > 0)
            if setting is None:
                break
            trial = encode(setting)
            if trial.ratio <= 1 and (best is None or trial.size < best.size):
                best = trial
            if number > 0:
                slope, by_step = _slopes(last, trial, slope, by_step)
            last, aim = trial, aim - 0.001 * (trial.ratio > 1)
            if _CLOSE <= trial.ratio <= 1:
                break
        return best, last

    def _lengths(self, plane: Plane) -> tuple[int, int, int]:
        """Return how many frames there are, and how high and wide they are without padding."""
        shape = self._boxes[0].core.shape
        height, width = (shape[axis] for axis in plane)
        return math.prod(shape) // (height * width), height, width

    def _encode(self, plane: Plane, quantiser: int, step: float, preset: int) -> Trial:
        return self._tried(self._coded(plane, quantiser, step, preset), None)

    def _grid(self, step: float, fine: int) -> tuple[int, int, int, float]:
        """Return shift, gain and offset for samples in `fine` parts of a step, and what these are in values."""
        grain = 2.0**self._exponent
        wanted = step * self.finest / grain / fine
        far = max(abs(self._low) / grain, 1.0)  # from 0
        shift = math.floor(min(math.log2(_GAIN / wanted), math.log2(MOST_OFFSET / 2 / far)))
        shift = min(max(shift, 1), MOST_SHIFT)
        gain, offset = max(1, round(wanted * 2.0**shift)), round(self._low / grain * 2.0**shift)
        return shift, gain, offset, gain * 2.0**-shift * grain

    def _coded(self, plane: Plane, quantiser: int, step: float, preset: int, *, filters: bool = True) -> _Coded:
        """Encode all frames; their samples are those of the grid with a network where AV1's own filters are off."""
        fine = 1 if filters else FINE
        shift, gain, offset, unit = self._grid(step, fine)
        header = Header(*plane, shift, self._exponent, *self._low_high, gain, offset)
        streams = []
        for values in self._values:
            order, count, height, width = header.frames(values.shape)
            samples = np.rint((values - self._low) * (1 / (unit * fine)))
            samples = np.clip(samples, 0, LEVELS - 1).astype(np.uint16).transpose(order)
            samples = samples.reshape(count, *samples.shape[-2:])
            beyond = [(0, 0), (0, height - samples.shape[1]), (0, width - samples.shape[2])]
            frames = np.pad(samples, beyond, "edge")
            streams.append(library.encode(frames, quantiser, preset, self._threads, filters=filters))
        self._passed()
        return _Coded(header, quantiser, step, streams)

    def _fitted(self, coded: _Coded, plan: Plan) -> Correction | None:
        """Return a network that brings decoded samples nearer to the values, or None."""
        header, unit, views = coded.header, self._grid(coded.step, FINE)[3], []
        for box, values, stream in zip(self._boxes, self._values, coded.streams, strict=True):
            order = header.frames(values.shape)[0]
            volume = FINE * samples_of(header, stream, values.shape).astype(np.float64)[None]
            wanted = ((values - self._low) * (1 / unit)).astype(np.float32).transpose(order)
            inside = box.inside
            if inside is not None:
                inside = np.broadcast_to(inside, values.shape).transpose(order).reshape(volume.shape[1:])
            views.append(View(volume, wanted.reshape(volume.shape), inside))
        correction = fit(views, plan)
        try:
            correction.network.check()
        except CorruptChunkError:  # its sums are beyond what readers take
            return None
        return correction

    def _tried(self, coded: _Coded, correction: Correction | None) -> Trial:
        """Decode frames as readers do, corrected if so."""
        header = replace(coded.header, correction=correction)
        errors = []
        for box, stream in zip(self._boxes, coded.streams, strict=True):
            samples = samples_of(header, stream, box.core.shape)
            errors.append(box.error(box_of(header, samples, box.core.dtype, box.core.shape)))
        ratio = max(together(self._boxes, errors) / self._rmse, 1e-6)
        payloads = [header.write() + stream for stream in coded.streams]
        return Trial((header.rows, header.columns), coded.quantiser, coded.step, payloads, ratio, correction)


def _values(box: Box) -> npt.NDArray[Any]:
    """Return the values of a box as floats, with something smooth where they are free."""
    kind = np.float32 if box.core.dtype.itemsize <= 2 else np.float64
    return box.core.astype(kind) if box.inside is None else _filled(box.core, box.inside).astype(kind)


def _setting(trial: Trial, slope: float, by_step: float, aim: float, *, keep: bool) -> tuple[int, float] | None:
    """Return quantiser and step whose error is about the one aimed at; `keep` the quantiser if the step can do it."""
    missing = aim - math.log(trial.ratio) + by_step * math.log(trial.step)
    step = _step(missing / by_step)
    if keep and 1 <= step <= _WIDEST:
        return trial.quantiser, step
    # Room to go either way from there.
    quantiser = _clipped(trial.quantiser + math.floor((missing - by_step * math.log(_ROOM)) / slope))
    step = _step((missing - slope * (quantiser - trial.quantiser)) / by_step)
    if step < 1 and quantiser == trial.quantiser == 1:
        return None
    return quantiser, max(step, 1.0)


def _step(logarithm: float) -> float:
    return math.exp(min(logarithm, math.log(_COARSEST)))


def _slopes(one: Trial, other: Trial, slope: float, by_step: float) -> tuple[float, float]:
    """Return what two encodes say of the error's dependence on the quantiser, or on the step."""
    steps, quantisers = math.log(other.step / one.step), other.quantiser - one.quantiser
    change = math.log(other.ratio / one.ratio)
    if quantisers:
        return min(max((change - by_step * steps) / quantisers, 0.02), 0.15), by_step
    if abs(steps) < 0.01:
        return slope, by_step
    return slope, min(max(change / steps, 0.4), 1.0)


def _clipped(quantiser: int) -> int:
    return min(max(quantiser, 1), _QUANTISERS)


def _planes(shape: tuple[int, ...]) -> list[Plane]:
    """Return the pairs of axes that may be rows and columns, without those that are mostly padding."""
    long = [axis for axis, length in enumerate(shape) if length > 1]
    found = []
    for plane in itertools.combinations(long, 2):
        height, width = (max(library.LEAST_SIDE, shape[axis]) for axis in plane)
        part = height * width / math.prod(shape[axis] for axis in plane)
        if (
            part <= _PADDED
            and height * width <= limits.MAX_AV1_PIXELS
            and part * math.prod(shape) <= limits.MAX_AV1_SAMPLES
            and height <= library.MOST_HEIGHT
            and width <= library.MOST_WIDTH
        ):
            found.append(plane)
    return found


def _filled(core: npt.NDArray[Any], inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return the values, and where they are free the mean of those in the smallest block around that has some."""
    weight = np.broadcast_to(inside, core.shape).astype(np.float64)
    total = np.where(inside, core, 0).astype(np.float64)
    pyramid = []
    while True:
        pyramid.append((total, weight))
        if total.size == 1:
            break
        total, weight = _halved(total), _halved(weight)
    out = total / weight
    for total, weight in pyramid[-2::-1]:
        for axis, length in enumerate(total.shape):
            out = out if out.shape[axis] == length else np.repeat(out, 2, axis).take(range(length), axis)
        out = np.divide(total, weight, out=out, where=weight > 0)
    return out


def _halved(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return sums of neighbours, two along each axis."""
    for axis, length in enumerate(values.shape):
        if length > 1:
            values = np.add.reduceat(values, range(0, length, 2), axis)
    return values
