"""RadGraph: the package's entities and rewards, each text in its place, none of them skipped."""

from __future__ import annotations

import io
import json
import random
import shutil
import subprocess
import sys
import tarfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from medbench import plugins
from medbench.errors import UnavailableError, UserError
from medbench.metrics.radgraph import (
    Entities,
    RadGraphCombined,
    RadGraphComplete,
    RadGraphPartial,
    RadGraphSimple,
    Reward,
)
from medbench.rows import Row
from medbench.scorers import radgraph
from medbench.scoring import Score, check_golden, load_metric, score
from tests.metrics.tiny.chexbert import WORDS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("radgraph", reason="medbench[clinical] is not installed")
    from radgraph.rewards import compute_reward

    from tests.metrics.tiny import radgraph as tiny

import torch

Values = Callable[[Sequence[str]], list[dict[str, Any]]]

# What the package warns of: texts of one word, and files that it leaves open.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Document .* has a sentence:UserWarning"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]

REWARDS = {
    "radgraph/simple": RadGraphSimple(),
    "radgraph/partial": RadGraphPartial(),
    "radgraph/complete": RadGraphComplete(),
}
MODELS = ("radgraph", "radgraph-xl")
ADDED = ("encode_plus", "build_inputs_with_special_tokens")
PAIRS = (
    (
        "There is a small left pleural effusion. The heart is mild in size.",
        "There is a small left pleural effusion. The heart is stable in size.",
    ),
    (
        "The lungs are clear. No pneumothorax, mild edema, no effusion. "
        "Opacity in the left lobe is stable.",
        "The lungs are clear. No pneumothorax, no large effusion. "
        "Opacity in the left lobe is stable.",
    ),
    (
        "Mild bilateral edema; a chest tube in the right lobe.",
        "Mild bilateral edema, no consolidation. The chest tube is in the right lobe.",
    ),
)
# Of these pairs by radgraph 0.1.18 with transformers 4.57.6 and torch 2.13 on the tiny models;
# the combined ones by a plain count over its entities.
KNOWN = {
    "radgraph-xl": {
        "radgraph/simple": (8 / 11, 0.702703, 2 / 7),
        "radgraph/partial": (8 / 11, 0.540541, 2 / 7),
        "radgraph/complete": (0.421053, 0.455696, 0.16),
        "radgraph/combined": (0.440559, 0.601351, 1 / 7),
    },
    "radgraph": {
        "radgraph/simple": (8 / 9, 2 / 3, 0.25),
        "radgraph/partial": (8 / 9, 6 / 11, 0.25),
        "radgraph/complete": (8 / 11, 0.485714, 0.129032),
        "radgraph/combined": (0.644444, 0.602564, 0.125),
    },
}
ODD = (
    "ok",
    "\U0001f44d",
    "Größe 3 µm; caf\u00e9 \ufb01bula \uff13 x\u00b2",
    "心脏 normal",
    "[PAD] heart [SEP] [CLS] lung",
    "a" * 150,
    "None",
    "edema " * 60,
    "(2.5 cm), 9:30; 50%, 'clear.' and/or normal?!",
)


def random_texts(count: int, longest: int = 40) -> list[str]:
    draw = random.Random(count)
    words = [*WORDS, "effusion.", "size,", "(left)", "2.5", "cm/s"]
    return [" ".join(draw.choices(words, k=draw.randint(2, longest))) for _ in range(count)]


@pytest.fixture(scope="module", autouse=True)
def adapted() -> Iterator[None]:
    """Let the package run in this process, and leave nothing behind in transformers."""
    from transformers import PreTrainedTokenizerBase

    missing = [name for name in ADDED if not hasattr(PreTrainedTokenizerBase, name)]
    radgraph.adapt()
    yield
    for name in missing:
        delattr(PreTrainedTokenizerBase, name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, adapted: None) -> Path:
    root = tmp_path_factory.mktemp("radgraph") / "models"
    for model in MODELS:
        tiny.checkpoint(root, model=model, entities=0.08, relations=0.6, spans=1.0)
    return root


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def values(folder: Path, model: str) -> Values:
    loaded = radgraph.load({"model": model, "weights": str(folder)}, "cpu")
    return lambda texts: loaded([(text,) for text in texts])


