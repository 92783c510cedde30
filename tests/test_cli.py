"""The command line: one JSON object or a few lines on stdout; errors as one line; exit codes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from common import needs_torch, random_image, tree, write_nifti
from typer.testing import CliRunner

import inrstore
from inrstore.archive.reports import JobProgress
from inrstore.cli import output
from inrstore.cli.app import app

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
def test_psnr_40_is_the_default(tmp_path, source):
    report = json.loads(good("convert", source, tmp_path / "s.zarr", "--json"))
    assert report["promised"] == {"psnr": 40.0}
    assert report["psnr"] is None or report["psnr"] >= 40


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
    with output.progress(quiet=False) as report:
        assert report is not None
        report(JobProgress(stage="fitting", chunks_done=3, chunks_total=8, fraction=0.4, seconds=10.0,
                           mb_per_s=1.25, psnr=35.5))  # fmt: skip
    captured = capsys.readouterr()
    assert captured.out == ""
    for word in ("fitting", "3/8 chunks", "1.25 MB/s", "35.5 dB", "left"):
        assert word in captured.err


def test_progress_is_hidden_where_nobody_looks(monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    with output.progress(quiet=False) as report:
        assert report is None
    monkeypatch.setenv("FORCE_COLOR", "1")
    with output.progress(quiet=True) as report:
        assert report is None


@pytest.mark.parametrize(
    "size, text",
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (123456, "123.5 kB"), (30277632, "30.28 MB"),
     (5 * 10**9, "5.00 GB"), (7 * 10**13, "70000.00 GB")],
)  # fmt: skip
def test_sizes_are_readable(size, text):
    assert output._bytes(size) == text


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
    assert done.stderr == f"inrstore: {tmp_path}: not a Zarr store\n"
