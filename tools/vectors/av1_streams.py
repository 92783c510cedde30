"""The AV1 streams in the vectors, and two larger ones to damage.

They were encoded once and are kept beside this file, because other releases of encoders make others:

python -m tools.vectors.av1_streams

It needs PyAV 18 (SVT-AV1 4.1; 4.2 writes a display delay) and `aomenc` of libaom 3.6, which makes what SVT-AV1 does
not: gray sequences, and syntax that a chunk may not have. All streams have 10 bits unless their name says otherwise,
and no temporal delimiters.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inrstore.chunk.av1 import library
from inrstore.chunk.av1.obu import DELIMITER

_FILE = Path(__file__).with_name("av1_streams.json")

_SVT = {  # frames, height, width, quantiser
    "one": (1, 64, 64, 50),
    "three": (3, 64, 64, 50),
    "twelve": (12, 64, 64, 56),
    "odd": (2, 71, 67, 52),
    "wide": (2, 64, 130, 55),
    "fine": (1, 64, 64, 20),
    "rich": (4, 128, 128, 20),
    "rich-long": (9, 96, 160, 30),
}
_AOM = {  # frames, options; of 64 x 64
    "gray": (3, "--monochrome"),
    "screen": (3, "--tune-content=screen --sb-size=64"),
    "frame-numbers": (3, "--error-resilient=1 --enable-order-hint=0"),
    "8-bits": (2, "--bit-depth=8"),
    "film-grain": (2, "--film-grain-test=1"),
    "superres": (2, "--superres-mode=1 --superres-denominator=12 --superres-kf-denominator=12"),
    "resized": (3, "--resize-mode=1 --resize-denominator=12"),
    "key-frames": (3, "--kf-max-dist=1"),
    "still": (1, "--full-still-picture-hdr"),
    "reduced-still": (1, ""),
    "colours": (2, "--color-primaries=bt709"),
    "timing": (2, "--timing-info=model"),
    "profile-1": (2, "--profile=1 --i444"),
}


@cache
def _all() -> dict[str, str]:
    loaded: dict[str, str] = json.loads(_FILE.read_text())
    return loaded


def stream(name: str) -> bytes:
    """Return a stream that was encoded before."""
    return base64.b64decode(_all()[name])


def picture(count: int, height: int, width: int, seed: int) -> npt.NDArray[np.uint16]:
    """Return frames of waves that move, with a little noise; integers alone decide, but for the rounding of sines."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 9 + k / 3) * np.cos(y / 13 - k / 5) for k in range(count)]
    values = 512 + 440 * np.stack(waves) + rng.normal(0, 6, (count, height, width))
    return np.clip(np.rint(values), 0, 1023).astype("<u2")


def _rich(frames: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Return frames with patches of noise and of two colours, which encoders code by other means."""
    rng = np.random.default_rng(3)
    frames = frames.copy()
    noise = frames[:, 32:64, 40:90]
    noise[:] = rng.integers(0, 128, noise.shape) * 8
    frames[:, :20, :20] = np.arange(400).reshape(20, 20) // 40 % 2 * 900
    return frames


def _by_aomenc(count: int, options: str) -> bytes:
    """Return the units of a stream, without temporal delimiters; nothing of it is checked."""
    eight = "--bit-depth=8" in options
    luma = picture(count, 64, 64, 7)
    chroma = np.full((count, 8192 if "i444" in options else 2048), 512, "<u2")
    raw = np.concatenate([luma.reshape(count, -1), chroma], 1)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.yuv"), Path(folder, "out.obu")
        source.write_bytes((raw >> 2).astype("u1").tobytes() if eight else raw.tobytes())
        depth = [] if eight else ["--input-bit-depth=10", "--bit-depth=10"]
        if "i444" not in options:
            depth.append("--i420")
        command = ["aomenc", "--obu", "--width=64", "--height=64", "--passes=1", "--end-usage=q", "--cq-level=56",
                   "--cpu-used=2", "--threads=1", "--lag-in-frames=0", f"--limit={count}", *depth]  # fmt: skip
        subprocess.run([*command, *options.split(), "-o", target, source], check=True, capture_output=True)
        return b"".join(unit for unit in units_of(target.read_bytes()) if unit[:1] != DELIMITER[:1])


def units_of(data: bytes) -> list[bytes]:
    """Return the units of a stream whose sizes have one or two bytes."""
    out = []
    while data:
        end = 2 + data[1] if data[1] < 128 else 3 + ((data[1] & 127) | data[2] << 7)
        out.append(data[:end])
        data = data[end:]
    return out


def delayed(unit: bytes, frames: int | None, *, level: int | None = None) -> bytes:
    """Return a sequence header of a level below 8 with a display delay, as SVT-AV1 has it from 4.2 on.

    Parameters
    ----------
    unit : bytes
        Without one.
    frames : int or None
        1..16, or only the flag.
    level : int, optional
        Another seq_level_idx; from 8 on it has a tier.
    """
    bits = "".join(f"{byte:08b}" for byte in unit[2:])
    bits = bits[: bits.rindex("1")]  # without those that fill the last byte
    place = bits[24:29] if level is None else f"{level:05b}" + "0" * (level > 7)
    delay = "0" if frames is None else f"1{frames - 1:04b}"
    bits = f"{bits[:6]}1{bits[7:24]}{place}{delay}{bits[29:]}1"
    bits += "0" * (-len(bits) % 8)
    return unit[:1] + bytes([len(bits) // 8]) + int(bits, 2).to_bytes(len(bits) // 8, "big")


def main() -> int:
    """Encode all streams and write them."""
    made = {}
    for name, (count, height, width, quantiser) in _SVT.items():
        frames = picture(count, height, width, len(name))
        made[name] = library.encode(_rich(frames) if name.startswith("rich") else frames, quantiser, 2, 1)
    made |= {name: _by_aomenc(*order) for name, order in _AOM.items()}
    texts = {name: base64.b64encode(data).decode() for name, data in made.items()}
    _FILE.write_text(json.dumps(texts, indent=1) + "\n")
    print({name: len(data) for name, data in made.items()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
