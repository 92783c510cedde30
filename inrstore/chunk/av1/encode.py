"""Values -> av1 payloads: the axis, quantiser and step that just keep a target (specification section 15)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.chunk import envelope, quality
from inrstore.chunk.av1 import library
from inrstore.chunk.av1.decode import LEVELS, MOST_OFFSET, MOST_SHIFT, Header, decode
from inrstore.chunk.frame import Reader
from inrstore.chunk.outputs import bounds, exponent_of, fits
from inrstore.chunk.task import Task
from inrstore.errors import CorruptChunkError
from inrstore.options import Preset, available_cores

Plane = tuple[int, int]
Error = Callable[[npt.NDArray[Any]], float]

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
    """

    quick: int = 7
    final: int = 1
    finals: int = 5


EFFORTS: dict[Preset, Effort] = {"fast": Effort(7, 6), "balanced": Effort(7, 1), "small": Effort(7, 0, 6)}
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
    payload : bytes
    ratio : float
        Error over target.
    """

    plane: Plane
    quantiser: int
    step: float
    payload: bytes
    ratio: float

    @property
    def cost(self) -> float:
        """Logarithm of the bytes that it would take to meet the target so."""
        return math.log(len(self.payload)) + _BYTES_BY_ERROR * math.log(self.ratio)


def bid(task: Task) -> bytes | None:
    """Return the payload of a chunk of one channel with a target rmse, or None."""
    rmse, options = task.target.rmse, task.options
    if rmse is None or options.mode not in ("auto", "av1") or task.chunk.dtype.kind not in "iuf":
        return None
    if options.mode == "auto" and not library.is_installed():
        return None
    core, around = task.split
    axis = task.channel_axis
    if axis is not None and core.shape[axis] > 1:
        return None

    def error(decoded: npt.NDArray[Any]) -> float:
        rebuilt = envelope.join(decoded, around, task.chunk.shape)
        return quality.rmse(task.values, rebuilt, task.target, around.box, around.mask) / rmse

    try:
        coded = encode(core, around.mask, rmse * float(task.scales[0]), error, EFFORTS[options.preset], options.threads)
    except CorruptChunkError:  # another release of the encoder may use what section 15.2 forbids
        return None
    return None if coded is None else task.sealed(coded, split=True)


def encode(core: npt.NDArray[Any], inside: npt.NDArray[np.bool_] | None, rmse: float, error: Error,
           effort: Effort | None = None, threads: int = 0) -> bytes | None:  # fmt: skip
    """Return the payload after the envelope whose error is just below the target, or None.

    Parameters
    ----------
    core : ndarray
        Finite values.
    inside : ndarray of bool or None
        Values elsewhere are free; broadcasts to the core.
    rmse : float
        In stored units.
    error : callable
        Returns the error of decoded values, shape of `core`, over the target.
    effort : Effort, optional
    threads : int, optional
        Of the encoder; 0 takes the cores available.
    """
    planes = _planes(core.shape)
    exponent = exponent_of(core, rmse)
    if exponent is None or not planes or core.size < _LEAST or not fits(*bounds(core, exponent)):
        return None
    search = _Search(core, inside, exponent, error, threads or available_cores())
    if not rmse >= _FINEST * search.finest > 0:
        return None
    return search.run(planes, rmse, effort or Effort())


class _Search:
    """One chunk as samples, and encodes of it."""

    def __init__(self, core: npt.NDArray[Any], inside: npt.NDArray[np.bool_] | None, exponent: int, error: Error,
                 threads: int) -> None:  # fmt: skip
        self._core, self._exponent, self._error, self._threads = core, exponent, error, threads
        kind = np.float32 if core.dtype.itemsize <= 2 else np.float64
        self._values: npt.NDArray[Any] = core.astype(kind) if inside is None else _filled(core, inside).astype(kind)
        self._low = float(self._values.min())
        self.finest = (float(self._values.max()) - self._low) / (LEVELS - 1)

    def run(self, planes: Sequence[Plane], rmse: float, effort: Effort) -> bytes | None:
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
        best, aim, last, by_step = None, math.log(_AIM), look, _BY_STEP
        for number in range(effort.finals):
            setting = _setting(last, slope, by_step, aim, keep=number > 0)
            if setting is None:
                break
            trial = self._encode(look.plane, *setting, effort.final)
            if trial.ratio <= 1 and (best is None or len(trial.payload) < len(best)):
                best = trial.payload
            if _CLOSE <= trial.ratio <= 1:
                break
            if number > 0:
                slope, by_step = _slopes(last, trial, slope, by_step)
            last, aim = trial, aim - 0.001 * (trial.ratio > 1)
        return best

    def _encode(self, plane: Plane, quantiser: int, step: float, preset: int) -> Trial:
        """Encode all frames, and decode them as readers do."""
        grain = 2.0**self._exponent
        wanted = step * self.finest / grain
        far = max(abs(self._low) / grain, 1.0)  # from 0
        shift = math.floor(min(math.log2(_GAIN / wanted), math.log2(MOST_OFFSET / 2 / far)))
        shift = min(max(shift, 1), MOST_SHIFT)
        gain, offset = max(1, round(wanted * 2.0**shift)), round(self._low / grain * 2.0**shift)
        low, high = bounds(self._core, self._exponent)
        header = Header(*plane, shift, self._exponent, low, high, gain, offset)
        order, count, height, width = header.frames(self._core.shape)
        samples = np.rint((self._values - self._low) * (1 / (gain * 2.0**-shift * grain)))
        samples = np.clip(samples, 0, LEVELS - 1).astype(np.uint16).transpose(order)
        samples = samples.reshape(count, *samples.shape[-2:])
        beyond = [(0, 0), (0, height - samples.shape[1]), (0, width - samples.shape[2])]
        stream = library.encode(np.pad(samples, beyond, "edge"), quantiser, preset, self._threads)
        payload = header.write() + stream
        decoded = decode(Reader(memoryview(payload)), self._core.dtype, self._core.shape)
        return Trial(plane, quantiser, step, payload, max(self._error(decoded), 1e-6))


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
