"""Checking: runs against scores that were agreed on, for CI.

baseline   the file that keeps them        entry   what it keeps of a run, and what may differ
runs       which runs a check is about     check   what is worse        update   keeping new ones
"""
