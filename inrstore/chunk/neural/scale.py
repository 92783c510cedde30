"""How images look to a neighbourhood network: gain and offset (specification section 13.1). numpy alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from inrstore.chunk.neural.network import UNIT

LEVELS = 24.0
"""What the mean difference of neighbouring values becomes as input of a network with local inputs."""
_ENOUGH = 4_000_000


def gain_of(values: npt.NDArray[Any], local: bool, clip: int) -> tuple[int, int]:
    """Return the gain and the offset of an image.

    Parameters
    ----------
    values : ndarray of int, shape (m, z, y, x)
        Not negative.
    local : bool
        The network sees differences: those that are not 0 become `LEVELS` in the mean. Otherwise the range of the
        image becomes -clip..clip.
    clip : int
    """
    if not local:
        high = int(values.max(initial=0))
        return int(np.clip(round(UNIT * clip / max(1.0, high / 2)), 1, 65535)), (high + 1) // 2
    rows = values.reshape(-1, values.shape[-1]) if values.shape[-1] > 1 else values.reshape(1, -1)
    rows = rows[:: max(1, rows.size // _ENOUGH)].astype(np.int64)
    differences = np.abs(np.diff(rows, axis=1))
    mean = float(differences[differences > 0].mean()) if (differences > 0).any() else 1.0
    return int(np.clip(round(UNIT * LEVELS / mean), 1, 65535)), 0
