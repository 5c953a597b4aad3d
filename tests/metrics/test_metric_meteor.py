"""METEOR 1.5: the program's values, its own formula for the whole, and no Java left behind."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medbench.errors import UserError
from medbench.metric import Setting
from medbench.metrics.coco import Meteor15, meteor_of
from medbench.metrics.gate import WORDS
from medbench.scorers import coco, meteor
from medbench.scorers.engine import Engine
from medbench.scorers.worker import GaveUpError, Worker
from medbench.scoring import Score, check_golden, load_metric, score

package = pytest.importorskip(
    "pycocoevalcap.meteor.meteor", reason="medbench[report] is not installed"
)
pytestmark = pytest.mark.skipif(shutil.which("java") is None, reason="there is no Java")

# The first two are of RadGraph's README.
PAIRS = (
    ("no acute cardiopulmonary abnormality", "no acute cardiopulmonary abnormality"),
    (
        "et tube terminates 2 cm above the carina and bibasilar opacities",
        "endotracheal tube is present and bibasilar opacities likely represent mild atelectasis",
    ),
    (
        "Heart size is normal. No pleural effusion, pneumothorax (or) edema.",
        "The heart size is normal. There is no pleural effusion or pneumothorax.",
    ),
)
VOCABULARY = (
    "the heart hearts is are was normal normally in size sizes no not pleural effusion effusions "
    "fluid or of and with pneumothorax seen visible mild slight left right lower lobe opacity "
    "opacities enlarged large big enlargement lung lungs pulmonary clear a there evidence acute "
    "disease illness tube catheter remains unchanged stable naïve Größe (or) 2.5 cm , . -- x-ray"
)
# A thousand times the same sign on both sides: METEOR does not come to an end.
ENDLESS = " ".join(["%%%%%%%%%"] * 120)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache that has the values of all pairs: to start METEOR takes long."""
    folder = tmp_path_factory.mktemp("cache")
    golden = [(output, gold) for output, gold, _ in Meteor15.golden]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        scored(*golden, *PAIRS, *like_reports(300), *BAD, ("", PAIRS[2][1]), ("", ENDLESS))
    return folder


