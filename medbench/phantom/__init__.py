"""The world in the box: drawn images, questions about them, and a small model trained on them.

It exists so that every method runs on any laptop and attention has a ground truth. It proves
nothing about medicine.
"""

from pathlib import Path

# The models that label it, and the labels of its training split.
LABELS = Path(__file__).with_name("labels")
