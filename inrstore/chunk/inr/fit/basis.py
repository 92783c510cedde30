"""The basis in which a matrix of weights is optimised: SOAP, Vyas et al., arXiv:2409.11321.

Adam divides each entry of a gradient by its usual size. Entries of a matrix rise and fall together; in the
eigenvectors of its mean squared gradients, on either side, they do so less, and the same steps reach further.
"""

from __future__ import annotations

import torch
from torch import Tensor

MEMORY = 0.95
"""Of the mean squared gradients."""
EVERY = 10
"""Steps between turns of the basis: one power iteration and its QR."""
LARGEST = 256
"""A longer side is left as it is: a turn takes time with the third power of its length."""


class Basis:
    """Bases of one matrix in each of several networks.

    Parameters
    ----------
    like : Tensor, shape (nets, rows, columns)
    """

    def __init__(self, like: Tensor) -> None:
        self.vectors: list[Tensor | None] = []
        self.squares: list[Tensor] = []
        for length in like.shape[1:]:
            one = torch.eye(length, device=like.device) if length <= LARGEST else None
            self.vectors.append(None if one is None else one.repeat(len(like), 1, 1))
            self.squares.append(torch.zeros((len(like), length, length) if one is not None else (len(like), 0, 0),
                                            device=like.device))  # fmt: skip

    def see(self, gradient: Tensor, step: int) -> None:
        """Take the gradients of a step, (nets, rows, columns), the first step being 1."""
        for side, vectors in enumerate(self.vectors):
            if vectors is None:
                continue
            across = gradient.transpose(1, 2)
            product = gradient @ across if side == 0 else across @ gradient
            self.squares[side].lerp_(product, 1 - MEMORY if step > 1 else 1.0)
            if step % EVERY == 1:
                self.vectors[side] = torch.linalg.qr(self.squares[side] @ vectors)[0]

    def into(self, matrix: Tensor) -> Tensor:
        """Return matrices in their bases."""
        left, right = self.vectors
        matrix = matrix if left is None else left.transpose(1, 2) @ matrix
        return matrix if right is None else matrix @ right

    def back(self, matrix: Tensor) -> Tensor:
        """Return what `into` was given."""
        left, right = self.vectors
        matrix = matrix if left is None else left @ matrix
        return matrix if right is None else matrix @ right.transpose(1, 2)

    def forget(self, choose: Tensor) -> None:
        """Start again with some networks, a bool for each."""
        for side, vectors in enumerate(self.vectors):
            if vectors is not None:
                one = torch.eye(vectors.shape[1], device=vectors.device).expand_as(vectors)
                self.vectors[side] = torch.where(choose.view(-1, 1, 1), one, vectors)
                self.squares[side] = self.squares[side].masked_fill(choose.view(-1, 1, 1), 0)

    def keep_only(self, index: Tensor) -> None:
        """Drop all other networks."""
        self.vectors = [None if vectors is None else vectors[index] for vectors in self.vectors]
        self.squares = [squares[index] for squares in self.squares]
