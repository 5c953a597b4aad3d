"""What `show` says of every decoder: defaults, variants, rows per token, memory - and is it so."""

import re

import numpy as np
import pytest

import medbench
from medbench import plugins
from medbench.decoding.generate import create_decoder

DECODERS = [p for p in plugins.find("method") if p.role == "decoder" and p.origin == "built-in"]
# Appendix B of the A3Tune paper, where it names a number.
COMPARED = {
    "beam": {"beams": 5},
    "nucleus": {"top_p": 0.9},
    "vcd": {"alpha": 1.0, "beta": 0.1, "noise_step": 500},
    "dola": {"repetition_penalty": 1.0},
    "opera": {
        "beams": 5,
        "scale_factor": 50.0,
        "threshold": 15,
        "num_attn_candidates": 5,
        "penalty_weights": 1.0,
    },
    "avisc": {"alpha": 1.0, "beta": 0.1, "blind_selector": "topk", "blind_topk": 10},
    "m3id": {"lamda": 0.02},
    "damro": {"alpha": 0.5, "beta": 0.1, "topk": 10},
    "pai": {"gamma": 1.1, "alpha": 0.2, "start_layer": 2},
    "controlmllm": {"beta": 0.5, "alpha": 400.0, "learning_rate": 4.0},
}


def shown(capsys, *words):
    from medbench.cli import main

    assert main(["show", *words]) == 0
    return capsys.readouterr().out


def test_every_decoder_of_the_paper_is_there():
    assert {plugin.name for plugin in DECODERS} >= COMPARED.keys() | {"greedy"}


@pytest.mark.parametrize("name", COMPARED)
def test_defaults_are_those_of_the_paper_under_comparison(name):
    decoder = create_decoder(name)
    assert {key: getattr(decoder, key) for key in COMPARED[name]} == COMPARED[name]
    assert create_decoder(f"{name}[variant=paper]") == decoder


def test_layers_default_to_the_paper_on_32_and_scale_below():
    from medbench.backbone import Depth

    def early(depth):
        return create_decoder("dola").reading(Depth(depth, 24)).readout.layers

    assert early(32) == early(28) == (0, 2, 4, 6, 8, 10, 12, 14)
    assert early(8) == (0, 2, 4, 6)
    assert early(4) == (0, 2)
    assert early(1) == early(2) == (0,)

    def edited(depth):
        return create_decoder("pai").reading(Depth(depth, 24)).edit.layers

    assert (edited(32), edited(4), edited(2), edited(1)) == (
        range(2, 32),
        range(2, 4),
        range(1, 2),
        range(0, 1),
    )


def test_the_rows_that_show_tells_are_those_that_run(toy, images, questions):
    rois = [np.ones((20, 20), dtype=bool)] * 2
    for plugin in DECODERS:
        told = re.match(r"\d+", plugin.attributes["rows_per_token"])
        assert told, plugin.name
        answers = medbench.generate(
            toy(ends=0),
            method=plugin.name,
            images=images[:2],
            prompts=questions[:2],
            rois=rois,
            max_new_tokens=6,
        )
        for answer in answers:
            new = len(answer.token_ids) - 1
            rows = int(told[0])
            if plugin.name == "opera":
                # One pass over every beam's candidates a token, the last token's included.
                assert answer.forwards == 1 + rows * 5 * (new + 1)
            elif rows == 5:
                assert answer.forwards == 1 + rows * new
            elif plugin.name == "controlmllm":
                # The prompt goes through once more a step, and these samples do not stop early.
                assert answer.forwards == create_decoder("controlmllm").steps + rows * (new + 1)
            else:
                assert answer.forwards == rows * (new + 1)


@pytest.mark.parametrize("name", [plugin.name for plugin in DECODERS])
def test_show_tells_rows_and_memory(name, capsys):
    text = shown(capsys, name)
    for line in ("rows per token", "extra memory", "parameters", "variant=paper", "repetition_pen"):
        assert (line in text) or (line == "parameters" and name in NO_PARAMETERS)
    if name == "opera":
        assert "one by one" in text


NO_PARAMETERS = {"greedy", "beam", "nucleus", "blind", "shuffled"}


def test_show_says_where_the_published_code_differs(capsys):
    assert "negative=clean, top_k=50" in shown(capsys, "vcd")
    assert "negative=image" in shown(capsys, "m3id")
    assert "uncond_prompt=question" in shown(capsys, "pai")
    assert "blind_selector=threshold" in shown(capsys, "avisc")
    assert "repetition_penalty=1.2" in shown(capsys, "dola")
    assert "only crashes and is not offered" in shown(capsys, "opera")
    assert "needs           image_span, attention, training, roi" in shown(capsys, "controlmllm")
