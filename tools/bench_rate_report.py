"""Rows of the rate-distortion benchmark -> comparison, text, CSV, picture and the README's table."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tools.bench_rate_data import DIFFUSION, SCALAR, write_rows

Row = dict[str, Any]

GROUPS = {
    "dMRI s01-s05, 32 and 36 dB": (DIFFUSION[:5], (32.0, 36.0)),
    "dMRI s01-s05, 40 and 44 dB": (DIFFUSION[:5], (40.0, 44.0)),
    "dMRI s06 (0.06 million values)": (DIFFUSION[5:], (32.0, 36.0, 40.0, 44.0)),
    "T1, FLAIR, CT, 35, 40, 45 dB": (SCALAR[:5], (35.0, 40.0, 45.0)),
    "fMRI, 35, 40, 45 dB": (SCALAR[5:], (35.0, 40.0, 45.0)),
}
KINDS = {
    **dict.fromkeys(DIFFUSION, "dMRI"),
    "s07": "T1", "s08": "FLAIR", "s09": "FLAIR", "s10": "CT", "s11": "CT", "s12": "fMRI",
}  # fmt: skip

VIDEO = {"x265", "SVT-AV1", "libaom", "PCA+SVT-AV1"}


def values(row: Row) -> int:
    """Return how many values a row codes."""
    return row.get("values") or math.prod(row["shape"])


def compare(peers: list[Row], ours: list[Row]) -> list[Row]:
    """Return a row for each cell that both sides have: the best peer's bytes over ours."""
    compared = []
    for own in ours:
        same = [
            row for row in peers
            if all(row[name] == own[name] for name in ("volume", "kind", "values_sha256"))
            and own["asked"] == row["psnr" if own["kind"] == "slice" else "asked"]
            and row["bytes"] is not None and not row.get("over")
        ]  # fmt: skip
        if not same:
            continue
        best = min(same, key=lambda row: row["bytes"])
        names = ("volume", "kind", "asked", "codec", "cut", "mode", "psnr", "bytes", "encode_s", "decode_s", "device")
        megavalues = values(best) / 1e6
        row = {name: own[name] for name in names}
        row |= {"best_peer": best["codec"], "best_peer_bytes": best["bytes"], "ratio": best["bytes"] / own["bytes"],
                "encode_mvalue_per_s": megavalues / max(own["encode_s"], 1e-9),
                "decode_mvalue_per_s": megavalues / max(own["decode_s"], 1e-9)}  # fmt: skip
        for name in ("over", "broken"):
            if name in own:
                row[name] = own[name]
        if own["kind"] == "slice":
            row["times_faster"] = best["encode_s"] / own["encode_s"]
            row["times_less_processor_time"] = best["encode_cpu_s"] / own["encode_cpu_s"]
        compared.append(row)
    return sorted(compared, key=lambda row: (row["codec"], row["kind"], row["volume"], row["asked"]))


def data(rows: list[Row]) -> dict[str, Row]:
    """Return what was coded under each name."""
    found = {
        f"{row['volume']} {row['cut']}": {"shape": "x".join(map(str, row["shape"])), "dtype": row["dtype"],
                                          "values_sha256": row["values_sha256"]}
        for row in rows
    }  # fmt: skip
    return dict(sorted(found.items()))


def head(environment: Row, rows: list[Row]) -> str:
    """Return on what the figures were measured, for people; the device of a fit is in each row."""
    versions = ", ".join(f"{name} {number}" for name, number in environment["versions"].items())
    lines = [f"{environment['cores']} cores of {environment['processor']}, Python {environment['python']}, {versions}"]
    lines.append("seed 0; SHA-256 of the values coded:")
    for name, found in data(rows).items():
        lines.append(f"  {name:7} {found['shape']:15} {found['dtype']:7} {found['values_sha256']}")
    return "\n".join(lines)


def geometric_mean(ratios: Iterable[float]) -> float:
    """Return the geometric mean."""
    logs = [math.log(ratio) for ratio in ratios]
    return math.exp(sum(logs) / len(logs))


