"""Two networks are fitted together, with a refiner of their own or a shared one, and rounded as readers round."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from checks import run_python
from common import write_nifti

import inrstore

torch = pytest.importorskip("torch")

from inrstore.chunk.decode import decode_chunk, describe_chunk  # noqa: E402
from inrstore.chunk.encode import encode_chunks  # noqa: E402
from inrstore.chunk.inr.fit.refiner import UNIT, RefinerModel, place  # noqa: E402
from inrstore.chunk.inr.fit.superres import train_shared  # noqa: E402
from inrstore.chunk.modes import check_shared  # noqa: E402
from inrstore.chunk.quality import Target  # noqa: E402
from inrstore.chunk.shared import of  # noqa: E402
from inrstore.chunk.superres.evaluate import Evaluator, Inputs  # noqa: E402
from inrstore.chunk.superres.network import Dense, Operator  # noqa: E402
from inrstore.chunk.superres.resample import lanczos, low_pass, reduced  # noqa: E402
from inrstore.chunk.superres.systems import system_of  # noqa: E402
from inrstore.errors import ConfigurationError, NotHeldError  # noqa: E402
from inrstore.options import EncodeOptions, Network  # noqa: E402

DENSE, OPERATOR = "lanczos-siren-srdensenet", "fourier-siren-srno"
TARGET = Target(rmse=1e6)


def image(shape: tuple[int, ...] = (12, 14, 16), dtype: str = "<i2") -> np.ndarray:
    """Return a soft object with an edge."""
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    values = 800 * np.exp(-2 * sum(a * a for a in axes)) + 300 * (axes[-1] + axes[0] > 0.3)
    return np.rint(values).astype(dtype) if np.dtype(dtype).kind in "iu" else values.astype(dtype)


def options(name: str, steps: int = 120, seed: int = 0, threads: int = 1, **fields) -> EncodeOptions:
    fields = {"downsample": 2, "channels": 2, "layers": 2, "units": 12} | fields
    return EncodeOptions(preset="fast", device="cpu", threads=threads, found=True, seed=seed,
                         network=Network(name=name, steps=steps, **fields))  # fmt: skip


def error_of(values: np.ndarray, frame: bytes, **given) -> float:
    return float(np.sqrt(np.mean((decode_chunk(frame, **given).astype(float) - values.astype(float)) ** 2)))


@pytest.mark.parametrize("name", [DENSE, OPERATOR])
def test_a_chunk_is_held_by_two_networks_with_what_they_reach(name):
    values = image((8, 12, 14))
    [frame] = encode_chunks([values], TARGET, options(name, 110))
    told = describe_chunk(frame)
    assert told.mode == "superres" and told.details["scales"] == ((1, 2, 2) if name == DENSE else (2, 2, 2))
    assert error_of(values, frame) < 0.4 * values.std()


def test_what_was_trained_is_what_readers_decode():
    """Rounded in torch, outputs are those of the integer reader but for ties and single precision."""
    for plan, reach, scales in (
        (Dense(1, 2, 3, 4, 5), (0, 1, 1), (0, 1, 1)),
        (Operator(2, 3, 8, 2, 1), (1, 1, 1), (1, 1, 1)),
    ):
        model = RefinerModel(plan, reach, scales, 3, torch.device("cpu"))
        with torch.no_grad():
            for tensor in model.tensors:
                tensor.add_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(4)) * 0.05)
        refiner = model.refiner()
        lengths = (6, 12, 10)
        coarse = np.random.default_rng(5).integers(-300, 300, refiner.coarse(lengths))
        made, own = np.zeros((2, *lengths))
        for part, fine, sums in Evaluator(refiner, lengths)(coarse, Inputs(0, 1 << 10, 10)):
            made[part], own[part] = sums, fine
        places = [place(n, e, torch.device("cpu")) for n, e in zip(lengths, scales, strict=True)]
        with torch.no_grad():
            fine, added = model(torch.from_numpy(coarse).float()[None] / UNIT, places)
        step = float(model.steps[-1]) / UNIT
        assert np.abs(fine[0].numpy() * UNIT - own).max() <= 0.51
        difference = np.abs(added[0].numpy() / step - made)
        assert difference.mean() < 0.02 * np.abs(made).mean()
        again = RefinerModel.of(refiner, step, torch.device("cpu"))
        with torch.no_grad():
            assert torch.allclose(again(torch.from_numpy(coarse).float()[None] / UNIT, places)[1], added, atol=0.02)


def test_a_refiner_trained_on_images_serves_others_by_name():
    network = Network(name=DENSE, downsample=2, channels=2, steps=40)
    data = train_shared([image((8, 20, 20)), image((9, 24, 18))[::-1]], network, EncodeOptions(preset="fast"))
    check_shared(of(data))
    assert train_shared([image((8, 20, 20)), image((9, 24, 18))[::-1]], network, EncodeOptions(preset="fast")) == data
    values = image((6, 18, 20))
    [frame] = encode_chunks([values], TARGET, options(DENSE), shared=of(data))
    assert describe_chunk(frame).details.keys() == {"shared"}
    assert describe_chunk(frame, of(data)).details["refiner_bytes"] == 0
    [alone] = encode_chunks([values], TARGET, options(DENSE))
    assert len(frame) < len(alone) - len(data) // 2
    assert error_of(values, frame, shared=of(data)) < 0.5 * values.std()


def test_a_target_that_is_missed_is_an_error_that_says_by_how_much():
    with pytest.raises(NotHeldError, match="dB below"):
        encode_chunks([image()], Target(rmse=0.5), options(OPERATOR, 20))


def test_a_store_of_two_networks_opens_in_plain_zarr_without_torch(tmp_path):
    values = image((5, 12, 14))
    write_nifti(tmp_path / "a.nii.gz", values.T)
    asked = {"name": OPERATOR, "downsample": 2, "channels": 2, "layers": 2, "units": 8, "steps": 12}
    report = inrstore.convert(tmp_path / "a.nii.gz", tmp_path / "a.zarr", network=asked, preset="fast")
    assert report.modes == {"superres": 1}
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "import zarr, numpy as np; a = zarr.open(sys.argv[1], mode='r')['image'][:]; print(a.shape, int(a.sum()))"
    )
    read = run_python(script, str(tmp_path / "a.zarr")).split()
    wanted = zarr.open(str(tmp_path / "a.zarr"), mode="r")["image"][:]
    assert read == f"{wanted.shape} {int(wanted.sum())}".split() and wanted.shape == values.shape
    inrstore.verify(tmp_path / "a.zarr")


def test_neither_threads_nor_chunks_beside_change_a_byte_and_a_seed_does():
    values = [image((4, 10, 10)), image((4, 10, 10))[:, ::-1]]
    one = encode_chunks(values, TARGET, options(DENSE, 12, threads=2))
    assert encode_chunks(values[1:], TARGET, options(DENSE, 12)) == one[1:]
    assert encode_chunks(values[1:], TARGET, options(DENSE, 12, seed=1)) != one[1:]


@pytest.mark.parametrize("name", [DENSE, OPERATOR])
def test_measurements_masks_other_types_and_odd_lengths(name):
    four = np.stack([image((5, 11, 9)), image((5, 11, 9)) // 3 + 40])
    [frame] = encode_chunks([four], TARGET, options(name))
    assert describe_chunk(frame).details["channels"] == 2
    assert error_of(four, frame) < 0.6 * four.std()
    floats = image((6, 9, 10), "<f4") / 1e4
    floats[0, 0, 0] = np.nan
    inside = np.ones(floats.shape, bool)
    inside[:, 6:] = False
    [frame] = encode_chunks([floats], TARGET, options(name), masks=[inside])
    decoded = decode_chunk(frame)
    assert np.isnan(decoded[0, 0, 0]) and not decoded[:, 6:].any()
    kept = inside & ~np.isnan(floats)
    assert np.sqrt(np.mean((decoded - floats)[kept] ** 2)) < 0.6 * floats[kept].std()
    for shape in ((40,), (14, 18), (1, 9, 9), (2, 1, 12)):
        [frame] = encode_chunks([image(shape)], TARGET, options(name, 6))
        assert describe_chunk(frame).mode == "superres" and decode_chunk(frame).shape == shape


def test_coarse_images_keep_what_is_slow_and_their_place():
    for how in (lanczos, low_pass):
        for length, scale in ((16, 2), (17, 4), (24, 8), (3, 2)):
            matrix = how(length, scale)
            assert matrix.shape == (-(-length // scale), length)
            assert np.allclose(matrix.sum(1), 1)
        assert np.array_equal(how(9, 1), np.eye(9)) or np.allclose(how(9, 1), np.eye(9))
    ramp = np.arange(64.0)
    middle = slice(4, -4)
    assert np.allclose((lanczos(64, 2) @ ramp)[middle], (ramp.reshape(-1, 2).mean(1))[middle], atol=0.02)
    wave = np.cos(np.pi * 3 * (np.arange(32) + 0.5) / 32)
    assert np.allclose(low_pass(32, 4) @ wave, np.cos(np.pi * 3 * (np.arange(8) + 0.5) / 8))
    fast = np.cos(np.pi * 20 * (np.arange(32) + 0.5) / 32)
    assert np.allclose(low_pass(32, 2) @ fast, 0)
    assert reduced(np.ones((4, 6, 8)), (1, 2, 4), low_pass).shape == (4, 3, 2)


def test_systems_follow_the_options_and_name_what_is_wrong():
    made = system_of(Network(name=OPERATOR, downsample=8, channels=16), 3, (64, 64, 5))
    assert made.scales == (3, 3, 2) and made.plan == Operator(2, 16, 32, 2, 1) and made.absolute
    made = system_of(Network(name=DENSE, downsample=4, channels=16), 3, (3, 64, 64))
    assert made.scales == (0, 2, 2) and made.reach == (0, 1, 1) and made.plan.growth == 16
    with pytest.raises(ConfigurationError, match="channels"):
        system_of(Network(name=DENSE, channels=65), 3, (8, 8, 8))
    with pytest.raises(ConfigurationError, match="refining"):
        train_shared([image()], Network())
