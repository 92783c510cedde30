"""Fitting keeps its promises: targets, seeds, divergence, batches."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from inrstore import limits  # noqa: E402
from inrstore.chunk import quality  # noqa: E402
from inrstore.chunk.decode import decode_chunk, describe_chunk  # noqa: E402
from inrstore.chunk.encode import encode_chunks  # noqa: E402
from inrstore.chunk.frame import Reader  # noqa: E402
from inrstore.chunk.inr import layers, siren  # noqa: E402
from inrstore.chunk.inr.fit import activations, quantise, rounding, search  # noqa: E402
from inrstore.chunk.inr.fit.data import Batch, prepare  # noqa: E402
from inrstore.chunk.inr.fit.networks import Architecture, Layer, initialise, uniform  # noqa: E402
from inrstore.chunk.inr.fit.trainer import Schedule, Trainer, distortion  # noqa: E402
from inrstore.chunk.quality import Target  # noqa: E402
from inrstore.chunk.siren.encode import fit_task  # noqa: E402
from inrstore.chunk.task import Task  # noqa: E402
from inrstore.errors import ConfigurationError, LimitExceededError, NotHeldError  # noqa: E402
from inrstore.options import EncodeOptions, Network  # noqa: E402

pytestmark = pytest.mark.fit

FAST = EncodeOptions(preset="fast", mode="siren", device="cpu", threads=1)
CPU = torch.device("cpu")


def smooth(channels: int = 6, shape: tuple[int, ...] = (10, 32, 32), seed: int = 0, noise: float = 2.0) -> np.ndarray:
    """A chunk like diffusion MRI: a smooth image, attenuated differently in each measurement, with noise."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    radius = sum(a**2 for a in axes)
    image = 400 * np.exp(-1.5 * radius) + 60 * np.sin(4 * axes[0] + 3 * axes[-1])
    out = np.stack([image * (0.4 + 0.6 * np.cos(c + axes[1]) ** 2) for c in range(channels)])
    return np.clip(out + rng.normal(0, noise, out.shape), 0, None).astype(np.int16)


def problem(chunk: np.ndarray, target: Target):
    return prepare(fit_task(0, Task(chunk, None, target), 10**6))


def test_a_smooth_chunk_becomes_a_network_that_keeps_its_target():
    chunk, target = smooth(), Target(rmse=8.0)
    (frame,) = encode_chunks([chunk], target, FAST)
    decoded = decode_chunk(frame, chunk.shape, chunk.dtype)
    assert describe_chunk(frame).mode == "siren"
    assert quality.rmse(chunk, decoded, target) <= 8.0
    assert chunk.nbytes / len(frame) > 15


def test_rounding_uses_up_the_error_that_is_allowed():
    chunk, target = smooth(), Target(rmse=4.0)
    (frame,) = encode_chunks([chunk], target, FAST)
    assert quality.rmse(chunk, decode_chunk(frame), target) > 4.0 * 10 ** (
        -1.2 / 20
    )  # a short fit of a tiny chunk: within 1.2 dB


def test_noise_is_left_to_other_modes_where_networks_compete_with_them(monkeypatch):
    monkeypatch.setitem(search.EFFORTS, "small", search.EFFORTS["fast"])
    chunk = np.random.default_rng(1).integers(0, 4000, (4, 5, 16, 16)).astype(np.uint16)
    (frame,) = encode_chunks([chunk], Target(rmse=20.0), replace(FAST, mode="auto", network=None, preset="small"))
    assert describe_chunk(frame).mode != "siren"
    assert quality.rmse(chunk, decode_chunk(frame), Target(rmse=20.0)) <= 20.0


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    chunk = smooth(shape=(8, 28, 30))
    first, second = (encode_chunks([chunk], Target(rmse=10.0), FAST)[0] for _ in range(2))
    other = encode_chunks(
        [chunk], Target(rmse=10.0), EncodeOptions(preset="fast", mode="siren", device="cpu", seed=1, threads=1)
    )[0]
    assert describe_chunk(first).mode == "siren"
    assert first == second != other


