"""Video codecs as peers: the slices of a scan, or of its principal components, as the frames of a gray video.

Whoever has ffmpeg has these. Sizes are the bytes of the elementary streams alone: no container, no temporal delimiters
(AV1), no note of the encoder's options (HEVC). One group of pictures for a whole scan. What the decoders give is
rounded to stored integers and measured as for every other peer.

- x265 (HEVC Main 12, 4:0:0), preset veryslow, everything that serves the eye and not the PSNR switched off. It rounds
  its quantisers to whole numbers; in between, values are scaled down a little.
- SVT-AV1 (10 bit; it knows 4:2:0 only, so chroma is constant, and no frames with a side under 64, so edges are
  repeated), preset 0, tune PSNR, no variance boost. Its `aq-mode` 2 stays: it weighs blocks by how much is predicted
  from them, which lowers the error; its filter of noise in key frames (`enable-tf`) is off, as it raises it.
- libaom (AV1, 4:0:0, 10 and 12 bit), cpu-used 4, tune PSNR; between its quantisers the same.
- PCA+SVT-AV1 (4-D only): the principal components that PCA+SPERR codes too, in one stream with a common range, or a
  stream for each with its own range and a quantiser of the same step in stored units; the best number of components.

Which way the slices lie, how many bits and how many components is decided with a faster preset (libaom: the same).
x265 and SVT-AV1 come with PyAV (`av`; in 18.1.0 they are 4.2 and 4.1.0), libaom as the program `aomenc` (Debian:
aom-tools).
"""

from __future__ import annotations

import math
import os
import shutil
import struct
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from tools.bench_rate_data import Array, Volume
from tools.bench_rate_peers import FLOAT32, SLACK, Outcome, Way, as_row, attempt, components, search_components

RATE = Fraction(25)
THREADS = 2
TRIALS = 10
PATIENCE = 600.0
"""Seconds for a stream."""
NEAR = 1.015
"""An arrangement is tried with the slow preset if the fast one makes it larger by this at most."""
FAR = 1.15
"""And not tried at another quality if this makes it so much larger."""
STREAMS = 40
"""Components that are tried as a stream each, at most."""
AXES = "zyx"


@dataclass(frozen=True, kw_only=True)
class Video:
    """A video encoder.

    Parameters
    ----------
    name : str
    encode : callable
        Frames (n, height, width) in uint16, bits, crf, effort -> packets.
    decoder : str
        FFmpeg's name of what decodes them.
    bits : tuple of int
        Depths to try.
    side : int
        Least height and width.
    grid : float
        Smallest step of the crf.
    slope : float
        About how much crf a dB is.
    finest, coarsest : float
        Least and greatest crf; 0 would be lossless in AV1.
    fast, slow : str
        The effort of the first trials, and of the result.
    start : float
        A crf somewhere near 40 dB.
    """

    name: str
    encode: Callable[[Array, int, float, str], list[bytes]]
    decoder: str
    bits: tuple[int, ...]
    side: int
    grid: float
    slope: float
    finest: float
    coarsest: float
    fast: str
    slow: str
    start: float


def x265(frames: Array, bits: int, crf: float, preset: str) -> list[bytes]:
    """Encode with x265; one thread for frames, without wavefronts, which cost bytes."""
    words = f"crf={crf:.0f}:keyint=-1:aq-mode=0:psy-rd=0:psy-rdoq=0:info=0:frame-threads=1:wpp=0:log-level=none"
    return _av(frames, "libx265", f"gray{bits}le", {"preset": preset, "x265-params": words})


def svt_av1(frames: Array, bits: int, crf: float, preset: str) -> list[bytes]:
    """Encode with SVT-AV1."""
    words = f"crf={crf:.2f}:keyint=-1:tune=1:enable-tf=0:aq-mode=2:enable-variance-boost=0:sharpness=0"
    words += f":film-grain=0:scm=0:lp={THREADS}"
    options = {"preset": preset, "svtav1-params": words}
    return limited(lambda: _av(frames, "libsvtav1", "yuv420p10le", options), PATIENCE)


