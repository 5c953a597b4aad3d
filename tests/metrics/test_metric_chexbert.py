"""CheXbert: the package's labels and vectors, each text in its place, never of random weights."""

from __future__ import annotations

import math
import random
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medbench import plugins
from medbench.errors import UnavailableError, UserError
from medbench.metrics.chexbert import CheXbertEmbedding, CheXbertLabels
from medbench.rows import Row
from medbench.scorers import chexbert
from medbench.scoring import Score, check_golden, load_metric, score
from tests.metrics.tiny import chexbert as tiny

Values = Callable[[Sequence[str]], list[dict[str, Any]]]

# Labels and cosines of f1chexbert 0.0.2 with transformers 4.57.6 and torch 2.13 on this model.
KNOWN = (
    (
        "There is a small left pleural effusion. The heart is mild in size.",
        "There is a small left pleural effusion. The heart is stable in size.",
        ("10100001001111", "10100100001111", 0.982281),
    ),
    (
        "The lungs are clear. No pneumothorax, mild edema, no effusion. "
        "Opacity in the left lobe is stable.",
        "The lungs are clear. No pneumothorax, no large effusion. "
        "Opacity in the left lobe is stable.",
        ("00000100100111", "11100001000111", 0.581836),
    ),
    (
        "Mild bilateral edema; a chest tube in the right lobe.",
        "Mild bilateral edema, no consolidation. The chest tube is in the right lobe.",
        ("10100000000111", "10110001001111", 0.951736),
    ),
)
ODD = (
    "ok",
    "\U0001f44d",
    "Größe 3 µm; caf\u00e9 \ufb01bula \uff13 x\u00b2",
    "心脏 normal",
    "[PAD] heart [SEP] [CLS] lung",
    "a" * 150,
    "None",
    "heart " * 700,
    "a," * 2000,
)


