"""Baseline policies: planning-based, demonstration-based and learned."""
