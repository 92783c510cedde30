"""Fitting networks to chunks: the only place that imports torch, loaded when something is encoded."""
