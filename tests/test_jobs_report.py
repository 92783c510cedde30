"""The report shows every image, names every failure, escapes what strangers wrote, and takes no memory for rows."""

from __future__ import annotations

import base64
import html
import json
import re
import shutil
import subprocess
import sys
import tracemalloc
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from archives import make_archive, small_tree
from common import check_refused, random_image, write_nifti
from markupsafe import escape

import inrstore
from inrstore.archive import report as reporting
from inrstore.archive.outcomes import Outcome
from inrstore.archive.report import duration, number, picture_key, picture_of, size
from inrstore.errors import MissingDependencyError, SourceError, StoreError
from inrstore.evaluate.picture import STRIP_SIDE, strip
from inrstore.sources import read_source
from inrstore.store.convert import convert_image
from inrstore.store.options import Options
from inrstore.store.quality import Quality
from inrstore.store.reader import Store
from inrstore.store.slices import decode_slice, middle, slice_through

JOB = {"tool": "inrstore 0.1.0", "source": {"kind": "tree", "name": "/data/my scans"}, "options": {"preset": "fast"}}
PNG = b"\x89PNG\r\n\x1a\n"
VOID = {"meta", "img", "br"}


def image(number=0, **values):
    measures = {"psnr": 41.5, "max_error": 7.0, "worst_voxel": [1, 2, 3], "lossless": False, "ratio": 80.0,
                "voxel_bytes": 80_000, "modes": {"siren": 2, "byteplanes": 1}}  # fmt: skip
    given = {"kind": "image", "key": f"a/{number}.nii.gz", "out": f"a/{number}.ozx", "status": "converted",
             "source_bytes": 30_000, "stored_bytes": 1_000, "seconds": 61.0, "measures": measures}  # fmt: skip
    return Outcome(**{**given, **values})


def write_report(path, outcomes, *more):
    return reporting.write_report(path, lambda: outcomes, *more)