def means(compared: list[Row]) -> list[Row]:
    """Return geometric mean and smallest ratio of each group that has a cell, for each preset."""
    found = []
    for codec in sorted({row["codec"] for row in compared}):
        of = [row for row in compared if row["codec"] == codec]
        for name, (volumes, asked) in GROUPS.items():
            cells = [r for r in of if r["kind"] == "psnr" and r["volume"] in volumes and r["asked"] in asked]
            found.append((codec, name, cells, len(volumes) * len(asked)))
        found.append((codec, "max_error, against SZ3", [r for r in of if r["kind"] == "max_error"], 0))
    return [
        {"codec": codec, "group": name, "cells": len(cells), "of": max(whole, len(cells)),
         "geometric_mean": round(geometric_mean(r["ratio"] for r in cells), 4),
         "smallest": round(min(r["ratio"] for r in cells), 4)}
        for codec, name, cells, whole in found if cells
    ]  # fmt: skip


def text(compared: list[Row]) -> str:
    """Return the comparison for people."""
    head = f"{'scan':4} {'quality':13} {'preset':18} {'best peer':10} {'its bytes':>11} {'ours':>11} {'ratio':>7}"
    lines = [f"{head}   mode, our quality, encode and decode of ours in million values a second"]
    for r in compared:
        asked = f"{r['asked']:.4g} dB" if r["kind"] != "max_error" else f"max_error {r['asked']:g}"
        psnr = "exact" if r["psnr"] is None else f"{r['psnr']:.3f} dB"
        note = f", {r['over']} voxels over" if "over" in r else ""
        note += f", BROKEN: {r['broken']}" if "broken" in r else ""
        if r["kind"] == "slice":
            less = r["times_less_processor_time"]
            note += f"; one slice ({r['times_faster']:.1f}x faster, {less:.1f}x less processor time)"
        cut = "" if r["cut"] == "all" else f", {r['cut']}"
        lines.append(
            f"{r['volume']:4} {asked:13} {r['codec']:18} {r['best_peer']:10} {r['best_peer_bytes']:>11,} "
            f"{r['bytes']:>11,} {r['ratio']:>7.3f}   {r['mode']}, {psnr}, "
            f"{r['encode_mvalue_per_s']:.2f}, {r['decode_mvalue_per_s']:.1f}{cut}{note}"
        )
    for m in means(compared):
        cells = f"{m['cells']} of {m['of']} cells"
        lines.append(f"{m['codec']}, {m['group']}: geometric mean {m['geometric_mean']:.3f}, "
                     f"smallest {m['smallest']:.3f} ({cells})")  # fmt: skip
    return "\n".join(lines)


def write(folder: Path, peers: list[Row], ours: list[Row]) -> None:
    """Write rate.json (with the means on top), rate_peers.json, rate.csv and rate.png."""
    compared = compare(peers, ours)
    for name, rows in (("rate_peers", peers), ("rate", ours)):
        path = folder / f"{name}.json"
        if rows:
            top = {"environment": json.loads(path.read_text())["environment"], "seed": 0, "data": data(rows)}
            more = {"means": means(compared), "compared": compared} if rows is ours else {}
            write_rows(path, {**top, **more}, rows)
    write_csv(folder / "rate.csv", [*peers, *ours])
    draw(folder / "rate.png", peers, ours)


def write_csv(path: Path, rows: list[Row]) -> None:
    """Write every cell of every codec."""
    names = ["volume", "cut", "kind", "asked", "codec", "bytes", "bits_per_value", "psnr", "max_error", "over",
             "encode_s", "decode_s", "how"]  # fmt: skip
    with path.open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(names)
        for row in sorted(rows, key=lambda r: (r["volume"], r["kind"], r["asked"], r["codec"])):
            bits = None if row["bytes"] is None else round(row["bytes"] * 8 / values(row), 5)
            made = {**row, "bits_per_value": bits, "how": row.get("mode") or row.get("setting")}
            out.writerow([made.get(name) for name in names])


