"""Make frames in mode predictor from values and a plan; take them apart by field, so that one can be spoilt.

No weights are fitted: they are a plain guess with some chance from a fixed seed, so that a vector is the same on
every machine. The order of values and their contexts come from `specs/decoder_predictor.py`, which is given the true
values in place of streams; the package then has to decode the same from the bytes.
"""

from __future__ import annotations

import importlib
import math
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk import decode as chunks
from inrstore.chunk import dtypes, modes
from inrstore.chunk import envelope as envelopes
from inrstore.chunk.encode import seal
from inrstore.chunk.envelope import Envelope

Array = npt.NDArray[Any]
Pieces = dict[str, bytes]
"""The fields of a predictor payload behind the envelope, in their order."""


def reader() -> ModuleType:
    """Return the independent reader of the mode."""
    folder = str(Path(__file__).resolve().parents[2] / "specs")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module("decoder_predictor")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a frame is to look like; the fields are those of the specification, section 12."""

    seed: int = 0
    exchanged: bool = False
    zeros: bool = False
    base: int | None = None
    step: int = 1
    low: int | None = None
    high: int | None = None
    top: int = 1
    row_parts: int = 1
    column_parts: int = 1
    order: tuple[int, ...] | None = None
    group_shift: int = 12
    group_spread: int = 0
    fraction: int = 8
    sets: int = 2
    clip: int = 2000
    noise: int = 8
    activity_scale: int = 64
    error_weight: int = 40
    peak: int = 500
    shift: int | None = None
    tail: int = 2
    escape: int | None = None
    phased: bool | None = None
    all_contexts: bool = False
    overshoot: bool = False
    wide_columns: bool = False
    region: tuple[int, int] | None = None
    region_shift: int = 0
    region_spread: int = 12
    lanes: int = 2
    limits: bool = False


def predictor_frame(values: Array, plan: Plan, envelope: Envelope | None = None, core: Array | None = None) -> bytes:
    """Return a frame of values; an envelope may hide some of them, `core` is then what is coded of the box."""
    whole = envelope is None
    envelope = envelope or envelopes.whole(values.shape)
    if core is None:
        core = np.array(values, values.dtype.newbyteorder("<"), order="C")[envelope.box]
    payload = envelopes.write(envelope, values.shape) + b"".join(pieces_of(core, plan).values())
    data = seal(modes.PREDICTOR, values, payload)
    if whole and chunks.decode_chunk(data).tobytes() != values.tobytes():
        raise SystemExit(f"{plan}: the package decodes to other values")
    return data


def matrix(rows: Array, least: int = 0) -> bytes:
    """Return a matrix of integers as bytes, each column as wide as it needs or as `least`."""
    rows = np.asarray(rows, np.int64)
    coded = np.where(rows >= 0, 2 * rows, -2 * rows - 1)
    widths = [max([least, *(int(z).bit_length() for z in column)]) for column in coded.T]
    bits = [
        int(z) >> i & 1 for column, width in zip(coded.T, widths, strict=True) for z in column for i in range(width)
    ]
    return bytes(widths) + np.packbits(np.array(bits, np.uint8), bitorder="little").tobytes()


def pieces_of(core: Array, plan: Plan, *, last: int = 1 << 16, lie: bool = False) -> Pieces:
    """Return the fields that code the values of a box.

    For faulty frames the symbol stream may end in another state, or the last coded value may be a 0 whose flag says
    that it is none.
    """
    tool, rng = reader(), np.random.default_rng(plan.seed)
    *first, z, y, x = 1, 1, 1, *core.shape
    shape = (int(np.prod(first)), z, y, x)
    pattern = dtypes.ordered(core).reshape(shape).astype(np.int64)
    if plan.exchanged:
        pattern = pattern.swapaxes(2, 3)
    base = int(pattern.min()) if plan.base is None else plan.base
    v = (pattern - base) // plan.step
    if not np.array_equal(v * plan.step + base, pattern):
        raise ValueError("the values are not base + step v")
    low = min(0, int(v.min())) if plan.low is None else plan.low
    high = max(0, int(v.max())) if plan.high is None else plan.high
    flags = plan.exchanged | plan.zeros << 1 | (plan.region is not None) << 2
    pieces: Pieces = {
        "flags": bytes([flags]), "base": struct.pack("<I", base), "step": struct.pack("<I", plan.step),
        "low": struct.pack("<i", low), "high": struct.pack("<i", high), "top": bytes([plan.top]),
        "row_parts": struct.pack("<H", plan.row_parts), "column_parts": struct.pack("<H", plan.column_parts),
    }  # fmt: skip
    if plan.region is not None:
        pieces["region_rows"], pieces["region_columns"] = (struct.pack("<H", side) for side in plan.region)
    order = np.arange(shape[0]) if plan.order is None else np.array(plan.order)
    if shape[0] > 1:
        pieces["order"] = order.astype("<u2").tobytes()
    head, fields = tool.Header(tool.Reader(b"".join(pieces.values())), core.dtype, core.shape), len(pieces)
    for group, (start, end) in enumerate(head.groups):
        if start:
            pieces.update(_group(rng, plan, group, start, end))
        for stage, (d, slices) in enumerate(head.stages):
            made = _stage(rng, plan, tool, f"{group} {stage}", start > 0, d)
            if plan.region is not None:
                made = _with_regions(rng, plan, head, f"{group} {stage}", made, len(slices), 40 if d else 22)
            pieces.update(made)
    model = tool.Reader(b"".join(list(pieces.values())[fields:]))
    groups = [tool.Group(model, head, *group) for group in head.groups]
    truth = _cut(v[order], head)
    recorder = _recorder(tool)(head, truth)
    for one in groups:
        recorder.decode_group(one)
    pieces.update(_streams(tool, head, plan, recorder, last, lie))
    return pieces


def _cut(v: Array, head: Any) -> Array:
    """Return the values by measurement, slice, part, row and column; the edge goes on where parts reach beyond it."""
    (a, b), (rows, columns) = head.parts, head.shape
    v = np.pad(v, ((0, 0), (0, 0), (0, a * head.h - rows), (0, b * head.l - columns)), "edge")
    v = v.reshape(v.shape[0], v.shape[1], a, head.h, b, head.l).swapaxes(3, 4)
    return v.reshape(v.shape[0], v.shape[1], a * b, head.h, head.l)


def _group(rng: np.random.Generator, plan: Plan, group: int, start: int, end: int) -> Pieces:
    used = min(start, 256)
    weights = np.zeros((end - start, used + 1), np.int64)
    weights[:, : min(used, 4)] = (1 << plan.group_shift) // min(used, 4)
    weights += rng.integers(-plan.group_spread, plan.group_spread + 1, weights.shape)
    return {f"group_shift {group}": bytes([plan.group_shift]), f"group_weights {group}": matrix(weights)}


def _stage(rng: np.random.Generator, plan: Plan, tool: ModuleType, name: str, later: bool, d: int) -> Pieces:
    """Return the fields of a stage: left + above - left above, half of it from the slices beside, and some noise."""
    own = tool.offsets(tool.OWN)
    j = len(own) + (18 if d else 0)
    k, m = j + (9 if later else 0), 10 + (2 if d else 0) + (1 if later else 0)
    one = 1 << plan.fraction
    pieces: Pieces = {}
    if plan.zeros:
        votes = np.full(j + 1, 200, np.int64)
        votes[-1] = -100 * j
        pieces[f"flag_weights {name}"] = matrix(votes[:, None])
    weights = rng.integers(-plan.noise, plan.noise + 1, (plan.sets, k + 1))
    for place, share in (((0, -1), 6), ((-1, 0), 6), ((-1, -1), -4)):
        weights[:, own.index(place)] += one * share // (16 if d else 8)
    if d:
        weights[:, [len(own) + 4, len(own) + 13]] += one // 4
    clip = min(plan.clip, int((2**24 - 1 - one - plan.noise) // max(1, np.abs(weights[:, :-1]).sum(axis=1).max())))
    activity = np.zeros((k + 1, 1), np.int64)
    activity[:17], activity[-1] = 8, 3
    steps = np.array([[43 + 32 * i] for i in range(plan.sets - 1)], np.int64).reshape(-1, 1)  # t may be 8 i + 3
    errors = np.full((m, 1), plan.error_weight, np.int64)
    if plan.limits:  # one more, and each would be refused
        weights[:, -1] = 2**24 - 1 - clip * np.abs(weights[:, :-1]).sum(axis=1)
        activity[-1] = 2**24 - 1 - clip * activity[:-1].sum()
        steps[-1] = 2**24 - 1 - steps[:-1].sum()
        errors[0] = 4097 - errors[1:].sum()
    least = 40 if plan.wide_columns else 0
    return pieces | {
        f"fraction {name}": bytes([plan.fraction]), f"sets {name}": bytes([plan.sets]),
        f"clip {name}": struct.pack("<H", clip), f"weights {name}": matrix(weights, least),
        f"thresholds {name}": matrix(steps, least), f"activity_weights {name}": matrix(activity, least),
        f"activity_scale {name}": struct.pack("<H", plan.activity_scale), f"error_weights {name}": matrix(errors),
    }  # fmt: skip


def _with_regions(
    rng: np.random.Generator, plan: Plan, head: Any, name: str, made: Pieces, slices: int, columns: int
) -> Pieces:
    """Return the fields of a stage with noise for each region, if the stage has enough values for all of them."""
    number = math.prod(-(-n // side) for n, side in zip((head.h, head.l), head.regions, strict=True))
    fields: Pieces = {f"region_shift {name}": b"\xff"}
    if 2048 * number <= math.prod(head.parts) * head.h * head.l * slices:
        fields[f"region_shift {name}"] = bytes([plan.region_shift])
        spread = rng.integers(-plan.region_spread, plan.region_spread + 1, (number * plan.sets, columns))
        clip = int(struct.unpack("<H", made[f"clip {name}"])[0])
        least = plan.region_spread << plan.region_shift
        reach = 4 * (1 << plan.fraction) + (plan.noise + least) * columns
        made = made | {f"clip {name}": struct.pack("<H", max(1, min(clip, (2**24 - 1 - reach) // reach)))}
        fields[f"region_weights {name}"] = matrix(spread)
    out: Pieces = {}
    for key, data in made.items():
        out[key] = data
        if key.startswith("weights "):
            out.update(fields)
    return out


def _recorder(tool: ModuleType) -> Any:
    """Return a decoder that is told the values, and notes what the streams have to say."""

    class Recorder(tool.Decoder):  # type: ignore[name-defined, misc]
        def __init__(self, head: Any, truth: Array) -> None:
            super().__init__(head, self)
            self.truth, self.classes, self.flags, self.coded = truth, [], [], []

        def decode_step(self, group: Any, stage: Any, block: Array, y: Any, x: Any) -> None:
            m, z, part = block
            self.now = self.truth[m, z, part, y, x].ravel()
            super().decode_step(group, stage, block, y, x)

        def next_of(self, name: str, classes: Array) -> Array:
            self.classes.append(classes)
            self.flags.append(self.now != 0)
            return self.flags[-1].astype(np.int64)

        def decode_values(self, fraction: int, p: Array, context: Array) -> Array:
            values = self.now[self.flags[-1]] if self.head.zeros else self.now
            middle = p + (1 << (fraction - 1))
            prediction = np.clip(middle >> fraction, self.head.low, self.head.high)
            self.coded.append(np.array([context, middle >> (fraction - 2) & 3, prediction, values]))
            return values

    return Recorder


def _streams(tool: ModuleType, head: Any, plan: Plan, recorder: Any, last: int, lie: bool) -> Pieces:
    """Return tables that suit the values, and the streams."""
    context, phase, prediction, values = np.concatenate([np.zeros((4, 0), np.int64), *recorder.coded], axis=1)
    if lie:
        values[-1] = 0
    error = values - prediction
    pieces: Pieces = {}
    for c in range(64):
        mine = np.abs(error[context == c])
        if mine.size == 0 and not plan.all_contexts:
            pieces[f"form {c}"] = b"\xff"
            continue
        mean = int(mine.sum()) // max(1, mine.size)
        w = max(0, mean.bit_length() - 5) if plan.shift is None else plan.shift
        phased = mean < 5 if plan.phased is None else plan.phased
        peak = max(1, min(plan.peak, (4 * mean >> w) + 3, 65535 >> w))
        half = (1 << w) >> 1
        beyond = int(np.count_nonzero((mine + half >> w) > peak))
        escape = max(1, min(2000, 16384 * beyond // max(1, mine.size))) if plan.escape is None else plan.escape
        pieces[f"form {c}"] = bytes([w | phased << 4 | plan.tail << 5])
        pieces[f"scale {c}"] = struct.pack("<H", min(65535, max(16, 64 * mean >> w)))
        pieces[f"peak {c}"] = struct.pack("<H", peak)
        pieces[f"escape {c}"] = struct.pack("<H", escape)
    tables = tool.Tables(tool.Reader(b"".join(pieces.values())))
    chosen, symbols, escapes, low = [], [], [], []
    for c, f, guess, v in zip(*(a.tolist() for a in (context, phase, prediction, values)), strict=True):
        w, table = int(tables.shift[c]), int(tables.number[c, f])
        known = tables.tables[table][0]
        peak = (len(known) - 2) // 2
        k, b = divmod(v - guess + (1 << w >> 1), 1 << w)
        if plan.overshoot and v in (head.low, head.high):
            k += (v == head.high) - (v == head.low)
        chosen.append(table)
        if abs(k) > peak:
            symbols.append(2 * peak + 1)
            escapes.append(v - head.low)
        else:
            symbols.append(k + peak)
            low += [b >> i & 1 for i in range(w)]
    lanes, flags = 1 << plan.lanes, b""
    pieces["lanes"] = bytes([plan.lanes])
    if head.zeros:
        classes, bits = np.concatenate(recorder.classes), np.concatenate(recorder.flags)
        ones = np.bincount(classes[bits], minlength=32)
        counts = [
            int((one + 1) * 16384 // (n + 2)) for one, n in zip(ones, np.bincount(classes, minlength=32), strict=True)
        ]
        pieces["flag_counts"] = struct.pack("<32H", *counts)
        flags = rans([[f, 16384 - f] for f in counts], classes.tolist(), (~bits).astype(int).tolist(), lanes)
    packed = np.packbits(np.array(low, np.uint8), bitorder="little").tobytes()
    pieces["escapes"] = struct.pack("<I", len(escapes))
    pieces["escaped"] = struct.pack(f"<{len(escapes)}H", *escapes)
    pieces["low_bits"] = struct.pack("<I", len(packed))
    pieces["low_bytes"] = packed
    if head.zeros:
        pieces["flags_length"] = struct.pack("<I", len(flags))
        pieces["flags_stream"] = flags
    pieces["symbols"] = rans([counts for _, counts in tables.tables], chosen, symbols, lanes, last)
    return pieces


def rans(tables: list[list[int]], chosen: list[int], symbols: list[int], lanes: int, last: int = 1 << 16) -> bytes:
    """Return the states and words of symbols, given by their place in the table chosen for each; see section 6.2."""
    starts = [[sum(counts[:i]) for i in range(len(counts))] for counts in tables]
    states, words = [last] * lanes, []
    for i in reversed(range(len(symbols))):
        f, start, x = tables[chosen[i]][symbols[i]], starts[chosen[i]][symbols[i]], states[i % lanes]
        if x >= f << 18:
            words.append(x & 0xFFFF)
            x >>= 16
        states[i % lanes] = (x // f << 14) + x % f + start
    return struct.pack(f"<{lanes}I", *states) + np.array(words[::-1], "<u2").tobytes()
