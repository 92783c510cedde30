"""Convert refuses bad input and survives failures: a clear error, and nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from common import check_refused, tree, write_nifti

import inrstore
from inrstore.chunk.encode import encode_chunks
from inrstore.errors import (
    ConfigurationError,
    DestinationExistsError,
    MissingDependencyError,
    SourceError,
    StoreError,
)
from inrstore.files import durable
from inrstore.sources import read_source
from inrstore.store import convert as convert_module
from inrstore.store.convert import convert_image
from inrstore.store.options import Options
from inrstore.store.quality import Quality


def test_the_source_is_never_changed(tmp_path, source):
    before = tree(source.parent), source.stat().st_mtime_ns
    inrstore.convert(source, tmp_path / "s.zarr", max_error=2)
    assert (tree(source.parent), source.stat().st_mtime_ns) == before


def test_a_bad_source_leaves_nothing(tmp_path):
    bad = tmp_path / "bad.nii"
    bad.write_bytes(b"no image")
    for path in (bad, tmp_path / "missing.nii"):
        check_refused(
            lambda path=path: inrstore.convert(path, tmp_path / "s.zarr"),
            SourceError,
            str(path),
            folder=tmp_path,
        )


@pytest.mark.parametrize("kind", ["file", "folder", "store", "link"])
def test_an_existing_destination_is_not_touched(tmp_path, source, kind):
    target = tmp_path / "s.zarr"
    if kind == "file":
        target.write_text("mine")
    elif kind == "folder":
        target.mkdir()
    elif kind == "store":
        inrstore.convert(source, target, max_error=2)
    else:
        target.symlink_to(tmp_path / "nowhere")
    check_refused(lambda: inrstore.convert(source, target), DestinationExistsError, str(target), folder=tmp_path)


def test_a_destination_that_appears_meanwhile_is_not_replaced(tmp_path, source, monkeypatch):
    target = tmp_path / "s.zarr"

    def slow(*arguments):
        target.mkdir()
        return encode_chunks(*arguments)

    monkeypatch.setattr(convert_module, "encode_chunks", slow)
    with pytest.raises(DestinationExistsError):
        inrstore.convert(source, target, max_error=2)
    assert tree(tmp_path) == {
        "in": "folder",
        "in/a.nii.gz": tree(tmp_path)["in/a.nii.gz"],
        "s.zarr": "folder",
    }


def test_folders_above_the_destination_are_made(tmp_path, source):
    inrstore.convert(source, tmp_path / "new/deep/s.zarr", max_error=2)
    assert inrstore.verify(tmp_path / "new/deep/s.zarr", source).same_file


@pytest.mark.parametrize("name", ["s.zarr", "s.ozx"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_failing_disk_is_named_and_nothing_is_left(tmp_path, source, small, monkeypatch, code, name):
    inrstore.convert(source, tmp_path / "good" / name, max_error=2)
    before = tree(tmp_path)
    write, writes = os.write, 0

    def fail(handle, data):
        nonlocal writes
        writes += 1
        if writes == 3:
            raise OSError(code, os.strerror(code))
        return write(handle, data)

    with monkeypatch.context() as patch, pytest.raises(StoreError, match=f"{name}.*{os.strerror(code)}"):
        patch.setattr(os, "write", fail)
        inrstore.convert(source, tmp_path / name, max_error=2)
    assert tree(tmp_path) == before
    inrstore.convert(source, tmp_path / name, max_error=2)
    assert tree(tmp_path / name) == tree(tmp_path / "good" / name)


@pytest.mark.parametrize("name", ["s.zarr", "s.ozx"])
def test_an_interrupted_conversion_leaves_nothing(tmp_path, source, monkeypatch, name):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    before, stopped = tree(tmp_path), []
    for target in ("rename", "give_name", "sync_folders", "write_new"):
        with monkeypatch.context() as patch:
            patch.setattr(durable, target, interrupt)
            try:  # a zip and a folder do not need all of them
                inrstore.convert(source, tmp_path / name, max_error=2)
                inrstore.verify(tmp_path / name)
                (tmp_path / name).rename(tmp_path.parent / f"{tmp_path.name}-{name}-{target}")
            except KeyboardInterrupt:
                stopped.append(target)
            assert tree(tmp_path) == before
    assert stopped


@pytest.mark.parametrize("name", ["s.zarr", "s.ozx"])
def test_a_disk_that_gives_back_something_else_is_noticed(tmp_path, source, monkeypatch, name):
    write = os.write

    def flip(handle, data):
        data = bytearray(data)
        data[len(data) // 2] ^= 1
        return write(handle, data)

    before = tree(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(StoreError, match=f"{name}.*reads otherwise"):
        patch.setattr(os, "write", flip)
        inrstore.convert(source, tmp_path / name, max_error=2)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["s.zarr", "s.ozx"])
def test_of_two_conversions_to_one_place_one_wins(tmp_path, source, monkeypatch, name):
    encode, first = convert_module.encode_chunks, []

    def second(*arguments):
        monkeypatch.setattr(convert_module, "encode_chunks", encode)
        options = Options(quality=Quality(max_error=2.0))
        first.append(convert_image(read_source(source), str(tmp_path / name), options))
        return encode(*arguments)

    monkeypatch.setattr(convert_module, "encode_chunks", second)
    with pytest.raises(DestinationExistsError, match=name):
        inrstore.convert(source, tmp_path / name, max_error=2)
    assert first
    assert inrstore.verify(tmp_path / name, source).same_file
    assert sorted(tree(tmp_path)) == sorted({"in", "in/a.nii.gz", *(k for k in tree(tmp_path) if k.startswith(name))})


def test_a_full_disk_for_real(tmp_path, source):
    """The kernel refuses the write here, not a stand-in: a limit on the size of a file."""
    code = (
        "import resource, sys, inrstore\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "try:\n"
        "    inrstore.convert(sys.argv[1], sys.argv[2], lossless=True)\n"
        "except inrstore.errors.StoreError as error:\n"
        "    print(error)\n"
    )
    big = write_nifti(tmp_path / "in/big.nii", np.random.default_rng(0).integers(0, 9999, (20, 20, 20), "int16"))
    before = tree(tmp_path / "in")
    done = subprocess.run([sys.executable, "-c", code, str(big), str(tmp_path / "s.zarr")],
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert "File too large" in done.stdout
    assert tree(tmp_path / "in") == before
    assert not (tmp_path / "s.zarr").exists()
    inrstore.convert(big, tmp_path / "s.zarr", lossless=True)
    assert inrstore.verify(tmp_path / "s.zarr", big).same_file


@pytest.mark.parametrize("name", ["s.zarr", "s.ozx"])
def test_a_store_is_not_seen_under_its_name_before_it_is_complete(tmp_path, source, monkeypatch, name):
    target, seen = tmp_path / name, []
    write = os.write

    def look(handle, data):
        seen.append(target.exists())
        return write(handle, data)

    monkeypatch.setattr(os, "write", look)
    inrstore.convert(source, target, max_error=2)
    assert seen
    assert not any(seen)


def test_torch_missing_says_what_to_install(tmp_path, monkeypatch):
    values = np.random.default_rng(0).integers(0, 1000, (16, 16, 8), "int16")
    path = write_nifti(tmp_path / "a.nii", values)
    monkeypatch.setitem(sys.modules, "torch", None)
    check_refused(
        lambda: inrstore.convert(path, tmp_path / "s.zarr", psnr=40, mode="siren"),
        MissingDependencyError, "inrstore[fit]", folder=tmp_path,
    )  # fmt: skip


@pytest.mark.parametrize(
    "options, word",
    [
        ({"psnr": 40, "rmse": 1}, "psnr and rmse"),
        ({"max_error": 1, "lossless": True}, "max_error and lossless"),
        ({"psnr": 0}, "psnr"), ({"psnr": -3}, "psnr"), ({"psnr": float("nan")}, "psnr"),
        ({"psnr": 1000}, "psnr"),
        ({"psnr": "high"}, "psnr"), ({"psnr": True}, "psnr"), ({"rmse": 0}, "rmse"), ({"rmse": -1}, "rmse"),
        ({"rmse": float("inf")}, "rmse"), ({"max_error": 0}, "max_error"), ({"max_error": "x"}, "max_error"),
        ({"preset": "tiny"}, "preset"), ({"device": "tpu"}, "device"), ({"zarr_format": 4}, "zarr_format"),
    ],
)  # fmt: skip
def test_options_out_of_range_are_named(tmp_path, source, options, word):
    check_refused(
        lambda: inrstore.convert(source, tmp_path / "s.zarr", **options),
        ConfigurationError,
        word,
        folder=tmp_path,
    )


def test_a_promise_survives_its_attributes():
    for options in ({"psnr": 36.5}, {"rmse": 2.0}, {"max_error": 3.0}, {"lossless": True}):
        promise = Quality.from_dict(options)
        assert promise.to_dict() == options
        assert Quality.from_dict(json.loads(json.dumps(promise.to_dict()))) == promise
