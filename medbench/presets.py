"""Presets: whether methods are compared under one selection or each under its authors'."""

PRESETS = ("matched", "published")
