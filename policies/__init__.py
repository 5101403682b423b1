"""Policies to compare with: planning-based, demonstration-based and learned."""
