"""Judges: each file registers one with `sdm.feedback.judge.register_judge`."""
