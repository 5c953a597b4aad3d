"""Templates: how a question becomes token ids, with the image's placeholder in its place."""

from __future__ import annotations

import re
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
        training: the prompt of training samples, where it is another one.
        before_answer: what stands between the prompt and a training answer.
        after_answer: what a training answer ends with, usually the end token's text.
        special_tokens: whether the tokenizer puts its own begin token in front.
        image: the token that stands for the image in the tokenizer's vocabulary; "" where there is
            none, and the texts before and after the image are tokenised each for itself.
    """

    text: str
    training: str = ""
    before_answer: str = " "
    after_answer: str = ""
    special_tokens: bool = True
    image: str = IMAGE

    def __post_init__(self) -> None:
        for text in filter(None, (self.text, self.training)):
            if text.count(IMAGE) != 1 or text.count(QUESTION) != 1:
                raise UserError(
                    f"the prompt template '{text}' cannot be used",
                    f"It must hold {IMAGE} once and {QUESTION} once.",
                )

    def encode(
        self,
        tokenizer: PreTrainedTokenizerBase,
        question: str,
        *,
        image_token_id: int,
        image_tokens: int,
        training: bool = False,
    ) -> Prompt:
        """Return the prompt's ids with `image_tokens` placeholders, features not yet set.

        Where the vocabulary has a token for the image, the text around it is tokenised in one
        piece with it. The question's tokens are found by its characters.

        Args:
            training: take the prompt of training samples.
        """
        text = self._chosen(training)
        ids: list[int] = []
        visual: list[bool] = []
        asked: list[bool] = []

        def see() -> None:
            ids.extend([image_token_id] * image_tokens)
            visual.extend([True] * image_tokens)
            asked.extend([False] * image_tokens)

        pieces = [text.replace(IMAGE, self.image)] if self.image else text.split(IMAGE)
        for number, piece in enumerate(pieces):
            if number:
                see()
            for token, inside in self._tokens(tokenizer, piece, question, first=number == 0):
                if self.image and token == image_token_id and not inside:
                    see()
                else:
                    ids.append(token)
                    visual.append(False)
                    asked.append(inside)
        if sum(visual) != image_tokens:
            raise UserError(
                f"the prompt has {sum(visual) // max(image_tokens, 1)} images instead of one",
                f"The tokenizer does not turn {self.image} into token {image_token_id} once.",
            )
        # Features come later; a prompt cannot exist without as many as it has places.
        return Prompt(
            torch.tensor(ids),
            torch.tensor(visual),
            torch.tensor(asked),
            torch.zeros(image_tokens, 0),
        )

    def encode_answer(self, tokenizer: PreTrainedTokenizerBase, answer: str) -> list[int]:
        """Return the ids of a training answer, what ends it included.

        They are those that the answer has behind its prompt: some tokenizers treat the beginning
        of a text differently.
        """
        tail = re.split(f"{IMAGE}|{re.escape(QUESTION)}", self._chosen(training=True))[-1]
        text = self.before_answer + answer + self.after_answer
        before = list(tokenizer(tail, add_special_tokens=False)["input_ids"])
        whole = list(tokenizer(tail + text, add_special_tokens=False)["input_ids"])
        if whole[: len(before)] == before:
            return whole[len(before) :]
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    def _chosen(self, training: bool) -> str:
        return self.training if training and self.training else self.text

    def _tokens(
        self, tokenizer: PreTrainedTokenizerBase, piece: str, question: str, *, first: bool
    ) -> list[tuple[int, bool]]:
        """Return (id, whether it is of the question) for a piece of the template."""
        before, here, after = piece.partition(QUESTION)
        start = len(before)
        stop = start + len(question) if here else start
        encoded = tokenizer(
            before + (question if here else "") + after,
            return_offsets_mapping=True,
            # A begin token of a later piece would stand in the middle of the prompt.
            add_special_tokens=self.special_tokens and first,
        )
        return [
            (token, begin < stop and end > start and begin < end)
            for token, (begin, end) in zip(
                encoded["input_ids"], encoded["offset_mapping"], strict=True
            )
        ]
