"""The plain model that ours is measured against knows nothing of what it has not coded yet."""

from __future__ import annotations

import numpy as np
import pytest

from tools.bench_models import Plain


@pytest.mark.parametrize("shape", [(2, 24, 24), (17, 16, 9), (1, 40, 33), (3, 2, 12, 12)])
def test_noise_stays_as_large_as_it_is(shape):
    noise = np.random.default_rng(0).integers(0, 256, shape).astype("u1")
    assert Plain(noise).run() > 0.99 * noise.size  # eight bits each, and the weights


def test_what_is_linear_takes_little():
    z, y, x = np.indices((16, 40, 40))
    assert Plain(5 * z + 3 * y + 2 * x).run() < 0.2 * z.size
