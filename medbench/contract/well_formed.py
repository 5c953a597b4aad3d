"""Whether an answer is one, and whether what a method needs exists."""

from __future__ import annotations

from medbench import plugins
from medbench.contract import toys
from medbench.contract.breach import breach
from medbench.decoding.answer import Answer
from medbench.model.llava import Backbone
from medbench.plugins import Plugin


def check_needs(plugin: Plugin) -> None:
    """Fail if a method needs or uses what no backbone and no task offers."""
    everything = [one for kind in ("backbone", "task") for one in plugins.find(kind)]
    offered = sorted({name for one in everything for name in one.attributes.get("offers", ())})
    for word in ("needs", "uses"):
        for name in plugin.attributes.get(word, ()):
            if name not in offered:
                breach(
                    f"'{word}' names '{name}', which no backbone and no task offers",
                    plugins.close(name, offered),
                    f"On offer are {', '.join(offered)}.",
                )


def check_well_formed(answer: Answer, backbone: Backbone, name: str) -> None:
    """Fail if tokens, text or scores of an answer are not what they should be."""
    tokens, size = answer.token_ids, len(backbone.tokenizer)
    if not 1 <= len(tokens) <= toys.TOKENS:
        breach(f"{name}: {len(tokens)} tokens, where 1 to {toys.TOKENS} were asked for")
    outside = [token for token in tokens if not 0 <= token < size]
    if outside:
        breach(f"{name}: token {outside[0]} is none of the vocabulary's {size}")
    if answer.stop not in ("eos", "stop", "length"):
        breach(f"{name}: stop is {answer.stop!r}", "", "It is 'eos', 'stop' or 'length'.")
    if answer.scores is None:  # a search need not have any
        return
    if answer.scores.isnan().any() or (answer.scores == float("inf")).any():
        breach(
            f"{name}: a score is no number",
            "`combine` gives nan or +inf, of which no token can be picked.",
            "Bar a token with -inf; take log_softmax instead of softmax and log.",
        )
    if not answer.scores.isfinite().any(-1).all():
        breach(
            f"{name}: every token is barred at some step",
            "`combine` gives -inf throughout.",
            "Leave at least the likeliest token of the main branch.",
        )
