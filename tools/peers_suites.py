"""Run the tests of zarr-python and numcodecs with this codec in the place of theirs.

    python -m tools.peers_suites --zarr zarr-python --numcodecs numcodecs --python venv/bin/python

`--zarr` and `--numcodecs` are checkouts of the versions that the Python has installed, with pytest, pytest-asyncio,
hypothesis and this package; nothing in them is changed. Each suite of zarr runs three times: as it is, with zarr's
default serializer (version 3) and compressor (version 2) replaced, and with every BytesCodec besides. A failure is
ours unless it is there without us too, or `ALLOWED` says why it has to be. Results go to
tools/results/peers_suites.json, under the version of zarr; the exit code is 1 if a failure is ours.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "tools" / "results" / "peers_suites.json"
SUITES = ("test_codecs", "test_array.py", "test_indexing.py", "test_properties.py")
NUMCODECS = "numcodecs"
INI = """[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = ignore
markers =
    gpu: needs a GPU
    slow_hypothesis: slow
    benchmark: not run
"""
ALLOWED = (
    (
        r"test_sharding.py::test_delete_empty_shards",
        r"assert \d+ == ",
        "counts the bytes of an uncompressed shard",
    ),
    (r"test_blosc.py::test_typesize", r"Blosc size mismatch", "counts the bytes that blosc makes of bytes"),
    (r"test_sharding_unit.py::test_bulk_decode", r"bulk fast path", "expects the fast path of plain bytes"),
    (r"test_scale_offset.py::test_.*decode", r"chunk: magic", "puts numbers into the store in the place of a chunk"),
    (r"test_bytes.py::test_endian\[.*scalar", r"x89INR", "compares stored bytes with the numbers"),
    (
        r"test_indexing.py::test_set_selection_rejects",
        r"out of bounds",
        "expects the first of two errors of zarr; which is first depends on the order in which chunks are read",
    ),
    (r"test_array.py::TestInfo", r"_serializer|_compressors", "expects the name of the default codec in a description"),
    (r"test_array.py::test_nbytes_stored", r"assert \d+ == \d+", "counts the bytes of metadata and bytes"),
    (r"test_array.py::test_roundtrip_numcodecs", r"'name': 'inrstore'", "expects the name of the default codec"),
)
"""Patterns of the name of a test and of its failure, and the reason why it fails with any codec but its own."""


def run(python: str, folder: Path, tests: list[str], how: str, extra: list[str]) -> dict[str, list[str]]:
    """Return how tests ended, by name."""
    with tempfile.TemporaryDirectory() as temporary:
        ini, outcomes = Path(temporary, "pytest.ini"), Path(temporary, "outcomes.json")
        ini.write_text(INI)
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), *extra]),
            "INRSTORE_INJECT": how,
            "INRSTORE_OUTCOMES": str(outcomes),
            "OPENBLAS_NUM_THREADS": "1",
        }
        options = ["-q", "--tb=short", "-p", "no:cacheprovider", "-p", "tools.peers_inject", "--hypothesis-seed=0"]
        command = [python, "-m", "pytest", *options, "-c", str(ini), f"--rootdir={folder}", *tests]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if not outcomes.exists() or done.returncode > 1:
            sys.exit(f"{' '.join(command)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
        found: dict[str, list[str]] = json.loads(outcomes.read_text())
        return found


def judge(found: dict[str, list[str]], without: dict[str, list[str]]) -> dict[str, Any]:
    """Return counts, and failures by whose they are."""
    failed = {name: error for name, (outcome, error) in found.items() if outcome == "failed"}
    theirs = sorted(name for name in failed if without.get(name, [""])[0] == "failed")
    allowed: dict[str, list[str]] = {}
    ours: dict[str, str] = {}
    for name, error in sorted(failed.items()):
        if name in theirs:
            continue
        reason = next((why for test, text, why in ALLOWED if re.search(test, name) and re.search(text, error)), None)
        if reason is None:
            ours[name] = error
        else:
            allowed.setdefault(reason, []).append(name)
    counts = Counter(outcome for outcome, _ in found.values())
    return {
        "passed": counts["passed"],
        "skipped": counts["skipped"],
        "failed": counts["failed"],
        "failed_without_us": theirs,
        "allowed": allowed,
        "ours": ours,
    }


def versions(python: str) -> dict[str, str]:
    """Return versions of a Python and its packages."""
    code = (
        "import json, platform, importlib.metadata as m\n"
        "print(json.dumps({'python': platform.python_version(), **{n: m.version(n) for n in "
        "('zarr', 'numcodecs', 'numpy', 'hypothesis', 'pytest')}}))"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def save(path: Path, entry: dict[str, Any]) -> None:
    """Put the results of one version of zarr beside those of others."""
    results = json.loads(path.read_text()) if path.exists() else {}
    results[f"zarr {entry['versions']['zarr']}"] = entry
    path.write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n")


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--zarr", type=Path, required=True, help="a checkout of zarr-python")
    parser.add_argument("--numcodecs", type=Path, required=True, help="a checkout of numcodecs")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--suites", nargs="*", default=SUITES, help="below tests/ of zarr-python")
    parser.add_argument("--result", type=Path, default=RESULT)
    asked = parser.parse_args(arguments)
    asked.python = shutil.which(asked.python) or asked.python
    asked.python = os.path.abspath(asked.python)  # suites run elsewhere; a link of an environment stays one
    said = versions(asked.python)
    entry: dict[str, Any] = {"versions": said, "suites": {}}
    common = next(p.parent for p in asked.numcodecs.resolve().glob("**/tests/common.py"))
    with tempfile.TemporaryDirectory() as folder:  # of its own, so that no conftest of numcodecs is found
        shutil.copy(ROOT / "tools" / "peers_numcodecs.py", Path(folder, "test_peers_numcodecs.py"))
        found = run(asked.python, Path(folder), ["test_peers_numcodecs.py"], "none", [str(common)])
    entry["suites"][NUMCODECS] = judge(found, {})
    for suite in asked.suites:
        tests, without = [f"tests/{suite}"], {}
        for how in ("none", "default", "explicit"):
            found = run(asked.python, asked.zarr.resolve(), tests, how, [])
            without = found if how == "none" else without
            entry["suites"][f"{suite} ({how})"] = judge(found, without)
            save(asked.result, entry)
            print(
                suite, how, {k: v for k, v in entry["suites"][f"{suite} ({how})"].items() if type(v) is int}, flush=True
            )
    ours = {name: error for judged in entry["suites"].values() for name, error in judged["ours"].items()}
    for name, error in ours.items():
        print(f"ours: {name}: {error}")
    return 1 if ours else 0


if __name__ == "__main__":
    sys.exit(main())
