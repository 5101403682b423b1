"""Comparison policies that learn nothing from training tasks."""