class Page(HTMLParser):
    """Reads a page; every element that is opened must be closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.rows, self.cells, self.pictures, self.text = [], [], None, [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append([values["data-v"], ""])
        if tag == "img":
            self.pictures.append(values)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if "td" in self.open:
            self.rows[-1][-1][1] += data


def page(path):
    return Page(path.read_text(encoding="utf-8"))


def test_every_image_has_a_row_with_its_figures(tmp_path):
    outcomes = [image(0), image(1, measures={"lossless": True, "max_error": 0.0, "ratio": 3.0, "modes": {"raw": 1}}),
                image(2, status="copied", kind="image", note="RGB voxels", measures={}),
                Outcome(kind="copy", key="x.json", out="x.json", status="copied", stored_bytes=5),
                Outcome(kind="zip", key="1.zip", out=".inrstore/zips/1.zip.json", status="copied")]  # fmt: skip
    path = write_report(tmp_path / "r.html", outcomes, JOB)
    head, first, second, third = page(path).rows
    assert head == []
    assert [text for _, text in first] == ["a/0.nii.gz", "30 kB", "1 kB", "80", "41.50", "7(1, 2, 3)", "1 min",
                                           "2 siren, 1 byteplanes", ""]  # fmt: skip
    assert [value for value, _ in first][:7] == ["a/0.nii.gz", "30000", "1000", "80.0", "41.5", "7.0", "61.0"]
    assert second[4] == ["inf", "every bit"] and second[5][1] == "0"
    assert third[0][1] == "a/2.nii.gzRGB voxels" and third[4] == ["", "as a file"]
    text = path.read_text()
    assert "<b>2</b><small>1 kB, as they were" in text, "the image kept as a file, and the JSON file"
    assert "x.json" not in text and "<h2 class=bad>" not in text


def test_failures_stand_above_the_table_with_their_reasons(tmp_path):
    outcomes = [image(0), Outcome(kind="zip", key="1.zip", out="1", status="failed", note="not a whole zip")]
    text = write_report(tmp_path / "r.html", outcomes, JOB).read_text()
    assert text.index("Failed (1)") < text.index("not a whole zip") < text.index("<table>")
    assert re.search(r"<b>1</b><small>listed below", text)


def test_totals_are_of_all_rows(tmp_path):
    outcomes = [image(n, resumed=n < 2, measures={**image().measures, "psnr": 40.0 + n}) for n in range(5)]
    words = " ".join(page(write_report(tmp_path / "r.html", outcomes, JOB)).text)
    for word in ("2 from earlier runs", "150 kB", "files; 400 kB of voxels", "5 kB", "80", "40.0 dB", "5 min",
                 "10 siren, 5 byteplanes", "my scans", "nothing is missing"):  # fmt: skip
        assert word in words, word
    assert "/data" not in words


def test_what_strangers_wrote_is_escaped(tmp_path):
    bad = '<script>alert("1")</script>&"\''
    measures = {"modes": {bad: 1}, "worst_voxel": [bad], "max_error": 1.0}
    outcomes = [image(key=f"{bad}/{bad}.nii", note=bad, measures=measures),
                Outcome(kind="copy", key=bad, out=bad, status="failed", note=bad)]  # fmt: skip
    job = {"tool": bad, "source": {"name": bad}, "options": {bad: {bad: [bad]}}}
    text = write_report(tmp_path / "r.html", outcomes, job, lambda _: PNG).read_text()
    assert text.count("<script>") == 1 and bad not in text
    found = Page(text)
    assert found.rows[1][0][0] == f"{bad}/{bad}.nii"
    assert escape(bad) in text


@pytest.mark.parametrize("job", [{}, {"source": None, "options": []}, {"source": "x", "options": {"a": None}}])
@pytest.mark.parametrize(
    "measures", [{}, {"psnr": "x", "modes": 3, "worst_voxel": 1, "ratio": None, "max_error": True}]
)
def test_a_record_that_lacks_things_still_makes_a_page(tmp_path, job, measures):
    found = page(write_report(tmp_path / "r.html", [image(measures=measures)], job))
    assert len(found.rows) == 2
    assert len(page(write_report(tmp_path / "r.html", [], job)).rows) == 1


def shown(values):
    """Return the bytes of a picture that stands in a page."""
    return base64.b64decode(values["src"].removeprefix("data:image/png;base64,"), validate=True)


def test_pictures_stand_in_the_page(tmp_path):
    path = write_report(tmp_path / "my report.html", [image(0), image(1), image(2)], JOB,
                        lambda outcome: None if "1" in outcome.key else PNG + outcome.key.encode())  # fmt: skip
    found = page(path).pictures
    assert [shown(values) for values in found] == [PNG + b"a/0.nii.gz", PNG + b"a/2.nii.gz"]
    path = write_report(path, [image(0)], JOB)
    assert page(path).pictures == [] and sorted(p.name for p in tmp_path.iterdir()) == ["my report.html"]


class Many:
    def __init__(self, count):
        self.count = count

    def __iter__(self):
        return (image(n) for n in range(self.count))


@pytest.mark.parametrize("width", [820, 1000, 1319, 1321, 1600])
def test_nothing_of_the_page_is_cut_off(tmp_path, width):
    """Pictures stand below the figures where there is no room beside them."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no Chromium to lay the page out")
    measures = {"psnr": 41.5, "max_error": 123456.7, "worst_voxel": [255, 255, 175, 1199], "ratio": 1234.5,
                "modes": {"transform": 1024, "byteplanes": 12, "constant": 3}}  # fmt: skip
    key = "sub-01/ses-20240101/func/sub-01_ses-20240101_task-averylongname_run-01_space-MNI152_desc-preproc_bold.nii.gz"
    noise = np.random.default_rng(0).integers(0, 255, (96, 96)).astype(np.uint8)
    picture = strip(noise, noise[::-1])
    rows = [image(number, key=key.replace("01", f"{number:02}"), measures=measures) for number in range(3)]
    text = write_report(tmp_path / "page.html", rows, JOB, lambda _: picture).read_text()
    # The page is laid out in a frame, whose width the window of a browser without a head cannot get wrong.
    probe = """<script>onload = () => {
      const cut = [...document.querySelectorAll("td, th, img, .cards div, h1, p, li")]
        .filter(one => one.getBoundingClientRect().right > innerWidth + 1 || one.scrollWidth > one.clientWidth + 1);
      const scrolled = document.documentElement.scrollWidth;
      top.document.title = JSON.stringify([innerWidth, scrolled, cut.map(one => one.outerHTML)]);
    }</script>"""
    inside = html.escape(text.replace("</body>", f"{probe}</body>"))
    frame = f'<iframe style="width:{width}px;height:2000px;border:0" srcdoc="{inside}"></iframe>'
    (tmp_path / "probe.html").write_text(f"<!doctype html><title>-</title>{frame}")
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
         "--dump-dom", f"--window-size={width + 100},2000", f"file://{tmp_path / 'probe.html'}"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    found, scrolled, cut = json.loads(html.unescape(done.stdout.split("<title>")[1].split("</title>")[0]))
    assert (found, cut) == (width, [])
    assert scrolled <= width


