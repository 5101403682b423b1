"""Datasets and solutions in the formats of other programs."""
