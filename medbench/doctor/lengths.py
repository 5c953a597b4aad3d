"""How long the rows of a run become, and how many of them a decoder makes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from medbench.method import Decoder
from medbench.task import Sample, Task

if TYPE_CHECKING:
    from medbench.model.llava import Backbone

# Where no task is given, a text of so many words stands for its questions and answers.
_WORDS = 40
# Texts whose tokens are counted: those with the most letters.
_LONGEST = 16


def rows_of(decoder: Decoder) -> int:
    """Return how many rows of the cache one sample has under a decoder, all branches and beams."""
    if "beam" in decoder.rows_per_token:
        return decoder.beams
    stated = re.match(r"\d+", decoder.rows_per_token)
    return (int(stated[0]) if stated else 1) * decoder.beams


def longest_prompt(skeleton: Backbone, task: Task | None, test: Sequence[Sample]) -> int:
    """Return the tokens of the longest prompt, those of the image included."""
    texts = {task.ask(one) for one in test} if task else set[str]()
    most_letters = sorted(texts, key=len, reverse=True)[:_LONGEST]
    return max(_prompt_length(skeleton, text) for text in most_letters or ["word " * _WORDS])


def longest_example(
    skeleton: Backbone, task: Task | None, train: Sequence[Sample]
) -> tuple[int, int]:
    """Return the tokens of the longest prompt with its answer, and of the longest answer."""
    pairs = [(task.ask(one), one.answer) for one in train] if task else []
    pairs.sort(key=lambda pair: len(pair[0]) + len(pair[1]), reverse=True)
    lengths = [
        (
            _prompt_length(skeleton, question, training=True),
            len(skeleton.template.encode_answer(skeleton.tokenizer, answer)),
        )
        for question, answer in pairs[:_LONGEST] or [("word " * _WORDS, "word " * _WORDS)]
    ]
    return max(map(sum, lengths)), max(answer for _, answer in lengths)


def _prompt_length(skeleton: Backbone, question: str, *, training: bool = False) -> int:
    prompt = skeleton.template.encode(
        skeleton.tokenizer,
        question,
        image_token_id=skeleton.image_token_id,
        image_tokens=skeleton.image_tokens,
        training=training,
    )
    return len(prompt)
