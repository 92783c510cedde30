"""What is known of a chunk besides its bytes: one value that goes through decoding and encoding."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk.shared import NOTHING, Shared


@dataclass(frozen=True)
class Context:
    """What the array says of its chunks.

    Parameters
    ----------
    shape : tuple of int, optional
        A frame that says otherwise is refused before anything is allocated.
    dtype : numpy.dtype, optional
        Likewise; byte order is not compared.
    shared : mapping of bytes to bytes
        Parameters that the codec configuration brings, by their SHA-256.
    """

    shape: tuple[int, ...] | None = None
    dtype: np.dtype[Any] | None = None
    shared: Shared = field(default_factory=lambda: NOTHING)

    @classmethod
    def of(cls, shape: tuple[int, ...] | None, dtype: npt.DTypeLike | None, shared: Shared | None) -> Context:
        """Return the context of arguments any of which may be missing."""
        return cls(shape, None if dtype is None else np.dtype(dtype), NOTHING if shared is None else shared)


UNKNOWN = Context()
