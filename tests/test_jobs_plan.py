"""A plan has everything once, fails what would overwrite something, and does not grow with the source."""

from __future__ import annotations

import subprocess
import sys
import time
import unicodedata
import zipfile
from dataclasses import replace

import pytest
from archives import bids_dataset, bulk_zip, small_tree, write_tree
from common import real_scan

from inrstore.archive.plan import Plan
from inrstore.archive.rules import Rule, Rules
from inrstore.files import Entry
from inrstore.files.local import Folder
from inrstore.store.options import Options
from inrstore.store.quality import Quality

RULES = Rules(base=Options(quality=Quality(psnr=40.0)))


def planned(folder, kind="tree", rules=RULES, **selection):
    place = folder if hasattr(folder, "walk") else Folder(folder)
    with Plan(place, kind, replace(rules, **selection)) as plan:
        items = list(plan)
        assert plan.items == len(items)
        assert plan.size == sum(item.size for item in items)
    return items


def by_key(items):
    return {item.key: item for item in items}


def test_every_file_is_one_item_and_pairs_are_together(tmp_path):
    items = by_key(planned(small_tree(tmp_path / "in")))
    images = {key: item.out for key, item in items.items() if item.kind == "image"}
    assert images == {"a/one.nii.gz": "a/one.ozx", "b/dwi.nii": "b/dwi.ozx", "c/pair.hdr": "c/pair.ozx"}
    copies = {key for key, item in items.items() if item.kind == "copy"}
    assert copies == {"a/notes.txt", "empty.dat", "b/dwi.json", "b/dwi.bval", "b/dwi.bvec"}
    pair = sum((tmp_path / "in/c" / name).stat().st_size for name in ("pair.hdr", "pair.img"))
    assert items["c/pair.hdr"].size == pair
    assert not any(item.problem for item in items.values())


def test_the_order_is_always_the_same(tmp_path):
    bids_dataset(tmp_path / "in")
    once = planned(tmp_path / "in", "bids")
    entries = list(Folder(tmp_path / "in").walk())
    assert planned(_Listed(*reversed(entries)), "bids") == once


def test_a_header_without_voxels_and_voxels_without_header_are_files(tmp_path):
    items = by_key(planned(write_tree(tmp_path, {"a.hdr": b"ENVI", "b.img": b"disk", "c.hdr": b"", "c.img": b""})))
    assert {key: item.kind for key, item in items.items()} == {"a.hdr": "copy", "b.img": "copy", "c.hdr": "image"}


def test_zips_become_folders_and_zips_in_zips_are_files(tmp_path):
    bulk_zip(tmp_path / "in/a/1_20250_2_0.zip", tmp_path / "scratch")
    (item,) = planned(tmp_path / "in")
    assert (item.kind, item.key, item.out) == ("zip", "a/1_20250_2_0.zip", "a/1_20250_2_0")
    (item,) = planned(tmp_path / "in", "zip")
    assert item.kind == "copy"


@pytest.mark.parametrize(
    "files, failing, word",
    [
        (["x.nii", "x.nii.gz", "y.nii"], {"x.nii", "x.nii.gz"}, "so would"),
        (["x.hdr", "x.img", "x.nii"], {"x.hdr", "x.nii"}, "so would"),
        (["README", "readme", "other"], {"README", "readme"}, "case or Unicode form"),
        (["a/X.nii", "a/x.nii"], {"a/X.nii", "a/x.nii"}, "case or Unicode form"),
        (["A/f", "a/F"], {"A/f", "a/F"}, "case or Unicode form"),
        (["x.nii.gz", "x.ozx"], {"x.nii.gz"}, "so would 'x.ozx'"),
        (["x.nii.gz", "x.ozx/zarr.json"], {"x.nii.gz"}, "a folder 'x.ozx'"),
        (["X.nii.gz", "x.ozx/c/0"], {"X.nii.gz"}, "a folder 'x.ozx'"),
        (["s.zip", "s/f"], {"s.zip"}, "a folder 's'"),
        (["s.zip", "s"], {"s.zip"}, "so would 's'"),
        (["s.zip", "S.ZIP"], {"s.zip", "S.ZIP"}, "case or Unicode form"),
        (["a", "A/b"], {"a"}, "a folder 'A'"),
        ([".inrstore/job.json", "x"], {".inrstore/job.json"}, "record"),
        (["aux.nii", "x"], {"aux.nii"}, "device"),
    ],
)  # fmt: skip
def test_whatever_would_overwrite_something_fails(tmp_path, files, failing, word):
    items = planned(write_tree(tmp_path / "in", dict.fromkeys(files, b"")))
    assert {item.key for item in items if item.problem} == failing
    assert all(word in item.problem for item in items if item.problem)


