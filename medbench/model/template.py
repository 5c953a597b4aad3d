"""Templates: how a question becomes token ids, with the image's placeholder in its place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from medbench.errors import UserError
from medbench.model.prompt import Prompt

IMAGE = "<image>"
QUESTION = "{question}"


@dataclass(frozen=True)
class Template:
    """A text with `<image>` and `{question}` in it, and what an answer ends with.

    Attributes:
        text: the prompt, e.g. "USER: <image>\\n{question} ASSISTANT:".
        before_answer: what stands between the prompt and a training answer.
        after_answer: what a training answer ends with, usually the end token's text.
        special_tokens: whether the tokenizer puts its own begin token in front.
    """

    text: str
    before_answer: str = " "
    after_answer: str = ""
    special_tokens: bool = True

    def __post_init__(self) -> None:
        if self.text.count(IMAGE) != 1 or self.text.count(QUESTION) != 1:
            raise UserError(
                f"the prompt template '{self.text}' cannot be used",
                f"It must hold {IMAGE} once and {QUESTION} once.",
            )

    def encode(
        self,
        tokenizer: PreTrainedTokenizerBase,
        question: str,
        *,
        image_token_id: int,
        image_tokens: int,
    ) -> Prompt:
        """Return the prompt's ids with `image_tokens` placeholders, features not yet set.

        The pieces before and after the image are tokenised together with it, so that blanks next
        to it are treated as in one text; the question's tokens are found by its characters.
        """
        before, after = self.text.split(QUESTION)
        start = len(before)
        encoded = tokenizer(
            before + question + after,
            return_offsets_mapping=True,
            add_special_tokens=self.special_tokens,
        )
        ids: list[int] = []
        visual: list[bool] = []
        asked: list[bool] = []
        for token, (first, last) in zip(
            encoded["input_ids"], encoded["offset_mapping"], strict=True
        ):
            inside = first < start + len(question) and last > start and first < last
            if token == image_token_id and not inside:
                ids += [token] * image_tokens
                visual += [True] * image_tokens
                asked += [False] * image_tokens
            else:
                ids.append(token)
                visual.append(False)
                asked.append(inside)
        if sum(visual) != image_tokens:
            raise UserError(
                f"the prompt has {sum(visual) // max(image_tokens, 1)} images instead of one",
                f"The tokenizer does not turn {IMAGE} into token {image_token_id} once.",
            )
        # Features come later; a prompt cannot exist without as many as it has places.
        return Prompt(
            torch.tensor(ids),
            torch.tensor(visual),
            torch.tensor(asked),
            torch.zeros(image_tokens, 0),
        )

    def encode_answer(self, tokenizer: PreTrainedTokenizerBase, answer: str) -> list[int]:
        """Return the ids of a training answer, what ends it included."""
        text = self.before_answer + answer + self.after_answer
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
