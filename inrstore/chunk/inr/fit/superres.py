"""Chunks -> coarse images and what refines them (specification section 17): two networks, fitted together.

First the network of the place alone, to the image on the coarse grid; then both, to patches of the fine grid; then
both with weights and outputs rounded as readers have them. Lanczos with SRDenseNet is the system of Sheibanifard
and Yu (2023), Fourier with SRNO that of Sheibanifard et al. (2025).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from inrstore.chunk import envelope, outputs
from inrstore.chunk.fit_task import FitTask
from inrstore.chunk.inr.fit.activations import ACTIVATIONS
from inrstore.chunk.inr.fit.data import Batch, Measurements, prepare
from inrstore.chunk.inr.fit.networks import Networks, initialise, uniform
from inrstore.chunk.inr.fit.quantise import Quantiser, equal_slope_steps, finest_steps, to_format
from inrstore.chunk.inr.fit.recipe import RATE
from inrstore.chunk.inr.fit.refiner import UNIT, RefinerModel, place
from inrstore.chunk.inr.fit.search import RATE_WIDTH, _use_one_thread, choose_device
from inrstore.chunk.inr.fit.trainer import WORSE, Schedule, Trainer
from inrstore.chunk.inr.network import pack_gain, unpack_gain
from inrstore.chunk.superres.decode import MAX_SHIFT, Payload, coarse_image, volume_of
from inrstore.chunk.superres.evaluate import Evaluator, Inputs
from inrstore.chunk.superres.network import Lengths, Refiner
from inrstore.chunk.superres.systems import System, system_of
from inrstore.errors import ConfigurationError, LimitExceededError
from inrstore.limits import EXACT_SUM
from inrstore.options import EncodeOptions, Network, Preset, Progress, ProgressCallback, available_cores

_log = logging.getLogger(__name__)

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Effort:
    """Optimiser steps: of the network of the place alone, of both, and of both with rounding."""

    coarse: int
    joint: int
    rounding: int


EFFORTS: dict[Preset, Effort] = {
    "fast": Effort(coarse=1000, joint=600, rounding=300),
    "balanced": Effort(coarse=2000, joint=2500, rounding=1000),
    "small": Effort(coarse=4000, joint=8000, rounding=3000),
    "paper": Effort(coarse=2000, joint=5000, rounding=2000),
}
LAYERS, UNITS, OMEGA_0 = 4, 48, 20.0
"""Of the network of the place, if nothing else is asked for."""
JOINT_RATE, REFINER_RATE = 1e-2, 4e-3
BETA_1, BETA_2, CLIP = 0.9, 0.99, 1.0
ROUNDED = 0.15
"""What rounding the weights of the network of the place may add to the mean square error, before it is learnt away."""
_LOOKS = 8
"""Looks at the error in a phase; the best that is seen is kept."""
_MANY, _FEW = 4, 2
"""Patches in a step, in two dimensions and in three."""
_MEASUREMENTS = 4
"""Measurements that the refining network sees in a step."""
_LARGE, _SMALL = 64, 16
"""Fine positions along an axis of a patch in two dimensions, and in three."""
_POINTS = 1 << 14
_GAIN_BITS, _SUM_BITS = 26.9, 51.9


def fit_payloads(
    problems: Sequence[FitTask], network: Network, options: EncodeOptions, given: Refiner | None,
    progress: ProgressCallback | None = None,
) -> Iterator[tuple[FitTask, Payload | None]]:  # fmt: skip
    """Fit both networks to each chunk, or with a given refining network the other one.

    Parameters
    ----------
    problems : sequence of FitTask
    network : Network
        Which system, and how large.
    options : EncodeOptions
    given : Refiner, optional
        Shared: it stays as it is.
    progress : callable, optional

    Yields
    ------
    problem : FitTask
    payload : Payload or None
        None where the format does not hold the numbers.
    """
    device = choose_device(options)
    workers = 1 if device.type == "cuda" else max(1, min(options.threads or available_cores(), len(problems)))

    def fit(problem: FitTask) -> Payload | None:
        return _Fit(problem, network, options, given, device).run()

    with ThreadPoolExecutor(workers, initializer=None if device.type == "cuda" else _use_one_thread) as pool:
        fits = [pool.submit(fit, problem) for problem in problems]
        try:
            for done, (problem, made) in enumerate(zip(problems, fits, strict=True)):
                payload = made.result()
                if progress is not None:
                    progress(Progress(chunks_done=done, chunks_total=len(fits), fraction=(done + 0.99) / len(fits),
                                      rmse=None, stage="fitting two networks"))  # fmt: skip
                yield problem, payload
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def train_shared(
    images: Sequence[npt.NDArray[Any]], network: Network, options: EncodeOptions | None = None,
    report: Callable[[int, float], None] | None = None,
) -> bytes:  # fmt: skip
    """Train a refining network for many chunks and return the bytes of its shared parameter.

    Parameters
    ----------
    images : sequence of ndarray, shape (slices, rows, columns)
        Finite. Each is made coarse as the system says, and the network learns to undo that.
    network : Network
        Of a system with a refining network; `steps` counts all.
    options : EncodeOptions, optional
        Preset, device and seed.
    report : callable, optional
        Called with the step and the loss now and then.

    Returns
    -------
    bytes
        For `shared` of a codec configuration.

    Raises
    ------
    ConfigurationError
        The system has no refining network, or an image is not of three axes.
    """
    options = options or EncodeOptions()
    device = choose_device(options)
    with ThreadPoolExecutor(1, initializer=None if device.type == "cuda" else _use_one_thread) as pool:
        return pool.submit(_train_shared, images, network, options, report, device).result()


def _train_shared(images: Sequence[npt.NDArray[Any]], network: Network, options: EncodeOptions,
                  report: Callable[[int, float], None] | None, device: torch.device) -> bytes:  # fmt: skip
    if any(image.ndim != 3 for image in images) or not images:
        raise ConfigurationError("images to train a refining network with have slices, rows and columns")
    random = np.random.default_rng(options.seed)
    system = system_of(network, 3, tuple(min(image.shape[axis] for image in images) for axis in range(3)))
    model = RefinerModel(system.plan, system.reach, system.scales, options.seed, device)
    patches = []
    for image in images:
        coarse = system.coarse(image)
        mean, deviation = float(coarse.mean()), float(coarse.std()) or 1.0
        fine, weights = _fine((image.astype(np.float64) - mean)[None] / deviation, None, system)
        whole = torch.from_numpy((coarse - mean) / deviation).float().to(device)
        patches.append((_Patches(fine.to(device), weights.to(device), system, model.halo), whole))
    effort = EFFORTS[options.preset]
    steps = network.steps or effort.joint + effort.rounding
    optimiser = torch.optim.Adam(model.tensors, lr=REFINER_RATE, betas=(BETA_1, BETA_2))
    shares = np.array([image.size for image in images], np.float64)
    for step in range(steps):
        if step == steps * 2 // 3:
            model.round()
        optimiser.param_groups[0]["lr"] = REFINER_RATE * _shape(step, steps)
        from_image, whole = patches[int(random.choice(len(images), p=shares / shares.sum()))]
        drawn = from_image.draw(random)
        made, added = model(torch.stack([whole[cut] for cut in drawn.cuts]), drawn.places)
        loss = system.loss(made + added - drawn.fine[:, 0], drawn.weights[:, 0])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.tensors, CLIP)
        optimiser.step()
        if report is not None and step % 100 == 0:
            report(step, float(loss.detach()))
    return model.refiner().data


# ---- one chunk ---------------------------------------------------------------------------------------------


class _Fit:
    """Both networks of one chunk."""

    def __init__(self, problem: FitTask, network: Network, options: EncodeOptions, given: Refiner | None,
                 device: torch.device) -> None:  # fmt: skip
        self.problem, self.network, self.device = problem, network, device
        axis = problem.channel_axis
        core = problem.core[None] if axis is None else np.moveaxis(problem.core, axis, 0)
        self.lengths = list(core.shape[1:])
        self.volume = volume_of(self.lengths)
        self.system = system_of(network, len(self.lengths), self.volume)
        if given is not None:
            self.system = replace(self.system, plan=given.plan, reach=given.reach, scales=given.scales)
        self.given = given
        self.core = core.reshape(-1, *self.volume)
        self.inside = self._inside()
        self.effort = _scaled(EFFORTS[options.preset], network.steps)
        coarse = np.stack([self.system.coarse(one) for one in self.core])
        self.coarse_lengths: Lengths = coarse.shape[1:]
        self.item = self._coarse_item(coarse)
        self.deviations = coarse.reshape(len(coarse), -1).std(1)
        self.deviations[self.deviations <= 0] = float(self.item.unit.max())
        self.batch = Batch([self.item], device)
        self.seed = self.item.seed ^ options.seed

    def run(self) -> Payload | None:
        """Return what the payload holds."""
        item, system = self.item, self.system
        networks = self._coarse_network()
        if self.given is None:
            model = RefinerModel(system.plan, system.reach, system.scales, self.seed, self.device)
        else:
            model = RefinerModel.of(self.given, self._gain_of_given(self.given), self.device)
        shaped = [n for a, n in enumerate(self.volume) if a >= 3 - len(self.lengths)]
        _log.info("chunk of %s: %s, %s", shaped, system, self.effort)
        floats = [(torch.from_numpy(core) - m) / u for core, m, u in zip(self.core.astype(np.float64), item.mean,
                                                                           item.unit, strict=True)]  # fmt: skip
        fine, weights = _fine(torch.stack(floats).numpy(), self.inside, system)
        patches = _Patches(fine.to(self.device), weights.to(self.device), system, model.halo)
        loop = _Loop(self, networks, model, patches)
        loop.train(self.effort.joint, 1.0)
        error = loop.error()
        _log.info("float: relative mean square error %s", error)
        own = self._own_outputs(loop.networks)
        own.noise[:] = max(ROUNDED * error, 1e-12)
        spread = float((item.unit / item.problem.scale).min())
        reached = replace(item.problem.target, rmse=max(spread * math.sqrt(error), 1e-30))
        self.item = replace(item, problem=replace(item.problem, target=reached))  # as fine are numbers counted
        probe = (torch.arange(min(16384, len(item.values)), device=self.device) + 0.5) / min(16384, len(item.values))
        base, floor = equal_slope_steps(own, loop.networks, probe), finest_steps(loop.networks)
        loop.quantiser = Quantiser(base, torch.ones(1, device=self.device), floor)
        if self.given is None:
            model.round()
        loop.train(self.effort.rounding, 0.3)
        return self._payload(loop.networks, loop.quantiser.steps[0], self.given or model.refiner())

    # ---- the coarse image ----------------------------------------------------------------------------------

    def _coarse_item(self, coarse: Doubles) -> Measurements:
        """Return the coarse image as something to fit."""
        core = self.problem.core
        if core.dtype.kind in "iu":
            coarse = np.rint(coarse).astype(np.int64)
        shape = (len(coarse), *coarse.shape[4 - len(self.lengths) :])
        coarse = coarse.reshape(shape if self.problem.channel_axis is not None else shape[1:])
        axis = None if self.problem.channel_axis is None else 0
        target = replace(self.problem.target, channel_axis=axis)
        return prepare(replace(self.problem, core=coarse, envelope=envelope.whole(coarse.shape), channel_axis=axis,
                               target=target))  # fmt: skip

    def _coarse_network(self) -> Networks:
        """Return a network of the place that gives the coarse image."""
        network, item = self.network, self.item
        width = network.units or UNITS
        size = uniform(("sine",) * (network.layers or LAYERS), width)
        omega_0 = network.omega_0 or OMEGA_0
        made = initialise(size, *item.key, omega_0, [self.seed], self.device)
        rate = (network.rate or RATE) * min(1.0, RATE_WIDTH / width)
        schedule = Schedule(steps=self.effort.coarse, samples=min(4096, len(item.values)), rate=rate,
                            warm_up=min(50, 1 + self.effort.coarse // 5),
                            check_every=max(20, self.effort.coarse // 20))  # fmt: skip
        trainer = Trainer(self.batch, made, schedule, omega_0)
        trainer.run()
        return trainer.kept

    @torch.no_grad()
    def _own_outputs(self, networks: Networks) -> Batch:
        """Return the coarse image that a network gives, from which disturbed weights lead away.

        That is not the one that it was fitted to at first, so that disturbing them may lead nearer to that.
        """
        own = Batch([self.item], self.device)
        for begin in range(0, own.values.shape[1], _POINTS):
            block = slice(begin, begin + _POINTS)
            own.values[:, block] = networks(own.coordinates[:, block])
        return own

    # ---- into the format -----------------------------------------------------------------------------------

    def _payload(self, networks: Networks, steps: Tensor, refiner: Refiner) -> Payload | None:
        """Return the payload of rounded networks, or None where their numbers do not fit the format."""
        made = to_format(self.item, networks, 0, steps.double().cpu().numpy())
        if made is None:
            return None
        low, high = outputs.bounds(self.problem.core, made.exponent)
        units = self._units(low, high, made.exponent)
        if units is None or not outputs.fits(low, high):
            return None
        centres, gains, shift = units
        nothing = np.zeros(len(centres), np.int64)
        payload = Payload(self.problem.channel_axis, made.exponent, low, high, refiner, self.given is not None, shift,
                          1, centres, gains, nothing, made.network)  # fmt: skip
        try:
            refiner.check_cost(self.volume)
        except LimitExceededError:
            return None
        ratios = self._refinements(refiner, coarse_image(payload, self.lengths), centres, gains, shift, made.exponent)
        most = float(ratios.max())
        if most <= 0:
            return payload
        output_shift = min(MAX_SHIFT, math.floor(_GAIN_BITS - math.log2(most)))
        if output_shift < 1:
            return None
        return replace(payload, output_shift=output_shift, refinements=_short(ratios * 2.0**output_shift))

    def _units(self, low: int, high: int, exponent: int) -> tuple[Ints, Ints, int] | None:
        """Return what is 0 to the refining network, its gains, and their shift."""
        grain = 2.0**exponent
        centres = np.rint(self.item.mean / grain).clip(-(2**31), 2**31 - 1).astype(np.int64)
        gains = UNIT * grain / self.deviations
        far = np.maximum(np.maximum(high - centres, centres - low), 1)
        shift = min(MAX_SHIFT, math.floor(_GAIN_BITS - math.log2(gains.max())),
                    math.floor(_SUM_BITS - math.log2((gains * far).max())))  # fmt: skip
        if shift < 1:
            return None
        short = _short(gains * 2.0**shift)
        return (
            (centres, short, shift)
            if all(int(g) * int(f) < EXACT_SUM for g, f in zip(short, far, strict=True))
            else None
        )

    def _refinements(self, refiner: Refiner, coarse: Ints, centres: Ints, gains: Ints, shift: int,
                     exponent: int) -> Doubles:  # fmt: skip
        """Return how much of the product-sums is to be added to each measurement, in the least squares."""
        out, evaluate = np.zeros(len(coarse)), Evaluator(refiner, self.volume)
        for number, image in enumerate(coarse):
            both, own = 0.0, 0.0
            for part, made, sums in evaluate(image, Inputs(int(centres[number]), int(gains[number]), shift)):
                missing = np.ldexp(self.core[number][part].astype(np.float64), -exponent) - made
                if self.inside is not None:
                    missing = missing * self.inside[min(number, len(self.inside) - 1)][part]
                    sums = sums * self.inside[min(number, len(self.inside) - 1)][part]
                both, own = both + float((missing * sums).sum()), own + float(np.square(sums, dtype=np.float64).sum())
            out[number] = max(0.0, both / own) if own else 0.0
        return out

    def _gain_of_given(self, refiner: Refiner) -> float:
        """Return what a product-sum of a shared network is worth on images as it was trained on."""
        exponent = 0 if self.problem.core.dtype.kind in "iu" else math.floor(math.log2(self.deviations.min())) - 12
        coarse = np.stack([self.system.coarse(one) for one in self.core])
        low, high = outputs.bounds(self.problem.core, exponent)
        units = self._units(low, high, exponent)
        if units is None:
            return 1.0
        image = np.rint(np.ldexp(coarse, -exponent)).clip(low, high).astype(np.int64)
        ratios = self._refinements(refiner, image, *units, exponent) * 2.0**exponent / self.deviations
        return float(np.median(ratios))

    def _inside(self) -> npt.NDArray[np.bool_] | None:
        """Return the mask, (measurements or 1, slices, rows, columns)."""
        mask, axis = self.problem.envelope.mask, self.problem.channel_axis
        if mask is None:
            return None
        mask = mask[None] if axis is None else np.moveaxis(mask, axis, 0)
        return np.broadcast_to(mask, (len(mask), *self.lengths)).reshape(len(mask), *self.volume)


class _Loop:
    """Steps of Adam on patches of a chunk."""

    def __init__(self, fit: _Fit, networks: Networks, model: RefinerModel, patches: _Patches) -> None:
        self.fit, self.networks, self.model, self.patches = fit, networks, model, patches
        self.random = np.random.default_rng(fit.seed)
        self.quantiser: Quantiser | None = None
        self.points = fit.batch.coordinates[0].reshape(*fit.coarse_lengths, len(fit.item.extents))
        self.ratios = torch.from_numpy(fit.item.unit / fit.deviations).float().to(fit.device)
        item, core = fit.item, fit.problem.core
        low, high = float(core.min()), float(core.max())
        self.low, self.high = (
            torch.from_numpy((v - item.mean) / item.unit).float().to(fit.device) for v in (low, high)
        )

    def train(self, steps: int, rate: float) -> None:
        """Take so many steps at a share of the usual rates."""
        fit, layers = self.fit, len(self.networks.weights) - 1
        first = ACTIVATIONS[self.networks.activations[0]].first_rate(fit.network.omega_0 or OMEGA_0)
        relative = [first] + [1.0] * layers + [3.0] * layers + [1.0]
        own = JOINT_RATE * min(1.0, RATE_WIDTH / (fit.network.units or UNITS)) * rate
        learnt = [t.requires_grad_() for t in self.networks.tensors]
        rates = [own * r for r in relative]
        refining = [t for t in self.model.tensors if t.requires_grad]
        learnt, rates = learnt + refining, rates + [REFINER_RATE * rate] * len(refining)
        groups = [{"params": [t], "base": r} for t, r in zip(learnt, rates, strict=True)]
        optimiser = torch.optim.Adam(groups, lr=own, betas=(BETA_1, BETA_2))
        best, kept, slower = math.inf, [t.detach().clone() for t in learnt], 1.0
        for step in range(steps + 1):
            if step == steps or step % max(1, steps // _LOOKS) == 0:
                error = self.error()
                if error < best:
                    best, kept = error, [t.detach().clone() for t in learnt]
                elif step == steps or not error < best * WORSE:  # a divergence: back, and slower from there
                    slower /= 2
                    with torch.no_grad():
                        for tensor, before in zip(learnt, kept, strict=True):
                            tensor.copy_(before)
                if step == steps:
                    break
            for group in optimiser.param_groups:
                group["lr"] = group["base"] * _shape(step, steps) * slower
            drawn = self.patches.draw(self.random)
            chosen = self._chosen()
            found = self.found(drawn, chosen)
            some = chosen if drawn.weights.shape[1] > 1 else slice(None)
            loss = fit.system.loss(found - drawn.fine[:, chosen], drawn.weights[:, some])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learnt, CLIP)
            optimiser.step()
        for tensor in self.networks.tensors:
            tensor.requires_grad_(False)

    def found(self, drawn: _Drawn, chosen: Tensor) -> Tensor:
        """Return what the networks make of some measurements of patches, in units of the network of the place."""
        points = torch.stack([self.points[cut] for cut in drawn.cuts])
        networks = self.networks if self.quantiser is None else self.quantiser(self.networks)
        made = networks(points.flatten(0, -2)[None])[0]
        made = made.reshape(*points.shape[:-1], -1)[..., chosen]
        made = torch.minimum(torch.maximum(made, self.low[chosen]), self.high[chosen]) * self.ratios[chosen]
        coarse = made.movedim(-1, 1)  # patches, measurements, slices, rows, columns
        image, added = self.model(coarse.flatten(0, 1), drawn.places)
        fine = (image + added).reshape(*coarse.shape[:2], *image.shape[1:])
        found: Tensor = fine / self.ratios[chosen].reshape(-1, 1, 1, 1)
        return found

    @torch.no_grad()
    def error(self) -> float:
        """Return the mean square error of some patches, in units of the network of the place."""
        total, weight, random = 0.0, 0.0, np.random.default_rng(5)
        for _ in range(8):
            drawn, chosen = self.patches.draw(random), self._chosen(random)
            some = chosen if drawn.weights.shape[1] > 1 else slice(None)
            weights = drawn.weights[:, some]
            error = (self.found(drawn, chosen) - drawn.fine[:, chosen]).square() * weights
            total, weight = total + float(error.sum()), weight + float(weights.expand_as(error).sum())
        return total / max(weight, 1.0)

    def _chosen(self, random: np.random.Generator | None = None) -> Tensor:
        count = self.patches.fine.shape[0]
        if count <= _MEASUREMENTS:
            return torch.arange(count, device=self.fit.device)
        return torch.from_numpy((random or self.random).choice(count, _MEASUREMENTS, replace=False)).to(self.fit.device)


# ---- patches -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Drawn:
    """Patches of a volume: where on the coarse grid, and their fine values, weights and places in cells."""

    cuts: list[tuple[slice, slice, slice]]
    fine: Tensor
    weights: Tensor
    places: list[Tensor]


class _Patches:
    """Patches drawn at random from fine values (measurements, slices, rows, columns), of one size."""

    def __init__(self, fine: Tensor, weights: Tensor, system: System, halo: int) -> None:
        self.fine, self.weights, self.system = fine, weights, system
        self.coarse = [n >> e for n, e in zip(fine.shape[1:], system.scales, strict=True)]
        flat = not system.reach[0] and not system.scales[0]
        self.halos = [halo if r or e else 0 for r, e in zip(system.reach, system.scales, strict=True)]
        wanted = _LARGE if flat else _SMALL
        self.sizes = [min(m, max(1, wanted >> e) + 2 * h)
                      for m, e, h in zip(self.coarse, system.scales, self.halos, strict=True)]  # fmt: skip
        self.count = _MANY if flat else _FEW
        if flat:
            self.sizes[0] = 1
        self.places = [place(size << e, e, fine.device) for size, e in zip(self.sizes, system.scales, strict=True)]

    def draw(self, random: np.random.Generator) -> _Drawn:
        """Return some patches."""
        cuts, fine, weights = [], [], []
        for _ in range(self.count):
            starts = [int(random.integers(m - size + 1)) for m, size in zip(self.coarse, self.sizes, strict=True)]
            z, y, x = (slice(a, a + size) for a, size in zip(starts, self.sizes, strict=True))
            cuts.append((z, y, x))
            there = tuple(slice(s.start << e, s.stop << e) for s, e in zip((z, y, x), self.system.scales, strict=True))
            fine.append(self.fine[(slice(None), *there)])
            known = self.weights[(slice(None), *there)]
            for axis, (a, m, size, h, e) in enumerate(
                zip(starts, self.coarse, self.sizes, self.halos, self.system.scales, strict=True)
            ):
                inside = torch.ones(size << e, device=known.device)
                if a > 0:
                    inside[: h << e] = 0
                if a + size < m:
                    inside[len(inside) - (h << e) :] = 0
                known = known * inside.reshape([-1 if b == axis else 1 for b in range(3)])
            weights.append(known)
        return _Drawn(cuts, torch.stack(fine), torch.stack(weights), self.places)


def _fine(values: Doubles, inside: npt.NDArray[np.bool_] | None, system: System) -> tuple[Tensor, Tensor]:
    """Return fine values and weights, both up to whole coarse positions."""
    lengths = values.shape[1:]
    more = [(0, 0), *((0, -n % (1 << e)) for n, e in zip(lengths, system.scales, strict=True))]
    weights = np.ones((1, *lengths), np.float32) if inside is None else inside.astype(np.float32)
    return (torch.from_numpy(np.pad(values.astype(np.float32), more, mode="edge")),
            torch.from_numpy(np.pad(weights, more)))  # fmt: skip


def _scaled(effort: Effort, steps: int) -> Effort:
    """Return the phases in proportion, for a number of steps in all."""
    if not steps:
        return effort
    whole = effort.coarse + effort.joint + effort.rounding
    coarse, rounding = (max(1, steps * part // whole) for part in (effort.coarse, effort.rounding))
    return Effort(coarse=coarse, joint=max(1, steps - coarse - rounding), rounding=rounding)


def _shape(step: int, steps: int) -> float:
    """Return the share of the peak rate at a step."""
    return min(1.0, (step + 1) / min(50, 1 + steps // 5)) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _short(gains: Doubles) -> Ints:
    """Return the short numbers nearest to some gains."""
    return unpack_gain(np.array([pack_gain(float(g)) for g in gains], np.int64))
