"""Lossy settings do not travel in silence into a copy of an array, nor a scale to other indices than its own."""

from __future__ import annotations

import json
import pickle
import warnings

import numpy as np
import pytest
import xarray as xr
import zarr

from inrstore.codecs import InrCodec, InrNumcodec
from inrstore.errors import ConfigurationError

FORMATS = pytest.mark.parametrize("zarr_format", [2, 3])
SHAPE = (4, 6, 6, 6)
VALUES = np.random.default_rng(0).integers(0, 900, SHAPE).astype("<i2")


def create(path, zarr_format=3, **promise):
    if zarr_format == 3:
        how = {"serializer": InrCodec(**promise, preset="fast"), "compressors": None, "dimension_names": list("tzyx")}
    else:
        how = {"compressors": InrNumcodec(**promise, preset="fast"), "attributes": {"_ARRAY_DIMENSIONS": list("tzyx")}}
    group = zarr.open_group(path, mode="a", zarr_format=zarr_format)
    return group.create_array("image", data=VALUES, chunks=SHAPE, **how)


def opened(path):
    return xr.open_zarr(str(path), consolidated=False, mask_and_scale=False)


@FORMATS
def test_a_copy_made_by_xarray_says_that_it_loses_again(tmp_path, zarr_format):
    create(tmp_path / "a", zarr_format, max_error=9.0)
    with pytest.warns(UserWarning, match=r"max_error=9.0.* second time") as said:
        opened(tmp_path / "a").to_zarr(tmp_path / "b", zarr_format=zarr_format, consolidated=False)
    assert len([w for w in said if "second time" in str(w.message)]) == 1


@FORMATS
def test_a_copy_made_by_zarr_says_so_too(tmp_path, zarr_format):
    create(tmp_path / "a", zarr_format, max_error=9.0)
    source = zarr.open_array(tmp_path / "a/image", mode="r")
    key = "serializer" if zarr_format == 3 else "compressors"
    ours = source.serializer if zarr_format == 3 else source.compressors
    more = {"compressors": None} if zarr_format == 3 else {}
    with pytest.warns(UserWarning, match="second time"):
        zarr.create_array(
            tmp_path / "b", data=source[...], chunks=SHAPE, zarr_format=zarr_format, **{key: ours}, **more
        )


@FORMATS
def test_lossless_copies_and_fresh_values_are_written_without_a_word(tmp_path, zarr_format):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        create(tmp_path / "a", zarr_format, lossless=True)
        opened(tmp_path / "a").to_zarr(tmp_path / "b", zarr_format=zarr_format, consolidated=False)
        assert (opened(tmp_path / "b").image.values == VALUES).all()
        create(tmp_path / "c", zarr_format, max_error=9.0)
        zarr.open_array(tmp_path / "c/image", mode="r+")[...] = VALUES + 1  # whole chunks: none is decoded
        fresh = zarr.open_array(tmp_path / "c/image", mode="r+")
        fresh.attrs["note"] = 1
        fresh.resize((8, *SHAPE[1:]))
        fresh[4:] = VALUES


def test_a_copy_without_the_encoding_is_the_same_values(tmp_path):
    create(tmp_path / "a", **SCALE)
    source = opened(tmp_path / "a")
    source.drop_encoding().to_zarr(tmp_path / "b", consolidated=False)
    assert (opened(tmp_path / "b").image.values == source.image.values).all()


def test_a_copy_in_another_process_knows_where_it_comes_from(tmp_path):
    codec = InrCodec.from_dict({"name": "inrstore", "configuration": {"max_error": 9.0}})
    again = pickle.loads(pickle.dumps(codec))
    assert again == codec and again.opened is codec.opened


SCALE = {"rmse": 20.0, "scale": [1, 2, 3, 4], "channel_axis": 0}


@FORMATS
@pytest.mark.parametrize(
    "change",
    [lambda d: d.isel(t=[3, 2, 1, 0]), lambda d: d.isel(t=slice(1, None)), lambda d: d.isel(t=0),
     lambda d: d.isel(z=slice(0, 4), y=slice(0, 4), x=slice(0, 4)).transpose("x", "y", "z", "t"), lambda d: d],
)  # fmt: skip
def test_a_scale_is_never_taken_to_other_indices(tmp_path, zarr_format, change):
    create(tmp_path / "a", zarr_format, **SCALE)
    changed = change(opened(tmp_path / "a"))
    changed.image.encoding.pop("chunks", None)
    changed.image.encoding.pop("preferred_chunks", None)
    with pytest.raises(ConfigurationError, match=r"scale|channel"):
        changed.to_zarr(tmp_path / "b", zarr_format=zarr_format, consolidated=False)
    files = [p.name for p in (tmp_path / "b/image").rglob("*") if p.is_file()]
    assert not set(files) - {"zarr.json", ".zarray", ".zattrs"}


def test_a_scale_is_kept_from_other_indices_in_a_process_that_decoded_nothing(tmp_path):
    create(tmp_path / "a", **SCALE)
    source = zarr.open_array(tmp_path / "a/image", mode="r")
    copy = zarr.create_array(tmp_path / "b", shape=SHAPE, chunks=SHAPE, dtype="<i2", serializer=source.serializer,
                             compressors=None)  # fmt: skip
    other = pickle.dumps(copy)
    del copy, source
    with pytest.raises(ConfigurationError, match="scale"):
        pickle.loads(other)[...] = VALUES[::-1]


def test_effort_is_no_part_of_what_codecs_are_compared_by():
    codec = InrCodec(rmse=3, preset="fast", mode="transform", device="cpu")
    again = InrCodec.from_dict(json.loads(json.dumps(codec.to_dict())))
    assert codec == again and hash(codec) == hash(again) and "opened" not in repr(again)
    assert codec != InrCodec(rmse=4, preset="fast")
    assert InrNumcodec(rmse=3, preset="fast") == InrNumcodec(rmse=3.0)