def test_chunks_encoded_together_equal_chunks_encoded_alone():
    chunks = [smooth(shape=(8, 28, 30), seed=s) for s in range(2)]
    together = encode_chunks(chunks, Target(rmse=10.0), FAST)
    alone = [encode_chunks([c], Target(rmse=10.0), FAST)[0] for c in chunks]
    assert together == alone


def test_scale_weighs_the_error_of_each_measurement():
    chunk = smooth(channels=3)
    chunk[1] = chunk[1] * 8
    scale = tuple(float(np.ptp(c)) for c in chunk)
    target = Target(rmse=0.02, scale=scale)
    (frame,) = encode_chunks([chunk], target, FAST)
    assert quality.rmse(chunk, decode_chunk(frame), target) <= 0.02


@pytest.mark.parametrize("case", ["float with nan", "big-endian", "fortran", "padded", "3-D", "channels last", "1-D"])
def test_every_kind_of_chunk_keeps_its_target(case):
    chunk, target = smooth(shape=(8, 28, 30)), Target(rmse=10.0)
    if case == "float with nan":
        chunk = chunk.astype(np.float32) * 1.5
        chunk[:, 1, 2:5, 3] = np.nan
        chunk[0, 0, 0, :2] = np.inf
        target = Target(rmse=16.0)
    elif case == "big-endian":
        chunk = chunk.astype(">i2")
    elif case == "fortran":
        chunk = np.asfortranarray(chunk)
    elif case == "padded":
        chunk = np.pad(chunk, ((0, 0), (0, 3), (0, 0), (0, 7)))
    elif case == "3-D":
        chunk = smooth(channels=1, shape=(12, 20, 24))[0]
    elif case == "channels last":
        chunk, target = np.ascontiguousarray(np.moveaxis(chunk, 0, -1)), Target(rmse=10.0, channel_axis=3)
    elif case == "1-D":
        chunk = np.rint(1000 * np.sin(np.linspace(0, 9, 5000))).astype(np.int32)
    (frame,) = encode_chunks([chunk], target, FAST)
    decoded = decode_chunk(frame, chunk.shape, chunk.dtype)
    assert decoded.dtype == chunk.dtype
    assert quality.meets(chunk, decoded, target)
    if case not in ("3-D", "1-D"):  # there the fallback happens to be smaller
        assert describe_chunk(frame).mode == "siren"


def test_a_scale_of_the_wrong_length_is_named():
    with pytest.raises(ConfigurationError, match="scale has 2 entries for 6"):
        encode_chunks([smooth()], Target(rmse=0.1, scale=(1.0, 2.0)), FAST)


def test_progress_rises_to_the_end():
    seen = []
    encode_chunks([smooth(shape=(8, 28, 30))], Target(rmse=8.0), FAST, seen.append)
    fractions = [p.fraction for p in seen]
    assert len(seen) > 10 and fractions[-1] == 1.0 and fractions == sorted(fractions)
    assert any(p.rmse is not None for p in seen) and seen[-1].chunks_done == seen[-1].chunks_total == 1


# ---- the loop ----------------------------------------------------------------------------------------------


SIREN = uniform(("sine",) * 3, 24)


def make_trainer(rate: float, steps: int, nets: int = 2, architecture: Architecture = SIREN) -> Trainer:
    batch = Batch([problem(smooth(seed=s), Target(rmse=8.0)) for s in range(nets)], CPU)
    networks = initialise(architecture, *batch.items[0].key, 20.0, [m.seed for m in batch.items], CPU)
    return Trainer(batch, networks, Schedule(steps=steps, samples=512, rate=rate, warm_up=10, check_every=10), 20.0)