def test_names_that_differ_in_unicode_form_alone_fail(tmp_path):
    names = [unicodedata.normalize(form, "größe.txt") for form in ("NFC", "NFD")]
    items = planned(write_tree(tmp_path / "in", dict.fromkeys(names, b"")))
    assert len(items) == 2 and all(item.problem for item in items)


def test_links_are_followed_to_files_only(tmp_path):
    source = write_tree(tmp_path / "in", {"a/f": b"text"})
    (source / "link").symlink_to("a/f")
    (source / "broken").symlink_to("nowhere")
    (source / "folder").symlink_to("a")
    (source / "loop").symlink_to("loop")
    items = by_key(planned(source))
    assert (items["link"].kind, items["link"].size, items["link"].problem) == ("copy", 4, "")
    assert "broken link" in items["broken"].problem
    assert "link to a folder" in items["folder"].problem
    assert "broken link" in items["loop"].problem


def test_what_is_excluded_is_not_there(tmp_path):
    source = small_tree(tmp_path / "in")
    assert set(by_key(planned(source, include=("*.nii*",)))) == {"a/one.nii.gz", "b/dwi.nii"}
    assert set(by_key(planned(source, include=("b/*",), exclude=("*.bv*",)))) == {"b/dwi.nii", "b/dwi.json"}
    assert set(by_key(planned(source, exclude=("x.nii",)))) == set(by_key(planned(source)))


def test_an_excluded_name_does_not_collide(tmp_path):
    source = write_tree(tmp_path / "in", {"x.nii": b"", "x.nii.gz": b""})
    (item,) = planned(source, exclude=("*.nii",))
    assert not item.problem


def test_members_are_chosen_by_themselves_or_with_their_zip(tmp_path):
    from inrstore.files.zips import ZipPlace

    bulk_zip(tmp_path / "in/1.zip", tmp_path / "scratch")

    def members(**selection):
        with ZipPlace(Folder(tmp_path / "in"), "1.zip") as inside:
            with Plan(inside, "zip", replace(RULES, **selection), base="1") as plan:
                return {item.key for item in plan}

    assert len(members()) == 6
    assert members(include=("1/dMRI/dMRI/data*",)) == {"dMRI/dMRI/data.nii.gz"}
    assert len(members(include=("1.zip",))) == 6
    assert "dMRI/dMRI/bvals" not in members(include=("*.zip",), exclude=("*/bvals",))
    assert [item.kind for item in planned(tmp_path / "in", include=("*.nii.gz",))] == ["zip"]
    assert planned(tmp_path / "in", exclude=("*.zip",)) == []


def test_a_rule_can_keep_images_as_files(tmp_path):
    source = write_tree(tmp_path / "in", {"a_T1w.nii": b"", "b_dwi.hdr": b"", "b_dwi.img": b"", "b_bold.nii": b""})
    rules = Rules(base=RULES.base, rules=(Rule(name="T1w", keep=True), Rule(name="dwi", keep=True)))
    kinds = {item.key: (item.kind, item.out) for item in planned(source, rules=rules)}
    assert kinds == {
        "a_T1w.nii": ("copy", "a_T1w.nii"), "b_dwi.hdr": ("copy", "b_dwi.hdr"), "b_dwi.img": ("copy", "b_dwi.img"),
        "b_bold.nii": ("image", "b_bold.ozx"),
    }  # fmt: skip


