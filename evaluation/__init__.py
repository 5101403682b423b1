"""Optimality gaps of policies on a benchmark, as rows, tables and figures."""
