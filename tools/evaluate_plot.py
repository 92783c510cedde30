"""Results of tools.evaluate_curves -> a picture: bits a value against what is computed from each kind of scan.

python -m tools.evaluate_plot        # writes tools/results/quality.png
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
Row = dict[str, Any]
MEAN = "mean absolute error"


def figure_of(key: str, change: Callable[[float], float] = abs) -> Callable[[Row], float | None]:
    """Return what takes a figure of a row."""

    def take(row: Row) -> float | None:
        found = row.get("figures", {}).get(key)
        return None if found is None else change(found)

    return take


def least_dice(row: Row) -> float | None:
    """Return 1 minus the worst Dice."""
    found = [value for key, value in row["figures"].items() if key.startswith("Dice") and value is not None]
    return 1 - min(found) if found else None


def largest_bias(row: Row) -> float | None:
    """Return the largest bias of a range of Hounsfield units but air, which cannot be below its least value."""
    found = [abs(value) for key, value in row["figures"].items()
             if key.startswith("HU | ") and key.endswith("| bias") and key.split(" | ")[1] in
             ("lung", "fat", "soft tissue", "bone") and value is not None]  # fmt: skip
    return max(found) if found else None


HALVES = "part of two halves"
_SERIES = "correlation of the series, median | brain | value"
PANELS: tuple[tuple[str, str, Callable[[Row], float | None], float, str], ...] = (
    ("dmri", "FA in white matter: error", figure_of(f"FA | WM | {MEAN}"), 1 / 4, HALVES),
    ("dmri", "MD in white matter: error, µm²/ms", figure_of(f"MD | WM | {MEAN}"), 1 / 2, HALVES),
    ("fmri", "1 - correlation of BOLD series", figure_of(_SERIES, lambda value: 1 - value), 0.05, "0.05"),
    ("fmri", "temporal SNR: bias, %", figure_of("tSNR | brain | relative error, mean"), 5.0, "5 %"),
    ("structural", "1 - Dice of the worst tissue class", least_dice, 0.02, "0.02"),
    ("ct", "largest bias of lung, fat, soft tissue, bone, HU", largest_bias, 1.0, "1 HU"),
)
"""Kind, title, what is drawn, a bound (or what part it is of the difference of two halves), and how it is called."""


def main() -> None:
    """Draw."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows: list[Row] = json.loads((RESULTS / "evaluate.json").read_text())["rows"]
    figure = Figure(figsize=(11, 6.4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    for panel, (kind, title, take, bound, name) in zip(figure.subplots(2, 3).flat, PANELS, strict=True):
        own = [row for row in rows if row["kind"] == kind]
        for number, scan in enumerate(dict.fromkeys(row["scan"] for row in own)):
            part = bound if name == HALVES else None
            _draw(panel, [row for row in own if row["scan"] == scan], take, f"C{number}", scan, part)
        if name != HALVES:
            panel.axhline(bound, color="0.4", linestyle=":", linewidth=1)
            panel.annotate(name, (0.02, bound), xycoords=("axes fraction", "data"), fontsize=7, va="bottom")
        panel.set(xscale="log", yscale="log", xlabel="bits a value", title=title)
        panel.title.set_fontsize(9)
        panel.legend(fontsize=7)
        panel.grid(True, linewidth=0.3)
    about = "Lines: PSNRs. Star: no quality asked for. Bar at the axis: lossless. Dotted: bounds"
    figure.suptitle(f"{about} (of FA a quarter, of MD a half of what two halves differ by)", fontsize=9)
    figure.savefig(RESULTS / "quality.png", metadata={"Software": None})


def _draw(panel: Any, rows: list[Row], take: Callable[[Row], float | None], colour: str, scan: str,
          part: float | None) -> None:  # fmt: skip
    points = [(row["bits_per_voxel"], take(row)) for row in rows if row["candidate"] == "store"]
    kept = [(x, y) for x, y in sorted(points) if y is not None and y > 0]
    if kept:
        panel.plot(*zip(*kept, strict=True), ".-", color=colour, linewidth=1, label=scan)
    for row in rows:
        value = take(row) if "figures" in row else None
        if row["candidate"] == "default" and value:
            panel.plot(row["bits_per_voxel"], value, "*", color=colour, markersize=11, markeredgecolor="k")
        if row["candidate"] == "lossless":
            panel.plot([row["bits_per_voxel"]] * 2, [0, 0.06], color=colour, transform=panel.get_xaxis_transform())
        if row["candidate"].startswith("two halves") and value and part:
            panel.axhline(part * value, color=colour, linestyle=":", linewidth=1)


if __name__ == "__main__":
    main()
