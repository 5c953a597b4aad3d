"""Questions: every answer is found again in the masks, and answers are balanced."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest

from medbench.phantom.draw import lesion_mask, organ_mask, region_mask
from medbench.phantom.questions import CLOSED, KINDS, PHRASINGS, TRAINED_PHRASINGS, Question, ask
from medbench.phantom.splits import SPLITS, Item, items, pool
from medbench.phantom.stream import Stream
from medbench.phantom.world import LESIONS, ORGAN_NAMES, SIZE, STYLES, Scene, lay_out


@pytest.fixture(scope="module")
def everything() -> dict[str, list[Item]]:
    return {name: list(items(split)) for name, split in SPLITS.items()}


def named(text: str, names: tuple[str, ...]) -> list[str]:
    """Return the names that stand in a text, in the order they stand there."""
    return sorted((name for name in names if name in text), key=text.index)


def lesion_at(scene: Scene, organ: str) -> str:
    """Return the type of the lesion whose mask lies in an organ's mask, or ""."""
    inside = organ_mask(scene, organ)
    for lesion in scene.lesions:
        if inside[lesion_mask(lesion)].mean() > 0.5:
            return lesion.type
    return ""


def expected(scene: Scene, question: Question) -> str:
    """Answer a question from its words and the masks alone."""
    organs = named(question.text, ORGAN_NAMES)
    types = named(question.text, LESIONS)
    shown = [name for name in ORGAN_NAMES if organ_mask(scene, name).any()]
    here = {name: lesion_at(scene, name) for name in shown}
    places = [name for name in shown if types and here[name] == types[0]]
    match question.kind:
        case "exist":
            return "yes" if here[organs[0]] == types[0] else "no"
        case "organ":
            return "yes" if organs[0] in shown else "no"
        case "normal":
            return "no" if here[organs[0]] else "yes"
        case "any":
            return "yes" if places else "no"
        case "region":
            return {"heart": "chest", "liver": "abdomen"}.get(
                next((n for n in shown if n in ("heart", "liver")), ""), "brain"
            )
        case "what":
            return here[organs[0]] or "nothing"
        case "where":
            (place,) = places
            return place
        case "size" | "type_size":
            organ = organs[0] if organs else places[0]
            (lesion,) = [x for x in scene.lesions if x.organ == organ]
            return "large" if lesion_mask(lesion).sum() > 90 else "small"
        case "count":
            return ("zero", "one", "two", "three")[sum(bool(found) for found in here.values())]
        case "choice":
            (answer,) = [name for name in types if name == here[organs[0]]]
            return answer
        case "height":
            (lesion,) = [x for x in scene.lesions if x.type == types[0]]
            rows = np.nonzero(lesion_mask(lesion))[0]
            return "upper" if rows.mean() < SIZE / 2 else "lower"
        case _:
            raise AssertionError(question.kind)


@pytest.mark.parametrize("name", ["reference_validation", "validation"])
def test_answers_are_found_again_in_the_masks(everything: dict[str, list[Item]], name: str) -> None:
    for item in everything[name]:
        assert expected(item.scene, item.question) == item.question.answer, item


def test_reports_name_every_organ_and_lesion(everything: dict[str, list[Item]]) -> None:
    for item in everything["reports"]:
        text = item.question.answer
        assert text.startswith(f"{item.scene.region} .")
        for organ in item.scene.organs:
            found = [x for x in item.scene.lesions if x.organ == organ.name]
            finding = f"{found[0].size} {found[0].type}" if found else "normal"
            assert f". {organ.name} {finding} ." in text
        assert len(text.split()) < 24


