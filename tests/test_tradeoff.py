"""The trade-off point method: its mathematics on the published tables, its grid, its folder that survives a kill."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from common import ROOT, needs_torch, tree, write_nifti
from typer.testing import CliRunner

import inrstore
from inrstore.cli.app import app
from inrstore.errors import ConfigurationError, DestinationExistsError, NotHeldError, QualityError, StoreError
from inrstore.evaluate.similarity import ssim
from inrstore.evaluate.tradeoff import Cell, Row, marginals, pareto, trade_off
from inrstore.store import tradeoff
from inrstore.store.tradeoff import Plan, choose_patch

pytest.importorskip("matplotlib")
pytestmark = needs_torch


def row(downsample, channels, neurons, psnr, similarity, parameters, size=1000) -> Row:
    return Row(cell=Cell(downsample=downsample, channels=channels, neurons=neurons), psnr=psnr, psnr_patch=psnr - 1,
               ssim=similarity, parameters=parameters, voxels=64**3, bytes=size, bits_raw=16, seconds=0.0)  # fmt: skip


PUBLISHED = json.loads((ROOT / "tools/published.json").read_text())
ROWS = [row(*values) for values in PUBLISHED["seed3_tables4to6"]["rows"]]


# ---- mathematics -------------------------------------------------------------------------------------------


def test_rates_are_those_of_the_published_table():
    first = next(r for r in ROWS if (r.cell.downsample, r.cell.channels, r.cell.neurons) == (2, 4, 30))
    assert round(100 * first.compression_rate, 3) == 97.578 and round(first.bit_rate, 3) == 0.775
    last = next(r for r in ROWS if (r.cell.downsample, r.cell.channels, r.cell.neurons) == (8, 16, 230))
    assert round(100 * last.compression_rate, 3) == -39.377 and round(last.bit_rate, 3) == 44.601


def test_the_published_tables_give_the_published_point():
    assert trade_off(ROWS).cell == Cell(downsample=2, channels=4, neurons=30)


@pytest.mark.parametrize(("beta", "neurons"), [(0, 70), (0.95, 70), (0.98, 50), (3.6, 50), (3.7, 30), (1e9, 30)])
def test_the_penalty_alone_makes_it_the_point(beta, neurons):
    assert trade_off(ROWS, beta=beta).cell == Cell(downsample=2, channels=4, neurons=neurons)


def test_marginals_are_those_of_the_published_table_with_two_columns_exchanged():
    found = {(m.axis, m.value): (m.inverse_psnr, m.dissimilarity, m.rest) for m in marginals(ROWS)}
    published = {(axis, value): numbers for axis, value, *numbers in PUBLISHED["seed3_table7"]["rows"]}
    exchanged = {
        ("channels", 4): ("downsample", 2),
        ("downsample", 2): ("channels", 4),
        ("neurons", 30): ("neurons", 30),
    }
    for place, other in exchanged.items():
        assert found[place] == pytest.approx(published[other], abs=6e-5)


def test_multipliers_move_the_point():
    assert trade_off(ROWS, alpha=(0, 0, 0.5), beta=0).cell.neurons > 70


def test_an_axis_of_one_value_has_no_constraint():
    one = [row(1, 0, n, 30 + n / 100, 0.9, 1000 * n) for n in (4, 8)]
    assert trade_off(one).cell.neurons == 4
    assert trade_off(one[1:]).cell.neurons == 8


def test_cells_that_are_exact_or_without_signal_have_a_cost():
    exact, noise = row(2, 4, 30, math.inf, 1.0, 0), row(2, 4, 50, -3.0, 0.1, 0)
    assert exact.cost == 0 and noise.cost == math.inf
    assert trade_off([noise, exact]).cell.neurons == 30
    assert marginals([noise, exact])[0].inverse_psnr == math.inf


def test_the_front_holds_what_nothing_beats():
    rows = [row(2, 4, 30, 30, 1, 100, 50), row(2, 4, 50, 29, 1, 200, 40), row(2, 4, 70, 35, 1, 300, 60),
            row(2, 4, 90, 35, 1, 300, 30)]  # fmt: skip
    assert [r.cell.neurons for r in pareto(rows)] == [30, 70]
    assert [r.cell.neurons for r in pareto(rows, stored=True)] == [90]


def test_similarity_is_that_of_scikit_image():
    rng = np.random.default_rng(0)
    a = np.cumsum(rng.normal(size=(20, 18, 16)), axis=0) * 10 + 500
    b = a + rng.normal(size=a.shape) * 5
    # skimage.metrics.structural_similarity of scikit-image 0.26.0, data_range the range of the first
    assert ssim(a, b) == pytest.approx(0.9853614548427918, abs=1e-11)
    assert ssim(a[0], b[0]) == pytest.approx(0.8701921957754764, abs=1e-11)
    assert ssim(a, a) == 1.0
    assert ssim(a, b, 2 * np.ptp(a)) > ssim(a, b)
    for wrong in ((a, b[1:]), (a[:6], b[:6])):
        with pytest.raises(ValueError, match="shape"):
            ssim(*wrong)


# ---- patches and plans -------------------------------------------------------------------------------------


def test_the_patch_has_the_most_voxels_that_are_not_0():
    volume = np.zeros((12, 14, 16), np.int16)
    volume[3:9, 5:11, 8:14] = 1
    assert choose_patch(volume, 6) == (3, 5, 8)
    assert choose_patch(np.ones((9, 9, 11), np.int16), 7) == (1, 1, 2)  # of equals the middle one
    rng = np.random.default_rng(1)
    noise = (rng.random((9, 8, 10)) < 0.2).astype(np.uint8)
    z, y, x = choose_patch(noise, 4)
    counts = [noise[a : a + 4, b : b + 4, c : c + 4].sum() for a in range(6) for b in range(5) for c in range(7)]
    assert noise[z : z + 4, y : y + 4, x : x + 4].sum() == max(counts)


def test_the_usual_grid_is_the_published_one():
    cells = list(Plan().cells())
    assert len(cells) == 99 and {c.downsample for c in cells} == {2, 4, 8} and {c.channels for c in cells} == {4, 8, 16}
    assert sorted({c.neurons for c in cells}) == list(range(30, 231, 20))
    assert {Plan().network_of(c).layers for c in cells} == {3}
    assert set(cells) == {r.cell for r in ROWS}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"network": "mlp"}, "network must be one of"),
        ({"network": "siren3d", "channels": 4}, "no second one"),
        ({"downsample": "3"}, "3"),
        ({"neurons": "30,30"}, "neurons"),
        ({"neurons": "many"}, "neurons"),
        ({"neurons": "-5"}, "neurons"),
        ({"size": 6}, "size"),
        ({"size": 20, "downsample": 8}, "multiple"),
        ({"patch": "1,2"}, "patch"),
        ({"steps": 0}, "steps"),
        ({"beta": -1.0}, "beta"),
    ],
)
def test_a_grid_that_cannot_be_is_refused_before_the_image_is_read(tmp_path, options, says):
    with pytest.raises(ConfigurationError, match=says):
        inrstore.tradeoff(tmp_path / "none.nii", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


# ---- the folder --------------------------------------------------------------------------------------------


def fake(cell, plan, patch, span, step):
    """Measure nothing, but give every cell other numbers."""
    return row(cell.downsample, cell.channels, cell.neurons, 30 + cell.neurons / 10, 0.9, 100 * cell.neurons,
               size=40 * cell.neurons + cell.channels)  # fmt: skip


@pytest.fixture
def image(tmp_path):
    rng = np.random.default_rng(3)
    return write_nifti(tmp_path / "a.nii.gz", rng.integers(0, 900, (12, 11, 10)).astype(np.int16))


OPTIONS = {"size": 8, "downsample": (2, 4), "channels": 4, "neurons": (8, 16), "threads": 1}


def test_a_run_ends_in_table_drawings_and_summary(tmp_path, image, monkeypatch):
    monkeypatch.setattr(tradeoff, "measure", fake)
    report = inrstore.tradeoff(image, tmp_path / "out", **OPTIONS)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "cells.csv", "cells.journal", "channels.svg", "downsample.svg", "lock", "neurons.svg", "summary.md",
    ]  # fmt: skip
    with (tmp_path / "out/cells.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 4 and float(table[0]["bit_rate"]) == pytest.approx(32 * 800 / 64**3)
    assert float(table[0]["stored_bit_rate"]) == pytest.approx(8 * 324 / 64**3)
    assert report.point == {"downsample": 2, "channels": 4, "neurons": 8} and report.resumed == 0
    text = (tmp_path / "out/summary.md").read_text()
    assert "1/2, 4 channels, 8 neurons" in text and "neurons.svg" in text
    assert (tmp_path / "out/neurons.svg").read_bytes().startswith(b"<?xml")
    json.dumps(report.to_dict(), allow_nan=False)


def test_a_second_run_measures_nothing_and_a_larger_grid_only_what_is_new(tmp_path, image, monkeypatch):
    monkeypatch.setattr(tradeoff, "measure", fake)
    first = inrstore.tradeoff(image, tmp_path / "out", **OPTIONS)
    asked = []
    monkeypatch.setattr(tradeoff, "measure", lambda cell, *rest: asked.append(cell) or fake(cell, *rest))
    again = inrstore.tradeoff(image, tmp_path / "out", **OPTIONS)
    assert asked == [] and again.resumed == 4 and again.rows == first.rows
    more = inrstore.tradeoff(image, tmp_path / "out", **{**OPTIONS, "neurons": (16, 24)})
    assert {cell.neurons for cell in asked} == {24} and more.resumed == 2 and len(more.rows) == 4


@pytest.mark.parametrize(
    ("change", "says"),
    [({"steps": 7}, "steps"), ({"seed": 1}, "seed"), ({"layers": 2}, "layers"), ({"patch": "0,0,0"}, "corner|voxels"),
     ({"network": "lanczos-siren-srdensenet"}, "network")],
)  # fmt: skip
def test_another_setting_or_image_is_refused_and_nothing_is_lost(tmp_path, image, monkeypatch, change, says):
    monkeypatch.setattr(tradeoff, "measure", fake)
    inrstore.tradeoff(image, tmp_path / "out", **OPTIONS)

    def kept():
        return {name: data for name, data in tree(tmp_path / "out").items() if name != "lock"}

    before = kept()
    with pytest.raises(ConfigurationError, match=says):
        inrstore.tradeoff(image, tmp_path / "out", **{**OPTIONS, **change})
    other = write_nifti(tmp_path / "b.nii.gz", np.random.default_rng(4).integers(0, 900, (12, 11, 10)).astype(np.int16))
    with pytest.raises(ConfigurationError, match=r"voxels|span|corner"):
        inrstore.tradeoff(other, tmp_path / "out", **OPTIONS)
    assert kept() == before


def test_a_folder_of_somebody_elses_is_not_written_to(tmp_path, image):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(DestinationExistsError):
        inrstore.tradeoff(image, tmp_path / "out", **OPTIONS)
    assert tree(tmp_path) == before


def test_a_damaged_journal_is_said_and_kept(tmp_path, image, monkeypatch):
    monkeypatch.setattr(tradeoff, "measure", fake)
    inrstore.tradeoff(image, tmp_path / "out", **OPTIONS)
    path = tmp_path / "out/cells.journal"
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"psnr":', b'"psnt":', 1))
    with pytest.raises(StoreError, match="damaged"):
        inrstore.tradeoff(image, tmp_path / "out", **OPTIONS)
    path.write_bytes(data[:-9])  # torn by a crash: that cell is measured again
    assert inrstore.tradeoff(image, tmp_path / "out", **OPTIONS).resumed == 3


def test_a_failure_keeps_what_was_measured(tmp_path, image, monkeypatch):
    def some(cell, *rest):
        if cell.neurons == 16:
            raise StoreError("no more")
        return fake(cell, *rest)

    monkeypatch.setattr(tradeoff, "measure", some)
    with pytest.raises(StoreError, match="no more"):
        inrstore.tradeoff(image, tmp_path / "out", **OPTIONS)
    monkeypatch.setattr(tradeoff, "measure", fake)
    assert inrstore.tradeoff(image, tmp_path / "out", **OPTIONS).resumed == 2


@pytest.mark.parametrize(
    ("shape", "values", "options", "says"),
    [
        ((12, 11, 6), None, {}, "holds no patch"),
        ((12, 11, 10), None, {"patch": "3,0,0"}, "stands out"),
        ((12, 11, 10), 5, {}, "one value"),
        ((12, 11, 10), None, {"volume": 1}, "1 volumes"),
    ],
)
def test_a_patch_that_cannot_be_is_refused_by_name(tmp_path, shape, values, options, says):
    data = (
        np.random.default_rng(5).integers(0, 900, shape).astype(np.int16)
        if values is None
        else np.full(shape, 5, np.int16)
    )
    source = write_nifti(tmp_path / "a.nii.gz", data)
    with pytest.raises(ConfigurationError, match=rf"a\.nii\.gz: .*{says}"):
        inrstore.tradeoff(source, tmp_path / "out", **{**OPTIONS, **options})
    assert not (tmp_path / "out").exists()


def test_a_cell_that_no_network_holds_is_said_and_the_others_go_on(tmp_path, image, monkeypatch):
    def some(cell, *rest):
        if cell.neurons == 16:
            raise NotHeldError(0, "too small")
        return fake(cell, *rest)

    monkeypatch.setattr(tradeoff, "measure", some)
    report = inrstore.tradeoff(image, tmp_path / "out", **OPTIONS)
    assert len(report.rows) == 2 and set(report.failed.values()) == {"too small"} and len(report.failed) == 2
    assert "too small" in (tmp_path / "out/summary.md").read_text()
    options = ["--size", "8", "--downsample", "2,4", "--channels", "4", "--neurons", "8,16"]
    result = CliRunner().invoke(app, ["tradeoff", str(image), "-o", str(tmp_path / "out"), *options])
    assert result.exit_code == 1 and "16 neurons: too small" in result.stdout
    with pytest.raises(QualityError, match="no cell could be fitted; too small"):
        inrstore.tradeoff(image, tmp_path / "none", **{**OPTIONS, "neurons": 16})
    monkeypatch.setattr(tradeoff, "measure", fake)
    again = inrstore.tradeoff(image, tmp_path / "out", **OPTIONS)
    assert again.resumed == 2 and not again.failed and len(again.rows) == 4


SLOW = """
import sys, time
sys.path.insert(0, {tests!r})
from test_tradeoff import fake, OPTIONS
import inrstore
from inrstore.store import tradeoff
def slow(cell, *rest):
    time.sleep(0.15)
    return fake(cell, *rest)
