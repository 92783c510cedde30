"""The tables of the papers on real scans: published figures beside ours, and the default at equal PSNR and bytes.

    python -m tools.paper_tables lossless fig2b mancini seed2 siren grid     # or some of them; --device cuda on a GPU
    python -m tools.readme_tables                                    # puts the tables into docs/papers.md

Results lie in tools/results/paper_tables.json, a row a line. A row that is there for the same settings is not measured
again, so a run that was stopped goes on; --again measures all rows of the named tables anew. Networks are those of
`inrstore convert --network` on cuts of the scans, small enough for one core: sizes and steps are in each row. The
default is `inrstore convert --psnr` with nothing else asked, on the same cut; its curve is interpolated. Bytes are
those of chunks, without the metadata of a store.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import inrstore
from inrstore.errors import QualityError
from tools.environment import sha256
from tools.paper_mancini import mancini
from tools.paper_rows import Array, Results, converted, cut_of, scan_path

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "tools" / "results" / "paper_tables.json"

CURVE = (22, 25, 28, 31, 34, 37, 40, 43, 46, 50)
"""PSNR in dB of the curve of the default."""


def curve_of(results: Results, name: str, cut: Sequence[Sequence[int]], folder: Path) -> list[tuple[float, int]]:
    """Return PSNR and bytes of the default, ascending."""
    points = []
    for asked in CURVE:

        def measure(asked: int = asked) -> dict[str, Any]:
            path, values = cut_of(name, cut, folder)
            return converted(path, values, folder, psnr=float(asked), device="cpu")

        row = results.row("default", {"scan": name, "cut": cut, "psnr": asked}, measure)
        points.append((row["psnr"] or 99.0, row["bytes"]))
    return sorted(set(points))


def beside(curve: Sequence[tuple[float, int]], psnr: float | None, size: int) -> dict[str, Any]:
    """Return the bytes of the default at a PSNR, and its PSNR at a size; None outside its curve."""
    levels, logs = [p for p, _ in curve], [math.log(b) for _, b in curve]
    at_psnr = at_size = None
    if psnr is not None and levels[0] <= psnr <= levels[-1]:
        at_psnr = round(math.exp(float(np.interp(psnr, levels, logs))))
    if logs[0] <= math.log(size) <= logs[-1]:
        at_size = round(float(np.interp(math.log(size), logs, levels)), 2)
    return {"default_bytes_at_psnr": at_psnr, "default_psnr_at_bytes": at_size}


def network_row(results: Results, table: str, settings: dict[str, Any], options: argparse.Namespace, folder: Path
            ) -> None:  # fmt: skip
    """Measure a network of the papers on a cut; what cannot be fitted is said, and leaves no row."""
    from inrstore.options import Network

    if (
        not {"steps", "units"} <= Network.__dataclass_fields__.keys()
        or "network" not in inrstore.convert.__kwdefaults__
    ):
        print(f"{table}: not run, this version has no networks of the papers")
        return None
    asked = {"preset": settings["preset"]} if "preset" in settings else {}
    if settings["network"]["name"] in PLANAR:
        asked["chunks"] = "auto"  # a slice each
    name, cut = settings["scan"], settings["cut"]
    if options.scans and name not in options.scans:
        return
    curve = curve_of(results, name, cut, folder)

    def measure() -> dict[str, Any]:
        path, values = cut_of(name, cut, folder)
        found = converted(path, values, folder, network=Network(**settings["network"]), device=options.device,
                          seed=options.seed, **asked)  # fmt: skip
        found["values"], found["sha256"] = values.size, sha256(scan_path(name))
        return {**found, **beside(curve, found["psnr"], found["bytes"])}

    try:
        results.row(table, {**settings, "device": options.device, "seed": options.seed}, measure)
    except QualityError as error:
        print(f"{table}: {json.dumps(settings)}: {error}", flush=True)


# ---- tables ------------------------------------------------------------------------------------------------

DWI_CUTS = {"s01": ((24, 104), (16, 112), (13, 15)), "s02": ((0, 72), (0, 72), (17, 19)),
            "s04": ((0, 95), (20, 124), (0, 2))}  # fmt: skip
PLANAR = ("siren2d", "siren2d-relu", "mlp-relu", "mlp-tanh", "mlp-siren")


def fig2b(results: Results, options: argparse.Namespace, folder: Path) -> None:
    """PSNR against compression ratio of dMRI: a network for each slice, and one of all slices."""
    for name, cut in DWI_CUTS.items():
        for kind in (*PLANAR, "siren3d"):
            for units in options.units:
                settings = {"scan": name, "cut": cut, "preset": "paper",
                            "network": {"name": kind, "layers": 3, "units": units, "steps": options.steps}}  # fmt: skip
                network_row(results, "fig2b", settings, options, folder)


CT_SLICE = ((64, 192), (64, 192), (48, 49))


def seed2(results: Results, options: argparse.Namespace, folder: Path) -> None:
    """Measure SIRENs of 2, 3 and 4 layers on a slice of CT, and those of a coarse slice with SRDenseNet."""
    for layers in (2, 3, 4):
        for second in ({}, {"downsample": 4, "channels": 4}):
            kind = "lanczos-siren-srdensenet" if second else "siren2d"
            network = {"name": kind, "layers": layers, "units": 128, "steps": options.steps, **second}
            settings = {"scan": "s10", "cut": CT_SLICE, "network": network}
            network_row(results, "seed2", settings, options, folder)


CUBES = {"s09": ((96, 128), (88, 120), (64, 96)), "s10": ((96, 128), (96, 128), (32, 64))}
"""Cubes of 32 voxels in brain and head; the paper's have 64."""


