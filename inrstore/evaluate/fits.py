"""How fits went: a table of PSNR and loss against steps, and its picture."""

from __future__ import annotations

import io
import threading
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from inrstore.errors import MissingDependencyError
from inrstore.options import FitStep

HEADER = b"chunk,stage,step,loss,psnr\n"
_LINES = 24
"""Chunks that are drawn at most: of more every second one, or third."""
_SIZING = "size"


def require_matplotlib() -> None:
    """Raise `MissingDependencyError` unless pictures can be drawn."""
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise MissingDependencyError('drawing needs matplotlib: pip install "inrstore[all]"')


@dataclass
class FitTable:
    """The steps of fits, of whatever thread."""

    steps: list[FitStep] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __call__(self, step: FitStep) -> None:
        """Take a step."""
        with self._lock:
            self.steps.append(step)

    def csv(self) -> bytes:
        """Return a line for each step, chunk by chunk in the order of the fit."""
        ordered = sorted(self.steps, key=lambda step: step.chunk)
        lines = (f"{s.chunk},{s.stage},{s.step},{s.loss:.6g},{s.psnr:.4f}\n".encode() for s in ordered)
        return HEADER + b"".join(lines)

    def curves(self) -> dict[int, npt.NDArray[np.float64]]:
        """Return steps so far, loss and PSNR of each chunk, (looks, 3), without those that choose a size."""
        found: dict[int, list[tuple[float, float, float]]] = {}
        last: dict[int, FitStep] = {}
        for step in sorted(self.steps, key=lambda step: step.chunk):
            if step.stage.startswith(_SIZING):
                continue
            rows, before = found.setdefault(step.chunk, []), last.get(step.chunk)
            begun = before is None or before.stage != step.stage or step.step <= before.step
            done = rows[-1][0] if rows else 0.0
            gone = step.step if begun or before is None else step.step - before.step
            rows.append((done + gone, step.loss, step.psnr))
            last[step.chunk] = step
        return {chunk: np.array(rows) for chunk, rows in found.items()}

    def picture(self, title: str) -> bytes:
        """Return a PNG of PSNR (lines) and the logarithm of the loss (dashes) against steps.

        Raises
        ------
        MissingDependencyError
            Without matplotlib.
        """
        require_matplotlib()
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.2, 4.4), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        panel = figure.subplots()
        other = panel.twinx()
        curves = list(self.curves().values())
        thin = 1.2 if len(curves) < 4 else 0.6
        for number, rows in enumerate(curves[:: max(1, -(-len(curves) // _LINES))]):
            colour = f"C{number % 10}"
            panel.plot(rows[:, 0], rows[:, 2], "-", color=colour, linewidth=thin)
            other.plot(rows[:, 0], np.log10(np.maximum(rows[:, 1], 1e-300)), "--", color=colour, linewidth=thin)
        panel.set(xlabel="step", ylabel="PSNR, dB (lines)", title=title)
        other.set_ylabel("log10 of the loss (dashes)")
        panel.grid(True, linewidth=0.3)
        out = io.BytesIO()
        figure.savefig(out, format="png", metadata={"Software": None})
        return out.getvalue()
