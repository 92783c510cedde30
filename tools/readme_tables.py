"""Put the tables of committed results into the README and the guide, between their marks.

python -m tools.readme_tables [--check]
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

from tools.bench_rate_report import markdown
from tools.paper_tables_report import TABLES as PAPERS

ROOT = Path(__file__).parents[1]


def convert_table() -> str:
    """Return the table of conversions and the line that names the machine."""
    rows = json.loads((ROOT / "tools" / "results" / "convert.json").read_text())
    lines = [
        "| scan | asked | PSNR dB | voxels MB | store kB | ratio | chunks | encode MB/s | decode Mvalue/s (one core) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        modes = ", ".join(f"{n} {m}" for m, n in r["modes"].items())
        name = r["scan"].removesuffix(".nii.gz")
        preset = "" if r["preset"] == "balanced" else f", {r['preset']}"
        lines.append(
            f"| {name} | {r['asked_psnr']:g} dB{preset} | {r['psnr']:.2f} | {r['source_bytes'] / 1e6:.1f} "
            f"| {r['stored_bytes'] / 1e3:.1f} | **{r['ratio']:.0f}** | {modes} | {r['encode_mb_per_s']:.2f} "
            f"| {r['decode_mvalues_per_s_one_core']:.0f} |"
        )
    first = rows[0]
    versions = ", ".join(f"{k} {v}" for k, v in first["versions"].items() if k != "inrstore")
    machine = f"{first['cores']} cores of an {first['processor']}, Python {first['python']}, {versions}; no GPU."
    return "\n".join([*lines, "", f"Measured on {machine}"])


def lossless_table() -> str:
    """Return the table of lossless sizes and the line that names the machine."""
    document = json.loads((ROOT / "tools" / "results" / "lossless.json").read_text())
    lines = [
        "| scan | raw MB | best other codec | its bytes / ours | encode MB/s | decode Mvoxel/s |",
        "|---|---|---|---|---|---|",
    ]
    for r in document["rows"]:
        own = r["codecs"]["inrstore"]
        lines.append(
            f"| {r['scan']} | {r['bytes'] / 1e6:.1f} | {r['best_peer']} | **{r['ratio']:.3f}** "
            f"| {own['encode_mb_per_s']:.1f} | {r['decode_mvoxel_per_s']:.1f} |"
        )
    found = document["environment"]
    versions = ", ".join(f"{k} {v}" for k, v in found["versions"].items() if k not in ("inrstore", "torch", "zarr"))
    mean = f"Geometric mean {document['geometric_mean']:.3f}, smallest {document['smallest']:.3f}."
    machine = f"One core of an {found['processor']} (processor time), Python {found['python']}, {versions}."
    return "\n".join([*lines, "", f"{mean} {machine}"])


def rate_table() -> str:
    """Return the tables of sizes at equal quality, and the line that names the machine."""
    results = ROOT / "tools" / "results"
    found = json.loads((results / "rate.json").read_text())["environment"]
    versions = {name: found["versions"][name] for name in ("numpy", "imagecodecs")}
    for row in json.loads((results / "rate_peers.json").read_text())["rows"]:
        versions |= {name: number for name, number in row["versions"].items() if name in ("av", "aomenc")}
    shown = ", ".join(f"{name} {number}" for name, number in versions.items())
    return f"{markdown(results)}\n\nOn an {found['processor']}, Python {found['python']}, {shown}."


def read_table() -> str:
    """Return the table of decoding speeds, numpy and compiled, and the line that names the machine."""
    document = json.loads((ROOT / "tools" / "results" / "read.json").read_text())
    kinds = ("lossless", "36 dB", "40 dB", "40 dB network")
    peers = list(document["rows"][0]["peers_mvalue_per_s"])
    lines = [f"| scan | {' | '.join(kinds)} | {' | '.join(peers)} |", "|---" * (1 + len(kinds) + len(peers)) + "|"]
    for scan in dict.fromkeys(row["scan"] for row in document["rows"]):
        rows = {row["stored"]: row for row in document["rows"] if row["scan"] == scan}
        ours = [f"{rows[k]['numpy_mvalue_per_s']:.0f} -> {rows[k]['compiled_mvalue_per_s']:.0f}" if k in rows else "-"
                for k in kinds]  # fmt: skip
        theirs = [f"{speed:.0f}" for speed in rows["lossless"]["peers_mvalue_per_s"].values()]
        lines.append(f"| {scan} | {' | '.join([*ours, *theirs])} |")
    ratios = [row["ratio"] for row in document["rows"]]
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    found = document["environment"]
    versions = ", ".join(f"{k} {v}" for k, v in found["versions"].items() if k not in ("inrstore", "torch", "zarr"))
    return "\n".join([
        *lines, "", f"Compiled over numpy: geometric mean {mean:.1f}, smallest {min(ratios):.1f}. One core of an "
        f"{found['processor']}, Python {found['python']}, {versions}.",
    ])  # fmt: skip


def short_table() -> str:
    """Return the README's table: of each kind of scan the best other codec's bytes over ours, from the result files."""
    text = rate_table()
    lines = ["| beside the best of | bytes of the other over ours |", "|---|---|"]
    for line in text.splitlines():
        if line.startswith("- "):
            kind, _, found = line[2:].partition(": ")
            lines.append(f"| {kind} | {found} |")
    lossless = next(line for line in lossless_table().splitlines() if line.startswith("Geometric mean"))
    return "\n".join(
        [*lines, f"| lossless, all twelve scans | {lossless.split('. ')[0][0].lower()}{lossless.split('. ')[0][1:]} |"]
    )


TABLES = {
    "convert": convert_table,
    "lossless": lossless_table,
    "rate": rate_table,
    "read": read_table,
    "short": short_table,
    **PAPERS,
}
PAGES = ("README.md", "docs/results.md", "docs/papers.md")


def main() -> int:
    """Write the pages, or with --check tell whether they are up to date."""
    wrong, seen = 0, set()
    for page in PAGES:
        path = ROOT / page
        old = new = path.read_text()
        for name, table in TABLES.items():
            start, end = f"<!-- table:{name} -->\n", f"<!-- end:{name} -->"
            if start in new:
                seen.add(name)
                before, _, rest = new.partition(start)
                _, _, after = rest.partition(end)
                new = f"{before}{start}{table()}\n{end}{after}"
        wrong |= new != old
        if "--check" not in sys.argv[1:]:
            path.write_text(new)
    if seen != set(TABLES):
        raise SystemExit(f"no page has the tables {set(TABLES) - seen}")
    return int(wrong) if "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