def dicom(number=0):
    return bytes(128) + b"DICM" + b"\x02\x00\x02\x00UI\x1a\x001.2.840.10008.5.1.4.1.1.4\0" + bytes([number])


def test_a_folder_of_scans_is_one_item_and_its_other_files_are_copied(tmp_path):
    files = {f"s/IM{n:04}": dicom(n) for n in range(3)} | {
        "s/one.dcm": dicom(),
        "s/notes.txt": b"",
        "s/sub/x.dcm": dicom(),
    }
    items = planned(write_tree(tmp_path / "in", files | {"README": b"text", "s/AUTHORS": b"text"}))
    scans = {item.key: item.size for item in items if item.kind == "dicom"}
    assert scans == {"s": 4 * len(dicom()), "s/sub": len(dicom())}
    assert {item.key for item in items if item.kind == "copy"} == {"README", "s/AUTHORS", "s/notes.txt"}
    assert not any(item.problem for item in items)


def test_scans_in_the_source_itself(tmp_path):
    (item,) = planned(write_tree(tmp_path / "in", {"a.dcm": dicom()}))
    assert (item.kind, item.key, item.out) == ("dicom", "", "")


def test_ten_thousand_files_are_planned_quickly_and_in_little_memory(tmp_path):
    """A real tree; the time is that of the whole process."""
    for subject in range(1000):
        folder = tmp_path / f"in/sub-{subject:04}"
        for part in ("anat", "dwi"):
            (folder / part).mkdir(parents=True)
            for end in ("nii.gz", "json", "bval", "bvec", "tsv"):
                (folder / part / f"sub-{subject:04}_{part}.{end}").touch()
    code = (
        "import sys; from inrstore.archive.plan import Plan; from inrstore.files.local import Folder\n"
        "from inrstore.archive.rules import Rules; from inrstore.store.options import Options\n"
        "from inrstore.store.quality import Quality\n"
        "rules = Rules(base=Options(quality=Quality(psnr=40.0)))\n"
        "print(sum(1 for _ in Plan(Folder(sys.argv[1]), 'tree', rules)))\n"
        # Not ru_maxrss, which starts from that of the process that forked this one.
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))\n"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "in"], capture_output=True, text=True, check=True)
    count, kilobytes = map(int, done.stdout.split())
    assert count == 10_000
    assert time.perf_counter() - start < 10
    assert kilobytes < 500_000


def test_memory_does_not_grow_with_the_number_of_files():
    import tracemalloc

    peaks = []
    for count in (1000, 10000):
        place = _Listed(*(Entry(f"sub-{n:06}/anat/sub-{n:06}_T1w.nii.gz", 100) for n in range(count)))
        tracemalloc.start()
        with Plan(place, "tree", RULES) as plan:
            assert sum(1 for _ in plan) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 300_000  # one file costs 100 bytes and more


@pytest.mark.real
def test_the_real_scans_are_planned(tmp_path):
    root = real_scan("sub-s03").parents[2]
    items = planned(root)
    assert not any(item.problem for item in items)
    assert {item.key for item in items if item.kind == "dicom"} == {
        str(path.relative_to(root)) for path in (root / "dicom").iterdir() if path.is_dir()
    }
    assert sum(item.kind == "image" for item in items) >= 12


def test_a_zip_with_a_case_of_its_own_is_taken(tmp_path):
    with zipfile.ZipFile(tmp_path / "A.ZIP", "w") as packed:
        packed.writestr("f", b"")
    (item,) = planned(tmp_path)
    assert (item.kind, item.out) == ("zip", "A")


class _Listed:
    """A place with these entries."""

    name = "listed"

    def __init__(self, *entries):
        self.entries = entries

    def walk(self, prefix=""):
        return iter(self.entries)

    def open(self, key):
        raise FileNotFoundError(key)
