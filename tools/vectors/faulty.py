"""The faulty vectors: what every reader must refuse, with the error and the field that it names."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from inrstore.chunk import frame, normalize
from inrstore.chunk import frames as chunks
from inrstore.chunk.inr import siren

from .frames import (
    Net,
    ball,
    boxed,
    edit,
    grid_of,
    like,
    patch,
    payload_of,
    planes_frame,
    repack,
    siren_frame,
    smooth,
    with_mask,
)
from .neural_faulty import faulty_neural
from .predictor_faulty import faulty_predictor
from .transform_faulty import faulty_transform


def faulty() -> Iterator[tuple[str, bytes, str, str]]:
    """Yield name, bytes, error and field."""
    corrupt, limit, version = "CorruptChunkError", "LimitExceededError", "UnsupportedVersionError"
    raw = chunks.encode_raw(np.arange(12, dtype="<i2").reshape(3, 4))
    constant = chunks.encode_trivial(np.full((3, 4), 7, "<i2")) or b""

    # the frame (section 2)
    yield "magic", edit(raw, 0, b"\x89INS"), corrupt, "magic"
    yield "nothing", b"", corrupt, "magic"
    yield "too-short", raw[:12], corrupt, "frame"
    yield "cut-short", raw[:-1], corrupt, "frame_crc"
    yield "byte-appended", raw + b"\0", corrupt, "frame_crc"
    yield "bit-flipped", raw[:30] + bytes([raw[30] ^ 4]) + raw[31:], corrupt, "frame_crc"
    yield "version-2", edit(raw, 4, b"\2"), version, "version"
    yield "version-0", edit(raw, 4, b"\0"), version, "version"
    yield "mode-7", edit(raw, 5, b"\7"), version, "mode"
    yield "mode-255", edit(raw, 5, b"\xff"), version, "mode"
    yield "dtype-0", edit(raw, 6, b"\0"), corrupt, "dtype"
    yield "dtype-13", edit(raw, 6, b"\x0d"), corrupt, "dtype"
    yield "dtype-bit-5", edit(raw, 6, b"\x22"), corrupt, "dtype"
    yield "dtype-big-endian-byte", edit(chunks.encode_raw(np.arange(5, dtype="i1")), 6, b"\x81"), corrupt, "dtype"
    yield "ndim-9", edit(raw, 7, b"\x09"), limit, "ndim"
    yield "shape-beyond-the-frame", edit(constant, 7, b"\x08"), corrupt, "shape"
    yield "shape-2to27-and-1", edit(constant, 8, struct.pack("<II", 2**27 + 1, 1)), limit, "shape"
    yield "shape-overflowing-64-bits", edit(constant, 8, struct.pack("<II", 2**32 - 1, 2**32 - 1)), limit, "shape"
    yield "shape-of-another-array", edit(raw, 8, struct.pack("<II", 4, 4)), corrupt, "raw.values"
    empty = chunks.encode_raw(np.empty((0, 1), "u1"))
    yield "shape-2to27-and-1-beside-0", edit(empty, 8, struct.pack("<II", 0, 2**27 + 1)), limit, "shape"
    yield "empty-but-constant", edit(constant, 8, struct.pack("<II", 0, 4)), corrupt, "shape"
    at = frame.header_size(2)
    yield "decoded-crc", edit(raw, at - 8, b"\1\2\3\4"), corrupt, "decoded_crc"
    yield "payload-length-short", edit(raw, at - 4, struct.pack("<I", 23)), corrupt, "payload_length"
    yield "payload-length-long", edit(raw, at - 4, struct.pack("<I", 2**32 - 1)), corrupt, "payload_length"

    # raw and constant (section 3)
    yield "raw-value-missing", repack(raw, payload_of(raw)[:-2]), corrupt, "raw.values"
    yield "raw-byte-too-many", repack(raw, payload_of(raw) + b"\0"), corrupt, "raw.values"
    yield "raw-bool-2", repack(
        chunks.encode_raw(np.array([True, False, True])), b"\1\2\0"), corrupt, "payload"  # fmt: skip
    yield "constant-value-missing", repack(constant, b"\7"), corrupt, "constant.value"
    yield "constant-byte-too-many", repack(constant, b"\7\0\0"), corrupt, "constant.outside"
    yield "constant-outside-2", repack(constant, b"\7\0\2"), corrupt, "constant.outside"
    yield "constant-byte-after-outside", repack(constant, b"\7\0\1\0"), corrupt, "constant.outside"
    yield "constant-bool-2", repack(chunks.encode_trivial(np.ones(5, bool)) or b"", b"\2"), corrupt, "payload"

    yield from _faulty_envelopes(corrupt)
    yield from _faulty_masks(corrupt, limit)
    yield from _faulty_networks(corrupt, limit)
    yield from _faulty_planes(corrupt)
    yield from faulty_predictor()
    yield from faulty_neural()
    yield from faulty_transform()


def _faulty_envelopes(corrupt: str) -> Iterator[tuple[str, bytes, str, str]]:
    values = smooth((5, 6), "<f4", 200)
    plain = planes_frame(values, None)
    rest = payload_of(plain)[1:]
    yield "envelope-flags-reserved", patch(plain, 0, b"\x08"), corrupt, "envelope.flags"
    yield "envelope-missing", repack(plain, b""), corrupt, "envelope.flags"
    whole = planes_frame(smooth((5, 6), "<i2", 201), None)
    yield "exceptions-of-integers", patch(whole, 0, b"\2"), corrupt, "envelope.flags"
    box = planes_frame(values, None, boxed((1, 1), (4, 5), np.array(0, "<f4")))
    yield "box-empty", patch(box, 1, struct.pack("<4I", 1, 4, 4, 4)), corrupt, "envelope.stop"
    yield "box-reversed", patch(box, 1, struct.pack("<4I", 4, 1, 1, 5)), corrupt, "envelope.stop"
    yield "box-outside", patch(box, 1, struct.pack("<4I", 1, 1, 6, 5)), corrupt, "envelope.stop"
    yield "box-start-missing", repack(box, payload_of(box)[:5]), corrupt, "envelope.start"
    yield "box-stop-missing", repack(box, payload_of(box)[:12]), corrupt, "envelope.stop"
    yield "box-fill-missing", repack(box, payload_of(box)[:19]), corrupt, "envelope.fill"
    truth = np.zeros((4, 4), bool)
    truth[1, 2] = True
    fill = planes_frame(truth, None, boxed((1, 1), (3, 4), np.array(False)))
    unused = b"\1" + struct.pack("<4I", 0, 0, 4, 4) + b"\2" + payload_of(planes_frame(truth, None))[1:]
    yield "box-fill-bool-2-unused", repack(fill, unused), corrupt, "envelope.fill"
    yield "box-fill-bool-2", patch(fill, 17, b"\2"), corrupt, "envelope.fill"

    def exceptions(bitmap: bytes, given: bytes) -> bytes:
        streams = b"".join(struct.pack("<I", len(s)) + s for s in (bitmap, given))
        return repack(plain, b"\2" + streams + rest)

    bits, one = np.packbits(np.arange(30) == 3).tobytes(), np.array([np.nan], "<f4").tobytes()
    pack = zlib.compress
    yield "exceptions-not-zlib", exceptions(b"\0" * 9, pack(one)), corrupt, "envelope.exceptions"
    yield "exceptions-too-few-bits", exceptions(pack(bits[:-1]), pack(one)), corrupt, "envelope.exceptions"
    yield "exceptions-too-many-bits", exceptions(pack(bits + b"\0"), pack(one)), corrupt, "envelope.exceptions"
    padding = bits[:-1] + bytes([bits[-1] | 1])
    yield "exceptions-padding", exceptions(pack(padding), pack(one)), corrupt, "envelope.exceptions"
    yield "exceptions-checksum", exceptions(pack(bits)[:-1] + b"!", pack(one)), corrupt, "envelope.exceptions"
    yield "exceptions-stream-cut", exceptions(pack(bits)[:-2], pack(one)), corrupt, "envelope.exceptions"
    yield "exceptions-bytes-after", exceptions(pack(bits) + b"\0", pack(one)), corrupt, "envelope.exceptions"
    yield "exceptions-bomb", exceptions(pack(bytes(1 << 20)), pack(one)), corrupt, "envelope.exceptions"
    long = repack(plain, b"\2" + struct.pack("<I", 2**32 - 1) + rest)
    yield "exceptions-length", long, corrupt, "envelope.exceptions"
    yield "exceptional-value-missing", exceptions(pack(bits), pack(one[:-1])), corrupt, "envelope.values"
    yield "exceptional-value-too-many", exceptions(pack(bits), pack(one * 2)), corrupt, "envelope.values"
    yield "exceptional-values-bomb", exceptions(pack(bits), pack(bytes(1 << 20))), corrupt, "envelope.values"


def _faulty_masks(corrupt: str, limit: str) -> Iterator[tuple[str, bytes, str, str]]:
    shape = (9, 12, 14)
    envelope = with_mask(normalize.whole(shape), ball(shape), np.zeros((), "<i2"))
    whole = planes_frame(smooth(shape, "<i2", 230), None, envelope)
    payload = payload_of(whole)
    axes, length, lanes, counts = 3, 4, 8, 10  # places in the payload, behind flags and fill
    states = counts + 2 * 19
    end = lanes + struct.unpack_from("<I", payload, length)[0]

    def changed(coded: bytes) -> bytes:
        return repack(whole, payload[:length] + struct.pack("<I", len(coded)) + coded + payload[end:])

    yield "mask-axes-reserved", patch(whole, axes, b"\x08"), corrupt, "envelope.mask_axes"
    yield "mask-axes-of-another-mask", patch(whole, axes, b"\3"), corrupt, "envelope.mask.words"
    yield "mask-fill-missing", repack(whole, payload[: axes - 1]), corrupt, "envelope.fill"
    yield "mask-axes-missing", repack(whole, payload[:axes]), corrupt, "envelope.mask_axes"
    yield "mask-length-missing", repack(whole, payload[: length + 3]), corrupt, "envelope.mask"
    yield "mask-length-long", patch(whole, length, struct.pack("<I", 2**32 - 1)), corrupt, "envelope.mask"
    yield "mask-lanes-missing", changed(payload[lanes : lanes + 1]), corrupt, "envelope.mask.lanes"
    yield "mask-lanes-0", patch(whole, lanes, b"\0\0"), limit, "envelope.mask.lanes"
    yield "mask-counts-missing", changed(payload[lanes : states - 1]), corrupt, "envelope.mask.counts"
    yield "mask-count-16385", patch(whole, counts + 36, struct.pack("<H", 16385)), corrupt, "envelope.mask.counts"
    yield "mask-states-missing", changed(payload[lanes : states + 3]), corrupt, "envelope.mask.states"
    below = patch(whole, states, struct.pack("<I", 2**16 - 1))
    yield "mask-state-below-2to16", below, corrupt, "envelope.mask.states"
    state = struct.unpack_from("<I", payload, states)[0]
    yield "mask-state-changed", patch(whole, states, struct.pack("<I", state ^ 1)), corrupt, "envelope.mask.words"
    yield "mask-odd-byte", changed(payload[lanes:end] + b"\0"), corrupt, "envelope.mask.words"
    yield "mask-word-missing", changed(payload[lanes : end - 2]), corrupt, "envelope.mask.words"
    yield "mask-word-too-many", changed(payload[lanes:end] + b"\0\0"), corrupt, "envelope.mask.words"
    row = np.arange(2**15 + 1) < 9
    envelope = with_mask(normalize.whole(row.shape), row, np.zeros((), "u1"))
    long = planes_frame(np.zeros(row.shape, "u1"), None, envelope)
    yield "mask-lanes-too-few", patch(long, lanes - 1, b"\1\0"), limit, "envelope.mask.lanes"
    truth = np.eye(5, dtype=bool)
    envelope = with_mask(normalize.whole((5, 5)), np.eye(5, dtype=bool), np.array(False))
    masked = payload_of(planes_frame(truth, None, envelope))
    end = 7 + struct.unpack_from("<I", masked, 3)[0]
    forged = masked[:end] + b"\0\xff\0" + zlib.compress(b"\1\2" + bytes(23))
    yield "mask-bool-2-outside", repack(planes_frame(truth, None, envelope), forged), corrupt, "payload"
    yield "mask-fill-bool-2", patch(planes_frame(truth, None, envelope), 1, b"\2"), corrupt, "envelope.fill"


def _faulty_networks(corrupt: str, limit: str) -> Iterator[tuple[str, bytes, str, str]]:
    layers, width, shape = 2, 6, (3, 4, 5)
    network = Net(seed=210, layers=layers, width=width, axis=0).build(shape)
    whole = siren_frame(like(shape, "<i2"), network)
    payload = payload_of(whole)
    # places in the payload, behind the byte of flags
    axis, layer, wide, exponent, shift, low, high, multipliers = 1, 2, 3, 5, 6, 7, 11, 15
    tables = multipliers + 4 * (layers + 1)
    gain_kind = tables + 10 * (layers + 2)
    offsets = gain_kind + 3
    states = offsets + 4 * shape[0]
    words = states + 4

    yield (
        "siren-of-bool",
        edit(siren_frame(like(shape, "u1"), replace(network, low=0, high=1)), 6, b"\x0c"),
        corrupt,
        "mode",
    )
    yield "siren-channel-axis", patch(whole, axis, b"\3"), corrupt, "siren.channel_axis"
    yield "siren-layers-0", patch(whole, layer, b"\0"), limit, "siren.layers"
    yield "siren-layers-17", patch(whole, layer, b"\x11"), limit, "siren.layers"
    yield "siren-width-0", patch(whole, wide, b"\0\0"), limit, "siren.width"
    yield "siren-width-257", patch(whole, wide, b"\1\1"), limit, "siren.width"
    yield "siren-parameters-not-earned", patch(whole, layer, b"\x10\0\1"), limit, "siren.parameters"
    many = edit(whole, 8, struct.pack("<III", 2**25, 2, 2))
    yield "siren-parameters-above-2to22", many, limit, "siren.parameters"
    yield "siren-exponent-negative", patch(whole, exponent, b"\xff"), corrupt, "siren.exponent"
    yield "siren-exponent-41", patch(whole, exponent, b"\x29"), corrupt, "siren.exponent"
    yield "siren-high-above-type", patch(whole, high, struct.pack("<i", 2**15)), corrupt, "siren.exponent"
    yield "siren-low-below-type", patch(whole, low, struct.pack("<i", -(2**15) - 1)), corrupt, "siren.exponent"
    yield "siren-low-above-high", patch(whole, low, struct.pack("<ii", 2, 1)), corrupt, "siren.low"
    real = siren_frame(like(shape, "<f4"), replace(network, exponent=-4))
    yield "siren-float-exponent-101", patch(real, exponent, b"\x65"), corrupt, "siren.exponent"
    yield "siren-float-exponent-minus-128", patch(real, exponent, b"\x80"), corrupt, "siren.exponent"
    tall = patch(patch(real, exponent, b"\x62"), high, struct.pack("<i", 2**31 - 1))
    yield "siren-float-above-type", tall, corrupt, "siren.exponent"
    yield "siren-shift-3", patch(whole, shift, b"\3"), limit, "siren.shift"
    yield "siren-shift-35", patch(whole, shift, b"\x23"), limit, "siren.shift"
    yield "siren-peak-1024", patch(whole, tables + 8, struct.pack("<H", 1024)), limit, "siren.peak"
    yield "siren-gain-kind-2", patch(whole, gain_kind, b"\2"), corrupt, "siren.gain_kind"
    for name, stop in (
        ("channel_axis", axis), ("layers", layer), ("width", wide + 1), ("exponent", exponent), ("shift", shift),
        ("low", low + 3), ("high", high + 3), ("multipliers", multipliers + 11), ("slope", tables + 3),
        ("bend", tables + 7), ("peak", tables + 9), ("gain_kind", gain_kind), ("gains", gain_kind + 2),
        ("offsets", offsets + 11),
    ):  # fmt: skip
        # A payload cut this short would not earn its parameters: that check comes before most fields.
        earned = stop <= wide + 1 or 64 * (stop - 1) >= 2 * width + width * width + layers * width + shape[0] * width
        expected = (corrupt, f"siren.{name}") if earned else (limit, "siren.parameters")
        yield f"siren-{name.replace('_', '-')}-missing", repack(whole, payload[:stop]), *expected
    yield "siren-states-missing", repack(whole, payload[: words - 1]), corrupt, "rans.states"
    yield "siren-state-below-2to16", patch(whole, states, struct.pack("<I", 2**16 - 1)), corrupt, "rans.states"
    state = struct.unpack_from("<I", payload, states)[0]
    yield "siren-state-changed", patch(whole, states, struct.pack("<I", state ^ 1)), corrupt, "rans.states"
    yield "siren-word-missing", repack(whole, payload[:-2]), corrupt, "rans.words"
    yield "siren-word-too-many", repack(whole, payload + b"\0\0"), corrupt, "rans.words"
    yield "siren-odd-byte", repack(whole, payload + b"\0"), corrupt, "rans.words"
    base = Net(seed=211, layers=2, width=17).build((4, 4))
    for name, heavy in (("hidden", {"weights": [base.weights[0], np.full((17, 17), 1000)]}),
                        ("readout", {"readout": np.full((1, 17), -1000)})):  # fmt: skip
        frame_bytes = _unchecked((4, 4), "<i2", b"\0" + siren.write(replace(base, **heavy)))
        yield f"siren-{name}-row-too-heavy", frame_bytes, limit, "siren.weights"


def _unchecked(shape: tuple[int, ...], dtype: str, payload: bytes) -> bytes:
    """Return a frame in mode siren whose payload no reader can decode."""
    return chunks.seal(frame.SIREN, like(shape, dtype), payload)


def _faulty_planes(corrupt: str) -> Iterator[tuple[str, bytes, str, str]]:
    values = smooth((5, 6), "<i2", 220)
    exact, steps = planes_frame(values, None), planes_frame(values, grid_of(values, [9.0, 8, 7, 6, 5], 0))
    real = planes_frame(smooth((5, 6), "<f4", 221), grid_of(smooth((5, 6), "<f4", 221), 3.0))
    kind, axis, axes, low, first = 1, 2, 3, 3, 19  # places in the payload
    width = first + 8 * 5
    yield "planes-kind-3", patch(exact, kind, b"\3"), corrupt, "planes.kind"
    yield "planes-kind-missing", repack(exact, b"\0"), corrupt, "planes.kind"
    yield "planes-float-steps-of-integers", patch(steps, kind, b"\2"), corrupt, "planes.kind"
    yield "planes-integer-steps-of-floats", patch(real, kind, b"\1"), corrupt, "planes.kind"
    yield "planes-exact-with-channels", patch(exact, axis, b"\0"), corrupt, "planes.channel_axis"
    yield "planes-channel-axis", patch(steps, axis, b"\2"), corrupt, "planes.channel_axis"
    yield "planes-axes-reserved", patch(exact, axes, b"\4"), corrupt, "planes.axes"
    yield "planes-low-above-high", patch(steps, low, struct.pack("<qq", 2, 1)), corrupt, "planes.range"
    yield "planes-range-outside-type", patch(steps, low, struct.pack("<qq", -(2**15) - 1, 1)), corrupt, "planes.range"
    yield "planes-range-nan", patch(real, low, struct.pack("<dd", np.nan, 1)), corrupt, "planes.range"
    yield "planes-range-infinite", patch(real, low, struct.pack("<dd", 0, np.inf)), corrupt, "planes.range"
    yield "planes-range-above-float32", patch(real, low, struct.pack("<dd", 0, 3.5e38)), corrupt, "planes.range"
    yield "planes-range-missing", repack(steps, payload_of(steps)[:18]), corrupt, "planes.range"
    yield "planes-step-zero", patch(steps, first + 8, bytes(8)), corrupt, "planes.steps"
    for name, value in (("zero", 0.0), ("negative", -1.0), ("nan", np.nan), ("infinite", np.inf)):
        yield f"planes-float-step-{name}", patch(real, first, struct.pack("<d", value)), corrupt, "planes.steps"
    yield "planes-steps-missing", repack(steps, payload_of(steps)[: width - 1]), corrupt, "planes.steps"
    yield "planes-width-0", patch(steps, width, b"\0"), corrupt, "planes.width"
    yield "planes-width-3", patch(steps, width, b"\3"), corrupt, "planes.width"
    yield "planes-width-above-type", patch(steps, width, b"\4"), corrupt, "planes.width"
    body = payload_of(exact)
    raw = zlib.decompress(body[4:])
    yield "planes-not-zlib", repack(exact, body[:4] + b"\0" * 20), corrupt, "planes.data"
    yield "planes-no-data", repack(exact, body[:4]), corrupt, "planes.data"
    yield "planes-data-cut", repack(exact, body[:-1]), corrupt, "planes.data"
    yield "planes-bytes-after-data", repack(exact, body + b"\0"), corrupt, "planes.data"
    yield "planes-value-missing", repack(exact, body[:4] + zlib.compress(raw[:-1])), corrupt, "planes.data"
    yield "planes-value-too-many", repack(exact, body[:4] + zlib.compress(raw + b"\0")), corrupt, "planes.data"
    yield "planes-bomb", repack(exact, body[:4] + zlib.compress(bytes(1 << 20), 9)), corrupt, "planes.data"
    yield "planes-value-changed", repack(exact, body[:4] + zlib.compress(raw[::-1])), corrupt, "decoded_crc"
    truth = np.eye(5, dtype=bool)
    two = zlib.compress(bytes([2]) + bytes(24))
    yield "planes-bool-2", repack(planes_frame(truth, None), b"\0\0\xff\0" + two), corrupt, "payload"
