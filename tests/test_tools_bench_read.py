"""Measurements of reading have a key each in one result file, and leave the others alone."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("dask")
pytest.importorskip("nibabel")
pytest.importorskip("torch")

from tools import bench_access, bench_read


def test_a_measurement_keeps_what_others_wrote(tmp_path, monkeypatch, capsys):
    committed = json.loads((bench_read.RESULTS / "read.json").read_text())
    committed = {key: value for key, value in committed.items() if key not in bench_access.MEASURES}
    monkeypatch.setattr(bench_read, "RESULTS", tmp_path)
    bench_read.write_rows(tmp_path / "read.json", {k: v for k, v in committed.items() if k != "rows"},
                          committed["rows"])  # fmt: skip
    for name in bench_access.MEASURES:
        monkeypatch.setitem(bench_access.MEASURES, name, lambda name=name: [{"of": name}])
        bench_read.other(name, dry=True)
        assert name not in bench_read.kept()
        bench_read.other(name, dry=False)
    found = bench_read.kept()
    assert {key: found[key] for key in committed} == committed
    assert {name: found[name]["rows"] for name in bench_access.MEASURES} == {
        name: [{"of": name}] for name in bench_access.MEASURES}  # fmt: skip
    bench_read.write(committed["rows"][:1], {**found, "threads": 1})
    assert bench_read.kept()["rows"] == committed["rows"][:1] and "dask" in bench_read.kept()
    assert '{"latency": {"of": "latency"}}' in capsys.readouterr().out
