"""Rows of tools.paper_mancini and the published tables 1 and 2 -> tables of docs/papers.md, and a judgement."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

from tools.paper_tables_report import PUBLISHED, absent, machine, results, size_of, table

_MEASURES, _TISSUES = ("MD", "FA", "RISH0", "RISH2"), ("WM", "GM", "CSF")
_COLUMNS = (("MP-PCA", ""), ("smoothing", ""), ("siren2d", "siren"), ("default", "siren"), ("JPEG 2000", "siren"),
            ("PCA+SPERR", "siren"), ("default", "9"), ("JPEG 2000", "9"), ("PCA+SPERR", "9"))  # fmt: skip
_SIZES = {"": "", "siren": " at its bytes", "9": " at 9 : 1"}


def mancini() -> str:
    """Seed 0's tables 1 and 2."""
    rows, environment = results("mancini")
    if not rows:
        return absent("mancini")
    scans = list(dict.fromkeys(row["settings"]["scan"] for row in rows))
    found = {(row["settings"]["scan"], row["settings"]["what"], row["settings"]["size"]): row for row in rows}
    shown = [column for column in _COLUMNS if any((scan, *column) in found for scan in scans)]
    head = [what if what == "siren2d" else f"{what}{_SIZES[size]}" for what, size in shown]
    parts = ["What is compared, and figure 3's measures (MSE of values from 0 to 1 of a slice of a measurement):", ""]
    lines: list[list[Any]] = []
    for scan in scans:
        for column, name in zip(shown, head, strict=True):
            row = found.get((scan, *column))
            if row is not None:
                figures = row["figures"]
                size = None if row.get("bytes") is None else f"{row['raw_bytes'] / row['bytes']:.1f}"
                parameters = row.get("parameters")
                paper = None if not parameters else f"{row['values'] / parameters:.2f}"
                lines.append([scan, name, row.get("bytes"), size, paper, _short(row["mse_unit"], 3),
                              *(_short(figures.get(f"{key} | image | value"), 4) for key in
                                ("PSNR, by slices", "PSNR, each measurement", "SSIM"))])  # fmt: skip
    parts += [table(["scan", "", "bytes", "raw / bytes", "values / parameters", "MSE", "PSNR by slices, dB",
                     "PSNR of measurements, dB", "SSIM"], lines), ""]  # fmt: skip
    parts += ["Table 1, relative errors in % as mean ± standard deviation: published, then ours.", ""]
    known = PUBLISHED["seed0_table1"]
    parts += [table(known["columns"], [[*row[:2], *map(_pair, row[2:])] for row in known["rows"]]), "",
              f"Published: {known['source']}.", ""]  # fmt: skip
    lines = []
    for scan in scans:
        for measure in _MEASURES:
            lines += [[scan, measure, tissue, *(_relative(found, scan, column, measure, tissue) for column in shown)]
                      for tissue in _TISSUES]  # fmt: skip
        for tissue in _TISSUES:
            key = f"fODF, relative error | {tissue} | value"
            lines.append([scan, "fODF, size of error", tissue,
                          *(_short(_figure(found, scan, column, key), 3) for column in shown)])  # fmt: skip
    parts += [table(["scan", "measure", "tissue", *head], lines), ""]
    parts += ["Table 2, the same of the whole brain; published: SIREN-2D of five subjects.", ""]
    known = PUBLISHED["seed0_table2"]
    lines = [[f"published, {row[0]}", *map(_pair, row[1:])] for row in known["rows"]]
    for scan in scans:
        for column, name in zip(shown, head, strict=True):
            if column[0] in ("siren2d", "default"):
                lines.append([f"{scan}, {name}", *(_relative(found, scan, column, measure, "brain")
                                                   for measure in _MEASURES)])  # fmt: skip
    parts += [table(known["columns"], lines), "", f"Published: {known['source'].replace('the same', 'the paper')}.", ""]
    parts += _judged(found, scans)
    cuts = "; ".join(
        f"{scan} {size_of(row['settings']['cut'])}, {row['settings']['network']['units']} units, "
        f"{row['settings']['network']['steps']:,} steps"
        for (scan, what, _), row in found.items()
        if what == "siren2d"
    )
    where = machine(environment, [row for row in rows if "network" in row["settings"]])
    return "\n".join([*parts, "", f"Cuts and networks: {cuts}. {where}"])


def _figure(found: dict[tuple[str, str, str], Any], scan: str, column: tuple[str, str], key: str) -> float | None:
    row = found.get((scan, *column))
    value: float | None = None if row is None else row["figures"].get(key)
    return value


def _relative(found: dict[tuple[str, str, str], Any], scan: str, column: tuple[str, str], measure: str, region: str
              ) -> str:  # fmt: skip
    pair = [_figure(found, scan, column, f"{measure} | {region} | relative error, {one}") for one in ("mean", "std")]
    return _pair(None if None in pair else pair)


def _pair(pair: Sequence[Any] | None) -> str:
    return "-" if pair is None else f"{_short(pair[0], 3)} ± {_short(pair[1], 3)}"


def _short(value: float | None, digits: int) -> str | None:
    """Return a number with so many digits that count, without an exponent where it is large."""
    if value is None:
        return None
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def _judged(found: dict[tuple[str, str, str], Any], scans: Sequence[str]) -> list[str]:
    """Return where the default is no further off than MP-PCA and SIREN-2D, by tissue, and how far JPEG 2000 is."""
    rivals = ((("default", "siren"), ("siren2d", "siren")), (("default", "9"), ("MP-PCA", "")),
              (("default", "9"), ("siren2d", "siren")))  # fmt: skip
    kept = [[0, 0] for _ in rivals]
    far: dict[str, list[float]] = {"siren": [], "9": []}
    lines = list[list[Any]]()
    for scan, measure, tissue in product(scans, ("FA", "MD"), _TISSUES):
        key = f"{measure} | {tissue} | mean absolute error"
        line: list[Any] = [scan, measure, tissue]
        for (own, other), counts in zip(rivals, kept, strict=True):
            one, two = (_figure(found, scan, column, key) for column in (own, other))
            if one is None or two is None:
                line.append(None)
                continue
            counts[0], counts[1] = counts[0] + (one <= two), counts[1] + 1
            line.append(f"{one:.3g} {'<=' if one <= two else '**>**'} {two:.3g}")
        for size, ratios in far.items():
            one, two = (_figure(found, scan, (what, size), key) for what in ("default", "JPEG 2000"))
            line.append(f"{two / one:.1f}" if one and two else None)
            ratios += [two / one] if one and two else []
        lines.append(line)
    head = ["scan", "", "tissue", "at the bytes of SIREN-2D: default, SIREN-2D", "at 9 : 1: default, MP-PCA",
            "default at 9 : 1, SIREN-2D at its bytes", "JPEG 2000 / default at the bytes of SIREN-2D",
            "JPEG 2000 / default at 9 : 1"]  # fmt: skip
    first, second, third = (f"{one} of {all_}" for one, all_ in kept)
    spread = {size: f"{min(ratios, default=0):.1f} to {max(ratios, default=0):.1f}" for size, ratios in far.items()}
    text = (
        f"At the bytes of SIREN-2D the default is no further off than it in {first} rows; at a ninth of the scan's "
        f"bytes no further than MP-PCA in {second}, and than that SIREN-2D in {third}. JPEG 2000 is "
        f"{spread['siren']} times as far off as the default at the bytes of SIREN-2D, {spread['9']} times at 9 : 1."
    )
    return ["The judgement, mean absolute errors of FA, and of MD in µm²/ms:", "", table(head, lines), "", text]
