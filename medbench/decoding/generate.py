"""`medbench.generate`: decode images and prompts with a method, from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from PIL import Image
from torch import Tensor

from medbench import plugins, spec
from medbench.decoding.answer import Answer
from medbench.decoding.context import DecodeContext, DecodeSettings
from medbench.decoding.loop import decode
from medbench.decoding.select import resolve
from medbench.errors import UserError
from medbench.images import encode, stacked
from medbench.method import Decoder
from medbench.model.llava import Backbone
from medbench.model.prompt import Prompt
from medbench.needs import check_depth, require


def generate(
    backbone: Backbone,
    *,
    method: str | Decoder = "greedy",
    images: Sequence[Image.Image] | None = None,
    prompts: Sequence[str] | None = None,
    input_ids: Sequence[Sequence[int]] | None = None,
    pixel_values: Tensor | None = None,
    branch_tensors: Mapping[str, Tensor] | None = None,
    rois: Sequence[np.ndarray | None] | None = None,
    ids: Sequence[str] | None = None,
    seed: int = 0,
    preset: str = "matched",
    max_new_tokens: int = 1024,
    batch_size: int = 8,
    record_scores: int = 0,
    record_attention: bool | Literal["steps"] = False,
    **selection: Any,
) -> list[Answer]:
    """Decode each image and prompt with a method and return the answers in order.

    Args:
        backbone: from `medbench.load_backbone`.
        method: a decoder's spec such as "vcd[alpha=0.5]", or a `Decoder`.
        images, prompts: one image and one question each; the backbone's template goes around
            the question. A method that wants another sample's image takes the next one.
        input_ids: ready ids with the image's placeholders in place, instead of prompts.
        pixel_values: ready pixels [samples, 3, size, size], instead of images; leave both out
            for text alone.
        branch_tensors: ready inputs of named branches, [samples, ...], such as
            {"noised": ...} for VCD.
        rois: bool [height, width] or None per sample, for methods that need one.
        ids: names of the samples; their randomness follows the name and the seed.
        preset: "matched" (every method takes the argmax) or "published" (its authors' selection).
        record_scores: how many steps of combined scores to return.
        record_attention: whether to return the visual attention; "steps" returns that of every
            step beside the mean.
        selection: select=, temperature=, top_k=, top_p=, beams=, over what the method says.

    Raises:
        UserError: inputs that do not go together, an unknown method, or a method that needs
            what is not there.
    """
    decoder = create_decoder(method) if isinstance(method, str) else method
    _check_inputs(prompts, input_ids, images, pixel_values)
    given = images is not None or pixel_values is not None
    offers = [one for one in backbone.offers if given or one not in ("pixels", "image_span")]
    require(decoder.name, decoder.needs, [*offers, "roi"] if rois is not None else offers)
    check_depth(decoder, backbone.depth)
    chosen = resolve(replace(decoder, **selection) if selection else decoder, preset)
    tensors = branch_tensors or {}
    count = _count(prompts, input_ids, images, pixel_values, ids, rois, *tensors.values())
    if min(max_new_tokens, batch_size) < 1:
        raise UserError("max_new_tokens and batch_size are 1 or more")
    if record_attention not in (False, True, "steps"):
        raise UserError('record_attention is False, True or "steps"')
    if not count:
        return []
    if input_ids is not None:
        _check_places(input_ids, backbone.image_token_id, backbone.image_tokens if given else 0)
    names = [str(index) for index in range(count)] if ids is None else list(ids)
    if images is not None:
        pixel_values = backbone.pixel_values(images)
    if decoder.image == "other":
        if pixel_values is None or count < 2:
            raise UserError(f"{decoder.name} needs the image of another sample")
        pixel_values = pixel_values.roll(-1, dims=0)
    settings = DecodeSettings(chosen, max_new_tokens, record_scores, record_attention)
    answers: list[Answer] = []
    for start in range(0, count, batch_size):
        part = slice(start, start + batch_size)
        pixels = None if pixel_values is None else pixel_values[part]
        encoded = [
            encode(backbone, decoder, one[None]) for one in (() if pixels is None else pixels)
        ]
        features = [one for one, _ in encoded] or [None] * count
        context = DecodeContext(
            backbone,
            tuple(names[part]),
            seed=seed,
            pixel_values=pixels,
            tensors={name: tensor[part] for name, tensor in tensors.items()},
            rois=tuple(rois[part]) if rois is not None else (),
            looked=stacked([looked for _, looked in encoded]),
        )
        answers += decode(
            decoder,
            _prompts(backbone, prompts and prompts[part], input_ids and input_ids[part], features),
            context,
            settings,
        )
    return answers


def create_decoder(text: str) -> Decoder:
    """Return the decoder of a spec.

    Raises:
        UserError: unknown, malformed, or not a decoder.
    """
    chain = spec.parse_chain(text)
    plugin, instance = plugins.create("method", chain[-1])
    if len(chain) > 1 or plugin.role != "decoder":
        raise UserError(
            f"'{text}' is not a decoder alone",
            "generate() chooses tokens; it does not tune.",
            "Use medbench.run for tuners and chains.",
        )
    return instance


def _check_inputs(prompts: Any, input_ids: Any, images: Any, pixel_values: Any) -> None:
    if prompts is None and input_ids is None:
        raise UserError("nothing to decode", "Neither prompts nor input_ids were given.")
    if prompts is not None and input_ids is not None:
        raise UserError("prompts and input_ids do not go together", "", "Leave one of them out.")
    if images is not None and pixel_values is not None:
        raise UserError("images and pixel_values do not go together", "", "Leave one of them out.")
    if prompts is not None and images is None and pixel_values is None:
        raise UserError("no images", "Prompts need images= or pixel_values=.")


def _check_places(input_ids: Sequence[Sequence[int]], image_token: int, features: int) -> None:
    for index, row in enumerate(input_ids):
        places = list(row).count(image_token)
        if places != features:
            raise UserError(
                f"sample {index}: {places} image positions, {features} features",
                f"Each image takes as many ids {image_token} as it has features.",
            )


def _count(*lists: Any) -> int:
    lengths = {len(one) for one in lists if one is not None}
    if len(lengths) != 1:
        raise UserError("inputs of different lengths", f"Lengths given: {sorted(lengths)}.")
    return lengths.pop()


def _prompts(
    backbone: Backbone,
    prompts: Sequence[str] | None,
    input_ids: Sequence[Sequence[int]] | None,
    features: Sequence[Tensor | None],
) -> list[Prompt]:
    if input_ids is not None:
        pairs = zip(input_ids, features, strict=False)
        return [backbone.prompt_from_ids(ids, feature) for ids, feature in pairs]
    pairs = zip(prompts or (), features, strict=False)
    return [backbone.prompt(prompt, feature) for prompt, feature in pairs if feature is not None]
