"""The bytes of chunks do not depend on how many threads BLAS, MKL and torch may use."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest
from checks import run_python
from common import ROOT, needs_torch, random_image

from inrstore.chunk.decode import describe_chunk
from inrstore.chunk.encode import encode_chunks
from inrstore.chunk.linear import eigh, product, products, solved
from inrstore.chunk.quality import Target, sum_of_squares
from inrstore.errors import NotHeldError
from inrstore.options import EncodeOptions

ENCODE = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from common import random_image
from inrstore.chunk.decode import describe_chunk
from inrstore.chunk.encode import encode_chunks
from inrstore.chunk.quality import Target
from inrstore.options import EncodeOptions

kind, threads = sys.argv[2], int(sys.argv[3])
shape, target, options = {
    "siren": ((24, 24, 12, 6), Target(rmse=9.0, channel_axis=3),
              EncodeOptions(preset="fast", mode="siren", device="cpu", threads=threads)),
    "transform": ((20, 20, 10, 110), Target(rmse=1.0, channel_axis=3), EncodeOptions()),
    "predictor": ((24, 24, 12, 110), Target(lossless=True), EncodeOptions()),
    "predictor 3d": ((70, 70, 40), Target(lossless=True), EncodeOptions()),
}[kind]
if kind == "siren":
    import torch
    from inrstore.chunk.inr.fit import search

    torch.set_num_threads(threads)
    search.EFFORTS["fast"] = search.Effort(probe=60, fit=200, rounding=100, samples=4096, widest=32, retries=1)
chunk = random_image(shape)
if len(shape) == 4 and kind != "siren":  # measurements that differ, so that the KLT has work to do
    mix = np.random.default_rng(1).normal(size=(shape[3], shape[3])) * 2
    mixed = np.einsum("xyzi,ij->xyzj", random_image(shape, seed=2).astype(float), mix)
    chunk = np.rint(chunk + mixed / 10).astype("int16")
(data,) = encode_chunks([chunk], target, options)
if kind == "siren":
    assert torch.get_num_threads() == threads, "the caller's setting is changed"
print(describe_chunk(data).mode, len(data), hashlib.sha256(data).hexdigest())
"""


