"""What a store looks like, to zarr and to xarray."""

from __future__ import annotations

import base64
import json
import math
import zipfile
import zlib

import nibabel as nib
import numpy as np
import pytest
import zarr
from common import AFFINE, files_of, random_image, tree, write_nifti

import inrstore
from inrstore import limits
from inrstore.store import layout
from inrstore.store.layout import Grid, choose_chunks, image_dims

FORMATS = pytest.mark.parametrize("zarr_format", [3, 2])


@pytest.fixture
def small(monkeypatch):
    """Chunks of about 40 voxels, so that small images have several."""
    monkeypatch.setattr(layout, "CHUNK_VOXELS", 40)
    monkeypatch.setattr(layout, "LOSSLESS_VALUES", 40)
    monkeypatch.setattr(layout, "TRANSFORMED_VALUES", 40)


def _dwi(folder, shape=(5, 4, 7, 3)):
    path = write_nifti(folder / "dwi.nii.gz", random_image(shape))
    (folder / "dwi.bval").write_text(" ".join(str(1000 * (i > 0)) for i in range(shape[3])))
    directions = np.eye(3)[np.arange(shape[3]) % 3] * 0.707107
    (folder / "dwi.bvec").write_text("\n".join(" ".join(f"{v:g}" for v in row) for row in directions.T))
    return path


@pytest.mark.parametrize(
    "shape",
    [(33, 28, 128, 128), (21, 36, 72, 72), (118, 2, 143, 95), (102, 10, 10, 6), (155, 240, 240),
     (10, 512, 512), (1200, 60, 104, 104), (4000, 3000), (5000,), (2, 3, 29, 100, 100), (1, 1, 1, 1),
     (1,) * 7, (10**8, 2, 2, 2), (1, 100003, 1, 1)],
)  # fmt: skip
def test_chunks_hold_all_of_t_within_the_limits(shape):
    dims = image_dims(len(shape))
    chunks = choose_chunks(shape, dims)
    assert all(1 <= c <= n for c, n in zip(chunks, shape, strict=True))
    assert math.prod(chunks) <= limits.MAX_CHUNK_VALUES
    assert math.prod(chunks) <= 1.5 * layout.CHUNK_VALUES
    if "t" in dims and shape[dims.index("t")] < 10**6:
        assert chunks[dims.index("t")] == shape[dims.index("t")]
    assert all(c == 1 for c, name in zip(chunks, dims, strict=True) if name in "uvw")


@pytest.mark.parametrize("length", [*range(1, 80), 155, 311, 997, 4999])
def test_the_last_chunk_is_never_a_sliver(length):
    chunk = choose_chunks((length, 128, 128), ("z", "y", "x"))[0]
    last = length % chunk or chunk
    assert last >= chunk / 2


def test_cut_pads_with_zeros_and_gives_native_values():
    array = np.arange(1, 16, dtype=">i4").reshape(3, 5)
    grid = Grid((3, 5), (2, 2))
    assert len(grid) == len(list(grid)) == 6
    chunk = grid.cut(array, (1, 2))
    assert chunk.dtype == np.dtype("<i4")
    assert chunk.flags.c_contiguous
    assert chunk.tolist() == [[15, 0], [0, 0]]


@FORMATS
def test_zarr_reads_every_array_as_documented(tmp_path, small, zarr_format):
    source = _dwi(tmp_path)
    store = tmp_path / "s.zarr"
    inrstore.convert(source, store, lossless=True, zarr_format=zarr_format)
    for consolidated in (True, False):
        group = zarr.open_group(str(store), mode="r", use_consolidated=consolidated)
        assert sorted(group.array_keys()) == ["bval", "bvec", "image", "sidecars", "t", "x", "y", "z"]
        image = group["image"]
        stored = nib.load(source).dataobj.get_unscaled().T
        assert image.shape == stored.shape
        assert image.dtype == stored.dtype
        assert image.nchunks > 1
        assert np.array_equal(image[...], stored)
        assert np.array_equal(image[1, 2:5, ::2, 3], stored[1, 2:5, ::2, 3])
        for name, step, count in (("x", 2, 5), ("z", 3, 7), ("t", 1.5, 3)):
            assert group[name][...].tolist() == list(range(count))
            assert group[name].attrs["scale_factor"] == step
        assert group["bval"][...].tolist() == [0, 1000, 1000]
        assert group["bvec"].shape == (3, 3)
        assert np.allclose(group["bvec"][...], np.eye(3) * 0.707107)
        header = zlib.decompress(base64.b64decode(group.attrs["inrstore"]["header"]))
        assert len(header) == 352
        assert header == nib.openers.Opener(source).read(len(header))


@FORMATS
def test_chunk_keys_are_those_that_zarr_looks_for(tmp_path, small, zarr_format):
    store = tmp_path / "s.zarr"
    inrstore.convert(_dwi(tmp_path), store, lossless=True, zarr_format=zarr_format)
    present = {name for name, _ in files_of(store)}
    group = zarr.open_group(str(store), mode="r", use_consolidated=False)
    for name, array in group.arrays():
        for index in Grid(array.shape, array.chunks):
            key = f"{name}/{array.metadata.encode_chunk_key(index)}"
            assert key == layout.chunk_key(zarr_format, name, index)
            assert key in present


