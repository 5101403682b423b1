"""Formats of `sdm export`; each module registers one."""
