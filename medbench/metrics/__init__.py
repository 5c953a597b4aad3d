"""Metrics: one file for each kind of output, found by reading their source."""