def test_a_diverged_network_goes_back_and_slows_down_and_leaves_the_others_alone():
    trainer = make_trainer(1e-2, 40)
    trainer.run()
    best, other = trainer.best.clone(), [t[1].clone() for t in trainer.networks.tensors]
    with torch.no_grad():
        for tensor in trainer.networks.tensors:
            tensor[0] = math.nan
    seen = trainer.guard()
    assert trainer.restarts == 1 and trainer.patience.tolist() == [0.5, 1.0]
    assert seen[0] == best[0] and trainer.distortion(trainer.probe)[0] == pytest.approx(float(best[0]))
    assert all(torch.equal(t[1], o) for t, o in zip(trainer.networks.tensors, other, strict=True))


def test_a_rate_far_too_high_is_survived():
    trainer = make_trainer(2.0, 300)
    trainer.run()
    assert trainer.restarts > 0
    assert all(torch.isfinite(t).all() for t in trainer.networks.tensors)
    assert (distortion(trainer.batch, trainer.kept, trainer.probe) <= trainer.best * 1.001).all()


def test_a_network_that_reached_its_target_leaves_the_batch():
    easy, hard = problem(smooth(noise=0.0), Target(rmse=60.0)), problem(smooth(seed=1), Target(rmse=5.0))
    steps: list[int] = []
    group = search._Group([easy, hard], FAST, CPU, search._Watch(2, None))

    class Counting(Trainer):
        def _update(self, step, gradients):
            steps.append(len(self.batch.items))
            super()._update(step, gradients)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "Trainer", Counting)
        networks = group._fit_floats([0, 1], uniform(("sine",) * 4, 24), group._reporter("fitting", 0, 1, 1))
    assert steps[0] == 2 and steps[-1] == 1
    assert networks.weights[0].shape[0] == 2
    assert distortion(group.batch, networks)[0] < 10 ** (-search.EFFORTS["fast"].leave / 10) * 1.05


# ---- architectures -----------------------------------------------------------------------------------------


def test_every_activation_of_the_format_can_be_fitted():
    assert {a.integer for a in activations.ACTIVATIONS.values()} == {*layers.ACTIVATIONS.values()}
    for name, kind in activations.ACTIVATIONS.items():
        assert kind.integer is layers.BY_NAME[name]
        real = torch.linspace(-3 * kind.top, 3 * kind.top, 4001)
        z = np.rint(real.double().numpy() / kind.turn * 2.0**32)
        z = (z.astype(np.int64) % 2**32).astype(np.uint32) if kind.integer.wraps else z
        out = np.empty(z.shape, np.float32)
        kind.integer.apply(z, np.empty(z.shape, np.intp), out)
        assert np.abs(out * (kind.top / layers.AMPLITUDE) - kind.forward(real).numpy()).max() < 1.6 * kind.top / 1023


@pytest.mark.parametrize("names, network", [
    (("relu",) * 3, Network(name="mlp-relu", layers=3)),
    (("tanh",) * 3, Network(name="mlp-tanh", layers=3)),
    (("sine", "relu", "relu"), Network(name="mlp-siren", layers=3)),
    (("relu", "sine"), Network(name="mlp-siren", layers=2, sine="last")),
])  # fmt: skip
def test_the_search_takes_every_network_of_a_place(names, network):
    options = replace(FAST, network=network)
    group = search._Group([problem(smooth(shape=(8, 28, 30)), Target(rmse=12.0))], options, CPU,
                          search._Watch(1, None))  # fmt: skip
    made = group.fit()[0].network
    assert made is not None
    assert tuple(a.activation.name for a in made.network.layers) == names
    assert rounding.decoded_distortion(group.items[0], made) <= 1
    reader = Reader(memoryview(siren.write(made)))
    again = siren.read(reader, np.dtype("<i2"), group.items[0].problem.core.shape)
    assert rounding.decoded_distortion(group.items[0], again) == rounding.decoded_distortion(group.items[0], made)


# ---- rounding ----------------------------------------------------------------------------------------------


