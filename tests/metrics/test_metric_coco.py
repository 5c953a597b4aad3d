"""BLEU-4 and ROUGE-L as captions are scored: the package's values, and none of its slips."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from medbench.errors import UserError
from medbench.metric import Setting
from medbench.metrics.coco import Bleu4Coco, bleu_of
from medbench.scorers import coco
from medbench.scoring import Score, check_golden, load_metric, score

ptb = pytest.importorskip(
    "pycocoevalcap.tokenizer.ptbtokenizer", reason="medbench[report] is not installed"
)
pytestmark = pytest.mark.skipif(shutil.which("java") is None, reason="there is no Java")

NAMES = ("bleu4/coco", "rougeL/coco")
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
REPORTS = (
    "The heart is normal in size. No pleural effusion, pneumothorax (or) edema.",
    "XXXX-year-old male; T1-weighted image shows a 1.5 x 2 1/2 cm mass [arrow] in the liver.",
    "1. Stable cardiomegaly. 2. Low lung volumes - likely atelectasis vs. early pneumonia.",
    "The patient's tube hasn't moved: it's 3cm above the carina... can't be excluded!",
    'Dr. Smith at 5 p.m. was told "no acute disease"; c.f. exam of 1/2/2010.',
    "Größe 3 µm, 5–10 %, ≥ 2 °C; naïve café; 心脏正常。 👍 ok",
    "<b>Normal</b> {chest} & lungs | heart/lungs #1 @ 5 $ 100 % * ~ ^ _ ___ == <x> a<b c>d",
    "''quoted'' ``text`` 'single' “double” ‘left’ don’t",
    "no. etc. fig. approx. Jan. U.S. e.g. Inc. St. A.",
    "...",
    "heart",
    "no edema",
)


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def scored(name: str, *pairs: tuple[str, str]) -> Score:
    return score(name, predictions=[a for a, _ in pairs], golds=[b for _, b in pairs])


def by_package(texts: Sequence[str]) -> dict[int, list[str]]:
    """Return the package's words of texts, as its scorers take them."""
    return ptb.PTBTokenizer().tokenize({at: [{"caption": t}] for at, t in enumerate(texts)})


def like_reports(count: int, *, seed: int = 0) -> list[tuple[str, str]]:
    """Return pairs whose halves are often alike, with an empty output among them."""
    draw = random.Random(seed)
    words = " ".join(REPORTS).split()
    pairs = [("", "The heart is normal.")]
    for _ in range(count):
        gold = draw.choice([*REPORTS, " ".join(draw.choices(words, k=draw.randint(1, 60)))])
        output = " ".join(word for word in gold.split() if draw.random() < 0.7)
        pairs.append((output or "no", gold))
    return pairs


