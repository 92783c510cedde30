"""The one list of parts of the format whose vectors lie in modules of their own."""

from __future__ import annotations

from .av1 import subset_av1, uncommon_av1
from .av1_faulty import faulty_av1
from .inloop_faulty import faulty_inloop
from .inloop_valid import subset_inloop, uncommon_inloop
from .neural import subset_neural, uncommon_neural
from .neural_faulty import faulty_neural
from .numbers import faulty_numbers, subset_numbers, uncommon_numbers
from .predictor_faulty import faulty_predictor
from .predictor_valid import subset_predictor, uncommon_predictor
from .superres import subset_superres, uncommon_superres
from .superres_faulty import faulty_superres
from .transform_faulty import faulty_transform
from .transform_valid import subset_transform, uncommon_transform

PARTS = (
    (subset_numbers, uncommon_numbers, faulty_numbers),
    (subset_predictor, uncommon_predictor, faulty_predictor),
    (subset_neural, uncommon_neural, faulty_neural),
    (subset_transform, uncommon_transform, faulty_transform),
    (subset_inloop, uncommon_inloop, faulty_inloop),
    (subset_av1, uncommon_av1, faulty_av1),
    (subset_superres, uncommon_superres, faulty_superres),
)
"""Generators of common, of rare and of faulty frames."""
