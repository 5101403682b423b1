"""Policies to evaluate on logs, by name: one module for each form of names."""
