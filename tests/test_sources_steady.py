"""A source that is changed while it is read is an error that names it, never a store of neither the old nor the new."""

from __future__ import annotations

import gzip
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from common import random_image, tree, write_nifti

import inrstore
from inrstore.errors import SourceError
from inrstore.files import read
from inrstore.files.local import Folder
from inrstore.files.zips import ZipPlace
from inrstore.sources import read_image, streams

OLD, NEW = (random_image((64, 64, 64), seed=seed) for seed in (1, 2))


@pytest.fixture(params=["a.nii", "a.nii.gz"])
def source(request, tmp_path):
    """Return an image of more than one read, with another one of the same size beside it."""
    (tmp_path / "new").mkdir()
    for folder, values in ((tmp_path, OLD), (tmp_path / "new", NEW)):
        plain = write_nifti(folder / "a.nii", values)
        if request.param == "a.nii.gz":
            (folder / "a.nii.gz").write_bytes(gzip.compress(plain.read_bytes(), 1, mtime=0))
            plain.unlink()
    return tmp_path / request.param


def during(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Have an action happen once, when the first bytes of a file have been read."""
    update, done = streams.Digest.update, []

    def and_act(self: streams.Digest, data: bytes) -> None:
        update(self, data)
        if not done:
            done.append(action())

    monkeypatch.setattr(streams.Digest, "update", and_act)


def _rewrite(path: Path, new: bytes) -> None:
    with path.open("r+b") as file:
        file.write(new)
        file.truncate()
    later(path)


def later(path: Path) -> None:
    """Let a clock that goes in steps have gone on."""
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 10_000_000))


def _append(path: Path, new: bytes) -> None:
    with path.open("ab") as file:
        file.write(new[:1000])


def _truncate(path: Path, new: bytes) -> None:
    os.truncate(path, path.stat().st_size - 100_000)


def _replace(path: Path, new: bytes) -> None:
    path.with_name("other").write_bytes(new)
    path.with_name("other").replace(path)


def _remove(path: Path, new: bytes) -> None:
    path.unlink()


CHANGES = {"rewritten": _rewrite, "appended": _append, "cut": _truncate, "replaced": _replace, "removed": _remove}


@pytest.mark.parametrize("change", CHANGES)
def test_a_source_that_changes_while_it_is_read_is_refused(source, tmp_path, monkeypatch, change):
    new = (tmp_path / "new" / source.name).read_bytes()
    during(monkeypatch, lambda: CHANGES[change](source, new))
    with pytest.raises(SourceError, match="was changed while it was read") as caught:
        inrstore.convert(source, tmp_path / "a.ozx", lossless=True)
    assert str(source) in str(caught.value)
    assert not (tmp_path / "a.ozx").exists()


@pytest.mark.parametrize("change", CHANGES)
def test_an_image_in_a_zip_that_changes_while_it_is_read_is_refused(source, tmp_path, monkeypatch, change):
    zips = []
    for path in (source, tmp_path / "new" / source.name):
        zips.append(path.with_suffix(".zip"))
        with zipfile.ZipFile(zips[-1], "w") as packed:
            packed.write(path, "a" + "".join(path.suffixes))
    new = zips[1].read_bytes()
    during(monkeypatch, lambda: CHANGES[change](zips[0], new))
    with (
        pytest.raises(SourceError, match=f"{zips[0].name}: was changed while it was read"),
        ZipPlace(Folder(tmp_path), zips[0].name) as place,
    ):
        read_image(place, source.name)


@pytest.mark.parametrize("change", ["rewritten", "appended", "cut"])
def test_a_file_that_is_copied_is_refused_if_it_is_written_meanwhile(tmp_path, change):
    path = tmp_path / "notes.bin"
    path.write_bytes(random.Random(0).randbytes(1 << 20))
    with Folder(tmp_path).open("notes.bin") as file:
        file.read(1 << 17)
        CHANGES[change](path, random.Random(1).randbytes(1 << 20))
        with pytest.raises(OSError, match=r"was changed while it was read.*notes\.bin"):
            while file.read(1 << 17):
                pass


def test_no_copy_of_a_file_that_is_written_meanwhile_stays(tmp_path):
    (tmp_path / "in").mkdir()
    path = tmp_path / "in/notes.bin"
    path.write_bytes(bytes(1 << 20))
    with Folder(tmp_path / "in").open("notes.bin") as file:

        def blocks():
            for _ in range(3):
                yield file.read(1 << 20)
                _rewrite(path, b"1" * (1 << 20))

        with pytest.raises(OSError, match="was changed"):
            Folder(tmp_path / "out").write_blocks("notes.bin", blocks())
    assert tree(tmp_path / "out") == {}


def test_what_is_not_written_is_read_though_its_entry_changes(source, tmp_path, monkeypatch):
    """A hard link or other permissions, as of a backup, are no change of a file."""
    during(monkeypatch, lambda: (os.link(source, tmp_path / "backup"), source.chmod(0o600)))
    inrstore.convert(source, tmp_path / "a.ozx", lossless=True)


def test_a_place_that_sends_less_than_it_listed_is_refused(tmp_path, source):
    class Longer(Folder):
        def size(self, key: str) -> int | None:
            size = super().size(key)
            return None if size is None else size + 1

    with pytest.raises(SourceError, match=f"{source.name}: was changed while it was read"):
        read_image(Longer(tmp_path), source.name)


def test_a_pipe_a_device_and_a_folder_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "zero", "folder"):
        with pytest.raises(OSError, match=f"not a regular file.*{name}"):
            read(Folder(tmp_path), name, 100)
