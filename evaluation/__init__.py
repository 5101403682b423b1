"""Evaluation of policies on a benchmark: optimality gaps, tables and figures."""
