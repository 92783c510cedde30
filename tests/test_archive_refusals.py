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
    DestinationHeldError,
    MissingDependencyError,
    SourceError,
    StoreError,
)
from inrstore.files import durable
from inrstore.sources import read_source
from inrstore.store import convert as convert_module
from inrstore.store.conversion import Conversion
from inrstore.store.convert import Wish, convert_image
from inrstore.store.quality import Promise


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


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_failing_disk_is_named_and_the_same_command_goes_on(tmp_path, source, small, monkeypatch, code):
    inrstore.convert(source, tmp_path / "good.zarr", max_error=2)
    rename, renames = durable.rename, 0
    target = tmp_path / "s.zarr"

    def fail(path, to):
        nonlocal renames
        renames += 1
        if renames == 3:
            raise OSError(code, os.strerror(code))
        rename(path, to)

    monkeypatch.setattr(durable, "rename", fail)
    with pytest.raises(StoreError, match=f"s.zarr.*{os.strerror(code)}"):
        inrstore.convert(source, target, max_error=2)
    assert not target.exists()
    assert (tmp_path / "s.zarr.partial").is_dir()
    report = inrstore.convert(source, target, max_error=2)
    assert report.resumed_chunks == 2
    assert tree(target) == tree(tmp_path / "good.zarr")
    assert not (tmp_path / "s.zarr.partial").exists()


def test_finished_chunks_are_not_touched_when_a_conversion_goes_on(tmp_path, source, small, monkeypatch):
    partial = tmp_path / "s.zarr.partial"
    encode, calls = convert_module.encode_chunks, []

    def interrupt(chunks, *rest):
        if calls:
            raise KeyboardInterrupt
        calls.append(len(chunks))
        return encode(chunks, *rest)

    monkeypatch.setattr(convert_module, "encode_chunks", interrupt)
    with pytest.raises(KeyboardInterrupt):
        inrstore.convert(source, tmp_path / "s.zarr", max_error=2)
    before = {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in partial.rglob("image/c/**/*") if p.is_file()}
    assert len(before) == sum(calls) > 0
    seen = {}

    def look(chunks, *rest):
        seen.update({p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in before})
        return encode(chunks, *rest)

    monkeypatch.setattr(convert_module, "encode_chunks", look)
    report = inrstore.convert(source, tmp_path / "s.zarr", max_error=2)
    assert seen == before
    assert report.resumed_chunks == len(before)


def test_an_unfinished_conversion_of_another_kind_is_not_mixed_in(tmp_path, source, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(convert_module, "encode_chunks", interrupt)
        inrstore.convert(source, tmp_path / "s.zarr", max_error=2)
    check_refused(
        lambda: inrstore.convert(source, tmp_path / "s.zarr", max_error=3),
        StoreError, "s.zarr.partial", "max_error", folder=tmp_path,
    )  # fmt: skip


def test_a_damaged_chunk_of_an_unfinished_conversion_is_made_anew(tmp_path, source, small, monkeypatch):
    inrstore.convert(source, tmp_path / "good.zarr", max_error=2)
    measure = Conversion._measure

    def interrupt(self, clock):
        raise KeyboardInterrupt

    monkeypatch.setattr(Conversion, "_measure", interrupt)
    with pytest.raises(KeyboardInterrupt):
        inrstore.convert(source, tmp_path / "s.zarr", max_error=2)
    monkeypatch.setattr(Conversion, "_measure", measure)
    chunks = [p for p in (tmp_path / "s.zarr.partial").rglob("image/c/**/*") if p.is_file()]
    chunks[0].write_bytes(chunks[0].read_bytes()[:-1])
    chunks[1].unlink()
    report = inrstore.convert(source, tmp_path / "s.zarr", max_error=2)
    assert report.resumed_chunks == len(chunks) - 2
    assert tree(tmp_path / "s.zarr") == tree(tmp_path / "good.zarr")


def test_of_two_conversions_to_one_place_one_says_who_holds_it(tmp_path, source, monkeypatch):
    encode, caught = convert_module.encode_chunks, []

    def second(*arguments):
        with pytest.raises(DestinationHeldError, match=f"s.zarr.*process {os.getpid()}") as error:
            convert_image(read_source(source), str(tmp_path / "s.zarr"), Wish(promise=Promise(max_error=2.0)))
        caught.append(error)
        return encode(*arguments)

    monkeypatch.setattr(convert_module, "encode_chunks", second)
    inrstore.convert(source, tmp_path / "s.zarr", max_error=2)
    assert caught
    assert inrstore.verify(tmp_path / "s.zarr", source).same_file


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


def test_a_store_is_not_seen_under_its_name_before_it_is_complete(tmp_path, source, monkeypatch):
    target, seen = tmp_path / "s.zarr", []
    write = durable.write_blocks

    def look(path, blocks):
        seen.append(target.exists())
        write(path, blocks)

    monkeypatch.setattr(durable, "write_blocks", look)
    inrstore.convert(source, target, max_error=2)
    assert seen
    assert not any(seen)


def test_torch_missing_says_what_to_install(tmp_path, monkeypatch):
    values = np.random.default_rng(0).integers(0, 1000, (16, 16, 8), "int16")
    path = write_nifti(tmp_path / "a.nii", values)
    monkeypatch.setitem(sys.modules, "torch", None)
    check_refused(
        lambda: inrstore.convert(path, tmp_path / "s.zarr", psnr=40, mode="network"),
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
