"""The page that `inrstore view`, `compare` and `serve` show: what it decodes, measures, draws, and says."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import google_crc32c
import nibabel as nib
import numpy as np
import pytest
from checks import vectors
from common import ROOT, needs_torch, random_image, real_scan, write_nifti

import inrstore
from inrstore.errors import ConfigurationError
from inrstore.evaluate.metrics import compare as measure
from inrstore.store.reader import Store
from tools.browser import CHROMIUM, Page

pytest.importorskip("aiohttp")
from inrstore.views import browser as view
from inrstore.views.serve import Server

WEB = ROOT / "inrstore" / "views" / "web"
READY = "document.querySelector('.viewer')?.dataset.state === 'ready'"
FAILED = "document.querySelector('[role=alert]')?.innerText"


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A browser for all of these tests."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    if not (WEB / "dist" / "niivue.js").is_file():
        pytest.skip("the viewer is not bundled: make web, which needs npm and its registry")
    with Page(800, 560, limit=90) as made:
        yield made


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory) -> tuple[Path, Path]:
    """Slices of a real diffusion scan, and a store of it at 40 dB."""
    scan = nib.load(real_scan("sub-s01")).dataobj
    folder = tmp_path_factory.mktemp("diffusion")
    write_nifti(folder / "dwi.nii", scan.get_unscaled()[..., 8:18, :6], slope=scan.slope)
    (folder / "dwi.bval").write_text("0 1000 1000 1000 1000 1000\n")
    (folder / "dwi.bvec").write_text("0 1 0 0 0.6 0.8\n0 0 1 0 0.8 0\n0 0 0 1 0 0.6\n")
    inrstore.convert(folder / "dwi.nii", folder / "dwi.zarr", psnr=40, preset="fast")
    return folder / "dwi.nii", folder / "dwi.zarr"


@pytest.fixture(scope="module")
def lossless(tmp_path_factory) -> tuple[Path, Path]:
    """A small image of volumes in several chunks, and its store."""
    folder = tmp_path_factory.mktemp("lossless")
    write_nifti(folder / "bold.nii.gz", random_image((21, 18, 12, 5)))
    inrstore.convert(folder / "bold.nii.gz", folder / "bold.zarr", lossless=True, chunks=(5, 7, 21))
    return folder / "bold.nii.gz", folder / "bold.zarr"


def decoded(store: Path) -> np.ndarray:
    """Return the image of a store, (t, z, y, x), as Python decodes it."""
    opened = Store(store)
    out = np.empty(opened.grid.shape, opened.dtype)
    for index in opened.grid:
        out[opened.grid.region(index)] = opened.chunk(index)
    return out.reshape(-1, *out.shape[-3:])


def shown(page: Page, panel: str = "units[0].decoded") -> np.ndarray:
    """Return the values that a panel shows, flat."""
    found = page.value(
        f"(() => {{ const v = viewer.{panel}.values; const b = new Uint8Array(v.buffer, v.byteOffset, v.byteLength);"
        "let s = ''; for (let i = 0; i < b.length; i += 8192) s += String.fromCharCode(...b.subarray(i, i + 8192));"
        "return [v.constructor.name, btoa(s)]; })()"
    )
    return np.frombuffer(base64.b64decode(found[1]), np.dtype(found[0].removesuffix("Array").lower()))


def facts(page: Page, number: int = 0) -> dict[str, str]:
    """Return what is said of a store."""
    parts = page.value(
        f"[...viewer.units[{number}].facts.children].map((d) => [...d.children].map((e) => e.innerText))"
    )
    return dict(parts)


def check_drawn(page: Page, least: int = 20) -> None:
    """Check that each canvas has a picture: many shades, and not all of one colour."""
    image = pytest.importorskip("PIL.Image")
    whole = np.asarray(image.open(io.BytesIO(page.picture())).convert("RGB")).astype(int)
    boxes = page.value(
        "viewer.panels.map((p) => p.canvas.getBoundingClientRect()).map((r) => [r.x, r.y, r.width, r.height])"
    )
    for x, y, w, h in boxes:
        part = whole[int(y) : int(y + h), int(x) : int(x + w)]
        assert len(np.unique(part.sum(2))) > least and part.std() > 5, (x, y, w, h)


def check_quiet(page: Page, url: str) -> None:
    """Check that nothing was asked of anybody else, and that the console has no error."""
    assert page.errors == []
    assert all(request.startswith((url, "data:", "blob:")) for request in page.requests)


@needs_torch
def test_a_diffusion_scan_is_decoded_in_the_page_to_the_values_and_the_psnr_of_python(page, diffusion):
    source, store = diffusion
    with Server(store, port=0, source=source) as server:
        page.go(server.url)
        page.wait(READY)
        expected, original = decoded(store), np.asarray(nib.load(source).dataobj.get_unscaled()).T
        for volume in (0, 1):
            assert (shown(page) == expected[volume].ravel()).all()
            assert (shown(page, "original") == original[volume].ravel()).all()
            error = (expected[volume].astype(float) - original[volume]) * nib.load(source).dataobj.slope
            assert np.allclose(shown(page, "units[0].error"), error.ravel(), rtol=1e-6)
            said = facts(page)
            psnr = measure(original[volume], expected[volume]).psnr
            assert abs(float(said["of this volume"].removesuffix(" dB")) - psnr) <= 0.01
            assert said["PSNR of all"] == f"{Store(store).stated().psnr:.2f} dB"
            assert said["mode"] == "transform" and said["promised"] == "psnr 40"
            check_drawn(page)
            page.key("ArrowRight")
            page.wait(f"viewer.number === {volume + 1} && {READY}")
        assert "b = 1000" in page.value("document.querySelector('.controls').innerText")
        assert page.value("viewer.units[0].decoded.note.textContent") == "in this page"
        chunks = [request for request in page.requests if "/image/c/" in request]
        assert len(chunks) == len(set(chunks)) == 1 and "/inr/" in chunks[0]
        check_quiet(page, server.url)


@needs_torch
def test_cross_hairs_are_linked_and_the_values_below_them_are_those_of_their_voxel(page, diffusion):
    source, store = diffusion
    with Server(store, port=0, source=source) as server:
        page.go(server.url)
        page.wait(READY)
        x, y = page.value("(() => { const r = viewer.original.canvas.getBoundingClientRect();"
                          "return [r.x + 0.4 * r.width, r.y + 0.3 * r.height] })()")  # fmt: skip
        page.click(x, y)
        page.key("ArrowUp")
        page.wait("viewer.voxel[2] === 6")
        i, j, k = page.value("viewer.voxel")
        mm = page.value("viewer.mm")
        assert np.allclose(nib.load(source).affine @ [i, j, k, 1], [*mm, 1], atol=0.05)
        slope = nib.load(source).dataobj.slope
        for panel, values in (
            ("original", nib.load(source).dataobj.get_unscaled().T),
            ("units[0].decoded", decoded(store)),
        ):
            text = page.value(f"viewer.{panel}.readout.textContent")
            value = int(values[0, k, j, i])
            assert text.endswith(f"(stored {value})") or value == 0
            assert np.isclose(float(text.split()[0]), value * slope, rtol=1e-4)
        page.key("+")
        page.drag(x, y, 30, 20, "middle")
        scenes = "viewer.panels.map(({ viewer: { scene } }) => [...scene.crosshairPos, ...scene.pan2Dxyzmm].join())"
        (scene,) = set(page.value(scenes))
        assert scene.endswith(",1.25") and np.hypot(*np.array(scene.split(",")[3:5], float)) > 5
        page.drag(x, y, 30, 20, "right")
        low, high = (float(page.value(f"viewer.ends[{i}].value")) for i in (0, 1))
        windows = page.value("viewer.panels.map(({ viewer: { volumes: [v] } }) => [v.cal_min, v.cal_max])")
        assert np.allclose(windows[:2], [[low, high]] * 2, rtol=1e-4) and windows[2][0] == -windows[2][1]
        assert not page.value("viewer.autoWindow.checked")
        check_quiet(page, server.url)


@needs_torch
def test_a_ct_in_mode_av1_is_decoded_in_the_page_to_the_values_of_python(page, tmp_path):
    scan = real_scan("sub-s11")
    write_nifti(tmp_path / "ct.nii.gz", nib.load(scan).dataobj.get_unscaled()[160:352, 160:352, :4])
    inrstore.convert(tmp_path / "ct.nii.gz", tmp_path / "ct.ozx", psnr=40, preset="fast")
    with Server(tmp_path / "ct.ozx", port=0, source=tmp_path / "ct.nii.gz") as server:
        page.go(server.url)
        page.wait(READY)
        assert facts(page)["mode"] == "av1"
        assert (shown(page) == decoded(tmp_path / "ct.ozx")[0].ravel()).all()
        value = float(page.value("viewer.units[0].decoded.readout.textContent").split()[0])
        i, j, k = page.value("viewer.voxel")
        assert value == decoded(tmp_path / "ct.ozx")[0, k, j, i]
        check_drawn(page)
        check_quiet(page, server.url)


@needs_torch
def test_stores_are_compared_side_by_side_with_bytes_psnr_and_errors_of_each(page, diffusion, tmp_path):
    source, store = diffusion
    inrstore.convert(source, tmp_path / "other.ozx", psnr=32, preset="fast")
    stores = [str(store), str(tmp_path / "other.ozx")]
    original = np.asarray(nib.load(source).dataobj.get_unscaled()).T
    with Server(stores, port=0, source=source) as server:
        page.go(server.url)
        page.wait(READY)
        for number, one in enumerate(stores):
            said, expected = facts(page, number), decoded(Path(one))
            assert (shown(page, f"units[{number}].decoded") == expected[0].ravel()).all()
            psnr = measure(original[0], expected[0]).psnr
            assert abs(float(said["of this volume"].removesuffix(" dB")) - psnr) <= 0.01
            ratio = original.nbytes / Store(one).stored_bytes()
            assert said["ratio"] == f"{ratio:.1f} : 1"
        assert page.value("viewer.units.map((u) => u.decoded.element.innerText.includes('in this page'))") == [
            True,
            True,
        ]
        assert "other.ozx" in page.value("document.body.innerText")
        assert page.value("document.querySelectorAll('canvas').length") == 5
        check_drawn(page)
        check_quiet(page, server.url)


def test_volumes_and_slabs_of_several_chunks_are_put_together_and_only_those_are_fetched(page, lossless):
    source, store = lossless
    with Server(store, port=0) as server:
        page.go(server.url)
        page.wait(READY)
        original = np.asarray(nib.load(source).dataobj).T
        counts = Store(store).grid.counts
        for volume in (0, 3):
            page.value(f"viewer.show({volume})")
            assert (shown(page) == original[volume].ravel()).all()
        chunks = [request for request in page.requests if "/image/c/" in request]
        assert len(chunks) == len(set(chunks)) == np.prod(counts[1:])
        assert page.value("document.querySelectorAll('canvas').length") == 1
        assert facts(page)["promised"] == "lossless"
        check_drawn(page)
        check_quiet(page, server.url)


def test_volumes_of_five_axes_come_one_behind_the_other_and_one_chunk_is_decoded_once_for_all(page, tmp_path):
    image = random_image((11, 9, 8, 4, 3))
    write_nifti(tmp_path / "many.nii.gz", image)
    inrstore.convert(tmp_path / "many.nii.gz", tmp_path / "many.ozx", lossless=True)
    volumes = image.T.reshape(-1, 8, 9, 11)
    with Server(tmp_path / "many.ozx", port=0) as server:
        page.go(f"{server.url}web/page/index.html")  # at this address an empty page
        found = page.value(
            "import('/web/page/image.js').then(async ({ RemoteImage, getJson }) => {"
            "const image = new RemoteImage(await getJson('image.json?path=many.nii'));"
            "const all = await Promise.all([0, 5, 6, 7, 11].map((n) => image.volume(n)));"
            "return all.map((values) => [...values]) })"
        )
        assert (np.array(found) == volumes[[0, 5, 6, 7, 11]].reshape(5, -1)).all()
        chunks = [request for request in page.requests if "/image/c/" in request]
        assert len(chunks) == len(set(chunks)) > 0


def test_an_image_with_an_axis_that_no_graphics_card_has_room_for_is_refused_in_words(page, tmp_path):
    write_nifti(tmp_path / "long.nii.gz", random_image((17000, 1, 1)))
    inrstore.convert(tmp_path / "long.nii.gz", tmp_path / "long.ozx", lossless=True)
    with Server(tmp_path / "long.ozx", port=0) as server:
        page.go(server.url)
        assert "along an axis can be drawn; inrstore mount or export" in page.wait(FAILED)
        assert not any("/image/c/" in request for request in page.requests)
        check_quiet(page, server.url)


@pytest.mark.parametrize("case", ["finite", "not finite", "equal", "constant"])
def test_the_page_measures_what_the_package_measures(page, lossless, case):
    rng = np.random.default_rng(3)
    original = rng.normal(0, 10, 500) if case != "constant" else np.full(500, 7.0)
    other = original + (rng.normal(0, 1, 500) if case != "equal" else 0)
    if case == "not finite":
        original[[3, 50]], other[3] = np.nan, np.nan
        original[9] = other[9] = np.inf
    expected = measure(original.reshape(5, 10, 10), other.reshape(5, 10, 10))
    with Server(lossless[1], port=0) as server:
        page.go(f"{server.url}web/page/index.html")
        arrays = [f"Float64Array.from({json.dumps(v.tolist())})" for v in (original, other)]
        found = page.value(f"import('/web/page/measure.js').then((m) => m.compared({', '.join(arrays)}))")
    assert found["psnr"] == (None if expected.psnr is None else pytest.approx(expected.psnr, abs=1e-9))
    assert found["rmse"] == pytest.approx(expected.rmse, rel=1e-12)
    assert found["largest"] == pytest.approx(expected.max_error, rel=1e-12)


def test_a_store_that_the_page_cannot_decode_is_decoded_by_the_server_and_the_page_says_why(page, lossless, tmp_path):
    source, _ = lossless
    inrstore.convert(source, tmp_path / "v2.zarr", lossless=True, zarr_format=2)
    original = np.asarray(nib.load(source).dataobj).T
    with Server(tmp_path / "v2.zarr", port=0) as server:
        page.go(server.url)
        page.wait(READY)
        assert (shown(page) == original[0].ravel()).all()
        assert page.value("viewer.units[0].decoded.note.textContent") == "by the server: this is a store of Zarr v2"


def test_a_mode_that_the_page_does_not_have_is_decoded_by_the_server_and_the_page_says_which(page, lossless):
    source, store = lossless
    frame = bytearray(next(iter(vectors("subset").values())))
    frame[5] = 99
    frame[-4:] = google_crc32c.value(bytes(frame[:-4])).to_bytes(4, "little")
    replace = f"""const real = fetch; globalThis.fetch = async (url, ...rest) => String(url).includes("/inr/") &&
      String(url).includes("/image/c/") ? new Response(Uint8Array.from(atob("{base64.b64encode(frame).decode()}"),
      (c) => c.charCodeAt(0))) : real(url, ...rest)"""
    with Server(store, port=0) as server:
        script = page.call("Page.addScriptToEvaluateOnNewDocument", source=replace)["identifier"]
        try:
            page.go(server.url)
            page.wait(READY)
        finally:
            page.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)
        assert (shown(page) == np.asarray(nib.load(source).dataobj).T[0].ravel()).all()
        said = page.value("viewer.units[0].decoded.note.textContent")
        assert said.startswith("by the server: image/c/") and "99 is not supported here" in said
        check_quiet(page, server.url)


def test_a_chunk_that_was_changed_on_the_disk_is_an_error_in_words_and_no_picture(page, lossless, tmp_path):
    shutil.copytree(lossless[1], tmp_path / "bold.zarr")
    chunk = next((tmp_path / "bold.zarr/image/c").rglob("0/0/0/0"))
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    with Server(tmp_path / "bold.zarr", port=0, source=lossless[0]) as server:
        page.go(server.url)
        page.wait(READY)
        texts = page.value("viewer.panels.map((p) => p.message.hidden ? '' : p.message.innerText)")
        assert texts[0] == "" and all("image/c/0/0/0/0 was changed" in text for text in texts[1:])
        assert page.value("getComputedStyle(viewer.units[0].decoded.message).visibility") == "visible"
        assert page.value("viewer.original.readout.textContent") and page.value("viewer.voxel")


def test_a_chunk_that_was_changed_on_its_way_is_an_error_that_names_chunk_and_field(page, lossless):
    replace = """const real = fetch; globalThis.fetch = async (url, ...rest) => {
      const answer = await real(url, ...rest);
      if (!String(url).includes("/image/c/")) return answer;
      const data = new Uint8Array(await answer.arrayBuffer());
      data[data.length >> 1] ^= 1;
      return new Response(data); }"""
    with Server(lossless[1], port=0) as server:
        script = page.call("Page.addScriptToEvaluateOnNewDocument", source=replace)["identifier"]
        try:
            page.go(server.url)
            said = page.wait(FAILED)
        finally:
            page.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)
        assert said.startswith("image/c/0/") and "frame_crc: the frame is damaged" in said
        check_quiet(page, server.url)


def test_a_server_that_is_gone_and_a_source_that_is_another_image_are_errors_in_words(page, lossless, tmp_path):
    write_nifti(tmp_path / "other.nii.gz", random_image((20, 18, 12, 5)))
    server = Server(lossless[1], port=0, source=tmp_path / "other.nii.gz")
    try:
        page.go(server.url)
        page.wait(READY)
        assert "is not what the store was made from" in page.value("viewer.original.message.innerText")
        assert page.value("viewer.units[0].decoded.message.hidden")
        assert "no original to compare with" in page.value("viewer.units[0].error.message.innerText")
    finally:
        server.close()
    page.value("viewer.show(1)")
    assert "the server does not answer" in page.value("viewer.original.message.innerText")


def test_without_the_bundle_the_page_says_how_to_get_it(page, lossless):
    with Server(lossless[1], port=0) as server:
        page.call("Network.setBlockedURLs", urls=["*/niivue.js"])
        try:
            page.go(server.url)
            assert "make web" in page.wait(FAILED)
        finally:
            page.call("Network.setBlockedURLs", urls=[])


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """An archive of three small images."""
    top = tmp_path_factory.mktemp("archive")
    for number in (1, 2, 3):
        folder = top / f"in/sub-0{number}/anat"
        folder.mkdir(parents=True)
        write_nifti(folder / f"sub-0{number}_T1w.nii.gz", random_image((16, 15, 12), seed=number))
    inrstore.convert(top / "in", top / "out", lossless=True)
    return top / "out"


def test_an_archive_is_a_list_with_a_filter_and_each_image_a_page(page, archive):
    with Server(archive, port=0) as server:
        page.go(server.url)
        page.wait("document.querySelectorAll('tbody a').length === 3")
        assert "16 × 15 × 12" in page.value("document.querySelector('tbody').innerText")
        page.value("document.querySelector('input').focus()")
        page.call("Input.insertText", text="SUB-02")
        page.wait("document.querySelectorAll('tbody a').length === 1")
        assert page.value("document.querySelector('.count').innerText") == "1 image"
        page.value("document.querySelector('tbody a').click()")
        page.wait(READY)
        source = archive.parent / "in/sub-02/anat/sub-02_T1w.nii.gz"
        assert (shown(page) == np.asarray(nib.load(source).dataobj).T.ravel()).all()
        check_quiet(page, server.url)
        page.go(f"{server.url}#sub-09%2Fanat%2Fsub-09_T1w.nii")
        assert "no such" in page.wait(FAILED)


def test_a_list_of_many_images_has_pages(page, archive):
    replace = """const real = fetch; globalThis.fetch = async (url, ...rest) => {
      if (!String(url).includes("index.json")) return real(url, ...rest);
      const query = new URL(url).searchParams, offset = +query.get("offset"), limit = +query.get("limit");
      const images = Array.from({ length: Math.min(limit, 250 - offset) }, (_, i) => ({
        path: `sub-${offset + i}.nii`, shape: null, dtype: null, psnr: null, stored_bytes: 1e6, source_bytes: 5e6 }));
      return Response.json({ name: "many", kind: "archive", total: 250, images }); }"""
    with Server(archive, port=0) as server:
        script = page.call("Page.addScriptToEvaluateOnNewDocument", source=replace)["identifier"]
        try:
            page.go(server.url)
            for first in (0, 100, 200, 100):
                page.wait(f"document.querySelector('tbody a')?.innerText === 'sub-{first}.nii'")
                shown = page.value("document.querySelectorAll('tbody tr').length")
                assert shown == min(100, 250 - first)
                forward = page.value("document.querySelector('.pages button:last-child').disabled")
                assert forward == (first == 200)
                page.value(
                    f"document.querySelector('.pages button:{'first' if first == 200 else 'last'}-child').click()"
                )
        finally:
            page.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)
        row = page.value("document.querySelector('tbody tr').innerText").split("\t")
        assert row[1:] == ["", "", "", "1.00 MB", "5.0 : 1"]
        check_quiet(page, server.url)


def test_the_chunks_that_the_page_keeps_have_a_limit_and_the_oldest_go_first(page, lossless):
    with Server(lossless[1], port=0) as server:
        page.go(server.url)
        page.wait(READY)
        found = page.value(
            """import("./web/page/image.js").then(({ Kept, MOST_KEPT }) => {
            const kept = new Kept(100), chunk = () => new Uint8Array(40);
            kept.put("a", chunk()); kept.put("b", chunk()); kept.get("a"); kept.put("c", chunk());
            kept.put("large", new Uint8Array(101));
            return [[...kept.chunks.keys()].join(), kept.total, MOST_KEPT]; })"""
        )
        assert found == ["a,c", 80, 2**29]


def test_the_index_has_the_images_with_some_words_in_their_paths(archive):
    with Server(archive, port=0) as server:
        for words, count in (("", 3), ("SUB-02/an", 1), ("%25", 0), ("t1w", 3)):
            with urllib.request.urlopen(f"{server.url}index.json?limit=2&filter={words}") as answer:
                found = json.load(answer)
            assert found["total"] == count and len(found["images"]) == min(2, count)


# ---- the commands


def test_view_serves_the_page_of_an_image_at_a_free_port_until_it_is_interrupted(archive, tmp_path):
    image = archive / "sub-02/anat/sub-02_T1w.nii.gz"  # as the source had it; the archive has a store
    command = [sys.executable, "-m", "inrstore.cli", "view", str(image), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        url = process.stdout.readline().strip()
        base, _, fragment = url.partition("#")
        assert fragment == "sub-02%2Fanat%2Fsub-02_T1w.nii.gz"
        with urllib.request.urlopen(base) as answer:
            assert b"web/page/main.js" in answer.read()
        with urllib.request.urlopen(f"{base}image.json?path={fragment}") as answer:
            assert json.load(answer)["shape"] == [12, 15, 16]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, process.stderr.read()


def test_view_opens_the_browser_at_the_page_unless_it_is_told_not_to(monkeypatch, lossless):
    opened: list[str] = []
    monkeypatch.setattr(view.webbrowser, "open", lambda url: opened.append(url) or len(opened) == 1)
    monkeypatch.setattr(view.serve, "serve", lambda where, ready, **options: ready("http://127.0.0.1:1/"))
    printed: list[str] = []
    told: list[str] = []
    for open_it in (True, True, False):
        view.show("dwi.ozx", image="a b/ü.nii", ready=printed.append, tell=told.append, open_it=open_it)
    assert printed == ["http://127.0.0.1:1/#a%20b%2F%C3%BC.nii"] * 3
    assert opened == printed[:2] and told == ["no browser could be opened; open the address in one"]


def test_a_path_into_an_archive_names_an_image_and_any_other_path_is_left_alone(archive, tmp_path):
    assert view.parted(f"{archive}/sub-01/anat/sub-01_T1w.nii") == (str(archive), "sub-01/anat/sub-01_T1w.nii")
    for path in (str(archive), f"{archive}/sub-01/anat/sub-01_T1w.ozx", f"{tmp_path}/none.ozx", "s3://a/b.ozx"):
        assert view.parted(path) == (path, "")


@pytest.mark.parametrize(("count", "said"), [(0, "from 1 to 6"), (7, "7 stores: from 1 to 6")])
def test_too_few_or_too_many_stores_are_refused(lossless, count, said):
    with pytest.raises(ConfigurationError, match=said):
        Server([str(lossless[1])] * count, port=0)


def test_an_archive_is_no_store_to_compare_and_stores_of_one_name_are_told_apart(lossless, archive, tmp_path):
    with pytest.raises(ConfigurationError, match="is an archive; say which of its stores"):
        Server([str(archive)], port=0)
    other = shutil.copytree(lossless[1], tmp_path / "bold.zarr")
    with Server([str(lossless[1]), str(other)], port=0, source=lossless[0]) as server:
        with urllib.request.urlopen(f"{server.url}index.json") as answer:
            index = json.load(answer)
        assert index["kind"] == "compare" and index["name"] == "bold.nii.gz"
        assert [image["name"] for image in index["images"]] == [str(lossless[1]), str(other)]
        for number, image in enumerate(index["images"]):
            assert image["path"] == f"{number}/bold.nii" and image["has_source"]
            with urllib.request.urlopen(f"{server.url}inr/{image['store']}/zarr.json") as answer:
                assert answer.read() == (lossless[1] / "zarr.json").read_bytes()
        with urllib.request.urlopen(f"{server.url}image.json?path=1/bold.nii") as answer:
            image = json.load(answer)
        for address in (*image["urls"].values(), *(f"/nii/{file['path']}" for file in image["files"])):
            path = (
                address if address.count(".") and not address.endswith((".zarr", "image")) else f"{address}/zarr.json"
            )
            with urllib.request.urlopen(server.url + path[1:]) as answer:
                assert answer.status == 200 and "/1/" in path
        with urllib.request.urlopen(f"{server.url}nii/1/") as answer:
            assert b"/nii/1/bold.nii" in answer.read()
        for path in ("inr/2/bold.zarr/zarr.json", "nii/x/bold.nii", "original/0/bold.nii/5", "original/0/bold.nii/-1"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(server.url + path)


def test_a_volume_of_the_original_is_its_voxels_little_endian_whatever_the_file(tmp_path):
    image = random_image((7, 6, 5, 3), ">i2")
    write_nifti(tmp_path / "big.nii.gz", image.astype(">i2"))
    inrstore.convert(tmp_path / "big.nii.gz", tmp_path / "big.ozx", lossless=True)
    with Server(tmp_path / "big.ozx", port=0, source=tmp_path / "big.nii.gz") as server:
        for number in range(3):
            with urllib.request.urlopen(f"{server.url}original/big.nii/{number}") as answer:
                assert answer.read() == image[..., number].T.astype("<i2").tobytes()


# ---- what the page is made of


def test_every_file_of_the_page_is_in_the_wheel_and_names_nothing_outside():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["inrstore"]
    files = sorted((WEB / "page").iterdir())
    assert {"index.html", "main.js", "page.css"} <= {path.name for path in files}
    for path in (*files, WEB / "dist/niivue.js", WEB / "dist/licenses.txt"):
        assert any(fnmatch(path.relative_to(ROOT / "inrstore").as_posix(), pattern) for pattern in patterns), path
    for path in files:
        text = path.read_text()
        assert not re.search(r"https?://|//[a-z]+\.[a-z]|url\(", re.sub(r"^\s*(//|\*).*$", "", text, flags=re.M)), path
        for name in re.findall(r"""(?:from|import\(|new URL\()\s*"([^"]+)\"""", text):
            target = (path.parent / name).resolve()
            assert target.is_file() or "dist" in target.parts or name == "../../", (path, name)


def test_what_is_bundled_is_pinned_named_by_no_registry_and_never_committed():
    folder = ROOT / "tools/web"
    wanted = json.loads((folder / "package.json").read_text())["devDependencies"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in wanted.values())
    lock = json.loads((folder / "package-lock.json").read_text())["packages"]
    assert all(lock[f"node_modules/{name}"]["version"] == version for name, version in wanted.items())
    assert all("resolved" not in one and one["integrity"].startswith("sha512-") for name, one in lock.items() if name)
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"dist/", "node_modules/"} <= set(ignored)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_without_npm_make_says_so_in_one_line_and_goes_on(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copytree(ROOT / "tools/web", tmp_path / "tools/web", ignore=shutil.ignore_patterns("node_modules"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/npm").write_text("#!/bin/sh\necho no registry >&2\nexit 1\n")
    (tmp_path / "bin/npm").chmod(0o755)
    # A make that runs these tests would be told of by its own: "Entering directory".
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    environment["PATH"] = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(["make", "viewer"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    (line,) = done.stdout.splitlines()
    assert "npm or its registry is missing" in line and "make web" in line
    done = subprocess.run(["make", "web"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode and "no registry" in done.stderr


def test_the_licences_of_all_that_is_bundled_come_with_it():
    if not (WEB / "dist" / "niivue.js").is_file():
        pytest.skip("the viewer is not bundled: make web, which needs npm and its registry")
    text = (WEB / "dist/licenses.txt").read_text()
    assert "@niivue/niivue 0.69.0 (BSD-2-Clause)\n\nBSD 2-Clause License" in text
    assert text.count("Permission") + text.count("Redistribution") >= 6
    assert "licenses.txt" in (WEB / "dist/niivue.js").read_text()[:200]
