"""The hot loops of reading and encoding, compiled by numba where it is installed; numpy makes the same bits.

`choice` says whether they serve; every other module here imports numba and is loaded by it alone.
"""
