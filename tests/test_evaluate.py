"""What the measures of an evaluation promise: known tensors, series, tissues and Hounsfield units come back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from shutil import which

import nibabel as nib
import numpy as np
import pytest
from common import random_image, real_scan

from inrstore.errors import ConfigurationError, MissingDependencyError
from inrstore.evaluate import ct, dmri, fmri, noise, plain, structural, yardsticks
from inrstore.evaluate.findings import BIAS, MEAN_ABSOLUTE, PERCENTILE, RELATIVE, VALUE, errors

B = 1000.0


def directions(count: int = 30) -> np.ndarray:
    """Return directions spread over a sphere (a spiral), (count, 3)."""
    z = np.linspace(1, -1, count + 2)[1:-1]
    turn = np.pi * (3 - np.sqrt(5)) * np.arange(count)
    return np.stack([np.sqrt(1 - z * z) * np.cos(turn), np.sqrt(1 - z * z) * np.sin(turn), z], axis=1)


def scheme(count: int = 30, plain_count: int = 2) -> dmri.Gradients:
    """Return gradients of one shell."""
    bval = np.concatenate([np.zeros(plain_count), np.full(count, B)])
    return dmri.Gradients(bval, np.concatenate([np.zeros((plain_count, 3)), directions(count)]))


def signal_of(tensor: np.ndarray, gradients: dmri.Gradients, b0: float = 1000.0) -> np.ndarray:
    """Return the signal of a tensor, (t,)."""
    unit = gradients.unit
    return b0 * np.exp(-gradients.bval * np.einsum("ti,ij,tj->t", unit, tensor, unit))


def turned(values: tuple[float, float, float], seed: int) -> np.ndarray:
    """Return a tensor with these eigenvalues in a random frame."""
    frame, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return frame @ np.diag(values) @ frame.T


WM, GM, CSF = (1.7e-3, 0.3e-3, 0.3e-3), (0.85e-3, 0.8e-3, 0.75e-3), (2.9e-3, 2.9e-3, 2.9e-3)


def phantom(gradients: dmri.Gradients, sigma: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return a scan (t, z, y, x) of three slabs in x (WM, GM, CSF), and its mask."""
    space = (6, 16, 30)
    scan = np.zeros((len(gradients.bval), *space))
    for k, values in enumerate((WM, GM, CSF)):
        scan[:, 1:5, 2:14, 10 * k : 10 * k + 10] = signal_of(turned(values, 3), gradients)[:, None, None, None]
    mask = scan[0] > 0
    scan += np.random.default_rng(0).normal(0, sigma, scan.shape) if sigma else 0
    return np.rint(np.where(mask, scan, 0)).astype(np.int16), mask


def find(findings, measure, region, statistic=VALUE):
    (found,) = [f.value for f in findings if (f.measure, f.region, f.statistic) == (measure, region, statistic)]
    return found


# ---- figures


def test_errors_are_mean_size_bias_and_relative_ones():
    before, after = np.array([1.0, 2, 4, np.nan, 0]), np.array([2.0, 2, 3, 9, 1])
    found = errors("q", "r", before, after, "mm")
    assert find(found, "q", "r", MEAN_ABSOLUTE) == pytest.approx(3 / 4)
    assert find(found, "q", "r", BIAS) == pytest.approx(1 / 4)
    assert find(found, "q", "r", PERCENTILE) == 1
    assert find(found, "q", "r", RELATIVE) == pytest.approx(100 * (1 - 0.25) / 3)
    nothing = errors("q", "r", np.zeros(0), np.zeros(0))
    assert all(one.value is None for one in nothing)


# ---- diffusion


