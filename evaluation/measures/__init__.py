"""Measures of some families, one file each; each registers itself."""
