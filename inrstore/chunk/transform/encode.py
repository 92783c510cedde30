"""Boxes -> transform payloads: the step that just keeps a target, for one chunk or several (specification section 14).

One step serves all components and subbands, which is optimal for an orthonormal transform (reverse water-filling);
and it serves all chunks of an image, so that bits go where they save most (equal slope). These share their basis,
weights and correcting network, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from inrstore import limits
from inrstore.chunk.boxes import COPIES, Box, Offer, together
from inrstore.chunk.entropy.bits import Ints
from inrstore.chunk.inloop.correction import Correction
from inrstore.chunk.inloop.fit import WIDE, Plan, View, fit
from inrstore.chunk.linear import product
from inrstore.chunk.task import Task
from inrstore.chunk.transform.analysis import Analysis, Doubles, Part, Singles
from inrstore.chunk.transform.compiled_encode import components_of, outputs, scan, synthesis
from inrstore.chunk.transform.contexts import USUAL
from inrstore.chunk.transform.header import Header, arrangement, kinds_of, name_of
from inrstore.chunk.transform.rdoq import Chooser
from inrstore.chunk.transform.scan import Coefficients
from inrstore.chunk.transform.spectrum import Spectrum
from inrstore.chunk.transform.steps import Steps
from inrstore.chunk.transform.subbands import Triple
from inrstore.chunk.transform.weights import Sampler, fitted, worthwhile
from inrstore.errors import CorruptChunkError
from inrstore.options import Preset

_In = TypeVar("_In")
_Out = TypeVar("_Out")

_COLUMN_BITS = 6.0  # of a number of the basis, about
_LEAST = 256
_AIM, _CLOSE = 0.9992, 0.999  # of the target: the error that is looked for, and one that ends the search
_ENOUGH = 0.9975  # ends it after all rounds; further ones are for what is still farther off
_MORE = 8  # such rounds
_MOST_VALUE = 1 << 22
_PLANS = (Plan(4, 1, 8), Plan(8, 2, 16), Plan(12, 3, 24), Plan(16, 4, 32))
_PLANS_OF_ONE = tuple(Plan(1, 1, units, offsets=WIDE) for units in (8, 16, 32))
_BYTES_PER_WEIGHT, _NETWORK_SHARE = 0.65, 0.08
_COARSER, _CORRECTED, _CLOSER = 1.07, 7, 4
_TRELLIS_BITS, _WIDER = 1 << 15, 1.15  # from which a trellis pays, and how much wider its steps are at the same error
_NEARBY, _FITS = 1.06, 4  # how far a step may be from the one that a network was fitted to, but for so many fits
_BRIEF = 3  # times shorter is the first fit, which only says what step the second one is for
_FITTED_VALUES = 1 << 24  # of the parts that a network is fitted to; more says little more
_SAMPLED = 3  # scans that weights are fitted to; errors of values are looked at from the last one on
_CARRIED = 1.04  # errors of values for those of coefficients, before it is known
_EXPECTED = 0.985, 1.004  # errors that are worth a look at values
_FINER = 0.75  # the step whose components the first scan looks at
_LIFTED = 1.0015  # error that a higher least value may cost
_STAYING = 0.75  # of background at 0: if more would be read as 0, it is not given up for a higher least value
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
    trellis : bool
        Whether there are two quantisers.
    """

    rounds: int = 6
    networks: int = 0
    network_steps: int = 1500
    trellis: bool = False


EFFORTS: dict[Preset, Effort] = {
    "fast": Effort(3), "balanced": Effort(6, 1, 2300, trellis=True),
    "small": Effort(10, 3, 4000, trellis=True),
}  # fmt: skip
"""What presets mean to this mode."""


def bid(task: Task) -> bytes | None:
    """Return the payload of a chunk with a target rmse, or None."""
    found = bids([task])
    return None if found is None else found.payloads[0]


