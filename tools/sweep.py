"""Bytes and quality against the quality asked for, in small steps: neither may jump.

    python -m tools.sweep                                          # four scans, 26 to 46 dB, about 20 minutes
    python -m tools.sweep --scans s03 --preset balanced --step 1   # added to what is known
    python -m tools.sweep --only-report                            # jumps and picture of what is known

A scan is coded as one chunk (of s10 the 64 central slices) for each PSNR, and measured on what `decode_chunk` gives.
A jump is one of three things:

- the bytes of a step are more than what the slope explains: the logarithm of the ratio to the bytes before is above
  `STEEPER` times the median of the steps within `AROUND` dB, and `MORE` beside;
- they are less than those before by more than `LESS`;
- the PSNR is more than `OVER` dB above the one asked for.

The bytes of a 0.2 dB step grow by 2 to 19 % on these scans, most where little is coded yet, so no one number would do
for all; two steps side by side differ by up to 3 %. Sizes up to `HEAD` bytes are mostly a header, where one more
coefficient is a jump, and are not looked at.

Results: tools/results/sweep.json (jumps on top), sweep.csv and sweep.png. A run replaces the scans, modes and presets
that it measures.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
import os
import statistics
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
SCANS = ("s01", "s03", "s10", "s12")
SLABS = {"s10": 64 * 256 * 256}
"""Values of the central slices of scans that are not coded whole."""
STEEPER, MORE, AROUND = 1.5, 0.03, 1.0
LESS = 0.01
OVER = 0.05
HEAD = 500

Row = dict[str, Any]


def jumps(rows: list[Row]) -> list[str]:
    """Return what jumps in one sweep, for people; the rows of a scan in any order.

    Parameters
    ----------
    rows : list of dict
        With `asked` and `psnr` in dB, and `bytes`.
    """
    rows = sorted(rows, key=lambda row: row["asked"])
    found = [f"{row['asked']:g} dB: {row['psnr']:.3f} dB" for row in rows
             if row["bytes"] > HEAD and row["psnr"] > row["asked"] + OVER]  # fmt: skip
    pairs = list(itertools.pairwise(rows))
    slopes = [math.log(b["bytes"] / a["bytes"]) / (b["asked"] - a["asked"]) for a, b in pairs]
    for (a, b), slope in zip(pairs, slopes, strict=True):
        if b["bytes"] <= HEAD:
            continue
        near = [s for (c, _), s in zip(pairs, slopes, strict=True) if abs(c["asked"] - a["asked"]) <= AROUND + 1e-9]
        width = b["asked"] - a["asked"]
        most = math.exp(STEEPER * max(statistics.median(near), 0) * width + MORE)
        ratio = math.exp(slope * width)
        if ratio > most:
            found.append(f"{a['asked']:g} to {b['asked']:g} dB: {a['bytes']:,} to {b['bytes']:,} bytes, "
                         f"{ratio:.3f} times where the slope explains {most:.3f}")  # fmt: skip
        elif ratio < 1 - LESS:
            found.append(f"{a['asked']:g} to {b['asked']:g} dB: {a['bytes']:,} to {b['bytes']:,} bytes")
    return found


def measure(name: str, psnr: float, mode: Any, preset: Any, *, whole: bool = False) -> Row:
    """Return bytes, quality and times of a scan, or of its slab, coded as one chunk."""
    from inrstore.options import EncodeOptions
    from inrstore.store.quality import Quality
    from tools import bench_rate_ours
    from tools.bench_rate_data import load

    volume = load(name, None, 0 if whole else SLABS.get(name, 0))
    options = EncodeOptions(mode=mode, preset=preset, device="cpu", threads=1)
    found = bench_rate_ours.measure(volume, Quality(psnr=psnr), options)
    chosen = ("bytes", "psnr", "mode", "encode_s")
    named = {"sweep": f"{name} {mode} {preset}", "cut": volume.cut, "asked": psnr}
    return named | {key: found[key] for key in chosen}


def by_sweep(rows: list[Row]) -> dict[str, list[Row]]:
    """Return the rows of each scan, mode and preset."""
    return {name: [row for row in rows if row["sweep"] == name] for name in sorted({row["sweep"] for row in rows})}


def report(rows: list[Row]) -> dict[str, list[str]]:
    """Return the jumps of each sweep."""
    return {name: jumps(mine) for name, mine in by_sweep(rows).items()}


def write_csv(path: Path, rows: list[Row]) -> None:
    """Write every row."""
    with path.open("w", newline="") as file:
        out = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        out.writeheader()
        out.writerows(rows)


def draw(path: Path, rows: list[Row]) -> None:
    """Draw bytes, and PSNR above the one asked for, against the PSNR asked for."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for name, mine in by_sweep(rows).items():
        asked = [row["asked"] for row in mine]
        left.plot(asked, [row["bytes"] for row in mine], label=name)
        right.plot(asked, [row["psnr"] - row["asked"] for row in mine], label=name)
    left.set_yscale("log")
    left.set_ylabel("bytes")
    right.set_yscale("symlog", linthresh=OVER)
    right.axhline(OVER, color="black", linewidth=0.6)
    right.set_ylabel("dB above the PSNR asked for")
    for panel in (left, right):
        panel.set_xlabel("PSNR asked for, dB")
        panel.grid(True, linewidth=0.3)
    left.legend(fontsize=8, frameon=False)
    figure.savefig(path, metadata={"Software": None})


def main(words: list[str] | None = None) -> int:
    """Measure, write, print; return 1 where something jumps."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from tools.bench_rate_data import read_rows, write_rows
    from tools.environment import describe

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--scans", default=",".join(SCANS), help="s01,s02,...")
    parser.add_argument("--mode", default="transform", help="auto, transform, av1 or network")
    parser.add_argument("--preset", default="fast", help="fast, balanced or small")
    parser.add_argument("--first", type=float, default=26.0, help="dB")
    parser.add_argument("--last", type=float, default=46.0, help="dB")
    parser.add_argument("--step", type=float, default=0.2, help="dB")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result files")
    parser.add_argument("--only-report", action="store_true", help="no measurements")
    arguments = parser.parse_args(words)
    path = arguments.results / "sweep.json"
    asked = [round(arguments.first + i * arguments.step, 3)
             for i in range(1 + round((arguments.last - arguments.first) / arguments.step))]  # fmt: skip
    rows = read_rows(path)
    top: Row = {"environment": describe("nibabel")}
    if arguments.only_report:
        top = {"environment": json.loads(path.read_text())["environment"]}
    arguments.results.mkdir(parents=True, exist_ok=True)
    for name in [] if arguments.only_report else arguments.scans.split(","):
        rows = [row for row in rows if row["sweep"] != f"{name} {arguments.mode} {arguments.preset}"]
        for psnr in asked:
            rows.append(measure(name, psnr, arguments.mode, arguments.preset))
            r = rows[-1]
            print(f"{name} {psnr:5.1f} dB {r['bytes']:>9,} B  {r['psnr']:.3f} dB  {r['encode_s']:.2f} s", flush=True)
        rows.sort(key=lambda row: (row["sweep"], row["asked"]))
        write_rows(path, {**top, "jumps": report(rows)}, rows)
    write_rows(path, {**top, "jumps": report(rows)}, rows)
    write_csv(path.with_suffix(".csv"), rows)
    draw(path.with_suffix(".png"), rows)
    found = report(rows)
    for name, lines in found.items():
        print(f"{name}: {len(lines)} jumps", *lines, sep="\n  ")
    return 1 if any(found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
