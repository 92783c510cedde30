"""Pictures of the page for the guide: s01 beside its store, and beside three, in a window of two widths.

    python -m tools.screenshots FOLDER [--data DIR] [--stores DIR]

Stores that are missing are made first, which takes some minutes. Needs Chromium, and the viewer (make web).
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from PIL import Image

import inrstore
from inrstore.views.serve import Server
from tools.browser import Page

SCAN = "sub-s01/dwi/sub-s01_acq-philips32dir_dwi.nii.gz"
QUALITIES = (44, 40, 34)
SIZES = ((1000, 700), (1600, 900))
VOLUME = 12
READY = "document.querySelector('.viewer')?.dataset.state === 'ready'"


def stores_of(scan: Path, folder: Path) -> list[Path]:
    """Return a store of the scan for each quality; those that are there are taken as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for psnr in QUALITIES:
        found.append(folder / f"s01-{psnr}dB.ozx")
        if not found[-1].exists():
            inrstore.convert(scan, found[-1], psnr=psnr)
    return found


def take(page: Page, url: str, out: Path) -> None:
    """Write a picture of the page at each size, with a volume in the middle of the scan."""
    page.go(url)
    page.wait(READY)
    page.value(f"viewer.show({VOLUME})")
    for width, height in SIZES:
        page.size(width, height)
        page.value("new Promise((done) => setTimeout(done, 1000))")  # until what has another size is drawn again
        picture = Image.open(io.BytesIO(page.picture())).convert("RGB")
        path = out.with_name(f"{out.name}-{width}.png")
        few = picture.quantize(256, Image.Quantize.MEDIANCUT, kmeans=2, dither=Image.Dither.NONE)
        few.save(path, optimize=True)
        print(f"{path}: {path.stat().st_size:,} bytes")


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the real scans")
    parser.add_argument("--stores", type=Path, default=Path("demo-output/stores"), help="stores that are kept")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    scan = asked.data / SCAN
    stores = stores_of(scan, asked.stores)
    with Page(*SIZES[0], limit=300) as page:
        with Server(stores[1], port=0, source=scan) as server:
            take(page, server.url, asked.folder / "view")
        with Server([str(store) for store in stores], port=0, source=scan) as server:
            take(page, server.url, asked.folder / "compare")


if __name__ == "__main__":
    main()
