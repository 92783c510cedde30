"""Findings and maps of an evaluation -> one HTML page with tables, curves and pictures, which needs no network."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from inrstore.errors import MissingDependencyError
from inrstore.evaluate.findings import (
    BIAS,
    MEAN_ABSOLUTE,
    PERCENTILE,
    RELATIVE,
    RELATIVE_SPREAD,
    VALUE,
    Finding,
    Floats,
    Image,
)
from inrstore.evaluate.picture import colour_png

if TYPE_CHECKING:
    from jinja2 import Template

SIDE = 288
"""Longest side of a picture, in pixels."""

_STOPS = np.array([[150, 215, 255], [30, 110, 220], [0, 0, 0], [215, 60, 40], [255, 190, 150]], np.float64) / 255
_TISSUES = np.array([[0.1, 0.1, 0.12], [0.90, 0.62, 0.10], [0.34, 0.71, 0.91], [0.0, 0.62, 0.45]])
_LABELS = frozenset({"tissue"})
_SIGNED = ("error", "FA error", "MD error", "HU error", "gradient error", "connectivity")
_FIXED = {"SSIM": (0.0, 1.0), "correlation": (0.0, 1.0), "connectivity": (-1.0, 1.0), "FA error": (-0.3, 0.3)}
_EXPLAINED = {
    "error": "decoded − source, one slice",
    "SSIM": "1 is white",
    "colour FA": "left–right red, front–back green, up–down blue",
    "tissue": "class 1 (of dMRI WM) orange, 2 (GM) blue, 3 (CSF) green",
}

CURVES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "dmri": (("FA", MEAN_ABSOLUTE), ("MD", MEAN_ABSOLUTE), ("RISH2", MEAN_ABSOLUTE)),
    "fmri": (("tSNR", MEAN_ABSOLUTE), ("correlation of the series, median", VALUE), ("connectivity, r", MEAN_ABSOLUTE)),
    "structural": (("Dice", VALUE), ("gradient, error over mean", VALUE), ("SSIM", VALUE)),
    "ct": (("HU", MEAN_ABSOLUTE), ("HU", BIAS)),
    "image": (("PSNR, each measurement", VALUE), ("SSIM", VALUE)),
}
"""What is drawn against bytes, for each kind of image: measure and statistic."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What the page shows of a candidate.

    Parameters
    ----------
    name, note : str
    nbytes : int or None
        None for what is no file.
    is_store : bool
    facts : sequence of str
        Size and ratio, for people.
    findings : sequence of Finding
    planes : mapping of str to ndarray
        Slices of maps, (y, x) or (y, x, 3).
    """

    name: str
    note: str = ""
    nbytes: int | None = None
    is_store: bool = True
    facts: Sequence[str] = ()
    findings: Sequence[Finding] = ()
    planes: Mapping[str, Image] = field(default_factory=dict)


def render(
    *, title: str, kind: str, facts: Mapping[str, Any], notes: Sequence[str], method: Sequence[str], source: Shown,
    candidates: Sequence[Shown], aspect: float,
) -> Iterable[str]:  # fmt: skip
    """Return the pieces of the page.

    Parameters
    ----------
    title : str
    kind : str
        Key of `CURVES`.
    facts : mapping
        Names and values below the title.
    notes : sequence of str
        What the reader should know.
    method : sequence of str
        How it was measured.
    source : Shown
        What the source itself is like, and its slices.
    candidates : sequence of Shown
    aspect : float
        Height of a voxel / its width.

    Raises
    ------
    MissingDependencyError
        Without Jinja.
    """
    lines, charts = _charts(kind, candidates)
    return template().stream(
        title=title,
        facts=facts,
        notes=notes,
        method=method,
        source=[(one.measure, one.region, _number(one.value), one.unit) for one in source.findings],
        names=[(shown.name, shown.note, list(shown.facts), shown.is_store) for shown in candidates],
        tables=_tables(candidates),
        names_of_lines=lines,
        charts=charts,
        explained={name: text for name, text in _EXPLAINED.items() if any(name in one.planes for one in candidates)},
        rows=_rows(source, candidates, aspect),
    )


def template() -> Template:
    """Return the page, to be filled.

    Raises
    ------
    MissingDependencyError
        Without Jinja.
    """
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise MissingDependencyError('a report needs Jinja: pip install "inrstore[archive]"') from error
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(resources.files(__package__).joinpath("page.html").read_text("utf-8"))


def paragraphs(text: str) -> list[str]:
    """Return the items of a docstring's list, each in one line; what stands before the list is the first."""
    lines, items = text.strip().splitlines()[1:], list[str]()
    for line in lines:
        if line.startswith("- ") or not items:
            items.append(line.removeprefix("- ").strip())
        else:
            items[-1] = f"{items[-1]} {line.strip()}".strip()
    return [item.replace("*", "").replace("`", "") for item in items if item]


