"""Checks of a stored configuration that the two codecs have in common (specs/codecs/inrstore/schema.json)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inrstore.errors import ConfigurationError


def check_stored(configuration: Mapping[str, Any]) -> None:
    """Refuse what the schema does not allow where constructors do: there is one way to write a configuration.

    Raises
    ------
    ConfigurationError
        For a null, `lossless` that is not true, and a list without entries.
    """
    for name, value in configuration.items():
        if value is None or value is False or value == []:
            raise ConfigurationError(f"{name}: a stored configuration leaves it out instead of {value!r}")
