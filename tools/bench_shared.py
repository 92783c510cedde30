"""What parameters learned from other scans would save, if an archive shared them: each scan is left out once.

    OPENBLAS_NUM_THREADS=1 python -m tools.bench_shared                      # everything; about half an hour
    OPENBLAS_NUM_THREADS=1 python -m tools.bench_shared --targets s03:36     # added to what is known
    OPENBLAS_NUM_THREADS=1 python -m tools.bench_shared --usual              # usual weights of the format, left one out
    python -m tools.bench_shared --only-report                               # the table of what is known

A scan is coded as one chunk by mode transform, preset balanced. What it has now is the better of no network and its
own one (fitted to it, all bytes counted), its own weights of contexts, and the counts of the format. Against that:

network as it is: fitted in 6,000 steps to pooled samples of the other scans of the group, decoded at about the same
    quality, and named. The chunk brings shifts of the inputs (a byte each) and a gain for each output (2 bytes,
    by least squares). `own size` is the size that the encoder takes for the chunk, `large` has 64 sines and more
    neighbours. `fixed` has the shifts of the other scans instead, `alike` corrects one component at a time, by itself
    and the first one, with the same weights.
network as start: of the chunk's own fit, `WARM` steps at a rate of `WARM_RATE`, or all 1,500 (`long`), at the rate of
    the encoder, too; `cold` is as short as the first, from random weights.
network as it is, then own: the large one, and after it one of the chunk's own, fitted to what the first leaves.
network, own read-out: hidden layer named, read-out fitted to the chunk by least squares and coded.
weights, counts: weights of contexts fitted to pooled samples; initial counts that add up what the others coded, as
    strong as serves the chunk best.
best: the fewest bytes of networks as now, as they are, as start or both, with or without weights and counts of others.
bound: the chunk's own parameters, their bytes not counted: what a perfect match could give.
own network, other seed: how far the luck of a fit goes.

A name takes `NAME` bytes, once. Coefficients of a chunk are chosen at steps `RATIO` apart; each network is run on the
same ones, and the logarithm of bytes is interpolated in that of the error to exactly the target, between the two steps
around it. Bytes are those of real streams and headers, errors those of the values that readers would decode.

`--usual` prints the usual weights of contexts (specification section 14.4), fitted to the dMRI scans at all three
targets, and measures the encoder with them, and with those that the other scans would have given.

The other scans are those of `TRAINING`, at the same PSNR; the means of the table are over them, too, and `total` is of
their bytes. 3-D scans are cut to `SLABS` values. Results: tools/results/shared.json.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

from inrstore.chunk import frame
from inrstore.chunk.entropy import weights as coder
from inrstore.chunk.entropy.bits import write_matrix
from inrstore.chunk.inloop import fit as fitting
from inrstore.chunk.inloop.correction import Correction
from inrstore.chunk.inloop.fit import MAGNITUDE, WIDE, Plan, View, fit
from inrstore.chunk.inr.network import Network, Values, pack_gain, unpack_gain
from inrstore.chunk.task import Task
from inrstore.chunk.transform import rdoq
from inrstore.chunk.transform.adaptive import INCREMENT, Model
from inrstore.chunk.transform.analysis import Analysis
from inrstore.chunk.transform.compiled_encode import components_of, outputs
from inrstore.chunk.transform.contexts import USUAL
from inrstore.chunk.transform.encode import EFFORTS, _Search
from inrstore.chunk.transform.header import kinds_of
from inrstore.chunk.transform.weights import Sampler, fitted
from inrstore.options import EncodeOptions
from inrstore.store import layout
from inrstore.store.layout import Grid
from inrstore.store.quality import Quality
from tools.bench_rate_data import load, read_rows, write_rows
from tools.bench_rate_ours import measure as measure_ours
from tools.environment import describe

PAIR = "own network", "as it is, then own"
RESULT = Path(__file__).resolve().parent / "results" / "shared.json"
TARGETS = {
    "dMRI": (("s03", "s02", "s01", "s05"), (36.0, 32.0, 40.0)),
    "3-D": (("s11", "s08", "s10", "s07"), (35.0, 40.0)),
}
TRAINING = {"dMRI": ("s01", "s02", "s03"), "3-D": ("s07", "s08", "s10", "s11")}
UNSEEN: dict[str, tuple[float, ...]] = {"s04": (32.0, 36.0, 40.0), "s05": (36.0,), "s06": (36.0,), "s12": (35.0, 40.0)}
SLABS = dict.fromkeys(("s07", "s10"), 48 * 256 * 256)
NAME, RATIO, COARSER = 9, 1.03, 1.07
STEPS, WARM, WARM_RATE = 6000, 400, 3e-3
SAMPLES = 400_000  # that a network is trained on, at most
STRENGTHS = (4, 16, 64)  # of initial counts, times those of the format
LARGE = {"dMRI": Plan(4, 4, 64, STEPS, offsets=WIDE), "3-D": Plan(1, 1, 64, STEPS, offsets=WIDE)}
ALIKE = Plan(2, 2, 48, STEPS, offsets=WIDE)

Array = npt.NDArray[Any]
Row = dict[str, Any]
Corrector = Callable[[Array], None]


@dataclass
class Entropy:
    """What coefficients are coded with, other than the chunk's own: weights, and initial counts."""

    weights: Array | None = None
    model: Model | None = None


