"""A mount is the tree that an archive was made from, to every program; it ends cleanly, and says what is wrong."""

from __future__ import annotations

import ctypes.util
import errno
import hashlib
import mmap
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from archives import make_archive, small_tree
from common import random_image, write_nifti
from servers import needs_moto, s3_server
from typer.testing import CliRunner

import inrstore
from inrstore.cli.app import app
from inrstore.errors import ConfigurationError, MissingDependencyError, StoreError
from inrstore.store import layout
from inrstore.views import mount as module
from inrstore.views.mount import Operations, is_mounted, mount, process_of, unmount
from inrstore.views.vfs import Vfs

_MISSING = (
    "mfusepy is not installed" if find_spec("mfusepy") is None
    else "the library of FUSE is not installed" if ctypes.util.find_library("fuse3") is None
    else "/dev/fuse is not here, or not ours" if not os.access("/dev/fuse", os.R_OK | os.W_OK)
    else "fusermount3 is not installed" if shutil.which("fusermount3") is None
    else ""
)  # fmt: skip
needs_fuse = pytest.mark.skipif(bool(_MISSING), reason=_MISSING or "FUSE is here")
needs_mrtrix = pytest.mark.skipif(shutil.which("dwi2tensor") is None, reason="MRtrix3 is not installed")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A lossy archive of a small tree; its images have several chunks."""
    folder = tmp_path_factory.mktemp("mount")
    small_tree(folder / "in")
    write_nifti(folder / "in/b/large.nii.gz", random_image((20, 18, 12, 8)))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CHUNK_VOXELS", "LOSSLESS_VALUES", "TRANSFORMED_VALUES"):
            patch.setattr(layout, name, 300)
        return make_archive(folder / "in", folder / "archive", max_error=2)


@pytest.fixture(scope="module")
def mounted(archive):
    """The archive, mounted."""
    folder = archive.parent / "there"
    folder.mkdir()
    mount(archive, folder)
    yield folder
    unmount(folder)
    for _ in range(100):
        if not is_mounted(folder):
            return
        time.sleep(0.05)
    raise AssertionError("it is still mounted")


@pytest.fixture(scope="module")
def exported(archive):
    """What an export gives, images unpacked."""
    folder = archive.parent / "back"
    inrstore.export(archive, folder)
    for path in sorted(folder.rglob("*.nii.gz")):
        path.unlink()
        store = archive / path.relative_to(folder).with_name(path.name.replace(".nii.gz", ".ozx"))
        inrstore.export(store, path.with_name(path.name.removesuffix(".gz")))
    return folder


def digests(folder: Path) -> dict[str, str]:
    """Return what sha256sum says of every file that find lists."""
    listed = subprocess.run(["find", ".", "-type", "f"], cwd=folder, check=True, capture_output=True, text=True)
    names = sorted(listed.stdout.split("\n"))[1:]
    said = subprocess.run(["sha256sum", *names], cwd=folder, check=True, capture_output=True, text=True)
    return {line[66:]: line[:64] for line in said.stdout.splitlines()}


# Every program reads it


@needs_fuse
def test_every_file_has_the_size_and_bytes_of_an_export(mounted, exported):
    assert digests(mounted) == digests(exported)
    for path in exported.rglob("*"):
        if path.is_file():
            info = (mounted / path.relative_to(exported)).stat()
            assert info.st_size == path.stat().st_size
            assert stat.S_IMODE(info.st_mode) == 0o444 and info.st_uid == os.getuid()


@needs_fuse
def test_files_are_copied_and_mapped_into_memory(mounted, exported, tmp_path):
    subprocess.run(["cp", "-r", mounted, tmp_path / "copy"], check=True)
    assert digests(tmp_path / "copy") == digests(exported)
    whole = (exported / "b/large.nii").read_bytes()
    with (mounted / "b/large.nii").open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
        assert view[5000:5100] == whole[5000:5100] and view[:] == whole


@needs_fuse
def test_nibabel_reads_the_mount_as_it_reads_an_export(mounted, exported):
    for name in ("a/one.nii", "b/dwi.nii", "b/large.nii", "c/pair.hdr"):
        there, back = nib.load(mounted / name), nib.load(exported / name)
        assert there.header == back.header and np.array_equal(there.affine, back.affine)
        assert np.array_equal(there.get_fdata(), back.get_fdata())
    assert np.array_equal(nib.load(mounted / "b/large.nii").dataobj[3, 4, 5], back_course(exported))


def back_course(exported: Path) -> np.ndarray:
    return np.asarray(nib.load(exported / "b/large.nii").dataobj)[3, 4, 5]


@needs_fuse
@needs_mrtrix
def test_mrtrix_makes_the_same_map_of_it_as_of_an_export(tmp_path, monkeypatch):
    monkeypatch.setenv("MRTRIX_QUIET", "1")
    values = np.abs(random_image((12, 11, 10, 8))) + 20
    (tmp_path / "in").mkdir()
    write_nifti(tmp_path / "in/dwi.nii.gz", values.astype(np.int16))
    (tmp_path / "in/dwi.bval").write_text("0 1000 1000 1000 1000 1000 1000 1000\n")
    (tmp_path / "in/dwi.bvec").write_text("0 1 0 0 0.6 0.6 0 0.8\n0 0 1 0 0.8 0 0.6 0.6\n0 0 0 1 0 0.8 0.8 0\n")
    make_archive(tmp_path / "in", tmp_path / "archive", max_error=2)
    inrstore.export(tmp_path / "archive/dwi.ozx", tmp_path / "dwi.nii")
    (tmp_path / "there").mkdir()
    mount(tmp_path / "archive", tmp_path / "there")
    try:
        maps = []
        for number, path in enumerate((tmp_path / "there/dwi.nii", tmp_path / "dwi.nii")):
            tensor, fa = tmp_path / f"{number}.mif", tmp_path / f"{number}.nii"
            gradients = [str(tmp_path / f"there/dwi.{ending}") for ending in ("bvec", "bval")]
            subprocess.run(["dwi2tensor", "-fslgrad", *gradients, path, tensor], check=True, capture_output=True)
            subprocess.run(["tensor2metric", "-fa", fa, tensor], check=True, capture_output=True)
            maps.append(nib.load(fa).get_fdata())
        assert np.array_equal(maps[0], maps[1], equal_nan=True) and np.nanmax(maps[0]) > 0
    finally:
        unmount(tmp_path / "there")


READER = """
import random, sys, time
there, back, seed, seconds = sys.argv[1:]
whole, number, seen = open(back, "rb").read(), random.Random(int(seed)), 0
end = time.monotonic() + float(seconds)
with open(there, "rb", buffering=0) as file:
    while time.monotonic() < end or not seen:
        start, size = number.randrange(len(whole)), number.randrange(1, 1 << 15)
        file.seek(start)
        assert file.read(size) == whole[start : start + size], (start, size)
        seen += 1
