"""Bytes against PSNR, 26 to 46 dB, on a dMRI, a T1 and a CT scan: ours by default and without networks, and peers.

    python -m tools.curves                 # measures ours, about 15 minutes, and draws
    python -m tools.curves --only-report   # draws what is known

Ours are whole scans as one chunk in modes `auto` and `transform`, preset balanced, in steps of 2 dB (`--step`). Peers
are those of tools/results/rate_peers.json, where each was measured at three or four PSNRs; networks alone are those of
tools/results/networks-cuda.json. Results: tools/results/curves.json and curves.png.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
SCANS = {"s01": "dMRI s01", "s07": "T1 s07", "s10": "CT s10"}
ALONE = "network alone (SIREN)"
PEERS = ("PCA+SPERR", "PCA+SVT-AV1", "SVT-AV1", "x265", "SPERR", "JPEG XL", ALONE)
FIRST, LAST = 26.0, 46.0

Row = dict[str, Any]


def known(name: str) -> dict[str, list[tuple[float, int]]]:
    """Return PSNR and bytes of peers on a scan, by codec."""
    found: dict[str, list[tuple[float, int]]] = {}
    for row in json.loads((RESULTS / "rate_peers.json").read_text())["rows"]:
        if row["volume"] == name and row["kind"] == "psnr" and row["codec"] in PEERS and row["bytes"]:
            found.setdefault(row["codec"], []).append((row["psnr"], row["bytes"]))
    for row in json.loads((RESULTS / "networks-cuda.json").read_text())["rows"]:
        if row["scan"] == name:
            found.setdefault(ALONE, []).append((row["psnr"], row["network_bytes"]))
    return {codec: sorted(points) for codec, points in found.items()}


def draw(path: Path, rows: list[Row]) -> None:
    """Draw a panel for each scan."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for panel, (name, title) in zip(figure.subplots(1, len(SCANS)), SCANS.items(), strict=True):
        for codec, points in known(name).items():
            style = "o" if len(points) == 1 else "o--"
            colour = f"C{2 + PEERS.index(codec)}"
            panel.plot(*zip(*points, strict=True), style, color=colour, markersize=3, linewidth=1, label=codec)
        for mode, colour, label in (("transform", "C0", "ours, no networks, no AV1"), ("auto", "black", "ours")):
            mine = sorted((r["psnr"], r["bytes"]) for r in rows if r["scan"] == name and r["mode_asked"] == mode)
            if mine:
                panel.plot(*zip(*mine, strict=True), "-", color=colour, linewidth=1.6, label=label)
        panel.set(yscale="log", xlabel="PSNR, dB", title=title, xlim=(FIRST - 1, LAST + 1))
        panel.grid(True, linewidth=0.3)
        panel.legend(fontsize=7, frameon=False)
    figure.axes[0].set_ylabel("bytes")
    figure.savefig(path, metadata={"Software": None})


def main(words: list[str] | None = None) -> int:
    """Measure, write, draw."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from tools.bench_rate_data import read_rows, write_rows
    from tools.environment import describe
    from tools.sweep import measure

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--scans", default=",".join(SCANS), help="s01,s07,s10")
    parser.add_argument("--step", type=float, default=2.0, help="dB")
    parser.add_argument("--only-report", action="store_true", help="no measurements")
    arguments = parser.parse_args(words)
    path = RESULTS / "curves.json"
    rows = read_rows(path)
    asked = [FIRST + i * arguments.step for i in range(1 + round((LAST - FIRST) / arguments.step))]
    for name in [] if arguments.only_report else arguments.scans.split(","):
        rows = [row for row in rows if row["scan"] != name]
        for mode in ("auto", "transform"):
            for psnr in asked:
                row = measure(name, psnr, mode, "balanced", whole=True)
                rows.append({**row, "scan": name, "mode_asked": mode})
                print(f"{name} {mode:<9} {psnr:.0f} dB {row['bytes']:>9,} B  {row['encode_s']:.1f} s", flush=True)
        write_rows(path, {"environment": describe("nibabel", "av")}, rows)
    draw(RESULTS / "curves.png", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