@FORMATS
def test_consolidated_metadata_equals_that_of_the_arrays(tmp_path, zarr_format):
    store = tmp_path / "s.zarr"
    inrstore.convert(_dwi(tmp_path), store, lossless=True, zarr_format=zarr_format)
    if zarr_format == 3:
        inside = json.loads((store / "zarr.json").read_bytes())["consolidated_metadata"]["metadata"]
        assert len(inside) == 8
        for name, document in inside.items():
            assert document == json.loads((store / name / "zarr.json").read_bytes())
    else:
        inside = json.loads((store / ".zmetadata").read_bytes())["metadata"]
        assert len(inside) == 2 + 2 * 8
        for name, document in inside.items():
            own = json.loads((store / name).read_bytes())
            if name == ".zattrs":
                del own["inrstore"]["manifest"]
            assert document == own


@pytest.mark.parametrize("shape", [(6,), (6, 5), (6, 5, 4), (6, 5, 4, 3), (6, 5, 4, 1, 3), (2, 3, 2, 2, 2, 2, 2)])
@FORMATS
def test_one_to_seven_axes_are_kept_with_their_names(tmp_path, small, shape, zarr_format):
    values = random_image(shape)
    source, store = write_nifti(tmp_path / "a.nii", values), tmp_path / "s.zarr"
    inrstore.convert(source, store, lossless=True, zarr_format=zarr_format)
    image = zarr.open_group(str(store), mode="r")["image"]
    assert np.array_equal(image[...], nib.load(source).dataobj.get_unscaled().T)
    names = ("w", "v", "u", "t", "z", "y", "x")[-len(shape) :]
    stated = image.metadata.dimension_names if zarr_format == 3 else image.attrs["_ARRAY_DIMENSIONS"]
    assert tuple(stated) == names


def test_ome_zarr_metadata_names_axes_units_and_voxel_sizes(tmp_path):
    source = _dwi(tmp_path)
    inrstore.convert(source, tmp_path / "a.zarr", lossless=True)
    ome = json.loads((tmp_path / "a.zarr/zarr.json").read_bytes())["attributes"]["ome"]
    assert ome["version"] == "0.5"
    (scale,) = ome["multiscales"]
    assert scale["name"] == "image" and isinstance(scale["type"], str) and scale["metadata"] == {}  # strict schema
    assert [axis["name"] for axis in scale["axes"]] == ["t", "z", "y", "x"]
    assert [axis["type"] for axis in scale["axes"]] == ["time", "space", "space", "space"]
    assert [axis["unit"] for axis in scale["axes"]] == ["second"] + ["millimeter"] * 3
    (level,) = scale["datasets"]
    assert level["path"] == "image"
    assert level["coordinateTransformations"] == [{"type": "scale", "scale": [1.5, 3.0, 2.0, 2.0]}]

    inrstore.convert(source, tmp_path / "b.zarr", lossless=True, zarr_format=2)
    attributes = json.loads((tmp_path / "b.zarr/.zattrs").read_bytes())
    assert attributes["multiscales"] == [{"version": "0.4", **scale}]


def test_attributes_tell_where_the_image_comes_from(tmp_path):
    source = _dwi(tmp_path)
    inrstore.convert(source, tmp_path / "a.zarr", max_error=2)
    own = json.loads((tmp_path / "a.zarr/zarr.json").read_bytes())["attributes"]["inrstore"]
    loaded = nib.load(source)
    assert np.array_equal(own["affine"], loaded.affine)
    assert np.allclose(own["affine"], AFFINE)
    assert (own["scl_slope"], own["scl_inter"]) == (1.0, 0.0)
    assert own["units"] == {"space": "mm", "time": "sec"}
    assert own["source"]["name"] == "dwi.nii.gz"
    assert own["source"]["bytes"] == source.stat().st_size
    assert own["source"]["sha256"] == tree(tmp_path)["dwi.nii.gz"]
    assert own["quality"]["asked"] == {"max_error": 2.0}
    assert 0 < own["quality"]["max_error"] <= 2


def test_metadata_stays_small_beside_an_image_of_thirty_megabytes(tmp_path):
    values = np.zeros((128, 128, 28, 33), np.int16)
    source = write_nifti(tmp_path / "dwi.nii", values)
    rng = np.random.default_rng(0)
    (tmp_path / "dwi.bval").write_text(" ".join(f"{v:.2f}" for v in rng.uniform(0, 3000, 33)))
    (tmp_path / "dwi.bvec").write_text(
        "\n".join(" ".join(f"{v:.6f}" for v in row) for row in rng.normal(0, 1, (3, 33)))
    )
    inrstore.convert(source, tmp_path / "s.ozx", lossless=True)
    with zipfile.ZipFile(tmp_path / "s.ozx") as zipped:
        kept = (f"{layout.IMAGE}/c/", f"{layout.SIDECARS}/c/")  # the gradients as they were are no metadata of ours
        frames = sum(info.compress_size for info in zipped.infolist() if info.filename.startswith(kept))
    assert (tmp_path / "s.ozx").stat().st_size - frames < 5_600


def test_the_same_image_gives_the_same_store(tmp_path, small):
    source = _dwi(tmp_path)
    inrstore.convert(source, tmp_path / "a.zarr", max_error=3)
    inrstore.convert(source, tmp_path / "b.zarr", max_error=3)
    assert tree(tmp_path / "a.zarr") == tree(tmp_path / "b.zarr")
