"""What the measures of quality promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from common import random_image

from inrstore.evaluate import metrics
from inrstore.evaluate.metrics import ErrorStatistics, Ranges, compare


def test_psnr_takes_each_measurement_over_its_own_range():
    original = np.zeros((2, 2, 2, 2))
    original[0, 0, 0, 0], original[1, 0, 0, 0] = 1000, 10
    decoded = original + np.array([100.0, 1.0]).reshape(2, 1, 1, 1)
    measures = compare(original, decoded)
    assert measures.psnr == pytest.approx(20.0)
    assert measures.rmse == pytest.approx(math.sqrt((100**2 + 1) / 2))
    assert measures.psnr_range == pytest.approx(20 * math.log10(1000 / measures.rmse))
    assert measures.max_error == 100


def test_psnr_of_three_dimensions_is_the_usual_one():
    original = random_image((9, 8, 7), "float64")
    decoded = original + 0.25
    measures = compare(original, decoded)
    spread = original.max() - original.min()
    assert measures.psnr == pytest.approx(20 * math.log10(spread / 0.25))
    assert measures.psnr == pytest.approx(measures.psnr_range)


def test_a_measurement_without_a_range_counts_with_one():
    original = np.full((2, 1, 1, 2), 7.0)
    original[1, 0, 0, 0] = 17
    ranges = Ranges.of(original, 1)
    assert ranges.each.tolist() == [1.0, 10.0]
    assert ranges.whole == 10.0
    assert Ranges.of(np.full((3,), 5), 0).whole == 1.0


def test_equal_images_have_no_psnr_and_are_lossless():
    original = random_image((4, 4, 4, 2))
    measures = compare(original, original.copy())
    assert measures.psnr is None
    assert measures.psnr_range is None
    assert measures.lossless
    assert measures.max_error == 0


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_integers_do_not_overflow(dtype):
    limits = np.iinfo(dtype)
    original = np.array([[[limits.min, limits.max]]], dtype)
    decoded = original[..., ::-1].copy()
    spread = float(limits.max - limits.min)
    assert Ranges.of(original, 0).whole == spread
    measures = compare(original, decoded)
    assert measures.max_error == spread
    assert measures.psnr == pytest.approx(0.0)


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_an_error_of_one_is_seen_beyond_the_precision_of_float64(dtype):
    original = np.array([[[2**60, 5]]], dtype)
    decoded = original + np.array([[[1, 0]]], dtype)
    assert compare(original, decoded).max_error == 1


def test_not_finite_voxels_are_left_out_and_must_keep_their_bits():
    original = np.array([np.nan, np.inf, -np.inf, 1.0, 3.0], np.float32).reshape(1, 1, 5)
    decoded = original.copy()
    decoded[0, 0, 3] = 2.0
    statistics = ErrorStatistics(Ranges.of(original, 0))
    statistics.add(original, decoded)
    assert statistics.not_finite_changed == 0
    assert statistics.count == 2
    assert statistics.result().rmse == pytest.approx(math.sqrt(0.5))
    decoded[0, 0, 0] = 0.0
    decoded.view(np.uint32)[0, 0, 1] = 0x7FC00001
    statistics.add(original, decoded)
    assert statistics.not_finite_changed == 2


def test_a_finite_voxel_that_decodes_to_nan_is_an_infinite_error():
    original = np.array([1.0, 2.0]).reshape(1, 1, 2)
    for bad in (np.nan, np.inf):
        measures = compare(original, np.array([1.0, bad]).reshape(1, 1, 2))
        assert measures.max_error == math.inf
        assert measures.psnr == -math.inf


def test_minus_zero_is_not_lossless():
    measures = compare(np.zeros((1, 1, 2)), np.array([[[0.0, -0.0]]]))
    assert not measures.lossless
    assert measures.rmse == 0


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_measures_do_not_depend_on_blocks(monkeypatch, order):
    original = random_image((6, 5, 4, 3)).T.astype(order + "i2")
    decoded = (original + np.arange(3).reshape(3, 1, 1, 1)).astype("<i2")
    whole = compare(original, decoded)
    monkeypatch.setattr(metrics, "_BLOCK", 7)
    ranges = Ranges.of(original, 1)
    statistics = ErrorStatistics(ranges)
    for t in (slice(0, 2), slice(2, 3)):
        for z in (slice(0, 3), slice(3, 4)):
            statistics.add(original[t, z], decoded[t, z], (t, z, slice(0, 5), slice(0, 6)))
    pieces = statistics.result()
    assert pieces.psnr == pytest.approx(whole.psnr, abs=1e-12)
    assert pieces.rmse == pytest.approx(whole.rmse, abs=1e-12)
    assert pieces.max_error == whole.max_error


def test_only_what_is_inside_is_measured():
    rng = np.random.default_rng(2)
    original = rng.normal(100, 20, (3, 4, 5, 6)).astype("float32")
    decoded = original + rng.normal(0, 1, original.shape).astype("float32")
    inside = np.asarray(rng.random((1, 4, 5, 6)) < 0.4)
    dirty, gone = original.copy(), decoded.copy()
    full = np.broadcast_to(inside, original.shape)
    dirty[~full], gone[~full] = 1e6, np.nan
    statistics = ErrorStatistics(Ranges.of(dirty, 1, inside))
    for t in range(3):
        statistics.add(dirty[t : t + 1], gone[t : t + 1], (slice(t, t + 1), slice(0, 4)), inside[0])
    found = statistics.result()
    count = int(inside.sum())
    assert statistics.count == 3 * count
    error = (decoded.astype(float) - original)[full].reshape(3, count)
    spread = np.array([np.ptp(v[inside[0]]) for v in original])
    assert Ranges.of(dirty, 1, inside).each == pytest.approx(spread)
    assert found.rmse == pytest.approx(math.sqrt((error**2).mean()))
    assert found.psnr == pytest.approx(-10 * math.log10(((error / spread[:, None]) ** 2).mean()))
    assert found.max_error == pytest.approx(np.abs(error).max())
    assert statistics.not_finite_changed == 0
    alike = ErrorStatistics(Ranges.of(dirty, 1, inside))
    alike.add(dirty, np.where(full, dirty, -1), inside=inside)
    assert alike.result().lossless


def test_where_nothing_is_inside_nothing_is_measured():
    nothing = np.zeros((2, 3), bool)
    ranges = Ranges.of(np.arange(6.0).reshape(2, 3), 0, nothing)
    assert (ranges.whole, ranges.each.item()) == (1.0, 1.0)
    statistics = ErrorStatistics(ranges)
    statistics.add(np.zeros((2, 3)), np.ones((2, 3)), inside=nothing)
    assert statistics.result().psnr is None and statistics.count == 0
    statistics.add(np.array(1.0), np.array(2.0), inside=np.array(True))
    assert statistics.count == 1


def test_arrays_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="cannot compare"):
        compare(np.zeros((2, 2)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="cannot compare"):
        compare(np.zeros((2, 2), "f4"), np.zeros((2, 2), "f8"))
