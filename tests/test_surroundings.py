"""What is not the destination is not touched, and metadata is not used before its digest is checked."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from common import random_image, tree, write_nifti

import inrstore
from inrstore.errors import InrstoreError, StoreError


def image(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_nifti(path, random_image((9, 8, 7), seed=seed))


# ---- files of others


def test_a_folder_that_is_called_partial_is_somebody_elses(tmp_path):
    source = image(tmp_path / "out.partial/a.nii.gz")
    (tmp_path / "out.partial/thesis.txt").write_bytes(b"years")
    before = tree(tmp_path / "out.partial")
    with suppress(InrstoreError):
        inrstore.convert(source, tmp_path / "out", lossless=True)
    assert tree(tmp_path / "out.partial") == before


@pytest.mark.parametrize("name", ["store/x", "journal.jsonl", "notes.txt"])
def test_what_was_not_made_here_stays_whatever_it_is_called(tmp_path, name):
    source = image(tmp_path / "a.nii.gz")
    file = tmp_path / "out.partial" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"mine")
    try:
        inrstore.convert(source, tmp_path / "out", lossless=True)
    except InrstoreError:
        pass
    assert file.read_bytes() == b"mine"


def test_a_link_that_is_called_partial_leads_nowhere(tmp_path):
    source = image(tmp_path / "a.nii.gz")
    image(tmp_path / "elsewhere/store/b.nii.gz")
    (tmp_path / "out.partial").symlink_to(tmp_path / "elsewhere")
    before = tree(tmp_path / "elsewhere")
    try:
        inrstore.convert(source, tmp_path / "out", lossless=True)
    except InrstoreError:
        pass
    assert tree(tmp_path / "elsewhere") == before
    assert os.readlink(tmp_path / "out.partial") == str(tmp_path / "elsewhere")


def test_what_lies_in_the_record_of_an_archive_under_another_name_stays(tmp_path):
    source = image(tmp_path / "in/a.nii.gz").parent
    inrstore.convert(source, tmp_path / "archive", lossless=True)
    work = tmp_path / "archive/.inrstore/work"
    (work / ".inrstore-0123456789abcdef").mkdir(parents=True)
    (work / ".inrstore-0123456789abcdef/half").write_bytes(b"of a run that died")
    (work / "thesis.txt").write_bytes(b"years")
    (work / "link").symlink_to(source)
    inrstore.convert(source, tmp_path / "archive", lossless=True)
    assert tree(work) == {"thesis.txt": tree(work)["thesis.txt"], "link": f"link to {source}"}
    assert inrstore.verify(tmp_path / "archive", source).stores == 1


def test_a_report_beside_a_folder_of_its_name_leaves_it_alone(tmp_path):
    source = tmp_path / "scan_files"
    image(source / "a.nii.gz")
    for number in range(3):
        (source / f"{number}.png").write_bytes(b"a figure")
    before = tree(source)
    inrstore.convert(source, tmp_path / "archive", lossless=True, report=tmp_path / "scan.html")
    assert tree(source) == before
    assert inrstore.verify(tmp_path / "archive", source).stores == 1


def test_a_report_may_lie_beside_a_zip(tmp_path):
    image(tmp_path / "a.nii.gz")
    with zipfile.ZipFile(tmp_path / "one.zip", "w") as packed:
        packed.write(tmp_path / "a.nii.gz", "a.nii.gz")
    before = (tmp_path / "one.zip").read_bytes()
    inrstore.convert(tmp_path / "one.zip", tmp_path / "archive", lossless=True, report=tmp_path / "page.html")
    assert "a.nii.gz" in (tmp_path / "page.html").read_text()
    assert (tmp_path / "one.zip").read_bytes() == before


def test_a_report_replaces_a_report_and_nothing_else(tmp_path):
    image(tmp_path / "in/a.nii.gz")
    page = tmp_path / "page.html"
    page.write_text("<!doctype html><title>my homepage</title>")
    before = tree(tmp_path)
    with pytest.raises(InrstoreError, match=r"page\.html"):
        inrstore.convert(tmp_path / "in", tmp_path / "archive", lossless=True, report=page)
    assert tree(tmp_path) == before
    page.unlink()
    for _ in range(2):
        inrstore.convert(tmp_path / "in", tmp_path / "archive", lossless=True, report=page)
    assert "a.nii.gz" in page.read_text()


# ---- every command, in hostile surroundings


@dataclass(frozen=True)
class Command:
    """A command line, what it may make or change, and whether it is refused.

    A new command of the program is a line in `COMMANDS`. Names in braces are those of `surroundings`.
    """

    line: str
    makes: tuple[str, ...] = ()
    refused: bool = False


COMMANDS = (
    Command("convert {image} {out}.ozx --lossless", ("{out}.ozx",)),
    Command("convert {image} {out}.zarr --lossless --zarr-format 2", ("{out}.zarr",)),
    Command("convert {image} {out}-plain --lossless", ("{out}-plain",)),
    Command("convert {tree} {out} --lossless --report {out}.html", ("{out}", "{out}.html")),
    Command("convert {tree} {out} --lossless --report {out}.html", ("{out}", "{out}.html")),
    Command("convert {tree} {out}-folders --lossless --store zarr --include *.nii.gz", ("{out}-folders",)),
    Command("convert {zip} {out}-zip --lossless --report {out}-zip.html", ("{out}-zip", "{out}-zip.html")),
    *(Command(f"{what} {{out}}{kind}") for what in ("info", "verify", "verify --fast")
      for kind in ("", ".ozx", ".zarr", "-plain", "-folders", "-zip")),
    Command("verify {out} --against {tree}"),
    Command("verify {out}.ozx --against {image}"),
    Command("verify {out}-zip --against {zip}"),
    Command("export {out}.ozx {out}.nii", ("{out}.nii",)),
    Command("export {out}.zarr {out}.nii.gz", ("{out}.nii.gz",)),
    Command("export {out} {out}-back", ("{out}-back",)),
    Command("export {out}-zip {out}-back.zip", ("{out}-back.zip",)),
    # Archives that are changed; the source and other archives are only read.
    Command("convert {tree} {out}-nothing --dry-run"),
    Command("ls {out} --json"),
    Command("update {tree} {out} --dry-run"),
    Command("update {tree} {out}", ("{out}",)),
    Command("update {tree} {out}-folders --force * --log {out}.log", ("{out}-folders", "{out}.log")),
    Command("convert {other} {out}-second --lossless", ("{out}-second",)),
    Command("merge {out}-second {out}", ("{out}",)),
    Command("remove {out} sub-01/* --dry-run", ("{out}/.inrstore",)),
    Command("remove {out} sub-01/*", ("{out}",)),
    Command("remove {out}-folders sub-01/*", ("{out}-folders",)),
    Command("prune {out} --dry-run", ("{out}/.inrstore",)),
    Command("prune {out}", ("{out}",)),
    Command("update {other} {out}", refused=True),
    Command("merge {out}-zip {out}", refused=True),
    Command("remove {tree} *", refused=True),
    Command("prune {tree}", refused=True),
    Command("merge {tree} {out}", refused=True),
    # Refused, and then nothing at all is made.
    Command("convert {image} {out}.ozx --lossless", refused=True),
    Command("convert {image} {image} --lossless", refused=True),
    Command("convert {broken} {out}-broken.ozx --lossless", refused=True),
    Command("convert {image} {taken} --lossless", refused=True),
    Command("convert {tree} {taken} --lossless", refused=True),
    Command("convert {tree} {tree}/inside --lossless", refused=True),
    Command("convert {tree} {out}-other --lossless --report {page}", refused=True),
    Command("convert {tree} {out}-other --lossless --report {tree}/page.html", refused=True),
    Command("convert {zip} {out}-other --lossless --report {zip}", refused=True),
    Command("convert {image} {out}-other.ozx --lossless --mask {taken}", refused=True),
    Command("export {out}.ozx {image}", refused=True),
    Command("export {out} {taken}", refused=True),
    Command("export {out}-zip {zip}", refused=True),
    Command("info {image}", refused=True),
    Command("verify {tree}", refused=True),
    Command("verify {out}.ozx --against {broken}", refused=True),
)  # fmt: skip


def surroundings(top: Path, placement: str) -> dict[str, str]:
    """Make a folder full of what could be taken for something else; return the names of what is in it."""
    home = {"beside": "data", "partial": "data/out.partial", "hidden": "data/.inrstore-0123456789abcdef",
            "record": "data/.inrstore/work", "files": "data/out_files"}[placement]  # fmt: skip
    source = top / home
    tree_of_images = source / "in"
    image(tree_of_images / "sub-01/anat/sub-01_T1w.nii.gz")
    image(tree_of_images / "sub-02/anat/sub-02_T1w.nii.gz", seed=1)
    (tree_of_images / "participants.tsv").write_bytes(b"participant_id\n")
    (tree_of_images / ".bidsignore").write_bytes(b"")
    (tree_of_images / "sub-02/link.txt").symlink_to("../participants.tsv")
    image(source / "second/x.nii.gz", seed=3)
    one = image(source / "a.nii.gz", seed=2)
    with zipfile.ZipFile(source / "one.zip", "w") as packed:
        packed.write(one, "T1/T1.nii.gz")
        packed.writestr("notes.txt", "text")
    out = top / ("data/x.partial" if placement == "partial" else "data") / "out"
    # Names like those of the destinations, of what is unfinished, of reports and their pictures.
    for name in ("out.partial/thesis.txt", "out.ozx.partial", "out.zarr.partial/c/0", "out_files/0.png", "out.html.tmp",
                 "out-zip_files/1.png", ".out.ozx.swp", "out.ozx~", "out.claim", "out.ozx.claim", "out.lock",
                 ".inrstore-fedcba9876543210", ".inrstore-aaaaaaaaaaaaaaaa/half", ".inrstore/work/thesis.txt",
                 "page.html", "taken/deep/file", "broken.nii.gz"):  # fmt: skip
        path = out.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"somebody's {name}".encode())
    (top / "elsewhere").mkdir()
    (top / "elsewhere/thesis.txt").write_bytes(b"years")
    (out.parent / "out-link").symlink_to(top / "elsewhere")
    (out.parent / "dangling").symlink_to("nowhere")
    (out.parent / "read-only").mkdir()
    (out.parent / "read-only/file").write_bytes(b"mine")
    (out.parent / "read-only/file").chmod(0o400)
    (out.parent / "read-only").chmod(0o500)
    for path in tree_of_images.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o500 if path.is_dir() else 0o400)  # a source is only read
    names = {
        "image": one,
        "tree": tree_of_images,
        "other": source / "second",
        "zip": source / "one.zip",
        "out": out,
        "taken": out.parent / "taken",
        "page": out.parent / "page.html",
        "broken": out.parent / "broken.nii.gz",
    }
    return {name: str(path) for name, path in names.items()}


def everything(top: Path) -> dict[str, object]:
    """Return what can be seen of every file, folder and link."""
    out: dict[str, object] = {}
    for folder, folders, names in os.walk(top):
        for path in (Path(folder, name) for name in (*folders, *names)):
            info, content = path.lstat(), ""
            if path.is_symlink():
                content = os.readlink(path)
            elif path.is_file():
                content = f"{hashlib.sha256(path.read_bytes()).hexdigest()} {info.st_mtime_ns} {info.st_ino}"
            out[str(path)] = (content, info.st_mode, info.st_uid)
    return out


@pytest.mark.parametrize("placement", ["beside", "partial", "hidden", "record", "files"])
def test_no_command_touches_what_it_was_not_told_to_make(tmp_path, monkeypatch, placement):
    from typer.testing import CliRunner

    from inrstore.cli.app import app

    (tmp_path / "top/cwd").mkdir(parents=True)
    (tmp_path / "top/tmp").mkdir()
    monkeypatch.chdir(tmp_path / "top/cwd")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "top/tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    names = surroundings(tmp_path / "top", placement)
    before = everything(tmp_path / "top")
    for command in COMMANDS:
        line = command.line.format(**names)
        done = CliRunner().invoke(app, shlex.split(line))
        assert (done.exit_code != 0) == command.refused, (line, done.output)
        after = everything(tmp_path / "top")
        makes = tuple(name.format(**names) for name in command.makes)
        touched = [path for path in {*before, *after} if before.get(path) != after.get(path)]
        foreign = [path for path in touched if not any(path == made or path.startswith(f"{made}/") for made in makes)]
        assert foreign == [], line
        before = after


@pytest.mark.parametrize("name", ["out.ozx", "out.zarr", "out"])
def test_a_link_in_the_place_of_a_destination_is_not_followed(tmp_path, name):
    source = image(tmp_path / "a.nii.gz")
    for target in ("nowhere", "elsewhere", "thesis.txt"):
        top = tmp_path / target
        top.mkdir()
        (top / "elsewhere").mkdir()
        (top / "thesis.txt").write_bytes(b"years")
        (top / name).symlink_to(target)
        before = everything(top)
        with pytest.raises(InrstoreError):
            inrstore.convert(source, top / name, lossless=True)
        assert everything(top) == before


# ---- metadata before its digest


def test_no_command_uses_an_edited_shape(tmp_path):
    inrstore.convert(image(tmp_path / "a.nii.gz"), tmp_path / "a.zarr", lossless=True)
    document = tmp_path / "a.zarr/image/zarr.json"
    text = document.read_text()
    assert '"shape":[7,8,9]' in text
    document.write_text(text.replace('"shape":[7,8,9]', '"shape":[6,8,9]'))
    assert json.loads(document.read_text())["shape"] == [6, 8, 9]
    for command in (inrstore.info, inrstore.open, inrstore.verify):
        with pytest.raises(StoreError, match=r"image/zarr\.json"):
            command(tmp_path / "a.zarr")
    with pytest.raises(StoreError, match=r"image/zarr\.json"):
        inrstore.export(tmp_path / "a.zarr", tmp_path / "back.nii")
    assert not (tmp_path / "back.nii").exists()