@pytest.fixture(autouse=True)
def own_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def scored(name: str, outputs: Sequence[Any], golds: Sequence[Any]) -> Score:
    return score(name, predictions=outputs, golds=golds)


class TestRewards:
    """Comparing needs no package: these are pure functions of what it finds."""

    @staticmethod
    def drawn(draw: random.Random) -> Entities:
        entities: Entities = {
            str(at + 1): {
                "tokens": draw.choice(["lung", "Lung", "edema", "effusion", "clear"]),
                "label": draw.choice(["OBS-DP", "OBS-DA", "ANAT-DP"]),
                "start_ix": at,
                "end_ix": at,
                "relations": [],
            }
            for at in range(draw.choice([0, 1, 2, 4, 8]))
        }
        for one in entities.values():
            for _ in range(draw.choice([0, 0, 1, 3])):
                other = draw.choice(list(entities))
                one["relations"].append([draw.choice(["modify", "located_at"]), other])
        return entities

    def test_as_the_package_rewards(self) -> None:
        draw = random.Random(2)
        found: list[float] = []
        for _ in range(1000):
            output, gold = self.drawn(draw), self.drawn(draw)
            expected = compute_reward({"entities": output}, {"entities": gold}, "all")
            mine = [metric.value(output, gold) for metric in REWARDS.values()]
            assert mine == pytest.approx(list(expected), abs=1e-12)
            found += mine
        assert len(set(found)) > 30
        assert {0.0, 1.0} < set(found)

    def test_combined_against_a_plain_count(self) -> None:
        draw = random.Random(3)
        for _ in range(500):
            sides = [self.drawn(draw), self.drawn(draw)]
            means: list[float] = []
            for of_relations in (False, True):
                output, gold = (self.listed(side, of_relations) for side in sides)
                common = [one for one in output if one in gold]
                precision = len(common) / len(output) if output else 0.0
                recall = len(common) / len(gold) if gold else 0.0
                both = precision + recall
                means.append(2 * precision * recall / both if both else 0.0)
            assert RadGraphCombined().value(*sides) == pytest.approx(sum(means) / 2, abs=1e-12)

    @staticmethod
    def listed(entities: Entities, of_relations: bool) -> list[tuple[str, ...]]:
        """Return entities, or relations with both their ends, each kind once."""
        found: list[tuple[str, ...]] = []
        for one in entities.values():
            ends = (one["tokens"], one["label"])
            if not of_relations:
                found.append(ends)
            for relation, number in one["relations"] if of_relations else ():
                other = entities[number]
                found.append((*ends, other["tokens"], other["label"], relation))
        return list(dict.fromkeys(found))

    def test_a_report_of_the_packages_own_tests(self) -> None:
        # What the first version finds in "no evidence of acute cardiopulmonary process moderate
        # hiatal hernia", and the same without its relation.
        labels = {
            "acute": "OBS-DA",
            "cardiopulmonary": "ANAT-DP",
            "process": "OBS-DA",
            "moderate": "OBS-DP",
            "hiatal": "ANAT-DP",
            "hernia": "OBS-DP",
        }
        bare: Entities = {
            str(at): {"tokens": words, "label": label, "relations": []}
            for at, (words, label) in enumerate(labels.items(), start=1)
        }
        whole = {**bare, "3": {**bare["3"], "relations": [["located_at", "2"]]}}
        for metric in (*REWARDS.values(), RadGraphCombined()):
            assert metric.value(whole, whole) == 1.0
            assert metric.value(whole, {}) == metric.value({}, whole) == metric.value({}, {}) == 0
        assert RadGraphSimple().value(whole, bare) == 1.0
        assert RadGraphPartial().value(whole, bare) == pytest.approx(5 / 6)
        assert RadGraphComplete().value(whole, bare) == pytest.approx(5 / 6)
        assert RadGraphCombined().value(whole, bare) == 0.5
        # Without relations there is no more than a half, even of itself.
        assert RadGraphCombined().value(bare, bare) == 0.5
        shouted = {at: {**one, "tokens": one["tokens"].upper()} for at, one in whole.items()}
        # Case is kept, but for words in relations.
        assert RadGraphSimple().value(whole, shouted) == 0.0
        assert RadGraphComplete().value(whole, shouted) == pytest.approx(1 / 6)
        assert RadGraphCombined().value(whole, shouted) == 0.0


