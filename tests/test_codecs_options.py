"""Configuration of the two codecs: what is asked for, what is stored, and errors that name the option."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.registry import get_codec_class

from inrstore.codecs import InrCodec, InrNumcodec
from inrstore.errors import ConfigurationError, InrstoreError

GOOD = [
    {"lossless": True},
    {"rmse": 12.5},
    {"rmse": 3, "scale": [1, 2.5, 0.25], "channel_axis": 0},
    {"max_error": 0.5},
    {"max_error": 7, "channel_axis": 2},
]
BAD = [
    ({}, "exactly one"),
    ({"rmse": 1.0, "lossless": True}, "exactly one"),
    ({"rmse": 1.0, "max_error": 1.0}, "exactly one"),
    ({"rmse": -1.0}, "rmse"),
    ({"rmse": 0}, "rmse"),
    ({"rmse": float("nan")}, "rmse"),
    ({"rmse": float("inf")}, "rmse"),
    ({"rmse": "12"}, "rmse"),
    ({"rmse": True}, "rmse"),
    ({"max_error": 0.0}, "max_error"),
    ({"max_error": [1]}, "max_error"),
    ({"lossless": "yes"}, "lossless"),
    ({"lossless": True, "scale": [1.0]}, "scale"),
    ({"rmse": 1.0, "scale": []}, "scale"),
    ({"rmse": 1.0, "scale": [1.0, -2.0]}, "scale"),
    ({"rmse": 1.0, "scale": "12"}, "scale"),
    ({"rmse": 1.0, "scale": 3.0}, "scale"),
    ({"rmse": 1.0, "channel_axis": -1}, "channel_axis"),
    ({"rmse": 1.0, "channel_axis": 8}, "channel_axis"),
    ({"rmse": 1.0, "channel_axis": 0.0}, "channel_axis"),
    ({"rmse": 1.0, "preset": "huge"}, "preset"),
    ({"rmse": 1.0, "device": "tpu"}, "device"),
]


@pytest.mark.parametrize("options", GOOD)
def test_what_is_stored_gives_the_same_codec_back(options):
    three = InrCodec(**options)
    stored = json.loads(json.dumps(three.to_dict()))
    assert stored == {"name": "inrstore", "configuration": options}
    assert InrCodec.from_dict(stored) == three
    assert get_codec_class("inrstore").from_dict(stored) == three
    two = InrNumcodec(**options)
    config = json.loads(json.dumps(two.get_config()))
    assert config == {"id": "inrstore", **options}
    assert numcodecs.get_codec(config) == two


def test_effort_and_device_are_not_stored():
    three = InrCodec(rmse=1.0, preset="small", device="cpu")
    assert three.to_dict()["configuration"] == {"rmse": 1.0}
    two = InrNumcodec(rmse=1.0, preset="small", device="cpu")
    assert two.get_config() == {"id": "inrstore", "rmse": 1.0}


@pytest.mark.parametrize("codec", [InrCodec, InrNumcodec])
@pytest.mark.parametrize("options", GOOD)
def test_codecs_are_pickled(codec, options):
    made = codec(**options, preset="fast")
    again = pickle.loads(pickle.dumps(made))
    assert again == made
    assert type(again) is codec
    values = np.arange(24, dtype="<i2").reshape(2, 3, 4)
    if codec is InrNumcodec and "rmse" not in options:
        assert again.encode(values) == made.encode(values)


def test_codecs_show_their_promise():
    assert repr(InrNumcodec(max_error=2)) == "InrNumcodec(max_error=2.0)"
    assert "rmse=12.0" in repr(InrCodec(rmse=12))
    assert hash(InrCodec(rmse=1, scale=[1, 2])) == hash(InrCodec(rmse=1.0, scale=(1.0, 2.0)))


@pytest.mark.parametrize("options, word", BAD)
@pytest.mark.parametrize("codec", [InrCodec, InrNumcodec])
def test_options_out_of_range_are_refused_by_name(codec, options, word):
    with pytest.raises(ConfigurationError, match=word):
        codec(**options)


def test_unknown_options_are_refused_by_name():
    with pytest.raises(ConfigurationError, match="steps"):
        InrNumcodec(rmse=1.0, steps=100)
    with pytest.raises(TypeError, match="steps"):
        InrCodec(rmse=1.0, steps=100)
    for key in ("steps", "preset", "device"):  # effort has no place in what is stored
        with pytest.raises(ConfigurationError, match=key):
            InrCodec.from_dict({"name": "inrstore", "configuration": {"rmse": 1.0, key: "fast"}})
        with pytest.raises(ConfigurationError, match=key):
            numcodecs.get_codec({"id": "inrstore", "rmse": 1.0, key: "fast"})


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_opening_a_store_with_an_unknown_option_names_it(tmp_path, zarr_format):
    create(tmp_path, zarr_format, np.zeros((4, 4), "<i2"))
    path = tmp_path / ("zarr.json" if zarr_format == 3 else ".zarray")
    metadata = json.loads(path.read_text())
    where = metadata["codecs"][0]["configuration"] if zarr_format == 3 else metadata["compressor"]
    where["neurons"] = 5
    path.write_text(json.dumps(metadata))
    with pytest.raises(InrstoreError, match="neurons"):
        zarr.open_array(tmp_path, mode="r")


def create(path, zarr_format, values, **promise):
    promise = promise or {"lossless": True}
    if zarr_format == 3:
        how = {"serializer": InrCodec(**promise), "compressors": None}
    else:
        how = {"compressors": InrNumcodec(**promise)}
    return zarr.create_array(path, data=values, chunks=values.shape, zarr_format=zarr_format, **how)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_unsupported_dtypes_are_refused_by_name(tmp_path, zarr_format, dtype):
    with pytest.raises(ConfigurationError, match=dtype):
        create(tmp_path, zarr_format, np.ones((4, 4), dtype))


def test_options_that_fit_no_chunk_are_refused_when_an_array_is_created(tmp_path):
    with pytest.raises(ConfigurationError, match="channel_axis 2"):
        create(tmp_path, 3, np.zeros((4, 4), "<i2"), rmse=1.0, channel_axis=2)


@pytest.mark.fit
def test_a_scale_of_the_wrong_length_is_refused(tmp_path):
    pytest.importorskip("torch")
    values = np.arange(48, dtype="<i2").reshape(3, 2, 2, 4)
    for promise, word in (({"rmse": 1.0, "scale": [1, 2]}, "2 entries for 3"),
                          ({"rmse": 1.0, "scale": [1, 2], "channel_axis": 3}, "2 entries for 4")):  # fmt: skip
        with pytest.raises(ConfigurationError, match=word):
            create(tmp_path / word, 3, values, **promise)
    with pytest.raises(ConfigurationError, match="no channel axis"):
        create(tmp_path / "x", 3, values[0], rmse=1.0, scale=[1, 2])


def test_errors_are_one_family():
    from inrstore import errors

    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, Exception):
            assert issubclass(kind, InrstoreError), name
    assert issubclass(ConfigurationError, ValueError) and issubclass(errors.MissingDependencyError, ImportError)


# ---- the page for the registry of Zarr extensions ----------------------------------------------------------

PAGE = Path(__file__).parents[1] / "specs/codecs/inrstore"
STORED = [
    *({"name": "inrstore", "configuration": good} for good in GOOD),
    {"name": "inrstore", "configuration": {"lossless": True, "shared": []}},
    {"name": "inrstore", "configuration": {"rmse": 1.0, "lossless": False}},
    {"name": "inrstore", "configuration": {"rmse": 1.0, "max_error": None}},
    {"name": "inrstore", "configuration": {"rmse": 1.0, "scale": []}},
    {"name": "inrstore", "configuration": {"rmse": 1.0, "channel_axis": None}},
    {"name": "inrstore", "configuration": {"rmse": 1.0, "channel_axis": 8}},
    {"name": "inrstore", "configuration": {"rmse": 1.0, "channel_axis": -1}},
    {"name": "inrstore", "configuration": {"rmse": 0}},
    {"name": "inrstore", "configuration": {"rmse": 1.0, "max_error": 1.0}},
    {"name": "inrstore", "configuration": {"max_error": 1.0, "scale": [1.0]}},
    {"name": "inrstore", "configuration": {"rmse": True}},
    {"name": "inrstore", "configuration": {"rmse": "1"}},
    {"name": "inrstore", "configuration": {"rmse": 1.0, "scale": [1, "2"]}},
    {"name": "inrstore", "configuration": {"lossless": True, "shared": [5]}},
    {"name": "inrstore", "configuration": {"rmse": 1.0, "preset": "fast"}},
    {"name": "inrstore", "configuration": {}},
    {"name": "inrstore"},
]


@pytest.mark.parametrize("document", STORED, ids=str)
def test_the_schema_and_the_codec_accept_the_same(document):
    jsonschema = pytest.importorskip("jsonschema")
    allowed = jsonschema.Draft202012Validator(json.loads((PAGE / "schema.json").read_text())).is_valid(document)
    try:
        made = InrCodec.from_dict(document)
    except InrstoreError:
        assert not allowed
        return
    assert allowed and made.to_dict() == document


def test_the_page_stands_alone():
    text = (PAGE / "README.md").read_text()
    assert not re.findall(r"\]\((?!https?://|#|\./schema\.json)[^)]*\)", text)  # it is copied without this repository
    assert "## Change log" in text and "No changes yet" in text
