"""Which questions are closed: the rules behind the published denominators."""

from __future__ import annotations

from typing import Literal

from medbench.metrics.text import published

ClosedRule = Literal["paper", "dataset", "yesno"]


def is_closed(rule: ClosedRule, answer: str, answer_type: str) -> bool:
    """Say whether a question counts as closed.

    Args:
        rule: "dataset" takes the data set's own field; "paper" those of them whose answer holds
            "yes" or "no" somewhere, which gives the denominators of A3Tune's Table 1 (SLAKE 355,
            VQA-RAD 254, PathVQA 3391); "yesno" those whose answer is exactly one of them.
        answer: the gold answer; answer_type: the data set's field, "CLOSED" or "OPEN".
    """
    if rule == "yesno":
        return published(answer) in ("yes", "no")
    if answer_type != "CLOSED":
        return False
    return rule == "dataset" or any(word in answer.lower() for word in ("yes", "no"))
