"""Engines behind metrics: one file for each package that gives values to texts.

Such a file has two functions, run in whichever process and interpreter has the package:

    describe(settings) -> dict          versions and hashes of all that its values depend on; finds
                                        out that something is missing, and loads nothing
    load(settings, device) -> function  takes texts, as tuples of one or two; returns what JSON can
                                        hold for each, in their order

and a third that says how it wants to be run: an `Engine` (`medbench.scorers.engine`).
"""