class TestWords:
    def test_are_the_packages(self, capfd: pytest.CaptureFixture[str]) -> None:
        draw = random.Random(0)
        words = " ".join(REPORTS).split()
        texts = [*REPORTS, *(" ".join(draw.choices(words, k=30)) for _ in range(200)), "end"]
        ours = [found for (found,) in coco.words_of([(text,) for text in texts])]
        assert capfd.readouterr() == ("", "")
        # With an empty one between them texts do not disturb each other.
        between = [part for text in texts for part in (text, "")]
        theirs = by_package(between)
        assert ours == [theirs[at][0] for at in range(0, len(between), 2)]
        assert ours[0] == (
            "the heart is normal in size no pleural effusion pneumothorax -lrb- or -rrb- edema"
        )
        assert "2\xa01/2" in ours[1].split(" ")

    def test_do_not_depend_on_the_next_text(self) -> None:
        for text, after, alone, beside in (
            ("Effusion: no.", "2 nodules.", "effusion no", "effusion no."),
            ("Vitamin A.", "The heart", "vitamin a.", "vitamin a"),
        ):
            assert by_package([text])[0] == [alone]
            assert by_package([text, after])[0] == [beside]
            assert coco.words_of([(text, after)])[0][0] == alone

    def test_are_of_their_own_text_where_the_packages_are_shifted(self) -> None:
        texts = ["the heart\ris normal", "no edema"]
        assert by_package(texts) == {0: ["the heart"], 1: ["is normal"]}
        found = scored("rougeL/coco", *((text, text) for text in texts), ("a\x85b", "a b"))
        assert found.per_item == (1.0, 1.0, 1.0)

    def test_no_letter_joins_or_parts_lines(self) -> None:
        from medbench.metrics.gate import one_line

        letters = [chr(n) for n in (*range(0x20, 0xD800), *range(0xE000, 0x10000))]
        texts = dict.fromkeys(filter(None, (one_line(f"a {letter} b") for letter in letters)))
        words = coco.words_of([(text,) for text in texts])
        assert len(words) == len(texts) > 50_000
        assert all(found.split()[0] == "a" and found.split()[-1] == "b" for (found,) in words)

    def test_nothing_is_written_beside_the_package(self) -> None:
        folder = coco.folder() / "tokenizer"
        before = folder.stat().st_mtime_ns
        coco.words_of([("a", "b")])
        assert folder.stat().st_mtime_ns == before
        by_package(["a"])
        assert folder.stat().st_mtime_ns != before

    @pytest.mark.parametrize("locale", ["C", "tr_TR.UTF-8"])
    def test_are_the_same_in_any_language(
        self, locale: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        texts = [(text,) for text in (*REPORTS, "TITLE IN CAPITALS İI")]
        here = coco.words_of(texts)
        monkeypatch.setenv("LC_ALL", locale)
        monkeypatch.setenv("LANG", locale)
        if locale != "C":
            monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=tr")
        assert coco.words_of(texts) == here


@pytest.mark.parametrize("name", NAMES)
def test_known_answers(name: str) -> None:
    check_golden(load_metric(name))


def test_the_three_pairs() -> None:
    bleu, rouge = (scored(name, *PAIRS) for name in NAMES)
    assert bleu.value == pytest.approx(0.302093, abs=1e-6)
    assert rouge.value == pytest.approx(0.676768, abs=1e-6)
    assert rouge.per_item == pytest.approx((1.0, 0.363636, 0.666667), abs=1e-6)


class TestBleu:
    def test_is_the_package(self) -> None:
        from pycocoevalcap.bleu.bleu import Bleu

        pairs = like_reports(150)
        found = scored("bleu4/coco", *pairs)
        outputs, golds = (by_package(side) for side in zip(*pairs, strict=True))
        corpus, items = Bleu(4).compute_score(golds, outputs, verbose=0)
        assert found.value == pytest.approx(corpus[3], abs=1e-12)
        assert list(found.per_item[1:]) == items[3][1:]
        assert found.per_item[0] == 0.0
        assert found.value != pytest.approx(np.mean(items[3]), abs=0.01)
        assert found.low is not None and found.high is not None
        assert found.low < (found.value or 0.0) < found.high

    def test_of_any_draw_of_items_follows_from_their_sums(self) -> None:
        from pycocoevalcap.bleu.bleu import Bleu

        pairs = like_reports(40)
        judged = Bleu4Coco().judge(pairs, Setting())
        outputs, golds = (by_package(side) for side in zip(*pairs, strict=True))
        assert judged.pooled is not None
        draw = np.random.default_rng(0)
        for size in (1, 2, 5, 40):
            drawn = draw.integers(len(pairs), size=size)
            sides = [{at: side[n] for at, n in enumerate(drawn)} for side in (golds, outputs)]
            corpus, _ = Bleu(4).compute_score(*sides, verbose=0)
            sums = judged.pooled.totals[drawn].sum(axis=0)
            assert judged.pooled.value(sums) == pytest.approx(corpus[3], abs=1e-12)
            assert judged.pooled.value(np.stack([sums] * 2)).shape == (2,)

    def test_empty_outputs_shorten_the_whole(self) -> None:
        pair = PAIRS[2]
        alone, beside = scored("bleu4/coco", pair), scored("bleu4/coco", pair, ("", pair[1]))
        assert (beside.value or 0.0) < (alone.value or 0.0) * 0.5
        assert beside.notes["n_empty"] == 1

    def test_without_any_word_it_is_a_number(self) -> None:
        for pairs in ([("", "a b c d")], [("", "")], [("...", "...")], [("a", "")] * 2):
            assert scored("bleu4/coco", *pairs).value == pytest.approx(0.0, abs=1e-5)
        assert bleu_of(np.zeros(10)) == pytest.approx(0.0, abs=1e-5)

    def test_a_short_text_is_worth_little_alone_and_all_in_the_corpus(self) -> None:
        found = scored("bleu4/coco", ("no edema", "no edema"), PAIRS[0])
        assert found.per_item[0] == pytest.approx(0.0, abs=0.01)
        assert found.value == pytest.approx(1.0, abs=1e-6)


class TestRouge:
    def test_is_the_package(self) -> None:
        from pycocoevalcap.rouge.rouge import Rouge

        pairs = [pair for pair in like_reports(100)[1:] if pair[1] != "..."]
        found = scored("rougeL/coco", *pairs)
        outputs, golds = (by_package(side) for side in zip(*pairs, strict=True))
        mean, items = Rouge().compute_score(golds, outputs)
        assert found.value == pytest.approx(mean, abs=1e-12)
        assert list(found.per_item) == list(items)

    def test_two_texts_without_words_are_not_equal(self) -> None:
        from pycocoevalcap.rouge.rouge import Rouge

        nothing = by_package(["..."])
        assert nothing == {0: [""]}
        assert Rouge().compute_score(nothing, nothing)[0] == 1.0
        assert scored("rougeL/coco", ("...", "..."), ("", "")).per_item == (0.0, 0.0)


BAD = (
    PAIRS[2],
    ("", "The heart is normal."),
    ("The heart is normal.", ""),
    ("", ""),
    (" \r\n\u2028 ", "The heart is normal."),
    ("ok", "ok"),
    ("heart 👍🏽 normal", "the heart is normal"),
    ("the heart\ris\u2028normal\x85today", "the heart is normal today"),
    ("effusion " * 2000, "no effusion " * 2000),
    ("...", "..."),
    ("a|||b *NL* c", "a ||| b *NL* c"),
    PAIRS[0],
)


@pytest.mark.parametrize("name", NAMES)
def test_no_text_is_dropped_or_shifts_the_next_ones(name: str) -> None:
    whole = scored(name, *BAD)
    alone = [scored(name, pair).per_item[0] for pair in BAD]
    assert list(whole.per_item) == alone
    assert alone[1:5] == [0.0] * 4
    assert alone[7] == pytest.approx(1.0, abs=1e-6)
    assert alone[-1] == pytest.approx(1.0, abs=1e-6)
    assert (alone[10] or 0.0) > 0.9
    assert whole.notes == {"n_empty": 3, "n_empty_gold": 2, "n_capped": 1, "n_gave_up": 0}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_text_is_refused(name: str) -> None:
    for bad in (None, float("nan")):
        with pytest.raises(UserError, match="has no output"):
            score(name, predictions=["no edema", bad], golds=["no edema"] * 2)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="2 predictions but 1 golds"):
        score(name, predictions=["no edema"] * 2, golds=["no edema"])
    assert score(name, predictions=[], golds=[]).value is None


