"""Training of neighbourhood networks: the same each time, better than no network, within all limits, exact in torch."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from checks import check_equal_bits, run_python
from test_format_neural import coded, ct, extreme

torch = pytest.importorskip("torch")

from inrstore.chunk.decode import decode_chunk  # noqa: E402
from inrstore.chunk.inr.fit.lossless import Exact, Plan, joint_loss, train  # noqa: E402
from inrstore.chunk.neural.encode import choose  # noqa: E402
from inrstore.chunk.neural.neighbourhood import PYRAMID, cube  # noqa: E402
from inrstore.chunk.neural.network import Network, read_network  # noqa: E402

pytestmark = pytest.mark.fit


def image(seed: int = 0) -> np.ndarray:
    """Return an image as networks see it: (m, z, y, x), not negative."""
    values = ct((8, 40, 40), seed).astype(np.int64)
    return (values - values.min())[None]


@cache
def trained(**fields) -> Network:
    """Return a network after a short training."""
    plan = Plan(neighbourhood=cube(1), widths=(12, 8), steps=700, batch=512, rate=8e-3, relative=True, seed=3)
    return train([image()], plan)


def error_of(network: Network, values: np.ndarray) -> float:
    """Return the mean absolute error of what a reader predicts."""
    coding = choose(values, [network])
    return float(np.abs(coding.padded[coding.order] - coding.predict() / 256).mean())


def test_a_network_predicts_an_image_that_it_has_not_seen():
    net, other = trained(), ct((8, 40, 40), 5)
    nothing = Network(net.neighbourhood, True, 3, 1, (0,), (np.zeros((1, 13), np.int64),), (np.zeros(1, np.int64),))
    centre = error_of(nothing, other)  # the mean of the nearest neighbours
    assert error_of(net, other) < 0.8 * centre
    check_equal_bits(decode_chunk(coded(other, net)), other)
    assert len(coded(other, net)) < len(coded(other, nothing))


def test_rounded_networks_stay_within_all_limits():
    for plan in (
        Plan(neighbourhood=cube(2), widths=(40, 3), steps=60, batch=64, rate=0.05, coarseness=(1e9, 1e9)),
        Plan(neighbourhood=PYRAMID, widths=(5,), steps=60, batch=64, clip=16383, seed=1),
        Plan(neighbourhood=cube(1), widths=(), steps=60, batch=64, rate=0.3),
        Plan(neighbourhood=cube(1), widths=(6, 6), steps=60, batch=64, local=False, leak=15),
    ):
        net = train([image()], plan)
        assert read_network(net.data).digest == net.digest  # a reader checks every limit
        assert (net.neighbourhood, net.widths, net.local) == (plan.neighbourhood, plan.widths, plan.local)


def test_the_same_training_gives_the_same_network():
    plan = Plan(neighbourhood=cube(1), widths=(4,), steps=80, batch=64, seed=5)
    one, other = (train([image(), image(1)], plan).data for _ in range(2))
    assert one == other
    assert one != train([image(), image(1)], Plan(neighbourhood=cube(1), widths=(4,), steps=80, batch=64, seed=6)).data


def test_the_loss_is_that_of_the_paper():
    rng = np.random.default_rng(0)
    found, wanted = rng.normal(0, 3, (2, 500))
    mae, pcc = np.abs(found - wanted).mean(), abs(np.corrcoef(found, wanted)[0, 1])
    loss = joint_loss(torch.tensor(found), torch.tensor(wanted), None, 0.7)
    assert float(loss) == pytest.approx(mae + 0.7 * (1 - pcc), rel=1e-6)


def test_images_of_several_measurements_and_few_values_are_learned_from():
    plan = Plan(neighbourhood=cube(1), widths=(4,), steps=30, batch=64)
    for values in (np.zeros((1, 4, 5, 6), np.int64), np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)):
        train([values], plan)


@pytest.mark.parametrize("local", [True, False])
def test_torch_makes_the_same_bits(local):
    wild = np.random.default_rng(8).integers(0, 65536, (3, 26, 30)).astype("<u2")
    for seed, (neighbourhood, widths) in enumerate(
        [(cube(2), (300, 200)), (PYRAMID, (64,)), (cube(1), ()), (cube(1), (9, 9))]
    ):
        net = extreme(seed, neighbourhood, widths, local)
        coding = choose(wild, [net])
        np.testing.assert_array_equal(coding.predict(), coding.predict(Exact("cpu")))
        if torch.cuda.is_available():
            np.testing.assert_array_equal(coding.predict(), coding.predict(Exact("cuda")))


def test_fitting_and_coding_need_neither_zarr_nor_nibabel():
    run_python(
        "import sys\nfor name in ('zarr', 'numcodecs', 'nibabel', 'xarray'): sys.modules[name] = None\n"
        "import inrstore.chunk.inr.fit.lossless, inrstore.chunk.neural.encode"
    )
