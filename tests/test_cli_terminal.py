"""What people see: names never command a terminal, nothing ends in a traceback, progress fits and does not flood."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from common import ROOT, random_image, tree, write_nifti

from inrstore.archive.outcomes import ArchiveProgress
from inrstore.cli import output
from inrstore.cli.progress import Lines, progress
from inrstore.store.reports import JobProgress

EVIL = "a\x1b]0;owned\x07\x1b[2Jb\u202egz.iin\u2066\x9b31m\rc\nfake: good"
"""A title, a cleared screen, a name read backwards, a C1 command, a line of its own."""


def run(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    found = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default", **environment}
    command = [sys.executable, "-m", "inrstore.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=found, capture_output=True, timeout=120)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    write_nifti(tmp_path / "in/a.nii.gz", random_image((9, 8, 7)))
    return tmp_path


def plain(data: bytes) -> str:
    """Return what was printed if no sign of it could be a command."""
    text = data.decode()
    assert [sign for sign in text if sign != "\n" and not sign.isprintable()] == []
    return text


# ---- names -------------------------------------------------------------------------------------------------


def test_no_name_reaches_a_terminal_raw(folder):
    image = folder / f"{EVIL}.nii.gz"
    (folder / "in/a.nii.gz").rename(image)
    for command in (
        ["convert", image, f"{EVIL}.ozx", "--lossless"],
        ["info", f"{EVIL}.ozx"],
        ["verify", f"{EVIL}.ozx", "--against", image],
        ["export", f"{EVIL}.ozx", f"{EVIL}2.nii"],
    ):
        done = run(*command, cwd=folder)
        assert done.returncode == 0, done.stderr
        text = plain(done.stdout) + plain(done.stderr)
        assert r"a\x1b]0;owned\x07\x1b[2Jb\u202egz.iin\u2066\x9b31m\rc" in text
        assert not re.search("^fake", text, re.MULTILINE)
    done = run("info", f"{EVIL}.missing", cwd=folder)
    assert done.returncode == 1
    assert r"\x1b[2J" in plain(done.stderr)


def test_no_name_in_an_archive_reaches_a_terminal_raw(folder):
    source = folder / "in"
    (source / f"{EVIL}.nii").write_bytes(b"no image")
    (source / f"{EVIL}.txt").write_bytes(b"text")
    done = run("convert", source, "archive", "--lossless", cwd=folder)
    assert done.returncode == 1
    assert r"\x1b[2J" in plain(done.stdout)
    plain(done.stderr)
    (source / f"{EVIL}.nii").unlink()
    for command in (["convert", source, "archive", "--lossless"], ["info", "archive"], ["verify", "archive"]):
        done = run(*command, cwd=folder)
        assert done.returncode == 0, done.stderr
        plain(done.stdout)
        plain(done.stderr)


def test_json_has_every_name_as_it_is(folder):
    store = f"{EVIL}.ozx"
    done = run("convert", folder / "in/a.nii.gz", store, "--lossless", "--json", cwd=folder)
    assert json.loads(done.stdout)["store"] == store
    done = run("info", f"two  blanks {EVIL}", "--json", cwd=folder)
    assert f"two  blanks {EVIL}" in json.loads(done.stdout)["error"]


def test_a_name_that_a_terminal_cannot_show_is_printed_all_the_same(folder):
    store = "été-日本.ozx"
    done = run("convert", folder / "in/a.nii.gz", store, "--lossless", cwd=folder, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert rb"\xe9t\xe9-\u65e5\u672c.ozx" in done.stdout


@pytest.mark.parametrize("sign", ["\0", "\x7f", "\x85", "\u200b", "\u200e", "\u2028", "\ufeff", "\udc80", "\U000e0041"])
def test_what_has_no_shape_is_escaped(sign):
    text = output.printable(f"é {sign}日")
    assert text.isprintable()
    assert text.startswith("é \\")
    assert text.endswith("日")


# ---- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["convert", "in/a.nii.gz", "o.ozx", "--mask", "../missing.nii"], "../missing.nii"),
        (["convert", "in", "o", "--mask", "../missing.nii"], "../missing.nii"),
        (["convert", "in", "o", "--rules", "digits.toml"], "4300 digits"),
        (["convert", "in/a.nii.gz", b"o\xff.ozx", "--psnr", "nan"], "psnr"),
        (["convert", "in", b"o\xff", "--lossless", "--report", b"in/r\xff.html"], "report"),
        (["info", b"o\xff.ozx"], r"o\udcff.ozx"),
        (["convert", "huge.nii", "o.ozx", "--psnr", "40"], "range for a PSNR"),
        (["convert", "huge", "o", "--psnr", "40"], "range for a PSNR"),
    ],
)
def test_nothing_ends_in_a_traceback(folder, arguments, word):
    (folder / "digits.toml").write_text(f"[dwi]\npsnr = {'9' * 5000}\n")
    signs = np.random.default_rng(0).choice([-1e308, 1e308], (4, 5, 6))
    write_nifti(folder / "huge.nii", signs)
    (folder / "huge").mkdir()
    write_nifti(folder / "huge/a.nii", signs)
    before = tree(folder)
    done = run(*(os.fsdecode(part) if isinstance(part, bytes) else part for part in arguments), cwd=folder)
    text = plain(done.stdout) + plain(done.stderr)
    assert done.returncode in (1, 2)
    assert word in text
    for sign in ("Traceback", "Warning", ".py:"):
        assert sign not in text
    left = {name: value for name, value in tree(folder).items() if name.split("/")[0] != "o"}
    assert left == before
    assert not [name for name in tree(folder) if "partial" in name or "work" in name]


def test_a_destination_that_is_not_utf8_is_written_with_its_report(folder):
    name = os.fsdecode(b"o\xff")
    done = run("convert", "in", name, "--lossless", "--report", f"{name}.html", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert r"o\udcff" in plain(done.stdout)
    assert run("verify", name, cwd=folder).returncode == 0


def test_an_error_that_nobody_foresaw_is_one_line(capsys):
    import typer

    with pytest.raises(typer.Exit) as caught, output.errors(as_json=True):
        raise ZeroDivisionError("division by\nzero")
    assert caught.value.exit_code == 1
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert "please report it: ZeroDivisionError: division by zero (test_cli_terminal.py, line" in shown.err
    assert json.loads(shown.out)["kind"] == "ZeroDivisionError"


def test_warnings_of_libraries_are_lines_and_each_comes_once(capsys):
    with output.errors(as_json=False):
        for _ in range(3):
            with warnings.catch_warnings():
                warnings.simplefilter("always")
                warnings.warn("overflow\x1b encountered", RuntimeWarning, stacklevel=1)
    assert capsys.readouterr().err == "inrstore: warning: overflow\\x1b encountered\n"


# ---- progress ----------------------------------------------------------------------------------------------

IMAGE = JobProgress(stage="fitting", chunks_done=123, chunks_total=1234, fraction=0.4, seconds=100.0, mb_per_s=12.25,
                    psnr=35.5)  # fmt: skip


def archive(done: int, **running: JobProgress) -> ArchiveProgress:
    return ArchiveProgress(stage="converting", done=done, failed=12, total=40_000, bytes_done=done * 10**8,
                           bytes_total=4 * 10**12, seconds=9.0, running=running)  # fmt: skip


@pytest.mark.parametrize("columns", [60, 80, 100, 200])
def test_progress_fits_the_terminal(monkeypatch, capsys, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("FORCE_COLOR", "1")
    long = f"sub-{'0' * 60}/func/sub-0_{EVIL}_bold.nii.gz"
    with progress(quiet=False) as report:
        assert report is not None
        report(archive(1234, **{long: IMAGE, "b.nii": IMAGE}))
    with progress(quiet=False) as report:
        assert report is not None
        report(IMAGE)
    text = re.sub("\x1b\\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    lines = [line.rstrip() for line in re.split("[\r\n]", text) if line.strip()]
    assert max(map(len, lines)) <= columns
    assert "owned\x07" not in text
    for word in ("1,234/40,000 files", "12 failed", "123/1234 chunks", "35.5 dB", "left"):
        assert word in text, lines
    if columns >= 80:
        assert "bold.nii.gz: fitting" in text
        assert "converting" in text


def test_progress_in_a_file_is_a_line_now_and_then():
    lines, now = [], [0.0]
    tell = Lines(lines.append, lambda: now[0])
    for second in range(10 * 3600):  # ten hours
        now[0] = float(second)
        tell(archive(second * 40_000 // 36_000))
    assert 9 <= len(lines) <= 72
    assert lines[0].startswith("inrstore: converting ")
    assert "failed" in lines[0]
    lines.clear()
    tell = Lines(lines.append, lambda: now[0])
    for tenth in range(95):
        now[0] += 0.1
        tell(JobProgress(stage="fit\x1bting", chunks_done=tenth, chunks_total=95, fraction=tenth / 95, seconds=1,
                         mb_per_s=1))  # fmt: skip
    assert lines == []
    now[0] += 10
    tell(IMAGE)
    assert lines == ["inrstore: fitting 40%, 123/1234 chunks, 35.5 dB"]


def test_progress_in_a_pipe_has_no_signs_of_a_terminal(folder, monkeypatch, capsys):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setattr("inrstore.cli.progress._SECONDS", 0.0)
    monkeypatch.setattr("inrstore.cli.progress._PART", 0.0)
    with progress(quiet=False) as report:
        assert report is not None
        report(archive(3, **{EVIL: IMAGE}))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "inrstore: converting 0%, 3/40,000 files, 12 failed\n"
