"""The command line: one JSON object or a few lines on stdout; errors as one line; exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from archives import bids_dataset, bulk_zip, unpacked
from common import needs_torch, random_image, tree, write_nifti
from typer.testing import CliRunner

import inrstore
from inrstore.archive.outcomes import ArchiveProgress
from inrstore.chunk.kernels import choice
from inrstore.cli import output, versions
from inrstore.cli.app import app
from inrstore.cli.progress import progress
from inrstore.store.reports import JobProgress

REPORTED = {"psnr", "rmse", "max_error", "source_bytes", "stored_bytes", "ratio", "seconds"}


@pytest.fixture
def source(tmp_path):
    """A small image."""
    return write_nifti(tmp_path / "a.nii.gz", random_image((6, 5, 4, 3)))


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def fitting(*options):
    """Options that may fit networks."""
    return pytest.param(list(options), marks=needs_torch)


def good(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_the_four_commands_work_one_after_the_other(tmp_path, source):
    store = tmp_path / "s.zarr"
    text = good("convert", source, store, "--lossless")
    assert str(store) in text
    assert "every bit kept" in text
    text = good("info", store)
    assert "t 3, z 4, y 5, x 6" in text
    assert "a.nii.gz" in text
    assert "image/c/0/0/0/0" in text
    assert "the file it was made from" in good("verify", store, "--against", source)
    assert "good" in good("verify", store)
    assert "o.nii" in good("export", store, tmp_path / "o.nii")


@pytest.mark.parametrize(
    "options",
    [fitting("--psnr", "30"), fitting("--rmse", "2"), ["--max-error", "3"], ["--lossless"], fitting()],
)
def test_json_is_exactly_one_object(tmp_path, source, options):
    store = tmp_path / "s.zarr"
    result = run("convert", source, store, *options, "--json", "--preset", "fast", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    assert result.stdout.count("\n") == 1
    report = json.loads(result.stdout)
    assert set(report) >= REPORTED | {"psnr_range", "mb_per_s", "chunks", "modes"}
    assert report["stored_bytes"] == sum(p.stat().st_size for p in store.rglob("*") if p.is_file())
    for command in (["info", store], ["verify", store], ["verify", store, "--against", source]):
        assert set(json.loads(good(*command, "--json"))) >= REPORTED
    assert json.loads(good("export", store, tmp_path / "o.nii.gz", "--json"))["seconds"] > 0


def test_both_zarr_formats_can_be_chosen(tmp_path, source):
    for number, name in (("3", "zarr.json"), ("2", ".zattrs")):
        good("convert", source, tmp_path / f"{number}.zarr", "--lossless", "--zarr-format", number)
        assert (tmp_path / f"{number}.zarr" / name).is_file()


@needs_torch
def test_psnr_40_is_the_default_of_networks_and_of_a_mode(tmp_path, source):
    report = json.loads(good("convert", source, tmp_path / "s.zarr", "--mode", "transform", "--json"))
    assert report["promised"] == {"psnr": 40.0} and report["default"] == {}
    assert report["psnr"] is None or report["psnr"] >= 40


def test_info_says_what_networks_inside_chunks_take(tmp_path):
    from test_format_inloop import scan

    values = scan((6, 12, 28, 28))
    source = write_nifti(tmp_path / "a.nii.gz", values.T)
    store, plain = tmp_path / "s.ozx", tmp_path / "p.ozx"
    good("convert", source, store, "--psnr", "31")
    good("convert", source, plain, "--psnr", "31", "--mode", "transform")
    (chunk,) = json.loads(good("info", store, "--json"))["chunk_list"]
    line = next(line for line in good("info", store).splitlines() if line.startswith("  networks"))
    assert line.split()[1:] == [*chunk["network"].split(), *f"units in 1 chunks, {chunk['network_bytes']} bytes "
                                "of these bytes".split()]  # fmt: skip
    assert "  networks" not in good("info", plain)


def test_versions_say_what_is_installed_and_whether_compiled_loops_serve(monkeypatch):
    monkeypatch.delenv("INRSTORE_COMPILED", raising=False)
    found = json.loads(good("info", "--versions", "--json"))
    assert found["inrstore"] == inrstore.__version__ and found["chunk_format"] == found["store_layout"] == 1
    assert found["packages"]["zarr"] and found["packages"]["numcodecs"]
    assert {"numba", "torch", "av"} <= set(found["packages"])
    with choice.use(True):
        assert found["compiled_loops"]["serve"] == (choice.find("transform", 1) is not None)
    assert good("info", "--versions").startswith(f"inrstore  {inrstore.__version__}\n")
    monkeypatch.setenv("INRSTORE_COMPILED", "0")
    assert json.loads(good("info", "--versions", "--json"))["compiled_loops"] == {
        "serve": False, "reason": "INRSTORE_COMPILED = 0", "INRSTORE_COMPILED": "0"}  # fmt: skip
    assert "loops     numpy: INRSTORE_COMPILED = 0" in good("info", "--versions")
    monkeypatch.setenv("INRSTORE_COMPILED", "1")
    monkeypatch.setattr(versions, "PACKAGES", ("absent-package",))
    monkeypatch.setattr(choice, "import_module", lambda _: 1 / 0)
    text = good("info", "--versions")
    assert "not installed" in text and "division" in text
    monkeypatch.setattr(choice, "installed", lambda: False)
    assert "loops     numpy: " in good("info", "--versions")


def test_info_takes_a_store_or_shows_versions():
    assert run("info").exit_code == run("info", "somewhere", "--versions").exit_code == 2


@pytest.mark.parametrize("command", ["convert", "info", "verify", "export"])
def test_errors_are_one_line_and_exit_code_1(tmp_path, source, command):
    missing = tmp_path / "missing.nii"
    arguments = [command, missing, *([tmp_path / "o.nii"] if command in ("convert", "export") else [])]
    before = tree(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("inrstore: ")
    assert result.stderr.count("\n") == 1
    assert "missing.nii" in result.stderr
    assert "Traceback" not in result.output
    assert tree(tmp_path) == before
    result = run(*arguments, "--json")
    assert result.exit_code == 1
    assert "missing.nii" in json.loads(result.stdout)["error"]


def test_a_damaged_store_fails_verify(tmp_path, source):
    good("convert", source, tmp_path / "s.zarr", "--lossless")
    chunk = tmp_path / "s.zarr/image/c/0/0/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    result = run("verify", tmp_path / "s.zarr")
    assert result.exit_code == 1
    assert "image/c/0/0/0/0" in result.stderr


@pytest.mark.parametrize(
    "options",
    [["--psnr", "30", "--rmse", "2"], ["--psnr", "-1"], ["--psnr", "x"], ["--preset", "tiny"],
     ["--device", "tpu"], ["--zarr-format", "4"], ["--no-such-option"], ["extra"]],
)  # fmt: skip
def test_wrong_options_are_exit_code_2(tmp_path, source, options):
    before = tree(tmp_path)
    result = run("convert", source, tmp_path / "s.zarr", *options)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert tree(tmp_path) == before


def test_an_existing_destination_is_exit_code_1(tmp_path, source):
    (tmp_path / "s.zarr").mkdir()
    result = run("convert", source, tmp_path / "s.zarr")
    assert result.exit_code == 1
    assert "exists already" in result.stderr


def test_version_and_help():
    assert good("--version").strip() == f"inrstore {inrstore.__version__}"
    text = good("--help")
    for command in ("convert", "info", "verify", "export"):
        assert command in text


def test_progress_shows_chunks_speed_and_psnr(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress(quiet=False) as report:
        assert report is not None
        report(JobProgress(stage="fitting", chunks_done=3, chunks_total=8, fraction=0.4, seconds=10.0,
                           mb_per_s=1.25, psnr=35.5))  # fmt: skip
    captured = capsys.readouterr()
    assert captured.out == ""
    for word in ("fitting", "3/8 chunks", "1.25 MB/s", "35.5 dB", "left"):
        assert word in captured.err


def test_progress_is_hidden_where_it_would_disturb(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress(quiet=True) as report:
        assert report is None


@pytest.mark.parametrize(
    "size, text",
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (123456, "123.5 kB"), (30277632, "30.28 MB"),
     (5 * 10**9, "5.00 GB"), (7 * 10**13, "70000.00 GB")],
)  # fmt: skip
def test_sizes_are_readable(size, text):
    assert output.size_text(size) == text


def test_typer_missing_says_what_to_install():
    code = "import sys; sys.modules['typer'] = None; from inrstore.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "inrstore[cli]" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_is_installed(tmp_path):
    code = "from inrstore.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "info", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"inrstore: {tmp_path}: no such store\n"


# ---- archives


@pytest.fixture
def many(tmp_path):
    """A dataset with a zip."""
    bids_dataset(tmp_path / "in")
    bulk_zip(tmp_path / "in/sourcedata/1_20250_2_0.zip", tmp_path / "scratch")
    return tmp_path / "in"


def test_the_four_commands_work_on_a_dataset(tmp_path, many):
    text = good("convert", many, tmp_path / "out", "--lossless", "--report", tmp_path / "r.html")
    assert "images    4" in text
    assert (tmp_path / "r.html").is_file()
    text = good("convert", many, tmp_path / "out", "--lossless")
    assert "were there from earlier runs" in text
    text = good("info", tmp_path / "out")
    assert "out: complete" in text and "in (bids)" in text and "lossless" in text
    assert "good" in good("verify", tmp_path / "out")
    assert "sizes and digests only" in good("verify", tmp_path / "out", "--fast")
    assert "part 1/2" in good("verify", tmp_path / "out", "--subset", "1/2")
    assert f"against   {many}" in good("verify", tmp_path / "out", "--against", many)
    assert "4 images" in good("export", tmp_path / "out", tmp_path / "back")
    assert unpacked(tmp_path / "back").keys() == unpacked(many).keys()
    good("export", tmp_path / "out", tmp_path / "part", "--include", "*_T1w.nii.gz")
    assert [path.name for path in (tmp_path / "part").rglob("*") if path.is_file()] == ["sub-01_T1w.nii.gz"]


def test_a_zip_goes_to_an_archive_and_back(tmp_path, many):
    source = many / "sourcedata/1_20250_2_0.zip"
    good("convert", source, tmp_path / "out", "--max-error", "1")
    good("export", tmp_path / "out", tmp_path / "back.zip")
    with zipfile.ZipFile(source) as one, zipfile.ZipFile(tmp_path / "back.zip") as other:
        assert one.namelist() == other.namelist()


def test_json_is_exactly_one_object_for_archives_too(tmp_path, many):
    commands = [
        ("convert", many, tmp_path / "out", "--lossless"), ("info", tmp_path / "out"), ("verify", tmp_path / "out"),
        ("verify", tmp_path / "out", "--fast"), ("export", tmp_path / "out", tmp_path / "back"),
    ]  # fmt: skip
    for command in commands:
        result = run(*command, "--json")
        assert result.exit_code == 0, result.stderr
        assert result.stderr == ""
        assert result.stdout.count("\n") == 1
        assert str(tmp_path / "out") == json.loads(result.stdout)["archive"]


def test_what_failed_is_listed_at_the_end_and_the_exit_code_is_1(tmp_path, many):
    (many / "sub-01/anat/sub-01_T1w.nii.gz").write_bytes(b"no image")
    result = run("convert", many, tmp_path / "out", "--lossless")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[-2].startswith("archive incomplete: 1 of ")
    assert lines[-1].startswith("  sub-01/anat/sub-01_T1w.nii.gz: ")
    result = run("convert", many, tmp_path / "out", "--lossless", "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert (report["complete"], report["failed"]) == (False, 1)
    text = good("info", tmp_path / "out")
    assert "incomplete" in text and "sub-01_T1w" in text
    result = run("verify", tmp_path / "out")
    assert result.exit_code == 1
    assert "incomplete" in result.stderr


def test_files_are_chosen_and_rules_followed(tmp_path, many):
    (tmp_path / "rules.toml").write_text("[T1w]\nlossless = true\n[default]\nmax_error = 2\n")
    good("convert", many, tmp_path / "out", "--rules", tmp_path / "rules.toml",
         "--include", "*.nii.gz", "--include", "*.json", "--exclude", "sourcedata/*")  # fmt: skip
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*")}
    assert {"sub-01/anat/sub-01_T1w.ozx", "sub-01/dwi/sub-01_dwi.ozx", "dataset_description.json"} <= names
    assert not names & {"sourcedata", "participants.tsv"}
    for name, promised in (("anat/sub-01_T1w", {"lossless": True}), ("dwi/sub-01_dwi", {"max_error": 2.0})):
        report = json.loads(good("info", tmp_path / f"out/sub-01/{name}.ozx", "--json"))
        assert report["promised"] == promised


def test_a_mask_is_an_option(tmp_path, source):
    mask = write_nifti(tmp_path / "m.nii", np.ones((6, 5, 4), "uint8"))
    good("convert", source, tmp_path / "s.zarr", "--lossless", "--mask", mask)
    result = run("convert", source, tmp_path / "t.zarr", "--lossless", "--mask", "none.nii")
    assert result.exit_code == 1
    assert "none.nii" in result.stderr


@pytest.mark.parametrize(
    "options", [["--workers", "0"], ["--batch", "0"], ["--workers", "1", "--scheduler", "x"], ["--include", ""]]
)
def test_wrong_options_for_archives_are_exit_code_2(tmp_path, many, options):
    before = tree(tmp_path)
    result = run("convert", many, tmp_path / "out", "--lossless", *options)
    assert result.exit_code == 2, result.output
    assert tree(tmp_path) == before


def test_wrong_rules_name_file_and_key(tmp_path, many):
    (tmp_path / "rules.toml").write_text("[T1w]\nprsn = 40\n")
    result = run("convert", many, tmp_path / "out", "--rules", tmp_path / "rules.toml")
    assert result.exit_code == 2
    assert "rules.toml: [T1w] prsn" in result.stderr


def test_progress_of_an_archive_shows_all_that_is_under_way(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("FORCE_COLOR", "1")
    image = JobProgress(stage="fitting", chunks_done=1, chunks_total=4, fraction=0.3, seconds=2.0,
                        mb_per_s=0.5, psnr=33.3)  # fmt: skip
    common = {"stage": "converting", "failed": 2, "total": 40, "bytes_total": 8_000_000, "seconds": 9.0}
    with progress(quiet=False) as report:
        assert report is not None
        running = {"a/one[1].nii": image, "b/two.nii": image}
        report(ArchiveProgress(done=7, bytes_done=2_000_000, running=running, **common))
        report(ArchiveProgress(done=8, bytes_done=2_500_000, running={"b/two.nii": image}, **common))
    captured = capsys.readouterr()
    assert captured.out == ""
    for word in ("converting", "8/40 files", "2 failed", "2.50 MB of 8.00 MB", "b/two.nii", "1/4 chunks", "33.3 dB"):
        assert word in captured.err
