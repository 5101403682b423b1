"""Learners, one file each; each registers itself and imports nothing heavy."""
