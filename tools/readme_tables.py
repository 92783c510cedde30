"""Put the tables of committed results into the README and the guide, between their marks.

python -m tools.readme_tables [--check]
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from tools.bench_rate_report import markdown
from tools.paper_mancini_report import mancini
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


def systems_table() -> str:
    """Return a row for every system of the papers, and the line that says what was measured."""
    results = ROOT / "tools" / "results"
    document, seed = (json.loads((results / f"{name}.json").read_text()) for name in ("systems", "seed"))
    scans = list(dict.fromkeys(row["scan"] for row in document["rows"]))
    head = [cell for scan in scans for cell in (f"{scan}: dB", "SSIM", "kB (default)", "fit s", "decode s", "fit MB")]
    lines = [f"| network | of | {' | '.join(head)} |", "|---" * (2 + len(head)) + "|"]
    best = {scan: max((r for r in document["rows"] if r["scan"] == scan), key=lambda r: r["psnr"]) for scan in scans}
    for name in dict.fromkeys(row["network"] for row in document["rows"]):
        rows = [next((r for r in document["rows"] if (r["scan"], r["network"]) == (s, name)), None) for s in scans]
        lines.append(f"| `{name}` | {_PAPERS[name]} | {' | '.join(cell for row in rows for cell in _system(row))} |")
    lines.append(f"| the default | | {' | '.join(cell for s in scans for cell in _system(best[s]['default']))} |")
    own = {n["hood"]: n for n in seed["rows"][0]["networks"]
           if n["trained_on"] == seed["rows"][0]["volume"] and not n["published"]}  # fmt: skip
    both = ", ".join(f"{hood} network {own[hood]['bits']:.2f} and {own[hood]['bits_with_network']:.2f}"
                     for hood in ("cube", "pyramid"))  # fmt: skip
    linear = seed["rows"][0]["bits"]["linear"]
    found = document["environment"]
    versions = ", ".join(f"{k} {v}" for k, v in found["versions"].items() if k != "inrstore")
    cuts = ", ".join(f"{s} {next(r['cut'] for r in document['rows'] if r['scan'] == s)}" for s in scans)
    return "\n".join([
        *lines, "", f"{cuts}; {document['rows'][0]['steps']:,} steps of a fit; the whole store, and in brackets "
        f"that of the default at the same PSNR. Processor time of one core of an {found['processor']}, Python "
        f"{found['python']}, {versions}; no GPU.", "",
        f"Lossless, whole s10, bits per voxel without and with the bytes of the network: {both} (Nagoor et al. "
        f"2020; fitted on an H200), linear predictor {linear:.2f}.",
    ])  # fmt: skip


def _system(row: dict[str, Any] | None) -> list[str]:
    """Return the cells of a scan: a network beside the default, or the default alone."""
    if row is None:
        return ["-"] * 6
    beside = f" ({row['default']['bytes'] / 1e3:.1f})" if "default" in row else ""
    return [f"{row['psnr']:.1f}", f"{row['ssim']:.2f}", f"{row['bytes'] / 1e3:.1f}{beside}",
            *(f"{row[name]:.{digits}f}" for name, digits in (("fit_cpu_seconds", 0), ("decode_cpu_seconds", 2))),
            f"{row['fit_memory'] / 1e6:.0f}"]  # fmt: skip


_PAPERS = {
    "siren2d": "Mancini 2022", "siren2d-relu": "Mancini 2022", "siren3d": "Mancini 2022", "mlp-relu": "Mancini 2022",
    "mlp-tanh": "Mancini 2022", "mlp-siren": "Mancini 2022", "lanczos-siren-srdensenet": "Sheibanifard 2023",
    "fourier-siren-srno": "Sheibanifard 2025",
}  # fmt: skip


def evaluate_table() -> str:
    """Return tables of bytes against what compression does to the science, and the line that names the machine."""
    document = json.loads((ROOT / "tools" / "results" / "evaluate.json").read_text())
    mean, value = "mean absolute error", "value"
    kinds = {
        "dmri": [("FA, WM", f"FA | WM | {mean}"), ("FA, GM", f"FA | GM | {mean}"), ("MD, WM", f"MD | WM | {mean}"),
                 ("MD, GM", f"MD | GM | {mean}"), ("V1, °", f"V1 angle | WM | {mean}"),
                 ("voxels <= 0", f"voxels that became <= 0 | brain | {value}")],
        "fmri": [("tSNR", f"tSNR | brain | {mean}"),
                 ("correlation of series", f"correlation of the series, median | brain | {value}"),
                 ("connectivity, r", f"connectivity, r | brain | {mean}")],
        "structural": [("SSIM", f"SSIM | image | {value}"),
                       *((f"Dice, class {k}", f"Dice | class {k} | {value}") for k in (1, 2, 3)),
                       ("gradient, %", f"gradient, error over mean | mask | {value}")],
        "ct": [(f"HU, {name} (bias)", f"HU | {name} | {mean}") for name in ("air", "soft tissue", "bone")],
    }  # fmt: skip
    noises = {row["scan"]: row.get("noise_psnr") for row in document["rows"] if row["candidate"] == "source"}
    lines = list[str]()
    for kind, columns in kinds.items():
        rows = [row for row in document["rows"] if row["kind"] == kind and "bytes" in row]
        if not rows:
            continue
        lines += [f"| scan | | kB | error / noise | {' | '.join(name for name, _ in columns)} |",
                  "|---" * (4 + len(columns)) + "|"]  # fmt: skip
        for row in rows:
            cells = [_with_bias(row.get("figures", {}), key, "(bias)" in name) for name, key in columns]
            size = "" if row["bytes"] is None else f"{row['bytes'] / 1e3:.1f}"
            what, times = _asked(row, noises[row["scan"]])
            lines.append(f"| {row['scan']} | {what} | {size} | {times} | {' | '.join(cells)} |")
        lines.append("")
    found = document["environment"]
    versions = ", ".join(f"{k} {v}" for k, v in found["versions"].items() if k not in ("inrstore", "torch", "zarr"))
    for row in document["rows"]:
        if row["candidate"] == "MRtrix3":
            told = row["figures"]
            fa, md = told["FA, largest difference"], told["MD, largest difference, µm²/ms"]
            lines.append(f"Of {told['voxels']:,} voxels of {row['scan']} FA differs from that of MRtrix3 "
                         f"{told['version']} by {fa:.0e} at most, MD by {md:.0e} µm²/ms.")  # fmt: skip
    return "\n".join([*lines, f"MD in µm²/ms. On an {found['processor']}, Python {found['python']}, {versions}."])


def noise_table() -> str:
    """Return what estimators say of the noise of scans, stored units."""
    rows = [row for row in _preserve_rows() if row["part"] == "noise"]
    names = list(dict.fromkeys(row["estimator"] for row in rows))
    lines = [f"| scan | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    for scan in dict.fromkeys(row["scan"] for row in rows):
        own = {row["estimator"]: f"{row['sigma']:.3g}" for row in rows if row["scan"] == scan}
        lines.append(f"| {scan} | {' | '.join(own.get(name, '') for name in names)} |")
    return "\n".join(lines)


def preserve_table() -> str:
    """Return what searches found that did not know the scan's own curve."""
    head = "scan | measure | bound | first guess | found | quality | tries | CPU, s | kB | ratio | PSNR, dB"
    lines = [f"| {head} |", "|---" * 11 + "|"]
    for row in _preserve_rows():
        if row["part"] != "search":
            continue
        quality = ", ".join(f"{name} {value:g}" for name, value in row["found"].items() if name != "figure")
        psnr = "" if row["psnr"] is None else f"{row['psnr']:.2f}"
        lines.append(f"| {row['scan']} | {row['measure']} | {row['bound']:g} | {row['first']['figure']:.3g} | "
                     f"{row['found']['figure']:.3g} | {quality} | {row['trials']} | {row['cpu_s']:.0f} | "
                     f"{row['bytes'] / 1e3:.1f} | {row['ratio']:.1f} | {psnr} |")  # fmt: skip
    return "\n".join(lines)