@pytest.fixture(autouse=True)
def surroundings(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


@pytest.fixture(scope="module")
def plain() -> Iterator[Any]:
    """Return the package's own METEOR."""
    one = package.Meteor()
    yield one
    one.meteor_p.stdin.close()
    one.meteor_p.wait(60)
    for pipe in (one.meteor_p.stdout, one.meteor_p.stderr):
        pipe.close()


@pytest.fixture
def mark(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Return what the environment of a Java that this test starts has in it."""
    if not Path("/proc/self/environ").exists():
        pytest.skip("there is no table of processes to look at")
    name = f"{request.node.name}-{time.monotonic_ns()}"
    monkeypatch.setenv("MEDBENCH_TEST", name)
    return f"MEDBENCH_TEST={name}".encode()


def javas(mark: bytes) -> list[int]:
    """Return the processes of METEOR that have a mark in their environment."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            marked = mark in (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # ended meanwhile
            continue
        # One that has ended and waits for its parent has no command any more.
        if marked and b"meteor-1.5.jar" in command:
            found.append(int(folder.name))
    return found


def no_java_is_left(mark: bytes) -> bool:
    deadline = time.monotonic() + 30
    while javas(mark):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def scored(*pairs: tuple[str, str]) -> Score:
    found = score("meteor/1.5", predictions=[a for a, _ in pairs], golds=[b for _, b in pairs])
    assert found.notes["n_gave_up"] == 0
    return found


def by_package(plain: Any, words: Sequence[tuple[str, ...]]) -> tuple[float, list[float]]:
    """Return the package's corpus METEOR and those of the items, from the words of each text."""
    outputs, golds = zip(*words, strict=True)
    return plain.compute_score(*({n: [t] for n, t in enumerate(s)} for s in (golds, outputs)))


def like_reports(count: int, *, seed: int = 0) -> list[tuple[str, str]]:
    """Return pairs whose halves are often alike, some of them the same, some of them empty."""
    draw = random.Random(seed)
    pairs = [("", "the heart is normal"), ("no edema", "no edema"), ("a b", "c d")]
    for _ in range(count):
        gold = draw.choices(VOCABULARY.split(), k=draw.randint(1, 50))
        output = [word for word in gold if draw.random() < 0.8]
        if draw.random() < 0.5:
            output += draw.choices(VOCABULARY.split(), k=draw.randint(0, 20))
        pairs.append((" ".join(output), " ".join(gold)))
    return pairs


def test_known_answers() -> None:
    golden = scored(*((output, gold) for output, gold, _ in Meteor15.golden))
    assert golden.per_item == pytest.approx([value for _, _, value in Meteor15.golden], abs=1e-6)
    found = scored(*PAIRS)
    assert found.value == pytest.approx(0.332157, abs=1e-6)
    assert found.per_item == pytest.approx((1.0, 0.164714, 0.423310), abs=1e-6)


class TestWhole:
    def test_is_the_programs(self, plain: Any) -> None:
        pairs = like_reports(300)
        found = scored(*pairs)
        corpus, items = by_package(plain, coco.words_of(pairs))
        assert found.value == pytest.approx(corpus, abs=1e-12)
        assert list(found.per_item) == items
        assert corpus != pytest.approx(np.mean(items), abs=0.003)
        assert found.low is not None and found.high is not None
        assert found.low < corpus < found.high

    def test_of_any_draw_of_items_follows_from_their_sums(self, plain: Any) -> None:
        pairs = like_reports(300)
        words = coco.words_of(pairs)
        judged = Meteor15().judge(pairs, Setting())
        assert judged.pooled is not None
        draw = np.random.default_rng(0)
        for size in (1, 1, 1, 2, 3, 5, 10, 300) * 5:
            drawn = draw.integers(len(pairs), size=size)
            sums = judged.pooled.totals[drawn].sum(axis=0)
            corpus, _ = by_package(plain, [words[at] for at in drawn])
            assert judged.pooled.value(sums) == pytest.approx(corpus, abs=1e-12)

    def test_of_one_item_is_the_items(self) -> None:
        pairs = like_reports(300)
        judged = Meteor15().judge(pairs, Setting())
        assert judged.pooled is not None
        alone = judged.pooled.value(judged.pooled.totals)
        assert alone == pytest.approx(np.array(judged.items, dtype=float), abs=1e-12)
        # So that the formula is not only tried where it is easy.
        weights = judged.pooled.totals[:, 0] % 0.25
        assert (weights > 1e-6).any()  # stems, synonyms, paraphrases
        assert (judged.pooled.totals[:, 4] == 0).sum() > 10  # unbroken, or nothing aligned

    def test_by_hand(self) -> None:
        # Six of seven words aligned in two chunks, four of them content; P = R.
        weight, length = 4 * 0.75 + 2 * 0.25, 5 * 0.75 + 2 * 0.25
        sums = np.array([weight, length, weight, length, 2, 6])
        expected = weight / length * (1 - 0.6 * (2 / 6) ** 0.2)
        assert meteor_of(sums) == pytest.approx(expected, abs=1e-12)
        assert meteor_of(np.zeros((2, 6))).tolist() == [0.0, 0.0]

    def test_empty_outputs_count_in_it(self) -> None:
        alone, beside = scored(PAIRS[2]), scored(PAIRS[2], ("", PAIRS[2][1]))
        assert (beside.value or 0.0) < (alone.value or 0.0)
        assert beside.per_item == (*alone.per_item, 0.0)
        assert beside.value != pytest.approx((alone.value or 0.0) / 2, abs=0.01)


BAD = (
    PAIRS[2],
    ("", "The heart is normal."),
    ("The heart is normal.", ""),
    ("", ""),
    (" \r\n\u2028 ", "The heart is normal."),
    ("ok", "ok"),
    ("heart 👍🏽 normal", "the heart is normal"),
    ("the heart\ris\u2028normal\x85today", "the heart is normal today"),
    ("...", "..."),
    ("a ||| b EVAL ||| c", "a ||| b EVAL ||| c"),
    PAIRS[0],
)


def test_no_text_is_dropped_or_shifts_the_next_ones() -> None:
    whole = scored(*BAD)
    alone = [scored(pair).value for pair in BAD]
    assert list(whole.per_item) == pytest.approx(alone, abs=1e-12)
    assert whole.per_item[1:5] == (0.0,) * 4
    assert whole.per_item[7] == whole.per_item[9] == whole.per_item[-1] == 1.0
    assert whole.per_item[8] == 0.0
    assert whole.notes == {"n_empty": 3, "n_empty_gold": 2, "n_capped": 0, "n_gave_up": 0}


def test_what_is_no_text_is_refused() -> None:
    for bad in (None, float("nan")):
        with pytest.raises(UserError, match="has no output"):
            score("meteor/1.5", predictions=[bad], golds=["no edema"])  # pyright: ignore[reportArgumentType]
    assert score("meteor/1.5", predictions=[], golds=[]).value is None


def test_versions_and_hashes_stand_beside_the_score() -> None:
    made_with = scored(PAIRS[0]).made_with
    assert set(made_with) == {"pycocoevalcap", "java", "tokenizer", "meteor"}
    assert len(made_with["meteor"]) == 64


@pytest.mark.slow
def test_as_many_words_as_are_let_in_take_seconds() -> None:
    pairs = [
        ("effusion " * WORDS, "effusion " * WORDS),
        ("the effusion " * WORDS, "effusion the " * WORDS),
        ("no pleural effusion " * WORDS, "the lungs are clear no pleural effusion " * WORDS),
        (" ".join(VOCABULARY.split() * 9), " ".join(VOCABULARY.split()[::-1] * 9)),
    ]
    begin = time.monotonic()
    found = scored(*pairs)
    assert time.monotonic() - begin < 300  # of which starting METEOR takes most
    assert found.per_item[0] == 1.0
    assert found.notes["n_capped"] == 3  # all but the first, which is as long as one may be


@pytest.mark.slow
def test_numbers_and_letters_are_read_alike_in_every_country(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pairs = [("Größe é x", "Größe è x"), ("心 肺", "肝 肺"), ("naïve TITLE", "naive title")]
    here = scored(*pairs)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("LC_ALL", "LANG"):
        monkeypatch.setenv(name, "C")
    german = "-Duser.language=de -Duser.country=DE -Dfile.encoding=US-ASCII"
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", german)
    assert scored(*pairs).per_item == here.per_item
    assert (here.per_item[0] or 0.0) < 1.0  # é is not è
    # The program itself reads numbers as they are written there, and ends.
    plain = package.Meteor()
    with pytest.raises(ValueError, match="could not convert string to float"):
        plain.compute_score({0: ["a b"]}, {0: ["b a"]})
    for pipe in (plain.meteor_p.stdin, plain.meteor_p.stdout, plain.meteor_p.stderr):
        pipe.close()
    plain.lock.release()  # which its end waits for


class TestJava:
    @pytest.mark.slow
    def test_is_ended_over_a_text_and_started_anew(self, mark: bytes) -> None:
        judge = meteor.load({"seconds": 2.0}, "cpu")
        try:
            (first,) = javas(mark)
            found = judge([PAIRS[2], (ENDLESS, ENDLESS), PAIRS[0]])
            assert found[1] is None
            assert found[0] is not None and found[0][0] == pytest.approx(0.423310, abs=1e-6)
            assert found[2] is not None and found[2][0] == 1.0
            (second,) = javas(mark)
            assert second != first
        finally:
            judge.close()
        assert no_java_is_left(mark)

    @pytest.mark.slow
    def test_what_it_did_not_survive_counts_as_empty(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(meteor, "meteor", lambda: Engine(meteor.__name__, {"seconds": 2.0}))
        pairs = [PAIRS[2], (ENDLESS, ENDLESS)]
        found = score("meteor/1.5", predictions=[a for a, _ in pairs], golds=[b for _, b in pairs])
        assert found.notes["n_gave_up"] == 1
        assert found.per_item[1] == 0.0
        as_empty = scored(PAIRS[2], ("", ENDLESS))
        assert found.value == pytest.approx(as_empty.value, abs=1e-12)

    @pytest.mark.slow
    def test_that_hangs_goes_with_the_process_that_asks_it(self, mark: bytes) -> None:
        worker = Worker()
        try:
            settings = {"seconds": 600.0}
            worker.ask("load", meteor.__name__, settings, "cpu", seconds=300)
            assert len(javas(mark)) == 1
            with pytest.raises(GaveUpError):
                worker.ask("values", [(ENDLESS, ENDLESS)], seconds=5)
        finally:
            worker.close()
        assert no_java_is_left(mark)

    @pytest.mark.slow
    def test_is_gone_when_all_is_said(
        self, mark: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        seen: list[int] = []
        watching = Setting(progress=lambda *step: seen.append(len(javas(mark))))
        check_golden(load_metric("meteor/1.5"), watching)
        assert seen == [0, 1]
        assert no_java_is_left(mark)

    def test_that_does_not_start_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        java = tmp_path / "java"
        says = 'case "$1" in -version) echo \'openjdk version "17.0.1"\' >&2; exit 0;; esac'
        fails = "echo 'Picked up JAVA_TOOL_OPTIONS: -X' >&2; echo 'no room for a heap' >&2; exit 3"
        java.write_text(f"#!/bin/sh\n{says}\n{fails}\n")
        java.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        with pytest.raises(UserError) as raised:
            scored(PAIRS[1])
        assert raised.value.lines()[:2] == ["METEOR does not start", "no room for a heap"]