def _number(value: float | None) -> str:
    """Return a number with three digits, without an exponent where people do not want one."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}".replace("-", "−")
    text = f"{value:.3g}" if size >= 0.001 else f"{value:.1e}"
    return text.replace("-", "−", 1) if value < 0 else text


def _tables(candidates: Sequence[Shown]) -> list[dict[str, Any]]:
    """Return tables with a row for each candidate.

    One is of the figures of the whole image, one of each measure of several regions, and one of each region for the
    measures that are of this alone.
    """
    regions_of: dict[str, dict[str, None]] = {}
    for one in (one for shown in candidates for one in shown.findings):
        regions_of.setdefault(one.measure, {})[one.region] = None
    tables: dict[str, dict[str, list[dict[str, Finding]]]] = {}
    units: dict[str, str] = {}
    for at, shown in enumerate(candidates):
        for one in shown.findings:
            alone = len(regions_of[one.measure]) == 1
            title = ("" if one.region == "image" else one.region) if alone else one.measure
            unit = one.unit if one.statistic in (VALUE, MEAN_ABSOLUTE) else ""
            columns = tables.setdefault(title, {})
            column = one.measure if alone else one.region
            columns.setdefault(column, [{} for _ in candidates])[at][one.statistic] = one
            units[f"{title}/{column}"] = units.get(f"{title}/{column}") or unit
    out = []
    for title, columns in tables.items():
        rows = [(at, [_cell(cells[at]) for cells in columns.values()])
                for at in range(len(candidates)) if any(cells[at] for cells in columns.values())]  # fmt: skip
        out.append({"title": title, "columns": [(name, units[f"{title}/{name}"]) for name in columns], "rows": rows})
    return sorted(out, key=lambda table: table["title"] != "")


def _figure(one: Finding) -> str:
    """Return a figure that stands by itself: dB with two digits behind the point, what is at most 1 with four."""
    if one.value is None or (one.unit and one.unit != "dB") or (not one.unit and abs(one.value) > 1):
        return _number(one.value)
    return f"{one.value:.2f}" if one.unit else f"{one.value:.4f}".replace("-", "−")


def _cell(cell: Mapping[str, Finding]) -> tuple[str, list[str]]:
    """Return the figure of a cell and the smaller ones below it."""
    if not cell:
        return "", []
    if VALUE in cell:
        return _figure(cell[VALUE]), []
    below = []
    if BIAS in cell:
        below.append(f"bias {_number(cell[BIAS].value)}")
    if PERCENTILE in cell:
        below.append(f"95 % < {_number(cell[PERCENTILE].value)}")
    if RELATIVE in cell:
        below.append(f"{_number(cell[RELATIVE].value)} ± {_number(cell[RELATIVE_SPREAD].value)} %")
    return _number(cell[MEAN_ABSOLUTE].value if MEAN_ABSOLUTE in cell else None), below


# ---- curves

_COLOURS = 6
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 420, 250, 54, 34, 12, 12


def _line(shown: Shown) -> str:
    """Return the name of the line that a candidate lies on."""
    return "stores" if shown.is_store else shown.name.partition(" at the bytes of ")[0]


def _charts(kind: str, candidates: Sequence[Shown]) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the names of the lines by colour, and title and SVG of each curve of bytes against a measure.

    For a single store there are none.
    """
    if sum(shown.is_store for shown in candidates) < 2:
        return [], []
    names = list(dict.fromkeys(_line(shown) for shown in candidates))
    out = []
    for measure, statistic in CURVES.get(kind, CURVES["image"]):
        regions = dict.fromkeys(
            one.region for shown in candidates if shown.is_store for one in shown.findings
            if (one.measure, one.statistic) == (measure, statistic)
        )  # fmt: skip
        for region in regions:
            lines: dict[str, list[tuple[float, float]]] = {}
            levels: dict[str, float] = {}
            unit = ""
            for shown in candidates:
                for one in shown.findings:
                    if (one.measure, one.region, one.statistic) != (measure, region, statistic) or one.value is None:
                        continue
                    unit = one.unit
                    if shown.nbytes:
                        lines.setdefault(_line(shown), []).append((float(shown.nbytes), one.value))
                    else:
                        levels[shown.name] = one.value
            title = f"{measure} in {region}: {statistic}{f', {unit}' if unit else ''}"
            out.append((title.replace(": value", "").replace(" in image", ""), _svg(names, lines, levels)))
    return names, out


