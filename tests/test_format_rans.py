"""Entropy coding: what goes in comes out, and damage does not go unnoticed."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from checks import examples
from hypothesis import given
from hypothesis import strategies as st

from inrstore import limits
from inrstore.chunk.entropy import rans
from inrstore.chunk.entropy.rans import LOWER, TOTAL
from inrstore.chunk.entropy.weights import Table, code_length, decode, encode, fit_table, lane_count
from inrstore.chunk.frame import Reader
from inrstore.errors import CorruptChunkError

WORD = st.integers(0, 2**32 - 1)
tables = st.builds(Table, WORD, WORD, st.integers(0, limits.MAX_SYMBOL))


def read(data: bytes, table_of: np.ndarray, models: list[Table]) -> np.ndarray:
    return decode(Reader(memoryview(data)), table_of, models)


@st.composite
def streams(draw: Any) -> tuple[np.ndarray, np.ndarray, list[Table]]:
    """Return symbols, the table of each, and the tables."""
    models = draw(st.lists(tables, min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = draw(st.one_of(st.integers(0, 60), st.sampled_from([1023, 1024, 1025, 2048, 2049, 5000])))
    table_of = np.sort(rng.integers(0, len(models), count))
    peaks = np.array([m.peak for m in models])[table_of]
    spread = draw(st.sampled_from([0.0, 1.0, 30.0, 5000.0]))
    symbols = np.clip(np.rint(rng.normal(0, spread, count)).astype(np.int64), -peaks, peaks)
    return symbols, table_of, models


@given(tables)
@examples(300)
def test_counts_of_every_table_are_positive_symmetric_and_add_up(table):
    counts = table.frequencies()
    assert len(counts) == 2 * table.peak + 1
    assert counts.sum() == TOTAL == 1 << 14
    assert counts.min() >= 1
    assert (counts == counts[::-1]).all()


def test_counts_follow_the_recurrence_of_the_specification():
    assert Table(0, 0, 0).frequencies().tolist() == [16384]
    # g = 2^28, 2^27, 2^26: r stays at 2^31
    g = [2**28, 2**27, 2**26]
    total = g[0] + 2 * (g[1] + g[2])
    half = [1 + x * (16384 - 5) // total for x in g]
    half[0] += 16384 - (half[0] + 2 * half[1] + 2 * half[2])
    assert Table(2**31 - 1, 2**32 - 1, 2).frequencies().tolist() == [half[2], half[1], half[0], half[1], half[2]]


@given(streams())
@examples(200)
def test_symbols_come_back(stream):
    symbols, table_of, models = stream
    data = encode(symbols, table_of, models)
    assert read(data, table_of, models).tolist() == symbols.tolist()
    assert read(data, table_of.astype(np.uint8), models).tolist() == symbols.tolist()
    assert len(data) % 2 == 0 and len(data) >= 4 * lane_count(len(symbols))


@given(streams(), st.integers(0, 2**16 - 1), st.randoms(use_true_random=False))
@examples(100)
def test_missing_extra_and_changed_words_are_found(stream, word, chance):
    symbols, table_of, models = stream
    data = encode(symbols, table_of, models)
    lanes = 4 * lane_count(len(symbols))
    for bad in (data + struct.pack("<H", word), data + b"\0", data[:-1], data[: lanes - 1]):
        with pytest.raises(CorruptChunkError):
            read(bad, table_of, models)
    if len(data) > lanes:
        with pytest.raises(CorruptChunkError, match=r"rans\.words"):
            read(data[:-2], table_of, models)
        # A changed word changes what is decoded, or is found.
        at = chance.randrange(lanes, len(data))
        changed = data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]
        try:
            assert read(changed, table_of, models).tolist() != symbols.tolist()
        except CorruptChunkError as error:
            assert error.field in ("rans.words", "rans.states")


def test_a_lane_that_does_not_end_in_its_first_state_is_found():
    symbols, models = np.array([3, -2, 0, 1, 1]), [Table(2**31, 2**32 - 1, 5)]
    data = encode(symbols, np.zeros(5, int), models)
    state = struct.unpack_from("<I", data)[0]
    found = set()
    for other in (state + 1, state ^ 0x4000, 2**32 - 1, LOWER):
        with pytest.raises(CorruptChunkError) as caught:
            read(struct.pack("<I", other) + data[4:], np.zeros(5, int), models)
        found.add(caught.value.field)
    assert "rans.states" in found
    with pytest.raises(CorruptChunkError, match="below its lower bound"):
        read(struct.pack("<I", LOWER - 1) + data[4:], np.zeros(5, int), models)


def test_a_lane_serves_1024_symbols():
    assert [lane_count(n) for n in (0, 1, 1024, 1025, 2048, 2049)] == [1, 1, 1, 2, 2, 3]


@given(st.integers(0, 2**32), st.floats(0.01, 400), st.integers(1, 3000))
@examples(25)
def test_a_fitted_table_codes_bells_close_to_their_entropy(seed, spread, count):
    rng = np.random.default_rng(seed)
    bell = rng.laplace(0, spread, count) if seed % 2 else rng.normal(0, spread, count)
    symbols = np.clip(np.rint(bell), -1023, 1023).astype(np.int64)
    table = fit_table(symbols)
    assert table.peak == np.abs(symbols).max()
    data = encode(symbols, np.zeros(count, int), [table])
    assert read(data, np.zeros(count, int), [table]).tolist() == symbols.tolist()
    assert 8 * len(data) <= code_length(symbols, table) * 1.01 + 50 * lane_count(count)
    counts = np.bincount(np.abs(symbols), minlength=1).astype(float)
    share = counts[counts > 0] / count
    entropy = -(share * np.log2(share)).sum() * count + count  # of magnitudes, and a sign
    assert code_length(symbols, table) <= entropy * 1.05 + 12 * counts.size


def test_a_symbol_above_the_limit_is_not_coded():
    with pytest.raises(ValueError, match="1024"):
        fit_table(np.array([0, 1024]))


def test_the_largest_table_holds_every_symbol():
    table = Table(2**32 - 1, 2**32 - 1, 1023)
    symbols = np.arange(-1023, 1024)
    data = encode(symbols, np.zeros(2047, int), [table])
    assert read(data, np.zeros(2047, int), [table]).tolist() == symbols.tolist()
    assert rans.PRECISION == 14
