"""Makes inrstore/views/web/kernel.js: the product of matrices of 16-bit integers as WebAssembly with SIMD.

    python -m tools.web_kernel

The module takes a memory (e.m) and has one function, m(w, x, y, rows, pairs, stride, end), all addresses and sizes in
bytes but `rows` (even) and `pairs`. W has a row of pairs of neighbouring columns, x a row of `stride` bytes for each
pair of columns, in it a pair for each position; y gets a row of `stride` bytes for each row of W: the 32-bit sums of
the positions below `end`, a multiple of 32.
"""

from __future__ import annotations

import base64
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "inrstore" / "views" / "web" / "kernel.js"
TEXT = """// Made by tools/web_kernel.py: W x of 16-bit integers as WebAssembly with SIMD, or null where there is none.
const CODE = "{code}";

let compiled = null;
try {{
  compiled = new WebAssembly.Module(Uint8Array.from(atob(CODE), (c) => c.charCodeAt(0)));
}} catch {{
  // no WebAssembly, no SIMD in it, or a page that forbids it
}}
export const module = compiled;
"""
I32, V128, EMPTY = 0x7F, 0x7B, 0x40
W, X, Y, ROWS, PAIRS, STRIDE, END, P, K, WA, WB, XA, A0, A1, B0, B1, WV, X0, X1 = range(19)


def leb(n: int) -> bytes:
    """Return an unsigned number as LEB128."""
    return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + leb(n >> 7)


def signed(n: int) -> bytes:
    """Return a number of at most 14 bits as signed LEB128."""
    return bytes([n & 127]) if -64 <= n < 64 else bytes([n & 127 | 128, n >> 7 & 127])


def get(local: int) -> bytes:
    """Push a local."""
    return bytes([0x20, local])


def put(local: int) -> bytes:
    """Pop into a local."""
    return bytes([0x21, local])


def simd(code: int, *rest: int) -> bytes:
    """Return a SIMD instruction."""
    return b"\xfd" + leb(code) + bytes(rest)


def const(n: int) -> bytes:
    """Push a number."""
    return b"\x41" + signed(n)


def add(local: int, amount: bytes) -> bytes:
    """Add what is pushed to a local."""
    return get(local) + amount + b"\x6a" + put(local)


def loop(body: bytes, condition: bytes) -> bytes:
    """Repeat while the condition is not 0."""
    return bytes([0x03, EMPTY]) + body + condition + b"\x0d\x00\x0b"


def code() -> bytes:
    """Return the instructions of the function."""
    load, splat, store = simd(0x00, 0, 0), simd(0x09, 2, 0), 0x0B
    times4 = const(2) + b"\x74"
    zero = simd(0x0C, *bytes(16))

    def more(total: int, x: int) -> bytes:
        return get(total) + get(x) + get(WV) + simd(0xBA) + simd(0xAE) + put(total)

    inner = loop(
        get(XA) + load + put(X0) + get(XA) + simd(0x00, 0, 16) + put(X1)
        + get(WA) + splat + put(WV) + more(A0, X0) + more(A1, X1)
        + get(WB) + splat + put(WV) + more(B0, X0) + more(B1, X1)
        + add(XA, get(STRIDE)) + add(WA, const(4)) + add(WB, const(4)) + add(K, const(-1)),
        get(K),
    )  # fmt: skip
    at = get(Y) + get(P) + b"\x6a"
    below = at + get(STRIDE) + b"\x6a"
    positions = loop(
        b"".join(zero + put(total) for total in (A0, A1, B0, B1))
        + get(X) + get(P) + b"\x6a" + put(XA) + get(W) + put(WA) + get(PAIRS) + put(K)
        + get(W) + get(PAIRS) + times4 + b"\x6a" + put(WB)
        + inner
        + at + get(A0) + simd(store, 0, 0) + at + get(A1) + simd(store, 0, 16)
        + below + get(B0) + simd(store, 0, 0) + below + get(B1) + simd(store, 0, 16)
        + add(P, const(32)),
        get(P) + get(END) + b"\x49",
    )  # fmt: skip
    rows = loop(
        const(0) + put(P) + positions + add(W, get(PAIRS) + times4 + const(1) + b"\x74")
        + add(Y, get(STRIDE) + const(1) + b"\x74") + add(ROWS, const(-2)),
        get(ROWS),
    )  # fmt: skip
    return rows + b"\x0b"


def module() -> bytes:
    """Return the module."""

    def section(kind: int, content: bytes) -> bytes:
        return bytes([kind]) + leb(len(content)) + content

    body = bytes([2, 5, I32, 7, V128]) + code()
    return (
        b"\0asm\1\0\0\0"
        + section(1, bytes([1, 0x60, 7, *[I32] * 7, 0]))
        + section(2, b"\1\1e\1m\2\0\1")
        + section(3, b"\1\0")
        + section(7, b"\1\1m\0\0")
        + section(10, b"\1" + leb(len(body)) + body)
    )


def text() -> str:
    """Return the text of kernel.js."""
    return TEXT.format(code=base64.b64encode(module()).decode())


if __name__ == "__main__":
    TARGET.write_text(text())
