"""The README is true: its code runs, its figures are those of the committed results. The guide: test_docs."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
from common import ROOT, needs_torch

README = (ROOT / "README.md").read_text()


@needs_torch
def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    pytest.importorskip("xarray")
    nib = pytest.importorskip("nibabel")
    image = np.zeros((70, 72, 24, 4), np.int16)
    image[20:50, 30:66, 5:22] = 300 * np.arange(1, 5)  # so simple that nothing has to be fitted
    nib.save(nib.Nifti1Image(image, np.diag([2, 2, 2, 1])), tmp_path / "dwi.nii.gz")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    assert len(blocks) == 2
    names = {"a": np.zeros((33, 14, 128, 128), np.int16)}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert (tmp_path / "back.nii.gz").exists() and (tmp_path / "a.zarr").exists()


def test_the_tables_of_the_readme_are_those_of_the_committed_results():
    done = subprocess.run([sys.executable, "-m", "tools.readme_tables", "--check"], cwd=ROOT)
    assert done.returncode == 0, "run python -m tools.readme_tables"


@pytest.mark.slow
@pytest.mark.fit
@needs_torch
def test_the_demonstration_runs_and_draws_its_picture(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    from tools import demo

    demo.main(tmp_path / "out")
    assert (tmp_path / "out/example4d.png").stat().st_size > 20_000
    assert "PSNR" in capsys.readouterr().out
