"""The codecs that a user would otherwise pick, each brought to the same quality with as few bytes as it can.

Every codec is tried in several ways (modes of its own, foldings of t, slices or one mosaic); the smallest result
counts, so that each is better than any one setting would be. All run in one thread.

- SPERR: float32, its modes psnr, bpp and pwe; 4-D images with t folded into z, and each measurement by itself.
- PCA+SPERR (4-D only): principal components over t of the scaled measurements, the first k of them coded by SPERR
  with the same error in each (one call each, or folded), the basis in float32; the best k. Not a product, but the
  strongest classical coder of 4-D data that we could think of.
- SZ3: float32, absolute error bound, 4-D and folded. ZFP: float32, 4-D, fixed accuracy; data are scaled to get
  between its powers of two.
- JPEG 2000 (irreversible) and JPEG XL (effort 7): 16-bit planes of z, one by one and as one mosaic.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tools.bench_rate_data import Array, Volume

SLACK = 0.02
"""dB above the target that count as on it."""
TRIALS = 14
FLOAT32 = 4


@dataclass(frozen=True)
class Way:
    """One way to use a codec.

    Parameters
    ----------
    name : str
    encode : callable
        Quality (dB or something that grows like it) -> parts.
    decode : callable
        Parts -> scaled measurements.
    start : float
        The quality to try first.
    extra : int
        Bytes that the decoder needs beside the parts.
    bounds : (float, float)
        Least and greatest quality that the codec knows.
    """

    name: str
    encode: Callable[[float], list[bytes]]
    decode: Callable[[list[bytes]], Array]
    start: float
    extra: int = 0
    bounds: tuple[float, float] = (-1e3, 1e3)


@dataclass(frozen=True)
class Outcome:
    """What a codec made of a volume: its bytes with everything a decoder needs, and the quality of what it decodes."""

    name: str
    quality: float
    nbytes: int
    psnr: float
    encode_s: float
    decode_s: float


def attempt(volume: Volume, way: Way, quality: float) -> Outcome:
    """Encode, decode and measure once."""
    begin = _processor_time()
    parts = way.encode(quality)
    middle = _processor_time()
    decoded = way.decode(parts)
    end = _processor_time()
    found = volume.measure(volume.stored(decoded)).psnr
    nbytes = sum(map(len, parts)) + way.extra + volume.scaling_bytes
    return Outcome(way.name, quality, nbytes, 200.0 if found is None else found, middle - begin, end - middle)


def _processor_time() -> float:
    """Return the processor's time of this process and of the programs that it ran."""
    return sum(os.times()[:4])


def meet(volume: Volume, way: Way, psnr: float) -> Outcome | None:
    """Return the smallest trial at or above a PSNR, as close to it as the codec gets; None if it does not get there."""
    below: Outcome | None = None
    above: Outcome | None = None
    best: Outcome | None = None
    quality = float(np.clip(way.start, *way.bounds))
    tried: set[float] = set()
    for number in range(TRIALS):
        if quality in tried:
            break
        tried.add(quality)
        found = attempt(volume, way, quality)
        if found.psnr >= psnr:
            above = found if above is None or quality < above.quality else above
            best = found if best is None or found.nbytes < best.nbytes else best
            if found.psnr <= psnr + SLACK:
                break
        else:
            below = found if below is None or quality > below.quality else below
        quality = float(np.clip(_next(found, below, above, psnr, number), *way.bounds))
    return best


def _next(found: Outcome, below: Outcome | None, above: Outcome | None, psnr: float, number: int) -> float:
    """Return the quality to try next: a straight line through the bracket, halving it now and then."""
    aim = psnr + SLACK / 2
    if below is None or above is None:
        return found.quality + (aim - found.psnr) * (1.0 if number < 3 else 2.0)
    if number % 4 == 3 or above.psnr - below.psnr < 1e-6:
        return (below.quality + above.quality) / 2
    part = (aim - below.psnr) / (above.psnr - below.psnr)
    return below.quality + float(np.clip(part, 0.03, 0.97)) * (above.quality - below.quality)


def best_of(volume: Volume, ways: Iterator[Way], psnr: float) -> dict[str, Any] | None:
    """Return the smallest result of several ways as a row; None if none reaches the PSNR."""
    found = [outcome for way in ways if (outcome := meet(volume, way, psnr)) is not None]
    return as_row(found) if found else None