def test_known_tensors_come_back():
    gradients = scheme()
    tensors = [turned(values, seed) for seed, values in enumerate((WM, GM, CSF, (1.2e-3, 0.7e-3, 0.1e-3)))]
    found = dmri.fit_tensors(np.stack([signal_of(one, gradients) for one in tensors]),
                             gradients.design(gradients.for_tensor()))  # fmt: skip
    for k, tensor in enumerate(tensors):
        values, vectors = np.linalg.eigh(tensor)
        assert found.md[k] == pytest.approx(values.mean(), rel=1e-6)
        fa = np.sqrt(1.5 * np.square(values - values.mean()).sum() / np.square(values).sum())
        assert found.fa[k] == pytest.approx(fa, abs=1e-5)
        assert found.b0[k] == pytest.approx(1000, rel=1e-6)
        if fa > 0.1:
            assert abs(found.main[k] @ vectors[:, 2]) == pytest.approx(1, abs=1e-6)


def test_voxels_without_signal_give_numbers():
    gradients = scheme()
    signal = np.stack([signal_of(turned(WM, 1), gradients)] * 3)
    signal[0] = 0
    signal[1, 5] = -3
    signal[2, :2] = 0
    found = dmri.fit_tensors(signal, gradients.design(gradients.for_tensor()))
    assert np.isfinite(found.values).all() and np.isfinite(found.fa).all()
    assert found.b0[0] == 0 and found.fa[0] == pytest.approx(0, abs=1e-6)


def test_the_tensor_is_weighted_least_squares_twice_reweighted():
    """As dipy fits it when it is given the same weights, one after the other."""
    dti = pytest.importorskip("dipy.reconst.dti")
    gradients = scheme()
    rng = np.random.default_rng(1)
    signal = np.stack([signal_of(turned(WM, seed), gradients) for seed in range(4)])
    signal = np.abs(signal + rng.normal(0, 40, signal.shape)) + 1
    design = gradients.design(gradients.for_tensor())
    weights = signal
    for _ in range(3):
        parts = [dti.wls_fit_tensor(design, one[None], weights=np.square(w)[None], return_lower_triangular=True)[0][0]
                 for one, w in zip(signal, weights, strict=True)]  # fmt: skip
        weights = np.exp(np.stack(parts) @ design.T)
    xx, yy, zz, xy, xz, yz = np.stack(parts)[:, 1:].T / 1000
    values = np.linalg.eigvalsh(np.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], axis=1).reshape(-1, 3, 3))
    found = dmri.fit_tensors(signal, design)
    assert found.values[:, ::-1] == pytest.approx(values, rel=1e-4, abs=1e-9)


@pytest.mark.real
@pytest.mark.skipif(which("dwi2tensor") is None, reason="needs MRtrix3")
def test_fa_and_md_are_those_of_mrtrix3(tmp_path):
    path = real_scan("sub-s03")
    bval, bvec = (Path(str(path).replace(".nii.gz", ending)) for ending in (".bval", ".bvec"))
    scan = np.asarray(nib.load(path).dataobj)[:, :, 8:12]
    mask = scan[..., 0] > 100
    nib.save(nib.Nifti1Image(scan, np.diag([3.5, 3.5, 4.2, 1])), tmp_path / "s.nii")
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), np.diag([3.5, 3.5, 4.2, 1])), tmp_path / "m.nii")
    for command in (f"dwi2tensor s.nii dt.nii -fslgrad {bvec} {bval} -mask m.nii -nthreads 1 -quiet",
                    "tensor2metric dt.nii -fa fa.nii -adc md.nii -mask m.nii -nthreads 1 -quiet"):  # fmt: skip
        subprocess.run(command.split(), cwd=tmp_path, check=True)
    gradients = dmri.Gradients(np.loadtxt(bval), np.loadtxt(bvec).T)
    ours = dmri.fit_tensors(scan[mask].astype(float), gradients.design(gradients.for_tensor()))
    for name, found, close in (("fa", ours.fa, 1e-3), ("md", 1000 * ours.md, 1e-3)):
        theirs = nib.load(tmp_path / f"{name}.nii").get_fdata()[mask] * (1 if name == "fa" else 1000)
        assert np.abs(theirs - found).max() < close


