"""The rate-distortion benchmark is fair: every codec codes the same values and is measured by the project's PSNR."""

from __future__ import annotations

import csv
import json
from importlib.util import find_spec

import numpy as np
import pytest
from common import ROOT, needs_torch

from inrstore.evaluate.metrics import compare as measure
from inrstore.options import EncodeOptions
from inrstore.store.quality import Quality
from tools import bench_rate, bench_rate_ours, bench_rate_peers, bench_rate_report, bench_rate_sirenmri
from tools.bench_rate_data import Volume, load, save

needs_peers = pytest.mark.skipif(find_spec("imagecodecs") is None, reason="the peers come from imagecodecs")
needs_scans = pytest.mark.skipif(
    find_spec("nibabel") is None or not (ROOT.parent / "shared" / "data" / "sub-s03").is_dir(),
    reason="the real scans are not here",
)


def smooth(seed: int = 0) -> Volume:
    """Return a small 4-D image: measurements of very different ranges, one with negative values, and noise."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (6, 20, 18)), indexing="ij")
    body = np.exp(-2 * (x**2 + y**2 + 0.3 * z**2))
    image = np.stack([a * body * (1 + 0.3 * np.sin(3 * x + t)) for t, a in enumerate((3000, 900, 250, 700, 120))])
    image += rng.normal(0, 0.02, image.shape) * image.max(axis=(1, 2, 3), keepdims=True)
    image[2] -= 90
    return Volume("s99", np.round(image).astype(np.int16), "all")


def test_scaled_measurements_come_back_to_the_same_integers():
    volume = smooth()
    assert np.array_equal(volume.stored(volume.unit), volume.image)
    assert volume.unit.min() == 0 and volume.unit.max() == 1
    assert volume.scaling_bytes == 2 * 2 * 5  # ranges and, as not all are 0, the least values


def test_what_a_peer_decodes_is_cut_to_the_range_of_the_measurement():
    volume = smooth()
    wild = volume.unit.copy()
    wild[:, 0, 0, 0], wild[:, 1, 1, 1] = -7, 7
    decoded = volume.stored(wild)
    assert (decoded.min(axis=(1, 2, 3)) == volume.image.min(axis=(1, 2, 3))).all()
    assert (decoded.max(axis=(1, 2, 3)) == volume.image.max(axis=(1, 2, 3))).all()


@needs_peers
@pytest.mark.parametrize("name", bench_rate_peers.PEERS)
def test_every_peer_lands_just_above_the_target(name):
    volume = smooth()
    row = bench_rate_peers.PEERS[name](volume, 34.0)
    assert row is not None
    assert 34.0 <= row["psnr"] <= 34.0 + (0.3 if name in ("JPEG XL", "JPEG 2000", "ZFP") else 0.05)
    assert all(row["bytes"] <= other for setting, other in row["others"].items() if "one trial" not in setting)


@needs_peers
def test_the_bytes_of_a_peer_are_those_of_a_stream_that_decodes_to_its_quality():
    """Once more by hand: encode at the setting reported, decode, scale, round, measure by the project's metric."""
    import imagecodecs

    volume = smooth()
    stacked = volume.unit.reshape(-1, 20, 18)
    found = bench_rate_peers.sz3_peer(Volume("s99", volume.image, "all"), 34.0)
    data = stacked if found["setting"] == "folded" else volume.unit
    coded = imagecodecs.sz3_encode(data, "abs", abs=10 ** (-found["quality"] / 20))
    decoded = imagecodecs.sz3_decode(coded, data.shape, data.dtype).reshape(volume.unit.shape).astype(np.float64)
    low = volume.image.min(axis=(1, 2, 3), keepdims=True).astype(np.float64)
    high = volume.image.max(axis=(1, 2, 3), keepdims=True).astype(np.float64)
    values = np.clip(np.round(decoded * (high - low) + low), low, high).astype(np.int16)
    assert abs(len(coded) + 20 - found["bytes"]) <= 64  # the quality is reported in four decimals
    assert measure(volume.image, values).psnr == pytest.approx(found["psnr"], abs=0.02)


@needs_peers
def test_the_basis_of_pca_is_counted():
    volume = smooth()
    row = bench_rate_peers.pca_peer(volume, 30.0)
    k = int(row["setting"].split()[2].rstrip(","))
    assert row["bytes"] > k * 5 * 4 + volume.scaling_bytes


@needs_peers
def test_sz3_with_a_bound_reports_its_voxels_over_the_bound():
    row = bench_rate_peers.sz3_bounded(smooth(), 4.0)
    assert row["over"] == 0 and row["max_error"] <= 4
    assert any("rounded" not in name for name in [row["setting"], *row["others"]])


def test_a_search_keeps_the_smallest_result_that_is_good_enough():
    """A codec that knows whole qualities only, and is not monotone in its bytes."""
    volume = smooth()
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, volume.unit.shape)
    steps = bench_rate_peers.Way(
        "steps",
        lambda q: [bytes(100 + int(q) if int(q) != 31 else 500), str(int(q)).encode()],
        lambda parts: volume.unit + noise * 10 ** (-int(parts[1]) / 20),
        26.0,
    )
    found = bench_rate_peers.meet(volume, steps, 30.0)
    assert found is not None and found.psnr >= 30.0 and found.nbytes < 500
    assert found.psnr < 31.5


