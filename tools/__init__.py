"""Programs for maintainers: benchmarks, vectors, fuzz runs, the demonstration."""
