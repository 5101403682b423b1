"""Atomic files and folders, several processes, and provenance of results."""
