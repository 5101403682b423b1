"""Scores of episodes, one file each; see `selection`."""