class Scan:
    """A scan at one quality: what the encoder finds without a network, and what others may learn from it."""

    def __init__(self, name: str, psnr: float, arrays: str | None) -> None:
        volume = load(name, arrays, SLABS.get(name, 0))
        image, self.name, self.psnr, self.cut = volume.image, name, psnr, volume.cut
        dims, grid = layout.image_dims(image.ndim), Grid(image.shape, image.shape)
        (target,) = Quality(psnr=psnr).chunk_targets(grid, volume.ranges, dims, lambda _: (image, None))
        task = Task(image, None, target, EncodeOptions(mode="transform"))
        assert target.rmse is not None
        analysis = Analysis([task.box], task.channel_axis, task.scales, target.rmse, 16)
        self.search, self.part = _Search(analysis, target.rmse, None, None), analysis.parts[0]
        plain = self.search._plain(EFFORTS["balanced"])
        assert plain is not None
        self.plain, self.kinds = plain, kinds_of(analysis.levels)
        self.around = len(task.sealed(b"", split=True)) + len(frame.pack(0, image, 0, b""))
        plans = self.search._plans(plain, EFFORTS["balanced"])
        self.plan = plans[0] if plans else None
        coded, headers, _ = self.code(plain.settings.step * COARSER, Entropy(), sample=True)
        sampler = coded.sampler
        assert isinstance(sampler, Sampler)
        self.sampler, self.passes = sampler, coded.chooser._passes
        volumes = components_of(headers, self.part.lengths, self.part.subbands, coded.coefficients)[:16]
        step = plain.settings.step * COARSER
        wanted = analysis.wanted(self.part, step, 16)
        self.view = View(volumes.copy(), np.array(wanted[: len(volumes)]), self.part.positions)

    def code(self, step: float, entropy: Entropy, *, sample: bool = False) -> tuple[Any, Any, int]:
        """Return coefficients, header and bytes without a network, of one step."""
        settings = replace(self.plain.settings, step=step)
        if entropy.weights is not None:
            settings = replace(settings, weights=entropy.weights[: self.kinds])
        with initial(entropy.model):
            coded = self.search._code(settings, sample=sample)
        assert coded is not None
        headers = self.search._headers(settings, coded)
        assert headers is not None
        size = self.around + len(headers[0].write()) + len(coded[0].chooser.streams(coded[0].coefficients))
        if entropy.weights is not None:
            size -= weights_size(headers[0].weights)
        return coded[0], headers[0], size


def weights_size(weights: Array) -> int:
    """Return the bytes of weights in a header."""
    return len(write_matrix((weights - USUAL[: len(weights)]).reshape(-1, weights.shape[-1])))