def as_row(found: list[Outcome]) -> dict[str, Any]:
    """Return the smallest outcome with the sizes of the others."""
    best = min(found, key=lambda outcome: outcome.nbytes)
    return {
        "bytes": best.nbytes,
        "psnr": round(best.psnr, 4),
        "setting": best.name,
        "quality": round(best.quality, 4),
        "encode_s": round(best.encode_s, 3),
        "decode_s": round(best.decode_s, 3),
        "others": {o.name: o.nbytes for o in found if o is not best},
    }


def folded(volume: Volume) -> Array:
    """Return the scaled measurements one below the other, (t * z, y, x)."""
    return volume.unit.reshape(-1, *volume.unit.shape[2:])


def sperr(data: Array, level: float, mode: str) -> bytes:
    """Return the stream of a 3-D array."""
    import imagecodecs

    return imagecodecs.sperr_encode(np.ascontiguousarray(data), level, mode, chunks=data.shape, numthreads=1)


def unsperr(data: bytes) -> Array:
    """Return what `sperr` coded."""
    import imagecodecs

    return imagecodecs.sperr_decode(data, numthreads=1)


def sperr_peer(volume: Volume, psnr: float) -> dict[str, Any] | None:
    """Measure SPERR."""
    whole, each = folded(volume), volume.unit
    found = []

    def take(name: str, encode: Callable[[float], list[bytes]], start: float) -> None:
        outcome = meet(volume, Way(name, encode, lambda parts: np.stack([unsperr(p) for p in parts]), start), psnr)
        if outcome is not None:
            found.append(outcome)

    take("folded, psnr", lambda q: [sperr(whole, q, "psnr")], psnr - 1)
    bits = found[0].nbytes * 8 / whole.size if found else 1.0
    take("folded, bpp", lambda q: [sperr(whole, bits * 2 ** ((q - psnr) / 4), "bpp")], psnr)
    take("folded, pwe", lambda q: [sperr(whole, 10 ** (-q / 20), "pwe")], psnr - 10)
    if len(each) > 1:
        take("each, psnr", lambda q: [sperr(one, q, "psnr") for one in each], psnr - 1)
        take("each, pwe", lambda q: [sperr(one, 10 ** (-q / 20), "pwe") for one in each], psnr - 10)
    return as_row(found) if found else None


def components(volume: Volume, psnr: float) -> tuple[Array, Array, int]:
    """Return principal components over t of the scaled measurements, strongest first.

    Parameters
    ----------
    volume : Volume
    psnr : float
        What is to be reached.

    Returns
    -------
    basis : ndarray
        (component, t), float32.
    images : ndarray
        (component, z, y, x), float32.
    least : int
        So many are needed at least.
    """
    flat = volume.unit.reshape(len(volume.unit), -1)  # (t, voxels)
    moments = flat.astype(np.float64) @ flat.T.astype(np.float64) / flat.shape[1]
    values, vectors = np.linalg.eigh(moments)
    basis = np.ascontiguousarray(vectors[:, ::-1].T, np.float32)
    left = np.maximum(np.cumsum(values)[::-1] - values[::-1], 0) / len(flat)  # error of the first k alone
    images = (basis @ flat).reshape(volume.unit.shape)
    return basis, images, int(np.argmax(left < 0.95 * 10 ** (-psnr / 10))) + 1


def search_components(least: int, most: int, size: Callable[[int], float]) -> int:
    """Return the number of components of the smallest size: a doubling search, then downhill."""
    steps = [least + step for step in (0, 1, 2, 4, 8, 16, 32, 64) if least + step <= most]
    best = steps[0]
    for number, k in enumerate(steps):
        best = min(best, k, key=size)
        if number >= 3 and size(k) > 1.25 * size(best):
            break  # far on the wrong side of the best
    while True:  # downhill from there
        around = [k for k in (best - 1, best + 1) if least <= k <= most]
        found = min([best, *around], key=size)
        if found == best:
            return best
        best = found


