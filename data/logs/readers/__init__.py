"""Readers of logs, one module each, which register themselves."""