def test_measurements_are_sorted_into_shells():
    bval = np.array([0, 5, 995, 1005, 1000, 2000, 2010, 700, 3000])
    bvec = directions(9)
    bvec[8] = 0  # weighted in no direction: a trace image, of no use to a tensor
    gradients = dmri.Gradients(bval.astype(float), bvec)
    assert [list(np.flatnonzero(shell)) for shell in gradients.shells()] == [[7], [2, 3, 4], [5, 6]]
    assert list(np.flatnonzero(gradients.plain)) == [0, 1]
    with pytest.raises(ConfigurationError, match="too few for a tensor"):
        dmri.Gradients(bval[:4].astype(float), bvec[:4]).for_tensor()


def test_a_tensor_takes_low_b_where_there_is_enough_of_it():
    pytest.importorskip("dipy")  # of which the harmonics are
    both = scheme(12, 1)
    gradients = dmri.Gradients(np.concatenate([both.bval, np.full(20, 3000.0)]),
                               np.concatenate([both.bvec, directions(20)]))  # fmt: skip
    assert np.count_nonzero(gradients.for_tensor()) == 13
    assert gradients.bval[gradients.for_harmonics()].min() == 3000


def test_halves_share_nothing_but_what_has_no_direction():
    gradients = scheme(31, 2)
    one, other = gradients.halves()
    assert list(np.flatnonzero(one & other)) == [0, 1]
    assert (one | other).all() and abs(int(one.sum()) - int(other.sum())) <= 1


def test_rotation_invariants_do_not_change_when_the_head_turns():
    pytest.importorskip("dipy")
    gradients = scheme(60, 1)
    shell = gradients.for_harmonics()
    signals = np.stack([signal_of(turned(WM, seed), gradients)[shell] for seed in range(4)])
    zero, two = dmri.rotation_invariants(signals, gradients.unit[shell])
    assert zero == pytest.approx(zero[0], rel=1e-2) and two == pytest.approx(two[0], rel=2e-2)


def test_what_is_the_same_has_no_error_in_any_tissue():
    pytest.importorskip("dipy")
    gradients = scheme(32)
    scan, mask = phantom(gradients, sigma=10)
    study = dmri.Diffusion(scan, gradients, mask=mask)
    for name, k in (("WM", 0), ("GM", 1), ("CSF", 2)):
        inside = study.spread(study.tissues[name].astype(float))[2, 5]
        assert inside[10 * k + 3 : 10 * k + 7].all() and np.nansum(inside) < 14
    result = study.compare(scan)
    assert {f.measure for f in result.findings} >= {"FA", "MD", "RISH0", "RISH2", "V1 angle"}
    for one in result.findings:
        if one.measure == "fODF, angular correlation":
            assert one.value == pytest.approx(1)
        else:
            assert one.value == pytest.approx(0, abs=1e-4), one
    assert result.maps["colour FA"].shape == (*mask.shape, 3)


def test_voxels_that_fall_to_zero_are_counted():
    pytest.importorskip("dipy")
    gradients = scheme(32)
    scan, mask = phantom(gradients)
    scan[3, 2, 3, 5] = 0  # is so in the source
    study = dmri.Diffusion(scan, gradients, mask=mask)
    worse = scan.copy()
    worse[4, 2, 3, 5] = 0
    worse[7, 2, 4, 5] = -2
    worse[8:11, 3, 4, 5] = 0
    result = study.compare(worse)
    assert find(result.findings, "voxels that became <= 0", "brain") == 2
    assert find(study.describe(), "voxels <= 0", "brain") == 1
    assert find(result.findings, "MD", "WM", MEAN_ABSOLUTE) > 0


def test_smoothing_blurs_fa_and_two_halves_differ_by_noise():
    pytest.importorskip("dipy")
    gradients = scheme(32)
    scan, mask = phantom(gradients, sigma=30)
    study = dmri.Diffusion(scan, gradients, mask=mask)
    smooth = study.compare(yardsticks.smoothed(scan)).findings
    halves = study.halves().findings
    assert find(smooth, "MD", "brain", MEAN_ABSOLUTE) > 0.05
    assert 0.01 < find(halves, "FA", "WM", MEAN_ABSOLUTE) < 0.2
    assert abs(find(halves, "FA", "WM", BIAS)) < 0.02


# ---- fMRI


