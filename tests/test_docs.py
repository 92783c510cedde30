"""The guide is true: its Python and its commands run, its links lead somewhere."""

from __future__ import annotations

import doctest
import json
import re
import shlex
import shutil

import numpy as np
import pytest
from common import ROOT, random_image, write_nifti

PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a dataset, its archive and a store."""
    pytest.importorskip("xarray")
    import inrstore

    top = tmp_path_factory.mktemp("guide")
    bids = top / "bids"
    for subject in ("01", "02"):
        own = bids / f"sub-{subject}"
        for part, shape in (("anat", (20, 18, 12)), ("dwi", (20, 18, 12, 8))):
            (own / part).mkdir(parents=True)
            suffix = "T1w" if part == "anat" else "dwi"
            values = np.abs(random_image(shape, seed=int(subject))) + 10
            write_nifti(own / part / f"sub-{subject}_{suffix}.nii.gz", values.astype(np.int16))
        (own / f"dwi/sub-{subject}_dwi.bval").write_text("0 0 1000 1000 1000 1000 1000 1000\n")
        (own / f"dwi/sub-{subject}_dwi.bvec").write_text("\n".join(["0 0 1 0 0 0.6 0.6 0", "0 0 0 1 0 0.8 0 0.6",
                                                                    "0 0 0 0 1 0 0.8 0.8"]) + "\n")  # fmt: skip
    (bids / "dataset_description.json").write_text(json.dumps({"Name": "Guide", "BIDSVersion": "1.10.0"}))
    inrstore.convert(bids, top / "template", psnr=40, preset="fast", exclude=["*.DS_Store"])
    inrstore.convert(bids / "sub-01/dwi/sub-01_dwi.nii.gz", top / "dwi.ozx", psnr=40, preset="fast")
    return top


@pytest.fixture
def here(folder, tmp_path, monkeypatch):
    """Be in a folder with copies."""
    shutil.copytree(folder / "bids", tmp_path / "bids")
    shutil.copytree(folder / "template", tmp_path / "archive")
    shutil.copy(folder / "dwi.ozx", tmp_path / "dwi.ozx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if ">>>" in (ROOT / "docs" / page).read_text()])
def test_the_python_of_the_guide_runs(here, page):
    if page == "field.md":
        pytest.importorskip("scipy")
    found = doctest.testfile(str(ROOT / "docs" / page), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted > 2 and found.failed == 0


@pytest.mark.parametrize("page", [page for page in PAGES if "```console" in (ROOT / "docs" / page).read_text()])
def test_the_commands_of_the_guide_run(here, page):
    if page == "field.md":
        pytest.importorskip("scipy")
    from typer.testing import CliRunner

    from inrstore.cli.app import app

    if page == "archives.md":  # which makes its own
        shutil.rmtree(here / "archive")
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / "docs" / page).read_text(), flags=re.S)
    for line in "".join(blocks).splitlines():
        assert line.startswith("$ inrstore "), line
        result = CliRunner().invoke(app, shlex.split(line)[2:])
        assert result.exit_code == 0, (line, result.output)


def test_the_rules_of_the_guide_are_rules(tmp_path):
    from inrstore.archive.rules import read_rules
    from inrstore.store.options import Options
    from inrstore.store.quality import Quality

    (text,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/quality.md").read_text(), flags=re.S)
    (tmp_path / "rules.toml").write_text(text)
    rules = read_rules(str(tmp_path / "rules.toml"), Options(quality=Quality(psnr=40.0)), asked=False)
    assert [rule.name for rule in rules.rules] == ["dwi", "T1w", "*/func/*"]


@pytest.mark.parametrize("page", [*PAGES, "../README.md"])
def test_links_and_options_are_there(page):
    import subprocess
    import sys

    path = ROOT / "docs" / page
    text = path.read_text()
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert "://" in link or (path.parent / link).exists(), link
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text))
    if named:
        code = "from inrstore.cli.app import app; import typer; c = typer.main.get_command(app);" \
               "print(*(o for k in c.commands.values() for p in k.params for o in p.opts))"  # fmt: skip
        there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        assert named <= {*there, "--version", "--help"}, named - set(there)
