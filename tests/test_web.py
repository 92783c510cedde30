"""The decoder in JavaScript gives what the vectors say, in Node and in Chromium."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from fnmatch import fnmatch
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import zarr
from checks import ROOT, VECTORS, decoder, index_of, vectors

import inrstore
from tools import web_kernel

NODE = shutil.which("node")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ZARRITA = "zarrita@0.7.5"
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
WEB = ROOT / "inrstore" / "views" / "web"
HERE = ROOT / "tests" / "web"


def bundle(*folders: str) -> list[dict[str, Any]]:
    """Return the entries of the vectors of these folders with their names and bytes."""
    return [{**entry, "name": name, "data": base64.b64encode(data).decode()}
            for folder in folders for (name, data), entry in zip(
                vectors(folder).items(), index_of(VECTORS / folder).values(), strict=True)]  # fmt: skip


def in_node(module: Path, function: str, argument: Any, *flags: str) -> Any:
    """Return what a function of a module gives, in Node."""
    command = [str(NODE), *flags, str(HERE / "node.js"), str(module), function]
    done = subprocess.run(command, input=json.dumps(argument), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Pages(SimpleHTTPRequestHandler):
    """Serves the repository, an argument, and takes one result."""

    extensions_map: ClassVar = {**SimpleHTTPRequestHandler.extensions_map, ".js": "text/javascript"}

    def do_GET(self) -> None:
        if self.path != "/argument":
            return super().do_GET()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.argument)  # type: ignore[attr-defined]

    def do_POST(self) -> None:
        result = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()
        self.server.take(json.loads(result))  # type: ignore[attr-defined]

    def log_message(self, format: str, *args: Any) -> None:
        pass


def in_chromium(module: Path, function: str, argument: Any, folder: Path) -> Any:
    """Return what a function of a module gives, in a page of headless Chromium."""
    results: list[Any] = []
    done = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Pages, directory=str(ROOT)))
    server.argument = json.dumps(argument).encode()  # type: ignore[attr-defined]
    server.take = lambda result: (results.append(result), done.set())  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    path = module.relative_to(ROOT).as_posix()
    url = f"http://127.0.0.1:{server.server_port}/tests/web/page.html?module=/{path}&function={function}"
    browser = subprocess.Popen(
        [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
         "--remote-debugging-port=0", f"--user-data-dir={folder}", url],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        assert done.wait(120), "the page gave no result"
    finally:
        browser.terminate()
        try:
            browser.wait(20)
        except subprocess.TimeoutExpired:
            browser.kill()
            browser.wait()
        server.shutdown()
        thread.join()
        server.server_close()
    return results[0]


def all_vectors() -> list[dict[str, Any]]:
    return bundle("subset", "uncommon", "shared", "faulty")


@needs_node
def test_every_vector_in_node_gives_its_values_or_is_refused_by_field_and_av1_by_one_clear_error():
    entries = all_vectors()
    result = in_node(HERE / "vectors.js", "runVectors", entries)
    assert result["failures"] == []
    assert result["passed"] + len(result["unsupported"]) == len(entries)
    unsupported = set(result["unsupported"])
    assert all(name.startswith("av1-") for name in unsupported)
    assert {e["name"] for e in entries if e.get("mode") == "av1"} <= unsupported


@needs_chromium
def test_every_vector_in_chromium_gives_its_values_or_is_refused_by_field(tmp_path):
    entries = all_vectors()
    result = in_chromium(HERE / "vectors.js", "runVectors", entries, tmp_path / "profile")
    # Frames of AV1 that are cut are for its decoder to refuse (section 15.2); what one lets pass, the checksum settles.
    result["failures"] = [text for text in result["failures"] if "; CorruptChunkError av1.stream is wanted" not in text
                          or ": CorruptChunkError decoded_crc:" not in text]  # fmt: skip
    assert result["failures"] == []
    assert result["unsupported"] == []
    assert result["passed"] >= len(entries) - 2


@needs_node
def test_av1_in_node_takes_samples_from_a_decoder_that_is_given(monkeypatch):
    read, made = decoder(), []
    dav1d = sys.modules["decoder_av1"].DECODERS["dav1d"]
    monkeypatch.setitem(
        sys.modules["decoder_av1"].DECODERS, "dav1d", lambda *given: made.append(dav1d(*given)) or made[-1]
    )
    entries = [e for e in bundle("subset", "uncommon") if e["mode"] == "av1"]
    for entry in entries:
        read.decode(base64.b64decode(entry["data"]))
        entry["samples"] = base64.b64encode(made[-1].astype("<u2").tobytes()).decode()
    assert in_node(HERE / "vectors.js", "runVectors", entries) == {
        "passed": len(entries), "failures": [], "unsupported": []
    }  # fmt: skip


@needs_node
def test_networks_give_the_same_bits_without_webassembly():
    entries = [e for e in bundle("subset", "uncommon") if e["mode"] == "siren" or "corrected" in e["name"]]
    entries = [e for e in entries if e["mode"] != "av1"]
    without = "data:text/javascript,delete globalThis.WebAssembly"
    found = in_node(HERE / "vectors.js", "runVectors", entries, "--import", without)
    assert found == {"passed": len(entries), "failures": [], "unsupported": []}


def test_the_kernel_is_what_its_tool_makes():
    assert (WEB / "kernel.js").read_text() == web_kernel.text()


@needs_node
def test_another_shape_or_dtype_is_refused_and_av1_at_once_and_a_part_of_a_buffer_is_taken():
    frames = vectors("subset")
    given = {"data": frames["siren-i2-4d"], "raw": frames["raw-f8-4d"], "av1": frames["av1-i2-3d"]}
    found = in_node(HERE / "vectors.js", "misuse", {k: base64.b64encode(v).decode() for k, v in given.items()})
    assert found == {"shape": "shape", "ndim": "shape", "dtype": "dtype", "unknown": "RangeError", "right": "none",
                     "buffer": "none", "sync": "none", "av1": "mode"}  # fmt: skip


@needs_node
def test_changed_bytes_under_right_checksums_are_refused_by_a_chunk_error_and_nothing_else():
    small = [e for e in bundle("subset", "uncommon") if len(e["data"]) < 3000]
    found = in_node(HERE / "vectors.js", "fuzz", {"bundle": small, "count": 1500})
    assert found["crashes"] == []
    assert found["refused"] > 1000


def test_every_file_of_the_decoder_is_in_the_wheel_and_imports_only_its_neighbours():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["inrstore"]
    files = sorted(WEB.iterdir())
    assert {"inrstore.js", "zarrita.js", "package.json", "README.md"} <= {path.name for path in files}
    for path in files:
        assert any(fnmatch(path.relative_to(ROOT / "inrstore").as_posix(), pattern) for pattern in patterns), path
    for path in WEB.glob("*.js"):
        code = re.sub(r"/\*.*?\*/|^//.*?$", "", path.read_text(), flags=re.S | re.M)
        imported = re.findall(r"""(?:from|import\()\s*["']([^"']+)""", code)
        assert all(name.startswith("./") and (WEB / name).is_file() for name in imported), path
    package = json.loads((WEB / "package.json").read_text())
    assert package["version"] == project["project"]["version"]
    assert all((WEB / target).is_file() for target in package["exports"].values())


@pytest.fixture(scope="module")
def zarrita(tmp_path_factory) -> str:
    """Return the path of zarrita's main module, installed for these tests."""
    npm = shutil.which("npm")
    if NODE is None or npm is None:
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("zarrita")
    command = [npm, "install", "--prefix", str(folder), "--ignore-scripts", "--no-audit", "--no-fund",
               "--prefer-offline", "--fetch-retries=0", ZARRITA]  # fmt: skip
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        pytest.skip("the registry of npm does not answer")
    if done.returncode:
        pytest.skip(f"npm cannot install {ZARRITA}: {done.stderr.strip()[-200:]}")
    return str(folder / "node_modules" / "zarrita" / "dist" / "src" / "index.js")


def scan(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return smooth values with noise."""
    rng = np.random.default_rng(5)
    ramps = np.add.outer(np.add.outer(*(60 * np.sin(np.arange(n) / 7) for n in shape[:2])), np.arange(shape[2]))
    values = ramps.reshape(*shape[:3], *[1] * (len(shape) - 3)) + rng.normal(0, 4, shape) + 300
    return np.round(values).astype(dtype)


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "options"),
    [
        ("scan.zarr", "int16", (24, 20, 9, 4), {"lossless": True}),
        ("scan.zarr", "int16", (24, 20, 9, 4), {"psnr": 40, "mode": "transform"}),
        ("scan.ozx", "float32", (24, 20, 9), {"lossless": True}),
    ],
    ids=["lossless", "transform", "one-file"],
)
def test_zarrita_reads_a_converted_store_to_the_values_of_python(tmp_path, zarrita, name, dtype, shape, options):
    nibabel = pytest.importorskip("nibabel")
    source, store = tmp_path / "scan.nii.gz", tmp_path / name
    nibabel.save(nibabel.Nifti1Image(scan(dtype, shape), np.eye(4)), source)
    inrstore.convert(source, store, **options)
    where = zarr.storage.ZipStore(store, mode="r") if name.endswith(".ozx") else store
    group = zarr.open_group(where, mode="r")
    names = sorted(name for name, _ in group.arrays())
    found = in_node(HERE / "store.js", "readStore", {"zarrita": zarrita, "store": str(store), "arrays": names})
    assert "image" in names
    for name in names:
        values = np.asarray(group[name])
        assert found[name]["shape"] == list(values.shape)
        assert base64.b64decode(found[name]["data"]) == values.tobytes(), name
