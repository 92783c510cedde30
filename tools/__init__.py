"""Programs for developers: vectors, long runs, measurements; no part of the package."""
