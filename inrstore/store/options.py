"""What a store is to be, in one value: it is made once, from what a user asks, and handed on as it is."""

from __future__ import annotations

import operator
from dataclasses import dataclass

from inrstore.chunk.neural.decode import shared_network
from inrstore.chunk.shared import texts_of
from inrstore.errors import ConfigurationError
from inrstore.options import EncodeOptions
from inrstore.store.container import ENDING, Container
from inrstore.store.layout import Chunks, ZarrFormat
from inrstore.store.quality import AS_FOUND, UNASKED, UNASKED_LOSSY, Quality


@dataclass(frozen=True, kw_only=True)
class Options(EncodeOptions):
    """What a store is to be, and with what effort it is made.

    Parameters
    ----------
    quality : Quality
        How near to its image it is.
    zarr_format : {3, 2}
        Format of the store.
    container : {"ozx", "zarr"}
        One zip or a folder; the name of a single store says it, too.
    mask : str
        Path or URL of an image of the same grid; where it is 0 nothing is kept and 0 is read. Empty for none.
    chunks : "auto", "whole" or tuple of int
        Shape of chunks in space; see `inrstore.store.layout.choose_chunks`.
    strip : bool
        Whether what people wrote into the file is left out; see `inrstore.sources.strip`.
    modality : str
        BIDS suffix of its name, or what else tells what it is, for a default quality.
    shared : tuple of bytes
        Networks that lossless chunks may name, as `inrstore.store.parameter` reads them; a store holds those that save
        more than they take.
    """

    quality: Quality
    zarr_format: ZarrFormat = 3
    container: Container = "ozx"
    mask: str = ""
    chunks: Chunks = "auto"
    strip: bool = False
    modality: str = ""
    shared: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "chunks", chunks_of(self.chunks))
        if self.quality.unasked:  # a network of one size without a target keeps what it reaches
            sized = self.strict and (self.preset == "paper" or (self.network is not None and self.network.sized))
            other = UNASKED_LOSSY if self.mode != "auto" else UNASKED if self.quality.found else self.quality
            object.__setattr__(self, "quality", AS_FOUND if sized else other)
        object.__setattr__(self, "found", self.quality.found)
        if self.strict and self.quality.max_error is not None:
            raise ConfigurationError("max_error: networks keep a mean error; ask for psnr or rmse in mode siren")
        if self.strict and self.quality.preserve is not None:
            raise ConfigurationError("preserve: looked for by converting again and again, which goes with no network")
        if self.planar and not _single_slices(self.chunks):
            raise ConfigurationError(f"chunks: a network for each slice has chunks of one slice, not {self.chunks!r}")
        if self.zarr_format not in (2, 3):
            raise ConfigurationError(f"zarr_format must be 2 or 3, not {self.zarr_format!r}")
        if self.container not in ENDING:
            raise ConfigurationError(f"store must be one of {', '.join(ENDING)}, not {self.container!r}")
        texts_of(self.shared)  # names what is wrong with their number and sizes
        if any(shared_network(data) is None for data in self.shared):
            raise ConfigurationError("shared: holds what is no network of a predictor")

    @property
    def effort(self) -> EncodeOptions:
        """What images that are encoded together have in common."""
        return EncodeOptions(**{name: getattr(self, name) for name in EncodeOptions.__dataclass_fields__})


def _single_slices(chunks: object) -> bool:
    return chunks == "auto" or (isinstance(chunks, tuple) and (len(chunks) < 3 or chunks[0] == 1))


def chunks_of(asked: object) -> Chunks:
    """Return the chunks that a user asks for, given as a word, as lengths or as text with commas.

    Raises
    ------
    ConfigurationError
        For anything but "auto", "whole", and up to three positive lengths.
    """
    if asked == "auto" or asked == "whole":
        return "whole" if asked == "whole" else "auto"
    parts = asked.split(",") if isinstance(asked, str) else asked
    try:
        lengths = tuple(operator.index(int(p) if isinstance(p, str) else p) for p in parts)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        lengths = ()
    if not 1 <= len(lengths) <= 3 or min(lengths) < 1:
        raise ConfigurationError(
            f"chunks must be auto, whole, or lengths along z, y and x like 8,256,256, not {asked!r}"
        )
    return lengths
