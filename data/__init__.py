"""Datasets of solved tasks, and the benchmark that policies share."""
