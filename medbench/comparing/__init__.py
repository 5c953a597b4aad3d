"""Comparing: two sides of runs, question by question.

comparable   whether they may be        compare   gaps and tests        flips   what changed
text         all of it as lines
"""
