"""Networks in a codec configuration: base64 text <-> networks by digest (specification section 13.5)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from inrstore import limits
from inrstore.chunk.neural.decode import Models
from inrstore.chunk.neural.network import Network, read_network
from inrstore.errors import ConfigurationError, CorruptChunkError


def text_of(network: Network) -> str:
    """Return a network as it stands in a codec configuration."""
    return base64.b64encode(network.data).decode("ascii")


def checked(models: Any) -> tuple[str, ...]:
    """Return the texts of models that were given as text, bytes or networks.

    Raises
    ------
    ConfigurationError
        When one is no network, or they are too many or too large.
    """
    if isinstance(models, str | bytes) or not isinstance(models, Sequence):
        raise ConfigurationError("models must be a list of networks, each as base64 text")
    if len(models) > limits.MAX_MODELS:
        raise ConfigurationError(f"models has {len(models)} entries; the most is {limits.MAX_MODELS}")
    texts = []
    for model in models:
        if isinstance(model, Network):
            model = text_of(model)
        elif isinstance(model, bytes):
            model = base64.b64encode(model).decode("ascii")
        if not isinstance(model, str):
            raise ConfigurationError(f"models holds a {type(model).__name__}, not base64 text")
        texts.append(model)
    networks_of(tuple(texts))
    return tuple(texts)


@lru_cache(maxsize=8)
def networks_of(texts: tuple[str, ...]) -> Models:
    """Return the networks of a codec configuration by their digests."""
    out: dict[bytes, Network] = {}
    for text in texts:
        if len(text) > 4 * -(-limits.MAX_MODEL_BYTES // 3):
            raise ConfigurationError(f"models: a network of more than {limits.MAX_MODEL_BYTES} bytes")
        try:
            network = read_network(base64.b64decode(text, validate=True))
        except (binascii.Error, ValueError) as error:
            raise ConfigurationError(f"models: not base64 text: {error}") from None
        except CorruptChunkError as error:
            raise ConfigurationError(f"models: {error.field}: {error.reason}") from None
        out[network.digest] = network
    return out
