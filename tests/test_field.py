"""A store is a function of place: values and gradients anywhere, on any grid, as a module; networks and splines."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from common import check_refused, random_image, tree

import inrstore
from inrstore.chunk import envelope as envelopes
from inrstore.chunk import modes
from inrstore.chunk.decode import decode_chunk
from inrstore.chunk.encode import encode_as, seal
from inrstore.chunk.inr import siren
from inrstore.chunk.inr.layers import ACTIVATIONS, BY_NAME, LINEAR, Layer
from inrstore.chunk.inr.network import Coordinates, Network
from inrstore.chunk.inr.real import REAL, RealNetwork
from inrstore.chunk.numbers import PRODUCT, Linear
from inrstore.errors import ConfigurationError, CorruptChunkError, StoreError
from inrstore.sources import read_source
from inrstore.store import manifest
from inrstore.store.conversion import Conversion
from inrstore.store.layout import Grid
from inrstore.store.options import Options
from inrstore.store.quality import Quality
from inrstore.store.reports import Clock
from inrstore.views import grids
from tools.vectors.frames import Net, siren_frame

OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.3, -0.2, 0.5) @ np.diag([-1.5, 2.0, 2.5]), [30.0, -40.0, 12.0]
)


def store_of(folder: Path, frames: dict, shape: tuple[int, ...], chunks: tuple[int, ...], dtype="<i2", *,
             affine=OBLIQUE, slope=None, mask=None) -> Path:  # fmt: skip
    """Return a store with these frames, made as any other: the image is what they decode to."""
    grid, dtype = Grid(shape, chunks), np.dtype(dtype)
    image = np.zeros(shape, dtype)
    for index in grid:
        region = grid.region(index)
        image[region] = decode_chunk(frames[index])[tuple(slice(s.stop - s.start) for s in region)]
    made = nib.Nifti1Image(image.T, affine, dtype=dtype)
    if slope is not None:
        made.header.set_slope_inter(*slope)
    (folder / "in").mkdir(exist_ok=True)
    nib.save(made, folder / "in/a.nii")
    path = folder / "in/a.nii"
    if slope is not None:  # nibabel divides by it
        data = bytearray(path.read_bytes())
        data[352:] = np.ascontiguousarray(image, dtype).tobytes()
        path.write_bytes(data)
    options = Options(quality=Quality(rmse=1.0), container="zarr", chunks=chunks[-3:])
    if mask is not None:
        nib.save(nib.Nifti1Image(mask.T.astype(np.uint8), affine), folder / "in/mask.nii")
        options = replace(options, mask=str(folder / "in/mask.nii"))
    conversion = Conversion(read_source(path), str(folder / "s.zarr"), options)
    conversion.grid, conversion.frames = grid, dict(frames)
    conversion.targets = dict.fromkeys(grid, next(iter(conversion.targets.values())))
    conversion.finish(Clock(None, 1, 1))
    return folder / "s.zarr"


def networks(shape: tuple[int, ...], chunks: tuple[int, ...], dtype="<i2", **fields) -> dict:
    """Return a frame for each chunk, a random network in each."""
    fields = {"axis": 0 if len(shape) > 3 else None, "layers": 3, "width": 12, "amplitude": 60.0, **fields}
    like = np.zeros(chunks, dtype)
    return {index: siren_frame(like, Net(seed=number, **fields)) for number, index in enumerate(Grid(shape, chunks))}


def straight(box: tuple[int, int, int], slopes: tuple[int, int, int], offset: int = 0) -> siren.Siren:
    """Return a network that is linear in space: its value is exactly slopes . (z, y, x) + a constant."""
    layer = Layer(LINEAR, np.diag([1, 1, 1]), np.zeros(3, np.int64), 8 << 24)
    network = Network(Coordinates(3), (layer,), 1, np.array([slopes]), np.array([1 << 4]), np.array([16 * offset]), 8)
    network.check()
    return siren.Siren(None, network, 0, -30000, 30000)


def voxels(shape: tuple[int, int, int]) -> np.ndarray:
    """Return every voxel index of an image, i slowest."""
    return np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3)


def decoded(store: Path) -> np.ndarray:
    """Return the image as (voxels, measurements) in the order of `voxels`."""
    image = inrstore.open(store).image.values
    return image.T.reshape(-1, image.shape[0] if image.ndim > 3 else 1)


# ---- networks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activations", [*BY_NAME, "relu sine linear", "sine relu"])
def test_at_voxel_centres_a_network_is_what_is_decoded_within_one_step(tmp_path, activations):
    shape, chunks = (5, 7, 8, 9), (5, 4, 8, 5)
    frames = networks(shape, chunks, activations=activations, layers=2, amplitude=30.0)
    store = store_of(tmp_path, frames, shape, chunks)
    field = inrstore.field(store)
    assert field.kind == "network" and field.chunks == {"network": 4}
    assert (field.shape, field.measurements) == ((9, 8, 7), 5)
    places = voxels(field.shape)
    found = field.sample(places, space="voxel")
    assert found.kind == "network" and found.points == {"network": 5 * 504, "outside": 0}
    assert np.ptp(decoded(store)) > 30
    assert np.abs(found.values - decoded(store)).max() <= 1
    world = nib.affines.apply_affine(nib.load(tmp_path / "in/a.nii").affine, places)
    assert np.allclose(field.sample(world).values, found.values, atol=1e-6)


def test_every_activation_has_its_real_function():
    for activation in ACTIVATIONS.values():
        real, z = REAL[activation.name], np.linspace(-1.2, 1.2, 999) * REAL[activation.name].whole
        integer = np.empty((1, 999), np.float32)
        held = (np.floor(z).astype(np.int64) & 0xFFFFFFFF) if activation.wraps else np.floor(z)
        activation.apply(held.astype(activation.dtype)[None], np.empty((1, 999), np.intp), integer)
        value = real.value(z[None] / real.whole + real.shift, np.empty((1, 999)))
        assert np.abs(value * 1023 - integer).max() < 1.6, activation.name


@pytest.mark.parametrize("activations", ["sine", "relu", "linear", "sine relu linear"])
def test_gradients_are_those_of_finite_differences(tmp_path, activations):
    shape = (3, 6, 8, 9)
    store = store_of(tmp_path, networks(shape, shape, activations=activations), shape, shape)
    field, rng, step = inrstore.field(store), np.random.default_rng(0), 1e-5
    points = nib.affines.apply_affine(OBLIQUE, rng.uniform(0.1, [7.9, 6.9, 4.9], (200, 3)))
    for space in ("world", "voxel"):
        if space == "voxel":
            points = nib.affines.apply_affine(np.linalg.inv(OBLIQUE), points)
        found = field.sample(points, space=space, gradient=True)
        assert found.gradients.shape == (200, 3, 3)
        steps = np.stack([(field.sample(points + move, space=space).values
                           - field.sample(points - move, space=space).values) / (2 * step)
                          for move in step * np.eye(3)], -1)  # fmt: skip
        off = np.abs(found.gradients - steps)
        assert np.abs(steps).max() > 1
        assert np.quantile(off, 0.98) < 1e-6 * np.abs(steps).max()  # a kink of a clamp may lie between


def test_the_real_function_does_not_depend_on_how_many_points_there_are():
    real = RealNetwork.of(
        Net(seed=6, layers=3, width=9, widths=(9, 30, 9), axis=0, activations="sine relu").build((3, 2, 2)).network
    )
    x = np.random.default_rng(2).uniform(-50, 50, (2, 2000))
    values, slopes = real(x, along=(0, 1))
    for part in (slice(0, 1), slice(5, 1400), slice(7, 9)):
        again = real(x[:, part], along=(1,))
        assert np.allclose(again[0], values[:, part], atol=1e-9) and np.allclose(
            again[1][:, 0], slopes[:, 1, part], atol=1e-9
        )
    assert np.allclose(real(x, np.array([2, 0]))[0], values[[2, 0]], atol=1e-9)
    assert real(x[:, :0], along=(0,))[1].shape == (3, 1, 0)


def test_a_place_is_of_the_chunk_whose_voxel_is_nearest(tmp_path):
    shape, chunks = (6, 5, 4), (3, 5, 4)
    frames = {(0, 0, 0): siren_frame(np.zeros(chunks, "<i2"), straight(chunks, (1, 0, 0)), None),
              (1, 0, 0): siren_frame(np.zeros(chunks, "<i2"), straight(chunks, (0, 0, 0), 77), None)}  # fmt: skip
    store = store_of(tmp_path, frames, shape, chunks)
    found = inrstore.field(store).sample([[1, 1, 2.4], [1, 1, 2.6], [1, 1, -0.4]], space="voxel", gradient=True)
    low = decode_chunk(frames[(0, 0, 0)])[:, 0, 0].astype(float)
    step = low[1] - low[0]
    assert step > 0
    assert found.values[:, 0] == pytest.approx([low[2] + 0.4 * step, 77, low[0] - 0.4 * step])
    assert found.gradients[:, 0] == pytest.approx(np.array([[0, 0, step], [0, 0, 0], [0, 0, step]]))


def test_outside_the_image_is_nan_or_said_or_an_error(tmp_path):
    shape = (4, 5, 6)
    store = store_of(tmp_path, networks(shape, shape), shape, shape)
    field = inrstore.field(store)
    points = [[-0.5, 0, 0], [5.5, 4.5, 3.5], [-0.51, 0, 0], [0, 0, 3.6], [np.nan, 0, 0], [np.inf, 0, 0]]
    found = field.sample(points, space="voxel", gradient=True)
    assert np.isnan(found.values[:, 0]).tolist() == [False, False, True, True, True, True]
    assert np.isnan(found.gradients[2:]).all() and np.isfinite(found.gradients[:2]).all()
    assert found.points["outside"] == 4
    assert field.sample(points, space="voxel", outside=-7).values[2:, 0].tolist() == [-7] * 4
    with pytest.raises(ConfigurationError, match="points: 4 outside"):
        field.sample(points, space="voxel", outside="raise")
    assert field.sample(np.empty((0, 3))).values.shape == (0, 1)


def test_the_mask_the_border_and_exceptions_hold_for_the_places_nearest(tmp_path):
    shape = (5, 6, 7)
    inside = np.ones(shape, bool)
    inside[2, 3, 4] = False
    around = replace(envelopes.whole(shape), fill=b"\0\0", mask=inside)
    frames = {(0, 0, 0): siren_frame(np.zeros(shape, "<i2"), Net(seed=3, layers=2, width=8, amplitude=60.0), around)}
    store = store_of(tmp_path, frames, shape, shape, mask=inside)
    found = inrstore.field(store).sample([[4.4, 2.6, 2.2], [4.6, 3, 2]], space="voxel", gradient=True)
    assert found.values[0, 0] == 0 and not found.gradients[0].any()
    assert found.values[1, 0] != 0 and found.gradients[1].any()
    assert inrstore.field(store).sample(voxels((7, 6, 5)), space="voxel").points["network"] == 210


def test_a_border_has_its_value_and_infinities_stay_where_they_are(tmp_path):
    shape = (5, 6, 7)
    odd = np.zeros((4, 6, 6), bool)
    odd[1, 2, 3] = True
    around = replace(envelopes.whole(shape), start=(1, 0, 0), stop=(5, 6, 6), fill=np.float32(-8).tobytes(),
                     exceptions=odd, values=np.array([np.inf], "<f4"))  # fmt: skip
    frames = {(0, 0, 0): siren_frame(np.zeros(shape, "<f4"), Net(seed=3, layers=2, width=8, amplitude=60.0), around)}
    store = store_of(tmp_path, frames, shape, shape, "<f4")
    found = inrstore.field(store).sample(
        [[1, 1, 0.3], [5.6, 1, 2], [3.4, 1.7, 2.2], [3, 2, 3]], space="voxel", gradient=True
    )
    assert found.values[:3, 0].tolist() == [-8, -8, np.inf] and np.isfinite(found.values[3, 0])
    assert not found.gradients[:2].any() and np.isnan(found.gradients[2]).all()
    every, stored = inrstore.field(store).sample(voxels((7, 6, 5)), space="voxel").values, decoded(store)
    finite = np.isfinite(stored)
    assert np.abs(every[finite] - stored[finite]).max() <= 1 and (every[~finite] == np.inf).all()


def test_floats_that_were_integers_are_scaled(tmp_path):
    shape = (4, 5, 6)
    around = replace(envelopes.whole(shape), numbers=Linear(np.dtype("<i2"), PRODUCT, 0.25, 3.0))
    made = Net(seed=5, layers=2, width=8, amplitude=60.0).build(shape)
    like = np.zeros(shape, "<f4")
    frame = seal(modes.SIREN, like, envelopes.write(around, shape) + siren.write(made))
    store = store_of(tmp_path, {(0, 0, 0): frame}, shape, shape, "<f4")
    field = inrstore.field(store)
    assert np.abs(field.sample(voxels(field.shape), space="voxel").values - decoded(store)).max() <= 0.25
    one, step = np.array([[2.0, 2.0, 1.5]]), 1e-5
    slope = (
        field.sample(one + [step, 0, 0], space="voxel").values - field.sample(one - [step, 0, 0], space="voxel").values
    ) / (2 * step)
    assert field.sample(one, space="voxel", gradient=True).gradients[0, 0, 0] == pytest.approx(slope[0, 0], rel=1e-5)


def test_along_an_axis_of_one_position_a_network_is_constant(tmp_path):
    shape, chunks = (2, 6, 7), (1, 6, 7)
    store = store_of(tmp_path, networks(shape, chunks), shape, chunks)
    found = inrstore.field(store).sample([[3, 2, 0], [3, 2, 0.4], [3, 2, -0.4]], space="voxel", gradient=True)
    assert np.ptp(found.values) == 0 and not found.gradients[..., 2].any() and found.gradients[..., 0].any()


def test_measurements_may_be_chosen_and_may_be_coordinates(tmp_path):
    shape, chunks = (4, 4, 5, 6), (2, 4, 5, 6)
    for number, axis in enumerate((0, None)):
        (tmp_path / str(number)).mkdir()
        store = store_of(tmp_path / str(number), networks(shape, chunks, axis=axis), shape, chunks)
        field, points = inrstore.field(store), voxels((6, 5, 4))[::7]
        every = field.sample(points, space="voxel", gradient=True)
        assert np.abs(every.values - decoded(store)[::7]).max() <= 1
        for some in (2, [3, 0], slice(1, None, 2), np.array([False, True, True, False])):
            found = field.sample(points, space="voxel", gradient=True, measurements=some)
            assert np.allclose(found.values, every.values[:, np.atleast_1d(np.arange(4)[some])], atol=1e-9)
            assert np.allclose(found.gradients, every.gradients[:, np.atleast_1d(np.arange(4)[some])], atol=1e-9)
        for wrong in (4, [0, 9], "t", [[0]]):
            with pytest.raises(ConfigurationError, match="measurements"):
                field.sample(points, space="voxel", measurements=wrong)
    for wrong in (np.zeros(3), np.zeros((2, 2))):
        with pytest.raises(ConfigurationError, match="points"):
            field.sample(wrong)
    with pytest.raises(ConfigurationError, match="space"):
        field.sample(points, space="mm")


def test_images_of_fewer_and_more_axes_are_fields(tmp_path):
    for number, (shape, axis) in enumerate([((9,), None), ((6, 7), None), ((2, 3, 4, 5, 6), 1)]):
        (tmp_path / str(number)).mkdir()
        store = store_of(tmp_path / str(number), networks(shape, shape, axis=axis), shape, shape)
        field = inrstore.field(store)
        assert field.shape == (*shape[::-1][:3], 1, 1)[:3] and field.measurements == (6 if len(shape) == 5 else 1)
        found = field.sample(voxels(field.shape), space="voxel", gradient=True)
        image = inrstore.open(store).image.values
        assert np.abs(found.values - image.T.reshape(np.prod(field.shape), *image.shape[:-3][::-1])
                      .reshape(np.prod(field.shape), -1, order="F")).max() <= 1  # fmt: skip
        assert not found.gradients[..., len(shape) :].any() and found.gradients[..., 0].any()
        assert field.grid(1.0).values.ndim == field.level(1).ndim == len(shape)


def test_scaled_values_are_real_ones(tmp_path):
    shape = (4, 5, 6)
    store = store_of(tmp_path, networks(shape, shape), shape, shape, slope=(2.5, -100.0))
    points = voxels((6, 5, 4))[::5] * 0.9
    plain, real = (
        inrstore.field(store, scaled=wanted).sample(points, space="voxel", gradient=True) for wanted in (False, True)
    )
    assert np.allclose(real.values, 2.5 * plain.values - 100) and np.allclose(real.gradients, 2.5 * plain.gradients)
    assert np.array_equal(np.asarray(real), real.values) and np.asarray(real, np.float32).dtype == np.float32
    with pytest.raises(ConfigurationError, match="scaling"):
        inrstore.field(store, scaled=True).export(tmp_path / "x.nii", 1)


def test_only_the_chunks_that_are_touched_are_read_and_once(tmp_path, monkeypatch):
    shape, chunks = (8, 5, 4), (2, 5, 4)
    store = store_of(tmp_path, networks(shape, chunks), shape, chunks)
    field, read = inrstore.field(store), []
    original = type(field.store).file
    monkeypatch.setattr(type(field.store), "file", lambda self, key: read.append(key) or original(self, key))
    for _ in range(3):
        field.sample([[1, 1, 2.4], [2, 2, 6]], space="voxel")
    assert sorted(read) == ["image/c/1/0/0", "image/c/3/0/0"]
    field._kept.most = 1
    field.sample([[1, 1, 2.4], [2, 2, 6]], space="voxel")
    assert len(field._kept._found) == 2
    field.sample([[1, 1, 4]], space="voxel")
    assert len(field._kept._found) == 1


def test_damage_is_named(tmp_path):
    shape = (4, 5, 6)
    store = store_of(tmp_path, networks(shape, shape), shape, shape)
    field, chunk = inrstore.field(store), store / "image/c/0/0/0"
    data = bytearray(chunk.read_bytes())
    data[40] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(StoreError, match="image/c/0/0/0 was changed"):
        field.sample([[0, 0, 0]], space="voxel")
    field.store.manifest["image/c/0/0/0"] = manifest.digest(bytes(data))
    with pytest.raises(CorruptChunkError, match=r"frame_crc.*\[image/c/0/0/0\]"):
        field.sample([[0, 0, 0]], space="voxel")
    chunk.unlink()
    with pytest.raises(StoreError, match="missing"):
        field.sample([[0, 0, 0]], space="voxel")


# ---- the module ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activations", ["sine", "relu linear", "sine relu"])
def test_the_module_agrees_with_the_integers_and_learns(tmp_path, activations):
    torch = pytest.importorskip("torch")
    shape, chunks = (5, 6, 8, 9), (3, 6, 8, 9)
    store = store_of(tmp_path, networks(shape, chunks, activations=activations), shape, chunks, slope=(2.0, 5.0))
    field = inrstore.field(store)
    places = voxels(field.shape)
    module = field.module((1, 0, 0, 0))
    assert module.measurements.tolist() == [3, 4]
    found = module(torch.tensor(places, dtype=torch.float32))
    assert np.abs(found.detach().numpy() - decoded(store)[:, 3:]).max() <= 1
    scaled = inrstore.field(store, scaled=True).module([0, 0, 0, 0]).double()
    points = torch.tensor(places * 0.8 + 0.1, requires_grad=True)
    values = scaled(points)
    exact = field.sample(points.detach().numpy(), space="voxel", measurements=[0, 1, 2], gradient=True)
    assert np.allclose(values.detach().numpy(), 2 * exact.values + 5, atol=1e-3)
    (slopes,) = torch.autograd.grad(values[:, 1].sum(), points)
    close = np.isclose(slopes.numpy(), 2 * exact.gradients[:, 1], atol=1e-3)
    assert close.mean() > 0.99  # a kink may be on either side
    before = module.weights[0].detach().clone()
    optimiser = torch.optim.Adam(module.parameters(), 1e-3)
    losses = []
    for _ in range(5):
        loss = (module(torch.tensor(places, dtype=torch.float32)) - 3).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] and not torch.equal(before, module.weights[0])
    for wrong, words in ((None, "name one"), ((9, 0, 0, 0), "not inside"), ((0,), "not inside")):
        with pytest.raises(ConfigurationError, match=words):
            field.module(wrong)


def test_the_module_gives_what_the_chunk_gives_outside_the_box_of_the_network(tmp_path):
    torch = pytest.importorskip("torch")
    shape = (5, 6, 8)
    around = replace(envelopes.whole(shape), start=(1, 0, 2), stop=(5, 5, 6), fill=b"\x07\0")
    frames = {(0, 0, 0): siren_frame(np.zeros(shape, "<i2"), Net(seed=3, layers=2, width=8, amplitude=60.0), around)}
    store = store_of(tmp_path, frames, shape, shape, slope=(2.0, 5.0))
    field = inrstore.field(store, scaled=True)
    places, module = voxels(field.shape), field.module()
    want = 2.0 * decoded(store) + 5
    found = module(torch.tensor(places, dtype=torch.float32)).detach().numpy()
    assert np.abs(found - want).max() <= 2 and (want == 19).mean() > 0.5
    corner = torch.tensor([[1.4, 0, 1], [1.6, 4.4, 0.6], [5.4, 4.4, 4.0], [5.6, 4, 4]], requires_grad=True)
    values = module(corner)
    assert (values == 19).ravel().tolist() == [True, False, False, True]
    (slopes,) = torch.autograd.grad(values.sum(), corner)
    assert slopes.any(1).tolist() == [False, True, True, False]
    module.surrounded = False
    assert (module(corner) != 19).all()


# ---- splines ---------------------------------------------------------------------------------------------


@pytest.fixture
def image(tmp_path):
    """A store that no network holds, and its image, oblique."""
    pytest.importorskip("scipy")
    values = random_image((20, 17, 15, 2))
    made = nib.Nifti1Image(values, OBLIQUE, dtype=values.dtype)
    made.header["slice_code"], made.header["slice_end"], made.header["descrip"] = 1, 14, b"scanner"
    made.header.set_xyzt_units("mm", "sec")
    made.header["pixdim"][4] = 2.5
    made.set_qform(OBLIQUE, 2)
    nib.save(made, tmp_path / "a.nii")
    (tmp_path / "a.bval").write_text("0 1000\n")
    (tmp_path / "a.bvec").write_text("0 1\n0 0\n0 0\n")
    (tmp_path / "a.json").write_text('{"SliceTiming": [0, 1]}')
    inrstore.convert(tmp_path / "a.nii", tmp_path / "a.ozx", lossless=True)
    return tmp_path / "a.ozx", nib.load(tmp_path / "a.nii")


def test_other_chunks_are_interpolated_by_splines_and_say_so(image):
    from scipy.ndimage import map_coordinates

    store, source = image
    field, values = inrstore.field(store), np.asarray(source.dataobj, float)
    assert field.kind == "spline" and field.chunks == {"spline": 1}
    points = np.random.default_rng(0).uniform(0, [19, 16, 14], (300, 3))
    found = field.sample(points, space="voxel", gradient=True)
    assert found.kind == "spline" and found.points == {"spline": 600, "outside": 0}
    for t in range(2):
        want = map_coordinates(values[..., t], points.T, order=3, mode="mirror")
        assert np.abs(found.values[:, t] - want).max() < 1e-4
    assert np.abs(field.sample(voxels(field.shape), space="voxel").values - values.reshape(-1, 2)).max() < 1e-5
    step = 1e-4
    for axis, move in enumerate(step * np.eye(3)):
        slope = (
            field.sample(points + move, space="voxel").values - field.sample(points - move, space="voxel").values
        ) / (2 * step)
        assert np.abs(found.gradients[..., axis] - slope)[(points > 0.01).all(1)].max() < 1e-3 * np.abs(slope).max()
    edge = field.sample([[-0.4, 3.5, 4], [0, 3.5, 4]], space="voxel", gradient=True)  # constant beyond the centres
    assert edge.values[0] == pytest.approx(edge.values[1]) and not edge.gradients[0, :, 0].any()
    with pytest.raises(ConfigurationError, match="no network"):
        field.module()


def test_networks_are_interpolated_where_that_is_asked_for(tmp_path):
    ndimage = pytest.importorskip("scipy.ndimage")
    shape, chunks = (8, 9, 10), (4, 9, 10)
    store = store_of(tmp_path, networks(shape, chunks), shape, chunks)
    field, image = inrstore.field(store, splines=True), inrstore.open(store).image.values.T.astype(float)
    points = np.random.default_rng(0).uniform(0, [9, 8, 7], (100, 3))
    found = field.sample(points, space="voxel")
    assert field.kind == found.kind == "spline" and pickle.loads(pickle.dumps(field)).splines
    assert np.allclose(found.values[:, 0], ndimage.map_coordinates(image, points.T, order=3, mode="mirror"), atol=1e-5)


def test_splines_do_not_depend_on_the_chunks(tmp_path, image):
    store, _ = image
    inrstore.convert(tmp_path / "a.nii", tmp_path / "b.ozx", lossless=True, chunks=(5, 9, 20))
    points = np.random.default_rng(0).uniform(-0.5, [19.5, 16.5, 14.5], (500, 3))
    one, other = (
        inrstore.field(path).sample(points, space="voxel", gradient=True) for path in (store, tmp_path / "b.ozx")
    )
    assert np.allclose(one.values, other.values, atol=1e-5) and np.allclose(one.gradients, other.gradients, atol=1e-4)


def test_splines_are_0_outside_a_mask_and_keep_what_is_not_finite(tmp_path):
    pytest.importorskip("scipy")
    values = random_image((12, 11, 10), np.float32)
    inside = np.ones(values.shape, np.uint8)
    inside[4, 5, 6] = 0
    values[2, 2, 2] = np.nan
    nib.save(nib.Nifti1Image(values, OBLIQUE), tmp_path / "a.nii")
    nib.save(nib.Nifti1Image(inside, OBLIQUE), tmp_path / "m.nii")
    inrstore.convert(tmp_path / "a.nii", tmp_path / "a.ozx", lossless=True, mask=tmp_path / "m.nii")
    found = inrstore.field(tmp_path / "a.ozx").sample(
        [[4.4, 5.4, 5.6], [4.6, 5, 6], [2.3, 2, 2], [2.6, 2, 2]], space="voxel", gradient=True
    )
    assert found.values[0, 0] == 0 and not found.gradients[0].any() and found.values[1, 0] > 1
    assert np.isnan(found.values[2, 0]) and np.isnan(found.gradients[2]).all() and np.isfinite(found.values[3, 0])


def test_a_store_of_both_says_mixed(tmp_path):
    pytest.importorskip("scipy")
    shape, chunks = (6, 5, 4), (2, 5, 4)
    frames = networks(shape, chunks)
    frames[(1, 0, 0)] = encode_as(modes.RAW, decode_chunk(frames[(1, 0, 0)]))
    frames[(2, 0, 0)] = encode_as(modes.CONSTANT, np.full(chunks, 9, "<i2"))
    field = inrstore.field(store_of(tmp_path, frames, shape, chunks))
    assert field.kind == "mixed" and field.chunks == {"network": 1, "spline": 1, "constant": 1}
    points = voxels((4, 5, 6))
    found = field.sample(points, space="voxel")
    assert found.kind == "mixed" and found.points == {"network": 40, "spline": 80, "outside": 0}
    assert np.abs(found.values - decoded(tmp_path / "s.zarr")).max() <= 1
    assert field.sample([[0, 0, 0]], space="voxel").kind == "network"


def test_constant_chunks_beside_networks_are_constant(tmp_path):
    shape, chunks = (4, 5, 4), (2, 5, 4)
    frames = networks(shape, chunks)
    frames[(1, 0, 0)] = encode_as(modes.CONSTANT, np.full(chunks, 9, "<i2"))
    field = inrstore.field(store_of(tmp_path, frames, shape, chunks))
    found = field.sample([[1.3, 2.2, 1.6], [0, 0, 0]], space="voxel", gradient=True)
    assert field.kind == "network" and found.points == {"network": 1, "constant": 1, "outside": 0}
    assert found.values[0, 0] == 9 and not found.gradients[0].any()


# ---- grids -----------------------------------------------------------------------------------------------


def test_a_grid_of_a_network_is_right_in_the_world(tmp_path):
    shape = (10, 12, 14)
    made = straight(shape, (3, -2, 5))
    store = store_of(tmp_path, {(0, 0, 0): siren_frame(np.zeros(shape, "<i2"), made, None)}, shape, shape)
    field = inrstore.field(store)
    whole = field.sample(voxels(field.shape), space="voxel", gradient=True)
    slope, start = whole.gradients[0, 0], whole.values[0, 0]
    assert np.abs(slope).min() > 0.1 and np.allclose(whole.gradients, slope)

    def linear(affine, lengths):
        places = nib.affines.apply_affine(np.linalg.inv(field.affine) @ affine, voxels(lengths))
        return start + places @ slope, places

    for spacing in (1.0, (1.0, 0.7, 3.1), 30.0):
        grid = field.grid(spacing)
        affine, lengths = np.reshape(grid.affine, (4, 4)), grid.shape[::-1]
        steps = np.broadcast_to(spacing, 3)
        assert np.allclose(np.linalg.norm(affine[:3, :3], axis=0), steps)
        assert np.allclose(affine[:3, :3] / steps, OBLIQUE[:3, :3] / [1.5, 2.0, 2.5], atol=1e-6)  # the same axes
        middle = [
            nib.affines.apply_affine(a, (np.array(n) - 1) / 2) for a, n in ((affine, lengths), (OBLIQUE, field.shape))
        ]
        assert np.allclose(*middle, atol=1e-4)
        assert (
            np.abs(np.array(lengths) * steps - np.array(field.shape) * [1.5, 2.0, 2.5]) <= np.maximum(steps / 2, 30)
        ).all()
        want, places = linear(affine, lengths)
        assert grid.dims == ("z", "y", "x") and grid.attrs["kind"] == "network" and grid.dtype == np.float32
        assert np.allclose(grid.values.T.reshape(-1), want, atol=1e-2)
        assert (places > -0.5 - 1e-6).all() and (places < np.array(field.shape) - 0.5 + 1e-6).all()
        assert np.allclose(grid.x.values, places.reshape(*lengths, 3)[:, 0, 0, 0] * 1.5, atol=1e-5)
    for level in (1, 2):
        grid = field.level(level)
        affine = np.reshape(grid.affine, (4, 4))
        corner = [nib.affines.apply_affine(a, [-0.5] * 3) for a in (affine, field.affine)]
        assert np.allclose(*corner)
        want, places = linear(affine, grid.shape[::-1])
        whole = (places + (2**level - 1) / 2 < np.array(field.shape)).all(1)
        assert np.allclose(grid.values.T.reshape(-1)[whole], want[whole], atol=1e-2) and np.isfinite(grid.values).all()


def test_level_1_is_the_mean_of_eight_voxels(tmp_path):
    shape = (3, 5, 6, 7)
    store = store_of(tmp_path, networks(shape, shape), shape, shape)
    field, dataset = inrstore.field(store), inrstore.open(store)
    image = dataset.image.astype(float).pad(z=(0, 1), x=(0, 1), constant_values=np.nan)
    want = image.coarsen(z=2, y=2, x=2).mean()
    found = field.level(1)
    assert found.shape == want.shape == (3, 3, 3, 4) and np.abs(found.values - want.values).max() < 1
    assert field.level(0).shape == shape and np.abs(field.level(0).values - dataset.image.values).max() <= 1
    assert field.level(9).shape == (3, 1, 1, 1)
    for wrong in (-1, 1.5, 40, True):
        with pytest.raises(ConfigurationError, match="level"):
            field.level(wrong)


def test_a_store_opens_at_a_level(tmp_path):
    shape = (3, 5, 6, 7)
    store = store_of(tmp_path, networks(shape, shape), shape, shape, slope=(2.0, 1.0))
    dataset, field = inrstore.open(store, level=1), pickle.loads(pickle.dumps(inrstore.field(store)))
    assert dataset.image.dims == ("t", "z", "y", "x") and dataset.image.chunks is not None
    assert np.array_equal(dataset.image.values, field.level(1).values)
    assert np.array_equal(pickle.loads(pickle.dumps(dataset.image)).values, dataset.image.values)
    assert np.reshape(dataset.affine, (4, 4)) == pytest.approx(np.reshape(field.level(1).affine, (4, 4)))
    assert dataset.x.values[:2] == pytest.approx([0.75, 3.75]) and dataset.image.attrs["kind"] == "network"
    assert np.allclose(inrstore.open(store, level=1, scaled=True).image.values, 2 * dataset.image.values + 1, atol=1e-3)
    assert "level" not in " ".join(tree(store))


def test_a_grid_agrees_with_nibabel_on_an_oblique_scan(image):
    processing = pytest.importorskip("nibabel.processing")
    store, source = image
    first = nib.Nifti1Image(np.asarray(source.dataobj, float)[..., 0], source.affine)
    field = inrstore.field(store)
    straight_grid = nib.spaces.vox2out_vox((first.shape, source.affine), (1.5, 1.5, 1.5))
    shifted = (
        (12, 11, 10),
        OBLIQUE @ nib.affines.from_matvec(nib.eulerangles.euler2mat(0.1, 0.2, 0.0) * 1.1, [1.0, 2.0, 1.5]),
    )
    same = grids.spaced(field.shape, field.affine, (1.1, 1.3, 2.0))
    for shape, affine in (straight_grid, shifted, same):
        want = (processing.resample_to_output(first, (1.5, 1.5, 1.5)) if shape is straight_grid[0]
                else processing.resample_from_to(first, (shape, affine)))  # fmt: skip
        grid = field.grid(shape=shape, affine=affine)
        found = grid.values[0].T
        assert found.shape == want.shape and np.allclose(np.reshape(grid.affine, (4, 4)), want.affine)
        places = nib.affines.apply_affine(np.linalg.inv(source.affine) @ affine, voxels(shape))
        inner = ((places > 0) & (places < np.array(first.shape) - 1)).all(1)
        assert inner.sum() > 300
        assert np.abs(found.reshape(-1)[inner] - want.get_fdata().reshape(-1)[inner]).max() < 2e-3
        beyond = ((places < -0.51) | (places > np.array(first.shape) - 0.49)).any(1)
        assert np.isnan(found.reshape(-1)[beyond]).all() and not np.isnan(found.reshape(-1)[inner]).any()


def test_parts_of_a_grid_are_parts_of_the_whole(image):
    grid = inrstore.field(image[0]).grid((2, 3, 4))
    whole = grid.values
    for key in [(slice(None), 2), (1, slice(1, 3), slice(None, None, 2), -1), (slice(0, 1), 0, 1, 2), (0,)]:
        assert np.allclose(grid[key].values, whole[key], atol=1e-4)
    array = inrstore.field(image[0]).grid_of((3, 2, 2), OBLIQUE)
    assert np.array_equal(array[...], array[:, :, :, :]) and np.array_equal(array[..., 1], array[:][..., 1])
    field = inrstore.field(image[0])
    for wrong in (0, -1, np.nan, (1, 2), "a", 1e-6):
        with pytest.raises(ConfigurationError, match="spacing"):
            field.grid(wrong)
    for wrong in ({"shape": (2, 2, 2)}, {"spacing": 1, "shape": (2, 2, 2), "affine": np.eye(4)},
                  {"shape": (2, 2), "affine": np.eye(4)}, {"shape": (2, 2, 0), "affine": np.eye(4)},
                  {"shape": (2, 2, 2), "affine": np.eye(3)}):  # fmt: skip
        with pytest.raises(ConfigurationError):
            field.grid(**wrong)


# ---- files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_an_export_on_a_grid_is_a_nifti_of_it(tmp_path, image, ending, monkeypatch):
    store, source = image
    monkeypatch.setattr(grids, "_AT_ONCE", 300)  # a few rows at a time
    report = inrstore.field(store).export(tmp_path / f"out{ending}", (1, 1.5, 4))
    made, field = nib.load(tmp_path / f"out{ending}"), inrstore.field(store)
    grid = field.grid((1, 1.5, 4))
    assert (report.kind, report.shape, report.spacing) == ("spline", grid.shape[:0:-1], pytest.approx((1, 1.5, 4)))
    assert np.allclose(made.affine, np.reshape(grid.affine, (4, 4)), atol=1e-4)
    assert np.allclose(made.get_qform(), made.affine, atol=1e-3)
    assert (int(made.header["qform_code"]), int(made.header["sform_code"])) == (2, int(source.header["sform_code"]))
    assert made.header.get_zooms() == pytest.approx((1, 1.5, 4, 2.5)) and made.get_data_dtype() == np.int16
    assert made.header.get_xyzt_units() == ("mm", "sec") and bytes(made.header["descrip"]).startswith(b"scanner")
    assert int(made.header["slice_code"]) == int(made.header["slice_end"]) == 0
    assert np.array_equal(np.asarray(made.dataobj), np.rint(grid.values).T)
    assert (tmp_path / "out.bval").read_bytes() == (tmp_path / "a.bval").read_bytes()
    assert (tmp_path / "out.bvec").exists() and not (tmp_path / "out.json").exists()
    assert not list(tmp_path.glob(".inrstore-*"))


@pytest.mark.parametrize("kind", ["pixdim", "qform", "NIfTI-2", "big-endian", "MGH"])
def test_the_affine_of_an_export_is_right_whatever_the_source_says(tmp_path, kind):
    pytest.importorskip("scipy")
    values, path = random_image((11, 10, 9)), tmp_path / ("a.mgz" if kind == "MGH" else "a.nii")
    if kind == "MGH":
        made = nib.MGHImage(values, OBLIQUE)
    else:
        header = nib.Nifti1Header(endianness=">") if kind == "big-endian" else None
        made = (nib.Nifti2Image if kind == "NIfTI-2" else nib.Nifti1Image)(values, OBLIQUE, header, dtype=values.dtype)
        if kind == "qform":
            made.set_sform(None, 0)
            made.set_qform(OBLIQUE, 1)
        if kind == "pixdim":
            made.set_sform(None, 0)
            made.set_qform(None, 0)
    nib.save(made, path)
    source = nib.load(path)
    inrstore.convert(path, tmp_path / "a.ozx", lossless=True)
    field = inrstore.field(tmp_path / "a.ozx")
    assert np.allclose(field.affine, source.affine, atol=1e-4)
    field.export(tmp_path / "o.nii.gz", (2.0, 1.2, 1.7))
    found, grid = nib.load(tmp_path / "o.nii.gz"), field.grid((2.0, 1.2, 1.7))
    assert np.allclose(found.affine, np.reshape(grid.affine, (4, 4)), atol=1e-3) and found.get_data_dtype() == np.int16
    assert np.array_equal(np.asarray(found.dataobj), np.rint(grid.values).T)
    assert found.header.get_zooms() == pytest.approx((2.0, 1.2, 1.7), abs=1e-4)


def test_an_export_that_fails_leaves_nothing(tmp_path, image, monkeypatch):
    store, _ = image
    field = inrstore.field(store)
    (tmp_path / "there.nii").write_bytes(b"mine")
    check_refused(
        lambda: field.export(tmp_path / "there.nii", 2),
        inrstore.errors.DestinationExistsError,
        "there.nii",
        folder=tmp_path,
    )
    check_refused(lambda: field.export(tmp_path / "x.mgz", 2), ConfigurationError, ".nii.gz", folder=tmp_path)
    (tmp_path / "y.bval").write_text("mine")
    check_refused(
        lambda: field.export(tmp_path / "y.nii", 2), inrstore.errors.DestinationExistsError, "y.bval", folder=tmp_path
    )

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("inrstore.views.resampled._write", full)
    check_refused(
        lambda: field.export(tmp_path / "z.nii.gz", 2),
        inrstore.errors.WriteError,
        "z.nii.gz",
        "No space",
        folder=tmp_path,
    )


def test_the_scaling_of_a_network_store_goes_along(tmp_path):
    shape = (4, 5, 6)
    store = store_of(tmp_path, networks(shape, shape), shape, shape, slope=(2.5, -100.0))
    inrstore.field(store).export(tmp_path / "out.nii", 1)
    made, real = nib.load(tmp_path / "out.nii"), inrstore.field(store, scaled=True).grid(1)
    assert (made.dataobj.slope, made.dataobj.inter) == (2.5, -100.0)
    assert np.abs(made.get_fdata() - real.values.T).max() <= 1.25 + 1e-3


def test_the_command_says_what_made_the_values(tmp_path, image):
    from typer.testing import CliRunner

    from inrstore.cli.app import app

    def run(*words):
        return CliRunner().invoke(app, ["export", *map(str, words)])

    result = run(image[0], tmp_path / "o.nii.gz", "--spacing", "1,1,2")
    assert result.exit_code == 0, result.output
    assert "by a cubic spline" in result.output and "voxels of 1 x 1 x 2 mm" in result.output
    shape = (4, 5, 6)
    store = store_of(tmp_path, networks(shape, shape), shape, shape)
    assert "by the network of each chunk" in run(store, tmp_path / "n.nii", "--spacing", "1").output
    said = json.loads(run(store, tmp_path / "m.nii", "--spacing", "2", "--json").output)
    assert (
        said["kind"] == "network"
        and said["spacing"] == pytest.approx([2, 2, 2])
        and said["chunk_kinds"] == {"network": 1}
    )
    for words in (("--spacing", "a"), ("--spacing", "1,2"), ("--spacing", "0"), ("--spacing", "1", "--include", "x")):
        result = run(store, tmp_path / "q.nii", *words)
        assert result.exit_code == 2 and "spacing" in result.output and not (tmp_path / "q.nii").exists(), words


def test_a_matrix_is_no_field(tmp_path):
    shape = (4, 5, 6)
    store = store_of(tmp_path, networks(shape, shape), shape, shape)
    opened = inrstore.field(store).store
    singular, odd = np.zeros((4, 4)).tolist(), np.full((4, 4), np.nan).tolist()
    wrong = [{"affine": value} for value in (singular, odd, "x")]
    for change, error in (({"source": {"kind": "CIFTI"}}, ConfigurationError), *((one, StoreError) for one in wrong)):
        opened.attributes = {**opened.attributes, **change}
        with pytest.raises(error):
            inrstore.views.field.Field(opened)
        opened = inrstore.field(store).store


def test_integers_are_rounded_and_limited_not_wrapped():
    from inrstore.views.resampled import rounded

    assert rounded(np.array([1.5, 2.6, -9.0, 300.0]), np.dtype("u1")).tolist() == [2, 3, 0, 255]
    for kind in ("<i8", "<u8", "<i4"):
        info = np.iinfo(kind)
        assert rounded(np.array([1e30, -1e30, 7.4]), np.dtype(kind)).tolist() == [info.max, info.min, 7]
    assert rounded(np.array([1.5, np.nan]), np.dtype("<f4")).dtype == np.float32