def pca_peer(volume: Volume, psnr: float) -> dict[str, Any] | None:
    """Measure PCA+SPERR over a search of k."""
    basis, images, least = components(volume, psnr)
    tried: dict[int, list[Outcome]] = {}
    drift: dict[str, float] = {}

    def size(k: int) -> int:
        if k not in tried:
            tried[k] = _pca_outcomes(volume, basis[:k], images[:k], psnr, drift)
            least_of: dict[str, int] = {}
            for outcome in (o for some in tried.values() for o in some):
                way = outcome.name.partition(", ")[2]
                least_of[way] = min(outcome.nbytes, least_of.get(way, outcome.nbytes))
            for way in least_of:  # what is clearly larger than another way at several k is not tried on
                if len(tried) > 2 and least_of[way] > 1.04 * min(least_of.values()):
                    drift[way] = math.inf
        return min((outcome.nbytes for outcome in tried[k]), default=1 << 62)

    search_components(least, len(images), size)
    outcomes = [outcome for found_ in tried.values() for outcome in found_]
    if not outcomes:
        return None
    row = as_row(sorted(outcomes, key=lambda o: o.nbytes)[:4])
    return {**row, "tried": {str(k): size(k) for k in sorted(tried) if tried[k]}}


def _pca_outcomes(volume: Volume, basis: Array, images: Array, psnr: float, drift: dict[str, float]) -> list[Outcome]:
    """Code k components, (k, z, y, x), in each of the ways that reach the PSNR.

    `drift` keeps how far a way ended from where it started, for the next k; infinite if it is not to be tried.
    """
    k, shape = len(images), volume.unit.shape
    spans = [20 * np.log10(max(float(np.ptp(image)), 1e-9)) for image in images]
    # The error of a measurement is that of k components shared among t of them: smaller than theirs.
    start = psnr - 10 * np.log10(shape[0] / k)
    stack = images.reshape(-1, *images.shape[2:])
    whole = 20 * np.log10(float(np.ptp(stack)))
    found: list[Outcome] = []

    def decode(parts: list[bytes]) -> Array:
        components = np.concatenate([unsperr(part) for part in parts]).reshape(k, -1)
        return (basis.T @ components.astype(np.float32)).reshape(shape)

    def each(quality: float) -> list[bytes]:
        levels = [max(quality + span, 0.1) for span in spans]  # the same error in all
        return [sperr(image, level, "psnr") for image, level in zip(images, levels, strict=True)]

    def take(name: str, encode: Callable[[float], list[bytes]]) -> None:
        first = start + drift.get(name, 0.0)
        if math.isinf(first):
            return
        outcome = meet(volume, Way(f"k = {k}, {name}", encode, decode, first, basis.size * FLOAT32), psnr)
        if outcome is not None:
            found.append(outcome)
            drift[name] = outcome.quality - start

    take("each, psnr", each)
    take("folded, psnr", lambda q: [sperr(stack, q + whole, "psnr")])
    if found:
        bits = (found[-1].nbytes - basis.size * FLOAT32) * 8 / stack.size
        take("folded, bpp", lambda q: [sperr(stack, bits * 2 ** ((q - start) / 4), "bpp")])
    return found


def _sz3(data: Array, bound: float) -> bytes:
    import imagecodecs

    return imagecodecs.sz3_encode(data, "abs", abs=bound)


def _unsz3(data: bytes, like: Array) -> Array:
    import imagecodecs

    return imagecodecs.sz3_decode(data, like.shape, like.dtype)


def sz3_peer(volume: Volume, psnr: float) -> dict[str, Any] | None:
    """Measure SZ3."""

    def way(name: str, data: Array) -> Way:
        return Way(name, lambda q: [_sz3(data, 10 ** (-q / 20))], lambda p: _unsz3(p[0], data), psnr - 6)

    ways = [way("folded", folded(volume))]
    if len(volume.unit) > 1:
        ways.append(way("4-D", volume.unit))
    return best_of(volume, iter(ways), psnr)


def zfp_peer(volume: Volume, psnr: float) -> dict[str, Any] | None:
    """Measure ZFP."""
    import imagecodecs

    data = volume.unit if len(volume.unit) > 1 else volume.unit[0]

    def encode(quality: float) -> list[bytes]:
        scale = np.float32(10 ** (quality / 20))
        return [scale.tobytes(), imagecodecs.zfp_encode(data * scale, 1.0, mode="a", numthreads=1)]

    def decode(parts: list[bytes]) -> Array:
        return imagecodecs.zfp_decode(parts[1]) / np.frombuffer(parts[0], np.float32)[0]

    return best_of(volume, iter([Way("accuracy", encode, decode, psnr - 22)]), psnr)