def test_memory_does_not_grow_with_the_number_of_rows(tmp_path):
    peaks = []
    for count in (200, 5000):
        tracemalloc.start()
        write_report(tmp_path / "r.html", Many(count), JOB)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert len(page(tmp_path / "r.html").rows) == 5001
    assert peaks[1] < peaks[0] + 200_000


def test_a_page_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    check_refused(lambda: write_report(tmp_path / "file/r.html", [], JOB), StoreError, "r.html", folder=tmp_path)


def test_without_jinja_nothing_is_begun(tmp_path, monkeypatch):
    source = small_tree(tmp_path / "in")
    monkeypatch.setitem(sys.modules, "jinja2", None)
    check_refused(
        lambda: inrstore.convert(source, tmp_path / "archive", report=tmp_path / "r.html"),
        MissingDependencyError, "inrstore[archive]", folder=tmp_path,
    )  # fmt: skip


def test_an_archive_keeps_the_pictures_of_its_images(tmp_path):
    source = small_tree(tmp_path / "in")
    path = tmp_path / "pages/r.html"
    archive = make_archive(source, tmp_path / "archive", max_error=2.0, report=path)
    first = page(path)
    assert len(first.pictures) == 3
    for values in first.pictures:
        assert shown(values).startswith(PNG)
    assert (archive / picture_key("b/dwi.ozx")).is_file()
    make_archive(source, archive, max_error=2.0, report=path)
    assert [row[1:6] for row in page(path).rows] == [row[1:6] for row in first.rows], "resumed, and as before"
    assert len(page(path).pictures) == 3


# ---- pictures


def pixels(png):
    from matplotlib.image import imread

    return np.rint(imread(BytesIO(png), format="png")[..., :3] * 255).astype(int)


def test_a_strip_shows_before_after_and_error():
    before = np.zeros((4, 6))
    before[:, 3:] = 100
    after = before.copy()
    after[3, 0], after[0, 5] = 50, 80  # brighter at the top left, darker at the bottom right
    found = pixels(strip(before, after))
    rows, columns = found.shape[0], (found.shape[1] - 12) // 3
    assert (rows, columns) == (168, 252)
    first, second, error = (found[:, start : start + columns] for start in (0, columns + 6, 2 * columns + 12))
    assert first[0, 0].tolist() == [0, 0, 0] and first[0, -1].tolist() == [255, 255, 255]
    assert second[0, 0, 0] > 100 > first[0, 0, 0]
    assert error[0, 0, 0] > error[0, 0, 2], "red where it is brighter"
    assert error[-1, -1, 2] > error[-1, -1, 0], "blue where it is darker"
    assert error[-1, 0].tolist() == [0, 0, 0] and error[0, -1].tolist() == [0, 0, 0]


