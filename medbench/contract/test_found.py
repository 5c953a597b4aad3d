"""Nothing to check is no success."""

from medbench.contract.breach import breach
from medbench.contract.chosen import places
from medbench.plugins import Plugin


def test_there_is_something_to_check(chosen: list[Plugin]) -> None:
    """There is at least one plugin that did not come with medbench, or one was named."""
    if not chosen:
        breach(
            "there is no plugin of yours to check",
            places(),
            "Begin one with 'medbench new method NAME', or check any with --plugin NAME.",
        )
