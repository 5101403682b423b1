"""Policies that need no training; each file registers those it defines."""
