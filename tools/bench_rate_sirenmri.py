"""SirenMRI as published, in our own words, on one slice: Mancini, Jones and Palombo, arXiv:2208.01602.

One network for each axial slice: coordinates (y, x) in [-1, 1] to all measurements, three sine layers of 256, omega_0
30 in each, a linear layer; every measurement scaled to [0, 1] by its least and largest value in the slice; Adam at
3e-4, 2,000 steps over all pixels of the slice, mean square error; the best iterate is kept. Stored are float32 weights
under LZMA (and, for us to count everything, the scaling of each measurement).
"""

from __future__ import annotations

import lzma
import math
import time
from itertools import pairwise
from typing import Any

import numpy as np

from inrstore.options import available_cores
from tools.bench_rate_data import Array, Volume

WIDTH, LAYERS, OMEGA_0, RATE, STEPS, SEED = 256, 3, 30.0, 3e-4, 2000, 0


def central_slice(volume: Volume) -> Volume:
    """Return the slice that is coded, as a volume with one z."""
    z = volume.image.shape[-3] // 2
    image = np.ascontiguousarray(volume.image[..., z : z + 1, :, :])
    return Volume(f"{volume.name}, z = {z}", image, f"z {z}")


def measure(volume: Volume, steps: int = STEPS) -> dict[str, Any]:
    """Fit, store, decode and measure a volume with one z.

    Parameters
    ----------
    volume : Volume
        (t, 1, y, x) or (1, y, x).
    steps : int
        2,000 as published.
    """
    import torch

    torch.manual_seed(SEED)
    torch.set_num_threads(available_cores())
    wall, begin = time.perf_counter(), time.process_time()
    targets = torch.from_numpy(volume.unit.reshape(len(volume.unit), -1).T.copy())  # (pixel, t)
    coordinates = _grid(*volume.image.shape[-2:])
    sizes = [2] + [WIDTH] * LAYERS + [targets.shape[1]]
    weights = []
    for number, (inputs, outputs) in enumerate(pairwise(sizes)):
        span = 1 / inputs if number == 0 else math.sqrt(6 / inputs) / OMEGA_0
        weights.append(torch.empty(outputs, inputs).uniform_(-span, span).requires_grad_())
        weights.append(torch.empty(outputs).uniform_(-1, 1).div_(math.sqrt(inputs)).requires_grad_())
    optimiser = torch.optim.Adam(weights, lr=RATE)
    least, kept = math.inf, [w.detach().clone() for w in weights]
    for _ in range(steps):
        optimiser.zero_grad()
        loss = torch.mean((_forward(coordinates, weights) - targets) ** 2)
        if loss.item() < least:
            least, kept = loss.item(), [w.detach().clone() for w in weights]
        loss.backward()
        optimiser.step()
    stored = lzma.compress(b"".join(w.numpy().tobytes() for w in kept), preset=9)
    encode_s, encode_cpu_s = time.perf_counter() - wall, time.process_time() - begin
    begin = time.process_time()
    decoded = _decode(stored, sizes, coordinates, volume)
    decode_s = time.process_time() - begin
    return {
        "bytes": len(stored) + 2 * volume.image.itemsize * len(volume.unit),
        "psnr": volume.measure(decoded).psnr,
        "setting": f"{LAYERS} x {WIDTH}, {steps} steps, seed {SEED}, {available_cores()} threads",
        "encode_s": round(encode_s, 2),
        "encode_cpu_s": round(encode_cpu_s, 2),
        "decode_s": round(decode_s, 4),
        "slice": volume.name,
        "slice_sha256": volume.sha256,
        "values": volume.image.size,
    }


def _grid(rows: int, columns: int) -> Any:
    import torch

    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    return torch.from_numpy(np.stack([y.ravel(), x.ravel()], axis=1).astype(np.float32))  # (pixel, 2)


def _forward(values: Any, weights: list[Any]) -> Any:
    import torch

    for number in range(0, len(weights), 2):
        values = torch.nn.functional.linear(values, weights[number], weights[number + 1])
        if number + 2 < len(weights):
            values = torch.sin(OMEGA_0 * values)
    return values  # (pixel, t)


def _decode(stored: bytes, sizes: list[int], coordinates: Any, volume: Volume) -> Array:
    import torch

    flat = torch.from_numpy(np.frombuffer(lzma.decompress(stored), np.float32).copy())
    weights, first = [], 0
    for inputs, outputs in pairwise(sizes):
        for shape in ((outputs, inputs), (outputs,)):
            weights.append(flat[first : first + math.prod(shape)].reshape(shape))
            first += math.prod(shape)
    with torch.no_grad():
        return volume.stored(_forward(coordinates, weights).numpy().T)