def series(sigma: float = 5.0) -> np.ndarray:
    rng = np.random.default_rng(2)
    time = np.linspace(-1, 1, 40)[:, None, None, None]
    scan = 500 + rng.normal(0, sigma, (40, 4, 12, 10)) + 20 * time + 8 * time**2  # a drift is no noise
    scan[:, :, :, :2] = 0
    return scan


def test_temporal_snr_is_mean_over_noise_without_drift():
    scan = series()
    study = fmri.Series(scan, mask=scan[0] > 0)
    assert np.median(study.maps["tSNR"]) == pytest.approx(100, rel=0.05)


def test_series_that_are_kept_or_lost_are_told_apart():
    scan = series()
    study = fmri.Series(scan, slope=2.0, inter=1.0, mask=scan[0] > 0)
    same = study.compare(scan).findings
    assert find(same, "correlation of the series, median", "brain") == pytest.approx(1)
    assert find(same, "tSNR", "brain", MEAN_ABSOLUTE) == pytest.approx(0, abs=1e-9)
    assert find(same, "correlation of the connectivity maps", "brain") == pytest.approx(1)
    still = np.broadcast_to(scan.mean(axis=0), scan.shape)
    lost = study.compare(still).findings
    assert find(lost, "correlation of the series, median", "brain") == pytest.approx(0, abs=1e-6)


def test_the_seed_lies_in_the_rear_of_the_mask_unless_it_is_given():
    mask = np.zeros((8, 20, 16), bool)
    mask[2:6, 4:16, 3:13] = True
    scan = np.random.default_rng(0).normal(100, 1, (12, *mask.shape))
    x, y, z = fmri.Series(scan, mask=mask, rear=-1).seed
    assert mask[z, y, x] and y < 8 and 6 <= x <= 9
    assert fmri.Series(scan, mask=mask, rear=1).seed[1] > 11
    assert fmri.Series(scan, mask=mask, seed=(4, 5, 3)).seed == (4, 5, 3)
    with pytest.raises(ConfigurationError, match="16 x 20 x 8"):
        fmri.Series(scan, mask=mask, seed=(16, 0, 0))
    with pytest.raises(ConfigurationError, match="too few"):
        fmri.Series(scan[:9], mask=mask)


# ---- structural, CT


