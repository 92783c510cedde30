"""Every cap on what bytes from outside may ask for, each with its reason (specification section 9)."""

from __future__ import annotations

MAX_DIMS = 8
"""Axes of a chunk. Medical images have at most seven (NIfTI)."""

MAX_CHUNK_VALUES = 1 << 27
"""Values in one chunk: 1 GiB of float64, and an index into it fits 32 bits."""

MAX_LAYERS = 16
"""Sine layers of a network."""

MAX_WIDTH = 256
"""Units in a sine layer."""

MAX_PARAMETERS = 1 << 22
"""Parameters of one network."""

MAX_PARAMETERS_PER_BYTE = 64
"""Parameters a payload byte may stand for: allocation has to be earned by input."""

MAX_SYMBOL = 1023
"""Largest magnitude of a coded weight; a 14-bit frequency table holds all of them."""

EXACT_FLOAT32 = 1 << 24
"""Integers up to here are exact in float32, so are their sums in any order."""

MAX_CONFIGURATION_SCALES = 1 << 16
"""Entries of the `scale` list in a codec configuration."""
