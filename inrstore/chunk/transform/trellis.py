"""Two quantisers, and the trellis of eight states that says which one is next (specification section 14.6).

Trellis-coded quantisation is that of Marcellin and Fischer (IEEE Transactions on Communications 38(1), 1990), with the
code of eight states of Ungerboeck (IEEE Transactions on Information Theory 28(1), 1982), and entropy-coded as in the
dependent quantisation of H.266. Its steps are taken by flags, not by parities, so that all flags of a pass can be
decoded before its sizes.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]

STATES = 8
NEXT = np.array([[4 * ((s >> 2) ^ (s >> 1 & 1)) + 2 * ((s & 1) ^ flag) + (s >> 2) for flag in (0, 1)]
                 for s in range(STATES)], np.uint8)  # fmt: skip
"""The state after a state and a flag. States from 4 on are those of the second quantiser."""
MOST_SQUARE = 2.0**24
"""Costs of zeros and of other magnitudes end at this, and twice that, so that sums stay exact."""
_UNIT = 2.0**16
_NEVER = 1 << 55
_TOGETHER = 4
_BEFORE = np.array([np.argwhere(NEXT == after) for after in range(STATES)])
"""The two states and flags that lead to each state."""
_BRANCH = 2 * (_BEFORE[:, :, 0] >> 2) + _BEFORE[:, :, 1]
"""Which of the four costs these are."""


def _tables() -> tuple[bytes, Bytes]:
    """Return the state after four symbols, and their quantisers, for the flags they have in both and a state.

    The place of a symbol is its flag by the first quantiser, and twice that by the second; the first symbol is the
    lowest digit to base 4.
    """
    codes = np.arange(4**_TOGETHER)[:, None]
    state = np.broadcast_to(np.arange(STATES), (len(codes), STATES))
    quantisers = np.empty((len(codes), STATES, _TOGETHER), np.uint8)
    for place in range(_TOGETHER):
        second = state >> 2
        quantisers[:, :, place] = second
        flag = codes >> 2 * place + second & 1
        state = NEXT[state, flag]
    return state.astype(np.uint8).tobytes(), quantisers.reshape(-1, _TOGETHER)


_AFTER, _QUANTISERS = _tables()


class Walk:
    """The states along the flags of a chunk.

    Attributes
    ----------
    state : int
        That of the next flag.
    """

    def __init__(self) -> None:
        self.state = 0

    def quantisers(self, first: Bools, second: Bools) -> Bytes:
        """Return 1 where the second quantiser serves, and go on.

        Parameters
        ----------
        first, second : ndarray of bool, shape (n,)
            The flag that each value has if it is of the first, or the second, quantiser.
        """
        n = len(first)
        codes = np.zeros(-(-n // _TOGETHER) * _TOGETHER, np.uint8)
        codes[:n] = first.view(np.uint8) + 2 * second.view(np.uint8)
        fours = codes.reshape(-1, _TOGETHER) @ np.array([1, 4, 16, 64], np.uint8)
        states, state = [], self.state
        for four in fours.tolist():
            states.append(state)
            state = _AFTER[STATES * four + state]
        out: Bytes = _QUANTISERS[STATES * fours.astype(np.intp) + np.array(states, np.intp)].reshape(-1)[:n]
        if n % _TOGETHER:  # the state after the last four is one after zeros that are not there
            state = states[-1]
            for place in range(n - n % _TOGETHER, n):
                flag = codes[place] >> int(out[place]) & 1
                state = int(NEXT[state, flag])
        self.state = state
        return out


def rounded(costs: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return costs as integers, so that they can be added in any order."""
    return np.rint(costs * _UNIT).astype(np.int64)


def cheapest(costs: npt.NDArray[np.int64], state: int) -> tuple[Bools, Bytes, int]:
    """Return the flags along the cheapest path, the quantisers there, and the state that it ends in.

    The algorithm is that of Viterbi (IEEE Transactions on Information Theory 13(2), 1967), in many pieces at a time:
    first what each piece costs from each state to each, then what each state costs where pieces begin, then the
    decisions in each. Of two paths that cost the same it takes the one from the lower state.

    Parameters
    ----------
    costs : ndarray of int64, shape (n, 4)
        Of 0 and of another magnitude, by the first quantiser; the same by the second.
    state : int
        That of the first flag.
    """
    n = len(costs)
    if not n:
        return np.zeros(0, np.bool_), np.zeros(0, np.uint8), state
    length = math.isqrt(n)
    pieces = -(-n // length)
    rest = n - (pieces - 1) * length  # of the last piece
    padded = np.zeros((pieces * length, 4), np.int64)
    padded[:n] = costs
    steps = padded.reshape(pieces, length, 4)
    between = np.full((pieces - 1, STATES, STATES), _NEVER)
    between[:, np.arange(STATES), np.arange(STATES)] = 0
    for step in range(length if pieces > 1 else 0):
        between, _ = _step(between, steps[:-1, step, None])
    reached = np.full((pieces, STATES), _NEVER)
    reached[0, state] = 0
    for piece in range(pieces - 1):
        found = (reached[piece, :, None] + between[piece]).min(0)
        reached[piece + 1] = np.minimum(found - found.min(), _NEVER)
    decisions = np.empty((length, pieces, STATES), np.intp)
    some = [pieces if step < rest else pieces - 1 for step in range(length)]
    for step, count in enumerate(some):
        reached[:count], decisions[step, :count] = _step(reached[:count], steps[:count, step])
    # Back again: first from which state each piece came to each, then along the path.
    came = np.tile(np.arange(STATES), (pieces, 1))
    for step in range(length - 1, -1, -1):
        mine = came[: some[step]]
        mine[...] = _BEFORE[mine, np.take_along_axis(decisions[step, : some[step]], mine, 1), 0]
    at = np.empty(pieces, np.intp)
    last = at[-1] = reached[-1].argmin()
    for piece in range(pieces - 1, 0, -1):
        at[piece - 1] = came[piece, at[piece]]
    flags, second = np.empty((length, pieces), np.bool_), np.empty((length, pieces), np.uint8)
    for step in range(length - 1, -1, -1):
        count = some[step]
        before = _BEFORE[at[:count], decisions[step, np.arange(count), at[:count]]]
        at[:count], flags[step, :count] = before[:, 0], before[:, 1]
        second[step, :count] = before[:, 0] >> 2
    return flags.T.reshape(-1)[:n], second.T.reshape(-1)[:n], int(last)


def _step(costs: npt.NDArray[np.int64], branches: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], Bools]:
    """Return the least costs of the states after a step, and whether each is reached by the second way to it."""
    one, other = (costs[..., _BEFORE[:, i, 0]] + branches[..., _BRANCH[:, i]] for i in (0, 1))
    second = other < one
    return np.where(second, other, one), second
