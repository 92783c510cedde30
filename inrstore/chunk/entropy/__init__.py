"""Entropy coding: rANS, lanes, fields of bits. It knows no model."""
