"""The chunk modes: the one list of them (specification section 3).

A decoder is imported with this module, an encoder when its mode is first asked for a bid: reading imports no encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from inrstore.chunk import constant, envelope, raw
from inrstore.chunk.av1 import decode as av1
from inrstore.chunk.boxes import Fitted, Offer
from inrstore.chunk.byteplanes import decode as byteplanes
from inrstore.chunk.context import Context
from inrstore.chunk.envelope import Envelope
from inrstore.chunk.frame import Reader
from inrstore.chunk.neural import decode as neural
from inrstore.chunk.predictor import decode as predictor
from inrstore.chunk.shared import Shared
from inrstore.chunk.siren import decode as siren
from inrstore.chunk.superres import decode as superres
from inrstore.chunk.task import Task
from inrstore.chunk.transform import decode as transform
from inrstore.chunk.transform.header import read_parameter
from inrstore.errors import ConfigurationError, CorruptChunkError, UnsupportedVersionError
from inrstore.options import EncodeOptions, ProgressCallback

Array: TypeAlias = npt.NDArray[Any]
DType: TypeAlias = np.dtype[Any]
Shape: TypeAlias = tuple[int, ...]

SIMPLE, SEQUENCE, MODEL, FALLBACK = range(4)
"""Turns: modes that no other can beat; sequences of frames, which are smaller than all others wherever they hold a
chunk; models; what is taken where no model keeps a lossy target."""


def _nothing(_reader: Reader, _dtype: DType, _box: Shape, context: Context) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Mode:
    """One way to code the box of a chunk.

    Parameters
    ----------
    number : int
        As it stands in frames.
    name : str
    decode : callable
        (reader, dtype, box, context) -> the box; the reader is behind the envelope, the dtype is little-endian.
    bid : callable, optional
        task -> payload, envelope included, or None for what the mode does not hold or keep the target with.
    bids : callable, optional
        (tasks, threads, passed) -> what keeps one target rmse for all of them together, or None; `passed` is called
        each time that all have been coded.
    turn : {SIMPLE, SEQUENCE, MODEL, FALLBACK}
        When the mode is asked for a bid. For a lossless target all but the simple ones are asked together.
    envelope : callable
        (reader, shape, dtype) -> Envelope.
    describe : callable
        (reader, dtype, box, context) -> what a payload says of itself, without decoding.
    decode_part : callable, optional
        (reader, dtype, box, wanted, context) -> the values at one range of positions for each axis of the box, made
        without the others.
    parts_share : bool
        Parts have work in common: several of them cost more than the whole.
    fit : callable, optional
        (tasks, sizes of their frames so far, options, progress) -> a `Fitted` of those that may be smaller: for modes
        that are fitted to many chunks together, after all bids. A size is `NO_BUDGET` where a network holds the chunk
        whatever it costs. What the options ask of another mode is for that one: then nothing comes.
    network : bool
        A chunk of this mode is held by a network, as `EncodeOptions.strict` asks for; such a mode has `fit`.
    check_shared : callable, optional
        Raises `CorruptChunkError` for bytes that are no shared parameter of the mode.
    """

    number: int
    name: str
    decode: Callable[[Reader, DType, Shape, Context], Array]
    bid: Callable[[Task], bytes | memoryview | None] | None = None
    bids: Callable[[Sequence[Task], int, Callable[[], None]], Offer | None] | None = None
    turn: int = MODEL
    envelope: Callable[[Reader, Shape, DType], Envelope] = envelope.read
    describe: Callable[[Reader, DType, Shape, Context], dict[str, Any]] = _nothing
    decode_part: Callable[[Reader, DType, Shape, Sequence[range], Context], Array] | None = None
    parts_share: bool = False
    fit: Callable[[Sequence[Task], Sequence[int], EncodeOptions, ProgressCallback | None], Iterator[Fitted]] | None = (
        None
    )
    network: bool = False
    check_shared: Callable[[bytes], object] | None = None


# ---- bids; encoders are imported late ----------------------------------------------------------------------


def _bid_byteplanes(task: Task) -> bytes | None:
    from inrstore.chunk.byteplanes.encode import bid

    return bid(task)


def _bid_transform(task: Task) -> bytes | None:
    from inrstore.chunk.transform.encode import bid

    return bid(task)


def _bids_transform(tasks: Sequence[Task], threads: int, passed: Callable[[], None]) -> Offer | None:
    from inrstore.chunk.transform.encode import bids

    return bids(tasks, threads, passed)


def _bid_predictor(task: Task) -> bytes | None:
    from inrstore.chunk.predictor.encode import bid

    return bid(task)


def _bid_neural(task: Task) -> bytes | None:
    from inrstore.chunk.neural.encode import bid

    return bid(task)


def _bid_av1(task: Task) -> bytes | None:
    from inrstore.chunk.av1.encode import bid

    return bid(task)


def _bids_av1(tasks: Sequence[Task], threads: int, passed: Callable[[], None]) -> Offer | None:
    from inrstore.chunk.av1.encode import bids

    return bids(tasks, threads, passed)


def _fit_siren(
    tasks: Sequence[Task], sizes: Sequence[int], options: EncodeOptions, progress: ProgressCallback | None
) -> Iterator[Fitted]:
    from inrstore.chunk.siren.encode import fit

    return fit(tasks, sizes, options, progress)


def _fit_superres(
    tasks: Sequence[Task], sizes: Sequence[int], options: EncodeOptions, progress: ProgressCallback | None
) -> Iterator[Fitted]:
    from inrstore.chunk.superres.encode import fit

    return fit(tasks, sizes, options, progress)


# ---- the list ----------------------------------------------------------------------------------------------

RAW = Mode(number=0, name="raw", decode=lambda r, d, b, _: raw.decode(r, d, b), bid=raw.bid, turn=FALLBACK,
           envelope=raw.envelope_of)  # fmt: skip
CONSTANT = Mode(number=1, name="constant", decode=lambda r, d, b, _: constant.decode(r, d, b), bid=constant.bid,
                turn=SIMPLE, envelope=constant.envelope_of)  # fmt: skip
BYTEPLANES = Mode(number=2, name="byteplanes", decode=lambda r, d, b, _: byteplanes.decode(r, d, b),
                  bid=_bid_byteplanes, turn=FALLBACK)  # fmt: skip
SIREN = Mode(number=3, name="siren", decode=lambda r, d, b, _: siren.decode(r, d, b),
             describe=lambda r, d, b, _: siren.describe(r, d, b),
             decode_part=lambda r, d, b, w, _: siren.decode_part(r, d, b, w), fit=_fit_siren,
             network=True)  # fmt: skip
TRANSFORM = Mode(number=4, name="transform", decode=lambda r, d, b, c: transform.decode(r, d, b, c.shared),
                 bid=_bid_transform, bids=_bids_transform, check_shared=read_parameter,
                 describe=lambda r, d, b, c: transform.describe(r, d, b, c.shared),
                 decode_part=lambda r, d, b, w, c: transform.decode_part(r, d, b, w, c.shared),
                 parts_share=True)  # fmt: skip
PREDICTOR = Mode(number=5, name="predictor", decode=lambda r, d, b, _: predictor.decode(r, d, b), bid=_bid_predictor)
NEURAL = Mode(number=6, name="neural", decode=lambda r, d, b, c: neural.decode(r, d, b, c.shared), bid=_bid_neural,
              describe=lambda r, d, b, _: neural.describe(r, d, b), check_shared=neural.check_shared)  # fmt: skip
AV1 = Mode(number=7, name="av1", decode=lambda r, d, b, _: av1.decode(r, d, b), bid=_bid_av1, bids=_bids_av1,
           turn=SEQUENCE, describe=lambda r, d, b, _: av1.describe(r, d, b))  # fmt: skip
SUPERRES = Mode(number=8, name="superres", decode=lambda r, d, b, c: superres.decode(r, d, b, c.shared),
                describe=lambda r, d, b, c: superres.describe(r, d, b, c.shared),
                check_shared=superres.check_shared, fit=_fit_superres, network=True)  # fmt: skip

MODES = (RAW, CONSTANT, BYTEPLANES, SIREN, TRANSFORM, PREDICTOR, NEURAL, AV1, SUPERRES)
BY_NUMBER = {mode.number: mode for mode in MODES}


def find(number: int) -> Mode:
    """Return the mode of a frame; `UnsupportedVersionError` for one of a later version."""
    if number not in BY_NUMBER:
        raise UnsupportedVersionError("mode", f"{number} is not one this reader knows")
    return BY_NUMBER[number]


def check_shared(shared: Shared) -> None:
    """Raise `ConfigurationError` for a shared parameter that no mode can use."""
    for data in shared.values():
        reasons = []
        for mode in MODES:
            if mode.check_shared is not None:
                try:
                    mode.check_shared(data)
                    break
                except CorruptChunkError as error:
                    reasons.append(f"{error.field}: {error.reason}")
        else:
            raise ConfigurationError(f"shared: a parameter of no mode: {'; '.join(reasons)}")
