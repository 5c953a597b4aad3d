import numpy as np
import pytest
import torch
from PIL import Image

import medbench
from medbench import UserError
from medbench.method import Decoder


def texts(answers):
    return [answer.token_ids for answer in answers]


def test_ready_ids_and_pixels_give_the_answers_of_images_and_prompts(toy, images, questions):
    backbone = toy()
    pixels = backbone.pixel_values(images)
    prompts = [
        backbone.prompt(question, features)
        for question, features in zip(questions, backbone.encode(pixels), strict=True)
    ]
    ids = [prompt.ids.tolist() for prompt in prompts]
    for method in ("greedy", "vcd", "shuffled"):
        options = {"method": method, "max_new_tokens": 8, "batch_size": 3}
        expected = texts(medbench.generate(backbone, images=images, prompts=questions, **options))
        for inputs in (
            {"input_ids": ids, "pixel_values": pixels},
            {"input_ids": ids, "images": images},
            {"prompts": questions, "pixel_values": pixels},
        ):
            assert texts(medbench.generate(backbone, **inputs, **options)) == expected


def test_a_branch_takes_the_tensor_it_is_given_and_its_own_rows_of_it(toy, images, questions):
    backbone = toy()
    pixels = backbone.pixel_values(images)
    noised = pixels.flip(-1)
    decoded = [
        texts(
            medbench.generate(
                backbone,
                method="vcd",
                images=images,
                prompts=questions,
                branch_tensors={"noised": noised},
                max_new_tokens=16,
                batch_size=size,
            )
        )
        for size in (1, 3, 8)
    ]
    assert decoded[0] == decoded[1] == decoded[2]
    own = medbench.generate(
        backbone, method="vcd", images=images, prompts=questions, max_new_tokens=16
    )
    assert texts(own) != decoded[0]


def test_a_decoder_object_is_as_good_as_its_spec(toy, images, questions):
    from medbench.decoding.generate import create_decoder

    options = {"images": images, "prompts": questions, "max_new_tokens": 8}
    by_name = medbench.generate(toy(), method="VCD[alpha=0.5]", **options)
    by_object = medbench.generate(toy(), method=create_decoder("vcd[alpha=0.5]"), **options)
    assert texts(by_name) == texts(by_object)


def test_selection_given_in_the_call_wins(toy, images, questions):
    options = {"images": images, "prompts": questions, "max_new_tokens": 8}
    assert texts(medbench.generate(toy(), method="greedy", beams=5, **options)) == texts(
        medbench.generate(toy(), method="beam", **options)
    )
    drawn = medbench.generate(toy(), method="vcd", preset="published", **options)
    assert texts(drawn) == texts(medbench.generate(toy(), method="vcd", select="sample", **options))
    assert texts(drawn) != texts(medbench.generate(toy(), method="vcd", **options))
    argmax = medbench.generate(toy(), method="vcd", preset="published", select="argmax", **options)
    assert texts(argmax) == texts(medbench.generate(toy(), method="vcd", **options))


def test_scores_are_recorded_for_as_many_steps_as_asked_for(toy, images, questions):
    options = {"images": images[:2], "prompts": questions[:2], "max_new_tokens": 6}
    vocabulary = len(toy().tokenizer)
    for method, shape in (("greedy", (3, vocabulary)), ("beam", (3, 5, vocabulary))):
        recorded = medbench.generate(toy(), method=method, record_scores=3, **options)
        assert all(answer.scores.shape == shape for answer in recorded)
        assert all(answer.scores.device.type == "cpu" for answer in recorded)
    assert medbench.generate(toy(), **options)[0].scores is None
    beams = medbench.generate(toy(), method="beam", record_scores=2, **options)[0].scores
    assert torch.allclose(beams.exp().sum(-1), torch.ones(2, 5), atol=1e-5)


