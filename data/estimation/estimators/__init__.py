"""Estimators, one module each, which register themselves."""
