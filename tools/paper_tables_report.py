"""Results of tools.paper_tables and the published figures -> the tables of docs/papers.md, and a sentence for each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from inrstore.evaluate.tradeoff import Cell, Row, marginals, trade_off

ROOT = Path(__file__).parents[1]
PUBLISHED = json.loads((ROOT / "tools" / "published.json").read_text())
Rows = list[dict[str, Any]]


def results(table: str) -> tuple[Rows, dict[str, Any]]:
    """Return the rows of a table, and where they were measured."""
    path = ROOT / "tools" / "results" / "paper_tables.json"
    found = json.loads(path.read_text()).get(table, {}) if path.is_file() else {}
    return found.get("rows", []), found.get("environment", {})


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table in Markdown; None becomes a dash."""
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines += [f"| {' | '.join('-' if cell is None else str(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def machine(environment: dict[str, Any], rows: Rows) -> str:
    """Return a line that names machine, versions, seed and steps."""
    if not rows:
        return ""
    settings = [row["settings"] for row in rows]
    versions = ", ".join(f"{name} {environment['versions'][name]}" for name in ("numpy", "torch"))
    steps = sorted({s["network"]["steps"] for s in settings if "network" in s})
    more = f", {' and '.join(map(str, steps))} steps a fit" if steps else ""
    device, seed = (sorted({str(s[name]) for s in settings if name in s}) for name in ("device", "seed"))
    return (f"Measured on {' and '.join(device)}, {environment['processor']}, Python {environment['python']}, "
            f"{versions}, seed {' and '.join(seed)}{more}.")  # fmt: skip


def absent(name: str) -> str:
    """Return what stands where nothing was measured."""
    return f"Not measured yet: `python -m tools.paper_tables {name}`."


_OURS = ("PSNR dB", "SSIM", "parameters", "values / parameters", "bytes", "raw / bytes", "default: bytes at this PSNR",
         "default: PSNR at these bytes", "fit s", "decode s")  # fmt: skip


def measured(row: dict[str, Any]) -> list[Any]:
    """Return the cells of `_OURS`."""
    parameters = row.get("parameters")
    paper = None if not parameters else f"{row['values'] / parameters:.2f}"
    return [row["psnr"], row["ssim"], parameters, paper, row["bytes"], row["ratio"], row["default_bytes_at_psnr"],
            row["default_psnr_at_bytes"], row["encode_seconds"], row["decode_seconds"]]  # fmt: skip


def size_of(cut: Sequence[Sequence[int]]) -> str:
    """Return the size of a cut, x first."""
    return " x ".join(str(b - a) for a, b in cut)


def network_table(name: str, columns: Sequence[str]) -> str:
    """Return our rows of networks: the scan, some fields of the network, what was measured."""
    rows, environment = results(name)
    if not rows:
        return absent(name)
    lines = []
    for row in rows:
        settings = row["settings"]
        fields = [settings["network"].get(column) for column in columns]
        lines.append([f"{settings['scan']}, {size_of(settings['cut'])}", *fields, *measured(row)])
    body = table(["scan, cut", *columns, *_OURS], lines)
    return f"{body}\n\n{machine(environment, rows)}{_verdict(rows)}"


def _verdict(rows: Rows) -> str:
    """Return a sentence that says how the default does beside the networks."""
    parts = [(row["default_bytes_at_psnr"], row["bytes"]) for row in rows if row["default_bytes_at_psnr"]]
    if not parts:
        return ""
    smaller = sum(one < other for one, other in parts)
    ratios = sorted(other / one for one, other in parts)
    middle = ratios[len(ratios) // 2]
    return (f" At equal PSNR the default takes fewer bytes in {smaller} of {len(parts)} rows where its curve reaches; "
            f"in the middle one the network takes {middle:.2f} times as many.")  # fmt: skip


def published(name: str) -> str:
    """Return published figures as they are."""
    found = PUBLISHED[name]
    return f"{table(found['columns'], found['rows'])}\n\nPublished: {found['source']}."


def fig2b() -> str:
    """Seed 0's figure 2b."""
    return f"{published('seed0')}\n\n{network_table('fig2b', ('name', 'units'))}"


def seed2() -> str:
    """Seed 2's tables 4 to 6."""
    return f"{published('seed2')}\n\n{network_table('seed2', ('name', 'layers', 'downsample', 'channels'))}"


def siren() -> str:
    """Seed 3's table 3."""
    rows = PUBLISHED["seed3_table3"]["rows"]
    few = [row for row in rows if row[1] in (30, 70, 150, 230)]
    head = table(PUBLISHED["seed3_table3"]["columns"], few)
    return (f"{head}\n\nPublished: {PUBLISHED['seed3_table3']['source']}; 16 of 44 rows.\n\n"
            f"{network_table('siren', ('layers', 'units'))}")  # fmt: skip


def _published_rows() -> list[Row]:
    return [Row(cell=Cell(downsample=d, channels=c, neurons=n), psnr=psnr, psnr_patch=psnr, ssim=ssim, parameters=p,
                voxels=64**3, bytes=4 * p, bits_raw=16, seconds=0.0)
            for d, c, n, psnr, ssim, p in PUBLISHED["seed3_tables4to6"]["rows"]]  # fmt: skip


def _our_rows(rows: Rows, scan: str) -> list[Row]:
    out = []
    for row in rows:
        network = row["settings"]["network"]
        if row["settings"]["scan"] == scan and row["psnr"] is not None:
            cell = Cell(downsample=network["downsample"], channels=network["channels"], neurons=network["units"])
            out.append(Row(cell=cell, psnr=row["psnr"], psnr_patch=row["psnr"], ssim=row["ssim"],
                           parameters=row["parameters"], voxels=row["values"], bytes=row["bytes"], bits_raw=16,
                           seconds=row["encode_seconds"]))  # fmt: skip
    return out


def _summary(rows: list[Row]) -> list[list[Any]]:
    """Return the means of table 2 by scale."""
    out = []
    for scale in sorted({row.cell.downsample for row in rows}):
        own = [row for row in rows if row.cell.downsample == scale and row.cell.channels == 4]
        if own:
            counted = [(r.bit_rate, 100 * r.compression_rate, r.psnr, r.ssim, r.parameters) for r in own]
            mean = [sum(values) / len(own) for values in zip(*counted, strict=True)]
            out.append([f"1/{scale}", *(f"{value:.3f}" for value in mean[:4]), round(mean[4])])
    return out


def grid() -> str:
    """Seed 3's tables 2 and 4 to 8."""
    known, rows = _published_rows(), results("grid")[0]
    few = [row for row in PUBLISHED["seed3_tables4to6"]["rows"] if row[2] in (30, 70, 230)]
    parts = [
        table(PUBLISHED["seed3_tables4to6"]["columns"], few), "",
        f"Published: {PUBLISHED['seed3_tables4to6']['source']}; 27 of 99 rows.", "",
        network_table("grid", ("downsample", "channels", "units")), "",
        "Table 2, means by scale of rows with 4 channels: the published ones, those of the published table 4, ours.",
        "",
    ]  # fmt: skip
    head = ["rows", "DS", "bit rate", "CR %", "PSNR dB", "SSIM", "parameters"]
    lines: list[list[Any]] = [["table 2", f"1/{row[1]}", *row[2:]]
                              for row in PUBLISHED["seed3_table2"]["rows"] if row[0] == "whole"]  # fmt: skip
    lines += [["from table 4", *row] for row in _summary(known)]
    scans = list(dict.fromkeys(row["settings"]["scan"] for row in rows))
    for scan in scans:
        lines += [[f"ours, {scan}", *row] for row in _summary(_our_rows(rows, scan))]
    parts += [table(head, lines), "", "Only the row of 1/2 of the published table 2 follows from its table 4.", ""]
    lines = []
    for name, own in [
        ("published tables 4 to 6", known),
        *((f"ours, {scan}", _our_rows(rows, scan)) for scan in scans),
    ]:
        point, free = trade_off(own).cell, trade_off(own, beta=0).cell
        cells = [f"NC {cell.channels}, DS 1/{cell.downsample}, SN {cell.neurons}" for cell in (point, free)]
        means = {(one.axis, one.value): one for one in marginals(own)}
        at = [means[axis, getattr(point, axis)] for axis in ("channels", "downsample", "neurons")]
        lines.append(
            [name, *cells, *(f"{one.inverse_psnr:.5f}, {one.dissimilarity:.5f}, {one.rest:.5f}" for one in at)]
        )
    parts += ["Table 7, the trade-off point and means of 1/PSNR, 1 - SSIM and 1 - CR over the other two axes:", "",
              table(["rows", "point, beta 10", "beta 0", "at its NC", "at its DS", "at its SN"], lines), "",
              table(PUBLISHED["seed3_table7"]["columns"], PUBLISHED["seed3_table7"]["rows"]), "",
              "The published table 7 has the figures of DS under NC and those of NC under DS.", "",
              published("seed3_table8")]  # fmt: skip
    first = next(row for row in known if row.parameters == 6348)
    best = max((row for row in known if row.compression_rate > 0.5), key=lambda row: row.psnr)
    parts += ["", "Table 8 (40.052 dB, SSIM 0.961 at CR 97.578 %) contradicts table 4, where the only row of that CR "
              f"has {first.psnr} dB and SSIM {first.ssim}; the highest PSNR of a row with CR above 50 % is "
              f"{best.psnr} dB, at {100 * best.compression_rate:.3f} %."]  # fmt: skip
    return "\n".join(parts)


def lossless() -> str:
    """Seed 4's bits per voxel."""
    rows, environment = results("lossless")
    if not rows:
        return f"{published('seed4')}\n\n{absent('lossless')}"
    scans = list(dict.fromkeys(row["settings"]["scan"] for row in rows))
    plain = {row["settings"]["scan"]: row["bits_per_voxel"] for row in rows if row["settings"]["coder"] == "default"}
    lines: list[list[Any]] = [
        ["default (predictor)", "itself, in each chunk", *(f"{plain[scan]:.3f}" for scan in scans)]
    ]
    nets: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        settings = row["settings"]
        if settings["coder"] != "default":
            nets.setdefault((settings["coder"], settings["trained_on"]), {})[settings["scan"]] = row
    for (coder, learned), own in nets.items():
        cells = []
        for scan in scans:
            found = own.get(scan)
            bits = None if found is None else found["bits_with_network"]
            cells.append("-" if bits is None else f"{bits:.3f} ({100 * (bits / plain[scan] - 1):+.1f} %)")
        lines.append([f"{coder}, 2 layers of 32", learned, *cells])
    own_change = [100 * (own[learned]["bits_with_network"] / plain[learned] - 1) for (_, learned), own in nets.items()
                  if learned in own]  # fmt: skip
    others = [100 * (row["bits_with_network"] / plain[scan] - 1) for (_, learned), own in nets.items()
              for scan, row in own.items() if scan != learned]  # fmt: skip
    spread = ""
    if own_change and others:
        spread = (
            "Beside the default, a network trained on the scan itself changes its bytes, those of the network counted, "
            f"by {min(own_change):+.1f} to {max(own_change):+.1f} %; on another scan by {min(others):+.1f} to "
            f"{max(others):+.1f} %. In the paper, too, scans of another spacing lose to HEVC."
        )
    cuts = ", ".join(
        f"{row['settings']['scan']} slices {row['settings']['slices'][0]} to {row['settings']['slices'][1]}"
        for row in rows
        if row["settings"]["coder"] == "default"
    )
    seed = (ROOT / "tools/results/seed.md").read_text().strip()
    where = machine(environment, [row for row in rows if "device" in row["settings"]])
    return "\n".join([
        published("seed4"), "", "Ours, bits per voxel of network and payload; networks of `inrstore train`:", "",
        table(["coder", "learned from", *scans], lines), "", f"{where} Cuts: {cuts}. {spread}", "",
        "The published architectures, trained on a GPU (tools/bench_seed.py; in brackets with the bytes of the "
        "network; `linear` is the default predictor of then):", "", seed,
    ])  # fmt: skip


TABLES: dict[str, Callable[[], str]] = {
    "paper-fig2b": fig2b, "paper-seed2": seed2, "paper-siren": siren, "paper-grid": grid, "paper-lossless": lossless,
}  # fmt: skip
