"""Spec strings: what they parse to, grids, quotes, and what is refused."""

import pytest

from medbench.errors import UserError
from medbench.spec import Spec, expand, normalise, parse, parse_chain, parse_list, split


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vcd", Spec("vcd")),
        ("  LLaVA-Med-1.5 ", Spec("llava_med_1.5")),
        ("vcd[]", Spec("vcd")),
        (
            "vcd[alpha=0.5, Noise-Step = 700]",
            Spec("vcd", (("alpha", "0.5"), ("noise_step", "700"))),
        ),
        ("toy[text=]", Spec("toy", (("text", ""),))),
        ('x[path="/a, b/c[1]+d"]', Spec("x", (("path", "/a, b/c[1]+d"),))),
        ("x[path='say \"no\"']", Spec("x", (("path", 'say "no"'),))),
        ("x[expression=a=b]", Spec("x", (("expression", "a=b"),))),
    ],
)
def test_parse(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    ["vcd", "vcd[alpha=0.5]", 'x[path="/a, b/c[1]+d"]', "x[path='\",\"']", 'x[path=" a "]'],
)
def test_a_spec_written_down_reads_back(text):
    assert str(parse(text)) == text
    assert parse(str(parse(text))) == parse(text)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "no name"),
        ("[alpha=1]", "no name"),
        ("v c d", "'v c d' is not a name"),
        ("vcd[alpha=1", "not closed"),
        ("vcd[alpha=1]x", "not closed at the end"),
        ("vcd[alpha]", "'alpha' is not param=value"),
        ("vcd[=1]", "'=1' is not param=value"),
        ("vcd[alpha=1,ALPHA=2]", "'alpha' is given twice"),
        ("vcd[alpha='1]", "a quote ' is not closed"),
    ],
)
def test_what_is_malformed_says_why(text, part):
    with pytest.raises(UserError) as caught:
        parse_chain(text)
    assert part in caught.value.why
    assert caught.value.do


def test_a_bracket_that_closes_nothing():
    with pytest.raises(UserError, match="cannot read"):
        split("vcd]", ",")


def test_chains_keep_their_order():
    assert parse_chain("lora[rank=8] + vcd") == (Spec("lora", (("rank", "8"),)), Spec("vcd"))


def test_lists_split_outside_brackets_only():
    assert parse_list("vcd[alpha=1,beta=0.2],lora+pai") == ["vcd[alpha=1,beta=0.2]", "lora+pai"]


def test_a_grid_unfolds_in_the_order_written():
    assert parse_list("a[x=1|2,y=u|v]+b[z=3|4]") == [
        f"a[x={x},y={y}]+b[z={z}]" for x in "12" for y in "uv" for z in "34"
    ]
    assert list(expand("greedy")) == ["greedy"]


def test_names_ignore_case_and_dashes():
    assert normalise(" VQA-RAD ") == "vqa_rad"
