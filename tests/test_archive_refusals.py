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
from inrstore.archive import convert as convert_module
from inrstore.archive import writer
from inrstore.archive.quality import Promise
from inrstore.encoder import encode_chunks
from inrstore.errors import (
    ConfigurationError,
    DestinationExistsError,
    MissingDependencyError,
    SourceError,
    StoreError,
)


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


def test_a_destination_in_no_folder_is_refused(tmp_path, source):
    check_refused(lambda: inrstore.convert(source, tmp_path / "no/s.zarr"), StoreError, "No such file", folder=tmp_path)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_failing_disk_leaves_nothing_whichever_write_fails(tmp_path, source, small, monkeypatch, code):
    writes = 0
    put = writer.put

    def count(file, data):
        nonlocal writes
        writes += 1
        put(file, data)

    monkeypatch.setattr(writer, "put", count)
    inrstore.convert(source, tmp_path / "good.zarr", max_error=2)
    total = writes
    assert total >= 15
    for failing in range(1, total + 1):
        writes = 0

        def full(file, data, failing=failing):
            nonlocal writes
            writes += 1
            if writes == failing:
                file.write(data[: len(data) // 2])
                raise OSError(code, os.strerror(code))
            put(file, data)

        monkeypatch.setattr(writer, "put", full)
        check_refused(
            lambda: inrstore.convert(source, tmp_path / "s.zarr", max_error=2),
            StoreError, "s.zarr", os.strerror(code), folder=tmp_path,
        )  # fmt: skip


@pytest.mark.parametrize("step", ["rename", "fsync"])
def test_a_failure_while_publishing_leaves_nothing(tmp_path, source, monkeypatch, step):
    def fail(*arguments):
        raise OSError(errno.EIO, "broken")

    if step == "rename":
        monkeypatch.setattr("pathlib.Path.rename", fail)
    else:
        monkeypatch.setattr(writer.os, "fsync", fail)
    check_refused(
        lambda: inrstore.convert(source, tmp_path / "s.zarr", max_error=2),
        StoreError,
        "broken",
        folder=tmp_path,
    )


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
    before = tree(tmp_path)
    done = subprocess.run([sys.executable, "-c", code, str(big), str(tmp_path / "s.zarr")],
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert "File too large" in done.stdout
    assert tree(tmp_path) == before


def test_an_interrupt_leaves_nothing(tmp_path, source, monkeypatch):
    before = tree(tmp_path)

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(convert_module, "encode_chunks", interrupt)
    with pytest.raises(KeyboardInterrupt):
        inrstore.convert(source, tmp_path / "s.zarr")
    assert tree(tmp_path) == before


def test_a_store_is_not_seen_under_its_name_before_it_is_complete(tmp_path, source, monkeypatch):
    target, seen = tmp_path / "s.zarr", []
    put = writer.put

    def look(file, data):
        seen.append(target.exists())
        put(file, data)

    monkeypatch.setattr(writer, "put", look)
    inrstore.convert(source, target, max_error=2)
    assert seen
    assert not any(seen)


def test_torch_missing_says_what_to_install(tmp_path, monkeypatch):
    values = np.random.default_rng(0).integers(0, 1000, (16, 16, 8), "int16")
    path = write_nifti(tmp_path / "a.nii", values)
    monkeypatch.setitem(sys.modules, "torch", None)
    check_refused(
        lambda: inrstore.convert(path, tmp_path / "s.zarr", psnr=40),
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
        promise = Promise.from_dict(options)
        assert promise.to_dict() == options
        assert Promise.from_dict(json.loads(json.dumps(promise.to_dict()))) == promise
