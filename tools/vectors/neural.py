"""Make frames in mode neural from values and random networks, and list the valid vectors of the mode.

No network is trained: the integers are random, of fixed seeds, with a plain guess among them where that is asked for.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk import decode as chunks
from inrstore.chunk import dtypes, modes
from inrstore.chunk import envelope as envelopes
from inrstore.chunk.encode import seal
from inrstore.chunk.entropy.student import StudentTable
from inrstore.chunk.envelope import Envelope
from inrstore.chunk.neural.decode import Header
from inrstore.chunk.neural.encode import Coding
from inrstore.chunk.neural.neighbourhood import PYRAMID, Neighbourhood, Volume, cube, fold
from inrstore.chunk.neural.network import Network

from .frames import Array, ball, boxed, smooth, with_exceptions, with_mask
from .matrices import size_of


@dataclass(frozen=True, kw_only=True)
class Net:
    """A random network to order; the fields are those of the specification, section 13."""

    seed: int = 0
    neighbourhood: Neighbourhood = cube(1)  # noqa: RUF009
    widths: tuple[int, ...] = (5,)
    local: bool = True
    leak: int = 3
    clip: int = 2047
    spread: int = 20
    shift: int = 6
    bias: int = 300

    def build(self) -> Network:
        """Return the network."""
        rng, sizes = np.random.default_rng(self.seed), [len(self.neighbourhood.offsets), *self.widths, 1]
        weights, biases = [], []
        for number, (a, b) in enumerate(itertools.pairwise(sizes)):
            most = self.clip if number == 0 else 1023
            w = np.clip(np.rint(rng.laplace(0, self.spread / 2, (b, a))), -1023, 1023).astype(np.int64)
            bias = rng.integers(-self.bias, self.bias + 1, b)
            over = np.ceil(np.abs(w).sum(1) * most / (2**24 - 1 - self.bias)).astype(np.int64)
            weights.append(w // np.maximum(1, over)[:, None])
            biases.append(bias)
        shifts = (self.shift,) * len(self.widths) + (max(0, self.shift - 6),)
        made = Network(self.neighbourhood, self.local, self.leak, self.clip, shifts, tuple(weights), tuple(biases))
        made.check()
        return made


def coding_of(core: Array, network: Network, *, gain: int = 256, step: int = 1, base: int | None = None,
              high: int | None = None, offset: int | None = None) -> Coding:  # fmt: skip
    """Return how the values of a box are coded."""
    pattern = dtypes.ordered(core).reshape(fold(core.shape)).astype(np.int64)
    base = int(pattern.min()) if base is None else base
    v = (pattern - base) // step
    if not np.array_equal(v * step + base, pattern):
        raise ValueError("the values are not base + step v")
    most = int(v.max()) if high is None else high
    middle = 0 if network.local else most // 2
    header = Header(base, step, most, middle if offset is None else offset, gain)
    volume = Volume(fold(core.shape), network.neighbourhood)
    return Coding(volume, network, header, volume.padded(v.astype(np.uint16)).reshape(-1))


def neural_frame(values: Array, net: Net | Network, envelope: Envelope | None = None, table: StudentTable | None = None,
                 shared: bool = False, **header: Any) -> bytes:  # fmt: skip
    """Return a frame of values; an envelope may hide some of them. `shared`: only its digest is in the frame."""
    network = net.build() if isinstance(net, Net) else net
    whole = envelope is None
    envelope = envelope or envelopes.whole(values.shape)
    core = np.array(values, values.dtype.newbyteorder("<"), order="C")[envelope.box]
    coding = coding_of(np.ascontiguousarray(core).reshape(envelope.box_shape), network, **header)
    payload = envelopes.write(envelope, values.shape) + coding.payload(coding.predict(), shared=shared, table=table)
    data = seal(modes.NEURAL, values, payload, values if shared else None)
    if whole and not shared and chunks.decode_chunk(data).tobytes() != values.tobytes():
        raise SystemExit(f"{net}: the package decodes to other values")
    return data


Pieces = dict[str, bytes]


def pieces_of(payload: bytes) -> Pieces:
    """Take a payload with its network, behind the envelope, apart by field."""
    out: Pieces = {}
    at = 0

    def take(name: str, size: int) -> bytes:
        nonlocal at
        out[name] = payload[at : at + size]
        at += size
        return out[name]

    for name, size in (("base", 4), ("step", 4), ("high", 2), ("gain", 2), ("place", 1)):
        take(name, size)
    end = struct.unpack("<I", take("network_length", 4))[0] + at
    radii = take("radii", take("slices", 1)[0])
    for name, size in (("inputs", 1), ("leak", 1), ("clip", 2)):
        take(name, size)
    layers = take("layers", 1)[0]
    widths = struct.unpack(f"<{layers}H", take("widths", 2 * layers))
    take("shifts", layers + 1)
    take("tables", 10 * (layers + 1))
    take("biases", 4 * (sum(widths) + 1))
    weights = len(Neighbourhood(tuple(radii)).offsets) * (widths[0] if widths else 1)
    weights += sum(a * b for a, b in zip(widths, (*widths[1:], 1), strict=True))
    take("states", 4 * max(1, -(-weights // 1024)))
    take("words", end - at)
    take("offset", 2)
    for name, rows in (("near_weights", 14), ("error_weights", 19)):
        take(name, size_of(payload[at:], rows, 1))
    forms = b""
    for _ in range(64):
        size = 1 if payload[at] == 255 else 7
        forms += payload[at : at + size]
        at += size
    out["contexts"] = forms
    take("lanes", 1)
    escapes = struct.unpack("<I", take("escapes", 4))[0]
    take("escaped", 2 * escapes)
    low = struct.unpack("<I", take("low_bits", 4))[0]
    take("low_bytes", low)
    take("symbols", len(payload) - at)
    return out


def joined(pieces: Pieces) -> bytes:
    """Return the payload of fields, the length of the network put right."""
    names = list(pieces)
    inside = names[names.index("slices") : names.index("offset")]
    size = sum(len(pieces[name]) for name in inside)
    return b"".join((pieces | {"network_length": struct.pack("<I", size)}).values())


def digest_of(pieces: Pieces) -> bytes:
    """Return the digest of the network."""
    names = list(pieces)
    inside = names[names.index("slices") : names.index("offset")]
    return hashlib.sha256(b"".join(pieces[name] for name in inside)).digest()


def subset_neural() -> Iterator[tuple[str, bytes]]:
    """Yield the common ones."""
    for dtype, shape in (
        ("<i2", (150,)), ("u1", (13, 17)), ("i1", (9, 14)), ("<u2", (12, 11)), ("<i4", (5, 8, 9)), ("<u4", (3, 9, 7)),
        ("<i2", (9, 10, 11)), ("<i2", (3, 4, 7, 8)),
    ):  # fmt: skip
        values = smooth(shape, dtype, 60, 60.0 if dtype[-1] == "1" else 900.0)
        yield f"neural-{dtype.strip('<')}-{len(shape)}d", neural_frame(values, Net(seed=60))
    values = smooth((4, 7, 8), "<i2", 61).astype("<f4")
    yield "neural-f4-3d", neural_frame(values, Net(seed=61), step=1 << 13)
    yield "neural-f2-2d", neural_frame(smooth((8, 9), "<f2", 62, 90.0), Net(seed=62))
    values = smooth((5, 8, 9), "<i2", 63)
    yield "neural-i2-3d-fixed", neural_frame(values, Net(seed=63, local=False, clip=1023), gain=400)
    yield "neural-i2-3d-cube-2", neural_frame(values, Net(seed=64, neighbourhood=cube(2), widths=(7, 6)), gain=90)
    box = boxed((1, 0, 2), (5, 8, 8), np.array(-7, "<i2"))
    yield "neural-i2-3d-box", neural_frame(values, Net(seed=65), box)
    mask = with_mask(envelopes.whole(values.shape), ball(values.shape), np.zeros((), "<i2"))
    yield "neural-i2-3d-mask", neural_frame(values, Net(seed=66), mask)


def uncommon_neural() -> Iterator[tuple[str, bytes]]:
    """Yield the uncommon ones: shapes, neighbourhoods, fields at their limits."""
    rng, small = np.random.default_rng(160), smooth((3, 5, 6), "<i2", 161)
    yield "neural-i2-0d", neural_frame(np.array(-300, "<i2"), Net())
    yield "neural-i2-8d", neural_frame(smooth((2, 1, 3, 2, 1, 2, 3, 2), "<i2", 162), Net())
    yield "neural-i2-one-column", neural_frame(smooth((2, 3, 30, 1), "<i2", 163), Net())
    few = (rng.random((40, 20, 20)) < 0.01).astype("u1")
    yield "neural-u1-8-lanes", neural_frame(few, Net(widths=(2,), spread=6))
    for radius in range(2, 6):
        yield f"neural-i2-cube-{radius}", neural_frame(small, Net(neighbourhood=cube(radius), widths=(2,), spread=4))
    yield (
        "neural-i2-pyramid",
        neural_frame(smooth((5, 12, 13), "<i2", 165), Net(neighbourhood=PYRAMID, widths=(3, 2), spread=4)),
    )
    for radii in ((1,), (6,), (1, 6), (1, 0, 6), (1, 1, 5), (2, 0, 0, 0, 0, 0), (6, 6, 6, 6, 6, 6)):
        name = "-".join(map(str, radii))
        yield (
            f"neural-i2-radii-{name}",
            neural_frame(small, Net(neighbourhood=Neighbourhood(radii), widths=(1,), spread=4)),
        )
    yield "neural-i2-no-layers", neural_frame(small, Net(widths=(), shift=12))
    yield "neural-i2-8-layers", neural_frame(small, Net(widths=(4, 3, 5, 2, 4, 3, 2, 3), spread=100))
    yield "neural-i2-width-1024", neural_frame(small, Net(neighbourhood=Neighbourhood((1,)), widths=(1024,), spread=3))
    yield "neural-i2-peaks-1023", neural_frame(small, Net(widths=(6,), spread=900, clip=300, shift=10))
    for leak in (0, 15):
        yield f"neural-i2-leak-{leak}", neural_frame(small, Net(leak=leak))
    yield "neural-i2-clip-1", neural_frame(small, Net(clip=1))
    yield "neural-i2-clip-16383", neural_frame(small, Net(clip=16383, widths=(3,)), gain=65535)
    for shift in (0, 24):
        yield f"neural-i2-shift-{shift}", neural_frame(small, Net(shift=shift, spread=4))
    yield "neural-i2-bias-large", neural_frame(small, Net(bias=1 << 22, shift=12, clip=100))
    for gain in (1, 255, 257, 65535):
        yield f"neural-i2-gain-{gain}", neural_frame(small, Net(), gain=gain)
    noise = rng.integers(0, 2**16, (4, 7, 8)).astype("<u2")
    noise[0, 0, :2] = 0, 65535
    yield "neural-u2-all-values", neural_frame(noise, Net())
    yield "neural-u2-all-values-fixed", neural_frame(noise, Net(local=False), gain=16)
    yield "neural-u2-offset-0", neural_frame(noise, Net(local=False), offset=0)
    yield "neural-u2-offset-high", neural_frame(noise, Net(local=False), offset=65535)
    values = (rng.integers(0, 19, (5, 6)) * 200_000_001 - 1_800_000_009).astype("<i4")
    yield "neural-i4-step-large", neural_frame(values, Net(), step=200_000_001)
    yield "neural-u2-high-0", neural_frame(np.full((6, 7), 7, "<u2"), Net())
    yield "neural-u2-high-beyond-the-values", neural_frame(np.full((6, 7), 7, "<u2"), Net(), base=3, high=900)
    nan = (0x7FC00000 + rng.integers(0, 1000, (6, 7))).astype("<u4").view("<f4")
    yield "neural-f4-nan-payloads", neural_frame(nan, Net())
    yield "neural-i2-escapes", neural_frame(small, Net(), table=StudentTable(0, True, 400, 9, 2000))
    yield "neural-i2-low-bits", neural_frame(small, Net(), table=StudentTable(7, False, 90, 3, 50))
    wide = smooth((3, 8, 9), "<i2", 170, 2000.0)
    yield "neural-i2-roots-rounded-down", neural_frame(wide, Net(), table=StudentTable(0, False, 3820, 334, 1356))
    yield "neural-i2-big-endian", neural_frame(small.astype(">i2"), Net())
    values = np.asfortranarray(smooth((4, 5, 6), "<i2", 166).astype("<f4").astype(">f4"))
    yield "neural-f4-fortran-big-endian", neural_frame(values, Net(), step=1 << 13)
    odd = with_exceptions(boxed((0, 1, 2), (4, 6, 7), np.full((), np.nan, "<f4")), "<f4", 167)
    odd = with_mask(odd, ball((4, 5, 1)), np.full((), np.nan, "<f4"))
    values = smooth((4, 6, 7), "<i2", 167).astype("<f4")
    yield "neural-f4-box-mask-exceptions", neural_frame(values, Net(), odd, step=1 << 13)


def shared_neural() -> Iterator[tuple[str, bytes, list[bytes]]]:
    """Yield name, bytes and the parameters of the configuration: others, too."""
    network, other = Net(seed=168, widths=(4,)).build(), Net(seed=169, local=False).build()
    values = smooth((3, 6, 7), "<i2", 168)
    yield "neural-i2-shared", neural_frame(values, network, shared=True), [other.data, b"no network", network.data]
    yield "neural-i2-shared-fixed", neural_frame(values, other, shared=True, gain=90), [other.data]


def matrix(row: npt.NDArray[np.int64]) -> bytes:
    """Return integers as a matrix of one column."""
    from .predictor import matrix as of_rows

    return of_rows(row[:, None])