def bids(tasks: Sequence[Task], threads: int = 1, passed: Callable[[], None] | None = None) -> Offer | None:
    """Return what keeps one target rmse for chunks together, or None.

    Parameters
    ----------
    tasks : sequence of Task
        With the same target, options and kind of values.
    threads : int
        Chunks that are worked on at a time; it changes no bytes.
    passed : callable, optional
        Called each time that all have been coded.
    """
    first = tasks[0]
    rmse, options = first.target.rmse, first.options
    if rmse is None or options.strict or first.chunk.dtype.kind not in "iuf":
        return None
    effort = EFFORTS[options.preset]
    if options.mode == "transform":
        effort = replace(effort, networks=0)
    coded = encode([task.box for task in tasks], first.channel_axis, first.scales, rmse, effort, threads, passed)
    if coded is None:
        return None
    sealed = [t.sealed(payload, split=True) for t, payload in zip(tasks, coded.payloads, strict=True)]
    return replace(coded, payloads=sealed)


def encode(boxes: Sequence[Box], channel_axis: int | None, scale: Doubles, rmse: float, effort: Effort | None = None,
           threads: int = 1, passed: Callable[[], None] | None = None) -> Offer | None:  # fmt: skip
    """Return the smallest payloads, after the envelope, whose error is at most `rmse` over all boxes, or None.

    Parameters
    ----------
    boxes : sequence of Box
        Of one dtype.
    channel_axis : int or None
        Axis of measurements.
    scale : ndarray of float64, shape (measurements,) or (1,)
        Errors of each measurement are divided by it.
    rmse : float
        In the units of the errors of boxes.
    effort : Effort, optional
    threads : int
        Boxes worked on at a time.
    passed : callable, optional
        Called each time that all have been coded.
    """
    for box in boxes:
        measurements = arrangement(box.core.shape, channel_axis)[0]
        if (
            not _LEAST <= box.core.size <= limits.MAX_TRANSFORM_VALUES
            or measurements > limits.MAX_TRANSFORM_COMPONENTS
            or box.core.dtype.kind not in "iuf"
        ):
            return None
    effort = effort or Effort()
    analysis = Analysis(boxes, channel_axis, scale, rmse, _PLANS[-1].leading if effort.networks else 0)
    if not analysis.parts:
        return None
    with ThreadPoolExecutor(max(1, min(threads, len(boxes)))) as pool:
        return _Search(analysis, rmse, pool if len(boxes) > 1 and threads > 1 else None, passed).run(effort)


class _TooLargeError(Exception):
    """A coefficient is larger than the format holds."""


@dataclass(frozen=True)
class _Settings:
    """What the coefficients of a scan are chosen with."""

    step: float
    weights: Ints
    biases: tuple[int, int]
    most: Ints
    trellis: bool


@dataclass(frozen=True)
class _Coded:
    """One part, its coefficients chosen."""

    part: Part
    active: Ints
    coefficients: Coefficients
    chooser: Chooser
    sampler: Sampler | None


@dataclass(frozen=True)
class _Plain:
    """What was found without a network."""

    offer: Offer
    settings: _Settings
    error: float
    components: int


