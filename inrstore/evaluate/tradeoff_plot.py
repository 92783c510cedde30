"""Marginals of a trade-off -> a drawing of each axis (figures 3 to 5 of the paper)."""

from __future__ import annotations

import io
from collections.abc import Sequence

from inrstore.evaluate.tradeoff import AXES, Marginal

_NAMES = {"downsample": "scale of the coarse grid, 1/DS", "channels": "channels of the second network",
          "neurons": "neurons of a layer of the first network"}  # fmt: skip
_LINES = (
    ("1 / PSNR", "inverse_psnr", "#1f5fa8"),
    ("1 - SSIM", "dissimilarity", "#2c8a4b"),
    ("1 - CR", "rest", "#8a2c7d"),
)


def draw_marginals(found: Sequence[Marginal], chosen: dict[str, int]) -> dict[str, bytes]:
    """Return an SVG for each axis.

    Parameters
    ----------
    found : sequence of Marginal
    chosen : dict
        Value of each axis at the trade-off point.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    out = {}
    for axis in AXES:
        own = [one for one in found if one.axis == axis]
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        FigureCanvasSVG(figure)
        panel = figure.subplots()
        for name, field, colour in _LINES:
            panel.plot([one.value for one in own], [getattr(one, field) for one in own], marker="o", color=colour,
                       label=name)  # fmt: skip
        panel.axvline(chosen[axis], color="#c0392b", linestyle="--", label="trade-off point")
        panel.set_xticks([one.value for one in own])
        panel.set_xlabel(_NAMES[axis])
        panel.set_ylabel("mean over the other axes")
        panel.legend()
        made = io.BytesIO()
        figure.savefig(made, format="svg", metadata={"Date": None})
        out[axis] = made.getvalue()
    return out