def _planes(
    volume: Volume, psnr: float, encode: Any, decode: Any, bounds: tuple[float, float]
) -> dict[str, Any] | None:
    """Measure a codec of images on the planes of z."""
    planes = volume.unit16.reshape(-1, *volume.unit16.shape[2:])
    one = planes.reshape(-1, planes.shape[2])

    def each(parts: list[bytes]) -> Array:
        return np.stack([decode(part) for part in parts]) / np.float32(65535)

    slices = Way("slices", lambda q: [encode(plane, q) for plane in planes], each, psnr, bounds=bounds)
    mosaic = Way("mosaic", lambda q: [encode(one, q)], lambda p: decode(p[0]) / np.float32(65535), psnr, bounds=bounds)
    together = meet(volume, mosaic, psnr)
    if together is None:
        return best_of(volume, iter([slices]), psnr)
    trial = attempt(volume, slices, together.quality)
    gain = (trial.psnr - together.psnr) / 3  # doublings of the size that the difference in quality may be worth
    if trial.nbytes > 1.15 * together.nbytes * 2 ** max(gain, 0.0):
        row = as_row([together])
        return {**row, "others": {f"slices, one trial at {trial.psnr:.2f} dB": trial.nbytes}}
    apart = meet(volume, slices, psnr)
    return as_row([together] if apart is None else [together, apart])


def jpeg2000_peer(volume: Volume, psnr: float) -> dict[str, Any] | None:
    """Measure JPEG 2000."""
    import imagecodecs

    def encode(plane: Array, quality: float) -> bytes:
        return imagecodecs.jpeg2k_encode(plane, level=quality, codecformat="J2K", reversible=False, numthreads=1)

    return _planes(volume, psnr, encode, lambda b: imagecodecs.jpeg2k_decode(b, numthreads=1), (1.0, 120.0))


def jpegxl_peer(volume: Volume, psnr: float) -> dict[str, Any] | None:
    """Measure JPEG XL."""
    import imagecodecs

    def encode(plane: Array, quality: float) -> bytes:
        return imagecodecs.jpegxl_encode(plane, distance=10 ** ((45 - quality) / 20), effort=7, numthreads=1)

    # Distances 25 to 0.01.
    return _planes(volume, psnr, encode, lambda b: imagecodecs.jpegxl_decode(b, numthreads=1), (17.05, 85.0))


PEERS: dict[str, Callable[[Volume, float], dict[str, Any] | None]] = {
    "SPERR": sperr_peer,
    "PCA+SPERR": pca_peer,
    "SZ3": sz3_peer,
    "ZFP": zfp_peer,
    "JPEG 2000": jpeg2000_peer,
    "JPEG XL": jpegxl_peer,
}
FOUR_D_ONLY = {"PCA+SPERR"}


def sz3_bounded(volume: Volume, bound: float) -> dict[str, Any]:
    """Measure SZ3 with an absolute error bound on the stored integers themselves.

    Beside the bound as it is, also with almost half an integer more: rounding brings the error of an integer
    back to the bound, so this is what a user who knows that values are integers could do.
    """
    data = np.ascontiguousarray(volume.image, np.float32)
    fold = data.reshape(-1, *data.shape[-2:])
    rows = []
    for name, view in {"folded": fold, "4-D": data}.items():
        if name == "4-D" and data.ndim == 3:
            continue
        for more, given in ((0.0, "bound"), (0.499, "bound + 0.499, rounded")):
            begin = time.process_time()
            coded = _sz3(view, bound + more)
            middle = time.process_time()
            values = np.round(_unsz3(coded, view))
            end = time.process_time()
            limits = np.iinfo(volume.image.dtype)
            decoded = np.clip(values, limits.min, limits.max).astype(volume.image.dtype).reshape(volume.image.shape)
            over = int(np.count_nonzero(np.abs(decoded.astype(np.int64) - volume.image) > bound))
            measured = volume.measure(decoded)
            rows.append({"bytes": len(coded), "psnr": measured.psnr, "max_error": measured.max_error, "over": over,
                         "setting": f"{name}, {given}", "encode_s": round(middle - begin, 3),
                         "decode_s": round(end - middle, 3)})  # fmt: skip
    kept = [row for row in rows if not row["over"]]
    best = min(kept or rows, key=lambda row: row["bytes"])
    others = {row["setting"]: {"bytes": row["bytes"], "over": row["over"]} for row in rows if row is not best}
    return {**best, "others": others}
