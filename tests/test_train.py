"""Shared networks of predictors: trained by a command, kept in a file that is checked, named by chunks that gain."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import zarr
from archives import bids_dataset
from checks import run_python
from common import needs_torch, tree
from test_format_neural import ct
from typer.testing import CliRunner

import inrstore
from inrstore.chunk.neural.neighbourhood import PYRAMID, cube
from inrstore.chunk.neural.network import Network, read_network
from inrstore.cli.app import app
from inrstore.errors import ConfigurationError, DestinationExistsError, StoreError
from inrstore.store.parameter import MAGIC, read_parameter, read_parameters, write_parameter


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def image(path, seed=0, shape=(6, 20, 22)):
    nib = pytest.importorskip("nibabel")
    nib.save(nib.Nifti1Image(np.ascontiguousarray(ct(shape, seed).T), np.eye(4)), path)
    return path


def plain(seed=0, hidden=(2,)) -> Network:
    """Return a network of a cube of radius 1 with small weights."""
    rng = np.random.default_rng(seed)
    sizes = [13, *hidden, 1]
    weights = tuple(rng.integers(-3, 4, (b, a)) for a, b in itertools.pairwise(sizes))
    return Network(
        cube(1), True, 3, 2047, (4,) * len(weights), weights, tuple(np.zeros(len(w), np.int64) for w in weights)
    )


def good_predictor() -> Network:
    """Return a network that predicts what `texture` makes: the value before in the own row, plus nothing."""
    weights = np.zeros((1, 13), np.int64)
    offsets = cube(1).offsets
    weights[0, offsets.index((-1, 0, 0))] = 256  # the same place in the slice before; the centre is near it otherwise
    return Network(cube(1), True, 3, 16383, (0,), (weights,), (np.zeros(1, np.int64),))


def texture(shape=(24, 40, 44), seed=0) -> np.ndarray:
    """Return noise that every slice repeats but for a little: no model of smooth images foresees it, a network does."""
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 4000, shape[1:]) + rng.integers(0, 2, shape)).astype(np.int16)


@pytest.fixture
def parameter(tmp_path):
    path = tmp_path / "net.model"
    write_parameter(str(path), plain().data)
    return path


def test_a_file_gives_back_the_parameter(parameter):
    assert read_parameter(parameter) == plain().data
    assert parameter.read_bytes().startswith(MAGIC)
    assert read_parameters([parameter, parameter]) == (plain().data,)


def test_a_file_is_never_replaced(parameter):
    with pytest.raises(DestinationExistsError):
        write_parameter(str(parameter), plain(1).data)
    assert read_parameter(parameter) == plain().data
    assert [p.name for p in parameter.parent.iterdir()] == ["net.model"]


@pytest.mark.parametrize(
    ("damage", "field"),
    [
        (lambda d: b"", "magic"),
        (lambda d: b"NOTSHARE" + d[8:], "magic"),
        (lambda d: d[:8] + b"\2\0" + d[10:], "version: 2"),
        (lambda d: d[:10] + (1 << 31).to_bytes(4, "little") + d[14:], "length"),
        (lambda d: d[:-1], "length"),
        (lambda d: d + b"\0", "length"),
        (lambda d: d[:20] + bytes([d[20] ^ 1]) + d[21:], "checksum"),
        (lambda d: d + bytes(3 << 20), "larger"),
    ],
)
def test_a_damaged_file_is_refused_with_the_field_named(parameter, damage, field):
    parameter.write_bytes(damage(parameter.read_bytes()))
    with pytest.raises(StoreError, match=field) as caught:
        read_parameter(parameter)
    assert str(parameter) in str(caught.value)


def test_a_sound_file_with_no_network_inside_is_refused(tmp_path):
    path = tmp_path / "other.model"
    write_parameter(str(path), b"\1\2\3")
    with pytest.raises(StoreError, match=r"other\.model: neural"):
        read_parameter(path)
    with pytest.raises(StoreError, match="no such file"):
        read_parameter(tmp_path / "none.model")


def convert(tmp_path, values, name, **options):
    nib = pytest.importorskip("nibabel")
    source = tmp_path / "source.nii"  # one name, which stands in the store and takes bytes
    nib.save(nib.Nifti1Image(np.ascontiguousarray(values.T), np.eye(4)), source)
    return source, inrstore.convert(source, tmp_path / f"{name}.ozx", lossless=True, **options)


def opened(path):
    return zarr.open_group(zarr.storage.ZipStore(path, mode="r"), mode="r")["image"]


@pytest.mark.parametrize("zarr_format", [3, 2])
def test_a_store_with_a_shared_network_opens_with_plain_zarr_in_a_fresh_process(tmp_path, zarr_format):
    model, values = tmp_path / "net.model", texture()
    write_parameter(str(model), good_predictor().data)
    source = tmp_path / "a.nii"
    nib = pytest.importorskip("nibabel")
    nib.save(nib.Nifti1Image(np.ascontiguousarray(values.T), np.eye(4)), source)
    store = tmp_path / "a.zarr"
    report = inrstore.convert(source, store, lossless=True, shared=[model], zarr_format=zarr_format)
    assert report.modes == {"neural": 1} and report.lossless
    plain_report = inrstore.convert(source, tmp_path / "b.zarr", lossless=True, zarr_format=zarr_format)
    assert report.stored_bytes < plain_report.stored_bytes
    np.save(tmp_path / "values.npy", values)
    run_python(
        "import sys; sys.modules['torch'] = None\nimport numpy as np, zarr\n"
        f"found = zarr.open({str(store)!r}, mode='r')['image'][...]\n"
        f"assert (found == np.load({str(tmp_path / 'values.npy')!r})).all()"
    )
    inrstore.verify(store, against=source)
    (chunk,) = inrstore.info(store).chunk_list
    assert chunk["shared"] == good_predictor().digest.hex()


def test_a_network_that_saves_less_than_it_takes_is_not_stored(tmp_path, parameter):
    values = ct((8, 24, 26), 1)
    _, without = convert(tmp_path, values, "one")
    _, given = convert(tmp_path, values, "two", shared=[parameter])
    assert given.modes == without.modes and "neural" not in given.modes
    assert given.stored_bytes == without.stored_bytes
    assert opened(tmp_path / "two.ozx").metadata.codecs[0].shared == ()


def test_of_several_networks_those_that_chunks_name_alone_are_stored(tmp_path, parameter):
    model = tmp_path / "good.model"
    write_parameter(str(model), good_predictor().data)
    _, report = convert(tmp_path, texture(), "a", shared=[parameter, model])
    assert report.modes == {"neural": 1}
    (codec,) = opened(tmp_path / "a.ozx").metadata.codecs
    assert len(codec.shared) == 1


def test_a_mask_and_a_shared_network_go_together(tmp_path):
    nib = pytest.importorskip("nibabel")
    model, values = tmp_path / "good.model", texture()
    write_parameter(str(model), good_predictor().data)
    inside = np.zeros(values.shape, np.uint8)
    inside[:, 4:36, 5:40] = 1
    nib.save(nib.Nifti1Image(np.ascontiguousarray(inside.T), np.eye(4)), tmp_path / "m.nii")
    _, report = convert(tmp_path, values, "a", shared=[model], mask=tmp_path / "m.nii")
    assert report.modes == {"neural": 1}
    found = opened(tmp_path / "a.ozx")[...]
    np.testing.assert_array_equal(found, np.where(inside, values, 0))


def test_shared_networks_for_a_lossy_store_are_refused(tmp_path, parameter):
    source = image(tmp_path / "a.nii")
    before = tree(tmp_path)
    result = run("convert", source, tmp_path / "a.ozx", "--psnr", "40", "--shared", parameter)
    assert result.exit_code == 2 and "lossless" in result.stderr
    with pytest.raises(ConfigurationError, match="list of files"):
        inrstore.convert(source, tmp_path / "a.ozx", lossless=True, shared=str(parameter))
    assert tree(tmp_path) == before


def test_rules_name_shared_networks_by_kind_and_an_update_asks_for_them_again(tmp_path):
    nib = pytest.importorskip("nibabel")
    data = tmp_path / "ds"
    for name in ("anat/sub-1_T1w", "anat/sub-1_FLAIR"):
        path = data / "sub-1" / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(np.ascontiguousarray(texture(seed=len(name)).T), np.eye(4)), path)
    (tmp_path / "r").mkdir()
    model = tmp_path / "r" / "good.model"
    write_parameter(str(model), good_predictor().data)
    rules = tmp_path / "r" / "rules.toml"
    rules.write_text('[T1w]\nlossless = true\nshared = "good.model"\n[default]\nlossless = true\n')
    archive = tmp_path / "ar"
    report = inrstore.convert(data, archive, rules=rules)
    assert report.complete and report.modes["neural"] == 1
    assert inrstore.convert(data, archive, rules=rules).resumed == 2
    with pytest.raises(ConfigurationError, match="shared networks"):
        inrstore.update(data, archive)
    for given in ({"shared": [model]}, {"rules": rules}):
        again = inrstore.update(data, archive, dry_run=True, **given)
        assert again.counts["same"] == 2, given
    rules.write_text('[T1w]\nshared = "none.model"\n')
    with pytest.raises(ConfigurationError, match=r"\[T1w\] shared: .*none\.model: no such file"):
        inrstore.convert(data, tmp_path / "ar2", rules=rules)


def test_without_shared_networks_the_record_of_an_archive_is_as_it_was(tmp_path):
    bids_dataset(tmp_path / "ds")
    inrstore.convert(tmp_path / "ds", tmp_path / "ar", lossless=True)
    assert "shared" not in inrstore.info(tmp_path / "ar").options


@needs_torch
@pytest.mark.fit
def test_a_network_is_trained_by_a_command_on_several_images(tmp_path):
    images = [image(tmp_path / f"{seed}.nii", seed) for seed in range(2)]
    out = tmp_path / "ct.model"
    options = ["--radius", 1, "--layers", 2, "--units", 4, "--steps", 40, "--device", "cpu"]
    result = run("train", *images, "-o", out, *options, "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    net = read_network(read_parameter(out))
    assert (net.neighbourhood, net.widths, net.local) == (cube(1), (4, 4), True)
    assert report["digest"] == net.digest.hex() and report["images"] == 2 and report["values"] == 2 * 6 * 20 * 22
    other = tmp_path / "other.model"
    text = run("train", *images, "-o", other, *options).stdout
    assert other.read_bytes() == out.read_bytes()
    assert "2 images" in text and "40 steps" in text and str(other) in text


@needs_torch
@pytest.mark.fit
@pytest.mark.parametrize(
    ("options", "hood", "widths", "local"),
    [
        ({"architecture": "pyramid", "units": "8,4"}, PYRAMID, (8, 4), True),
        ({"recipe": "paper", "units": 4, "layers": 3}, cube(5), (4, 4, 4), False),
        ({"units": [6]}, cube(2), (6, 6), True),
    ],
)
def test_architecture_layers_and_units_are_as_asked(tmp_path, options, hood, widths, local):
    out = tmp_path / "a.model"
    report = inrstore.train([image(tmp_path / "a.nii")], out, steps=10, device="cpu", **options)
    net = read_network(read_parameter(out))
    assert (net.neighbourhood, net.widths, net.local) == (hood, widths, local)
    assert report.units == widths


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"architecture": "ball"}, "architecture"),
        ({"radius": 6}, "radius"),
        ({"architecture": "pyramid", "radius": 2}, "pyramid"),
        ({"units": "8,x"}, "units"),
        ({"units": "8,4", "layers": 3}, "2 layers"),
        ({"units": 2000}, "units"),
        ({"units": 8, "layers": 9}, "layers"),
        ({"steps": 0}, "steps"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_read(tmp_path, options, says):
    with pytest.raises(ConfigurationError, match=says):
        inrstore.train([tmp_path / "none.nii"], tmp_path / "a.model", **options)


@needs_torch
def test_images_that_predictors_do_not_code_are_refused_by_name(tmp_path):
    nib = pytest.importorskip("nibabel")
    for name, values, says in (("wide", np.zeros((4, 4, 4), np.float64), "float64"),
                               ("range", np.array([[[0, 1, 1 << 20]]], np.int32), "levels")):  # fmt: skip
        nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / f"{name}.nii")
        with pytest.raises(ConfigurationError, match=rf"{name}\.nii: .*{says}"):
            inrstore.train([tmp_path / f"{name}.nii"], tmp_path / "a.model")
    (tmp_path / "there").write_text("mine")
    with pytest.raises(DestinationExistsError):
        inrstore.train([tmp_path / "wide.nii"], tmp_path / "there")
    assert not (tmp_path / "a.model").exists() and (tmp_path / "there").read_text() == "mine"