def test_lookups_are_answered_from_the_scene() -> None:
    stream = Stream(2)
    answers = Counter[str]()
    for scene in pool(0, 200):
        asked = ask(scene, "finding", stream, phrasing=0, want=0.1)
        assert asked is not None
        (organ,) = named(asked.text, ORGAN_NAMES)
        here = lesion_at(scene, organ)
        assert asked.answer == "normal" if not here else asked.answer.endswith(here)
        asked = ask(scene, "place", stream, phrasing=0, want=stream.random())
        if asked is not None:
            (lesion_type,) = named(asked.text, LESIONS)
            places = [x.organ for x in scene.lesions if x.type == lesion_type]
            assert asked.answer.endswith(places[0] if places else "nothing")
            answers[asked.answer] += 1
    assert 0 < answers["nothing"] < 0.6 * answers.total()


def test_every_kind_has_phrasings_and_a_new_one() -> None:
    assert len(KINDS) == 12
    texts = [text for texts in PHRASINGS.values() for text in texts]
    assert len(set(texts)) == len(texts)
    for kind in KINDS:
        assert len(PHRASINGS[kind]) == TRAINED_PHRASINGS + 1


@pytest.mark.parametrize("name", ["train", "validation", "test", "reference"])
def test_kinds_and_answers_are_balanced(everything: dict[str, list[Item]], name: str) -> None:
    answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for item in everything[name]:
        answers[item.question.kind][item.question.answer] += 1
    kinds = [sum(counts.values()) for counts in answers.values()]
    assert len(kinds) == 12
    assert max(kinds) - min(kinds) <= 1
    for kind in (*CLOSED, "size", "type_size", "height", "count"):
        counts = answers[kind].values()
        assert max(counts) - min(counts) <= 8, (kind, answers[kind])
    assert max(answers["what"].values()) < 0.3 * kinds[0]
    assert max(answers["where"].values()) < 0.2 * kinds[0]


def test_words_give_little_away(everything: dict[str, list[Item]]) -> None:
    yes: defaultdict[tuple[str, str], list[bool]] = defaultdict(list)
    for item in everything["train"] + everything["test"]:
        if item.question.kind in CLOSED:
            for word in named(item.question.text, (*LESIONS, *ORGAN_NAMES)):
                yes[item.question.kind, word].append(item.question.answer == "yes")
    for answers in yes.values():
        assert 0.25 < np.mean(answers) < 0.75


def test_splits_are_disjoint(everything: dict[str, list[Item]]) -> None:
    seeds = {name: {item.scene.seed for item in found} for name, found in everything.items()}
    total = set[int]().union(*seeds.values())
    assert len(total) == sum(len(found) for found in seeds.values())
    assert max(total) < min(scene.seed for scene in pool(0, 5))
    assert not {s.seed for s in pool(0, 50)} & {s.seed for s in pool(1, 50)}
    ids = [item.id for found in everything.values() for item in found]
    assert len(set(ids)) == len(ids)


def test_the_test_splits_are_large_enough(everything: dict[str, list[Item]]) -> None:
    assert len(everything["test"]) >= 2000
    assert len(everything["reference"]) >= 2000


def test_new_phrasings_are_downstream_only(everything: dict[str, list[Item]]) -> None:
    def share(name: str) -> float:
        found = everything[name]
        return sum(i.question.phrasing == TRAINED_PHRASINGS for i in found) / len(found)

    assert share("reference") == 0
    assert 0.1 < share("test") < 0.2


def test_a_roi_is_never_empty_and_holds_the_lesion(everything: dict[str, list[Item]]) -> None:
    for item in everything["validation"][:200]:
        question = item.question
        assert region_mask(item.scene, question.organs, question.lesions).any()
        assert question.organs or question.lesions


def test_a_question_that_cannot_be_asked_is_none() -> None:
    empty = next(s for s in (lay_out(n, STYLES["reference"]) for n in range(99)) if not s.lesions)
    for kind in ("where", "size", "type_size", "choice", "height"):
        assert ask(empty, kind, Stream(1), phrasing=0, want=0.2) is None
    assert ask(empty, "normal", Stream(1), phrasing=0, want=0.9) is None
