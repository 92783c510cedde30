"""What the suites of zarr and numcodecs find with this codec: nothing that is ours; each exception has a reason."""

from __future__ import annotations

import json

from tools import peers_suites


def test_a_failure_is_ours_unless_it_is_there_without_us_or_allowed(monkeypatch):
    monkeypatch.setattr(peers_suites, "ALLOWED", (("test_size", "[0-9] bytes", "counts bytes"),))
    found = {"a": ["passed", ""], "b": ["failed", "x"], "c": ["failed", "y"], "test_size[1]": ["failed", "7 bytes"],
             "test_size[2]": ["failed", "z"]}  # fmt: skip
    judged = peers_suites.judge(found, {"b": ["failed", "x"], "c": ["passed", ""]})
    assert judged["failed_without_us"] == ["b"] and judged["ours"] == {"c": "y", "test_size[2]": "z"}
    assert judged["allowed"] == {"counts bytes": ["test_size[1]"]}
    assert (judged["passed"], judged["failed"]) == (1, 4)


def test_the_committed_results_have_no_failure_of_ours():
    results = json.loads(peers_suites.RESULT.read_text())
    assert len(results) >= 2
    for name, entry in results.items():
        assert entry["versions"]["zarr"] in name
        wanted = {f"{suite} ({how})" for suite in peers_suites.SUITES for how in ("none", "default", "explicit")}
        assert set(entry["suites"]) == wanted | {peers_suites.NUMCODECS}
        for judged in entry["suites"].values():
            assert judged["passed"] and not judged["ours"]
            assert set(judged["allowed"]) <= {reason for _, _, reason in peers_suites.ALLOWED}
