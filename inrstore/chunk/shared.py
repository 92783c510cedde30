"""Parameters that many chunks share: base64 texts in a codec configuration <-> bytes by digest (section 10.1)."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from inrstore import limits
from inrstore.errors import ConfigurationError

Shared = Mapping[bytes, bytes]
"""SHA-256 -> bytes."""
NOTHING: Shared = MappingProxyType({})


def of(*parameters: bytes) -> Shared:
    """Return parameters by their digests."""
    return MappingProxyType({hashlib.sha256(data).digest(): bytes(data) for data in parameters})


def texts_of(given: Any) -> tuple[str, ...]:
    """Return the texts of a configuration's parameters, given as base64 text, as bytes, or as things with `data`.

    Raises
    ------
    ConfigurationError
        When they are too many or too large, or one is empty or no base64 text.
    """
    if isinstance(given, str | bytes) or not isinstance(given, Sequence):
        raise ConfigurationError("shared must be a list of parameters, each as base64 text")
    if len(given) > limits.MAX_SHARED:
        raise ConfigurationError(f"shared has {len(given)} entries; the most is {limits.MAX_SHARED}")
    texts = []
    for entry in given:
        data = getattr(entry, "data", entry)
        if isinstance(data, bytes):
            data = base64.b64encode(data).decode("ascii")
        if not isinstance(data, str):
            raise ConfigurationError(f"shared holds a {type(entry).__name__}, not base64 text")
        texts.append(data)
    parse(tuple(texts))
    return tuple(texts)


@lru_cache(maxsize=8)
def parse(texts: tuple[str, ...]) -> Shared:
    """Return the parameters of a codec configuration by their digests; sizes are checked before they are decoded."""
    out = []
    for text in texts:
        if len(text) > 4 * -(-limits.MAX_SHARED_BYTES // 3):
            raise ConfigurationError(f"shared: a parameter of more than {limits.MAX_SHARED_BYTES} bytes")
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ConfigurationError(f"shared: not base64 text: {error}") from None
        if not data or len(data) > limits.MAX_SHARED_BYTES:
            raise ConfigurationError(f"shared: a parameter of {len(data)} bytes")
        out.append(data)
    return of(*out)