def _svg(names: Sequence[str], lines: Mapping[str, list[tuple[float, float]]], levels: Mapping[str, float]) -> str:
    """Return a drawing: bytes along a logarithmic axis, lines through points, dashed levels for what has no bytes."""
    points = [point for line in lines.values() for point in line]
    values = [y for _, y in points] + list(levels.values())
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    first, last = (first / 1.2, last * 1.2)
    low, high = min(values), max(values)
    low, high = (0.0 if 0 <= low < 0.5 * high else low), (high if high > low else low + 1.0)
    ticks = _ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])

    def across(x: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * math.log(x / first) / math.log(last / first)

    def up(y: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * (y - low) / (high - low)

    out = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role=img>']
    for tick in ticks:
        out.append(f"<line class=grid x1={_LEFT} x2={_WIDTH - _RIGHT} y1={up(tick):.1f} y2={up(tick):.1f} />")
        out.append(f"<text class=left x={_LEFT - 6} y={up(tick) + 4:.1f}>{tick:.6g}</text>")
    for size in _sizes(first, last):
        out.append(f"<line class=grid x1={across(size):.1f} x2={across(size):.1f} y1={_TOP} y2={_HEIGHT - _BOTTOM} />")
        out.append(f"<text class=below x={across(size):.1f} y={_HEIGHT - _BOTTOM + 16}>{_bytes(size)}</text>")
    for name, y in levels.items():
        colour = f"c{names.index(name) % _COLOURS}"
        out.append(f'<line class="level {colour}" x1={_LEFT} x2={_WIDTH - _RIGHT} y1={up(y):.1f} y2={up(y):.1f} />')
    for name, line in lines.items():
        colour = f"c{names.index(name) % _COLOURS}"
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in sorted(line))
        out.append(f'<polyline class="{colour}" points="{path}" />')
        out += [f'<circle class="{colour}" cx={across(x):.1f} cy={up(y):.1f} r=3 />' for x, y in line]
    return "".join([*out, "</svg>"])


def _ticks(low: float, high: float) -> list[float]:
    """Return four to seven round numbers from below `low` to above `high`."""
    raw = (high - low) / 4
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw)
    first = math.floor(low / step + 1e-9)
    return [k * step for k in range(first, math.ceil(high / step - 1e-9) + 1)]


def _sizes(first: float, last: float) -> list[float]:
    """Return round numbers of bytes along the axis."""
    factors = (1, 2, 5) if last / first < 100 else (1,)
    powers = range(math.floor(math.log10(first)), math.ceil(math.log10(last)) + 1)
    return [factor * 10.0**power for power in powers for factor in factors if first <= factor * 10.0**power <= last]


def _bytes(size: float) -> str:
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= one:
            return f"{size / one:g} {unit}"
    return f"{size:g} B"


# ---- pictures


def _rows(source: Shown, candidates: Sequence[Shown], aspect: float) -> list[dict[str, Any]]:
    """Return a row of pictures for the source and each candidate, each map in the same scale in all rows."""
    every = [source, *candidates]
    scales = {name: _scale(name, [shown.planes[name] for shown in every if name in shown.planes])
              for shown in every for name in shown.planes}  # fmt: skip
    out = []
    for shown in every:
        pictures = []
        for name, plane in shown.planes.items():
            low, high = scales[name]
            png = colour_png(_coloured(name, plane, low, high), aspect=aspect, side=SIDE)
            words = "" if plane.ndim == 3 or name in _LABELS else f"{_number(low)} to {_number(high)}"
            pictures.append({"name": name, "scale": words, "data": base64.b64encode(png).decode()})
        if pictures:
            out.append({"name": shown.name, "facts": list(shown.facts), "pictures": pictures})
    return out


def _scale(name: str, planes: Sequence[Image]) -> tuple[float, float]:
    """Return the values that are drawn darkest and lightest, or farthest from black."""
    if name in _FIXED:
        return _FIXED[name]
    if planes[0].ndim == 3:
        return 0.0, 1.0
    values = np.concatenate([plane[np.isfinite(plane)] for plane in planes])
    if not values.size:
        return 0.0, 1.0
    if name in _SIGNED:
        most = float(np.percentile(np.abs(values), 99.5)) or float(np.abs(values).max()) or 1.0
        return -most, most
    low, high = np.percentile(values, (1, 99.5))
    return float(low), float(high) if high > low else float(low) + 1.0


def _coloured(name: str, plane: Image, low: float, high: float) -> Floats:
    """Return a slice as colours, (y, x, 3)."""
    if plane.ndim == 3:
        return np.asarray(plane, np.float64)
    if name in _LABELS:
        labels = np.where(np.isfinite(plane), plane, 0).astype(np.intp)
        return np.where(np.isfinite(plane)[..., None], _TISSUES[np.clip(labels, 0, len(_TISSUES) - 1)], np.nan)
    part = np.clip((plane.astype(np.float64) - low) / (high - low), 0, 1)
    if name in _SIGNED:
        at = np.linspace(0, 1, len(_STOPS))
        return np.stack([np.interp(part, at, _STOPS[:, k]) for k in range(3)], axis=-1) + 0 * part[..., None]
    return np.repeat(part[..., None], 3, axis=-1)
