import pytest
import torch

from medbench.errors import UserError
from medbench.model.prompt import Prompt
from medbench.model.template import Template
from medbench.model.tiny import toy_tokenizer

IMAGE = 4


def prompt(before=3, image=5, after=4, width=2):
    visual = torch.tensor([False] * before + [True] * image + [False] * after)
    ids = torch.arange(100, 100 + len(visual)).masked_fill(visual, IMAGE)
    question = torch.zeros_like(visual)
    question[-2:] = True
    features = torch.arange(image * width, dtype=torch.float32).reshape(image, width)
    return Prompt(ids, visual, question, features if image else None)


def test_a_prompt_has_as_many_features_as_places():
    good = prompt()
    with pytest.raises(ValueError, match="5 image positions, 4 features"):
        Prompt(good.ids, good.visual, good.question, good.features[:4])
    with pytest.raises(ValueError, match="5 image positions, 0 features"):
        Prompt(good.ids, good.visual, good.question)


def test_without_its_image_a_prompt_keeps_everything_else_in_order():
    text = prompt().without_image()
    assert text.ids.tolist() == [100, 101, 102, 108, 109, 110, 111]
    assert text.question.tolist() == [False] * 5 + [True] * 2
    assert not text.visual.any()
    assert text.features is None
    assert text.without_image().ids.tolist() == text.ids.tolist()


def test_as_many_other_features_take_the_same_places():
    before = prompt()
    after = before.with_features(before.features + 1)
    assert torch.equal(after.ids, before.ids)
    assert torch.equal(after.visual, before.visual)
    assert torch.equal(after.features, before.features + 1)


@pytest.mark.parametrize("count", [0, 1, 3, 9])
@pytest.mark.parametrize("before", [0, 3])
def test_another_number_of_features_makes_another_number_of_places(count, before):
    made = prompt(before=before).with_features(torch.ones(count, 2))
    text = prompt(before=before).without_image()
    assert made.visual.tolist() == [False] * before + [True] * count + [False] * 4
    assert (made.ids[made.visual] == IMAGE).all()
    assert torch.equal(made.ids[~made.visual], text.ids)
    assert torch.equal(made.question[~made.visual], text.question)
    assert not made.question[made.visual].any()
    assert len(made) == before + count + 4


def test_features_for_a_prompt_without_places_are_refused():
    with pytest.raises(ValueError, match="no image"):
        prompt().without_image().with_features(torch.ones(2, 2))


def encoded(question, text="user: <image> {question} assistant:", tokens=3):
    tokenizer = toy_tokenizer()
    made = Template(text).encode(tokenizer, question, image_token_id=IMAGE, image_tokens=tokens)
    return tokenizer, made


def shown(tokenizer, ids):
    return "".join(tokenizer.convert_ids_to_tokens(ids.tolist()))


@pytest.mark.parametrize(
    "question",
    ["what?", "user: assistant:", "", "{question}", "two\nlines", " blanks ", "a <image> b"],
)
@pytest.mark.parametrize(
    "text",
    [
        "user: <image> {question} assistant:",
        "{question} <image>",
        "<image>{question}",
        "{question}<image>!",
    ],
)
def test_the_question_is_found_by_its_characters_and_the_image_by_its_place(question, text):
    tokenizer, made = encoded(question, text)
    whole = text.replace("<image>", "<image>" * 3, 1).replace("{question}", question, 1)
    assert shown(tokenizer, made.ids) == "<s>" + whole
    assert shown(tokenizer, made.ids[made.question]) == question
    assert made.visual.sum() == 3
    assert (made.ids[made.visual] == IMAGE).all()
    assert not (made.visual & made.question).any()
    places = made.visual.nonzero().flatten().tolist()
    assert places == list(range(places[0], places[0] + 3))
    offset = len(text.split("<image>")[0].replace("{question}", "")) + 1
    before = text.index("{question}") < text.index("<image>")
    inside = int(made.question.sum()) if before else 0
    assert places[0] == offset + inside


def test_an_image_mark_in_the_question_is_text_and_shows_no_image(toy, images):
    backbone = toy()
    features = backbone.encode(backbone.pixel_values(images[:1]))[0]
    made = backbone.prompt("is <image> here?", features)
    assert made.visual.sum() == 16
    assert (made.ids == backbone.image_token_id).sum() == 17
    embedded = backbone.embed(made)
    table = backbone.language_model.get_input_embeddings().weight
    mark = ((made.ids == backbone.image_token_id) & ~made.visual).nonzero().item()
    assert torch.equal(embedded[mark], table[backbone.image_token_id])
    assert torch.equal(embedded[made.visual], features)


def test_embeddings_are_the_tables_rows_with_the_features_in_their_places(toy, images):
    backbone = toy()
    features = backbone.encode(backbone.pixel_values(images[:1]))[0]
    made = backbone.prompt("what is it?", features)
    embedded = backbone.embed(made)
    table = backbone.language_model.get_input_embeddings().weight
    used = iter(features)
    for place, (token, visual) in enumerate(
        zip(made.ids.tolist(), made.visual.tolist(), strict=True)
    ):
        assert torch.equal(embedded[place], next(used) if visual else table[token])
    assert next(used, None) is None


def test_a_placeholder_need_not_be_in_the_vocabulary(toy, images):
    from dataclasses import replace

    backbone = replace(toy(), image_token_id=-200)
    features = backbone.encode(backbone.pixel_values(images[:1]))[0]
    odd = backbone.prompt_from_ids([1, 20, *[-200] * 16, 30], features)
    usual = toy().prompt_from_ids([1, 20, *[4] * 16, 30], features)
    assert torch.equal(backbone.embed(odd), toy().embed(usual))
    assert odd.visual.tolist() == usual.visual.tolist()


def test_all_text_after_the_image_of_ready_ids_counts_as_the_question(toy):
    made = toy().prompt_from_ids([1, 20, 4, 4, 30, 31], torch.zeros(2, 32))
    assert made.question.tolist() == [False] * 4 + [True] * 2
    assert toy().prompt_from_ids([1, 20], None).question.tolist() == [True, True]


@pytest.mark.parametrize(
    "text", ["no places", "<image> only", "{question} only", "<image> <image> {question}"]
)
def test_a_template_needs_one_image_and_one_question(text):
    with pytest.raises(UserError, match="cannot be used") as error:
        Template(text)
    assert "<image> once and {question} once" in error.value.why


def test_a_tokenizer_that_does_not_know_the_image_mark_is_refused():
    with pytest.raises(UserError, match="0 images instead of one"):
        Template("<image> {question}").encode(
            toy_tokenizer(), "a", image_token_id=77, image_tokens=3
        )


def test_special_tokens_are_left_out_where_the_template_holds_its_own():
    tokenizer = toy_tokenizer()
    text = Template("<s>a <image> {question}", special_tokens=False)
    made = text.encode(tokenizer, "b", image_token_id=IMAGE, image_tokens=1)
    assert shown(tokenizer, made.ids) == "<s>a <image> b"
    assert shown(tokenizer, made.ids[made.question]) == "b"


def test_a_training_answer_ends_as_the_template_says():
    tokenizer = toy_tokenizer()
    template = Template("<image> {question}", before_answer=" ", after_answer="</s>")
    ids = template.encode_answer(tokenizer, "yes")
    assert tokenizer.convert_ids_to_tokens(ids) == [" ", "y", "e", "s", "</s>"]
