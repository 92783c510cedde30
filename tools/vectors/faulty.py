"""The faulty vectors: what every reader must refuse, with the error and the field that it names."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from inrstore.chunk import envelope as envelopes
from inrstore.chunk import frame, modes
from inrstore.chunk.encode import encode_as, seal
from inrstore.chunk.inr import bitstream, siren
from inrstore.chunk.inr.network import Values

from .frames import (
    Net,
    altered,
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
from .parts import PARTS


def faulty() -> Iterator[tuple[str, bytes, str, str]]:
    """Yield name, bytes, error and field."""
    corrupt, limit, version = "CorruptChunkError", "LimitExceededError", "UnsupportedVersionError"
    raw = encode_as(modes.RAW, np.arange(12, dtype="<i2").reshape(3, 4))
    constant = encode_as(modes.CONSTANT, np.full((3, 4), 7, "<i2")) or b""

    # the frame (section 2)
    yield "magic", edit(raw, 0, b"\x89INS"), corrupt, "magic"
    yield "nothing", b"", corrupt, "magic"
    yield "too-short", raw[:12], corrupt, "frame"
    yield "cut-short", raw[:-1], corrupt, "frame_crc"
    yield "byte-appended", raw + b"\0", corrupt, "frame_crc"
    yield "bit-flipped", raw[:30] + bytes([raw[30] ^ 4]) + raw[31:], corrupt, "frame_crc"
    yield "version-2", edit(raw, 4, b"\2"), version, "version"
    yield "version-0", edit(raw, 4, b"\0"), version, "version"
    yield "mode-200", edit(raw, 5, b"\xc8"), version, "mode"
    yield "mode-255", edit(raw, 5, b"\xff"), version, "mode"
    yield "dtype-0", edit(raw, 6, b"\0"), corrupt, "dtype"
    yield "dtype-13", edit(raw, 6, b"\x0d"), corrupt, "dtype"
    yield "dtype-bit-5", edit(raw, 6, b"\x22"), corrupt, "dtype"
    yield "dtype-big-endian-byte", edit(encode_as(modes.RAW, np.arange(5, dtype="i1")), 6, b"\x81"), corrupt, "dtype"
    yield "ndim-9", edit(raw, 7, b"\x09"), limit, "ndim"
    yield "shape-beyond-the-frame", edit(constant, 7, b"\x08"), corrupt, "shape"
    yield "shape-2to27-and-1", edit(constant, 8, struct.pack("<II", 2**27 + 1, 1)), limit, "shape"
    yield "shape-overflowing-64-bits", edit(constant, 8, struct.pack("<II", 2**32 - 1, 2**32 - 1)), limit, "shape"
    yield "shape-of-another-array", edit(raw, 8, struct.pack("<II", 4, 4)), corrupt, "raw.values"
    empty = encode_as(modes.RAW, np.empty((0, 1), "u1"))
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
        encode_as(modes.RAW, np.array([True, False, True])), b"\1\2\0"), corrupt, "payload"  # fmt: skip
    yield "constant-value-missing", repack(constant, b"\7"), corrupt, "constant.value"
    yield "constant-byte-too-many", repack(constant, b"\7\0\0"), corrupt, "constant.outside"
    yield "constant-outside-2", repack(constant, b"\7\0\2"), corrupt, "constant.outside"
    yield "constant-byte-after-outside", repack(constant, b"\7\0\1\0"), corrupt, "constant.outside"
    yield "constant-bool-2", repack(encode_as(modes.CONSTANT, np.ones(5, bool)) or b"", b"\2"), corrupt, "payload"

    yield from _faulty_envelopes(corrupt)
    yield from _faulty_masks(corrupt, limit)
    yield from _faulty_networks(corrupt, limit)
    yield from _faulty_planes(corrupt)
    for part in PARTS:
        yield from part[2]()


def _faulty_envelopes(corrupt: str) -> Iterator[tuple[str, bytes, str, str]]:
    values = smooth((5, 6), "<f4", 200)
    plain = planes_frame(values, None)
    rest = payload_of(plain)[1:]
    yield "envelope-flags-reserved", patch(plain, 0, b"\x10"), corrupt, "envelope.flags"
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
    envelope = with_mask(envelopes.whole(shape), ball(shape), np.zeros((), "<i2"))
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
    envelope = with_mask(envelopes.whole(row.shape), row, np.zeros((), "u1"))
    long = planes_frame(np.zeros(row.shape, "u1"), None, envelope)
    yield "mask-lanes-too-few", patch(long, lanes - 1, b"\1\0"), limit, "envelope.mask.lanes"
    truth = np.eye(5, dtype=bool)
    envelope = with_mask(envelopes.whole((5, 5)), np.eye(5, dtype=bool), np.array(False))
    masked = payload_of(planes_frame(truth, None, envelope))
    end = 7 + struct.unpack_from("<I", masked, 3)[0]
    forged = masked[:end] + b"\0\xff\0" + zlib.compress(b"\1\2" + bytes(23))
    yield "mask-bool-2-outside", repack(planes_frame(truth, None, envelope), forged), corrupt, "payload"
    yield "mask-fill-bool-2", patch(planes_frame(truth, None, envelope), 1, b"\2"), corrupt, "envelope.fill"


def _faulty_networks(corrupt: str, limit: str) -> Iterator[tuple[str, bytes, str, str]]:
    shape = (3, 4, 5)
    made = Net(seed=210, layers=2, width=6, axis=0).build(shape)
    whole = siren_frame(like(shape, "<i2"), made)
    payload = payload_of(whole)
    # places in the payload, behind the byte of flags
    axis, exponent, low, high, network = 1, 2, 3, 7, 11
    axes, layers, activation, width, outputs = network + 1, network + 2, network + 3, network + 4, network + 7
    multipliers = outputs + 4
    tables = multipliers + 4 * 3
    shift = tables + 6 * 4
    gain_kind, gains, offset_bytes = shift + 1, shift + 2, shift + 4
    size = payload[offset_bytes]
    words = offset_bytes + 1 + size * 3
    states = words + 4

    of_bool = siren_frame(like(shape, "u1"), replace(made, low=0, high=1))
    yield "siren-of-bool", edit(of_bool, 6, b"\x0c"), corrupt, "mode"
    # the mode's own fields (section 5)
    yield "siren-channel-axis", patch(whole, axis, b"\3"), corrupt, "siren.channel_axis"
    yield "siren-exponent-negative", patch(whole, exponent, b"\xff"), corrupt, "siren.exponent"
    yield "siren-exponent-41", patch(whole, exponent, b"\x29"), corrupt, "siren.exponent"
    yield "siren-high-above-type", patch(whole, high, struct.pack("<i", 2**15)), corrupt, "siren.exponent"
    yield "siren-low-below-type", patch(whole, low, struct.pack("<i", -(2**15) - 1)), corrupt, "siren.exponent"
    yield "siren-low-above-high", patch(whole, low, struct.pack("<ii", 2, 1)), corrupt, "siren.low"
    real = siren_frame(like(shape, "<f4"), replace(made, exponent=-4))
    yield "siren-float-exponent-101", patch(real, exponent, b"\x65"), corrupt, "siren.exponent"
    yield "siren-float-exponent-minus-128", patch(real, exponent, b"\x80"), corrupt, "siren.exponent"
    tall = patch(patch(real, exponent, b"\x62"), high, struct.pack("<i", 2**31 - 1))
    yield "siren-float-above-type", tall, corrupt, "siren.exponent"
    yield "siren-axes-of-another-box", patch(whole, axis, b"\xff"), corrupt, "siren.inputs"
    head, inner = payload[:network], bitstream.write(made.network)
    given = replace(made.network, inputs=Values(2, 5))
    yield "siren-of-values", repack(whole, head + bitstream.write(given)), corrupt, "siren.inputs"
    yield "siren-outputs-of-another-box", patch(whole, axis, b"\1"), corrupt, "siren.outputs"
    yield "siren-byte-too-many", repack(whole, payload + b"\0"), corrupt, "siren.network"
    # the network (section 7.1)
    yield "network-inputs-2", patch(whole, network, b"\2"), corrupt, "network.inputs"
    yield "network-axes-9", patch(whole, axes, b"\x09"), limit, "network.axes"
    for name, count, most, field in (
        ("values-0", 0, 5, "values"), ("values-4097", 4097, 5, "values"), ("magnitude-0", 2, 0, "magnitude"),
        ("magnitude-2to15", 2, 2**15, "magnitude"),
    ):  # fmt: skip
        forged = head + struct.pack("<BHH", 1, count, most) + inner[2:]
        yield f"network-{name}", repack(whole, forged), limit, f"network.{field}"
    yield "network-layers-0", patch(whole, layers, b"\0"), limit, "network.layers"
    yield "network-layers-17", patch(whole, layers, b"\x11"), limit, "network.layers"
    yield "network-activation-4", patch(whole, activation, b"\4"), corrupt, "network.activation"
    yield "network-activation-255", patch(whole, activation + 2, b"\xff"), corrupt, "network.activation"
    yield "network-outputs-0", patch(whole, outputs, bytes(4)), limit, "network.outputs"
    yield "network-outputs-not-earned", patch(whole, outputs, struct.pack("<I", 2000)), limit, "network.outputs"
    yield "network-outputs-above-2to22", patch(whole, outputs, b"\xff" * 4), limit, "network.outputs"
    wide = patch(patch(whole, width, b"\xff"), width + 2, b"\xff")
    yield "network-widths-not-earned", wide, limit, "network.outputs"
    yield "network-peak-1024", patch(whole, tables + 4, struct.pack("<H", 1024)), limit, "network.peak"
    yield "network-shift-3", patch(whole, shift, b"\3"), limit, "network.shift"
    yield "network-shift-35", patch(whole, shift, b"\x23"), limit, "network.shift"
    yield "network-gain-kind-2", patch(whole, gain_kind, b"\2"), corrupt, "network.gain_kind"
    yield "network-offset-bytes-0", patch(whole, offset_bytes, b"\0"), limit, "network.offset_bytes"
    yield "network-offset-bytes-5", patch(whole, offset_bytes, b"\5"), limit, "network.offset_bytes"
    for name, stop in (
        ("siren.channel_axis", axis), ("siren.exponent", exponent), ("siren.low", low + 3), ("siren.high", high + 3),
        ("network.inputs", network), ("network.axes", axes), ("network.layers", layers),
        ("network.activation", activation), ("network.width", width), ("network.outputs", outputs + 3),
        ("network.multipliers", multipliers + 11), ("network.slope", tables + 1), ("network.bend", tables + 3),
        ("network.peak", tables + 5), ("network.shift", shift), ("network.gain_kind", gain_kind),
        ("network.gains", gains + 1), ("network.offset_bytes", offset_bytes), ("network.offsets", words - 1),
        ("network.words", words + 3),
    ):  # fmt: skip
        # A payload cut this short would not earn its parameters: that check comes before most fields.
        earned = stop <= outputs + 3 or 64 * (stop - network) >= made.network.parameters
        expected = (corrupt, name) if earned else (limit, "network.outputs")
        yield f"{name.replace('.', '-').replace('_', '-')}-missing", repack(whole, payload[:stop]), *expected
    for name, field in (("values", "values"), ("magnitude", "magnitude")):
        forged = head + struct.pack("<BHH", 1, 2, 5)[: 2 if name == "values" else 4]
        yield f"network-{name}-missing", repack(whole, forged), corrupt, f"network.{field}"
    yield "network-states-missing", repack(whole, payload[: states + 3]), corrupt, "network.words"
    yield "network-state-below-2to16", patch(whole, states, struct.pack("<I", 2**16 - 1)), corrupt, "rans.states"
    state = struct.unpack_from("<I", payload, states)[0]
    yield "network-state-changed", patch(whole, states, struct.pack("<I", state ^ 1)), corrupt, "rans.states"
    count = struct.unpack_from("<I", payload, words)[0]
    yield "network-word-missing", repack(whole, payload[:-2]), corrupt, "network.words"
    fewer = patch(repack(whole, payload[:-2]), words, struct.pack("<I", count - 1))
    yield "network-word-too-few", fewer, corrupt, "rans.words"
    more = patch(repack(whole, payload + b"\0\0"), words, struct.pack("<I", count + 1))
    yield "network-word-too-many", more, corrupt, "rans.words"
    yield from _faulty_sums(limit)


def _faulty_sums(limit: str) -> Iterator[tuple[str, bytes, str, str]]:
    """Yield networks whose sums could leave what is exact (section 7.2); each is just beyond the limit."""
    base = Net(seed=211, layers=2, width=17).build((4, 5))
    heavy, column, inner = np.zeros((17, 17), np.int64), np.zeros((17, 2), np.int64), np.zeros((17, 17), np.int64)
    heavy[3] = [1023] * 16 + [33]  # 16401 x 1023 is 2^24 + 1007
    column[5, 1] = -1000
    inner[4, :2] = [1023, -3]
    biases = np.zeros((2, 17), np.int64)
    biases[1, 4] = -1022
    relu = altered(base, activations=["relu", "relu"], biases=biases)
    most, box = 2**32 - 1, (4, 1500)
    for name, made in (
        ("hidden-row-too-heavy", altered(base, weights=[column, heavy])),
        ("readout-row-too-heavy", altered(base, readout=heavy[3:4])),
        ("first-sum-too-large", altered(relu, weights=[column, 0 * heavy],
                                        multipliers=[2**52 // (1000 * 1499) + 1, 1, 1])),
        ("inner-sum-too-large", altered(relu, weights=[0 * column, inner],
                                        multipliers=[1, (2**52 - 1022 * most) // (1026 * 1023) + 1, most])),
        ("offset-too-large", altered(base, shift=34, offsets=np.array([2**22]))),
    ):  # fmt: skip
        field = "network.offsets" if name == "offset-too-large" else "network.weights"
        yield f"network-{name}", _unchecked(box, "<i2", b"\0" + siren.write(made)), limit, field


def _unchecked(shape: tuple[int, ...], dtype: str, payload: bytes) -> bytes:
    """Return a frame in mode siren whose payload no reader can decode."""
    return seal(modes.SIREN, like(shape, dtype), payload, like(shape, dtype))


def _faulty_planes(corrupt: str) -> Iterator[tuple[str, bytes, str, str]]:
    values = smooth((5, 6), "<i2", 220)
    exact, steps = planes_frame(values, None), planes_frame(values, grid_of(values, [9.0, 8, 7, 6, 5], 0))
    real = planes_frame(smooth((5, 6), "<f4", 221), grid_of(smooth((5, 6), "<f4", 221), 3.0))
    kind, axis, axes, low, first = 1, 2, 3, 3, 19  # places in the payload
    width = first + 8 * 5
    yield "planes-kind-4", patch(exact, kind, b"\4"), corrupt, "byteplanes.kind"
    yield "planes-kind-missing", repack(exact, b"\0"), corrupt, "byteplanes.kind"
    yield "planes-float-steps-of-integers", patch(steps, kind, b"\2"), corrupt, "byteplanes.kind"
    yield "planes-integer-steps-of-floats", patch(real, kind, b"\1"), corrupt, "byteplanes.kind"
    yield "planes-exact-with-channels", patch(exact, axis, b"\0"), corrupt, "byteplanes.channel_axis"
    yield "planes-channel-axis", patch(steps, axis, b"\2"), corrupt, "byteplanes.channel_axis"
    yield "planes-axes-reserved", patch(exact, axes, b"\4"), corrupt, "byteplanes.axes"
    yield "planes-low-above-high", patch(steps, low, struct.pack("<qq", 2, 1)), corrupt, "byteplanes.range"
    yield (
        "planes-range-outside-type",
        patch(steps, low, struct.pack("<qq", -(2**15) - 1, 1)),
        corrupt,
        "byteplanes.range",
    )
    yield "planes-range-nan", patch(real, low, struct.pack("<dd", np.nan, 1)), corrupt, "byteplanes.range"
    yield "planes-range-infinite", patch(real, low, struct.pack("<dd", 0, np.inf)), corrupt, "byteplanes.range"
    yield "planes-range-above-float32", patch(real, low, struct.pack("<dd", 0, 3.5e38)), corrupt, "byteplanes.range"
    yield "planes-range-missing", repack(steps, payload_of(steps)[:18]), corrupt, "byteplanes.range"
    yield "planes-step-zero", patch(steps, first + 8, bytes(8)), corrupt, "byteplanes.steps"
    for name, value in (("zero", 0.0), ("negative", -1.0), ("nan", np.nan), ("infinite", np.inf)):
        yield f"planes-float-step-{name}", patch(real, first, struct.pack("<d", value)), corrupt, "byteplanes.steps"
    yield "planes-steps-missing", repack(steps, payload_of(steps)[: width - 1]), corrupt, "byteplanes.steps"
    yield "planes-width-0", patch(steps, width, b"\0"), corrupt, "byteplanes.width"
    yield "planes-width-3", patch(steps, width, b"\3"), corrupt, "byteplanes.width"
    yield "planes-width-above-type", patch(steps, width, b"\4"), corrupt, "byteplanes.width"
    body = payload_of(exact)
    raw = zlib.decompress(body[4:])
    yield "planes-not-zlib", repack(exact, body[:4] + b"\0" * 20), corrupt, "byteplanes.data"
    yield "planes-no-data", repack(exact, body[:4]), corrupt, "byteplanes.data"
    yield "planes-data-cut", repack(exact, body[:-1]), corrupt, "byteplanes.data"
    yield "planes-bytes-after-data", repack(exact, body + b"\0"), corrupt, "byteplanes.data"
    yield "planes-value-missing", repack(exact, body[:4] + zlib.compress(raw[:-1])), corrupt, "byteplanes.data"
    yield "planes-value-too-many", repack(exact, body[:4] + zlib.compress(raw + b"\0")), corrupt, "byteplanes.data"
    yield "planes-bomb", repack(exact, body[:4] + zlib.compress(bytes(1 << 20), 9)), corrupt, "byteplanes.data"
    yield "planes-value-changed", repack(exact, body[:4] + zlib.compress(raw[::-1])), corrupt, "decoded_crc"
    truth = np.eye(5, dtype=bool)
    two = zlib.compress(bytes([2]) + bytes(24))
    yield "planes-bool-2", repack(planes_frame(truth, None), b"\0\0\xff\0" + two), corrupt, "payload"
