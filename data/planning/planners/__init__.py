"""Planners, one module each, which register themselves."""
