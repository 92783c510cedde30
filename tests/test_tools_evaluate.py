"""The tool behind the guide's tables of bytes against errors of science."""

from __future__ import annotations

import json

import pytest
from common import needs_torch, real_scan

from inrstore.store.defaults import TIMES
from tools import evaluate_curves, readme_tables


@pytest.mark.real
@needs_torch
def test_each_store_and_the_source_have_a_row():
    pytest.importorskip("dipy")
    real_scan("sub-s06tiny")
    wanted = [("store", 36.0), ("noise", 1.0), ("default", 0.0)]
    store, noise, default, source, kept = evaluate_curves.measure("s06", wanted, kept=True, yardsticks=False)
    assert noise["promised"]["rmse"] == pytest.approx(source["noise"]) and default["promised"] != noise["promised"]
    assert kept["candidate"] == "lossless" and noise["bytes"] < default["bytes"] < kept["bytes"]
    assert store["candidate"] == "store" and store["kind"] == source["kind"] == "dmri"
    assert store["bytes"] > 0 and store["figures"]["FA | brain | mean absolute error"] > 0
    assert source["candidate"] == "source" and source["figures"]["voxels | brain"] > 50


def test_the_table_of_the_guide_has_every_measured_store():
    rows = readme_tables.evaluate_table().splitlines()
    assert sum(line.startswith("| s02 | ") for line in rows) >= 5
    assert any(" dB | " in line for line in rows) and rows[-1].startswith("MD in µm²/ms. On ")


def test_the_default_of_each_kind_is_measured_as_it_is_now():
    rows = json.loads(evaluate_curves.RESULTS.read_text())["rows"]
    made = {row["scan"]: row for row in rows if row["candidate"] == "default"}
    assert {row["kind"] for row in made.values()} == TIMES.keys()
    assert all(row["times"] in (0.0, TIMES[row["kind"]]) for row in made.values())