def test_the_marked_voxel_is_where_it_says():
    before = np.zeros((64, 64))
    found = pixels(strip(before, before, mark=(60, 3)))
    yellow = np.argwhere((found == (255, 230, 0)).all(axis=2))
    side = found.shape[0]
    row, column = (yellow.min(axis=0) + yellow.max(axis=0)) / 2
    assert abs(row - (side - 1 - 60 * side // 64)) <= 1
    assert abs(column - (found.shape[1] - side + 3 * side // 64)) <= 1


def test_one_bad_voxel_of_a_large_slice_is_not_lost():
    before = np.zeros((1000, 1500))
    after = before.copy()
    after[123, 457] = -1
    found = pixels(strip(before, after))
    assert found.shape[1] <= 3 * STRIP_SIDE + 12
    assert (found[:, -250:, 2] > 100).sum() == 1


@pytest.mark.parametrize("dtype", ["uint8", "int64", "uint64", "float32", "float64"])
@pytest.mark.parametrize(
    "shape, aspect", [((1, 1), 1.0), ((1, 300), 1.0), ((7, 5), 2.5), ((7, 5), 0.4), ((3, 3), float("nan"))]
)
def test_slices_of_all_kinds_become_pictures(dtype, shape, aspect):
    before = random_image(shape, dtype)
    png = strip(before, before + np.ones((), dtype), aspect=aspect, mark=(0, 0))
    found = pixels(png)
    assert 1 <= found.shape[0] <= STRIP_SIDE and found.shape[1] <= 3 * STRIP_SIDE + 12
    assert png == strip(before, before + np.ones((), dtype), aspect=aspect, mark=(0, 0))


def test_values_that_are_not_finite_are_drawn():
    before = np.array([[np.nan, 1.0], [np.inf, 2.0]])
    assert pixels(strip(before, before)).any()
    assert not pixels(strip(np.full((3, 3), np.nan), np.zeros((3, 3))))[:, -60:].any()


@pytest.mark.parametrize("shape", [(9, 8, 7, 3), (9, 8, 7), (9, 8), (90,), (3, 4, 2, 2, 2)])
def test_the_picture_goes_through_the_worst_voxel(tmp_path, monkeypatch, shape):
    from inrstore.store import layout

    monkeypatch.setattr(layout, "CHUNK_VOXELS", 64)
    monkeypatch.setattr(layout, "LOSSLESS_VALUES", 64)
    monkeypatch.setattr(layout, "TRANSFORMED_VALUES", 64)
    source = read_source(write_nifti(tmp_path / "a.nii", random_image(shape)))
    report = convert_image(source, str(tmp_path / "s.ozx"), Options(quality=Quality(max_error=3.0)))
    store = Store(tmp_path / "s.ozx")
    assert picture_of(store, source).startswith(PNG)
    index = slice_through(store.dims, report.worst_voxel[::-1])
    error = np.abs(source.voxels[index].astype(int) - decode_slice(store, index).astype(int))
    assert error.max() == report.max_error > 0


def test_a_lossless_image_is_shown_in_its_middle(tmp_path):
    source = read_source(write_nifti(tmp_path / "a.nii", random_image((9, 8, 7))))
    convert_image(source, str(tmp_path / "s.ozx"), Options(quality=Quality(lossless=True)))
    part = source.voxels[slice_through(("z", "y", "x"), middle(source.voxels.shape))]
    assert picture_of(Store(tmp_path / "s.ozx"), source) == strip(part, part)


@pytest.mark.parametrize("shape", [(9, 8, 7, 3), (9, 8, 7), (9, 8)])
def test_what_a_mask_left_out_is_no_error(tmp_path, shape):
    mask = np.zeros(shape[:3], "uint8")
    mask[2:5, 3:6] = 1
    write_nifti(tmp_path / "mask.nii", mask)
    source = read_source(write_nifti(tmp_path / "a.nii", random_image(shape)))
    options = Options(quality=Quality(max_error=2.0), mask=str(tmp_path / "mask.nii"))
    report = convert_image(source, str(tmp_path / "s.ozx"), options)
    found = pixels(picture_of(Store(tmp_path / "s.ozx"), source))
    side = found.shape[0] // 8
    error = found[:, -9 * side :].reshape(8, side, 9, side, 3)[::-1]
    drawn = error.max(axis=(1, 3, 4)) > 0
    assert report.max_error > 0 and drawn.any()
    near = np.zeros((8, 9), bool)
    near[2:7, 1:6] = True  # the corners of the mark lie around the worst voxel
    assert not drawn[~mask.any(axis=tuple(range(2, len(shape[:3])))).T & ~near].any()


def test_a_picture_of_another_source_is_refused(tmp_path):
    source = read_source(write_nifti(tmp_path / "a.nii", random_image((9, 8, 7))))
    convert_image(source, str(tmp_path / "s.ozx"), Options(quality=Quality(lossless=True)))
    other = read_source(write_nifti(tmp_path / "b.nii", random_image((9, 8, 6))))
    check_refused(lambda: picture_of(Store(tmp_path / "s.ozx"), other), SourceError, "shape", folder=tmp_path)


# ---- numbers for people


@pytest.mark.parametrize(
    "count, text",
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (12345, "12.3 kB"), (999_499, "999 kB"), (999_999, "1 MB"),
     (1_500_000, "1.5 MB"), (5 * 10**18, "5,000 PB")],
)  # fmt: skip
def test_sizes(count, text):
    assert size(count) == text


@pytest.mark.parametrize(
    "seconds, text",
    [(0.123, "0.12 s"), (12.4, "12 s"), (59.7, "1 min"), (3599, "1 h 0 min"), (360_000, "100 h 0 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_numbers_have_no_exponent_when_they_are_large():
    assert [number(value, 3) for value in (None, 1234567.0, 891.2, 12.34, 0.00012)] == [
        "–", "1,234,567", "891", "12.3", "0.00012"
    ]  # fmt: skip
