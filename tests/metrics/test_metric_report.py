"""BLEU and METEOR by NLTK, ROUGE-L by Google: their formulas, their words, and bad texts."""

from __future__ import annotations

import math
import os
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from medbench.errors import UnavailableError, UserError
from medbench.metrics.gate import WORDS
from medbench.scorers import nltk_texts
from medbench.scoring import Score, check_golden, load_metric, score
from tests.metrics.tiny import nltk_data

nltk = pytest.importorskip("nltk", reason="medbench[report] is not installed")
pytest.importorskip("rouge_score", reason="medbench[report] is not installed")

NAMES = ("bleu4/nltk", "rougeL/google", "meteor/nltk")
WORD = nltk.word_tokenize
VOCABULARY = (
    "The heart is normal in size . lungs are clear , no pleural effusion effusions or of and with "
    "pneumothorax seen mild left right lower lobe opacity Opacities enlarged heart's T1-weighted "
    "(pump) pump ticker outpouring core 2.5 cm a is the"
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("nltk_data")
    nltk_data.punkt(root)
    nltk_data.wordnet(root)
    return root


@pytest.fixture(autouse=True)
def surroundings(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    look_in(monkeypatch, root)


def look_in(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """Let NLTK look for its data there alone, here and in processes to come."""
    monkeypatch.setattr(nltk.data, "path", [str(folder) for folder in folders])
    # A process of its own looks there first, and there is nothing elsewhere.
    monkeypatch.setenv("NLTK_DATA", os.pathsep.join(map(str, folders)))
    monkeypatch.setenv("HOME", str(folders[0]))
    nltk.tokenize._get_punkt_tokenizer.cache_clear()


def scored(name: str, *pairs: tuple[str, str]) -> Score:
    return score(name, predictions=[a for a, _ in pairs], golds=[b for _, b in pairs])


def texts(count: int, *, longest: int = 40, seed: int = 0) -> list[tuple[str, str]]:
    """Return random pairs; the second is often much like the first."""
    draw = random.Random(seed)

    def text() -> list[str]:
        return draw.choices(VOCABULARY.split(), k=draw.randint(1, longest))

    pairs: list[tuple[str, str]] = []
    for _ in range(count):
        output = text()
        like = [word for word in output if draw.random() < 0.8] + text()[: draw.randint(0, 9)]
        gold = draw.choice([like or output, text()])
        pairs.append((" ".join(output), " ".join(gold)))
    return pairs


@pytest.mark.parametrize("name", NAMES)
def test_known_answers(name: str) -> None:
    check_golden(load_metric(name))


class TestBleu:
    def test_is_the_formula(self) -> None:
        pairs = texts(200)
        found = scored("bleu4/nltk", *pairs).per_item
        assert found == pytest.approx([bleu4(WORD(a), WORD(b)) for a, b in pairs], abs=1e-12)
        assert len({round(value or 0.0, 6) for value in found}) > 100

    @pytest.mark.parametrize(
        ("output", "gold", "expected"),
        [
            # exp(1 - 5/4), matches 4/4, 1/3, 0/2, 0/1
            (
                "a b c d",
                "a b d c e",
                math.exp(-0.25) * (1 / 3 * math.log(4) / 10 / 2 * math.log(4) / 20) ** 0.25,
            ),
            ("a b c d", "a b c d", 1.0),
            ("No edema", "No edema", (math.log(2) / 10 * math.log(2) / 20) ** 0.25),
            ("Normal", "Normal", 1.0),
            ("Normal", "the heart is Normal", math.exp(-3)),
            ("normal", "Normal", 0.0),  # case is kept
            ("a b c d", "e f g h", 0.0),
        ],
    )
    def test_values_by_hand(self, output: str, gold: str, expected: float) -> None:
        assert scored("bleu4/nltk", (output, gold)).value == pytest.approx(expected, abs=1e-12)

    def test_is_the_package(self) -> None:
        from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

        pairs = texts(50, seed=1)
        smooth = SmoothingFunction().method4
        plain = [sentence_bleu([WORD(b)], WORD(a), smoothing_function=smooth) for a, b in pairs]
        assert list(scored("bleu4/nltk", *pairs).per_item) == plain

    def test_where_sentences_end_decides_what_a_word_is(self) -> None:
        # Learned from the reports: approx. ends no sentence, so its period stays at it.
        assert WORD("It is approx. 5 mm.") == ["It", "is", "approx.", "5", "mm", "."]
        assert WORD("It is odd. A cyst.") == ["It", "is", "odd", ".", "A", "cyst", "."]


class TestRouge:
    def test_is_the_formula(self) -> None:
        pairs = texts(100)
        found = scored("rougeL/google", *pairs).per_item
        assert found == pytest.approx([rouge_l(a, b) for a, b in pairs], abs=1e-12)

    @pytest.mark.parametrize(
        ("output", "gold", "expected"),
        [
            ("effusions are seen", "Effusion was seen!", 2 / 3),  # stems; a word of three is whole
            ("the heart", "heart the", 0.5),
            ("heart-size T1", "heart size t1", 1.0),
            ("心脏正常", "心脏正常", 0.0),  # of other letters it knows no words
        ],
    )
    def test_values_by_hand(self, output: str, gold: str, expected: float) -> None:
        assert scored("rougeL/google", (output, gold)).value == pytest.approx(expected, abs=1e-12)

    def test_is_the_package_which_the_published_code_calls_the_other_way_round(self) -> None:
        from rouge_score.rouge_scorer import RougeScorer

        pairs = texts(50, seed=1)
        scorer = RougeScorer(["rougeL"], use_stemmer=True)
        found = scored("rougeL/google", *pairs).per_item
        assert list(found) == [scorer.score(b, a)["rougeL"].fmeasure for a, b in pairs]
        turned = [scorer.score(a, b)["rougeL"].fmeasure for a, b in pairs]
        assert found == pytest.approx(turned, abs=1e-12)


class TestMeteor:
    def test_is_the_formula(self) -> None:
        pairs = texts(150)
        found = scored("meteor/nltk", *pairs).per_item
        assert found == pytest.approx([meteor(WORD(a), WORD(b)) for a, b in pairs], abs=1e-12)

    def test_values_by_hand(self) -> None:
        known = [
            ("Heart", "pump", 0.5),  # one meaning
            ("pump", "core", 0.0),  # two meanings of another word
            ("effusions", "effusion", 0.5),  # one stem
            ("lung", "heart", 0.0),
            ("no heart .", "no pump .", 1 - 0.5 / 27),
            # NLTK looks their stems up, effus and outpour, which are no words.
            ("no effusion .", "no outpouring .", 2 / 3 * 0.5),
            # P = 2/2, R = 2/4, one chunk
            ("the heart", "the heart is normal", 0.5 / 0.95 * (1 - 0.5 / 8)),
            # two chunks of one word
            ("heart the", "the heart", 0.5),
            # NLTK, nltk/translate/meteor_score.py: 0.6944 (with the whole of WordNet)
            (
                "It is a guide to action which ensures that the military always obeys the commands "
                "of the party",
                "It is a guide to action that ensures that the military will forever heed Party "
                "commands",
                0.6944,
            ),
        ]
        found = scored("meteor/nltk", *((output, gold) for output, gold, _ in known)).per_item
        assert found[:-1] == pytest.approx([value for _, _, value in known[:-1]], abs=1e-12)
        assert found[-1] == pytest.approx(known[-1][2], abs=5e-5)

    def test_is_the_package(self) -> None:
        from nltk.corpus.reader.wordnet import WordNetCorpusReader
        from nltk.translate.meteor_score import meteor_score

        with pytest.warns(UserWarning, match="multilingual"):
            wordnet = WordNetCorpusReader(nltk.data.find("corpora/wordnet"), None)
        pairs = texts(50, seed=1)
        plain = [meteor_score([WORD(b)], WORD(a), wordnet=wordnet) for a, b in pairs]
        assert list(scored("meteor/nltk", *pairs).per_item) == plain


BAD = (
    ("The heart is normal.", "The heart is normal."),
    ("", "The heart is normal."),
    ("The heart is normal.", ""),
    ("", ""),
    (" \r\n\u2028 ", "The heart is normal."),
    ("ok", "ok"),
    ("no edema", "no edema"),
    ("heart 👍🏽 normal", "the heart is normal"),
    ("the heart\ris\u2028normal\x85today", "the heart is normal today"),
    ("effusion " * 2000, "no effusion " * 2000),
    ("...", "..."),
    ("The lungs are clear.", "The lungs are clear."),
)


@pytest.mark.parametrize("name", NAMES)
def test_no_text_is_dropped_or_shifts_the_next_ones(name: str) -> None:
    same = (BAD[8][1], BAD[8][1])
    whole = scored(name, *BAD, same)
    *found, like = whole.per_item
    assert found == [scored(name, pair).value for pair in BAD]
    assert found[1:5] == [0.0] * 4
    assert found[8] == like  # ends of lines are blanks
    assert found[-1] > 0.99
    assert whole.n == len(BAD) + 1
    assert whole.notes == {"n_empty": 3, "n_empty_gold": 2, "n_capped": 1, "n_gave_up": 0}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_text_is_refused(name: str) -> None:
    for bad in (None, float("nan")):
        with pytest.raises(UserError, match="has no output"):
            score(name, predictions=["no edema", bad], golds=["no edema"] * 2)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="2 predictions but 1 golds"):
        score(name, predictions=["no edema"] * 2, golds=["no edema"])


@pytest.mark.parametrize("name", NAMES)
def test_the_same_word_again_and_again_takes_no_time(name: str) -> None:
    pair = ("effusion " * WORDS, "pleural effusion " * (WORDS // 2))
    found = scored(name, pair)
    assert (found.value or 0.0) > 0.0
    assert found.notes["n_gave_up"] == 0


class TestData:
    def test_what_is_missing_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "empty").mkdir(mode=0o755)
        look_in(monkeypatch, tmp_path / "empty")
        for name in ("bleu4/nltk", "meteor/nltk"):
            with pytest.raises(UnavailableError) as raised:
                check_golden(load_metric(name))
            assert raised.value.what == "NLTK's data 'punkt_tab' are not on this machine"
            assert raised.value.do == "python -m nltk.downloader punkt_tab"
        nltk_data.punkt(tmp_path / "empty")
        check_golden(load_metric("bleu4/nltk"))
        with pytest.raises(UnavailableError, match="'wordnet'"):
            check_golden(load_metric("meteor/nltk"))
        check_golden(load_metric("rougeL/google"))  # needs none

    def test_data_that_others_may_change_are_passed_over(self, root: Path) -> None:
        shared = root / "corpora" / "wordnet"
        shared.chmod(0o777)
        try:
            with pytest.raises(UnavailableError, match="wordnet") as raised:
                nltk_texts.describe({"of": "meteor"})
        finally:
            shared.chmod(0o755)
        assert "others may write" in raised.value.why

    def test_an_archive_is_read_as_the_downloader_left_it(
        self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pair = ("Heart", "pump")
        unpacked = scored("meteor/nltk", pair)
        packed = tmp_path / "packed"
        shutil.copytree(root / "tokenizers", packed / "tokenizers")
        (packed / "corpora").mkdir(mode=0o755)
        name = shutil.make_archive(
            str(packed / "corpora" / "wordnet"), "zip", root / "corpora", "wordnet"
        )
        Path(name).chmod(0o644)
        look_in(monkeypatch, packed)
        found = scored("meteor/nltk", pair)
        assert found.value == unpacked.value == 0.5
        assert found.made_with["punkt_tab"] == unpacked.made_with["punkt_tab"]
        assert found.made_with["wordnet"] != unpacked.made_with["wordnet"]

    def test_other_data_are_other_values(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pair = ("Heart", "pump")
        assert scored("meteor/nltk", pair).value == 0.5
        nltk_data.punkt(tmp_path)
        nltk_data.wordnet(tmp_path, synonyms=[("pump",)])
        look_in(monkeypatch, tmp_path)
        assert scored("meteor/nltk", pair).value == 0.0

    def test_versions_and_hashes_stand_beside_the_score(self) -> None:
        made_with = {name: scored(name, ("a", "a")).made_with for name in NAMES}
        assert set(made_with["bleu4/nltk"]) == {"nltk", "punkt_tab"}
        assert set(made_with["meteor/nltk"]) == {"nltk", "punkt_tab", "wordnet"}
        assert set(made_with["rougeL/google"]) == {"nltk", "rouge-score"}


def bleu4(output: Sequence[str], gold: Sequence[str]) -> float:
    """Return NLTK's BLEU-4 with smoothing method 4, by its formula."""
    product, zeros = 1.0, 0
    for n in range(1, 5):
        said, wanted = (
            Counter(tuple(words[at : at + n]) for at in range(len(words) - n + 1))
            for words in (output, gold)
        )
        matches = float(sum(min(count, wanted[gram]) for gram, count in said.items()))
        if n == 1 and not matches:
            return 0.0
        if not matches:
            zeros += 1
            if len(output) == 1:
                continue
            matches = math.log(len(output)) / (5 * 2**zeros)
        product *= matches / max(1, sum(said.values()))
    return product**0.25 * math.exp(min(0.0, 1 - len(gold) / len(output)))


def rouge_l(output: str, gold: str) -> float:
    """Return the F-measure of the longest common subsequence of stems."""
    import re

    from nltk.stem.porter import PorterStemmer

    stem = PorterStemmer().stem
    said, wanted = (
        [stem(w) if len(w) > 3 else w for w in re.findall("[a-z0-9]+", text.lower())]
        for text in (output, gold)
    )
    longest = [0] * (len(wanted) + 1)
    for word in said:
        before = list(longest)
        for at, other in enumerate(wanted):
            longest[at + 1] = before[at] + 1 if word == other else max(before[at + 1], longest[at])
    return 2 * longest[-1] / (len(said) + len(wanted)) if said and wanted else 0.0


def meteor(output: Sequence[str], gold: Sequence[str]) -> float:
    """Return NLTK's METEOR, by its formula."""
    from nltk.stem.porter import PorterStemmer

    stem = PorterStemmer().stem
    said, wanted = ([word.lower() for word in words] for words in (output, gold))

    def synonyms(one: str, other: str) -> bool:
        return any({stem(one), stem(other)} <= set(group) for group in nltk_data.SYNONYMS)

    ways = (lambda a, b: a == b, lambda a, b: stem(a) == stem(b), synonyms)
    aligned: dict[int, int] = {}
    for way in ways:
        for at in reversed(range(len(said))):
            left = [to for to in range(len(wanted)) if to not in aligned.values()]
            fitting = [to for to in left if at not in aligned and way(said[at], wanted[to])]
            if fitting:
                aligned[at] = fitting[-1]
    if not aligned:
        return 0.0
    chunks = sum(aligned.get(at - 1) != to - 1 for at, to in aligned.items())
    precision, recall = len(aligned) / len(said), len(aligned) / len(wanted)
    mean = precision * recall / (0.9 * precision + 0.1 * recall)
    return mean * (1 - 0.5 * (chunks / len(aligned)) ** 3)