ARCHITECTURES = {
    "siren": SIREN,
    "relu": uniform(("relu",) * 3, 24),
    "sine first": Architecture((Layer(32, "sine"), Layer(24, "relu"), Layer(16, "relu"))),
    "sine last": Architecture((Layer(24, "relu"), Layer(24, "relu"), Layer(32, "sine"))),
    "tanh": uniform(("tanh",) * 3, 24),
    "bottleneck": Architecture((Layer(24, "sine"), Layer(6, "linear"), Layer(24, "sine"))),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_integers_decode_to_what_the_rounded_floats_give(name):
    trainer = make_trainer(1e-2, 200, architecture=ARCHITECTURES[name])
    trainer.run()
    base = quantise.equal_slope_steps(trainer.batch, trainer.networks, trainer.probe)
    quantiser = quantise.Quantiser(base, torch.full((2,), 0.2), quantise.finest_steps(trainer.networks))
    rounded = distortion(trainer.batch, quantiser(trainer.networks))
    for net, item in enumerate(trainer.batch.items):
        network = quantise.to_format(item, trainer.networks, net, quantiser.steps[net].double().numpy())
        network = replace(network, low=-(2**15), high=2**15 - 1)  # the floats are not limited either
        assert rounding.decoded_distortion(item, network) == pytest.approx(float(rounded[net]), rel=0.02, abs=0.005)


def test_coarser_steps_cost_fewer_bits_and_more_error():
    trainer = make_trainer(1e-2, 200)
    trainer.run()
    base = quantise.equal_slope_steps(trainer.batch, trainer.networks, trainer.probe)
    bits, error = [], []
    for coarse in (0.02, 0.1, 0.5):
        quantiser = quantise.Quantiser(base, torch.full((2,), coarse), quantise.finest_steps(trainer.networks))
        bits.append(float(quantise.estimated_bits(trainer.networks, quantiser.steps).sum()))
        error.append(float(distortion(trainer.batch, quantiser(trainer.networks)).sum()))
    assert bits == sorted(bits, reverse=True) and error == sorted(error)


def test_values_too_large_for_the_format_get_no_network_and_keep_their_promise(monkeypatch):
    chunk = (smooth(shape=(8, 28, 30)).astype(np.int64) << 40) + (1 << 61)
    target = Target(rmse=1e9)
    competing = replace(FAST, mode="auto", network=None, preset="small")
    monkeypatch.setitem(search.EFFORTS, "small", search.EFFORTS["fast"])
    (frame,) = encode_chunks([chunk], target, competing)
    assert quality.meets(chunk, decode_chunk(frame), target)
    extreme = smooth(shape=(8, 28, 30)).astype(np.float64) * 1e300
    (frame,) = encode_chunks([extreme], Target(rmse=1e301), competing)
    assert quality.meets(extreme, decode_chunk(frame), Target(rmse=1e301))
    for values, rmse in ((chunk, 1e9), (extreme, 1e301)):
        with pytest.raises(NotHeldError, match="chunk 0: "):
            encode_chunks([values], Target(rmse=rmse), FAST)


@pytest.mark.parametrize("width", [64, 256])
def test_no_step_is_so_fine_that_products_of_a_layer_would_not_be_exact(width):
    networks = initialise(uniform(("relu",) * 3, width), 3, 2, 20.0, [1, 2], CPU)
    networks.weights[1].fill_(0.5)  # every weight is the largest one
    networks.weights[-1].fill_(-3.0)
    steps = quantise.finest_steps(networks)
    assert steps.shape == (2, 5)
    for group, index in ((1, 1), (-1, -1)):
        weights = torch.round(networks.weights[index][0] / steps[0, group]).numpy().T.astype(np.int64)
        assert abs(weights).max() <= limits.MAX_SYMBOL
        layers.check_products(weights, layers.AMPLITUDE, "weights")
        with pytest.raises(LimitExceededError):
            layers.check_products(weights * 2, layers.AMPLITUDE, "weights")
