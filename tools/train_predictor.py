"""Train a network that predicts values from their neighbours, for lossless stores of images like these.

    python -m tools.train_predictor a_T1w.nii.gz b_T1w.nii.gz --out t1w.model
    python -m tools.train_predictor ct.nii.gz --out ct.model --hood pyramid --widths 1024,512,256,128 --device cuda

The file holds the integers of the network (specification section 13.2). It is used as

    zarr.create_array(path, data=a, serializer=InrCodec(lossless=True, shared=[Path("t1w.model").read_bytes()]), ..)

and travels in the metadata of the array. A chunk names it when that makes it smaller.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore import limits
from inrstore.chunk import dtypes
from inrstore.chunk.inr.fit.lossless import Plan, train
from inrstore.chunk.neural.encode import steps_of
from inrstore.chunk.neural.neighbourhood import PYRAMID, Neighbourhood, cube, fold
from inrstore.errors import ConfigurationError
from inrstore.sources import read_source


def hood_of(text: str) -> Neighbourhood:
    """Return the neighbourhood that `cube:2`, `pyramid` or a list of radii (`3,2,1`) names."""
    if text == "pyramid":
        return PYRAMID
    kind, _, rest = text.rpartition(":")
    return cube(int(rest)) if kind == "cube" else Neighbourhood(tuple(int(r) for r in text.split(",")))


def values_of(path: Path) -> npt.NDArray[Any]:
    """Return the values of an image as a network sees them: (m, z, y, x), the least 0, in steps."""
    voxels = read_source(path).voxels
    found = steps_of(np.ascontiguousarray(voxels, dtypes.little(voxels.dtype)), None)
    if found is None:
        raise ConfigurationError(f"{path}: values of more than {limits.MAX_PREDICTOR_RANGE + 1} levels")
    return found[2].reshape(fold(voxels.shape))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(prog="python -m tools.train_predictor", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="the model file")
    parser.add_argument("--hood", type=hood_of, default=cube(2), help="cube:1 .. cube:5, pyramid, or radii by slice")
    parser.add_argument("--widths", default="32,32", help="units of the hidden layers")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--rate", type=float, default=4e-3, help="1e-3 for wide layers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_args(arguments)
    plan = Plan(neighbourhood=options.hood, widths=tuple(int(w) for w in options.widths.split(",") if w), relative=True,
                steps=options.steps, batch=options.batch, rate=options.rate, seed=options.seed)  # fmt: skip
    images = [values_of(path) for path in options.images]
    network = train(images, plan, options.device, report=lambda step, error: print(f"{step}: {error:.2f}", flush=True))
    if len(network.data) > limits.MAX_SHARED_BYTES:
        raise ConfigurationError(f"the network has {len(network.data)} bytes, too many for a codec configuration")
    options.out.write_bytes(network.data)
    print(f"{options.out}: {network.parameters} parameters in {len(network.data)} bytes, {network.digest.hex()}")


if __name__ == "__main__":
    main()
