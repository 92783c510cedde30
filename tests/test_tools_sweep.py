"""Bytes and quality of the transform follow the quality asked for, without jumps, and the tool that looks says so."""

from __future__ import annotations

import json
from importlib.util import find_spec

import numpy as np
import pytest
from common import ROOT
from test_fit_transform import scan

from inrstore.chunk.transform.steps import Steps
from inrstore.options import EncodeOptions
from inrstore.store.quality import Quality
from tools import bench_rate_ours, sweep
from tools.bench_rate_data import Volume, load

needs_scans = pytest.mark.skipif(
    find_spec("nibabel") is None or not (ROOT.parent / "shared" / "data" / "sub-s03").is_dir(),
    reason="the real scans are not here",
)


def swept(image: np.ndarray, asked: list[float]) -> list[sweep.Row]:
    """Return what the tool would measure."""
    volume, options = Volume("s99", np.ascontiguousarray(image), "some"), EncodeOptions(mode="transform", preset="fast")
    return [{"asked": psnr} | bench_rate_ours.measure(volume, Quality(psnr=psnr), options) for psnr in asked]


def row(asked: float, size: float, over: float = 0.01) -> sweep.Row:
    return {"asked": asked, "bytes": round(size), "psnr": asked + over}


# ---- the encoder -------------------------------------------------------------------------------------------


def test_bytes_of_measurements_follow_the_target():
    rows = swept(scan((8, 12, 40, 40)), [38.0, 40.0, 42.0, 44.0])
    assert all(row["mode"] == "transform" for row in rows)
    assert sweep.jumps(rows) == []


def test_what_needs_few_bytes_gets_few():
    rows = swept(scan((8, 12, 40, 40)), [31.5, 33.5])
    assert [row["mode"] for row in rows] == ["transform"] * 2
    assert rows[0]["bytes"] < 600 and rows[1]["bytes"] < 1600


def test_bytes_of_one_volume_follow_the_target():
    rows = swept(scan((24, 64, 64)), [41.0, 42.0, 43.0])
    assert sweep.jumps(rows) == []


@needs_scans
@pytest.mark.parametrize(
    "name, cut, asked",
    [
        ("s03", np.s_[:, 6:14], [27.0, 36.5, 39.0, 41.0]),
        ("s10", np.s_[40:56, 64:192, 64:192], [27.0, 28.0]),
    ],
)
def test_bytes_of_a_part_of_a_scan_follow_the_target(name, cut, asked):
    assert sweep.jumps(swept(load(name, None, 0).image[cut], asked)) == []


# ---- the search --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slope, expected", [(0.3, 0.6), (0.8, 0.8), (2.0, 0.7)])
@pytest.mark.parametrize("start", [0.2, 3.0, 40.0])
def test_the_step_is_found_whatever_the_slope(slope, expected, start):
    steps, step, errors = Steps(), start, []
    for _ in range(12):
        errors.append((step / 4.0) ** slope)
        steps.watch(step, errors[-1])
        steps.add(step, errors[-1])
        step = steps.following(step, errors[-1], expected, 0.9995)
    assert 0.998 < max(error for error in errors if error <= 1)


def test_an_error_that_jumps_ends_the_search():
    steps, step = Steps(), 3.0
    for _ in range(40):
        error = 0.97 if step < 3.3 else 1.01
        steps.add(step, error)
        if steps.narrow:
            break
        step = steps.following(step, error, 0.8, 0.9995)
    assert steps.narrow and abs(step / 3.3 - 1) < 1e-3


# ---- the tool ----------------------------------------------------------------------------------------------


def test_a_smooth_sweep_has_no_jumps():
    rows = [row(26 + 0.2 * i, 2000 * 1.1**i) for i in range(40)]
    assert sweep.jumps(rows) == [] and sweep.jumps(rows[::-1]) == []


@pytest.mark.parametrize("size, found", [(1.4, 2), (1.03, 0), (0.85, 2), (0.96, 0)])
def test_a_size_that_does_not_belong_is_found(size, found):
    rows = [row(26 + 0.2 * i, 2000 * 1.05**i) for i in range(40)]
    rows[20] |= {"bytes": round(rows[20]["bytes"] * size)}
    assert len(sweep.jumps(rows)) == found


def test_more_quality_than_asked_for_is_found():
    rows = [row(26 + 0.2 * i, 2000 * 1.05**i, 0.2 if i == 7 else 0.04) for i in range(20)]
    assert len(sweep.jumps(rows)) == 1
    assert sweep.jumps([row(26, 300, 0.2), row(26.2, 420, 0.2)]) == []  # a header, nearly


@needs_scans
def test_the_tool_writes_what_it_measured(tmp_path, capsys):
    words = ["--scans", "s06", "--first", "34", "--last", "35", "--step", "1", "--results", str(tmp_path)]
    assert sweep.main(words) == 0
    found = json.loads((tmp_path / "sweep.json").read_text())
    assert [r["asked"] for r in found["rows"]] == [34.0, 35.0] and found["jumps"] == {"s06 transform fast": []}
    assert (tmp_path / "sweep.png").stat().st_size > 5000
    assert len((tmp_path / "sweep.csv").read_text().splitlines()) == 3
    assert "0 jumps" in capsys.readouterr().out
    assert sweep.main(["--only-report", "--results", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "sweep.json").read_text()) == found