@needs_torch
def test_ours_is_measured_on_what_the_decoder_gives_and_keeps_the_target():
    volume = smooth()
    for promise in (Quality(psnr=30.0), Quality(max_error=4.0)):
        row = bench_rate_ours.measure(volume, promise, EncodeOptions(preset="fast", device="cpu", threads=1))
        assert "broken" not in row
        assert 0 < row["bytes"] < volume.image.nbytes and row["decode_s"] > 0
        assert row["psnr"] >= 30.0 if promise.psnr else row["over"] == 0


@needs_torch
def test_sirenmri_stores_float_weights_and_is_measured_on_the_decoded_slice():
    one = bench_rate_sirenmri.central_slice(smooth())
    assert one.image.shape == (5, 1, 20, 18)
    row = bench_rate_sirenmri.measure(one, steps=20)
    weights = 2 * 256 + 256 + 2 * (256 * 256 + 256) + 256 * 5 + 5
    assert 0.8 * 4 * weights < row["bytes"] < 4.1 * weights  # LZMA gains little on floats
    assert 10 < row["psnr"] < 60 and row["values"] == 5 * 20 * 18
    # Its scaling is of the slice, not of the volume.
    assert row["slice_sha256"] == one.sha256 != smooth().sha256


@needs_torch
@needs_peers
def test_a_run_adds_cell_by_cell_and_measures_no_peer_twice(tmp_path, capsys):
    arrays, results = tmp_path / "arrays", tmp_path / "results"
    arrays.mkdir()
    np.save(arrays / "s06.npy", smooth().image)
    common = ["--volumes", "s06", "--psnr", "30", "--max-error", "4"]
    common += ["--arrays", str(arrays), "--results", str(results), "--peers", ",".join(bench_rate_peers.PEERS)]
    assert bench_rate.main([*common, "--preset", "fast"]) == 0
    shown = capsys.readouterr().out
    assert "PCA+SPERR" in shown and "voxels over" in shown
    before = (results / "rate_peers.json").read_text()
    assert bench_rate.main([*common, "--only-peers"]) == 0
    assert (results / "rate_peers.json").read_text() == before
    document = json.loads((results / "rate.json").read_text())
    found = {(row["kind"], row["codec"]): row for row in document["compared"]}
    best = min(r["bytes"] for r in json.loads(before)["rows"] if r["kind"] == "psnr")
    assert found["psnr", "inrstore fast"]["best_peer_bytes"] == best
    with (results / "rate.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 6 + 1 + 2
    assert (results / "rate.png").stat().st_size > 1000
    # Other values under the same name are other data: nothing known counts.
    np.save(arrays / "s06.npy", smooth(1).image)
    load.cache_clear()
    wanted = bench_rate.peers_wanted(bench_rate.parse(common), json.loads(before)["rows"])
    assert len(wanted) == 7


def test_a_slab_is_central_and_large_enough(tmp_path):
    image = np.arange(5 * 9 * 4 * 3, dtype=np.int16).reshape(5, 9, 4, 3)
    np.save(tmp_path / "s06.npy", image)
    cut = load("s06", str(tmp_path), 150)
    assert cut.cut == "z 3:6 of 9" and np.array_equal(cut.image, image[:, 3:6])
    assert load("s06", str(tmp_path), 0).cut == "all"


@pytest.mark.real
@needs_scans
@needs_peers
def test_peers_on_a_real_scan_are_no_weaker_than_known(tmp_path):
    """PCA+SPERR on s03 at 36 dB: 161 times smaller than stored integers when it was first measured."""
    save(["s03"], tmp_path)
    volume = load("s03", str(tmp_path), 0)
    assert volume.image.nbytes / bench_rate_peers.pca_peer(volume, 36.0)["bytes"] > 161


def test_ratios_are_the_best_peers_bytes_over_ours():
    base = {"volume": "s07", "kind": "psnr", "asked": 40.0, "values_sha256": "a", "shape": [10, 10, 10], "cut": "all",
            "psnr": 40.0, "encode_s": 1.0, "decode_s": 0.5}  # fmt: skip
    peers = [{**base, "codec": "A", "bytes": 200}, {**base, "codec": "B", "bytes": 150},
             {**base, "codec": "C", "bytes": None},
             {**base, "codec": "D", "bytes": 10, "values_sha256": "b"}]  # fmt: skip
    ours = [{**base, "codec": "inrstore fast", "bytes": 100, "mode": "siren", "device": "x"}]
    (row,) = bench_rate_report.compare(peers, ours)
    assert row["best_peer"] == "B" and row["ratio"] == 1.5
    assert row["encode_mvalue_per_s"] == pytest.approx(0.001)
    (mean,) = bench_rate_report.means([row])
    assert mean["geometric_mean"] == 1.5 and mean["cells"] == 1 and mean["of"] == 15
    assert "1.500" in bench_rate_report.text([row])