def limited(encode: Callable[[], list[bytes]], seconds: float) -> list[bytes]:
    """Encode in a thread that is given up after some time: SVT-AV1 has been seen to wait for itself for ever."""
    made: list[list[bytes] | BaseException] = []

    def work() -> None:
        try:
            made.append(encode())
        except BaseException as error:
            made.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if not made:
        raise TimeoutError(f"an encoder has not come back after {seconds:g} s")
    if isinstance(made[0], BaseException):
        raise made[0]
    return made[0]


def libaom(frames: Array, bits: int, crf: float, cpu_used: str) -> list[bytes]:
    """Encode with aomenc, which reads 4:2:0 and leaves out the chroma."""
    _, height, width = frames.shape
    chroma = np.full(2 * (height // 2) * (width // 2), 1 << (bits - 1), "<u2").tobytes()
    raw = b"".join(frame.astype("<u2").tobytes() + chroma for frame in frames)
    words = f"""aomenc - -o - --ivf --quiet --i420 --width={width} --height={height} --fps={RATE}/1 --monochrome
        --input-bit-depth={bits} --bit-depth={bits} --profile={2 if bits == 12 else 0} --passes=1 --end-usage=q
        --cq-level={crf:.0f} --cpu-used={cpu_used} --tune=psnr --aq-mode=0 --lag-in-frames=48 --kf-max-dist=9999
        --threads={THREADS} --row-mt=1"""
    coded = subprocess.run(words.split(), input=raw, capture_output=True, check=True).stdout
    packets, at = [], 32  # IVF: a header of the file, and 12 bytes before each frame
    while at < len(coded):
        (size,) = struct.unpack_from("<I", coded, at)
        packets.append(_bare(coded[at + 12 : at + 12 + size]))
        at += 12 + size
    return packets


def _av(frames: Array, encoder: str, layout: str, options: dict[str, str]) -> list[bytes]:
    """Encode with an encoder of FFmpeg; chroma is constant."""
    import av

    os.environ.setdefault("SVT_LOG", "1")  # errors only
    _, height, width = frames.shape
    context = av.codec.CodecContext.create(encoder, "w")
    context.width, context.height, context.pix_fmt = width, height, layout
    context.framerate, context.time_base = RATE, 1 / RATE
    context.options = options
    middle = 1 << 9 if "10" in layout else 1 << 11
    packets = []
    for number, values in enumerate(frames):
        frame = av.VideoFrame(width, height, layout)
        for plane in frame.planes:
            lines = np.full((plane.height, plane.line_size // 2), middle, np.uint16)
            if plane.height == height:
                lines[:, :width] = values
            plane.update(lines.tobytes())
        frame.pts = number
        packets += context.encode(frame)
    packets += context.encode(None)
    return [_bare(bytes(packet)) if encoder == "libsvtav1" else bytes(packet) for packet in packets]


def _bare(packet: bytes) -> bytes:
    """Return a temporal unit of AV1 without its delimiter, as files keep it."""
    return packet[2:] if packet[:2] == b"\x12\x00" else packet


def decode(packets: list[bytes], decoder: str) -> Array:
    """Return the luma of the frames."""
    import av

    context = av.codec.CodecContext.create(decoder, "r")
    frames = []
    for packet in [*packets, None]:
        for frame in context.decode(None if packet is None else av.Packet(packet)):
            plane = frame.planes[0]
            frames.append(np.frombuffer(bytes(plane), np.uint16).reshape(plane.height, -1)[:, : plane.width])
    return np.stack(frames)


X265 = Video(name="x265", encode=x265, decoder="hevc", bits=(12,), side=64, grid=0.05, slope=1.2, finest=0, coarsest=51,
             fast="slow", slow="veryslow", start=24)  # fmt: skip
SVT_AV1 = Video(name="SVT-AV1", encode=svt_av1, decoder="libdav1d", bits=(10,), side=64, grid=0.25, slope=2.2,
                finest=0.25, coarsest=70, fast="4", slow="0", start=35)  # fmt: skip
LIBAOM = Video(name="libaom", encode=libaom, decoder="libdav1d", bits=(10, 12), side=16, grid=0.25, slope=2.2,
               finest=1, coarsest=63.75, fast="4", slow="4", start=35)  # fmt: skip


def missing(codec: str) -> str | None:
    """Return why a peer cannot run here; None if it can."""
    if codec in PEERS and find_spec("av") is None:
        return 'PyAV is not installed (pip install -e ".[bench]")'
    if codec == "libaom" and shutil.which("aomenc") is None:
        return "the program aomenc is not installed (Debian: aom-tools)"
    return None


@cache
def program_versions(codec: str) -> dict[str, str]:
    """Return the versions of programs that a peer runs; PyAV brings the other encoders."""
    if codec == "libaom":
        shown = subprocess.run(["aomenc", "--help"], capture_output=True, text=True, check=False)
        lines = [line for line in (shown.stdout + shown.stderr).splitlines() if "AV1 Encoder" in line]
        return {"aomenc": lines[0].split("Encoder")[1].split()[0].lstrip("v") if lines else "unknown"}
    return {}


def padded(frames: Array, side: int) -> Array:
    """Repeat the last row and column up to sides of a multiple of 8 and at least `side`."""
    more = [max(side, size + -size % 8) - size for size in frames.shape[1:]]
    return np.pad(frames, ((0, 0), (0, more[0]), (0, more[1])), mode="edge")


def step(crf: float) -> float:
    """Return AV1's quantiser step at a crf, up to a factor: nearly linear at first, then exponential."""
    index = 4 * crf
    return index + 7 if index < 95 else 102 * 1.0182 ** (index - 95)


def crf_of(wanted: float) -> float:
    """Return the crf with a step: the inverse of `step`."""
    index = wanted - 7 if wanted < 102 else 95 + math.log(wanted / 102) / math.log(1.0182)
    return index / 4


def scaled(video: Video, bits: int, crf: float) -> tuple[float, int]:
    """Return the crf that the encoder gets and the greatest value of a frame.

    libaom knows whole numbers only, and x265 rounds to them; in between, the frames are scaled down as the step of the
    quantiser would have grown.
    """
    top = (1 << bits) - 1
    if video is SVT_AV1:
        return crf, top
    whole = math.floor(crf + 1e-9)
    smaller = 2 ** ((whole - crf) / 6) if video is X265 else step(whole) / step(crf)
    return whole, round(top * smaller)


def reach(
    volume: Volume, way: Way, video: Video, psnr: float, start: float, known: dict[int, Outcome], slack: float = SLACK
) -> Outcome | None:
    """Return the smallest trial at or above a PSNR.

    Parameters
    ----------
    volume : Volume
    way : Way
        Its quality is a crf: the smaller the better.
    video : Video
    psnr : float
    start : float
        The crf to try first.
    known : dict
        Trials by their place in the grid of crfs; those made here are added.
    slack : float
        dB above the target that are near enough.
    """
    first, last = round(video.finest / video.grid), round(video.coarsest / video.grid)
    number = min(max(round(start / video.grid), first), last)
    for trial in range(TRIALS):
        good = [i for i, o in known.items() if o.psnr >= psnr]
        top = max(good, default=None)
        low = min((i for i, o in known.items() if o.psnr < psnr and (top is None or i > top)), default=None)
        if top is not None and (top == last or top + 1 == low or known[top].psnr <= psnr + slack):
            break
        if top is not None and low is not None:
            part = (known[top].psnr - psnr - slack / 2) / (known[top].psnr - known[low].psnr)
            part = 0.5 if trial % 4 == 3 else part
            number = min(max(top + round(part * (low - top)), top + 1), low - 1)
        elif known:
            edge = top if top is not None else low
            assert edge is not None
            more = (known[edge].psnr - psnr) * video.slope * (1 if trial < 4 else 2) / video.grid
            number = edge + (max(1, math.floor(more)) if top is not None else min(-1, math.floor(more)))
            number = min(max(number, first), last)
        if number in known:
            break  # the end of the grid
        known[number] = attempt(volume, way, number * video.grid)
    return min((o for o in known.values() if o.psnr >= psnr), key=lambda o: o.nbytes, default=None)


_KNOWN: dict[tuple[str, str, str], dict[int, Outcome]] = {}
"""Trials of this process, which the next quality starts from."""
_FAR: set[tuple[str, str, str]] = set()
"""What was so much larger at another quality that it is not tried again."""


def _known(volume: Volume, codec: str, name: str) -> dict[int, Outcome]:
    """Return the trials of a volume and a way to code it; those of other volumes are forgotten."""
    for other in [kept for kept in _KNOWN if kept[0] != volume.sha256]:
        del _KNOWN[other]
    return _KNOWN.setdefault((volume.sha256, codec, name), {})


def single_channel(video: Video, volume: Volume, psnr: float) -> dict[str, Any] | None:
    """Measure an encoder on a 3-D image: slices along the best axis."""
    image = volume.unit[0]
    words = {effort: f"{'cpu-used' if video is LIBAOM else 'preset'} {effort}" for effort in (video.fast, video.slow)}

    def known_of(one: Way) -> dict[int, Outcome]:
        return _known(volume, video.name, one.name)

    def way(axis: int, bits: int, effort: str) -> Way:
        slices = np.moveaxis(image, axis, 0)

        def encode(crf: float) -> list[bytes]:
            given, top = scaled(video, bits, crf)
            frames = padded(np.round(slices * np.float32(top)).astype(np.uint16), video.side)
            return video.encode(frames, bits, given, effort)

        def back(parts: list[bytes], crf: float) -> Array:
            height, width = slices.shape[1:]
            frames = decode(parts, video.decoder)[:, :height, :width]
            return np.moveaxis(frames / np.float32(scaled(video, bits, crf)[1]), 0, axis)[np.newaxis]

        return _way(f"slices of {AXES[axis]}, {bits} bit, {words[effort]}", encode, back, 0 if video is SVT_AV1 else 2)

    fast = {(axis, bits): way(axis, bits, video.fast) for axis in range(3) for bits in video.bits}
    fast = {one: of for one, of in fast.items() if (volume.sha256, video.name, of.name) not in _FAR}
    first = next(iter(fast.values()))
    guess = reach(volume, first, video, psnr, video.start, known_of(first))
    if guess is None:
        return None
    place = round(guess.quality / video.grid)
    sizes = {}
    for one, of in fast.items():
        known = known_of(of)
        if place not in known:
            known[place] = attempt(volume, of, guess.quality)
        sizes[one] = known[place].nbytes * 2 ** ((guess.psnr - known[place].psnr) / 3)  # 3 dB are about a doubling
    best = min(sizes.values())
    _FAR.update((volume.sha256, video.name, fast[one].name) for one in sizes if sizes[one] > FAR * best)
    found = []
    for one in sorted(sizes, key=lambda one: sizes[one])[:2]:
        if sizes[one] > NEAR * best:
            continue
        slow, trial = way(*one, video.slow), known_of(fast[one])[place]
        start = trial.quality + (trial.psnr - psnr) * video.slope
        outcome = reach(volume, slow, video, psnr, start, known_of(slow))
        if outcome is not None:
            found.append(outcome)
    if not found:
        return None
    row = as_row(found)
    axes = {f"{fast[one].name}, about": round(size) for one, size in sizes.items()}
    return {**row, "setting": f"{row['setting']}, crf {row['quality']:g}", "others": {**row["others"], **axes}}


def _way(
    name: str, encode: Callable[[float], list[bytes]], back: Callable[[list[bytes], float], Array], extra: int = 0
) -> Way:
    """Return a way whose decoder knows the crf: it tells how frames were scaled, which `encode` counts."""
    last: list[float] = []

    def noted(crf: float) -> list[bytes]:
        last[:] = [crf]
        return encode(crf)

    return Way(name, noted, lambda parts: back(parts, last[0]), 0.0, extra)


def pca_svt_av1(volume: Volume, psnr: float) -> dict[str, Any] | None:
    """Measure SVT-AV1 on principal components, over a search of their number with the fast preset."""
    basis, images, least = components(volume, psnr)
    crf = {"one stream": SVT_AV1.start, "a stream each": SVT_AV1.start}
    tried: dict[int, dict[str, float]] = {}

    def way(kind: str, k: int, effort: str) -> Way:
        return (_together if kind == "one stream" else _apart)(basis[:k], images[:k], effort)

    def size(k: int) -> float:
        if k not in tried:
            tried[k] = {}
            for kind in [kind for kind in crf if kind == "one stream" or k <= STREAMS]:
                outcome = reach(volume, way(kind, k, SVT_AV1.fast), SVT_AV1, psnr, crf[kind], {}, slack=0.15)
                if outcome is not None:
                    tried[k][kind] = outcome.nbytes * 2 ** ((psnr - outcome.psnr) / 3)
                    crf[kind] = outcome.quality
            if len(tried) > 1 and len(tried[k]) > 1:  # what is clearly larger at several k is not tried on
                best = {kind: min(sizes.get(kind, math.inf) for sizes in tried.values()) for kind in crf}
                for kind in [kind for kind in best if best[kind] > 1.04 * min(best.values())]:
                    del crf[kind]
        return min(tried[k].values(), default=math.inf)

    k = search_components(least, len(images), size)
    found = []
    for kind in [kind for kind, about in tried[k].items() if about <= 1.04 * size(k)]:
        # The crf of each stream is rounded by itself, so that there are qualities between two of the grid.
        fine = SVT_AV1 if kind == "one stream" else replace(SVT_AV1, grid=SVT_AV1.grid / 8)
        outcome = reach(volume, way(kind, k, SVT_AV1.slow), fine, psnr, crf.get(kind, SVT_AV1.start), {})
        found += [] if outcome is None else [outcome]
    if not found:
        return None
    row = as_row(found)
    about = {str(n): {kind: round(nbytes) for kind, nbytes in tried[n].items()} for n in sorted(tried)}
    return {**row, "setting": f"{row['setting']}, crf {row['quality']:g}", "tried": about}


def _together(basis: Array, images: Array, effort: str) -> Way:
    """Code components one after the other in one stream, with one range."""
    k, (height, width) = len(images), images.shape[2:]
    low, spread = float(images.min()), float(np.ptp(images))
    frames = ((images - np.float32(low)) / np.float32(spread)).reshape(-1, height, width)

    def encode(crf: float) -> list[bytes]:
        return svt_av1(padded(np.round(frames * 1023).astype(np.uint16), SVT_AV1.side), 10, crf, effort)

    def back(parts: list[bytes], crf: float) -> Array:
        decoded = decode(parts, SVT_AV1.decoder)[:, :height, :width] / np.float32(1023)
        flat = (decoded * np.float32(spread) + np.float32(low)).reshape(k, -1)
        return (basis.T @ flat).reshape(basis.shape[1], *images.shape[1:])

    name = f"k = {k}, one stream, preset {effort}"
    return _way(name, encode, back, basis.size * FLOAT32 + 2 * FLOAT32)


def _apart(basis: Array, images: Array, effort: str) -> Way:
    """Code each component in a stream of its own, with its own range and the same step in stored units."""
    k, (height, width) = len(images), images.shape[2:]
    lows = images.min(axis=(1, 2, 3))
    spreads = np.maximum(np.ptp(images.reshape(k, -1), axis=1), np.float32(1e-9))
    counts: list[int] = []

    def encode(crf: float) -> list[bytes]:
        packets: list[bytes] = []
        counts.clear()
        for image, low, spread in zip(images, lows, spreads, strict=True):
            own = crf_of(step(crf) * float(spreads[0] / spread))  # a smaller range is magnified more
            own = min(max(round(own * 4) / 4, SVT_AV1.finest), SVT_AV1.coarsest)
            frames = padded(np.round((image - low) / spread * 1023).astype(np.uint16), SVT_AV1.side)
            stream = svt_av1(frames, 10, own, effort)
            counts.append(len(stream))
            packets += stream
        return packets

    def back(parts: list[bytes], crf: float) -> Array:
        flat = np.empty((k, images[0].size), np.float32)
        at = 0
        for n, (count, low, spread) in enumerate(zip(counts, lows, spreads, strict=True)):
            decoded = decode(parts[at : at + count], SVT_AV1.decoder)[:, :height, :width]
            flat[n] = (decoded / np.float32(1023) * spread + low).ravel()
            at += count
        return (basis.T @ flat).reshape(basis.shape[1], *images.shape[1:])

    name = f"k = {k}, a stream each, preset {effort}"
    return _way(name, encode, back, basis.size * FLOAT32 + 2 * FLOAT32 * k)


PEERS: dict[str, Callable[[Volume, float], dict[str, Any] | None]] = {
    "x265": lambda volume, psnr: single_channel(X265, volume, psnr),
    "SVT-AV1": lambda volume, psnr: single_channel(SVT_AV1, volume, psnr),
    "libaom": lambda volume, psnr: single_channel(LIBAOM, volume, psnr),
    "PCA+SVT-AV1": pca_svt_av1,
}
FOUR_D_ONLY = {"PCA+SVT-AV1"}
THREE_D_ONLY = set(PEERS) - FOUR_D_ONLY