@contextmanager
def initial(model: Model | None) -> Iterator[None]:
    """Start all choosers with other counts."""

    def made() -> Model:
        out = Model()
        if model is not None:
            out.flags, out.sizes = model.flags.copy(), model.sizes.copy()
        return out

    with mock.patch.object(rdoq, "Model", made):
        yield


class Curve:
    """Bytes against errors of one scan, coded in one way, as the step grows."""

    def __init__(self, scan: Scan, entropy: Entropy) -> None:
        self._scan, self._entropy, self._known = scan, entropy, {}

    def _at(self, place: int) -> tuple[Array, Any, int]:
        if place not in self._known:
            scan = self._scan
            coded, header, size = scan.code(scan.plain.settings.step * RATIO**place, self._entropy)
            volumes = components_of(header, scan.part.lengths, scan.part.subbands, coded.coefficients)
            self._known[place] = volumes, header, size
        return self._known[place]

    def _error(self, place: int, corrector: Corrector | None) -> float:
        volumes, header, _ = self._at(place)
        box = self._scan.part.box
        if corrector is not None:
            volumes = volumes.copy()
            corrector(volumes)
        decoded = outputs(header, volumes, box.core.dtype, box.core.shape)
        return float(box.error(decoded)) / self._scan.search._target

    def size(self, corrector: Corrector | None = None) -> float:
        """Return the bytes, without those of the network, whose error is the target."""
        errors: dict[int, float] = {}
        place = 0
        while True:
            errors[place] = self._error(place, corrector)
            kept = max((p for p, e in errors.items() if e <= 1), default=None)
            missed = min((p for p, e in errors.items() if e > 1 and (kept is None or p > kept)), default=None)
            if kept is not None and missed == kept + 1:
                break
            guess = place + round(-math.log(errors[place]) / (0.5 * math.log(RATIO)))
            low, high = (-30 if kept is None else kept + 1), (60 if missed is None else missed - 1)
            place = min(max(guess, low), high)
        share = -math.log(errors[kept]) / math.log(errors[missed] / errors[kept])
        one, other = (math.log(self._at(p)[2]) for p in (kept, missed))
        return math.exp(one + share * (other - one))


# ---- networks ----------------------------------------------------------------------------------------------


def padded(volumes: Array, count: int) -> Array:
    """Return the leading volumes, zeros for those that a chunk has not."""
    missing = count - len(volumes)
    return volumes[:count] if missing <= 0 else np.concatenate([volumes, np.zeros((missing, *volumes.shape[1:]))])


def seen(view: View, plan: Plan) -> View:
    """Return what a network of a plan sees."""
    return replace(view, volumes=padded(view.volumes, plan.leading), wanted=padded(view.wanted, plan.leading))


def alike(view: View, count: int) -> list[View]:
    """Return each component beside the first."""
    return [View(view.volumes[[k, 0]], view.wanted[[k, 0]], view.inside) for k in range(min(count, len(view.volumes)))]


