"""Comparison policies that need no training."""