class TestThePackage:
    """What radgraph says, called in its plain way, many texts together."""

    @pytest.fixture
    def plain(self, folder: Path, model: str) -> Any:
        from radgraph import F1RadGraph

        return F1RadGraph(
            reward_level="all", model_type=model, model_cache_dir=str(folder), cuda=-1
        )

    def test_entities_are_the_same(self, plain: Any, values: Values, model: str) -> None:
        texts = [*random_texts(40), *ODD]
        expected = plain.radgraph(texts)
        found = values(texts)
        assert [one["entities"] for one in found] == [
            expected[str(at)]["entities"] for at in range(len(texts))
        ]
        assert not any(one["cut"] for one in found)
        assert len({json.dumps(one) for one in found}) > 30
        each = [entity for one in found for entity in one["entities"].values()]
        assert {one["label"] for one in each} == set(tiny.ENTITIES[model])
        assert {relation for one in each for relation, _ in one["relations"]} == set(tiny.RELATIONS)

    def test_rewards_are_the_same(self, plain: Any, values: Values) -> None:
        golds = random_texts(30)
        draw = random.Random(1)
        outputs = [" ".join(w for w in gold.split() if draw.random() < 0.9) for gold in golds]
        _, expected, _, _ = plain(hyps=outputs, refs=golds)
        found = list(zip(values(outputs), values(golds), strict=True))
        for metric, rewards in zip(REWARDS.values(), expected, strict=True):
            mine = [metric.value(a["entities"], b["entities"]) for a, b in found]
            assert mine == pytest.approx(list(rewards), abs=1e-12)
            assert len(set(mine)) > 10

    def test_neighbours_change_nothing(self, values: Values) -> None:
        texts = [*random_texts(10), *ODD]
        assert [values([text])[0] for text in texts] == values(texts)
        assert values([]) == []

    @pytest.mark.parametrize("text", [" ", "\n"])
    def test_it_fails_on_a_text_of_no_words(self, text: str, plain: Any, values: Values) -> None:
        with pytest.raises(AssertionError):
            plain.radgraph(["The heart is normal.", text, "The lungs are clear."])
        (found,) = values([text])
        assert found == {"entities": {}, "cut": False}

    def test_it_fails_where_a_backslash_leaves_nothing(
        self, plain: Any, values: Values, model: str
    ) -> None:
        written = "\\n"  # two letters, which the second version takes for the end of a line
        first, found, last = values(["The heart is normal.", written, "The lungs are clear."])
        assert first == values(["The heart is normal."])[0]
        assert last == values(["The lungs are clear."])[0]
        if model == "radgraph-xl":
            with pytest.raises(AssertionError):
                plain.radgraph(["The heart is normal.", written])
            assert found["entities"] == {}

    def test_it_leaves_out_what_it_cannot_read_and_we_do_not(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        from radgraph import RadGraph

        # A model without relations, which its last step takes for broken texts.
        weights = {"ner": 1.0, "relation": 0.0, "coref": 0.0, "events": 0.0}
        root = tiny.checkpoint(tmp_path / "x", loss_weights=weights)
        plain = RadGraph(model_type="radgraph-xl", model_cache_dir=str(root), cuda=-1)
        assert plain(["The heart is normal."]) == {}
        assert "Skipping inference on this file" in capfd.readouterr().out
        read = radgraph.load({"model": "radgraph-xl", "weights": str(root)}, "cpu")
        with pytest.raises(UserError) as raised:
            read([("The heart is normal.",)])
        assert raised.value.what == "radgraph-xl skips a text"
        assert len(raised.value.lines()) == 3

    def test_what_is_no_text(self, plain: Any, folder: Path) -> None:
        with pytest.raises((TypeError, AttributeError)):
            plain.radgraph(["The heart is normal.", 5])
        # None is read as the word.
        assert plain.radgraph([None])["0"]["text"] == "None"
        name = f"radgraph/simple[weights={folder}]"
        with pytest.raises(UserError, match="row 1 has no output"):
            scored(name, ["normal", None], ["normal", "normal"])
        with pytest.raises(UserError, match="2 predictions but 1 golds"):
            scored(name, ["normal", "normal"], ["normal"])
        assert scored(name, [], []).value is None


def test_long_texts_are_read_in_part(model: str, tmp_path: Path) -> None:
    # One that finds little: what it finds is compared in loops over each pair.
    root = tiny.checkpoint(tmp_path / "x", model=model, spans=0.1)
    read = radgraph.load({"model": model, "weights": str(root)}, "cpu")
    # Marks count as words: a text of one word may have thousands.
    words = random.Random(0).choices(WORDS, k=radgraph.TOKENS)
    (found,) = read([(",".join(words),)])
    assert found["cut"]
    (part,) = read([(" , ".join(words[: radgraph.TOKENS // 2]) + " ,",)])
    assert found == {**part, "cut": True}
    assert len(part["entities"]) > 5
    assert not part["cut"]
    if model == "radgraph":
        return
    texts, golds = ["edema " * 1000, "a,b" * 900, words[0]], [" ".join(words)] * 3
    scores = scored(f"radgraph/simple[weights={root}]", texts, golds)
    assert (scores.notes["n_cut"], scores.notes["n_capped"]) == (1, 3)
    assert scores.notes["n_gave_up"] == 0


def test_known_values(values: Values, model: str) -> None:
    for name, expected in KNOWN[model].items():
        metric = load_metric(name)
        assert isinstance(metric, Reward | RadGraphCombined)
        for (output, gold), value in zip(PAIRS, expected, strict=True):
            found = [one["entities"] for one in values([output, gold])]
            assert metric.value(*found) == pytest.approx(value, abs=1e-5)


def test_every_text_has_its_score_in_its_place(folder: Path) -> None:
    read = radgraph.load({"model": "radgraph-xl", "weights": str(folder)}, "cpu")
    # Lists with empty texts in the middle, twins, and whatever a model may write.
    texts = [*random_texts(8), *ODD, *(text for pair in PAIRS for text in pair), "\\n"]
    texts[3:3] = ["", "   ", "\r\n", "\u2028", "a\rb\u2028c\x85d", texts[0]]
    outputs, golds = [f"Assistant: {text}" for text in texts], [*texts[1:], texts[0]]
    shown = [" ".join(text.split()[:512])[:5120].rstrip() for text in texts]
    known = dict(zip(shown, read([(text,) for text in shown]), strict=True))
    pairs = list(zip(shown, [*shown[1:], shown[0]], strict=True))
    judged = [(known[one], known[two]) for one, two in pairs if one and two]
    for name, metric in {**REWARDS, "radgraph/combined": RadGraphCombined()}.items():
        found = scored(f"{name}[model=radgraph-xl,weights={folder}]", outputs, golds)
        assert found.per_item == pytest.approx(
            [
                metric.value(known[one]["entities"], known[two]["entities"]) if one and two else 0
                for one, two in pairs
            ],
            abs=1e-12,
        )
        place = texts.index(PAIRS[0][0])
        assert found.per_item[place] == pytest.approx(KNOWN["radgraph-xl"][name][0], abs=1e-5)
        assert found.made_with == radgraph.describe(
            {"model": "radgraph-xl", "weights": str(folder)}
        )
        assert found.name == (f"{name}[model=radgraph-xl]" if "combined" in name else name)
        assert found.notes == {
            "n_empty": 4,
            "n_empty_gold": 4,
            "n_capped": 0,
            "n_gave_up": 0,
            "n_no_entity": sum(not (a["entities"] and b["entities"]) for a, b in judged),
            "n_no_relation": sum(
                not all(any(e["relations"] for e in one["entities"].values()) for one in pair)
                for pair in judged
            ),
            "n_cut": 0,
        }
        assert found.notes["n_no_entity"] > 0


@pytest.mark.slow
def test_own_examples(folder: Path) -> None:
    for name in (*REWARDS, "radgraph/combined"):
        metric = load_metric(f"{name}[weights={folder}]")
        assert not metric.published
        assert metric.full_name == name  # a path is no part of what a score is
        check_golden(metric)


def test_published_examples_and_archives() -> None:
    # The package's README gives the means of its two pairs.
    means = [sum(value for *_, value in one.golden_published) / 2 for one in REWARDS.values()]
    assert means == pytest.approx([0.75, 0.6666666666, 0.6538461538])
    for name in (*REWARDS, "radgraph/combined"):
        for model in MODELS:
            metric = load_metric(f"{name}[model={model}]")
            assert metric.published
            assert metric.downloads[0][:2] == ("StanfordAIMI/RRG_scorers", f"{model}.tar.gz")
            default = "radgraph" if name == "radgraph/combined" else "radgraph-xl"
            assert (metric == load_metric(name)) == (model == default)


def test_the_official_variant() -> None:
    metric = load_metric("radgraph/combined[variant=official]")
    assert metric.full_name == "radgraph/combined[strip=characters,replace_short=on]"
    assert isinstance(metric, RadGraphCombined)
    texts = [("Assistant: lungs are clear", "lungs are clear"), ("", "ok"), ("stains", "")]
    rows: list[Row] = [{"id": "a", "kind": "report", "output": a, "gold": b} for a, b in texts]
    sentence = "No report generated."
    gated = metric.let_in(rows)
    assert gated.pairs == [("lungs are clear", "lungs are clear"), *[(sentence, sentence)] * 2]
    assert not any([*gated.empty, *gated.empty_gold])  # so they are compared like any other
    assert metric.notes(rows) == {"n_replaced": 2}
    assert all("official" not in plugins.get("metric", name).variants for name in REWARDS)


class TestBrokenModels:
    def refusal(self, root: Path) -> UserError:
        with pytest.raises(UserError) as raised:
            radgraph.load({"model": "radgraph-xl", "weights": str(root)}, "cpu")
        assert len(raised.value.lines()) == 3
        return raised.value

    @pytest.fixture
    def copy(self, folder: Path, tmp_path: Path) -> Path:
        shutil.copytree(folder, tmp_path / "x")
        return tmp_path / "x"

    def test_weights_that_do_not_fill_the_model(self, copy: Path) -> None:
        file = copy / "radgraph-xl" / "weights.th"
        weights = torch.load(file, weights_only=True)
        first = next(iter(weights))
        torch.save({name: value for name, value in weights.items() if name != first}, file)
        assert self.refusal(copy).what == f"{copy / 'radgraph-xl'} cannot be read"
        torch.save({}, file)
        self.refusal(copy)

    def test_labels_of_another_model(self, copy: Path) -> None:
        file = copy / "radgraph-xl" / "vocabulary" / "radgraph-xl__ner_labels.txt"
        file.write_text("\nOne\nTwo\n")
        self.refusal(copy)

    @pytest.mark.parametrize("content", [b"", b"no weights", None])
    def test_the_file_is_none_or_half_of_one(self, content: bytes | None, copy: Path) -> None:
        file = copy / "radgraph-xl" / "weights.th"
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2] if content is None else content)
        self.refusal(copy)

    @pytest.mark.parametrize("content", ["", "{}", "[]", '{"model": 3}'])
    def test_a_config_of_something_else(self, content: str, copy: Path) -> None:
        (copy / "radgraph-xl" / "config.json").write_text(content)
        with pytest.raises(UserError, match="config.json cannot be read"):
            radgraph.describe({"model": "radgraph-xl", "weights": str(copy)})


class TestWhereItLies:
    """The published model is looked for where the package and the hub's cache keep it."""

    XL = {"model": "radgraph-xl", "weights": ""}
    FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")

    @pytest.fixture
    def hub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
        return tmp_path / "hub"

    def fill(self, hub: Path, name: str, files: Sequence[Path]) -> Path:
        repository = hub / f"models--{name.replace('/', '--')}"
        snapshot = repository / "snapshots" / ("a" * 40)
        (repository / "refs").mkdir(parents=True, exist_ok=True)
        (repository / "refs" / "main").write_text("a" * 40)
        snapshot.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copy(file, snapshot / file.name)
        return snapshot

    @pytest.fixture
    def named(self, folder: Path, tmp_path: Path) -> Path:
        """Return a model whose config names its encoder as the hub does."""
        root = tmp_path / "named"
        shutil.copytree(folder, root)
        config = root / "radgraph-xl" / "config.json"
        text = config.read_text().replace(str(folder / "encoder"), "some/encoder")
        assert "some/encoder" in text
        config.write_text(text)
        return root

    def test_nowhere(self, hub: Path) -> None:
        for model, metric in (("radgraph-xl", "partial"), ("radgraph", "combined")):
            with pytest.raises(UnavailableError) as raised:
                radgraph.describe({"model": model, "weights": ""})
            assert raised.value.lines() == [
                "StanfordAIMI/RRG_scorers is not on this machine",
                f"Its file {model}.tar.gz was not downloaded yet.",
                f"medbench doctor --metric radgraph/{metric} --fetch",
            ]

    def test_where_the_package_keeps_it(
        self, named: Path, hub: Path, folder: Path, tmp_path: Path
    ) -> None:
        from radgraph.radgraph import version

        place = tmp_path / "cache" / "radgraph" / version
        shutil.copytree(named / "radgraph-xl", place / "radgraph-xl")
        with pytest.raises(UnavailableError, match="some/encoder is not on this machine"):
            radgraph.describe(self.XL)
        snapshot = self.fill(hub, "some/encoder", [folder / "encoder" / "config.json"])
        with pytest.raises(UnavailableError, match="some/encoder has no tokenizer"):
            radgraph.describe(self.XL)
        for name in self.FILES:
            shutil.copy(folder / "encoder" / name, snapshot / name)
        found = radgraph.describe(self.XL)
        assert found == radgraph.describe({**self.XL, "weights": str(named)})
        # The package unpacks while it is interrupted: half a model is none.
        (place / "radgraph-xl" / "weights.th").unlink()
        with pytest.raises(UnavailableError, match="StanfordAIMI/RRG_scorers"):
            radgraph.describe(self.XL)

    def test_in_the_hubs_cache(self, named: Path, hub: Path, folder: Path, tmp_path: Path) -> None:
        self.fill(hub, "some/encoder", [folder / "encoder" / name for name in self.FILES])
        packed = tiny.archive(named)
        snapshot = self.fill(hub, "StanfordAIMI/RRG_scorers", [packed])
        found = radgraph.describe(self.XL)
        assert found == radgraph.describe({**self.XL, "weights": str(named)})
        (unpacked,) = (tmp_path / "cache" / "medbench" / "radgraph").iterdir()
        assert [path.name for path in unpacked.iterdir()] == ["radgraph-xl"]
        weights = unpacked / "radgraph-xl" / "weights.th"
        before = weights.stat().st_mtime_ns
        # By a process of its own, which looks there as well.
        said = scored("radgraph/simple", [PAIRS[0][0]], [PAIRS[0][1]])
        assert said.value == pytest.approx(KNOWN["radgraph-xl"]["radgraph/simple"][0], abs=1e-5)
        assert weights.stat().st_mtime_ns == before
        # The hub's client calls a large file by its hash.
        blob = snapshot.parents[1] / "blobs" / ("0" * 64)
        blob.parent.mkdir()
        (snapshot / packed.name).rename(blob)
        (snapshot / packed.name).symlink_to(blob)
        with pytest.raises(UserError, match="radgraph-xl.tar.gz is damaged"):
            radgraph.describe(self.XL)

    @pytest.mark.parametrize("kind", ["half", "empty", "leads out", "a link"])
    def test_an_archive_that_is_broken_or_bad(
        self, kind: str, folder: Path, hub: Path, tmp_path: Path
    ) -> None:
        packed = shutil.copy(tiny.archive(folder), tmp_path)
        if kind == "leads out":
            with tarfile.open(packed, "w:gz") as file:
                member = tarfile.TarInfo("../../../escaped")
                member.size = 3
                file.addfile(member, io.BytesIO(b"bad"))
        elif kind == "a link":
            with tarfile.open(packed, "w:gz") as file:
                member = tarfile.TarInfo("weights.th")
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
                file.addfile(member)
        else:
            whole = Path(packed).read_bytes()
            Path(packed).write_bytes(whole[: len(whole) // 2] if kind == "half" else b"")
        self.fill(hub, "StanfordAIMI/RRG_scorers", [Path(packed)])
        with pytest.raises(UserError, match="radgraph-xl.tar.gz cannot be unpacked") as raised:
            radgraph.describe(self.XL)
        assert len(raised.value.lines()) == 3
        assert not list(tmp_path.rglob("escaped"))
        assert not list((tmp_path / "cache").rglob("weights.th"))

    def test_a_folder_that_lacks_something(self, folder: Path, tmp_path: Path) -> None:
        shutil.copytree(folder, tmp_path / "x")
        settings = {"model": "radgraph-xl", "weights": str(tmp_path / "x")}
        (tmp_path / "x" / "encoder" / "config.json").rename(tmp_path / "config.json")
        config = tmp_path / "x" / "radgraph-xl" / "config.json"
        config.write_text(config.read_text().replace(str(folder), str(tmp_path / "x")))
        with pytest.raises(UserError, match="encoder lacks config.json"):
            radgraph.describe(settings)
        (tmp_path / "x" / "radgraph-xl" / "weights.th").unlink()
        with pytest.raises(UserError, match="lacks radgraph-xl/weights.th"):
            radgraph.describe(settings)
        with pytest.raises(UserError, match="nowhere lacks radgraph/config.json"):
            radgraph.describe({"model": "radgraph", "weights": str(tmp_path / "nowhere")})

    def test_whatever_moves_a_value_is_told(self, folder: Path, tmp_path: Path) -> None:
        shutil.copytree(folder, tmp_path / "x")
        settings = {"model": "radgraph-xl", "weights": str(tmp_path / "x")}
        before = radgraph.describe(settings)
        assert {"radgraph", "torch", "transformers", "tokenizers"} < before.keys()
        assert before["model"] == "radgraph-xl"
        assert {f"encoder/{name}" for name in self.FILES} < before.keys()
        for name in ("weights.th", "config.json", "vocabulary/radgraph-xl__relation_labels.txt"):
            with (tmp_path / "x" / "radgraph-xl" / name).open("ab") as file:
                file.write(b" ")
            key = f"radgraph-xl/{name}"
            assert radgraph.describe(settings)[key] != before[key]

    def test_looking_imports_nothing_heavy(self, folder: Path) -> None:
        script = (
            "import sys; from medbench.scorers import radgraph; "
            "radgraph.describe({'model': 'radgraph', 'weights': sys.argv[1]}); "
            "print({'torch', 'transformers', 'numpy', 'radgraph'} & set(sys.modules))"
        )
        said = subprocess.run(
            [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True
        )
        assert said.stdout.strip() == "set()"


def test_only_what_is_missing_is_added_to_transformers() -> None:
    from transformers import PreTrainedTokenizerBase

    before = {name: getattr(PreTrainedTokenizerBase, name) for name in ADDED}
    radgraph.adapt()
    assert {name: getattr(PreTrainedTokenizerBase, name) for name in ADDED} == before