def train(views: Sequence[View], plan: Plan, frames: Sequence[Correction]) -> Correction:
    """Return a network fitted to samples of all views, each with its own shifts."""
    rng = np.random.default_rng(0)
    xs, ys = [], []
    for view, own in zip(views, frames, strict=True):
        x, y = fitting._samples(own, [view], plan, rng)
        pick = rng.permutation(x.shape[1])[: SAMPLES // len(views)]
        xs.append(x[:, pick])
        ys.append(y[:, pick])
    x = np.concatenate(xs, 1)
    dead = ~x.any(1)  # components that none of them has
    made = fitting._Fit(x, np.concatenate(ys, 1), plan, rng)
    made._weights[:, dead] = 0
    return replace(frames[0], network=made.run())


def framed(view: View, plan: Plan) -> Correction:
    """Return shifts of a view's own."""
    return fitting._frame([view.volumes], plan)


def gained(correction: Correction, view: View) -> Correction:
    """Return a correction whose outputs have gains by least squares."""
    count = correction.network.outputs
    volumes = view.volumes.astype(np.float64)
    correction.apply(volumes)
    made = (volumes - view.volumes)[:count].reshape(count, -1)
    missing = (view.wanted - view.volumes)[:count].reshape(count, -1)
    gain = np.maximum((made * missing).sum(1) / np.maximum((made * made).sum(1), 1), 0)
    network = correction.network
    codes = [pack_gain(float(g)) for g in np.broadcast_to(network.gains, count) * gain]
    return replace(correction, network=replace(network, gains=unpack_gain(np.array(codes, np.int64))))


def read_out(correction: Correction, view: View, plan: Plan) -> tuple[Correction, int]:
    """Return a correction with a read-out fitted to a view, and the bytes of that."""
    rng, network = np.random.default_rng(0), correction.network
    x, y = fitting._samples(correction, [view], plan, rng)
    layer = network.layers[0]
    turn = 2 * np.pi / 2**32
    weights = layer.weights.astype(np.float32) * np.float32(layer.multiplier * turn)
    hidden = np.sin(weights @ x + (layer.biases * (network.bias_multiplier * turn)).astype(np.float32)[:, None])
    square = hidden.astype(np.float64) @ hidden.T / x.shape[1]
    square += fitting._RIDGE * np.trace(square) / len(square) * np.eye(len(square))
    found = np.linalg.solve(square, hidden.astype(np.float64) @ y.T / x.shape[1]).T
    grain = np.maximum(np.sqrt((found**2).mean(1)), 1e-6) / fitting._LEVELS
    whole = np.clip(np.rint(found / grain[:, None]), -1023, 1023).astype(np.int64)
    real = grain / fitting.AMPLITUDE
    shift = min(fitting.MAX_SHIFT, max(fitting.MIN_SHIFT, math.floor(20 - math.log2(float(real.max())))))
    gains = unpack_gain(np.array([pack_gain(float(g) * 2.0**shift) for g in real], np.int64))
    made = Network(Values(len(x), MAGNITUDE), network.layers, network.bias_multiplier, whole, gains,
                   np.zeros(len(whole), np.int64), shift)  # fmt: skip
    used = whole[: len(view.volumes)].reshape(-1)
    stream = coder.encode(used, np.zeros(len(used), np.int64), [coder.fit_table(used)])
    return replace(correction, network=made), len(stream) + 6 + 1


class _Warm(fitting._Fit):
    """A fit that starts from a network."""

    def __init__(self, x: Array, y: Array, plan: Plan, rng: np.random.Generator, network: Network) -> None:
        super().__init__(x, y, plan, rng)
        layer = network.layers[0]
        turn = 2 * np.pi / 2**32
        known = layer.weights.any(0)  # what others have not starts anew
        self._weights[:, known] = ((layer.weights * (layer.multiplier * turn) * self._in)[:, known]).astype(np.float32)
        self._biases = (layer.biases * (network.bias_multiplier * turn)).astype(np.float32)


def warm(view: View, plan: Plan, start: Network | None, rate: float = WARM_RATE) -> Correction:
    """Return a fit that starts from a network, or from other random weights."""
    own, rng = framed(view, plan), np.random.default_rng(plan.units + (start is None))
    x, y = fitting._samples(own, [view], plan, rng)
    with mock.patch.object(fitting, "_RATE", rate):
        found = fitting._Fit(x, y, plan, rng) if start is None else _Warm(x, y, plan, rng, start)
        return replace(own, network=found.run())


def applied(correction: Correction, leading: int) -> Corrector:
    """Return what corrects the components that there are."""

    def run(volumes: Array) -> None:
        some = padded(volumes, leading).copy()
        correction.apply(some)
        volumes[:leading] = some[: len(volumes[:leading])]

    return run


def applied_alike(corrections: Sequence[Correction]) -> Corrector:
    """Return what corrects each component beside the first."""

    def run(volumes: Array) -> None:
        before = volumes[: len(corrections)].copy()
        for k, correction in enumerate(corrections[: len(before)]):
            some = before[[k, 0]]
            correction.apply(some)
            volumes[k] = some[0]

    return run


def then_own(first: Corrector, size: float, scan: Scan) -> tuple[Corrector, float]:
    """Return what a network of others and then one of the chunk do, and the bytes of both."""
    assert scan.plan is not None
    volumes = scan.view.volumes.astype(np.float64)
    first(volumes)
    own = fit([seen(replace(scan.view, volumes=volumes), scan.plan)], scan.plan)
    second = applied(own, scan.plan.leading)

    def run(volumes: Array) -> None:
        first(volumes)
        second(volumes)

    return run, size + len(own.write())


# ---- weights and counts ------------------------------------------------------------------------------------


def pooled_weights(others: Sequence[Scan]) -> Array:
    """Return weights fitted to samples of scans, each of which counts the same."""
    samplers = []
    for scan in others:
        total = sum(len(v) * n for samples in scan.sampler.seen.values() for _, v, n in samples)
        mine = Sampler()
        mine.seen = {place: [(r, v, n * 1e6 / total) for r, v, n in samples]
                     for place, samples in scan.sampler.seen.items()}  # fmt: skip
        samplers.append(mine)
    return fitted(samplers, 4)


def pooled_counts(others: Sequence[Scan], strength: int) -> Model:
    """Return initial counts: those of the format and what scans coded, each counting the same."""
    out = Model()
    for name in ("flags", "sizes"):
        first = getattr(out, name)
        most = first.sum(1, keepdims=True) * strength
        total = first.astype(np.float64)
        for scan in others:
            coded = sum(getattr(p, name) for p in scan.passes).astype(np.float64)
            total += INCREMENT * coded / len(others)
        total *= np.minimum(1, most / total.sum(1, keepdims=True))
        setattr(out, name, np.maximum(1, np.rint(total)).astype(np.int64))
    return out


# ---- one scan ----------------------------------------------------------------------------------------------


def measure(group: str, scan: Scan, others: Sequence[Scan]) -> Row:
    """Return bytes at equal error of all variants."""
    found: dict[str, float] = {}
    seconds: dict[str, float] = {}
    curve = Curve(scan, Entropy())
    components = scan.plain.components
    nets: dict[str, tuple[Corrector, float]] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        begin = time.perf_counter()
        out = work()
        seconds[name] = round(time.perf_counter() - begin, 2)
        return out

    found["no network"] = curve.size()
    if scan.plan is not None:
        plan, view = scan.plan, seen(scan.view, scan.plan)
        own = timed("own network", lambda: fit([view], plan))
        corrector = applied(own, plan.leading)
        bytes_ = len(own.write())
        nets["own network"] = corrector, bytes_
        found["own network"] = curve.size(corrector) + bytes_
        found["bound: own network free"] = found["own network"] - bytes_
        other = warm(view, plan, None, fitting._RATE)
        nets["own network, other seed"] = applied(other, plan.leading), len(other.write())
    plans = {"large": LARGE[group]}
    if scan.plan is not None:
        plans["own size"] = replace(scan.plan, steps=STEPS)
    for size, plan in plans.items():
        mine = seen(scan.view, plan)
        views = [seen(o.view, plan) for o in others]
        got = min(plan.leading, components)
        for kind in ("shifts", "fixed")[: 1 + (size == "own size")]:
            common = fitting._frame([v.volumes for v in views], plan)
            frames = [common if kind == "fixed" else framed(v, plan) for v in views]
            shared = timed(f"train {size} {kind}", lambda v=views, p=plan, f=frames: train(v, p, f))
            here = replace(common if kind == "fixed" else framed(mine, plan), network=shared.network)
            corrector = applied(gained(here, mine), plan.leading)
            bytes_ = 2 * got + (0 if kind == "fixed" else got + min(plan.near, components)) + NAME
            nets[f"as it is, {size}, {kind}"] = corrector, bytes_
            if size == "large" and scan.plan is not None:
                nets["as it is, then own"] = then_own(corrector, bytes_, scan)
            if kind == "shifts":
                whole, more = read_out(here, mine, plan)
                nets[f"own read-out, {size}"] = applied(whole, plan.leading), bytes_ + more
                if size == "own size":
                    start = timed("warm", lambda v=mine, p=plan, n=shared.network: warm(v, replace(p, steps=WARM), n))
                    nets["as start"] = applied(start, plan.leading), len(start.write())
                    start = timed("warm long", lambda v=mine, p=scan.plan, n=shared.network: warm(v, p, n))
                    nets["as start, long"] = applied(start, plan.leading), len(start.write())
                    start = warm(mine, scan.plan, shared.network, fitting._RATE)
                    nets["as start, long, usual rate"] = applied(start, plan.leading), len(start.write())
                    cold = timed("cold", lambda v=mine, p=plan: fit([v], replace(p, steps=WARM)))
                    nets["cold"] = applied(cold, plan.leading), len(cold.write())
    if group == "dMRI":
        views = [v for o in others for v in alike(o.view, 8)]
        frames = [framed(v, ALIKE) for v in views]
        shared = timed("train alike", lambda: train(views, ALIKE, frames))
        mine = alike(scan.view, 16)
        each = [gained(replace(framed(v, ALIKE), network=shared.network), v) for v in mine]
        nets["as it is, alike"] = applied_alike(each), 4 * len(each) + NAME
    for name, (corrector, bytes_) in nets.items():
        if name not in found:
            found[name] = curve.size(corrector) + bytes_
    now = min(found["no network"], found.get("own network", math.inf))
    # Entropy: each alone, with the network that the chunk has now.
    weights = pooled_weights(others)
    own_is_best = found.get("own network", math.inf) < found["no network"]
    current = nets["own network"] if own_is_best else (None, 0.0)
    free = weights_size(scan.plain.settings.weights)
    found["bound: own weights free"] = now - free
    found["weights"] = Curve(scan, Entropy(weights)).size(current[0]) + current[1] + NAME
    strengths = {s: Curve(scan, Entropy(None, pooled_counts(others, s))).size(current[0]) for s in STRENGTHS}
    strength = min(strengths, key=lambda s: strengths[s])
    found["counts"] = strengths[strength] + current[1] + NAME
    # Both, with each of the networks that may be the best.
    both = pooled_counts(others, strength)
    curves = {"own": curve, "weights": Curve(scan, Entropy(weights)), "counts": Curve(scan, Entropy(None, both)),
              "weights, counts": Curve(scan, Entropy(weights, both))}  # fmt: skip
    starts = [n for n in nets if n.startswith("as start")]
    foreign = [n for n in nets if n.startswith(("as it is, large", "as it is, own", "as it is, alike", "own read-out"))]
    best = min(foreign, key=lambda n: found[n])
    tried = [best, *sorted(starts, key=lambda n: found[n])[:1], *(n for n in PAIR if n in nets)]
    combined = {}
    for name in ("no network", *tried):
        corrector, bytes_ = nets.get(name, (None, 0.0))
        for which, other in curves.items():
            paid = NAME * (which != "own" and name not in (best, "as it is, then own"))
            combined[name, which] = other.size(corrector) + bytes_ + paid
    found["weights, counts"] = combined["own network" if own_is_best else "no network", "weights, counts"]
    found["best without own network"] = min(v for (n, _), v in combined.items() if n in ("no network", best))
    found["best"] = min(combined.values())
    took = min(combined, key=lambda c: combined[c])
    return {"group": group, "scan": scan.name, "cut": scan.cut, "asked": scan.psnr, "now": round(now, 1),
            "components": components, "plan": None if scan.plan is None else
            [scan.plan.leading, scan.plan.near, scan.plan.units, len(scan.plan.offsets)], "strength": strength,
            "taken": list(took), "best_foreign": best,
            "bytes": {k: round(v, 1) for k, v in found.items()}, "seconds": seconds}  # fmt: skip


def usual() -> list[Row]:
    """Return bytes with the usual weights of the format, and with those that the other scans would have given it."""
    places = [(name, psnr) for psnr in sorted(TARGETS["dMRI"][1]) for name in TRAINING["dMRI"]]
    scans = {place: Scan(*place, None) for place in places}
    made = pooled_weights(list(scans.values()))
    print(made.reshape(-1, made.shape[-1]).tolist())
    rows = []
    for name, psnr in [*places, *((n, p) for n, asked in UNSEEN.items() for p in asked)]:
        volume, options = load(name, None, 0), EncodeOptions(mode="transform")
        found = {"usual": measure_ours(volume, Quality(psnr=psnr), options)["bytes"]}
        if name in TRAINING["dMRI"]:
            with of_format(pooled_weights([s for (n, _), s in scans.items() if n != name])):
                found["of the others"] = measure_ours(volume, Quality(psnr=psnr), options)["bytes"]
        rows.append({"scan": name, "asked": psnr, "bytes": found})
        print(json.dumps(rows[-1]), flush=True)
    return rows


@contextmanager
def of_format(weights: Array) -> Iterator[None]:
    """Let the format have other usual weights."""
    before = USUAL.copy()
    USUAL.flags.writeable = True
    USUAL[:] = weights
    try:
        yield
    finally:
        USUAL[:] = before
        USUAL.flags.writeable = False


def report(rows: list[Row]) -> str:
    """Return the table: per cent of bytes saved against now, for each scan, in the mean, and of all bytes together."""
    lines: list[str] = []
    for group, training in TRAINING.items():
        mine = [r for r in rows if r["group"] == group]
        heads = "".join(f" {r['scan']} {r['asked']:g} |" for r in mine)
        lines += ["", f"| {group} |{heads} mean | total |", "|---|" + "---|" * (len(mine) + 2)]
        lines += ["| bytes now |" + "".join(f" {r['now']:,.0f} |" for r in mine) + " | |"]
        for name in dict.fromkeys(n for r in mine for n in r["bytes"]):
            have = [r for r in mine if name in r["bytes"] and r["scan"] in training]
            pairs = [(r["bytes"][name], r["now"]) for r in have]
            mean = sum(1 - b / now for b, now in pairs) / max(1, len(pairs))
            total = 1 - sum(b for b, _ in pairs) / max(1, sum(now for _, now in pairs))
            cells = [f"{100 * (1 - r['bytes'][name] / r['now']):.1f}" if name in r["bytes"] else "-" for r in mine]
            lines.append(f"| {name} | " + " | ".join(cells) + f" | {100 * mean:.1f} | {100 * total:.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--targets", help="s03:36,s11:40,...; all without it")
    parser.add_argument("--arrays", help="folder of s01.npy, ... to read instead of the scans")
    parser.add_argument("--only-report", action="store_true", help="no measurements")
    parser.add_argument("--usual", action="store_true", help="usual weights of the format, and of other scans")
    arguments = parser.parse_args()
    rows = read_rows(RESULT)
    known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    top = {"environment": describe(), "usual": known.get("usual", {})}
    if arguments.usual:  # an environment of its own: the other rows stay as they were measured
        made = {"environment": describe(), "rows": usual()}
        write_rows(RESULT, {"environment": known.get("environment", {}), "usual": made}, rows)
    elif not arguments.only_report:
        wanted = None if arguments.targets is None else arguments.targets.split(",")
        for group, (names, qualities) in TARGETS.items():
            for psnr in qualities:
                here = [n for n in names if wanted is None or f"{n}:{psnr:g}" in wanted]
                if not here:
                    continue
                scans = {n: Scan(n, psnr, arguments.arrays) for n in {*here, *TRAINING[group]}}
                for name in here:
                    begin = time.perf_counter()
                    row = measure(group, scans[name], [scans[n] for n in TRAINING[group] if n != name])
                    row["seconds"]["all"] = round(time.perf_counter() - begin, 1)
                    print(json.dumps(row), flush=True)
                    rows = [r for r in rows if (r["scan"], r["asked"]) != (name, psnr)] + [row]
                    rows.sort(key=lambda r: (r["group"] != "dMRI", r["scan"], r["asked"]))
                    write_rows(RESULT, top, rows)
    print(report(rows))


if __name__ == "__main__":
    main()
