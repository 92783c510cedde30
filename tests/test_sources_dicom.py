"""A folder of DICOM files becomes images; a file that is left out or harms is an error."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from common import DATA, ROOT, check_refused, check_same_bits, random_image, real_scan, tree, write_nifti

import inrstore
from inrstore import files
from inrstore.errors import MissingDependencyError, SourceError
from inrstore.files import scratch as scratch_folder
from inrstore.files.local import Folder
from inrstore.files.scratch import remove_dead
from inrstore.files.zips import ZipPlace
from inrstore.sources import dicom, read_image, read_source
from inrstore.store.convert import convert_image
from inrstore.store.options import Options
from inrstore.store.quality import Quality
from inrstore.store.reader import Store
from tools.forge import dicom_image

pytestmark = pytest.mark.skipif(find_spec("dcm2niix") is None, reason="reading DICOM needs dcm2niix")

real = pytest.mark.skipif(not (DATA / "dicom").is_dir(), reason=f"the DICOM series are not at {DATA}")


def pixels(rows=8, columns=8):
    return np.arange(rows * columns, dtype="<u2").tobytes()


@pytest.fixture
def series(tmp_path):
    """A folder with one small DICOM image."""
    folder = tmp_path / "in/series"
    folder.mkdir(parents=True)
    (folder / "a.dcm").write_bytes(dicom_image(8, 8, 1, pixels()))
    return folder


def made_files(place, folder=""):
    with dicom.converted(place, folder) as made:
        return {entry.key: files.read(made, entry.key, 1 << 24) for entry in made.walk()}


@pytest.mark.real
@real
def test_the_series_of_a_real_scan_gives_its_voxels_and_gradients():
    scan = read_source(real_scan("sub-s03"))
    place = Folder(DATA / "dicom")
    assert dicom.is_dicom(place, "dwi_uih_explicitvrle")
    with dicom.converted(place, "dwi_uih_explicitvrle") as made:
        assert [entry.key for entry in made.walk()] == [f"series-12.{end}" for end in ("bval", "bvec", "json", "nii")]
        source = read_image(made, "series-12.nii")
        assert json.loads(files.read_text(made, "series-12.json", 1 << 20))["SeriesNumber"] == 12
        assert source.label == f"{DATA / 'dicom/dwi_uih_explicitvrle'}:series-12.nii"
    check_same_bits(source.voxels, scan.voxels)
    assert np.array_equal(source.bval, scan.bval)
    assert np.array_equal(source.bvec, scan.bvec)
    assert np.array_equal(source.affine, scan.affine)


@pytest.mark.real
@real
def test_a_series_packed_as_jpeg_2000_is_read():
    with dicom.converted(Folder(DATA / "dicom/ct_siemens_j2k_lossless"), "") as made:
        source = read_image(made, "series-0.nii")
    assert source.voxels.shape == (10, 512, 512)
    assert (source.voxels.min(), source.inter) == (0, -1024)


@pytest.mark.real
@real
def test_the_bytes_do_not_depend_on_the_folders_or_on_the_place(tmp_path, monkeypatch):
    original = DATA / "dicom/dwi_uih_explicitvrle"
    want = made_files(Folder(original))
    (tmp_path / "other temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "other temporary"))
    moved = tmp_path / "a b; $(c)"
    moved.mkdir()
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        for path in sorted(original.iterdir(), reverse=True):
            shutil.copyfile(path, moved / f"-o {path.name}")
            file.write(path, f"d/{path.name}")
    assert made_files(Folder(moved)) == want
    with ZipPlace(Folder(tmp_path), "x.zip") as place:
        assert made_files(place, "d") == want
    assert list((tmp_path / "other temporary").iterdir()) == []


def test_the_source_is_only_read_and_nothing_is_left(series, tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    before = tree(tmp_path)
    made = made_files(Folder(series.parent), "series")
    assert sorted(made) == ["series-7.json", "series-7.nii"]
    assert tree(tmp_path) == before


def test_names_in_the_file_do_not_become_paths(series):
    (series / "a.dcm").write_bytes(dicom_image(8, 8, 1, pixels(), number=b"../../7"))
    assert all("/" not in name and name.startswith("series-") for name in made_files(Folder(series)))


def test_folders_below_are_others(series):
    place = Folder(series.parent)
    assert dicom.is_dicom(place, "series")
    assert not dicom.is_dicom(place, "")
    shutil.copytree(series, series / "below")
    assert list(dicom.dicom_files(place, "series")) == ["series/a.dcm"]
    assert len(made_files(place, "series")) == 2


def test_what_is_a_dicom_image_is_seen_from_the_file(series):
    place = Folder(series)
    data = (series / "a.dcm").read_bytes()
    for name in ("IM0001", "1.2.840.1", "x.IMA", "y.hdr"):
        (series / name).write_bytes(data)
    for name in ("a.nii", "a.nii.gz", "a.json", "a.txt"):
        (series / name).write_bytes(data)
    (series / "text").write_text("hello")
    (series / "empty").write_bytes(b"")
    for name, kind in (("report", b"1.2.840.10008.5.1.4.1.1.88.22"), ("DICOMDIR", b"1.2.840.10008.1.3.10")):
        (series / name).write_bytes(dicom_image(8, 8, 1, pixels(), kind=kind))
    assert sorted(dicom.dicom_files(place, "")) == ["1.2.840.1", "IM0001", "a.dcm", "x.IMA", "y.hdr"]
    assert not dicom.is_dicom_file(place, "missing")


# ---- errors ------------------------------------------------------------------------------------------------


def refused(folder, *words, kind=SourceError, **options):
    def convert():
        with dicom.converted(Folder(folder.parent), folder.name, **options):
            pass

    return check_refused(convert, kind, *words, folder=folder)


def test_a_folder_without_dicom_is_named(tmp_path):
    (tmp_path / "series").mkdir()
    refused(tmp_path / "series", str(tmp_path / "series"), "holds no DICOM image")


def test_a_damaged_file_is_an_error_that_says_what_dcm2niix_said(series):
    (series / "b.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 3000)
    refused(series, str(series), "dcm2niix", "corrupt")


def test_a_file_that_dcm2niix_leaves_out_is_an_error(series):
    (series / "b.dcm").write_bytes(dicom_image(8, 8, 1, pixels()))  # the same image again
    with pytest.raises(SourceError, match=r"dcm2niix.* of 2|dcm2niix: error"):
        made_files(Folder(series))


def test_a_conversion_that_takes_too_long_is_stopped(series):
    refused(series, str(series), "did not finish", timeout=0.0)


def test_a_file_cannot_fill_the_disk(series, monkeypatch):
    monkeypatch.setattr(dicom, "_ROOM", 300)
    monkeypatch.setattr(dicom, "_ROOM_PER_BYTE", 0)
    refused(series, str(series), "dcm2niix")


def test_limits_of_number_and_size(series, monkeypatch):
    monkeypatch.setattr(dicom.limits, "MAX_DICOM_BYTES", 100)
    refused(series, "more than 100 bytes")
    monkeypatch.setattr(dicom.limits, "MAX_DICOM_FILES", 0)
    refused(series, "more than 0 DICOM files")


def test_what_it_leaves_is_looked_at(tmp_path):
    def check(*words):
        with pytest.raises(SourceError) as caught:
            dicom._check_outputs("folder", tmp_path, 1000)
        assert all(word in str(caught.value) for word in words)

    check("made no image")
    (tmp_path / "a.nii").write_bytes(bytes(1000))
    dicom._check_outputs("folder", tmp_path, 1000)
    (tmp_path / "a.json").write_bytes(b"x")
    check("1001 bytes")
    (tmp_path / "a.json").unlink()
    (tmp_path / "a.json").symlink_to("/etc/passwd")
    check("a.json")
    (tmp_path / "a.json").unlink()
    (tmp_path / "-a\n.json").write_bytes(b"")
    check("-a\\n.json")


def test_dcm2niix_missing_says_what_to_install(series, monkeypatch):
    monkeypatch.setitem(sys.modules, "dcm2niix", None)
    refused(series, "inrstore[dicom]", kind=MissingDependencyError)


def test_no_defaults_of_a_user_are_taken(series, tmp_path, monkeypatch):
    want = made_files(Folder(series))
    (tmp_path / ".dcm2nii.ini").write_text("isGZ=1\nfilename=%f_%p\nisBIDS=0\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert made_files(Folder(series)) == want
    assert Path(tmp_path / ".dcm2nii.ini").read_text().startswith("isGZ=1")


# ---- what dcm2niix warns of --------------------------------------------------------------------------------


@pytest.fixture
def uneven(tmp_path):
    """A folder with a series of CT whose slices have two distances."""
    folder = tmp_path / "in/uneven"
    folder.mkdir(parents=True)
    for number, z in enumerate([0, 3, 6, 9, 14, 20, 23], 1):
        data = dicom_image(16, 16, 1, pixels(16, 16), kind=b"1.2.840.10008.5.1.4.1.1.2", place=(number, z))
        (folder / f"{number}.dcm").write_bytes(data)
    return folder


def test_warnings_of_dcm2niix_come_with_its_images(uneven):
    with dicom.converted(Folder(uneven), "") as made:
        names = [entry.key for entry in made.walk() if entry.key.endswith(".nii")]
        assert names == ["series-7.nii", "series-7_Eq_1.nii"]
        plain, derived = (read_image(made, name) for name in names)
    for source in (plain, derived):
        assert any("Interslice distance varies" in warning for warning in source.warnings)
        assert all(len(warning) < 300 for warning in source.warnings)
    assert plain.derived == ""
    assert derived.derived == "series-7"
    assert "derived: interpolated from series-7" in derived.warnings[0]


def test_stores_say_what_was_warned_of_and_what_was_interpolated(uneven, tmp_path):
    assert inrstore.convert(uneven, tmp_path / "archive", lossless=True).complete
    plain, derived = (Store(tmp_path / f"archive/series-7{end}.ozx") for end in ("", "_Eq_1"))
    assert "derived" not in plain.attributes["source"]
    assert derived.attributes["source"]["derived"] == "series-7"
    for store in (plain, derived):
        assert any("Interslice distance varies" in text for text in store.attributes["source"]["warnings"])
        assert any("Interslice distance varies" in text for text in store.warnings())
    with dicom.converted(Folder(uneven), "") as made:
        (tmp_path / "again").mkdir()
        report = convert_image(
            read_image(made, "series-7.nii"), str(tmp_path / "again/a.ozx"), Options(quality=Quality(lossless=True))
        )
    assert report.warnings == plain.warnings()


def test_an_image_without_warnings_says_nothing_of_them(tmp_path):
    report = inrstore.convert(
        write_nifti(tmp_path / "a.nii", random_image((5, 4, 3))), tmp_path / "a.ozx", lossless=True
    )
    assert report.warnings == ()
    assert "warnings" not in Store(tmp_path / "a.ozx").attributes["source"]


def test_warnings_are_told_once_and_not_without_end():
    said = (
        "Found 3\n"
        + "".join(f"Warning: number {n}\nWarning: number {n}\n" for n in range(30))
        + "warning: "
        + "x" * 999
    )
    found = dicom._warnings(said)
    assert len(found) == 21 and len(set(found)) == 21
    assert found[-1] == "and 11 more warnings"
    assert dicom._warnings("Warning: " + "x" * 9999)[0] == "Warning: " + "x" * 191


@pytest.mark.parametrize(
    "name, origin",
    [("series-7_Eq.nii", "series-7"), ("series-7_Eq_1.nii", "series-7"), ("series-7_Tilt_1.nii", "series-7"),
     ("series-7_Tilt_Eq_1.nii", "series-7_Tilt"), ("series-7a.nii", ""), ("series-7_e2_ph.nii", ""), ("Eq.nii", "")],
)  # fmt: skip
def test_interpolated_images_are_known_by_the_names_of_dcm2niix(tmp_path, name, origin):
    assert dicom.Converted(tmp_path, "x").derived(name) == origin


# ---- copies of patients' data ------------------------------------------------------------------------------

HOLD = """
import sys, tempfile, time
tempfile.tempdir = sys.argv[1]
from pathlib import Path
from inrstore.files.local import Folder
from inrstore.sources import dicom
with dicom.converted(Folder(Path(sys.argv[2])), ""):
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def usual_signals():
    """Handlers as in a shell: under `nohup` and `&` some signals are ignored, in children too."""
    usual = {signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def held(series, tmp_path, monkeypatch):
    """A process that has converted a folder and goes on, and the folder for its temporary files."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "tmp"), str(series)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    with process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            yield process, tmp_path / "tmp"
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_copies_are_gone_after_a_signal(held, number):
    process, temporary = held
    assert list(temporary.glob("*/in/*.dcm"))
    process.send_signal(number)
    assert process.wait(20) != 0
    assert list(temporary.iterdir()) == []


def test_copies_of_a_killed_process_are_removed_by_the_next_one(held, series):
    process, temporary = held
    process.kill()
    process.wait()
    assert list(temporary.glob("*/in/*.dcm"))
    made_files(Folder(series))
    assert list(temporary.iterdir()) == []


def test_copies_of_a_living_process_stay(held, series):
    temporary = held[1]
    made_files(Folder(series))
    assert len(list(temporary.glob("*/in/*.dcm"))) == 1
    with dicom.converted(Folder(series), ""):  # nor those of this one
        assert remove_dead() == []


def _dead(folder, **changes):
    """Make a folder as a dead process leaves it, changed."""
    folder.mkdir(0o700)
    (folder / "scan.dcm").write_text("somebody")
    said = {**scratch_folder._mark(folder.name), "boot": "another", **changes}
    (folder / "mark").write_text(json.dumps(said))
    return folder


def test_only_what_is_provably_of_a_dead_process_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def name(number):
        return tmp_path / f"inrstore-scratch-{number:032x}"

    dead = _dead(name(0))
    kept = [
        _dead(name(1), scratch="inrstore-scratch-other"),
        _dead(name(2), host="another machine"),
        _dead(name(3), more=1),
        _dead(name(4), boot=scratch_folder._mark("")["boot"], pid=os.getpid()),
        _dead(name(5), boot=scratch_folder._mark("")["boot"], pid="1; rm"),
        _dead(tmp_path / "inrstore-scratch-mine"),
        _dead(tmp_path / "inrstore-dicom-abc"),
    ]
    for number, text in ((6, "no JSON"), (7, "[]"), (8, "")):
        (_dead(name(number)) / "mark").write_text(text)
        kept.append(name(number))
    (_dead(name(9)) / "mark").unlink()
    shutil.copy(dead / "mark", tmp_path / "elsewhere")
    (_dead(name(10)) / "mark").unlink()
    (name(10) / "mark").symlink_to(tmp_path / "elsewhere")
    (_dead(name(11)) / "mark").unlink()
    os.mkfifo(name(11) / "mark")
    _dead(name(12)).chmod(0o755)
    name(13).symlink_to(_dead(tmp_path / "target"))
    kept += [name(number) for number in range(9, 14)] + [tmp_path / "target"]
    assert remove_dead() == [dead]
    assert not dead.exists()
    for folder in kept:
        assert (folder / "scan.dcm").exists(), folder


def test_handlers_of_the_program_stay_its_own(series):
    before = signal.signal(signal.SIGTERM, handler := lambda *_: None)
    try:
        with dicom.converted(Folder(series), ""):
            assert signal.getsignal(signal.SIGTERM) is handler
            assert signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is handler
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_folder_is_converted_in_a_thread(series):
    with ThreadPoolExecutor(1) as pool:
        assert len(pool.submit(made_files, Folder(series)).result()) == 2
