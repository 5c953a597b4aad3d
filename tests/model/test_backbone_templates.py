"""Templates of the original backbones: prompts and training answers, token by token."""

from dataclasses import dataclass

import pytest
import torch

CURIOUS = (
    "A chat between a curious {who} and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the {who}'s questions."
)
HUMAN, USER = CURIOUS.format(who="human"), CURIOUS.format(who="user")
BLOCK = "<im_start><image><im_end>"
V0 = HUMAN + "\n\n### Human: " + BLOCK + "\n{q}\n### Assistant: {a}\n### "


@dataclass(frozen=True)
class Layout:
    """A conversation written out: what is asked with, and what is trained on."""

    kind: str
    option: str
    asked: str
    trained: str


LAYOUTS = [
    Layout("llava", "image_first", f"{HUMAN}###Human: {BLOCK}\n{{q}}###", V0),
    Layout("llava", "question_first", f"{HUMAN}###Human: {{q}}\n{BLOCK}###", V0),
    Layout(
        "llava_mistral",
        "vicuna_v1",
        f"{USER} USER: <image>\n{{q}} ASSISTANT:",
        f"{USER} USER: <image>\n{{q}} ASSISTANT: {{a}}</s>",
    ),
    Layout(
        "llava_mistral",
        "mistral_instruct",
        "[INST] <image>\n{q} [/INST]",
        "[INST] <image>\n{q} [/INST] {a}</s>",
    ),
    Layout(
        "llava_qwen2",
        "",
        "<|user|>\n<image>\n{q}\n<|assistant|>\n",
        "<|user|>\n<image>\n{q}\n<|assistant|>\n{a} \n<|endoftext|>",
    ),
]
QUESTIONS = [
    "Is the lung normal?", " leading", "trailing ", "a  b", "", "\n", "two\nlines", "é ü 漢",
    "<im_patch>", "<im_end> x", "</s>", "{question}", "###", "yes</s>no", "<|user|>", "Ġ", "▁a",
    "<|endoftext|>", "ASSISTANT: no", "[/INST]", "<0x0A>", "-200",
]  # fmt: skip
ANSWERS = [
    "yes", " yes", "no ", "", "\n", "a\nb", "é", "###", "left lung.", "1.5", "</s>", "  two",
    "\n\nx", "<im_start>", "ASSISTANT: no",
]  # fmt: skip


@pytest.fixture(scope="module", params=LAYOUTS, ids=lambda layout: layout.option or layout.kind)
def layout(request):
    return request.param


@pytest.fixture(scope="module")
def backbone(tiny, layout):
    options = {"template": layout.option} if layout.option else {}
    return tiny(layout.kind).load(**options)


def whole_ids(backbone, kind, text):
    """Return the ids of a whole text with its image, as each kind's authors make them."""
    tokenizer, count = backbone.tokenizer, backbone.image_tokens
    before, after = text.split("<image>")
    if kind == "llava":
        return tokenizer(before + "<im_patch>" * count + after)["input_ids"]
    special = kind == "llava_mistral"
    first, second = (
        tokenizer(part, add_special_tokens=special)["input_ids"] for part in (before, after)
    )
    return first + [-200] * count + second[special:]


def features(backbone):
    return torch.zeros(backbone.image_tokens, 1)


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_prompt_is_split_as_its_whole_text(backbone, layout, question):
    prompt = backbone.prompt(question, features(backbone))
    text = layout.asked.replace("{q}", question)
    assert prompt.ids.tolist() == whole_ids(backbone, layout.kind, text)
    places = prompt.visual.nonzero().flatten().tolist()
    assert len(places) == backbone.image_tokens
    assert places == list(range(places[0], places[-1] + 1))
    if question == "Is the lung normal?":
        assert backbone.text(prompt.ids[prompt.question]) == question


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_prompt_and_its_training_answer_are_split_as_the_whole_conversation(
    backbone, layout, question
):
    prompt = backbone.prompt(question, features(backbone), training=True)
    for answer in ANSWERS:
        text = layout.trained.replace("{q}", question).replace("{a}", answer)
        ids = backbone.template.encode_answer(backbone.tokenizer, answer)
        assert prompt.ids.tolist() + ids == whole_ids(backbone, layout.kind, text), answer


def test_a_training_answer_teaches_where_to_stop(backbone, layout):
    ids = backbone.template.encode_answer(backbone.tokenizer, "yes")
    text = backbone.tokenizer.decode(ids)
    if layout.kind == "llava":
        assert backbone.stop_strings == ("###",)
        assert text.startswith("### Assistant: yes")
        assert "###" in text.partition("yes")[2]
    else:
        assert backbone.stop_strings == ()
        assert ids[-1] in backbone.eos_token_ids
        assert ids.count(ids[-1]) == 1


def test_the_begin_token_stands_once_and_in_front_only(backbone, layout):
    for training in (False, True):
        ids = backbone.prompt("a", features(backbone), training=training).ids.tolist()
        begin = backbone.begin_token_id
        if layout.kind == "llava_qwen2":
            assert begin is None
        else:
            assert ids[0] == begin == 1
            assert ids.count(begin) == 1


def test_only_1_0_trains_with_another_prompt_than_it_is_asked_with(backbone, layout):
    asked, trained = (
        backbone.prompt("a", features(backbone), training=training).ids.tolist()
        for training in (False, True)
    )
    assert (asked != trained) == (layout.kind == "llava")


def test_a_question_alone_is_the_users_words(backbone):
    prompt = backbone.prompt("Is it?", features(backbone)).only_question(backbone.begin_token_id)
    assert backbone.text(prompt.ids) == "Is it?"
    assert not prompt.visual.any()