def _preserve_rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((ROOT / "tools" / "results" / "preserve.json").read_text())["rows"]
    return rows


def _asked(row: dict[str, Any], noise: float | None) -> tuple[str, str]:
    """Return what a row of the evaluation is of, and its error over the noise of a middling measurement."""
    if row["candidate"] == "default":
        promised = ", ".join(name if value is True else f"{name} {value:g}" for name, value in row["promised"].items())
        return f"**default**: {promised}", f"{row['times']:g}"
    if row["candidate"] == "noise":
        return f"rmse {row['promised']['rmse']:.3g}", f"{row['times']:g}"
    if row["candidate"] != "store":
        return row["candidate"], ""
    return f"{row['asked_psnr']:g} dB", "" if noise is None else f"{10 ** ((noise - row['asked_psnr']) / 20):.2g}"


def masks_table() -> str:
    """Return a row for each promise: bytes without and with a mask, and the error inside it."""
    document = json.loads((ROOT / "tools" / "results" / "masks.json").read_text())
    lines = ["| scan | asked | kB | kB with a mask | rmse inside | with a mask |", "|---|---|---|---|---|---|"]
    for row in document["rows"]:
        asked = ", ".join(name if value is True else f"{name} {value:g}" for name, value in row["asked"].items())
        cells = [row["scan"], asked or "nothing", *(f"{row[f'{one}_bytes'] / 1e3:,.1f}" for one in ("without", "with")),
                 *(f"{row[f'{one}_rmse_inside']:.3g}" for one in ("without", "with"))]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    scans = {row["scan"]: row["mask"] for row in document["rows"]}
    kept = ", ".join(f"{scan} {100 * part:.0f} %" for scan, part in scans.items())
    return "\n".join([*lines, "", f"The masks keep the brain, of the grid of {kept}."])


