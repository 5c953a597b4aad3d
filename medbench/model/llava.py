"""The loaded backbone: CLIP vision tower, projector, and a Llama, Mistral or Qwen2 text model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from medbench.backbone import Depth
from medbench.model.geometry import Geometry
from medbench.model.prompt import Prompt
from medbench.model.rows import RowState
from medbench.model.template import Template


@dataclass(frozen=True)
class Backbone:
    """A vision-language model in parts, so that every branch can build its own input.

    Attributes:
        name: spec it was loaded from; `offers`: what methods may ask of it.
        vision_tower: returns hidden states of the image; `vision_layer` says which are used and
            `vision_select` whether the class token goes ("patch") or stays ("full").
        projector: from the tower's width to the language model's.
        language_model: an ordinary causal language model of transformers (peft may wrap it).
        image_token_id: the placeholder in token ids; need not be in the vocabulary.
        eos_token_ids, stop_strings: what ends an answer.
        penalises_prompt: whether a repetition penalty counts the prompt's text as said before; the
            originals that generate from embeddings do not see it.
        row_states: parts of an adapter that must follow the rows of a batch.
    """

    name: str
    offers: tuple[str, ...]
    vision_tower: PreTrainedModel
    projector: nn.Module
    language_model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    template: Template
    geometry: Geometry
    image_token_id: int
    eos_token_ids: tuple[int, ...]
    vision_layer: int = -2
    vision_select: Literal["patch", "full"] = "patch"
    stop_strings: tuple[str, ...] = ()
    penalises_prompt: bool = True
    row_states: tuple[RowState, ...] = ()

    @property
    def device(self) -> torch.device:
        """Where the embeddings are computed, and so where inputs go."""
        return computes_on(self._embedding)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return self._embedding.weight.dtype

    @property
    def _embedding(self) -> nn.Embedding:
        return cast("nn.Embedding", self.language_model.get_input_embeddings())

    @property
    def image_tokens(self) -> int:
        """Number of visual tokens of one image."""
        rows, columns = self.geometry.grid
        return rows * columns + (self.vision_select == "full")

    @property
    def layers(self) -> int:
        """Number of decoder layers."""
        return int(self.language_model.config.num_hidden_layers)

    @property
    def depth(self) -> Depth:
        """How many layers the language model and the vision tower have."""
        return Depth(self.layers, int(self.vision_tower.config.num_hidden_layers))

    @property
    def heads(self) -> int:
        """Number of attention heads a layer."""
        return int(self.language_model.config.num_attention_heads)

    @property
    def begin_token_id(self) -> int | None:
        """The token that begins a text; None where there is none."""
        return cast("int | None", self.tokenizer.bos_token_id)

    def pixel_values(self, images: Sequence[Image.Image]) -> Tensor:
        """Return float32 [images, 3, size, size] on the CPU, normalised for the tower."""
        return torch.stack([self.geometry.pixels(image) for image in images])

    def encode(self, pixel_values: Tensor) -> Tensor:
        """Return projected image features, [images, N, width]."""
        return self.project(self.vision_states(pixel_values))

    @torch.no_grad()
    def vision_states(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """Return the tower's hidden states of images, the embeddings first."""
        pixels = pixel_values.to(self.device, self.dtype)
        return tuple(self.vision_tower(pixels, output_hidden_states=True).hidden_states)

    @torch.no_grad()
    def project(self, vision_states: Sequence[Tensor]) -> Tensor:
        """Return the image features, [images, N, width], that the tower's states stand for."""
        features = vision_states[self.vision_layer]
        return self.projector(features[:, 1:] if self.vision_select == "patch" else features)

    def prompt(self, question: str, features: Tensor, *, training: bool = False) -> Prompt:
        """Return the templated prompt of a question about an image with these features [N, D].

        With `training` it is the prompt of training samples, which a template may have apart.
        """
        prompt = self.template.encode(
            self.tokenizer,
            question,
            image_token_id=self.image_token_id,
            image_tokens=len(features),
            training=training,
        )
        return Prompt(
            prompt.ids.to(self.device),
            prompt.visual.to(self.device),
            prompt.question.to(self.device),
            features,
        )

    def prompt_from_ids(self, ids: Sequence[int], features: Tensor | None) -> Prompt:
        """Return a prompt from ready ids with the placeholders in place.

        With nothing said about which tokens are the question, all text after the image counts.
        """
        tensor = torch.tensor(list(ids), device=self.device)
        visual = tensor == self.image_token_id
        after = visual.long().cumsum(0) == visual.sum()
        return Prompt(tensor, visual, after & ~visual, features)

    def said_before(self, prompt: Prompt) -> list[int]:
        """Return the tokens of a prompt that a repetition penalty counts as said before."""
        return prompt.text_ids if self.penalises_prompt else []

    def embed(self, prompt: Prompt) -> Tensor:
        """Return the prompt's input embeddings, [T, width], image features in their places."""
        embed = self.language_model.get_input_embeddings()
        embedded = embed(prompt.ids.masked_fill(prompt.visual, 0))
        if prompt.features is None:
            return embedded
        positions = prompt.visual[:, None].expand_as(embedded)
        return embedded.masked_scatter(positions, prompt.features.to(embedded))

    def text(self, tokens: Sequence[int]) -> str:
        """Return the text of new tokens, special ones left out."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """Return the text that each new token adds; joined, they read like the whole answer.

        Special tokens are spelled out. A letter made of several tokens comes with the last of them.
        """
        pieces: list[str] = []
        before, ids = "", list(tokens)
        for end in range(1, len(ids) + 1):
            # Blanks and letters of several bytes show only beside the tokens before.
            text = str(self.tokenizer.decode(ids[:end], clean_up_tokenization_spaces=False))
            if text.endswith("\N{REPLACEMENT CHARACTER}") and end < len(ids):
                text = before
            pieces.append(text[len(before) :])
            before = text
        return pieces


def computes_on(embedding: nn.Embedding) -> torch.device:
    """Return the device that embeddings are computed on."""
    # Weights that wait in main memory or on disk have a hook that knows where they go.
    hook = getattr(embedding, "_hf_hook", None)
    device = getattr(hook, "execution_device", None)
    return embedding.weight.device if device is None else torch.device(device)
