"""Weak labels: segments of an image, and how well each fits what a question asks about."""