def random_texts(count: int, longest: int = 60) -> list[str]:
    draw = random.Random(count)
    return [" ".join(draw.choices(tiny.WORDS, k=draw.randint(1, longest))) for _ in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.checkpoint(tmp_path_factory.mktemp("chexbert") / "model")


@pytest.fixture(scope="module")
def values(folder: Path) -> Values:
    loaded = chexbert.load({"weights": str(folder)}, "cpu")
    return lambda texts: loaded([(text,) for text in texts])


@pytest.fixture(autouse=True)
def own_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def stated(value: dict[str, Any]) -> str:
    return "".join(str(int(state in (1, 3))) for state in value["classes"])


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    a, b = np.array(one, dtype=float), np.array(other, dtype=float)
    return float(a @ b / math.sqrt(a @ a) / math.sqrt(b @ b))


def scored(name: str, folder: Path, outputs: Sequence[Any], golds: Sequence[Any]) -> Score:
    return score(
        name if "[" in name else f"{name}[weights={folder}]", predictions=outputs, golds=golds
    )


class TestThePackage:
    """What f1chexbert says, called in its plain way, one text after the other."""

    @pytest.fixture
    def package(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it hides all warnings itself, and has some
            module = pytest.importorskip("f1chexbert.f1chexbert", reason="it is not installed")
        monkeypatch.setattr(module, "CACHE_DIR", str(folder))
        # It asks for this name, which may be a folder here.
        (tmp_path / "bert-base-uncased").symlink_to(folder)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(module.BertTokenizer, "encode_plus", encode_plus, raising=False)
        return module

    @pytest.fixture
    def plain(self, package: Any) -> Any:
        return package.F1CheXbert(device="cpu")

    def test_tokens_labels_and_vectors_are_the_same(
        self, package: Any, plain: Any, values: Values
    ) -> None:
        import pandas as pd

        texts = [*random_texts(60), *random_texts(4, 800), *ODD]
        ids = [package.tokenize(pd.Series([text]), plain.tokenizer)[0] for text in texts]
        assert [chexbert.tokens(plain.tokenizer, [text])[0][0] for text in texts] == ids
        assert max(map(len, ids)) == 512
        found = values(texts)
        assert [stated(one) for one in found] == [
            "".join(map(str, plain.get_label(text))) for text in texts
        ]
        signs = {0: "", 1: 1, 2: 0, 3: -1}
        assert [[signs[state] for state in one["classes"]] for one in found] == [
            plain.get_label(text, mode="classification") for text in texts
        ]
        for row, one in zip(ids, found, strict=True):
            with torch.no_grad():
                out = plain.model.bert(torch.tensor([row]), attention_mask=torch.ones(1, len(row)))
            assert one["embedding"] == pytest.approx(out[0][0, 0].tolist(), abs=2e-5)
        assert [one["cut"] for one in found] == [
            len(plain.tokenizer(text)["input_ids"]) > 512 for text in texts
        ]
        # Each state and many vectors occur, so that equal ones mean something.
        assert {state for one in found for state in one["classes"]} == {0, 1, 2, 3}
        assert len({stated(one) for one in found}) > 30

    def test_it_takes_a_checkpoint_that_fills_nothing_and_we_do_not(
        self, package: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        broken = changed(folder, tmp_path / "broken", lambda weights: weights.clear())
        monkeypatch.setattr(package, "CACHE_DIR", str(broken))
        assert len(package.F1CheXbert(device="cpu").get_label("The heart is normal.")) == 14
        with pytest.raises(UserError, match="does not fill its model"):
            chexbert.load({"weights": str(broken)}, "cpu")

    def test_it_labels_nothing_as_well(self, plain: Any, values: Values, folder: Path) -> None:
        assert "".join(map(str, plain.get_label(""))) == stated(values([""])[0])
        # Equal to an empty gold by its labels; by our rule what is empty has 0.
        assert scored("chexbert/labels", folder, [""], [""]).value == 0.0


def encode_plus(self: Any, words: list[str]) -> dict[str, list[int]]:
    """Stand for the method that transformers 5 took away."""
    ids = self.convert_tokens_to_ids(words)
    return {"input_ids": [self.cls_token_id, *ids, self.sep_token_id]}


def changed(folder: Path, to: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Write a checkpoint with other weights."""
    shutil.copytree(folder, to)
    content = torch.load(to / "chexbert.pth", weights_only=True)
    change(content["model_state_dict"])
    torch.save(content, to / "chexbert.pth")
    return to


def test_known_values(values: Values) -> None:
    for output, gold, (of_output, of_gold, alike) in KNOWN:
        one, other = values([output, gold])
        assert (stated(one), stated(other)) == (of_output, of_gold)
        assert cosine(one["embedding"], other["embedding"]) == pytest.approx(alike, abs=1e-4)


def test_neighbours_in_a_batch_change_nothing(values: Values) -> None:
    texts = [*random_texts(30), *ODD]
    for text, among in zip(texts, values(texts), strict=True):
        (alone,) = values([text])
        assert among["classes"] == alone["classes"]
        assert among["embedding"] == pytest.approx(alone["embedding"], abs=2e-5)
    assert values([]) == []


def test_every_text_has_its_score_in_its_place(folder: Path, values: Values) -> None:
    # Lists with empty texts in the middle, twins, and whatever a model may write.
    texts = [*random_texts(12), *ODD]
    texts[3:3] = ["", "   ", "\r\n", "\u2028", "a\rb\u2028c\x85d", texts[0]]
    outputs, golds = [f"Assistant: {text}" for text in texts], [*texts[2:], *texts[:2]]
    shown = [" ".join(text.split()[:512])[:5120].rstrip() for text in texts]
    known = dict(zip(shown, values(shown), strict=True))
    labels = scored("chexbert/labels", folder, outputs, golds)
    vectors = scored("chexbert/embedding", folder, outputs, golds)
    for at, (output, gold) in enumerate(zip(shown, [*shown[2:], *shown[:2]], strict=True)):
        expected = [0.0, 0.0]
        if output and gold:
            one, other = known[output], known[gold]
            expected[0] = cosine(*([int(sign) for sign in stated(v)] for v in (one, other)))
            expected[1] = cosine(one["embedding"], other["embedding"])
        assert labels.per_item[at] == pytest.approx(expected[0], abs=1e-9)
        assert vectors.per_item[at] == pytest.approx(expected[1], abs=2e-5)
    empty = sum(not text for text in shown)
    assert empty == 4
    cut = [bool(text) and known[text]["cut"] for text in shown]
    assert vectors.notes == {
        "n_empty": empty,
        "n_empty_gold": empty,
        "n_capped": 2,
        "n_gave_up": 0,
        "n_cut": sum(a or b for a, b in zip(cut, [*cut[2:], *cut[:2]], strict=True)),
    }
    assert vectors.notes["n_cut"] == 4
    assert labels.made_with == vectors.made_with == chexbert.describe({"weights": str(folder)})


@pytest.mark.parametrize("name", ["chexbert/labels", "chexbert/embedding"])
def test_what_is_no_list_of_pairs_of_texts(name: str, folder: Path) -> None:
    with pytest.raises(UserError, match="2 predictions but 1 golds"):
        scored(name, folder, ["normal", "normal"], ["normal"])
    with pytest.raises(UserError, match="row 1 has no output"):
        scored(name, folder, ["normal", None], ["normal", "normal"])
    assert scored(name, folder, [], []).value is None


def test_reports_without_labels(folder: Path, tmp_path: Path) -> None:
    # All heads but the first say blank; that one says positive of half of the texts.
    texts = random_texts(20)

    def quiet(weights: dict[str, Any]) -> None:
        for head in range(14):
            weights[f"module.linear_heads.{head}.bias"][0] += 1e3

    silent = changed(folder, tmp_path / "silent", quiet)

    def one_head(weights: dict[str, Any]) -> None:
        quiet(weights)
        weight = weights["module.linear_heads.0.weight"]
        read = chexbert.load({"weights": str(silent)}, "cpu")
        vectors = torch.tensor([one["embedding"] for one in read([(text,) for text in texts])])
        margins = (vectors @ (weight[1] - weight[0])).sort().values
        weights["module.linear_heads.0.bias"].copy_(
            torch.tensor([float(margins[9:11].mean()), 0.0, -1e3, -1e3])
        )

    half = changed(folder, tmp_path / "half", one_head)
    found = scored("chexbert/labels", half, texts, [texts[-1], *texts[:-1]])
    read = chexbert.load({"weights": str(half)}, "cpu")
    has = ["1" in stated(one) for one in read([(text,) for text in texts])]
    assert sum(has) == 10
    others = [has[-1], *has[:-1]]
    # Equal where both or none has the label, and then 1; else 0: never nothing.
    assert found.per_item == tuple(float(a == b) for a, b in zip(has, others, strict=True))
    assert found.notes["n_both_blank"] == sum(
        not a and not b for a, b in zip(has, others, strict=True)
    )
    assert found.notes["n_one_blank"] == sum(a != b for a, b in zip(has, others, strict=True))
    assert found.notes["n_both_blank"] * found.notes["n_one_blank"] > 0


def test_own_examples(folder: Path) -> None:
    for name in ("chexbert/labels", "chexbert/embedding"):
        metric = load_metric(f"{name}[weights={folder}]")
        assert not metric.published
        assert metric.full_name == name  # a path is no part of what a score is
        assert {value for *_, value in metric.golden} == {0.0, 1.0}
        check_golden(metric)


def test_published_examples_follow_from_the_packages_test() -> None:
    # Its test has five pairs. Over their fourteen labels the golds have six positives (2
    # cardiomegaly, 1 opacity, 1 lesion, 1 consolidation, 1 no finding), the outputs five, two of
    # them in common, consolidation and no finding; and the mean over the pairs of each one's F1 is
    # 0.4. So two pairs are equal with one label each, and the others have nothing in common.
    positives, said, common, mean = 6, 5, 2, 0.4
    assert 2 * common / (positives + said) == pytest.approx(0.36363636)  # what it expects
    assert mean * 5 == common
    examples = {gold: value for _, gold, value in CheXbertLabels.golden_published}
    assert sorted(examples.values()) == [0.0, 0.0, 1.0]
    assert examples["No pleural effusions."] == 1.0


class TestTheOfficialVariant:
    def test_strips_letters_and_replaces_what_is_short(self, folder: Path, values: Values) -> None:
        sentence = "No report generated."
        golds = ["the heart is normal", "no edema at all", "clear", ""]
        outputs = ["Assistant: the heart is normal in its size", "", "ok", "the lungs are clear"]
        # The t in front is one of the letters of "Assistant:".
        name = f"chexbert/embedding[variant=official,weights={folder}]"
        found = score(name, predictions=outputs, golds=golds)
        seen = ["the heart is normal in its size", sentence, sentence, "he lungs are clear"]
        known = [golds[0], golds[1], sentence, sentence]
        expected = [
            cosine(*(one["embedding"] for one in values(pair)))
            for pair in zip(seen, known, strict=True)
        ]
        assert list(found.per_item) == pytest.approx(expected, abs=2e-5)
        assert found.per_item[2] == pytest.approx(1.0)
        assert found.notes["n_replaced"] == 3
        assert found.notes["n_empty"] == found.notes["n_empty_gold"] == 0
        assert found.name == "chexbert/embedding[strip=characters,replace_short=on]"

    def test_nothing_is_replaced_otherwise(self) -> None:
        rows: list[Row] = [{"id": "a", "kind": "report", "output": "ok", "gold": ""}]
        metric = CheXbertEmbedding()
        assert metric.let_in(rows).pairs == [("ok", "")]
        assert metric.let_in(rows).notes == {"n_empty": 0, "n_empty_gold": 1, "n_capped": 0}
        assert metric.notes(rows) == {}
        assert "official" not in plugins.get("metric", "chexbert/labels").variants


class TestBrokenCheckpoints:
    def refusal(self, folder: Path) -> UserError:
        with pytest.raises(UserError) as raised:
            chexbert.load({"weights": str(folder)}, "cpu")
        assert len(raised.value.lines()) == 3
        return raised.value

    @pytest.mark.parametrize(
        "lost", ["module.linear_heads.13.bias", "module.bert.encoder.layer.1.output.dense.weight"]
    )
    def test_one_weight_is_missing(self, lost: str, folder: Path, tmp_path: Path) -> None:
        error = self.refusal(changed(folder, tmp_path / "x", lambda weights: weights.pop(lost)))
        assert error.why == f"1 weights are not in it, first: {lost.removeprefix('module.')}."

    def test_a_weight_has_another_shape(self, folder: Path, tmp_path: Path) -> None:
        def cut(weights: dict[str, Any]) -> None:
            weights["module.linear_heads.0.weight"] = weights["module.linear_heads.13.weight"]

        assert "cannot be read" in self.refusal(changed(folder, tmp_path / "x", cut)).what

    @pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
    def test_the_file_is_none_or_half_of_one(
        self, content: bytes | None, folder: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(folder, tmp_path / "x")
        file = tmp_path / "x" / "chexbert.pth"
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2] if content is None else content)
        assert "chexbert.pth cannot be read" in self.refusal(tmp_path / "x").what

    def test_nothing_in_a_file_is_run(self, folder: Path, tmp_path: Path) -> None:
        shutil.copytree(folder, tmp_path / "x")
        torch.save({"model_state_dict": Trap(tmp_path / "ran")}, tmp_path / "x" / "chexbert.pth")
        assert "cannot be read" in self.refusal(tmp_path / "x").what
        assert not (tmp_path / "ran").exists()

    def test_extra_names_of_older_libraries_are_passed_over(
        self, folder: Path, tmp_path: Path, values: Values
    ) -> None:
        name = "module.bert.embeddings.position_ids"
        older = changed(
            folder, tmp_path / "x", lambda weights: weights.update({name: torch.arange(512)})
        )
        read = chexbert.load({"weights": str(older)}, "cpu")
        assert read([("The heart is normal.",)]) == values(["The heart is normal."])


class Trap:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


class TestWhereItLies:
    """The published checkpoint is looked for where the package and the hub's cache keep it."""

    @pytest.fixture
    def hub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
        return tmp_path / "hub"

    def fill(self, hub: Path, name: str, files: Sequence[Path]) -> Path:
        repository = hub / f"models--{name.replace('/', '--')}"
        commit = "a" * 40
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(commit)
        (repository / "snapshots" / commit).mkdir(parents=True)
        for file in files:
            shutil.copy(file, repository / "snapshots" / commit / file.name)
        return repository / "snapshots" / commit

    def described(self, folder: Path, hub: Path) -> None:
        names = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
        self.fill(hub, "bert-base-uncased", [folder / name for name in names])

    def test_nowhere(self, hub: Path) -> None:
        with pytest.raises(UnavailableError) as raised:
            chexbert.describe({"weights": ""})
        assert raised.value.lines() == [
            "StanfordAIMI/RRG_scorers is not on this machine",
            "Its file chexbert.pth was not downloaded yet.",
            "medbench doctor --metric chexbert/labels --fetch",
        ]

    def test_where_the_package_keeps_it(self, folder: Path, hub: Path, tmp_path: Path) -> None:
        place = tmp_path / "cache" / "chexbert" / "chexbert.pth"
        place.parent.mkdir(parents=True)
        shutil.copy(folder / "chexbert.pth", place)
        with pytest.raises(UnavailableError, match="bert-base-uncased is not on this machine"):
            chexbert.describe({"weights": ""})
        self.described(folder, hub)
        assert chexbert.describe({"weights": ""}) == chexbert.describe({"weights": str(folder)})

    def test_in_the_hubs_cache(self, folder: Path, hub: Path, values: Values) -> None:
        self.described(folder, hub)
        snapshot = self.fill(hub, "StanfordAIMI/RRG_scorers", [folder / "chexbert.pth"])
        assert chexbert.describe({"weights": ""}) == chexbert.describe({"weights": str(folder)})
        # By a process of its own, which looks there as well.
        found = score("chexbert/embedding", predictions=[KNOWN[0][0]], golds=[KNOWN[0][1]])
        assert found.value == pytest.approx(KNOWN[0][2][2], abs=1e-4)
        # The hub's client calls a large file by its hash.
        blob = snapshot.parents[1] / "blobs" / ("0" * 64)
        blob.parent.mkdir()
        (snapshot / "chexbert.pth").rename(blob)
        (snapshot / "chexbert.pth").symlink_to(blob)
        with pytest.raises(UserError, match="chexbert.pth is damaged"):
            chexbert.describe({"weights": ""})

    @pytest.mark.parametrize(
        ("lost", "what"),
        [
            (["chexbert.pth"], "lacks chexbert.pth"),
            (["config.json"], "lacks config.json"),
            (["tokenizer.json", "vocab.txt"], "has no tokenizer"),
        ],
    )
    def test_a_folder_that_lacks_something(
        self, lost: list[str], what: str, folder: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(folder, tmp_path / "x")
        for name in lost:
            (tmp_path / "x" / name).unlink()
        with pytest.raises(UserError, match=what):
            chexbert.describe({"weights": str(tmp_path / "x")})
        with pytest.raises(UserError, match="chexbert/labels: .*nowhere lacks"):
            chexbert.describe({"weights": str(tmp_path / "nowhere")})

    def test_whatever_moves_a_value_is_told(self, folder: Path, tmp_path: Path) -> None:
        before = chexbert.describe({"weights": str(folder)})
        assert {"torch", "transformers", "tokenizers"} < before.keys()
        shutil.copytree(folder, tmp_path / "x")
        for name in ("chexbert.pth", "config.json", "tokenizer.json", "vocab.txt"):
            with (tmp_path / "x" / name).open("ab") as file:
                file.write(b" ")
            after = chexbert.describe({"weights": str(tmp_path / "x")})
            assert after[name] != before[name]

    def test_looking_imports_nothing_heavy(self, folder: Path) -> None:
        script = (
            "import sys; from medbench.scorers import chexbert; "
            "chexbert.describe({'weights': sys.argv[1]}); "
            "print({'torch', 'transformers', 'numpy'} & set(sys.modules))"
        )
        said = subprocess.run(
            [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True
        )
        assert said.stdout.strip() == "set()"
