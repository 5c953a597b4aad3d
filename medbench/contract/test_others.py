"""What else is to be checked: backbones, providers, and whatever cannot be read."""

from medbench.contract.reading import ReadingContract


class TestPlugin(ReadingContract):
    """Every other plugin that is to be checked, one after the other."""