tradeoff.measure = slow
inrstore.tradeoff({image!r}, {out!r}, **{{**OPTIONS, "neurons": range(8, 48, 4)}})
"""


def test_a_run_that_is_killed_goes_on_where_it_was(tmp_path, image, monkeypatch):
    out = tmp_path / "out"
    code = SLOW.format(tests=str(ROOT / "tests"), image=str(image), out=str(out))
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)})
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (out / "cells.journal").is_file() and (out / "cells.journal").read_bytes().count(b"\n") >= 4:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = (out / "cells.journal").read_bytes()
    asked = []
    monkeypatch.setattr(tradeoff, "measure", lambda cell, *rest: asked.append(cell) or fake(cell, *rest))
    report = inrstore.tradeoff(image, out, **{**OPTIONS, "neurons": range(8, 48, 4)})
    assert 3 <= report.resumed < 20 and len(asked) == 20 - report.resumed and len(report.rows) == 20
    whole = kept[: kept.rindex(b"\n") + 1]
    assert (out / "cells.journal").read_bytes().startswith(whole)
    assert (out / "summary.md").is_file()


def test_the_command_prints_the_table(tmp_path, image, monkeypatch):
    monkeypatch.setattr(tradeoff, "measure", fake)
    monkeypatch.chdir(tmp_path)
    options = ["--size", "8", "--downsample", "2,4", "--channels", "4", "--neurons", "8,16", "--patch", "2,2,2"]
    result = CliRunner().invoke(app, ["tradeoff", str(image), *options])
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "a.tradeoff/cells.csv").is_file()
    assert "point     downsample 2 channels 4 neurons 8" in result.stdout
    again = CliRunner().invoke(app, ["tradeoff", str(image), *options, "--json"])
    assert json.loads(again.stdout)["resumed"] == 4


@pytest.mark.fit
def test_a_cell_is_what_a_reader_decodes_from_a_chunk_of_the_network_asked_for(tmp_path):
    rng = np.random.default_rng(6)
    values = (500 + 300 * np.sin(np.arange(10) / 2)[:, None, None] + rng.normal(0, 4, (10, 11, 12))).astype(np.int16)
    source = write_nifti(tmp_path / "a.nii.gz", values)
    options = {"network": "siren3d", "size": 8, "neurons": (4, 8), "layers": 1, "steps": 60, "device": "cpu"}
    report = inrstore.tradeoff(source, tmp_path / "out", threads=2, **options)
    small, large = report.rows
    assert (small["downsample"], small["channels"]) == (1, 0)
    assert 4 * 4 + 5 - 1 <= small["parameters"] <= 4 * 4 + 5 and 8 * 4 + 9 - 1 <= large["parameters"] <= 8 * 4 + 9
    assert 50 < small["bytes"] < 8**3 * 2 > large["bytes"] > 50
    assert small["psnr"] > small["psnr_patch"] > 5 and small["bit_rate"] == 32 * small["parameters"] / 8**3
    again = inrstore.tradeoff(source, tmp_path / "more", threads=1, **options)
    assert [{**r, "seconds": 0} for r in again.rows] == [{**r, "seconds": 0} for r in report.rows]
