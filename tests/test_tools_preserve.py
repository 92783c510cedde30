"""The bench of `preserve`: a search begins with what other scans tell."""

from __future__ import annotations

import pytest

from tools.bench_preserve import curve_of_others


def test_the_scan_that_is_searched_is_left_out():
    rows = [{"part": "curves", "scan": scan, "measure": "fa", "multiple": multiple, "loss": loss * multiple}
            for scan, loss in (("a", 0.01), ("b", 0.04), ("c", 7.0)) for multiple in (1.0, 0.5)]  # fmt: skip
    rows.append({"part": "noise", "scan": "a", "estimator": "x", "sigma": 1.0})
    assert curve_of_others(rows, "c", "fa") == [(0.5, pytest.approx(0.01)), (1.0, pytest.approx(0.02))]
    assert curve_of_others(rows, "c", "md") is None
