"""The measurement of mounts compares what it says it compares."""

from __future__ import annotations

import pytest
from archives import make_archive, small_tree

from inrstore.views.vfs import Vfs
from tools import bench_mount


def test_many_images_are_one_under_many_names(tmp_path):
    archive = bench_mount.many(tmp_path / "many", 10)
    with Vfs(archive) as vfs:
        names = [entry.path for entry in vfs.walk()]
        assert len(names) == 10 and {vfs.size(name) for name in names} == {352 + 128}
        assert len({vfs.open(name).read() for name in names}) == 1


def test_a_difference_from_an_export_is_found(tmp_path):
    archive = make_archive(small_tree(tmp_path / "in"), tmp_path / "archive")
    back = bench_mount.exported(archive, tmp_path / "back")
    with Vfs(archive) as vfs:
        for entry in vfs.walk():
            path = tmp_path / "there" / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(vfs.open(entry.path).read())
    assert bench_mount.compare(tmp_path / "there", back)["files"] == 9
    data = bytearray((tmp_path / "there/a/one.nii").read_bytes())
    data[-1] ^= 1
    (tmp_path / "there/a/one.nii").write_bytes(data)
    with pytest.raises(AssertionError):
        bench_mount.compare(tmp_path / "there", back)
