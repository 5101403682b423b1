"""Experiments: the paper's figures and tables, from configurations to a report."""
