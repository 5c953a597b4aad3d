"""Runs as files for others: a run folder in one file and out of it again, and what stays at home.

run folder -> withholding.py, portable.py -> manifest.py -> packed.py -> a file
a file -> unpacked.py -> agreement.py -> run folder
"""
