"""Datasets of solved tasks, and the benchmark on which policies are evaluated."""