def defaults_table() -> str:
    """Return what the default of each kind is."""
    from inrstore.store.defaults import TIMES

    kept = {
        "dmri": (
            "diffusion MRI, with gradients",
            "FA within a quarter of what two halves of the scan differ by, MD a half",
        ),
        "fmri": ("fMRI", "BOLD series: correlation of 0.95 with the original, even of one that is nothing but noise"),
        "structural": ("T1, T2, FLAIR", "tissue classes of a whole head: Dice of 0.98 of each"),
        "ct": ("CT", "no bias of 1 HU in lung, fat, soft tissue and bone; error below the noise"),
    }
    lines = ["| image | error / noise | what that keeps |", "|---|---|---|"]
    lines += [f"| {kept[kind][0]} | {times:g} | {kept[kind][1]} |" for kind, times in TIMES.items()]
    return "\n".join([*lines, "| labels, and what nothing tells the kind of | 0 | every bit |"])


def kinds_table() -> str:
    """Return a row for each scan: bytes and what is lost at 40 dB, by default and lossless."""
    rows = json.loads((ROOT / "tools" / "results" / "evaluate.json").read_text())["rows"]
    mean, value = "mean absolute error", "value"
    shown = {
        "dmri": (("error of FA", f"FA | WM | {mean}"), ("of MD", f"MD | WM | {mean}")),
        "fmri": (("correlation of BOLD series", f"correlation of the series, median | brain | {value}"),),
        "structural": (("Dice of a tissue class", f"Dice | class 2 | {value}"),),
        "ct": (("bias of soft tissue, HU", "HU | soft tissue | bias"),),
    }
    lines = ["| scan | | 40 dB | default | lossless |", "|---|---|---|---|---|"]
    for scan in dict.fromkeys(row["scan"] for row in rows):
        own = [row for row in rows if row["scan"] == scan]
        found = {"default": next((r for r in own if r["candidate"] == "default"), None),
                 "lossless": next((r for r in own if r["candidate"] == "lossless"), None),
                 "40": next((r for r in own if r.get("asked_psnr") == 40.0), None)}  # fmt: skip
        if found["default"] is None or found["lossless"] is None:
            continue
        columns = shown[own[0]["kind"]]
        cells = [scan, ", ".join(name for name, _ in columns)]
        for name in ("40", "default"):
            row = found[name]
            figures = [] if row is None else [_with_bias(row["figures"], key, False) for _, key in columns]
            cells.append("" if row is None else f"{row['bytes'] / 1e3:,.0f} kB: {', '.join(figures)}")
        cells.append(f"{found['lossless']['bytes'] / 1e3:,.0f} kB")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _with_bias(figures: dict[str, float | None], key: str, wanted: bool) -> str:
    """Return a figure for a table, on demand with the bias beside it."""
    found = figures.get(key)
    if found is None:
        return ""
    bias = figures.get(f"{key.rpartition(' | ')[0]} | bias") if wanted else None
    text = f"{found:,.0f}" if abs(found) >= 1000 else f"{found:.3g}"
    return text + ("" if bias is None else f" ({bias:+.3g})")


TABLES = {
    "evaluate": evaluate_table,
    "kinds": kinds_table,
    "masks": masks_table,
    "defaults": defaults_table,
    "convert": convert_table,
    "lossless": lossless_table,
    "noise": noise_table,
    "preserve": preserve_table,
    "rate": rate_table,
    "read": read_table,
    "short": short_table,
    "systems": systems_table,
    **PAPERS,
    "paper-mancini": mancini,
}
PAGES = ("README.md", "docs/quality.md", "docs/results.md", "docs/papers.md")


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