@pytest.mark.parametrize(
    "kind", [pytest.param("siren", marks=[pytest.mark.fit, needs_torch]), "transform", "predictor", "predictor 3d"]
)
def test_bytes_do_not_depend_on_the_number_of_threads(kind):
    made = set()
    for threads in "124":
        forced = {name: threads for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        made.add(run_python(ENCODE, str(ROOT / "tests"), kind, threads, PYTHONPATH=path, **forced))
    (only,) = made
    assert only.startswith(kind.split()[0] + " ")


@pytest.mark.fit
@needs_torch
@pytest.mark.parametrize("chunks", [1, 3])
def test_every_network_has_one_thread_and_the_caller_keeps_its_own(monkeypatch, chunks):
    import torch

    from inrstore.chunk.inr.fit import search
    from inrstore.chunk.inr.fit.trainer import Trainer

    seen, backward = set(), set()
    step = Trainer._update

    def update(trainer, number, gradients):
        seen.add((threading.get_ident(), torch.get_num_threads()))
        leaf = torch.ones(2, requires_grad=True)
        twice = leaf * 2
        twice.register_hook(lambda _: backward.add((threading.get_ident(), torch.get_num_threads())))
        twice.sum().backward()
        # What others set meanwhile is none of its business.
        other = threading.Thread(target=torch.set_num_threads, args=(3,))
        other.start()
        other.join()
        step(trainer, number, gradients)

    monkeypatch.setattr(Trainer, "_update", update)
    monkeypatch.setitem(search.EFFORTS, "fast", search.Effort(probe=4, fit=4, rounding=4, widest=24, retries=0))
    before = torch.get_num_threads()
    try:
        for threads in (2, 4):
            torch.set_num_threads(threads)
            images = [random_image((20, 20, 12), seed=i) for i in range(chunks)]  # 4800 points
            options = EncodeOptions(preset="fast", mode="siren", device="cpu", threads=4)
            with pytest.raises(NotHeldError):  # in four steps
                encode_chunks(images, Target(rmse=1.0), options)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert {number for _, number in seen} == {1}
    assert backward == seen  # gradients are made in the same threads
    assert threading.get_ident() not in {thread for thread, _ in seen}


@pytest.mark.fit
@needs_torch
def test_threads_that_come_later_have_the_setting_of_the_caller():
    import torch

    from inrstore.chunk.inr.fit.search import _use_one_thread

    found = {}

    def ask(name, first=lambda: None):
        first()
        found[name] = torch.get_num_threads()

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        for name, first in (("fit", _use_one_thread), ("later", lambda: None)):
            thread = threading.Thread(target=ask, args=(name, first))
            thread.start()
            thread.join()
        assert (found, torch.get_num_threads()) == ({"fit": 1, "later": 4}, 4)
    finally:
        torch.set_num_threads(before)


@pytest.mark.fit
@needs_torch
def test_networks_fitted_side_by_side_are_those_fitted_alone(monkeypatch):
    from inrstore.chunk.inr.fit import search

    effort = search.Effort(probe=60, fit=200, rounding=100, samples=1024, widest=32, retries=1)
    monkeypatch.setitem(search.EFFORTS, "fast", effort)
    images, target = [random_image((24, 24, 12, 6), seed=i) for i in range(3)], Target(rmse=9.0, channel_axis=3)
    alone, beside = (
        encode_chunks(images, target, EncodeOptions(preset="fast", mode="siren", device="cpu", threads=n))
        for n in (1, 3)
    )
    assert "siren" in {describe_chunk(frame).mode for frame in alone}
    assert alone == beside


# ---- linear algebra ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 2, 3, 40, 65, 113, 200])
def test_products_in_pieces_are_products(rows):
    rng = np.random.default_rng(rows)
    one, other, long = rng.normal(size=(rows, rows)), rng.normal(size=(7, 2500)), rng.normal(size=(rows, 2500))
    np.testing.assert_allclose(product(one, long), one @ long, atol=1e-9)
    np.testing.assert_allclose(products(long, long), long @ long.T, atol=1e-9)
    np.testing.assert_allclose(products(long, other), long @ other.T, atol=1e-9)
    np.testing.assert_allclose(products(long, other[:1]), long @ other[:1].T, atol=1e-9)
    assert sum_of_squares(long) == pytest.approx(float((long**2).sum()), rel=1e-12)


@pytest.mark.parametrize("total", [1, 64, 65, 150])
@pytest.mark.parametrize("kind", ["any", "few", "equal", "zero"])
def test_eigenvectors_of_blocks_are_eigenvectors(total, kind):
    rng = np.random.default_rng(total)
    long = rng.normal(size=(total, 4)) @ rng.normal(size=(4, 900)) * 30
    if kind == "any":
        long += rng.normal(size=long.shape)
    plain = {"equal": np.ones((total, total)) + np.eye(total), "zero": np.zeros((total, total))}
    matrix = plain.get(kind, long @ long.T)
    values, vectors = eigh(matrix)
    size = max(1.0, float(np.abs(matrix).max()))
    assert (np.diff(values) >= 0).all()
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(total), atol=1e-12)
    np.testing.assert_allclose(matrix @ vectors / size, vectors * values / size, atol=1e-11)
    np.testing.assert_allclose(values / size, np.linalg.eigvalsh(matrix) / size, atol=1e-11)


@pytest.mark.parametrize("total", [3, 64, 65, 150])
def test_solutions_are_solutions(total):
    rng = np.random.default_rng(total)
    matrix = rng.normal(size=(total, total))
    matrix[0, 0] = 0  # no pivot without an exchange of rows
    for right in (rng.normal(size=total), rng.normal(size=(total, 5))):
        found = solved(matrix, right)
        assert found.shape == right.shape
        np.testing.assert_allclose(matrix @ found, right, atol=1e-9)
    with pytest.raises(np.linalg.LinAlgError):
        solved(np.zeros((total, total)), np.ones(total))