def siren(results: Results, options: argparse.Namespace, folder: Path) -> None:
    """Seed 3's table 3: SIRENs alone on a cube."""
    for name, cut in CUBES.items():
        for layers in (3, 4, 5, 6):
            for neurons in options.neurons:
                network = {"name": "siren3d", "layers": layers, "units": neurons, "steps": options.steps}
                network_row(results, "siren", {"scan": name, "cut": cut, "network": network}, options, folder)


def grid(results: Results, options: argparse.Namespace, folder: Path) -> None:
    """Seed 3's tables 4 to 6, from which 2, 7 and 8 follow: the whole system on the same cubes."""
    for name, cut in CUBES.items():
        for channels in (4, 8, 16):
            for scale in (2, 4, 8):
                for neurons in options.neurons:
                    network = {"name": "fourier-siren-srno", "layers": 3, "units": neurons, "steps": options.steps,
                               "downsample": scale, "channels": channels}  # fmt: skip
                    network_row(results, "grid", {"scan": name, "cut": cut, "network": network}, options, folder)


LOSSLESS = {"s07": (20, 76), "s10": (20, 76), "s11": (0, 10)}
"""Slices (z, first axis of the file for s07's sagittal ones) of the scans."""
TRAINED = ({"architecture": "cube", "radius": 2, "units": (32, 32), "steps": 6000},
           {"architecture": "pyramid", "radius": 0, "units": (32, 32), "steps": 6000})  # fmt: skip


def lossless_cut(name: str, folder: Path) -> tuple[Path, Array]:
    """Return the cut that networks are trained on and applied to."""
    import nibabel as nib

    shape = nib.load(scan_path(name)).shape
    axis = 0 if name == "s07" else 2
    return cut_of(name, [LOSSLESS[name] if i == axis else (0, shape[i]) for i in range(3)], folder)


def lossless(results: Results, options: argparse.Namespace, folder: Path) -> None:
    """Seed 4: bits per voxel of predictors trained on one scan and applied to another, and of the default."""
    from inrstore.chunk.encode import encode_chunks, encode_naming
    from inrstore.chunk.quality import Target
    from inrstore.chunk.shared import of as shared_of
    from inrstore.options import EncodeOptions
    from inrstore.store.parameter import read_parameter

    for name in LOSSLESS:

        def default(name: str = name) -> dict[str, Any]:
            _, values = lossless_cut(name, folder)
            began = time.perf_counter()
            (frame,) = encode_chunks([values], Target(lossless=True), EncodeOptions(threads=1))
            seconds, bits = time.perf_counter() - began, 8 * len(frame) / values.size
            return {"bits_per_voxel": round(bits, 4), "voxels": values.size, "encode_seconds": round(seconds, 1),
                    "sha256": sha256(scan_path(name))}  # fmt: skip

        results.row("lossless", {"scan": name, "slices": LOSSLESS[name], "coder": "default"}, default)
    for training in TRAINED:
        for learned in LOSSLESS:
            model = folder / f"{learned}-{training['architecture']}.model"
            for name in LOSSLESS:

                def measure(name: str = name, learned: str = learned, model: Path = model, training: Any = training
                        ) -> dict[str, Any]:  # fmt: skip
                    began = time.perf_counter()
                    if not model.exists():
                        asked = {**training, "radius": training["radius"] or None, "seed": options.seed}
                        inrstore.train([lossless_cut(learned, folder)[0]], model, device=options.device, **asked)
                    trained, parameter = time.perf_counter() - began, read_parameter(model)
                    _, values = lossless_cut(name, folder)
                    began = time.perf_counter()
                    (frame,) = encode_naming(shared_of(parameter), [values], EncodeOptions(threads=1))
                    assert frame is not None
                    whole = len(frame) + len(parameter) * 4 / 3
                    return {"bits_per_voxel": round(8 * len(frame) / values.size, 4), "voxels": values.size,
                            "bits_with_network": round(8 * whole / values.size, 4), "network_bytes": len(parameter),
                            "train_seconds": round(trained, 1),
                            "encode_seconds": round(time.perf_counter() - began, 1)}  # fmt: skip

                settings = {"scan": name, "slices": LOSSLESS[name], "coder": training["architecture"],
                            "trained_on": learned, "training": training, "device": options.device,
                            "seed": options.seed}  # fmt: skip
                results.row("lossless", settings, measure)


TABLES: dict[str, Callable[[Results, argparse.Namespace, Path], None]] = {
    "lossless": lossless, "fig2b": fig2b, "mancini": mancini, "seed2": seed2, "siren": siren, "grid": grid,
}  # fmt: skip


def numbers(text: str) -> tuple[int, ...]:
    """Return numbers with commas between them."""
    return tuple(int(part) for part in text.split(","))


def chosen(options: argparse.Namespace) -> Iterator[str]:
    """Yield the tables that are asked for."""
    yield from options.tables or TABLES


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m tools.paper_tables", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("tables", nargs="*", choices=[[], *TABLES], help="all if none is named")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--steps", type=int, default=300, help="of each fit")
    parser.add_argument(
        "--units", type=numbers, default=(32, 64), help="of the networks of fig2b; published 128,256,512"
    )
    parser.add_argument("--neurons", type=numbers, default=(30, 70), help="of siren and grid; published 30 to 230")
    parser.add_argument(
        "--scans", type=lambda text: text.split(","), default=[], help="of networks; all if none is named"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="forget the rows of the named tables first")
    options = parser.parse_args(arguments)
    results = Results(options.out)
    for name in chosen(options):
        if options.again:
            results.tables.pop(name, None)
        with tempfile.TemporaryDirectory(prefix="paper-tables-") as folder:
            TABLES[name](results, options, Path(folder))


if __name__ == "__main__":
    main()
