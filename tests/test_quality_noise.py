"""`--noise K`: no measurement is off by more than K standard deviations of its noise, and where that makes no sense."""

from __future__ import annotations

import json

import numpy as np
import pytest
from common import check_refused, real_scan, reseal, write_nifti
from typer.testing import CliRunner

import inrstore
from inrstore import api
from inrstore.cli.app import app
from inrstore.errors import ConfigurationError, QualityError, StoreError
from inrstore.evaluate.noise import DIFFERENCES, REGRESSION, Excess, Noise, deviation
from inrstore.sources import read_source
from inrstore.store.conversion import Conversion

SIGMA = 8.0


def scan(count=12, *, sigma=SIGMA, shape=(6, 20, 20), seed=0, air=0.0):
    """Return (t, z, y, x), float64: a ball of blobs whose contrasts are four courses, the first one much brighter."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    ball = z**2 + y**2 + x**2 < 0.8
    maps = np.stack([200 + 60 * np.sin(3 * x + k) * np.cos(4 * y - k) + 30 * np.sin(9 * x * y + k) for k in range(4)])
    courses = rng.uniform(0.5, 1.5, (count, 4))
    courses[0] *= 4
    image = np.tensordot(courses, maps, 1) * np.where(ball, 1.0, air)
    return np.where(ball | (air > 0), image + rng.normal(0, sigma, image.shape), 0.0)


def stored(path, image, dtype="int16"):
    return write_nifti(path, (np.rint(image) if np.dtype(dtype).kind in "iu" else image).astype(dtype).T)


def errors_over_noise(source, store):
    """Return the rmse of each measurement over `SIGMA`, inside the ball, by other means than the code that promises."""
    before = read_source(source).voxels.astype(float)
    after = np.asarray(inrstore.open(store).image).astype(float)
    inside = (before != 0).any(axis=0)
    return np.sqrt(np.square(after - before)[:, inside].mean(axis=1)) / SIGMA


def test_noise_is_found_where_it_is_known():
    image = scan(24, shape=(8, 24, 24))
    found = Noise.of(np.rint(image).astype(np.int16), 1)
    assert found.estimator == REGRESSION
    assert found.sigma == pytest.approx(np.full(24, SIGMA), rel=0.12)
    assert np.array_equal(found.counted, (image != 0).any(axis=0))
    # An image that a scanner interpolated: neighbours share their noise, and differences of them miss most of it.
    rng = np.random.default_rng(1)
    white = np.fft.fft2(rng.normal(0, SIGMA, (24, 8, 24, 24)))
    low = np.abs(np.fft.fftfreq(24)) < 0.25
    smooth = np.fft.ifft2(white * low[:, None] * low).real
    smooth *= SIGMA / smooth.std()
    image = scan(24, sigma=0, shape=(8, 24, 24), air=0.02) + smooth
    assert Noise.of(image, 1).sigma == pytest.approx(np.full(24, SIGMA), rel=0.2)
    assert np.median(deviation(image)) < 0.6 * SIGMA


def test_few_measurements_have_the_noise_of_their_neighbours():
    rng = np.random.default_rng(2)
    for dtype in (np.int16, np.float32):
        flat = (300 + rng.normal(0, SIGMA, (8, 32, 32))).astype(dtype)
        found = Noise.of(flat, 0)
        assert found.estimator == DIFFERENCES and found.sigma == pytest.approx(SIGMA, rel=0.1)
    assert Noise.of(flat[0], 0).sigma == pytest.approx(SIGMA, rel=0.2)
    # Of integers differences are multiples of a step; their median is none.
    fine = [float(deviation(np.rint(100 + rng.normal(0, s, (1, 64, 64))).astype(np.int16))) for s in (1.0, 1.2, 1.4)]
    assert fine == pytest.approx([1.04, 1.23, 1.43], rel=0.06)


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_no_measurement_is_further_off_than_promised(tmp_path, dtype, wanted=1.0):
    source = stored(tmp_path / "a.nii.gz", scan(), dtype)
    report = api.convert(source, tmp_path / "a.ozx", noise=wanted, preset="fast")
    found = errors_over_noise(source, tmp_path / "a.ozx") * SIGMA / Noise.of(read_source(source).voxels, 1).sigma
    assert 0.85 * wanted < found.max() <= wanted
    assert report.promised == {"noise": wanted} and not report.lossless


def test_images_of_one_and_of_few_measurements_keep_it_too(tmp_path):
    image = scan(3)
    for name, part in (
        ("whole", image[1]),
        ("slice", image[1, 3]),
        ("few", image),
        ("more", np.stack([image, image + 9])),
    ):
        source = stored(tmp_path / f"{name}.nii", part)
        report = api.convert(source, tmp_path / f"{name}.ozx", noise=1.0, preset="fast")
        assert report.noise["estimator"] == DIFFERENCES and not report.lossless
        assert api.verify(tmp_path / f"{name}.ozx", source).promised == {"noise": 1.0}


def test_a_measurement_that_is_further_off_leaves_no_store(tmp_path, monkeypatch):
    source = stored(tmp_path / "a.nii.gz", scan())
    monkeypatch.setattr(Conversion, "refine", lambda self: False)  # chunks keep a mean over their measurements alone
    check_refused(lambda: api.convert(source, tmp_path / "a.ozx", noise=1.5, preset="fast"), QualityError,
                  "measurement", "times its noise, above the 1.5 promised", folder=tmp_path)  # fmt: skip


def test_what_is_promised_is_shown_and_checked_again(tmp_path):
    source = stored(tmp_path / "a.nii.gz", scan())
    api.convert(source, tmp_path / "a.zarr", noise=1.0, preset="fast")
    told = api.info(tmp_path / "a.zarr")
    assert told.promised == {"noise": 1.0} and told.noise["estimator"] == REGRESSION
    low, high = told.noise["sigma_range"]
    assert low <= told.noise["sigma"] <= high and told.noise["sigma"] == pytest.approx(SIGMA, rel=0.3)
    text = CliRunner().invoke(app, ["info", str(tmp_path / "a.zarr")]).stdout
    assert "promised: noise 1\n" in text and f"noise     {told.noise['sigma']:g} stored units" in text
    assert api.verify(tmp_path / "a.zarr", source).promised == {"noise": 1.0}

    def finer(document):
        document["attributes"]["inrstore"]["quality"]["asked"]["noise"] = 0.9

    reseal(tmp_path / "a.zarr", finer)
    with pytest.raises(QualityError, match=r"measurement \d+ is 0\.9\d* times its noise, above the 0.9 promised"):
        api.verify(tmp_path / "a.zarr", source)

    def another(document):
        document["attributes"]["inrstore"]["quality"]["noise"]["estimator"] = "guess-7"

    reseal(tmp_path / "a.zarr", another)
    with pytest.raises(StoreError, match="estimator: 'guess-7'"):
        api.verify(tmp_path / "a.zarr", source)


def test_background_and_what_a_mask_leaves_out_do_not_count(tmp_path):
    image = scan(air=0.02)
    mask = np.zeros(image.shape[1:], np.uint8)
    mask[:, 5:15, 5:15] = 1
    write_nifti(tmp_path / "mask.nii", mask.T)
    source = stored(tmp_path / "a.nii.gz", image)
    api.convert(source, tmp_path / "a.ozx", noise=1.0, preset="fast", mask=tmp_path / "mask.nii")
    before = read_source(source).voxels.astype(float)
    after = np.asarray(inrstore.open(tmp_path / "a.ozx").image).astype(float)
    sigma = Noise.of(read_source(source).voxels, 1, mask[None] > 0).sigma
    assert (np.sqrt(np.square(after - before)[:, mask > 0].mean(axis=1)) <= sigma).all()
    assert api.verify(tmp_path / "a.ozx", source).lossless is False


def test_an_image_without_noise_is_refused_and_told_why(tmp_path):
    one = scan()
    twice, still = one.copy(), one.copy()
    ramp = np.add.outer(np.arange(9.0), np.add.outer(np.arange(9.0), np.arange(9.0)))
    twice[5], still[3] = twice[4], 100.0
    images = {
        "constant": (np.full((6, 8, 8), 7.0), "measurement 0 of 1 has none"),
        "still": (still, "measurement 3 of 12 has none"),
        "ramp": (ramp, "rounding to integers"),
        "thin": (np.ones((2, 2, 2)) * np.arange(2), "cannot be measured of (2, 2, 2) voxels"),
    }
    for name, (image, words) in images.items():
        source = stored(tmp_path / f"{name}.nii", image)
        check_refused(lambda source=source: api.convert(source, tmp_path / "x.ozx", noise=1.0), ConfigurationError,
                      f"{name}.nii", words, folder=tmp_path)  # fmt: skip
    source = stored(tmp_path / "twice.nii", twice, "float32")
    words = "measurement 4 and 1 more"
    check_refused(lambda: api.convert(source, tmp_path / "x", noise=1.0), ConfigurationError, words, folder=tmp_path)
    for wrong in (0, -1, True, "1", float("nan"), 1e6):
        with pytest.raises(ConfigurationError, match="noise must be a number of standard deviations"):
            api.convert(source, tmp_path / "x.ozx", noise=wrong)
    with pytest.raises(ConfigurationError, match="give only one of psnr and noise"):
        api.convert(source, tmp_path / "x.ozx", noise=1, psnr=40)


def test_values_that_are_not_finite_are_kept_and_count_in_no_error(tmp_path):
    image = scan().astype(np.float32)
    image[2, 3, 12, 12], image[7, 3, 11, 10] = np.nan, np.inf
    source = stored(tmp_path / "a.nii", image, "float32")
    api.convert(source, tmp_path / "a.ozx", noise=1.0, preset="fast")
    back = np.asarray(inrstore.open(tmp_path / "a.ozx").image)
    assert np.isnan(back[2, 3, 12, 12]) and np.isinf(back[7, 3, 11, 10])
    noise = Noise.of(image, 1)
    excess = Excess(noise)
    excess.add(image, np.where(np.arange(12)[:, None, None, None] == 3, np.nan, image).astype(np.float32),
               tuple(slice(0, n) for n in image.shape))  # fmt: skip
    assert np.isinf(excess.ratios()[3]) and excess.ratios()[4] == 0


def test_rules_of_an_archive_ask_for_it_and_a_dry_run_tells(tmp_path):
    (tmp_path / "in/sub-1/dwi").mkdir(parents=True)
    stored(tmp_path / "in/sub-1/dwi/sub-1_dwi.nii.gz", scan())
    (tmp_path / "rules.toml").write_text("[dwi]\nnoise = 1.5\npreset = 'fast'\n")
    plan = api.convert(tmp_path / "in", tmp_path / "out", rules=tmp_path / "rules.toml", dry_run=True)
    assert plan.images[0].quality == {"noise": 1.5} and plan.images[0].stored_bytes
    assert api.convert(tmp_path / "in", tmp_path / "out", rules=tmp_path / "rules.toml").complete
    again = api.convert(tmp_path / "in", tmp_path / "out", rules=tmp_path / "rules.toml")
    assert again.complete and again.resumed == 1
    store = next((tmp_path / "out").rglob("*.ozx"))
    assert json.loads(CliRunner().invoke(app, ["info", str(store), "--json"]).stdout)["promised"] == {"noise": 1.5}
    assert api.update(tmp_path / "in", tmp_path / "out", noise=2.0, only=["dwi"], preset="fast").complete
    assert api.info(store).promised == {"noise": 2.0}


def test_a_real_scan_keeps_it(tmp_path):
    source = real_scan("sub-s06tiny")
    report = api.convert(source, tmp_path / "a.ozx", noise=1.0, preset="fast")
    assert api.verify(tmp_path / "a.ozx", source).promised == {"noise": 1.0}
    assert report.noise["sigma"] == pytest.approx(5.0, rel=0.3)
