"""The tables of the papers: published figures are consistent where the papers are, a run that was stopped goes on."""

from __future__ import annotations

import json

import pytest
from common import ROOT, needs_torch

from tools import paper_tables
from tools.environment import DATA
from tools.paper_mancini_report import mancini
from tools.paper_rows import Results
from tools.paper_tables import beside
from tools.paper_tables_report import TABLES, _our_rows, machine

PUBLISHED = json.loads((ROOT / "tools/published.json").read_text())


def test_published_rows_are_whole_and_consistent_with_their_parameters():
    for name, found in PUBLISHED.items():
        assert all(len(row) == len(found["columns"]) for row in found["rows"]), name
    rows = PUBLISHED["seed3_tables4to6"]["rows"]
    assert len(rows) == 99 and len({tuple(row[:3]) for row in rows}) == 99
    siren = {(layers, n): p for layers, n, *_, p in PUBLISHED["seed3_table3"]["rows"]}
    for (layers, n), parameters in siren.items():
        assert parameters == 4 * n + (layers - 1) * n * (n + 1) + n + 1, (layers, n)
    for scale, channels, neurons, _, _, parameters in rows:  # the second network has the same size for any neurons
        assert parameters - siren[3, neurons] == rows_of(rows, scale, channels) - siren[3, 30]


def rows_of(rows, scale, channels) -> int:
    return next(p for d, c, n, *_, p in rows if (d, c, n) == (scale, channels, 30))