def test_text_alone_needs_no_image(toy):
    ids = [[1, 20, 21, 22], [1, 30]]
    both = medbench.generate(toy(), input_ids=ids, max_new_tokens=8)
    alone = [medbench.generate(toy(), input_ids=[one], max_new_tokens=8)[0] for one in ids]
    assert texts(both) == texts(alone)


def test_no_samples_give_no_answers(toy):
    assert medbench.generate(toy(), images=[], prompts=[]) == []
    assert medbench.generate(toy(), input_ids=[]) == []


IMAGE = Image.fromarray(np.zeros((16, 16, 3), dtype=np.uint8))
IDS = [1, 20, *[4] * 16, 30]


@pytest.mark.parametrize(
    ("inputs", "what"),
    [
        ({"images": [IMAGE], "prompts": ["a", "b"]}, "inputs of different lengths"),
        ({"images": [IMAGE], "prompts": ["a"], "ids": ["x", "y"]}, "inputs of different lengths"),
        ({"images": [IMAGE], "prompts": ["a"], "rois": [None] * 2}, "inputs of different lengths"),
        (
            {
                "images": [IMAGE],
                "prompts": ["a"],
                "method": "vcd",
                "branch_tensors": {"noised": torch.zeros(2, 3, 16, 16)},
            },
            "inputs of different lengths",
        ),
        ({"prompts": ["a"]}, "no images"),
        ({"images": [IMAGE]}, "nothing to decode"),
        ({}, "nothing to decode"),
        ({"images": [IMAGE], "prompts": ["a"], "input_ids": [IDS]}, "prompts and input_ids"),
        (
            {"images": [IMAGE], "pixel_values": torch.zeros(1, 3, 16, 16), "prompts": ["a"]},
            "images and pixel_values",
        ),
        ({"input_ids": [IDS[:9]], "images": [IMAGE]}, "sample 0: 7 image positions, 16 features"),
        ({"input_ids": [IDS]}, "sample 0: 16 image positions, 0 features"),
        ({"input_ids": [[1, 20]], "method": "vcd"}, "vcd cannot run here"),
        ({"images": [IMAGE], "prompts": ["a"], "method": "shuffled"}, "shuffled needs"),
        ({"images": [IMAGE], "prompts": ["a"], "method": "lora"}, "'lora' is not a decoder"),
        ({"images": [IMAGE], "prompts": ["a"], "method": "lora+vcd"}, "is not a decoder alone"),
        ({"images": [IMAGE], "prompts": ["a"], "method": "gredy"}, "no method named 'gredy'"),
        ({"images": [IMAGE], "prompts": ["a"], "method": "vcd[alhpa=1]"}, "no parameter 'alhpa'"),
        ({"images": [IMAGE], "prompts": ["a"], "preset": "fair"}, "no preset 'fair'"),
        ({"images": [IMAGE], "prompts": ["a"], "beams": 0}, "cannot select tokens"),
        ({"images": [IMAGE], "prompts": ["a"], "select": "best"}, "cannot select tokens"),
        ({"images": [IMAGE], "prompts": ["a"], "temperature": -1.0}, "cannot select tokens"),
        ({"images": [IMAGE], "prompts": ["a"], "max_new_tokens": 0}, "max_new_tokens"),
        ({"images": [IMAGE], "prompts": ["a"], "batch_size": 0}, "batch_size"),
    ],
)
def test_a_wrong_call_is_answered_with_what_is_wrong(toy, inputs, what):
    with pytest.raises(UserError) as error:
        medbench.generate(toy(), **{"max_new_tokens": 2} | inputs)
    assert what in error.value.what


def test_a_method_whose_needs_are_not_offered_is_refused_before_anything_runs(toy):
    class Hungry(Decoder):
        name = "hungry"
        needs = ("roi", "attention", "depth")

        def prepare(self, prompts, context):
            raise AssertionError("ran")

    with pytest.raises(UserError) as error:
        medbench.generate(toy(), method=Hungry(), images=[IMAGE], prompts=["a"])
    assert error.value.why.startswith("It needs roi, depth;")
    with pytest.raises(UserError) as error:
        medbench.generate(toy(), method=Hungry(), images=[IMAGE], prompts=["a"], rois=[None])
    assert error.value.why.startswith("It needs depth;")


