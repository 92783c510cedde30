"""Python -> machine code: the one place that says how loops are compiled and where they are kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": False, "no_cfunc_wrapper": True}
"""Floats are never regrouped or contracted: what is not exact anyway is made in the order of the numpy path."""


def compiled(signature: str) -> Callable[[Function], Function]:
    """Compile a function for one signature when its module is loaded, or take it from the cache of numba.

    The cache is beside the module, or in a folder of the user's where that cannot be written; without either, and where
    a cache is damaged, each process compiles.
    """

    def make(function: Function) -> Function:
        try:
            made: Any = numba.njit(signature, cache=True, **_OPTIONS)(function)
        except Exception:  # numba does not say which errors a cache may cause
            made = numba.njit(signature, **_OPTIONS)(function)
        return cast(Function, made)

    return make


def inlined(function: Function) -> Function:
    """Mark a part of compiled functions."""
    made: Any = numba.njit(**_OPTIONS)(function)
    return cast(Function, made)