def test_versions_and_hashes_stand_beside_the_score() -> None:
    made_with = scored("bleu4/coco", PAIRS[0]).made_with
    assert set(made_with) == {"pycocoevalcap", "java", "tokenizer"}
    assert len(made_with["tokenizer"]) == 64


class TestJava:
    """What a Java does that is none, or a bad one."""

    def put(self, folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
        program = folder / "java"
        says = 'case "$1" in -version) echo \'openjdk version "17.0.1"\' >&2; exit 0;; esac'
        program.write_text(f"#!/bin/sh\n{says}\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")

    def test_that_fails_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fails = "echo 'Picked up JAVA_TOOL_OPTIONS: -X' >&2; echo 'no room for a heap' >&2; exit 3"
        self.put(tmp_path, monkeypatch, fails)
        with pytest.raises(UserError) as raised:
            scored("rougeL/coco", PAIRS[0])
        assert raised.value.lines()[:2] == ["the tokenizer in Java fails", "no room for a heap"]

    def test_that_hangs_is_ended(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.put(tmp_path, monkeypatch, "exec sleep 600")
        monkeypatch.setattr(coco, "_START_SECONDS", 0.5)
        begin = time.monotonic()
        with pytest.raises(UserError, match="does not answer"):
            scored("rougeL/coco", PAIRS[0])
        assert time.monotonic() - begin < 60

    def test_that_loses_a_line_is_not_believed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.put(tmp_path, monkeypatch, "cat >/dev/null; echo heart")
        with pytest.raises(UserError) as raised:
            scored("rougeL/coco", PAIRS[1])
        assert raised.value.lines()[:2] == [
            "coco failed",
            "ValueError: 1 lines of words for 4 lines of text",
        ]
