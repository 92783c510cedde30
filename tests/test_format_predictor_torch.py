"""Another library's float32 products decode frames of the predictor to the same bits: it is arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from checks import check_equal_bits, modes, vectors
from test_format_predictor import predicted, scan, scan_of_two_textures

from inrstore.chunk.decode import decode_chunk
from inrstore.chunk.kernels import choice
from inrstore.chunk.predictor import encode as predictor
from inrstore.chunk.predictor import kernel, regression

torch = pytest.importorskip("torch")

NAMES = [name for name, mode in modes().items() if mode == "predictor"]
FRAMES = vectors("subset", "uncommon")


class Products:
    """Products of matrices by torch, in place of those of numpy; counts them."""

    def __init__(self, device: str) -> None:
        self.device, self.count = device, 0

    def product(self, matrix: Any, rows: Any) -> Any:
        assert matrix.dtype == rows.dtype and matrix.dtype in (np.float32, np.float64)
        self.count += 1
        one, other = (torch.from_numpy(np.ascontiguousarray(a)).to(self.device) for a in (matrix, rows))
        return (one @ other).cpu().numpy()

    def product_into(self, out: Any, matrix: Any, rows: Any) -> Any:
        out[...] = self.product(matrix, rows)
        return out


@pytest.fixture(params=["cpu", "cuda"])
def products(request, monkeypatch) -> Iterator[Products]:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    assert torch.get_float32_matmul_precision() == "highest"
    made = Products(request.param)
    for module, name in ((kernel, "product"), (kernel, "product_into"), (regression, "product")):
        monkeypatch.setattr(module, name, getattr(made, name))
    with choice.use(False):  # compiled loops make no products
        yield made


@pytest.fixture(scope="module")
def frames() -> list[tuple[np.ndarray, bytes]]:
    """Return images with zeros, groups, sums close to the limit of exactness, and regions; and their frames."""
    rng = np.random.default_rng(8)
    wild = np.cumsum(np.cumsum(rng.normal(0, 1, (6, 40, 40)), 1), 2)
    wild = ((wild - wild.min()) * (65535 / np.ptp(wild))).astype("<u2")
    images = [scan((6, 40, 40)), scan((20, 3, 20, 20), noise=20), wild, scan_of_two_textures((6, 64, 128))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictor, "_LEAST_PER_STEP", 1)
        patch.setattr(predictor, "_LEAST_FOR_REGIONS", 1)
        return [(image, predicted(image)) for image in images]


def test_torch_decodes_what_numpy_encoded(frames, products):
    for image, data in frames:
        before = products.count
        check_equal_bits(decode_chunk(data), image)
        assert products.count > before + 100


def test_torch_decodes_the_vectors_to_the_bits_of_their_checksums(products):
    for name in NAMES:
        decode_chunk(FRAMES[name])  # raises for other bits than those that the independent reader makes
    assert products.count > 10 * len(NAMES)
