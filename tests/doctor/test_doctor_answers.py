"""Known answers: what tiny models say here, how sure they are of it, and what a change does."""

import pytest

from medbench.doctor import answer
from medbench.doctor.answer import KNOWN, TOKENS, answer_of_tiny, check_known_answers, drawn
from medbench.plugins import find

# The best token is ahead of the second by more than any machine's rounding in float32.
AHEAD = 0.01


def test_every_backbone_has_a_known_answer():
    assert set(KNOWN) == {plugin.name for plugin in find("backbone")}
    assert all(len(tokens) == TOKENS for tokens in KNOWN.values())


@pytest.mark.parametrize("name", KNOWN)
def test_a_tiny_model_answers_as_elsewhere_and_is_sure(name, tmp_path):
    given = answer_of_tiny(name, tmp_path)
    assert tuple(given.token_ids) == KNOWN[name]
    best = given.scores.topk(2).values
    assert float((best[:, 0] - best[:, 1]).min()) > AHEAD


@pytest.mark.parametrize("name", KNOWN)
def test_the_image_and_the_weights_decide_the_answer(name, tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.setattr(answer, "drawn", lambda: Image.new("RGB", (48, 36)))
    assert tuple(answer_of_tiny(name, tmp_path).token_ids) != KNOWN[name]


def test_another_question_is_answered_otherwise(tmp_path, monkeypatch):
    monkeypatch.setattr(answer, "QUESTION", "Is it normal?")
    for name in KNOWN:
        (tmp_path / name).mkdir()
        assert tuple(answer_of_tiny(name, tmp_path / name).token_ids) != KNOWN[name]


def test_the_drawn_image_is_no_square_and_always_the_same():
    import hashlib

    image = drawn()
    assert image.size == (48, 36)
    # The sum is of the bytes that the known answers were given for.
    assert hashlib.sha256(image.tobytes()).hexdigest().startswith("669ade7867511022d4dd3e66b9dc8f")


def test_all_are_as_elsewhere():
    (found,) = check_known_answers()
    assert found.state == "good"
    assert all(name in found.what for name in KNOWN)


def test_another_answer_is_a_problem_that_shows_both(monkeypatch):
    monkeypatch.setitem(KNOWN, "toy", (1, 2, 3, 4, 5, 6, 7, 8))
    found = list(check_known_answers())
    (problem,) = [one for one in found if one.state == "problem"]
    assert "the tiny toy answers [10, 78," in problem.what
    assert "instead of [1, 2, 3, 4, 5, 6, 7, 8]" in problem.what
    assert "constraints.txt" in problem.do
    assert "toy" not in next(one for one in found if one.state == "good").what


def test_a_package_that_fails_is_named_and_the_others_are_asked(elsewhere):
    # None makes Python find no module of that name.
    code = (
        "import sys; sys.modules['google.protobuf'] = None\n"
        "from medbench.doctor.answer import check_known_answers\n"
        "for one in check_known_answers(): print(one.state, one.what)"
    )
    done = elsewhere("-c", code)
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["problem", "problem", "good"], done.stderr
    assert all("the tiny llava_med" in line and "protobuf" in line for line in lines[:2])
    assert lines[2].endswith("toy, phantom, llava_hf, huatuogpt_vision_7b")