"""


@needs_fuse
def test_eight_processes_that_read_randomly_agree(mounted, exported):
    paths = [str(folder / "b/large.nii") for folder in (mounted, exported)]
    readers = [subprocess.Popen([sys.executable, "-S", "-c", READER, *paths, str(seed), "0.7"]) for seed in range(8)]
    assert [reader.wait(60) for reader in readers] == [0] * 8


@needs_fuse
def test_a_reader_that_is_killed_harms_nobody(mounted, exported):
    code = "import sys\nwhile True: open(sys.argv[1], 'rb').read()"
    readers = [subprocess.Popen([sys.executable, "-c", code, mounted / "b/large.nii"]) for _ in range(3)]
    time.sleep(0.3)
    for reader in readers:
        reader.kill()
        reader.wait()
    assert (mounted / "b/large.nii").read_bytes() == (exported / "b/large.nii").read_bytes()


# What it is


@needs_fuse
def test_it_is_read_only_without_devices_and_set_user_ids(mounted):
    line = next(line for line in Path("/proc/self/mounts").read_text().splitlines() if f" {mounted} " in line)
    assert line.split()[2] == "fuse.inrstore"
    assert {"ro", "nosuid", "nodev"} <= set(line.split()[3].split(","))
    for action in (lambda: (mounted / "new").write_bytes(b""), lambda: (mounted / "a/notes.txt").unlink(),
                   lambda: (mounted / "a/notes.txt").open("r+b"), lambda: (mounted / "d").mkdir()):  # fmt: skip
        with pytest.raises(OSError) as caught:
            action()
        assert caught.value.errno == errno.EROFS
    for name in ("nothing", "a/one.ozx", ".inrstore", "a/\udcff"):
        with pytest.raises(FileNotFoundError):
            (mounted / name).stat()
    assert os.statvfs(mounted).f_bavail == 0


@needs_fuse
def test_a_chunk_that_is_missing_is_an_error_of_the_disk_and_the_log_says_which(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "CHUNK_VOXELS", 32 * 32 * 4)
    monkeypatch.setattr(layout, "LOSSLESS_VALUES", 1)
    source = write_nifti(tmp_path / "a.nii", random_image((32, 32, 12, 3)))  # larger than a page of the kernel
    inrstore.convert(source, tmp_path / "s.zarr", lossless=True)
    chunk = sorted(path for path in (tmp_path / "s.zarr/image/c").rglob("*") if path.is_file())[-1]
    chunk.unlink()
    (tmp_path / "there").mkdir()
    mount(tmp_path / "s.zarr", tmp_path / "there", log=tmp_path / "log")
    try:
        with open(tmp_path / "there/a.nii", "rb", buffering=0) as file:
            assert os.pread(file.fileno(), 352, 0) == source.read_bytes()[:352]
            with pytest.raises(OSError) as caught:
                os.pread(file.fileno(), 100, source.stat().st_size - 100)
            assert caught.value.errno == errno.EIO
        assert f"inrstore: a.nii: {tmp_path / 's.zarr'}: " in (tmp_path / "log").read_text()
        assert "is missing" in (tmp_path / "log").read_text()
    finally:
        unmount(tmp_path / "there")


@needs_fuse
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly_when_it_is_told_to(archive, tmp_path, sign):
    (tmp_path / "there").mkdir()
    command = [sys.executable, "-m", "inrstore.cli", "mount", archive, tmp_path / "there", "--foreground"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            wait_for(lambda: is_mounted(tmp_path / "there"))
            assert (tmp_path / "there/a/notes.txt").read_bytes() == b"two lines\nof text\n"
            process.send_signal(sign)
            assert process.wait(20) == 0
            assert process.stderr is not None and process.stderr.read() == b""
        finally:
            process.kill()
    assert not os.path.ismount(tmp_path / "there") and list((tmp_path / "there").iterdir()) == []


def wait_for(done) -> None:
    for _ in range(600):
        if done():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come")


@needs_fuse
def test_the_process_in_the_background_ends_with_its_mount(archive, tmp_path):
    (tmp_path / "there").mkdir()
    mount(archive, tmp_path / "there", gz=True)
    number = process_of(tmp_path / "there")
    with (tmp_path / "there/b/large.nii.gz").open("rb"), pytest.raises(StoreError, match=r"cannot be unmounted.*busy"):
        unmount(tmp_path / "there")
    assert is_mounted(tmp_path / "there")
    unmount(tmp_path / "there")
    wait_for(lambda: not Path(f"/proc/{number}").exists())
    with pytest.raises(ConfigurationError, match="shows nothing there"):
        unmount(tmp_path / "there")


@needs_fuse
@needs_moto
def test_an_archive_in_a_bucket_is_mounted(tmp_path, monkeypatch):
    source = small_tree(tmp_path / "in")
    (tmp_path / "there").mkdir()
    with s3_server(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        url = f"{server.bucket()}/archive"
        make_archive(source, url)
        mount(url, tmp_path / "there")
        try:
            assert (tmp_path / "there/b/dwi.nii").read_bytes() == (source / "b/dwi.nii").read_bytes()
            assert (tmp_path / "there/a/notes.txt").read_bytes() == b"two lines\nof text\n"
        finally:
            unmount(tmp_path / "there")


@needs_fuse
def test_the_commands_mount_and_unmount(archive, tmp_path):
    (tmp_path / "with blank, comma").mkdir()
    there = tmp_path / "with blank, comma"
    assert CliRunner().invoke(app, ["mount", str(archive), str(there), "--cache", "16"]).exit_code == 0
    assert (there / "a/notes.txt").exists()
    assert CliRunner().invoke(app, ["umount", str(there)]).exit_code == 0
    assert not is_mounted(there)


# What is wrong, in one line


@pytest.mark.parametrize("made, words", [
    ("nothing", "is no folder"), ("file", "is no folder"), ("full", "is not empty"),
])  # fmt: skip
def test_a_folder_that_cannot_be_mounted_on_is_said(archive, tmp_path, made, words):
    there = tmp_path / "there"
    if made == "file":
        there.write_bytes(b"")
    elif made == "full":
        (there / "a").mkdir(parents=True)
    result = CliRunner().invoke(app, ["mount", str(archive), str(there)])
    assert result.exit_code == 2
    assert re.fullmatch(rf"inrstore: {there}: .*{words}.*\n", result.stderr)


def test_what_is_missing_for_a_mount_is_said(archive, tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    monkeypatch.setitem(sys.modules, "mfusepy", None)
    with pytest.raises(MissingDependencyError, match=r"inrstore\[mount\]"):
        mount(archive, tmp_path / "there")
    monkeypatch.setitem(sys.modules, "mfusepy", module)
    monkeypatch.setattr(module, "_DEVICE", tmp_path / "fuse")
    with pytest.raises(MissingDependencyError, match="which this machine or container does not have"):
        mount(archive, tmp_path / "there")
    monkeypatch.delitem(sys.modules, "mfusepy")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mfusepy.py").write_text("raise OSError('Unable to find libfuse')")
    with pytest.raises(MissingDependencyError, match="apt install fuse3"):
        mount(archive, tmp_path / "there")


def test_an_archive_that_is_none_is_said_before_anything_is_mounted(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    monkeypatch.setattr(module, "_fuse", lambda: None)
    with pytest.raises(StoreError, match="no such store"):
        mount(tmp_path / "nothing", tmp_path / "there")


def test_a_process_that_cannot_mount_says_why(archive, tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    monkeypatch.setattr(module, "_fuse", lambda: None)  # of this process; the other has none that works
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("FUSE_LIBRARY_PATH", "/nothing")
    (tmp_path / "mfusepy.py").write_text("raise OSError('Unable to find libfuse')")
    with pytest.raises(StoreError, match="cannot be mounted: mounting needs the library of FUSE"):
        mount(archive, tmp_path / "there")


def test_what_is_not_mounted_is_not_unmounted(tmp_path):
    result = CliRunner().invoke(app, ["umount", str(tmp_path)])
    assert (result.exit_code, result.stderr) == (2, f"inrstore: {tmp_path}: inrstore shows nothing there\n")
    assert not is_mounted("/proc")


# What the kernel asks, without a kernel


def test_operations_answer_from_the_tree(archive, capsys):
    with Vfs(archive) as vfs:
        ask = Operations(vfs)
        assert [name for name, _, _ in ask.readdir("/a", 0)] == [".", "..", "notes.txt", "one.nii"]
        assert {name: stat.S_ISDIR(mode) for name, mode, _ in ask.readdir("/", 0)}["empty.dat"] is False
        assert ask.getattr("/")["st_mode"] == stat.S_IFDIR | 0o555
        found = ask.getattr("/a/notes.txt")
        assert (found["st_size"], found["st_mode"]) == (18, stat.S_IFREG | 0o444)
        one, two = ask.open("/a/notes.txt", os.O_RDONLY), ask.open("/a/one.nii", os.O_RDONLY)
        assert ask.read("/a/notes.txt", 5, 4, one) == b"lines" and ask.read("/a/notes.txt", 5, 18, one) == b""
        assert len(ask.read("/a/one.nii", 1 << 20, 0, two)) == vfs.size("a/one.nii")
        ask.release("/a/notes.txt", one)
        assert list(ask._open) == [two]
        for call, code in [
            (lambda: ask.getattr("/nothing"), errno.ENOENT), (lambda: ask.getattr("/\udcff"), errno.ENOENT),
            (lambda: ask.open("/a", 0), errno.EISDIR), (lambda: ask.readdir("/a/notes.txt", 0), errno.ENOTDIR),
            (lambda: ask.open("/a/notes.txt", os.O_RDWR), errno.EROFS),
        ]:  # fmt: skip
            with pytest.raises(OSError) as caught:
                call()
            assert caught.value.errno == code
        assert capsys.readouterr().err == ""


def test_an_error_that_nobody_foresaw_is_one_of_the_disk_and_said_once(archive, capsys, monkeypatch):
    with Vfs(archive) as vfs:
        ask = Operations(vfs)
        monkeypatch.setattr(vfs, "entry", lambda path: 1 / 0)
        for _ in range(3):
            with pytest.raises(OSError) as caught:
                ask.getattr("/a")
            assert caught.value.errno == errno.EIO
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "ZeroDivisionError" in said


def test_digests_of_this_test_are_those_of_the_files(tmp_path):
    (tmp_path / "a b").write_bytes(b"x")
    assert digests(tmp_path) == {"./a b": hashlib.sha256(b"x").hexdigest()}
