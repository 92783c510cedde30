"""The fewest bytes that meet a target: size of the network, then coarseness of its weights, for each chunk.

A short probe of two sizes tells how much each chunk gains from a larger network; the smallest one that should
reach the target is fitted in full, rounded in the loop, and checked as readers will decode it. A miss is
fitted again, larger; a chunk whose network would cost more than its fallback is left to the fallback.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inrstore.chunk.boxes import NO_BUDGET
from inrstore.chunk.fit_task import FitTask
from inrstore.chunk.inr import siren
from inrstore.chunk.inr.fit.data import Batch, Measurements, prepare
from inrstore.chunk.inr.fit.networks import Architecture, Networks, initialise, join, uniform
from inrstore.chunk.inr.fit.recipe import recipe_of
from inrstore.chunk.inr.fit.rounding import round_after, round_in_the_loop
from inrstore.chunk.inr.fit.trainer import Schedule, Trainer, distortion
from inrstore.options import EncodeOptions, FitLog, FitStep, Preset, Progress, ProgressCallback

_log = logging.getLogger(__name__)

WIDTHS = (8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 72, 80, 88, 96, 112, 128, 144, 160, 192, 224, 256)
FIRST_SIZE = 64
"""Units where a size is fixed by nothing."""
BYTES_PER_PARAMETER = 0.7
"""What a coded parameter takes, roughly; only to see that a network cannot pay."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """Steps of the phases of a fit.

    Parameters
    ----------
    probe, fit, rounding : int
        Optimiser steps of a size probe, of the fit, and of the pass with rounded weights.
    probes : tuple of int
        Units of the networks that are probed; without a second one what larger networks gain is not measured.
    samples : int
        Places of each chunk in a step, at most.
    part : float
        Of the places of a chunk that are in a step: the larger the network that it takes, the less noise its gradients
        may have.
    gain : float
        Decibels that twice the steps bring; measured on diffusion MRI, see tools/trials.md.
    surplus : float
        Decibels over the target that the float network should reach: spent on coarser weights.
    leave : float
        Decibels over the target at which a network leaves the batch: time is better spent on the others.
    widest : int
        Most units in a layer: time grows with its square.
    retries : int
        Fits after the first: larger after a miss, slower after one that went wrong.
    """

    probe: int
    fit: int
    rounding: int
    probes: tuple[int, ...] = (24, 64)
    samples: int = 4096
    part: float = 1.0
    gain: float = 0.6
    surplus: float = 0.1
    leave: float = 1.2
    widest: int = 192
    retries: int = 3


@dataclass(frozen=True)
class Found:
    """What became of a chunk.

    Parameters
    ----------
    network : siren.Siren or None
        None when no network is expected to beat the budget, or none met the target.
    decibels : float or None
        How far the best network tried is over the target, before its weights are rounded; None if none was.
    """

    network: siren.Siren | None
    decibels: float | None = None


EFFORTS: dict[Preset, Effort] = {
    "fast": Effort(probe=100, probes=(40,), fit=360, rounding=220, part=1 / 40, gain=1.1, surplus=0.0, widest=128),
    "balanced": Effort(probe=250, fit=6000, rounding=2000),
    "small": Effort(probe=250, fit=20000, rounding=6000, widest=256),
    "paper": Effort(probe=250, fit=2000, rounding=2000, widest=256),
}
ROUNDING = 0.1
"""Rate of the pass with rounded weights, of that of the fit."""
RATE_WIDTH = 64
"""Wider networks take less than the peak rate, in proportion."""
LOST = 1.0
"""Decibels below its own probe at which a fit did not fall short but go wrong: it is done again at a lower rate."""
SLOPE = 1.0
"""Decibels that twice the parameters bring, where it is not measured."""
TOO_LARGE = 1.5
"""Decibels over the target at which a size that was guessed is too large: a smaller one is tried."""
_SHRINKS = 2
_STEEPEST = 3.0
"""Decibels that half of the parameters cost at most."""
_FARTHEST = 1.5
_FEWEST_SAMPLES = 2048
_VALUES_AT_ONCE = 1 << 30
_SETTING = threading.Lock()


def fit_networks(
    problems: Sequence[FitTask], options: EncodeOptions, progress: ProgressCallback | None = None
) -> Iterator[tuple[FitTask, Found]]:
    """Fit a network to each chunk; nothing comes of one whose target is 0 in single precision."""
    device = choose_device(options)
    watch = _Watch(len(problems), progress, options.log_fit)
    published = recipe_of(options).published
    items = [m for m in (prepare(p, published=published) for p in problems) if math.isfinite(m.noise) and m.noise > 0]
    if device.type == "cuda":
        for group in _batches(items):
            yield from _fit_group(group, options, device, watch)
        return
    # A core for each network, and never several for one: products and sums have other bits when threads share them.
    workers = max(1, min(options.threads or _available_cores(), len(items)))
    with ThreadPoolExecutor(workers, initializer=_use_one_thread) as pool:
        fits = [pool.submit(_fit_group, [item], options, device, watch) for item in items]
        try:
            for fit in fits:
                yield from fit.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _use_one_thread() -> None:
    """Let torch work with one thread in the calling thread, which has to be a new one.

    `torch.set_num_threads` sets the calling thread, and what threads take up when they first use torch. So the calling
    thread takes that up first, and another thread puts it back for those to come.
    """
    with _SETTING:
        usual = torch.get_num_threads()
        torch.set_num_threads(1)
        other = threading.Thread(target=torch.set_num_threads, args=(usual,))
        other.start()
        other.join()


def _fit_group(
    group: list[Measurements], options: EncodeOptions, device: torch.device, watch: _Watch
) -> list[tuple[FitTask, Found]]:
    found = _Group(group, options, device, watch).fit()
    watch.finish(len(group))
    return [(item.problem, one) for item, one in zip(group, found, strict=True)]


def _available_cores() -> int:
    """Return the cores this process may use; not every system can tell them from those that exist."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def choose_device(options: EncodeOptions) -> torch.device:
    """Return the torch device of the options."""
    if options.device == "cpu" or (options.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    return torch.device("cuda")


def _batches(items: Sequence[Measurements]) -> Iterator[list[Measurements]]:
    """Group chunks of equal axes and channels, in order, as many as a GPU should hold."""
    for key in dict.fromkeys(m.key for m in items):
        batch: list[Measurements] = []
        for item in (m for m in items if m.key == key):
            longest = max([item.values.size, *(m.values.size for m in batch)])
            if batch and longest * (len(batch) + 1) > _VALUES_AT_ONCE:
                yield batch
                batch = []
            batch.append(item)
        if batch:
            yield batch


class _Watch:
    """Turns what happens inside fits, in whatever thread, into `Progress` that only rises."""

    def __init__(self, total: int, callback: ProgressCallback | None, log: FitLog | None = None) -> None:
        self.total, self.callback, self.done, self.best, self.log = total, callback, 0, 0.0, log
        self.running: dict[int, float] = {}
        self.lock = threading.Lock()

    def finish(self, chunks: int) -> None:
        """Count chunks that are through, in the thread that fitted them."""
        with self.lock:
            self.done += chunks
            self.running.pop(threading.get_ident(), None)

    def say(self, stage: str, chunks: int, fraction: float, distortion: Tensor) -> None:
        """Report the share of a fit of so many chunks that is done."""
        if self.callback is None:
            return
        with self.lock:
            self.running[threading.get_ident()] = chunks * fraction
            self.best = max(self.best, min(1.0, (self.done + sum(self.running.values())) / self.total))
            self.callback(Progress(
                chunks_done=self.done, chunks_total=self.total, stage=stage, fraction=self.best,
                rmse=float(distortion.mean().sqrt()),
            ))  # fmt: skip


class _Group:
    """The search over one batch of chunks of equal axes and channels."""

    def __init__(self, items: list[Measurements], options: EncodeOptions, device: torch.device, watch: _Watch) -> None:
        self.recipe = recipe_of(options)
        self.items, self.device, self.watch, self.seed = items, device, watch, options.seed
        self.effort = EFFORTS[options.preset]
        self.probes = tuple(uniform(self.recipe.activations, width) for width in self.effort.probes)
        if options.strict:
            self.effort = replace(self.effort, widest=WIDTHS[-1])
        if self.recipe.steps:
            self.effort = replace(self.effort, fit=self.recipe.steps)
        if device.type == "cuda":  # chunks in a batch have one number of samples, whatever the others are
            self.effort = replace(self.effort, part=1.0)
        if self.recipe.found:
            self.effort = replace(self.effort, leave=math.inf)
        self.axes, self.channels = items[0].key
        self.batch = Batch(items, device, limited=self.recipe.limited)
        self.results: list[siren.Siren | None] = [None] * len(items)
        self.enough: dict[int, Architecture] = {}
        self.above: dict[int, float] = {}  # decibels over target of these
        self.fitted: dict[int, Networks] = {}  # of these
        self.calm = [1.0] * len(items)
        self.reached: list[float | None] = [None] * len(items)
        self.probed = torch.zeros(len(items))

    def fit(self) -> list[Found]:
        """Return a network, or None, for each chunk."""
        if self.recipe.found or self.recipe.published:
            self._fit_once()
        else:
            self._search()
        return [Found(*each) for each in zip(self.results, self.reached, strict=True)]

    def _search(self) -> None:
        sizes: dict[int, Architecture | None]
        if self.recipe.width:
            slope = torch.ones(len(self.items))
            sizes = {i: self._own_size() for i in range(len(self.items))}
            self.probed -= math.inf
        else:
            decibels, slope = self._probe()
            sizes = {i: self._choose(i, float(decibels[i]), float(slope[i])) for i in range(len(self.items))}
            _log.info("probe: decibels %s, slopes %s, sizes %s", decibels.tolist(), slope.tolist(), sizes)
        for attempt in range(self.effort.retries + 1):
            missed: dict[int, Architecture | None] = {}
            for size in sorted({s for s in sizes.values() if s is not None}):
                nets = [i for i, s in sizes.items() if s == size]
                for i, short in self._fit_size(nets, size, attempt).items():
                    grown = math.log2(size.parameters(self.axes, self.channels)) + short / float(slope[i])
                    if short < 0:
                        missed[i] = self._smallest(i, grown, None)
                    elif i in self.enough:
                        missed[i] = self._between(i, size, short)
                    else:
                        missed[i] = self._smallest(i, grown, size) if short > 0 else size
            sizes = missed
        for i, size in self.enough.items():  # what was large enough before something smaller was tried
            if self.results[i] is None:
                self._round([i], self.fitted[i], size, self.effort.retries)

    def _fit_once(self) -> None:
        """Fit networks of the size that is given, and keep what they reach, or what of them is asked for."""
        size, nets = self._own_size(), list(range(len(self.items)))
        networks = self._fit_floats(nets, size, self._reporter("fitting", 0.0, 0.9, self.effort.fit))
        for i, item in enumerate(self.items):
            own = self.batch.subset([i])
            self.results[i] = round_after(item, own, networks.subset([i]), found=self.recipe.found)

    def _own_size(self) -> Architecture:
        return uniform(self.recipe.activations, self.recipe.width or FIRST_SIZE)

    # ---- size -----------------------------------------------------------------------------------------------

    def _probe(self) -> tuple[Tensor, Tensor]:
        """Return decibels over target expected of the larger probe's size, and decibels per doubling of size."""
        reached = []
        for size in self.probes:
            networks = self._initialise(range(len(self.items)), size)
            trainer = Trainer(self.batch, networks, self._schedule(self.effort.probe, size), self.recipe.omega_0)
            trainer.run(self._reporter("choosing sizes", 0.0, 0.1, self.effort.probe, log=f"size {size.width}"))
            reached.append(-10 * trainer.best.log10())
        sizes = [math.log2(s.parameters(self.axes, self.channels)) for s in self.probes]
        slope = torch.full_like(reached[-1], SLOPE)
        if len(sizes) > 1:  # longer fits make more of a larger network: the slope grows with the steps
            slope = ((reached[-1] - reached[0]) / (sizes[-1] - sizes[0]) * 1.2).clamp(0.3, 2.5)
        self.probed = reached[-1]
        longer = self.effort.gain * math.log2(self.effort.fit / self.effort.probe)
        return reached[-1] + longer, slope

    def _choose(self, net: int, decibels: float, slope: float) -> Architecture | None:
        doublings = (self.effort.surplus - decibels) / slope
        if len(self.probes) == 1:  # a guess should not lead far: a network that is too large is paid for in bytes
            doublings = max(-_FARTHEST, min(doublings, _FARTHEST))
        probed = math.log2(self.probes[-1].parameters(self.axes, self.channels))
        return self._smallest(net, probed + doublings, None)

    def _between(self, net: int, size: Architecture, short: float) -> Architecture | None:
        """Return a size between one that misses and the smallest known to be enough, or that one."""
        enough = self.enough[net]
        low, high = (math.log2(one.parameters(self.axes, self.channels)) for one in (size, enough))
        part = max(short, 0.2) / (max(short, 0.2) + self.above[net])
        found = self._smallest(net, low + part * (high - low), size)
        return enough if found is None or found.width > enough.width else found

    def _may_shrink(self, net: int, size: Architecture) -> bool:
        """Return whether a size that one probe led to may be tried smaller."""
        guessed = len(self.probes) == 1 and not self.recipe.width
        return guessed and size.width > WIDTHS[0] and size != self.enough.get(net)

    def _expected(self, net: int, size: Architecture) -> float:
        """Return the decibels over target that a network of a size has at least, by what a probe had."""
        probed, own = (s.parameters(self.axes, self.channels) for s in (self.probes[-1], size))
        return float(self.probed[net]) - _STEEPEST * max(0.0, math.log2(probed / own))

    def _smallest(self, net: int, log_parameters: float, above: Architecture | None) -> Architecture | None:
        """Return the smallest size with that many parameters, larger than `above`, that could pay."""
        if self.recipe.width:
            return None
        widths = [w for w in WIDTHS if w <= self.effort.widest and (above is None or w > above.width)]
        for width in widths:
            size = uniform(self.recipe.activations, width)
            parameters = size.parameters(self.axes, self.channels)
            if parameters * BYTES_PER_PARAMETER > self.items[net].problem.budget:
                return None
            # The estimate is rough: the largest size is worth a try when it is not far from enough.
            enough = math.log2(parameters) + (0.5 if width == widths[-1] else 0.0) >= log_parameters
            if enough or (width == widths[-1] and self.items[net].problem.budget == NO_BUDGET):
                return size
        return None

    # ---- fit ------------------------------------------------------------------------------------------------

    def _fit_size(self, nets: list[int], size: Architecture, attempt: int) -> dict[int, float]:
        """Fit networks of one size; return the decibels missing for those that fall short."""
        begin = 0.1 + 0.3 * attempt
        networks = self._fit_floats(nets, size, self._reporter("fitting", begin, 0.5, self.effort.fit))
        decibels = -10 * distortion(self.batch.subset(nets), networks).log10()
        _log.info("%s: chunks %s at %s dB over target", size, nets, decibels.tolist())
        for i, found in zip(nets, decibels.tolist(), strict=True):
            self.reached[i] = max(found, -math.inf if (old := self.reached[i]) is None else old)
        # Rounding in the loop goes on learning: a little short is no miss yet.
        short = {nets[i]: 0.2 - float(d) for i, d in enumerate(decibels) if d <= -0.15}
        for i, d in zip(nets, decibels.tolist(), strict=True):
            if i in short and d < self._expected(i, size) - LOST:
                self.calm[i], short[i] = self.calm[i] / 3, 0.0
            elif d > TOO_LARGE and attempt < _SHRINKS and self._may_shrink(i, size):
                self.enough[i], self.above[i], short[i] = size, d, (0.5 - d) / 2
                self.fitted[i] = networks.subset([nets.index(i)])
        ready = [i for i in range(len(nets)) if nets[i] not in short]
        if ready:
            short |= dict.fromkeys(self._round([nets[i] for i in ready], networks.subset(ready), size, attempt), 0.3)
        return short

    def _round(self, nets: list[int], networks: Networks, size: Architecture, attempt: int) -> list[int]:
        """Round fitted networks; return those that are none then."""
        before = networks.clone()  # the pass changes what it is given
        schedule = self._schedule(self.effort.rounding, size, ROUNDING)
        reporter = self._reporter(
            "rounding weights", 0.6 + 0.3 * attempt, 0.3, schedule.steps, log="rounding", nets=nets
        )
        found = round_in_the_loop(self.batch.subset(nets), networks, schedule, self.recipe.omega_0, reporter)
        missed = []
        for row, (net, network) in enumerate(zip(nets, found, strict=True)):
            item = self.items[net]
            if network is None and item.problem.budget == NO_BUDGET:  # a held chunk may have finer weights
                network = round_after(item, self.batch.subset([net]), before.subset([row]), found=False)
            if network is None:
                missed.append(net)
            else:
                self.results[net] = network
        return missed

    def _fit_floats(self, nets: list[int], size: Architecture, reporter: _Reporter) -> Networks:
        """Fit in full precision and keep the best of each; a network that is well over its target leaves the batch."""
        schedule = self._schedule(self.effort.fit, size)
        trainer = Trainer(self.batch.subset(nets), self._initialise(nets, size), schedule, self.recipe.omega_0)
        trainer.patience *= torch.tensor([self.calm[i] for i in nets], device=self.device)
        alive, done = list(nets), dict[int, Networks]()

        def watch(step: int, seen: Tensor) -> bool:
            reporter(step, seen, alive)
            enough = [value <= 10 ** (-self.effort.leave / 10) for value in seen.tolist()]
            stays = [j for j in range(len(alive)) if not enough[j]]
            for j in range(len(alive)):
                if enough[j]:
                    done[alive[j]] = trainer.kept.subset([j])
            if stays and len(stays) < len(alive):
                trainer.keep_only(stays)
            alive[:] = [alive[j] for j in stays]
            return not alive

        trainer.run(watch)
        done |= {net: trainer.kept.subset([j]) for j, net in enumerate(alive)}
        if trainer.restarts:
            _log.info("%s: %d restarts", size, trainer.restarts)
        return join([done[net] for net in nets])

    def _initialise(self, nets: Sequence[int], size: Architecture) -> Networks:
        seeds = [self.items[i].seed ^ self.seed for i in nets]
        return initialise(size, self.axes, self.channels, self.recipe.omega_0, seeds, self.device,
                          published=self.recipe.published)  # fmt: skip

    def _schedule(self, steps: int, size: Architecture, part: float = 1.0) -> Schedule:
        most = max(len(m.values) for m in self.items)
        if self.recipe.published:
            return Schedule(steps=steps, samples=most, rate=self.recipe.rate, check_every=max(1, steps // 100),
                            plain=True)  # fmt: skip
        rate = part * self.recipe.rate * min(1.0, RATE_WIDTH / size.width)
        return Schedule(
            steps=steps, samples=min(most, self._samples(most)), rate=rate, warm_up=max(1, min(100, steps // 5)),
            check_every=max(10 if part < 1 else 25, steps // 25),
        )  # fmt: skip

    def _samples(self, most: int) -> int:
        """Return the places in a step, for the largest of the chunks."""
        return max(_FEWEST_SAMPLES, min(self.effort.samples, int(self.effort.part * most)))

    def _reporter(self, stage: str, begin: float, part: float, steps: int, *, log: str = "fit",
                  nets: Sequence[int] = ()) -> _Reporter:  # fmt: skip
        return _Reporter(self.watch, stage, self.items, nets or range(len(self.items)), begin, part, steps, log)


@dataclass(frozen=True)
class _Reporter:
    """Says where a trainer of so many steps stands; `part` of the whole work is the trainer's."""

    watch: _Watch
    stage: str
    items: Sequence[Measurements]
    nets: Sequence[int]
    begin: float
    part: float
    steps: int
    log: str

    def __call__(self, step: int, distortion: Tensor, nets: Sequence[int] | None = None) -> None:
        fraction = self.begin + self.part * step / self.steps
        self.watch.say(self.stage, len(self.items), min(fraction, 0.99), distortion)
        if self.watch.log is not None:
            for net, seen in zip(self.nets if nets is None else nets, distortion.tolist(), strict=True):
                item = self.items[net]
                self.watch.log(FitStep(chunk=item.problem.index, stage=self.log, step=step, loss=seen * item.noise,
                                       psnr=item.psnr(seen)))  # fmt: skip