class _Search:
    """What is known of the step so far."""

    def __init__(self, analysis: Analysis, rmse: float, pool: ThreadPoolExecutor | None,
                 passed: Callable[[], None] | None) -> None:  # fmt: skip
        self._analysis, self._target, self._pool = analysis, rmse, pool
        self._passed = passed or (lambda: None)
        self._parts, self._levels = analysis.parts, analysis.levels
        column = _COLUMN_BITS * analysis.measurements if analysis.measurements > 1 else 0.0
        self._spectrum = Spectrum(self._parts[0].subbands, [p.coefficients for p in self._parts], column)

    def _each(self, function: Callable[[_In], _Out], items: Sequence[_In]) -> list[_Out]:
        """Return what a function makes of each item, in order, several at a time."""
        return [function(i) for i in items] if self._pool is None else list(self._pool.map(function, items))

    def run(self, effort: Effort) -> Offer | None:
        """Return the smallest payloads found that keep the target, with a correcting network where that pays."""
        plain = self._plain(effort)
        if plain is None:
            return None
        best = plain.offer
        for plan in self._plans(plain, effort):
            found = self._corrected(plain, plan)
            if found is not None and found.size < best.size:
                best = found
        return best

    def _plans(self, plain: _Plain, effort: Effort) -> list[Plan]:
        """Return the sizes of networks whose bytes the chunks may earn back, the likeliest first."""
        found: list[Plan] = []
        if all(p.positions is not None and not p.positions.any() for p in self._parts):
            return found  # nowhere are all measurements known
        for plan in _PLANS if self._analysis.measurements > 1 else _PLANS_OF_ONE:
            plan = replace(plan.within(plain.components, self._parts[0].lengths), steps=effort.network_steps)
            copies = min(len(self._parts), COPIES)
            if _BYTES_PER_WEIGHT * plan.parameters * copies < _NETWORK_SHARE * plain.offer.size:
                found.append(plan)
        return found[::-1][: effort.networks]

    def _corrected(self, plain: _Plain, plan: Plan) -> Offer | None:
        """Return the payloads of a coarser step whose components a network brings nearer to the true ones."""
        settings, best = replace(plain.settings, step=plain.settings.step * _COARSER), None
        kept: tuple[_Settings, float, Correction, Steps] | None = None
        correction, fitted_at, fits, steps = None, 0.0, 0, Steps()
        for attempt in range(_CORRECTED):
            step = settings.step
            far = correction is not None and max(step / fitted_at, fitted_at / step) > _NEARBY and fits < _FITS
            if attempt == 1 or far:  # fitted again, at first for longer, to what will be read
                correction, steps = None, Steps()
            coded = self._code(settings, sample=False)
            headers = None if coded is None else self._headers(settings, coded)
            if coded is None or headers is None or headers[0].basis.shape[1] < plan.leading:
                break
            try:
                if correction is None:
                    brief = replace(plan, steps=plan.steps // _BRIEF) if attempt == 0 else plan
                    correction, fitted_at, fits = self._fitted(step, coded, headers, brief), step, fits + 1
                    correction.network.check()
                ratio = self._error(coded, headers, correction)
            except CorruptChunkError:
                break
            steps.watch(step, ratio)
            steps.add(step, ratio)
            if ratio <= 1:
                offer = _offer(coded, [replace(h, correction=correction) for h in headers])
                if best is None or offer.size < best.size:
                    best, kept = offer, (settings, ratio, correction, steps)
                if ratio >= _ENOUGH:
                    break
            if steps.narrow:
                break
            following = steps.following(step, ratio, self._spectrum.slope(step, settings.most), _AIM)
            if best is None and following <= plain.settings.step:
                break
            if attempt == 0:
                size = sum(len(p) for p in _offer(coded, headers).payloads)
                before = sum(len(p) for p in plain.offer.payloads)
                falling = math.log(size / before) / math.log(step / plain.settings.step)
                if size * (following / step) ** falling + len(correction.write()) > before:
                    break  # about what it would take: not worth the second fit
            settings = replace(settings, step=following)
            del coded, headers
        return best if best is None or kept is None else self._closer(best, *kept)

    def _closer(self, best: Offer, settings: _Settings, ratio: float, correction: Correction, steps: Steps) -> Offer:
        """Go on with the network of an offer where those fitted after it have led away from the target."""
        for _ in range(_CLOSER):
            if _ENOUGH <= ratio <= 1 or steps.narrow:
                break
            slope = self._spectrum.slope(settings.step, settings.most)
            settings = replace(settings, step=steps.following(settings.step, ratio, slope, _AIM))
            coded = self._code(settings, sample=False)
            headers = None if coded is None else self._headers(settings, coded)
            if coded is None or headers is None:
                break
            try:
                ratio = self._error(coded, headers, correction)
            except CorruptChunkError:
                break
            steps.watch(settings.step, ratio)
            steps.add(settings.step, ratio)
            if ratio <= 1:
                offer = _offer(coded, [replace(h, correction=correction) for h in headers])
                best = min(best, offer, key=lambda one: one.size)
        return best

    def _fitted(self, step: float, coded: Sequence[_Coded], headers: Sequence[Header], plan: Plan) -> Correction:
        """Return a network fitted to some parts, evenly spread."""
        some = max(1, _FITTED_VALUES // max(c.part.box.core.size for c in coded))
        every = -(-len(coded) // some)
        pairs = list(zip(coded, headers, strict=True))[every // 2 :: every]
        return fit([self._view(step, c, header, plan.leading) for c, header in pairs], plan)

    def _view(self, step: float, coded: _Coded, header: Header, leading: int) -> View:
        """Return the leading components of a part, decoded and as they should be."""
        part = coded.part
        volumes = components_of(header, part.lengths, part.subbands, coded.coefficients)
        return View(volumes[:leading].copy(), self._analysis.wanted(part, step, leading), part.positions)

    def _error(self, coded: Sequence[_Coded], headers: Sequence[Header], correction: Correction | None) -> float:
        """Return the error of all values in targets, as readers decode them."""

        def one(pair: tuple[_Coded, Header]) -> float:
            (c, header), box = pair, pair[0].part.box
            where = header, c.part.lengths, c.part.subbands, c.coefficients
            if correction is None:
                decoded = synthesis(*where, box.core.dtype, box.core.shape)
            else:
                volumes = components_of(*where)
                correction.apply(volumes)
                decoded = outputs(header, volumes, box.core.dtype, box.core.shape)
                del volumes
            return box.error(decoded)

        errors = self._each(one, list(zip(coded, headers, strict=True)))
        return together([part.box for part in self._parts], errors) / self._target

    def _plain(self, effort: Effort) -> _Plain | None:
        """Search the step; return the fewest bytes found that keep the target."""
        step = chosen_at = self._spectrum.first_step(1.0)
        usual = USUAL[: kinds_of(self._levels)].copy()
        settings = _Settings(step, usual, (0, 0), self._spectrum.worthwhile(step * _FINER), trellis=False)
        best: _Plain | None = None
        steps = Steps()
        carried, misses, renewed = _CARRIED, 0, False
        for attempt in range(effort.rounds + _MORE):
            step = settings.step
            moved = max(step / chosen_at, chosen_at / step)
            released = attempt < _SAMPLED + _RELEASED or best is None
            if 0 < attempt < _SAMPLED or (released and moved > _NEAR):
                # Near the end they stay, so that the error follows the step smoothly.
                settings, chosen_at = replace(settings, most=self._spectrum.worthwhile(step)), step
                steps = Steps()
            coded = self._code(settings, sample=attempt < _SAMPLED)
            headers = None if coded is None else self._headers(settings, coded)
            if coded is None or headers is None:
                return best
            found = self._left(coded, step)
            steps.watch(step, found)
            ratio = found * carried  # errors of values take longer
            wanted = attempt > effort.rounds or _EXPECTED[0] < ratio < _EXPECTED[1]
            if attempt == _SAMPLED - 1 or (attempt >= _SAMPLED and wanted):
                try:
                    if attempt == _SAMPLED - 1 and self._lift(coded, headers):
                        headers = [replace(header, low=self._analysis.low) for header in headers]
                    ratio = self._error(coded, headers, None)
                except CorruptChunkError:
                    return best
                carried = ratio / found if found else 1.0
                steps.add(step, ratio)
                misses += ratio > 1 and attempt >= _SAMPLED
                if ratio <= 1 and (best is None or ratio > best.error):
                    made = _Plain(_offer(coded, headers), settings, ratio, headers[0].basis.shape[1])
                    if best is None or made.offer.size < best.offer.size:
                        best = made
                if steps.narrow and settings.trellis and not renewed and best is not None and best.error < _ENOUGH:
                    # Errors of paths differ by chance: one beside may end nearer to the target.
                    steps, renewed = Steps(), True
                if best is not None and (
                    best.error >= _CLOSE
                    or (attempt >= effort.rounds and best.error >= _ENOUGH)
                    or steps.narrow
                    or not any(header.active.any() for header in headers)
                ):
                    return best
            if attempt < _SAMPLED:
                samplers = [c.sampler for c in coded if c.sampler is not None]
                weights = fitted(samplers, kinds_of(self._levels))
                if attempt == _SAMPLED - 1:
                    weights = worthwhile(samplers, weights)
                settings = replace(settings, biases=_biases([c.chooser for c in coded]), weights=weights)
                self._spectrum.learn(step, _worth([c.chooser for c in coded], self._analysis.measurements))
            aim = _AIM if best is not None else 1 - (1 - _AIM) * 2**misses
            settings = replace(
                settings, step=steps.following(step, ratio, self._spectrum.slope(step, settings.most), aim)
            )
            if attempt == 0 and effort.trellis and sum(c.chooser.bits() for c in coded) > _TRELLIS_BITS:
                settings = replace(settings, step=settings.step * _WIDER, trellis=True)
            del coded, headers  # before as much is made again
        return best

    def _lift(self, coded: Sequence[_Coded], headers: Sequence[Header]) -> bool:
        """Raise the least value that readers give from 0 to the least positive one, where that helps: say whether.

        A signal that falls to 0 or below has no logarithm, which a model of diffusion takes. It pays where that happens
        to bright voxels, and background that was 0 in all measurements does not come back as such anyway.
        """
        found = self._analysis
        if found.measurements < 2 or found.low != 0 or found.exponent is None:
            return False
        cores = [part.box.core for part in self._parts]
        least = min(float(np.min(core, where=core > 0, initial=core.max())) for core in cores)
        low = max(1, math.ceil(math.ldexp(least, -found.exponent)))
        if low > found.high:
            return False

        def one(pair: tuple[_Coded, Header]) -> tuple[float, ...]:
            (c, header), box, axis = pair, pair[0].part.box, found.axis
            decoded = synthesis(header, c.part.lengths, c.part.subbands, c.coefficients, box.core.dtype, box.core.shape)
            empty, gone = ((values == 0).all(axis, keepdims=True) for values in (box.core, decoded))
            if box.inside is not None:
                empty &= box.inside.all(axis, keepdims=True)
            mean = box.core.mean(axis, keepdims=True, dtype=np.float64)
            fell = (box.core > 0) & (decoded == 0) & (mean > mean.mean())
            before = box.error(decoded)
            np.maximum(decoded, decoded.dtype.type(low * found.grain), out=decoded)
            return fell.any(), empty.sum(), (empty & gone).sum(), before, box.error(decoded)

        fell, empty, kept, *errors = zip(*self._each(one, list(zip(coded, headers, strict=True))), strict=True)
        before, after = (together([part.box for part in self._parts], each) for each in errors)
        if not any(fell) or sum(kept) > _STAYING * sum(empty) or after > _LIFTED * before:
            return False
        found.low = low
        return True

    def _left(self, coded: Sequence[_Coded], step: float) -> float:
        """Return the error of coefficients in targets."""
        left = 0.0
        for c in coded:
            beyond = np.arange(c.part.energy.shape[1]) >= c.active[:, None]
            left += float(c.part.energy[beyond].sum()) + step * step * c.chooser.left
        return math.sqrt(left / self._analysis.size)

    def _code(self, settings: _Settings, *, sample: bool) -> list[_Coded] | None:
        """Choose all coefficients for a step; None where the format cannot hold them."""
        made = self._analysis.basis(settings.step)
        if made is None:
            return None
        turn = made[-1]
        self._passed()
        try:
            return self._each(lambda part: self._chosen(part, settings, turn, sample), self._parts)
        except _TooLargeError:
            return None

    def _chosen(self, part: Part, settings: _Settings, turn: Singles | None, sample: bool) -> _Coded:
        """Choose the coefficients of a part, of so many components of each subband at most."""
        scaled: dict[tuple[int, Triple], Singles] = {}  # of the subband that is coded; all would be a second image
        active = np.zeros(len(part.subbands), np.int64)
        most = np.minimum(settings.most, math.prod(part.lengths))  # more components than positions say nothing

        def scale_each() -> Iterator[int]:
            for number, subband in enumerate(part.subbands):
                scaled.clear()
                place = subband.level, subband.key
                values = part.coefficients[place]
                if not most[number]:
                    scaled[place] = values[:0]
                    yield 0
                    continue
                flat = values.reshape(len(values), -1)
                turned = flat[: most[number]] if turn is None else product(turn[: most[number]], flat)
                whole = (turned * np.float32(1 / settings.step)).reshape(-1, *values.shape[1:])
                largest = np.abs(whole).max(axis=(1, 2, 3), initial=0)
                if largest.max(initial=0) > _MOST_VALUE:
                    raise _TooLargeError
                active[number] = int((largest >= 0.5).nonzero()[0].max(initial=-1)) + 1
                scaled[place] = whole[: active[number]]
                yield active[number]

        chooser = Chooser(part.subbands, scaled, trellis=settings.trellis)
        sampler = Sampler(len(self._parts)) if sample else None
        coefficients = scan(part.subbands, scale_each(), self._levels, settings.weights, chooser, sampler)
        return _Coded(part, active, coefficients, chooser, sampler)

    def _headers(self, settings: _Settings, coded: Sequence[_Coded]) -> list[Header] | None:
        """Return the header of each part; they differ in `active` alone."""
        found = self._analysis
        made = found.basis(settings.step)
        if made is None or found.exponent is None:
            return None
        basis, shifts, gains, shift, _ = made
        components = max(1, *(int(c.active.max()) for c in coded))
        offset_shift = max(0, math.floor(math.log2(0.03 * float(found.scale.min()) / found.grain)) + shift)
        offset_shift = min(offset_shift, shift)
        offsets = np.rint(found.mean / found.grain * 2.0 ** (shift - offset_shift)).astype(np.int64)
        header = Header(found.axis, self._levels, settings.biases, shift, offset_shift, found.exponent, found.low,
                        found.high, gains, offsets, shifts[:components], basis[:, :components], coded[0].active,
                        settings.weights, trellis=settings.trellis)  # fmt: skip
        return [replace(header, active=c.active) for c in coded]


def _offer(coded: Sequence[_Coded], headers: Sequence[Header]) -> Offer:
    """Return the payloads, and what they share where that is smaller."""
    streams = [c.chooser.streams(c.coefficients) for c in coded]
    own = Offer([header.write() + stream for header, stream in zip(headers, streams, strict=True)])
    if len(coded) < COPIES:
        return own
    parameter = headers[0].parameter()
    name = name_of(parameter)
    other = Offer([h.write(name) + stream for h, stream in zip(headers, streams, strict=True)], parameter)
    return other if other.size < own.size and len(parameter) <= limits.MAX_SHARED_BYTES else own


def _worth(choosers: Sequence[Chooser], components: int) -> dict[int, Doubles]:
    """Return what each component of each subband saves in all parts, less its bits."""
    out: dict[int, Doubles] = {}
    for number in {n for c in choosers for n in c.worth}:
        each = [c.worth[number] for c in choosers if number in c.worth]
        total = np.zeros(min(components, max(map(len, each))))
        for one in each:
            total[: len(one)] += one
        out[number] = total
    return out


def _biases(choosers: Sequence[Chooser]) -> tuple[int, int]:
    """Return how far magnitudes of 1, and larger ones, should be raised, in 1/128."""
    count, low = np.sum([c.excess for c in choosers], axis=0)
    first, rest = (np.clip(np.rint(128 * low / np.maximum(count, 1)), -60, 60) * (count > 20)).astype(int)
    return int(first), int(rest)
