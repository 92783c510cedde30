"""The conformance vectors and golden chunks decode to the recorded bits; faulty ones are refused by name."""

from __future__ import annotations

import base64
import hashlib

import numpy as np
import pytest
from checks import GOLDEN, VECTORS, decoder, digest, frames_of, golden, index_of, maker, vectors

from inrstore import errors
from inrstore.chunk.decode import decode_chunk, describe_chunk
from inrstore.chunk.modes import MODES
from inrstore.chunk.shared import of

VALID = {**index_of(VECTORS / "subset"), **index_of(VECTORS / "uncommon")}
SHARED = index_of(VECTORS / "shared")
FAULTY = index_of(VECTORS / "faulty")
FRAMES = vectors("subset", "uncommon", "faulty")
GOLDEN_INDEX = {1: "f7d6f7701a6c1363e5e8004a02e9a21146af13315160a7c5634980d1df743628"}
"""SHA-256 of the index of each version's golden chunks: changing what is released takes a change here."""
VERSIONS = sorted(int(p.name) for p in GOLDEN.iterdir() if p.is_dir())


def check_decoded(values: np.ndarray, entry: dict) -> None:
    assert list(values.shape) == entry["shape"]
    assert values.dtype == np.dtype(entry["dtype"])
    assert (values.flags.f_contiguous and not values.flags.c_contiguous) == (entry["order"] == "F")
    assert digest(values) == entry["sha256"]


@pytest.mark.parametrize("name", VALID)
def test_a_valid_vector_decodes_to_the_recorded_values(name):
    entry = VALID[name]
    values = decode_chunk(FRAMES[name], tuple(entry["shape"]), entry["dtype"])
    check_decoded(values, entry)
    assert values.flags.writeable
    described = describe_chunk(FRAMES[name])
    assert (described.mode, described.shape) == (entry["mode"], values.shape)


@pytest.mark.parametrize("name", VALID)
def test_the_independent_reader_decodes_a_valid_vector_to_the_same(name):
    check_decoded(decoder().decode(FRAMES[name]), VALID[name])


@pytest.mark.parametrize("name", SHARED)
def test_a_vector_that_names_a_shared_parameter_needs_it_in_both_readers(name):
    entry, data = SHARED[name], vectors("shared")[name]
    shared = [base64.b64decode(text) for text in entry["shared"]]
    check_decoded(decode_chunk(data, shared=of(*shared)), entry)
    check_decoded(decoder().decode(data, shared=tuple(shared)), entry)
    with pytest.raises(errors.CorruptChunkError) as caught:
        decode_chunk(data)
    assert caught.value.field == f"{entry['mode']}.digest"
    with pytest.raises(decoder().Invalid):
        decoder().decode(data)


@pytest.mark.parametrize("name", FAULTY)
def test_a_faulty_vector_is_refused_by_error_and_field(name):
    with pytest.raises(errors.CorruptChunkError) as caught:
        decode_chunk(FRAMES[name])
    assert (type(caught.value).__name__, caught.value.field) == (FAULTY[name]["error"], FAULTY[name]["field"])
    assert caught.value.field in str(caught.value)


@pytest.mark.parametrize("name", FAULTY)
def test_the_independent_reader_refuses_a_faulty_vector(name):
    with pytest.raises(decoder().Invalid):
        decoder().decode(FRAMES[name])


def test_a_frame_of_another_shape_or_dtype_is_refused_by_both_readers():
    data = FRAMES["siren-i2-4d"]
    shape, dtype = tuple(VALID["siren-i2-4d"]["shape"]), "<i2"
    for wrong, field in (((shape[::-1], dtype), "shape"), ((shape[:3], dtype), "shape"), ((shape, "<u2"), "dtype"),
                         ((shape, "<i4"), "dtype")):  # fmt: skip
        with pytest.raises(errors.CorruptChunkError) as caught:
            decode_chunk(data, *wrong)
        assert caught.value.field == field
        with pytest.raises(decoder().Invalid):
            decoder().decode(data, *wrong)
    assert decode_chunk(data, shape, ">i2").shape == decoder().decode(data, shape, ">i2").shape == shape


def test_there_are_enough_vectors_of_every_mode_and_type():
    assert len(index_of(VECTORS / "subset")) >= 30
    assert len(index_of(VECTORS / "uncommon")) >= 5
    assert len(FAULTY) >= 15
    assert {e["mode"] for e in VALID.values()} == {mode.name for mode in MODES}
    assert {np.dtype(e["dtype"]).newbyteorder("<").str[1:] for e in VALID.values()} >= {
        "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "b1"
    }  # fmt: skip
    assert {len(e["shape"]) for e in VALID.values()} >= {0, 1, 2, 3, 4, 8}
    assert sum(map(len, FRAMES.values())) < 660_000
    assert {e["error"] for e in FAULTY.values()} == {
        "CorruptChunkError", "LimitExceededError", "UnsupportedVersionError"
    }  # fmt: skip


def test_every_folder_holds_what_its_index_lists():
    for folder in (
        *(VECTORS / name for name in ("subset", "uncommon", "shared", "faulty")),
        *(GOLDEN / str(v) for v in VERSIONS),
    ):
        assert {p.stem for p in folder.glob("*.chunk")} == set(index_of(folder))


@pytest.mark.parametrize("version", VERSIONS)
def test_golden_chunks_decode_to_the_same_bits_for_ever(version):
    assert hashlib.sha256((GOLDEN / str(version) / "index.json").read_bytes()).hexdigest() == GOLDEN_INDEX[version]
    frames, index = golden(version), index_of(GOLDEN / str(version))
    assert len(frames) >= 20
    for name, data in frames.items():
        assert hashlib.sha256(data).hexdigest() == index[name]["file_sha256"], name
        check_decoded(decode_chunk(data), index[name])


def test_golden_chunks_are_never_overwritten(tmp_path, monkeypatch):
    tool = maker("write")
    monkeypatch.setattr(tool, "GOLDEN", tmp_path / "1")
    frames = vectors("subset", "uncommon")
    tool.write_golden(frames, new_version=False)
    before = frames_of(tmp_path / "1")
    tool.write_golden(frames, new_version=False)
    name = tool.GOLDEN_NAMES[0]
    with pytest.raises(SystemExit, match=name):
        tool.write_golden({**frames, name: frames[tool.GOLDEN_NAMES[1]]}, new_version=False)
    assert frames_of(tmp_path / "1") == before


def test_the_generator_makes_the_vectors_that_are_here():
    index = index_of(VECTORS / "subset")
    made = maker("write").collect(maker("subset").subset)
    assert list(made) == list(index)
    for name, data in made.items():  # zlib's bytes may differ between releases of it; the values may not
        assert digest(decode_chunk(data)) == index[name]["sha256"], name