def test_a_decoder_sees_the_samples_of_its_batch(toy, images, questions):
    seen = []

    class Curious(Decoder):
        name = "curious"

        def prepare(self, prompts, context):
            seen.append(context)
            return prompts

        def branches(self, prompts, context):
            return {"again": prompts}

        def combine(self, logits, step):
            assert list(logits) == ["main", "again"]
            assert logits["main"].dtype == torch.float32
            assert torch.allclose(logits["main"], logits["again"], atol=1e-5)
            return logits["main"]

    rois = [np.full((4, 4), bool(index % 2)) for index in range(8)]
    names = [f"s{index}" for index in range(8)]
    answers = medbench.generate(
        toy(),
        method=Curious(),
        images=images,
        prompts=questions,
        rois=rois,
        ids=names,
        seed=9,
        batch_size=5,
        max_new_tokens=4,
        branch_tensors={"extra": torch.arange(8)},
    )
    plain = medbench.generate(toy(), images=images, prompts=questions, max_new_tokens=4)
    assert texts(answers) == texts(plain)
    assert [context.ids for context in seen] == [tuple(names[:5]), tuple(names[5:])]
    assert [context.seed for context in seen] == [9, 9]
    assert seen[1].tensors["extra"].tolist() == [5, 6, 7]
    assert all(a is b for a, b in zip(seen[1].rois, rois[5:], strict=True))
    assert torch.equal(seen[1].pixel_values, toy().pixel_values(images[5:]))


def snapshot(backbone):
    """Everything about a model that a run could leave changed."""
    state = {}
    for part in ("language_model", "vision_tower", "projector"):
        for name, module in getattr(backbone, part).named_modules():
            # Bound methods are new objects at each look; compare what they are bound from.
            state[part, name] = (
                id(module),
                type(module).forward,
                dict(vars(module)).get("forward"),
                [list(hooks) for key, hooks in vars(module).items() if key.endswith("_hooks")],
                module.training,
                sorted(vars(module)),
            )
        for name, weight in getattr(backbone, part).named_parameters():
            state[part, name, "weight"] = (
                id(weight), weight._version, weight.requires_grad, weight.grad
            )  # fmt: skip
    state["config"] = backbone.language_model.config.to_json_string(use_diff=False)
    state["attention"] = backbone.language_model.config._attn_implementation
    return state


@pytest.mark.parametrize("method", ["greedy", "beam", "nucleus", "vcd[select=sample]", "blind"])
def test_nothing_is_left_behind(toy, images, questions, method):
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    backbone = toy()
    medbench.generate(toy(), images=images[:1], prompts=["a"], max_new_tokens=1)
    functions = {name: ALL_ATTENTION_FUNCTIONS[name] for name in ALL_ATTENTION_FUNCTIONS}
    before = snapshot(backbone)
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002 - the global state itself is what is tested
    drawn = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    grad = torch.is_grad_enabled()
    medbench.generate(
        backbone,
        method=method,
        images=images,
        prompts=questions,
        max_new_tokens=4,
        record_attention=True,
    )
    assert snapshot(backbone) == before
    assert torch.equal(torch.get_rng_state(), drawn[0])
    assert (np.random.get_state()[1] == drawn[1]).all()  # noqa: NPY002
    assert torch.is_grad_enabled() == grad
    assert {name: ALL_ATTENTION_FUNCTIONS[name] for name in functions} == functions


def test_an_answer_keeps_no_graph(toy, images, questions):
    answer = medbench.generate(
        toy(), images=images[:1], prompts=["a"], max_new_tokens=2, record_scores=2
    )[0]
    assert not answer.scores.requires_grad