def draw(path: Path, peers: list[Row], ours: list[Row]) -> None:
    """Draw bits per value against PSNR, a panel for each volume."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    rows = [row for row in [*peers, *ours] if row["kind"] == "psnr" and row["bytes"] and row["psnr"]]
    volumes = sorted({row["volume"] for row in rows})
    if not volumes:
        return
    columns = min(4, len(volumes))
    figure = Figure(figsize=(3.6 * columns, 3.0 * -(-len(volumes) // columns) + 0.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(-(-len(volumes) // columns), columns, squeeze=False).ravel()
    codecs = sorted({row["codec"] for row in rows}, key=lambda name: (name.startswith("inrstore"), name))
    for panel, volume in zip(panels, volumes, strict=False):
        for number, codec in enumerate(codecs):
            own = codec.startswith("inrstore")
            curve = [r for r in rows if r["volume"] == volume and r["codec"] == codec]
            points = sorted((r["psnr"], r["bytes"] * 8 / values(r)) for r in curve)
            style = {"color": "black", "linewidth": 2.2} if own else {"color": f"C{number}", "linewidth": 1.2}
            dashes = ("-", "--", ":")[number % 3] if own else "-"
            x, y = [p for p, _ in points], [b for _, b in points]
            panel.plot(x, y, marker="o", linestyle=dashes, markersize=3.5, label=codec, **style)
        panel.set_yscale("log")
        panel.set_title(f"{volume} {KINDS.get(volume, '')}", fontsize=9)
        panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda bits, _: f"{bits:g}"))
        panel.yaxis.set_minor_formatter(NullFormatter())
        panel.tick_params(which="both", labelsize=7)
        panel.grid(True, which="major", linewidth=0.3)
    for panel in panels[len(volumes) :]:
        panel.set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    for panel in panels[1:]:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            if label not in labels:
                handles.append(handle)
                labels.append(label)
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=8, frameon=False)
    figure.supxlabel("PSNR, dB (each measurement over its own range)", fontsize=9)
    figure.supylabel("bits per value", fontsize=9)
    figure.savefig(path, metadata={"Software": None})


def markdown(folder: Path, codec: str = "inrstore balanced") -> str:
    """Return the README's table from the result files: in each cell the best peer's bytes over ours.

    Twice, for the codecs of volumes and images, and for those of video; the last column names them.
    """
    rows = {name: json.loads((folder / f"{name}.json").read_text())["rows"] for name in ("rate_peers", "rate")}
    ours = [row for row in rows["rate"] if row["codec"] == codec]
    still, video = (
        compare([row for row in rows["rate_peers"] if (row["codec"] in VIDEO) == moving], ours)
        for moving in (False, True)
    )
    lines: list[str] = []
    for volumes, asked in ((DIFFUSION, (32.0, 36.0, 40.0, 44.0)), (SCALAR, (35.0, 40.0, 45.0))):
        lines += ["| scan | " + " | ".join(f"{psnr:g} dB" for psnr in asked) + " | best others |"]
        lines += ["|---" * (len(asked) + 2) + "|"]
        for volume in volumes:
            sides = [
                {row["asked"]: row for row in side if row["volume"] == volume and row["kind"] == "psnr"}
                for side in (still, video)
            ]
            if not any(sides):
                continue
            cells = [" / ".join(_ratios([side.get(psnr) for side in sides])) for psnr in asked]
            names = [", ".join(dict.fromkeys(row["best_peer"] for _, row in sorted(side.items()))) for side in sides]
            lines.append(f"| {volume} {KINDS[volume]} | {' | '.join(cells)} | {' / '.join(names)} |")
        lines.append("")
    moving_means = {m["group"]: m for m in means(video)}
    for m in means(still):
        line = f"- {m['group']}: geometric mean {m['geometric_mean']:.2f}, smallest {m['smallest']:.2f}"
        if (other := moving_means.get(m["group"])) is not None:
            line += f"; video {other['geometric_mean']:.2f}, smallest {other['smallest']:.2f}"
        lines.append(line)
    return "\n".join(lines)


def _ratios(rows: list[Row | None]) -> list[str]:
    """Return ratios as words, the smallest in bold type."""
    found = [row["ratio"] for row in rows if row is not None]
    return ["-" if r is None else f"**{r['ratio']:.2f}**" if r["ratio"] == min(found) else f"{r['ratio']:.2f}"
            for r in rows]  # fmt: skip
