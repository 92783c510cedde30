"""No archive or image harms: each is refused with its reason, in bounded memory, and nothing is written anywhere."""

from __future__ import annotations

import gzip
import json
import os
import stat
import subprocess
import sys
import zipfile
import zlib
from importlib.util import find_spec

import pytest
from common import ROOT, tree

from inrstore.files.local import Folder
from tools import forge, hostile

NAMES = [name for name in hostile.CASES if find_spec("dcm2niix") or not name.startswith("dicom")]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Every case made, and read by another process under a limit of memory."""
    top = tmp_path_factory.mktemp("hostile")
    for name in ("cases", "work", "tmp"):
        (top / name).mkdir()
    hostile.make(top / "cases")
    # a tree of digests cannot hold a pipe
    seen = {name: tree(top / name) for name in ("work", "tmp")}
    times = {path.name: path.lstat().st_mtime_ns for path in (top / "cases").rglob("*")}
    done = subprocess.run(
        [sys.executable, "-m", "tools.hostile", "read", str(top / "cases")],
        cwd=top / "work",
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(top / "tmp"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert {name: tree(top / name) for name in ("work", "tmp")} == seen
    assert {path.name: path.lstat().st_mtime_ns for path in (top / "cases").rglob("*")} == times
    assert sorted(path.name for path in top.iterdir()) == ["cases", "tmp", "work"]
    return {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}


def test_there_are_at_least_forty():
    assert len(hostile.CASES) >= 40


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_input_is_refused_with_its_reason(results, name):
    line, case = results[name], hostile.CASES[name]
    assert line["error"] == "SourceError", line
    assert "\n" not in line["text"]
    for word in (case.file, *case.words):
        assert word in line["text"] or (word == case.file and any(case.file.split(".")[0] in w for w in case.words))


def test_none_takes_much_memory(results):
    assert max(line["peak"] for line in results.values()) < 1 << 30


def test_the_intact_neighbours_of_the_hostile_ones_are_read(tmp_path):
    """What is refused above is refused for what is forged, not for how these tests make files."""
    packed = gzip.compress(forge.nifti())
    members = [
        forge.Member(b"good/a.nii.gz", packed),
        forge.Member("é".encode(), forge.deflated(bytes(9)), 9, zlib.crc32(bytes(9)), method=8),
        forge.Member(b"folder/", b"", mode=stat.S_IFDIR | 0o755),
        forge.Member(b"..a/.b/c..", b""),
        forge.Member(b"nullify.nii.txt"),
    ]
    (tmp_path / "a.zip").write_bytes(forge.forge(members))
    assert zipfile.ZipFile(tmp_path / "a.zip").testzip() is None
    hostile.read(Folder(tmp_path), "a.zip")
    (tmp_path / "a.nii").write_bytes(forge.nifti())
    hostile.read(Folder(tmp_path), "a.nii")


def test_compressed_zeros_are_read_up_to_the_free_size(tmp_path):
    """An empty mask is no bomb."""
    header = forge.nifti((3, 1024, 1024, 30), b"")
    (tmp_path / "mask.nii.gz").write_bytes(forge.gzip_of_zeros(header, 60))
    hostile.read(Folder(tmp_path), "mask.nii.gz")
