"""Networks are first-class: which one is asked for, that nothing else holds a chunk, and what is said of it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import inrstore  # noqa: E402
from inrstore.archive.rules import Rule, read_rules  # noqa: E402
from inrstore.chunk import quality  # noqa: E402
from inrstore.chunk.boxes import NO_BUDGET  # noqa: E402
from inrstore.chunk.decode import decode_chunk, describe_chunk  # noqa: E402
from inrstore.chunk.encode import encode_chunks  # noqa: E402
from inrstore.chunk.inr.fit import rounding, search  # noqa: E402
from inrstore.chunk.inr.fit.data import Batch, prepare  # noqa: E402
from inrstore.chunk.inr.fit.networks import initialise, uniform  # noqa: E402
from inrstore.chunk.inr.fit.recipe import recipe_of  # noqa: E402
from inrstore.chunk.inr.fit.trainer import Schedule, Trainer  # noqa: E402
from inrstore.chunk.quality import Target  # noqa: E402
from inrstore.chunk.siren.encode import fit_task  # noqa: E402
from inrstore.chunk.task import Task  # noqa: E402
from inrstore.cli.options import ModeName, NetworkChoice, PresetName, SineName, described  # noqa: E402
from inrstore.errors import ConfigurationError, NotHeldError, QualityError  # noqa: E402
from inrstore.options import EncodeOptions, Network, NetworkName  # noqa: E402
from inrstore.store.options import Options  # noqa: E402
from inrstore.store.quality import AS_FOUND, UNASKED, Quality  # noqa: E402

pytestmark = pytest.mark.fit
CPU = torch.device("cpu")
SMALL = Network(name="siren2d", layers=2, units=12, steps=60)


def waves(shape: tuple[int, ...] = (3, 4, 12, 10), noise: float = 1.0) -> np.ndarray:
    """Return (t, z, y, x): a smooth image, other in each measurement."""
    rng = np.random.default_rng(0)
    t, z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    image = 300 + 200 * np.exp(-(x**2) - y**2 - z**2) * (1 + 0.4 * t) + 40 * np.sin(3 * x + t)
    return np.clip(image + rng.normal(0, noise, shape), 0, None).astype(np.int16)


def saved(folder: Path, values: np.ndarray, name: str = "x") -> Path:
    path = folder / f"{name}.nii.gz"
    nib.save(nib.Nifti1Image(np.ascontiguousarray(values.T), np.eye(4)), path)
    return path


# ---- what is asked for -------------------------------------------------------------------------------------


@pytest.mark.parametrize("given, field", [
    ({"name": "siren4d"}, "network"), ({"layers": 17}, "layers"), ({"units": 257}, "units"), ({"units": -1}, "units"),
    ({"layers": True}, "layers"), ({"steps": 10**8}, "steps"), ({"omega_0": math.nan}, "omega_0"),
    ({"rate": -1.0}, "rate"),
    ({"downsample": 3}, "downsample"), ({"downsample": 2}, "downsample"), ({"channels": 4}, "channels"),
    ({"sine": "middle"}, "sine"), ({"sine": "last"}, "sine"), ({"depth": 3}, "depth"),
])  # fmt: skip
def test_a_network_that_cannot_be_is_refused_by_its_field(given, field):
    with pytest.raises(ConfigurationError, match=field):
        Network.of(given)


def test_a_network_makes_the_mode_siren_and_another_mode_contradicts_it():
    for options in (EncodeOptions(network="siren2d"), EncodeOptions(mode="siren"), EncodeOptions(preset="paper")):
        assert options.mode == "siren" and options.strict and options.networks and options.network is not None
    assert EncodeOptions(preset="paper").network == Network(name="siren2d")
    assert not EncodeOptions(preset="small").strict and EncodeOptions(preset="small").networks
    for mode in ("transform", "av1"):
        with pytest.raises(ConfigurationError, match=mode):
            EncodeOptions(mode=mode, network="siren3d")


def test_networks_are_said_and_read_again():
    for network in (Network(), SMALL, Network(name="mlp-siren", sine="last", omega_0=15.0),
                    Network(name="fourier-siren-srno", downsample=4, channels=8)):  # fmt: skip
        assert Network.of(json.loads(json.dumps(network.to_dict()))) == network


def test_every_name_is_a_choice_of_the_command_line():
    from typing import get_args

    assert tuple(choice.value for choice in NetworkChoice) == get_args(NetworkName)
    nothing = {"layers": 0, "units": 0, "sine": SineName.first}
    assert described(None, ModeName.auto, PresetName.fast, **nothing) is None
    made = described(NetworkChoice.fourier, ModeName.auto, PresetName.fast, downsample=4, channels=8, **nothing)
    assert made == Network(name="fourier-siren-srno", downsample=4, channels=8)
    assert described(None, ModeName.auto, PresetName.paper, layers=5) == Network(name="siren2d", layers=5)
    assert described(None, ModeName.siren, PresetName.fast, units=9) == Network(units=9)
    with pytest.raises(ConfigurationError, match="units"):
        described(None, ModeName.auto, PresetName.fast, units=9)


def test_a_size_without_a_quality_keeps_what_is_found_and_a_quality_is_never_forgotten():
    sized = Network(units=9)
    assert Options(quality=UNASKED, network=sized).quality is AS_FOUND
    assert Options(quality=UNASKED, network=sized).effort.found
    assert Options(quality=UNASKED, preset="paper").found
    assert Options(quality=UNASKED, network=Network(name="fourier-siren-srno", downsample=2, channels=4)).found
    for options in (Options(quality=UNASKED, network=Network()), Options(quality=Quality(psnr=40.0), network=sized),
                    replace(Options(quality=UNASKED, network=sized), network=Network(layers=3))):  # fmt: skip
        assert not options.found and options.quality.psnr == 40
    with pytest.raises(ConfigurationError, match="max_error"):
        Options(quality=Quality(max_error=2.0), network=sized)
    with pytest.raises(ConfigurationError, match="chunks"):
        Options(quality=UNASKED, network="siren2d", chunks=(8, 64, 64))


def test_rules_name_networks(tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text('[dwi]\nnetwork = "siren2d"\nlayers = 3\nunits = 64\n[T1w]\nnetwork = "mlp-siren"\nsine = "last"\n')
    rules = read_rules(str(path), Options(quality=UNASKED), asked=False)
    dwi = rules.choose("sub-1/dwi/sub-1_dwi.nii.gz")
    assert dwi.options.network == Network(name="siren2d", layers=3, units=64) and dwi.options.found
    t1w = rules.choose("sub-1/anat/sub-1_T1w.nii.gz").options
    assert t1w.network == Network(name="mlp-siren", sine="last") and t1w.quality.psnr == 40
    labels = rules.choose("sub-1/anat/sub-1_dseg.nii.gz").options
    assert labels.network is None and labels.quality.lossless
    assert dwi.settings != rules.choose("sub-1/func/sub-1_bold.nii.gz").settings
    assert Rule(name="dwi", network=SMALL).to_dict()["network"] == SMALL.to_dict()
    for text, words in (("units = 3", "units: goes with network"), ('network = "no"', "network must be one of"),
                        ('network = "siren2d"\nunits = 999', "units must be")):  # fmt: skip
        path.write_text(f"[dwi]\n{text}\n")
        with pytest.raises(ConfigurationError, match=rf"rules.toml: \[dwi\].*{words}"):
            read_rules(str(path), Options(quality=UNASKED), asked=False)


# ---- a network holds it, or nothing does -------------------------------------------------------------------


def test_mode_siren_refuses_what_no_network_holds_and_says_how_near_it_came():
    noise = np.random.default_rng(1).integers(0, 4000, (2, 2, 8, 8)).astype(np.uint16)
    options = EncodeOptions(preset="fast", network=SMALL, device="cpu", threads=1)
    with pytest.raises(NotHeldError, match=r"chunk 1: .*the best is \d+\.\d\d dB below it") as caught:
        encode_chunks([np.full_like(noise, 3), noise], Target(rmse=20.0), options)
    assert caught.value.chunk == 1
    with pytest.raises(NotHeldError, match="chunk 0: a network keeps a mean error"):
        encode_chunks([noise], Target(max_error=3.0), options)
    with pytest.raises(NotHeldError, match="true or false"):
        encode_chunks([noise > 2000], Target(rmse=0.1), options)


def test_constant_and_lossless_chunks_are_no_networks_in_mode_siren():
    options = EncodeOptions(mode="siren", preset="fast", device="cpu", threads=1)
    constant = np.full((2, 3, 4, 5), 7, np.int16)
    image = waves((2, 3, 6, 5))
    frames = encode_chunks([constant, image], [Target(rmse=2.0), Target(lossless=True)], options)
    assert describe_chunk(frames[0]).mode == "constant" and describe_chunk(frames[1]).mode != "siren"
    assert (decode_chunk(frames[1]) == image).all()


@pytest.mark.parametrize("dtype", ["<i2", "<u2", "<f4", "<f8"])
def test_a_single_place_is_held_exactly_without_a_fit(dtype):
    chunk = np.zeros((5, 1, 6, 7), dtype)
    chunk[:, 0, 3, 2] = [3, 500, 20, 7, 9.5]
    (frame,) = encode_chunks([chunk], Target(rmse=1e-3), EncodeOptions(network="siren2d", device="cpu", threads=1))
    assert describe_chunk(frame).mode == "siren"
    assert np.allclose(decode_chunk(frame), chunk, rtol=1e-7)


def test_a_store_that_misses_names_image_and_chunk_and_leaves_nothing(tmp_path):
    path = saved(tmp_path, np.random.default_rng(0).integers(0, 999, (2, 2, 9, 8)).astype(np.int16))
    with pytest.raises(QualityError, match=r"x\.nii\.gz: image/c/0/0/0/0: no network keeps the target: the best is"):
        inrstore.convert(path, tmp_path / "s.ozx", psnr=45, network=SMALL, preset="fast", device="cpu")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with pytest.raises(ConfigurationError, match="lossless"):
        inrstore.convert(path, tmp_path / "s.ozx", lossless=True, mode="siren")


# ---- as found, and as published ----------------------------------------------------------------------------


@pytest.mark.parametrize("network, preset", [
    (SMALL, "fast"), (SMALL, "paper"), (Network(name="mlp-tanh", layers=2, units=12, steps=60), "paper"),
    (Network(name="siren3d", layers=2, units=12, steps=60), "fast"),
    (Network(name="siren2d-relu", layers=2, units=12, steps=60), "paper"),
])  # fmt: skip
def test_a_network_of_a_given_size_promises_what_it_reaches(tmp_path, network, preset):
    values = waves()
    path, store = saved(tmp_path, values), tmp_path / "s.ozx"
    report = inrstore.convert(path, store, network=network, preset=preset, device="cpu")
    slices = 4 if preset == "paper" or network.name != "siren3d" else 1
    assert report.modes == {"siren": slices}
    (psnr,) = report.promised.values()
    assert report.psnr - 0.001 <= psnr <= report.psnr and psnr > 5
    info = inrstore.info(store)
    for chunk in info.chunk_list:
        assert (chunk["layers"], chunk["width"], chunk["channels"]) == (2, 12, 3)
        inputs = 2 if slices > 1 else 3
        assert chunk["parameters"] == 12 * inputs + 12 + 12 * 12 + 12 + 3 * 12
        assert chunk["bits_per_parameter"] == pytest.approx(8 * chunk["bytes"] / chunk["parameters"], rel=0.35)
    inrstore.verify(store, against=path)
    import zarr

    with zarr.storage.ZipStore(store, mode="r") as opened:
        group = zarr.open_group(opened, mode="r")
        own = group.attrs["inrstore"]
        assert own["network"] == {"preset": preset, **network.to_dict()}
        assert own["quality"]["asked"] == {"psnr": psnr}
        image = group["image"]
        promise = next(c for c in image.metadata.codecs if hasattr(c, "target")).target
        for index in range(4 if slices > 1 else 1):
            part = np.s_[:, index : index + 1] if slices > 1 else np.s_[:]
            assert quality.rmse(values[part], image[part], Target(rmse=1.0)) <= promise.rmse


def test_rounding_costs_a_tenth_of_a_decibel_where_nothing_is_promised():
    chunk = waves((3, 1, 20, 20), noise=3.0)
    target = Target(rmse=1.0, scale=tuple(float(np.ptp(c)) for c in chunk))
    item = prepare(fit_task(0, Task(chunk, None, target), NO_BUDGET), published=True)
    batch = Batch([item], CPU)
    networks = initialise(uniform(("sine",) * 2, 24), *item.key, 30.0, [0], CPU, published=True)
    trainer = Trainer(batch, networks, Schedule(steps=150, samples=400, rate=1e-3, plain=True), 30.0)
    trainer.run()
    made = rounding.round_after(item, batch, trainer.kept, found=True)
    before = rounding._mean_square(item, batch, trainer.kept)
    assert made is not None
    assert rounding.decoded_distortion(item, made) <= before * 10 ** (rounding.LOSS / 10) + rounding._of_rounding(item)
    assert rounding.decoded_distortion(item, made) >= before * 0.9  # and it uses what it may cost


def test_published_means_what_the_publication_says():
    recipe = recipe_of(EncodeOptions(preset="paper"))
    assert recipe.activations == ("sine",) * 3 and recipe.width == 256 and recipe.steps == 2000
    assert recipe.omega_0 == 30 and recipe.rate == 3e-4 and recipe.published and not recipe.limited
    assert recipe_of(EncodeOptions(preset="paper", network=Network(name="siren2d-relu", units=64))).width == 64
    assert recipe_of(EncodeOptions(network="siren2d-relu")).limited
    (made,) = (initialise(uniform(("sine",) * 3, 64), 2, 5, 30.0, [1], CPU, published=True),)
    bounds = [30 / 2, math.sqrt(6 / 64), math.sqrt(6 / 64), math.sqrt(6 / 64) / 30]
    for weight, bias, bound in zip(made.weights, made.biases, bounds, strict=True):
        assert 0.9 * bound < float(weight.abs().max()) <= bound and float(bias.abs().max()) <= bound
    chunk = waves((3, 1, 9, 8))
    item = prepare(fit_task(0, Task(chunk, None, Target(rmse=5.0)), NO_BUDGET), published=True)
    assert item.values.min(0).tolist() == [0.0] * 3 and item.values.max(0).tolist() == [1.0] * 3


def test_the_best_iterate_of_a_published_fit_is_kept():
    item = prepare(fit_task(0, Task(waves((3, 1, 12, 12)), None, Target(rmse=5.0)), NO_BUDGET), published=True)
    networks = initialise(uniform(("sine",) * 2, 16), *item.key, 30.0, [0], CPU, published=True)
    trainer = Trainer(Batch([item], CPU), networks, Schedule(steps=60, samples=144, rate=3e-2, plain=True), 30.0)
    seen: list[float] = []
    trainer.run(lambda step, distortion: seen.append(float(distortion)))
    assert float(trainer.best) <= min(seen)
    trainer.networks = trainer.kept
    assert float(trainer.distortion()) == pytest.approx(float(trainer.best), rel=1e-5)


def test_a_final_relu_is_the_limit_that_readers_have():
    chunk = waves((2, 1, 10, 10)) - 300
    chunk[chunk < 0] = 0
    item = prepare(fit_task(0, Task(chunk, None, Target(rmse=5.0)), NO_BUDGET))
    batch = Batch([item], CPU, limited=True)
    low = float(chunk.min())
    assert batch.floor is not None
    assert np.allclose(batch.floor[0, 0].numpy() * item.unit + item.mean, low, atol=1e-3)
    found = torch.full((1, 4, 2), -1e6)
    assert torch.equal(batch.limited(found), batch.floor.expand(1, 4, 2))
    assert torch.equal(batch.subset([0]).limited(found), batch.limited(found))
    assert Batch([item], CPU).limited(found) is found


# ---- how a fit goes ----------------------------------------------------------------------------------------


def test_a_fit_is_logged_as_numbers_and_as_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    path = saved(tmp_path, waves())
    log = tmp_path / "fit.csv"
    inrstore.convert(path, tmp_path / "s.ozx", network=SMALL, preset="paper", device="cpu", log_fit=log)
    lines = [line.split(",") for line in log.read_text().splitlines()]
    assert lines[0] == ["chunk", "stage", "step", "loss", "psnr"]
    assert {line[0] for line in lines[1:]} == {"0", "1", "2", "3"}
    for _, stage, step, loss, psnr in lines[1:]:
        assert stage == "fit" and 1 <= int(step) <= 60
        assert float(psnr) == pytest.approx(-10 * math.log10(float(loss)), abs=0.01)
    assert (tmp_path / "fit.png").read_bytes().startswith(b"\x89PNG")
    noise = saved(tmp_path, np.random.default_rng(0).integers(0, 999, (2, 2, 9, 8)).astype(np.int16), "noise")
    with pytest.raises(QualityError):  # what missed is logged, too; an own log is replaced
        inrstore.convert(noise, tmp_path / "t.ozx", network=SMALL, preset="fast", device="cpu", psnr=45, log_fit=log)
    assert "fit" in log.read_text()


def test_a_log_replaces_no_other_file_and_needs_a_fit(tmp_path):
    pytest.importorskip("matplotlib")
    path, other = saved(tmp_path, waves()), tmp_path / "mine.csv"
    other.write_text("mine")
    for log, options, words in (
        (other, {"network": SMALL}, "exists already"), (tmp_path / "a.png", {"network": SMALL}, "ends in .png"),
        (tmp_path / "a.csv", {}, "nothing is fitted"),
    ):  # fmt: skip
        with pytest.raises(ConfigurationError, match=words):
            inrstore.convert(path, tmp_path / "s.ozx", log_fit=log, **options)
    with pytest.raises(ConfigurationError, match="single store"):
        inrstore.convert(tmp_path, tmp_path / "archive", log_fit=tmp_path / "a.csv", network=SMALL)
    assert other.read_text() == "mine" and not (tmp_path / "archive").exists()


def test_lines_of_progress_move_while_a_network_is_fitted(tmp_path):
    from inrstore.cli.progress import Lines

    now, lines = [0.0], list[str]()

    def clock() -> float:
        now[0] += 4.0
        return now[0]

    path = saved(tmp_path, waves((3, 1, 12, 10)))
    inrstore.convert(path, tmp_path / "s.ozx", network=replace(SMALL, steps=400), preset="fast", device="cpu",
                     progress=Lines(lines.append, clock))  # fmt: skip
    parts = [int(line.split("fitting ")[1].split("%")[0]) for line in lines if "fitting" in line]
    assert len(parts) >= 3 and parts == sorted(parts) and parts[-1] > parts[0]
    assert all("dB" in line for line in lines if "fitting" in line)


def test_a_size_is_not_taken_for_a_failed_fit_because_it_is_small():
    item = prepare(fit_task(0, Task(waves(), None, Target(rmse=3.0)), NO_BUDGET))
    group = search._Group([item], EncodeOptions(mode="siren", preset="balanced", device="cpu"), CPU,
                          search._Watch(1, None))  # fmt: skip
    group.probed = torch.tensor([8.0])
    large, small = (uniform(group.recipe.activations, width) for width in (64, 12))
    assert group._expected(0, large) == 8.0
    assert group._expected(0, small) < 0


def test_a_dry_run_and_a_resumed_archive_know_the_network(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    saved(source, waves((2, 2, 8, 8)), "a")
    plan = inrstore.convert(source, tmp_path / "out", network=SMALL, preset="fast", device="cpu", dry_run=True)
    assert [image.codec for image in plan.images] == ["siren"]
    inrstore.convert(source, tmp_path / "out", network=SMALL, preset="fast", device="cpu")
    again = inrstore.update(source, tmp_path / "out", device="cpu", dry_run=True)
    assert "new" not in again.counts or not again.counts["new"]
