"""Sweeps: a whole grid of runs from one file, on this machine or on a cluster."""
