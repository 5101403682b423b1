"""Estimators of a policy's value from logs, one module each."""