def test_a_row_that_is_there_is_not_measured_again(tmp_path):
    path, asked = tmp_path / "r.json", []

    def measure():
        asked.append(1)
        return {"bytes": 7}

    settings = {"scan": "s01", "cut": ((0, 3), (1, 2))}
    first = Results(path).row("fig2b", settings, measure)
    again = Results(path).row("fig2b", settings, measure)
    assert first == again and len(asked) == 1 and first["bytes"] == 7
    assert Results(path).row("fig2b", {**settings, "scan": "s02"}, measure) and len(asked) == 2
    with pytest.raises(ZeroDivisionError):
        Results(path).row("fig2b", {"scan": "s03"}, lambda: {"bytes": 1 // 0})
    document = json.loads(path.read_text())
    assert len(document["fig2b"]["rows"]) == 2 and document["fig2b"]["environment"]["versions"]["numpy"]


def test_the_default_is_looked_up_between_its_points_and_never_beyond():
    curve = [(30.0, 100), (40.0, 400)]
    assert beside(curve, 35.0, 200) == {"default_bytes_at_psnr": 200, "default_psnr_at_bytes": 35.0}
    assert beside(curve, 45.0, 50) == {"default_bytes_at_psnr": None, "default_psnr_at_bytes": None}
    assert beside(curve, None, 400) == {"default_bytes_at_psnr": None, "default_psnr_at_bytes": 40.0}


def test_every_table_can_be_drawn_without_and_with_rows(monkeypatch, tmp_path):
    def row(name, **network):
        return {"settings": {"scan": "s09", "cut": [[0, 8]] * 3, "device": "cpu", "seed": 0,
                             "network": {"name": name, "layers": 3, "units": 30, "steps": 9, **network}},
                "bytes": 100, "psnr": 30.0 + network.get("downsample", 0), "ssim": 0.9, "ratio": 9.0, "values": 512,
                "parameters": 77, "encode_seconds": 1.0, "decode_seconds": 0.1, "default_bytes_at_psnr": 50,
                "default_psnr_at_bytes": None}  # fmt: skip

    place = tmp_path / "tools/results"
    place.mkdir(parents=True)
    (place / "seed.md").write_text("| x |\n")
    monkeypatch.setattr("tools.paper_tables_report.ROOT", tmp_path)
    assert all("Not measured yet" in TABLES[name]() for name in TABLES)
    environment = {"processor": "a", "python": "3", "versions": {"numpy": "1", "torch": "2"}}
    rows = [row("fourier-siren-srno", downsample=d, channels=4) for d in (2, 4)]
    whole = {"slices": [0, 4], "coder": "default"}
    lossless = [{"settings": {"scan": scan, **whole}, "bits_per_voxel": 4.0} for scan in ("a", "b")]
    trained = {"slices": [0, 4], "coder": "cube", "trained_on": "a", "device": "cpu", "seed": 0}
    lossless += [
        {"settings": {"scan": scan, **trained}, "bits_with_network": bits} for scan, bits in (("a", 3.0), ("b", 5.0))
    ]
    document = {name: {"environment": environment, "rows": rows} for name in ("fig2b", "seed2", "siren", "grid")}
    document["lossless"] = {"environment": environment, "rows": lossless}
    (place / "paper_tables.json").write_text(json.dumps(document))
    drawn = {name: TABLES[name]() for name in TABLES}
    assert not any("Not measured yet" in text for text in drawn.values())
    assert "NC 4, DS 1/2, SN 30" in drawn["paper-grid"] and "33.885 dB" in drawn["paper-grid"]
    assert "-25.0 to -25.0 %" in drawn["paper-lossless"] and "+25.0 to +25.0 %" in drawn["paper-lossless"]
    assert "2.00 times as many" in drawn["paper-siren"] and "9 steps a fit" in machine(environment, rows)
    assert [r.parameters for r in _our_rows(rows, "s09")] == [77, 77]


def test_the_tables_of_mancini_judge_each_tissue(monkeypatch):
    """The default below MP-PCA in one tissue and above it in another is said so, with figures."""

    def row(what, size, fa, **more):
        figures = {
            f"FA | {tissue} | mean absolute error": value for tissue, value in zip(("WM", "GM"), fa, strict=True)
        }
        figures |= {"FA | WM | relative error, mean": -1.5, "FA | WM | relative error, std": 1234.0}
        settings = {"scan": "s02", "cut": [[0, 8]] * 3, "what": what, "size": size, **more}
        return {"settings": settings, "figures": figures, "mse_unit": 1e-4, "bytes": 100, "raw_bytes": 900}

    network = {"network": {"name": "siren2d", "units": 71, "steps": 9}, "device": "cpu", "seed": 0}
    rows = [row("MP-PCA", "", (0.2, 0.1)), row("siren2d", "siren", (0.5, 0.5), **network),
            row("default", "siren", (0.3, 0.3)), row("default", "9", (0.1, 0.15)), row("JPEG 2000", "9", (0.4, 0.45)),
            row("JPEG 2000", "siren", (0.6, 0.9))]  # fmt: skip
    environment = {"processor": "a", "python": "3", "versions": {"numpy": "1", "torch": "2"}}
    monkeypatch.setattr("tools.paper_mancini_report.results", lambda name: (rows, environment))
    text = mancini()
    assert "| s02 | FA | WM | 0.3 <= 0.5 | 0.1 <= 0.2 | 0.1 <= 0.5 | 2.0 | 4.0 |" in text
    assert "| s02 | FA | GM | 0.3 <= 0.5 | 0.15 **>** 0.1 |" in text and "-1.5 ± 1,234" in text
    assert "no further off than it in 2 of 2 rows" in text and "no further than MP-PCA in 1 of 2" in text
    monkeypatch.setattr("tools.paper_mancini_report.results", lambda name: ([], {}))
    assert "Not measured yet" in mancini()


@needs_torch
@pytest.mark.real
@pytest.mark.fit
def test_a_table_is_measured_on_a_cut_of_a_scan(tmp_path, monkeypatch):
    if not DATA.is_dir():
        pytest.skip("needs the scans")
    monkeypatch.setattr(paper_tables, "CUBES", {"s09": ((100, 108), (100, 108), (70, 78))})
    monkeypatch.setattr(paper_tables, "CURVE", (20, 30))
    arguments = ["siren", "--out", str(tmp_path / "r.json"), "--steps", "20", "--neurons", "4"]
    paper_tables.main(arguments)
    written = (tmp_path / "r.json").read_text()
    rows = json.loads(written)["siren"]["rows"]
    assert [row["settings"]["network"]["layers"] for row in rows] == [3, 4, 5, 6]
    assert all(row["modes"] == {"siren": 1} and row["values"] == 512 for row in rows)
    paper_tables.main(arguments)
    assert (tmp_path / "r.json").read_text() == written