def test_tissues_and_edges_of_a_head():
    pytest.importorskip("dipy")
    head = np.zeros((14, 40, 40))
    head[1:13, 4:36, 4:36] = 100
    head[3:11, 10:30, 10:30] = 200
    head[5:9, 15:25, 15:25] = 300
    image = np.rint(np.where(head > 0, head + np.random.default_rng(0).normal(0, 5, head.shape), 0)).astype(np.int16)
    study = structural.Structural(image, (2.0, 1.0, 1.0), mask=head > 0, names=("CSF", "GM", "WM"))
    assert find(study.describe(), "voxels segmented", "WM") == pytest.approx(4 * 10 * 10, rel=0.02)
    same = study.compare(image).findings
    assert [find(same, "Dice", name) for name in ("CSF", "GM", "WM")] == [1, 1, 1]
    assert find(same, "gradient, error over mean", "mask") == 0
    assert find(study.compare(image // 2).findings, "gradient, bias over mean", "mask") == pytest.approx(-50, abs=1)
    blurred = study.compare(yardsticks.smoothed(image)).findings
    assert find(blurred, "gradient, error over mean", "mask") > 10
    assert find(blurred, "Dice", "WM") < 1


def test_hounsfield_units_are_off_by_what_they_are_off_by_in_each_range():
    stored = np.repeat(np.array([[[24, 300, 950, 1064, 1800]]], np.int16), 6, axis=0)  # -1000, -724, -74, 40, 776 HU
    study = ct.Tomography(stored, slope=1.0, inter=-1024.0)
    decoded = stored + np.array([0, 3, -2, 1, 10], np.int16)
    found = study.compare(decoded).findings
    biases = {region: find(found, "HU", region, BIAS) for region in ct.RANGES}
    assert biases == {"air": 0, "lung": 3, "fat": -2, "soft tissue": 1, "bone": 10}
    assert find(found, "HU", "image", MEAN_ABSOLUTE) == pytest.approx(16 / 5)


# ---- any image


def test_psnr_by_slices_is_that_of_the_paper():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 1000, (3, 2, 8, 9)).astype(np.int16)
    image[:, 1] //= 7
    decoded = image + rng.integers(-5, 6, image.shape).astype(np.int16)
    found = plain.Plain(image, 1, (1, 0)).compare(decoded)
    levels = []
    for z in range(2):
        squares = []
        for t in range(3):
            low, high = image[t, z].min(), image[t, z].max()
            squares.append(np.square(((decoded[t, z] - low) - (image[t, z] - low)) / float(high - low)).mean())
        levels.append(-10 * np.log10(np.mean(squares)))
    assert find(found.findings, "PSNR, by slices", "image") == pytest.approx(np.mean(levels))
    error = decoded.astype(float) - image
    assert find(found.findings, "MSE", "image") == pytest.approx(np.square(error).mean())
    assert find(found.findings, "largest error", "image") == 5
    assert found.maps["error"] == pytest.approx(error[1, 0])


def test_ssim_is_that_of_scikit_image_and_one_for_the_same():
    metrics = pytest.importorskip("skimage.metrics")
    image = random_image((12, 11, 3, 2)).T.astype(np.int16)
    decoded = image + random_image((12, 11, 3, 2), seed=1).T.astype(np.int16) // 20
    study = plain.Plain(image, 1, (0, 1))
    expected = [metrics.structural_similarity(image[t, z].astype(float), decoded[t, z].astype(float), full=True,
                                              data_range=float(np.ptp(image[t])))[1].mean()
                for t in range(2) for z in range(3)]  # fmt: skip
    assert find(study.compare(decoded).findings, "SSIM", "image") == pytest.approx(np.mean(expected))
    same = study.compare(image).findings
    assert find(same, "SSIM", "image") == 1
    assert [f.value for f in same if f.measure.startswith("PSNR")] == [None] * 3


def test_outside_a_mask_nothing_counts():
    image = random_image((9, 8, 4, 2)).T.astype(np.int16)
    inside = np.zeros((1, *image.shape[1:]), bool)
    inside[..., 2:6] = True
    decoded = np.where(inside, image + np.int16(1), 0).astype(np.int16)
    found = plain.Plain(image, 1, (0, 2)).compare(decoded, inside).findings
    assert find(found, "largest error", "image") == 1
    assert find(found, "MSE", "image") == 1


def test_small_and_odd_images_are_measured(recwarn):
    for shape in ((5,), (2, 3), (1, 1, 7), (2, 3, 1, 1, 7)):
        image = random_image(shape)
        leading = max(0, len(shape) - 3)
        shown = (*[0] * leading, 0)
        found = plain.Plain(image, leading, shown).compare(image + np.int16(1))
        assert find(found.findings, "largest error", "image") == 1
        assert not any(f.measure == "SSIM" for f in found.findings)
    assert not recwarn.list


# ---- yardsticks, noise


def test_smoothing_keeps_what_is_even():
    pytest.importorskip("scipy")
    even = np.full((2, 5, 6, 7), 40, np.int16)
    assert (yardsticks.smoothed(even) == 40).all()
    bumpy = even.copy()
    bumpy[:, 2, 3, 3] = 400
    assert 40 < yardsticks.smoothed(bumpy)[0, 2, 3, 3] < 200


def test_denoising_takes_noise_away():
    pytest.importorskip("dipy")
    gradients = scheme(32)
    clean, mask = phantom(gradients)
    noisy, _ = phantom(gradients, sigma=20)
    found = yardsticks.denoised(noisy, mask)
    before, after = (np.square(v[:, mask].astype(float) - clean[:, mask]).mean() for v in (noisy, found))
    assert after < 0.5 * before
    assert (found[:, ~mask] == noisy[:, ~mask]).all()


@pytest.mark.parametrize("name", ["JPEG 2000", "PCA+SPERR"])
def test_other_codecs_stay_within_the_bytes_they_are_given(name):
    pytest.importorskip("imagecodecs")
    scan, _ = phantom(scheme(32), sigma=30)
    codecs = yardsticks.Codecs(scan)
    assert name in codecs.names()
    rough, fine = codecs.code(name, 8_000), codecs.code(name, 30_000)
    assert 0.9 * 8_000 < rough.nbytes <= 8_000 and 0.9 * 30_000 < fine.nbytes <= 30_000
    worse, better = (np.square(one.voxels.astype(float) - scan).mean() for one in (rough, fine))
    assert better < 0.7 * worse
    assert codecs.code(name, 20) is None


def test_other_codecs_take_a_scan_of_one_slice():
    """In a process of its own, for the library ends one that it cannot serve."""
    pytest.importorskip("imagecodecs")
    code = ("import numpy as np; from inrstore.evaluate.yardsticks import Codecs\n"
            "scan = np.random.default_rng(0).integers(0, 900, (5, 1, 40, 36)).astype(np.int16)\n"
            "made = [Codecs(scan).code(name, 6000) for name in Codecs.names()]\n"
            "print(all(one.voxels.shape == scan.shape and 0 < one.nbytes <= 6000 for one in made))")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr


def test_the_noise_of_an_image_is_none_of_its_anatomy():
    """Of coarse voxels differences along one axis are anatomy; what other volumes do not tell is noise."""
    rng = np.random.default_rng(2)
    shape = (20, 40, 40)
    grid = np.stack(np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij"))
    anatomy = 400 + 200 * np.sin(60 * grid[2]) * np.cos(9 * grid[1]) + 100 * np.sin(14 * grid[0])
    course = 1 + 0.1 * rng.random(12)
    inside = np.square(grid - 0.5).sum(axis=0) < 0.2
    clean = np.where(inside, anatomy, 0)[None] * course[:, None, None, None]
    scan = np.rint(clean + np.where(inside, rng.normal(0, 6, clean.shape), 0)).astype(np.int16)
    along_x = scan[:, :, :, 1:-1] - 0.5 * scan[:, :, :, :-2] - 0.5 * scan[:, :, :, 2:]
    assert np.median(np.abs(along_x[:, inside[:, :, 1:-1]])) / 0.6745 / 1.5**0.5 > 20
    assert noise.Noise.of(scan, 1).sigma == pytest.approx(np.full(12, 6.0), rel=0.15)
    assert noise.deviation(scan, inside)[0] < 10


def test_denoising_reaches_scans_of_few_slices():
    gradients = scheme(12, 1)
    rng = np.random.default_rng(1)
    clean = np.full((13, 2, 24, 24), 500.0) * np.exp(-gradients.bval / 1000)[:, None, None, None]
    noisy = np.rint(clean + rng.normal(0, 10, clean.shape)).astype(np.int16)
    found = yardsticks.denoised(noisy)
    assert np.abs(found - clean).mean() < 0.6 * np.abs(noisy - clean).mean()


def test_noise_is_found_in_each_measurement():
    rng = np.random.default_rng(0)
    z, y, x = np.meshgrid(*(np.linspace(0, 3, n) for n in (10, 30, 40)), indexing="ij")
    smooth = 300 * np.sin(x) * np.cos(y) + 100 * z
    scan = np.stack([smooth + rng.normal(0, sigma, smooth.shape) for sigma in (2.0, 10.0)])
    assert noise.deviation(scan) == pytest.approx([2, 10], rel=0.08)
    assert np.isnan(noise.deviation(scan, np.zeros(smooth.shape, bool))).all()


def test_what_is_missing_is_named_with_its_extra(monkeypatch):
    for name in list(sys.modules):
        if name.split(".")[0] in ("dipy", "scipy"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "dipy", None)
    monkeypatch.setitem(sys.modules, "scipy", None)
    gradients = scheme(32)
    scan, mask = phantom(gradients)
    for action in (
        lambda: dmri.Diffusion(scan, gradients, mask=mask),
        lambda: structural.Structural(scan[0], mask=mask),
        lambda: yardsticks.denoised(scan),
        lambda: yardsticks.smoothed(scan),
    ):
        with pytest.raises(MissingDependencyError, match=r"inrstore\[evaluate\]"):
            action()
