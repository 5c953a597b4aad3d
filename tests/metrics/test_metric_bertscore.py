"""BERTScore: the values of transformers 4, one for each pair, and never of random weights."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("bert_score", reason="medbench[report] is not installed")

from safetensors.torch import load_file, save_file

from medbench.errors import UnavailableError, UserError
from medbench.metrics.bertscore import BertScore
from medbench.scorers import bert
from medbench.scoring import Score, check_golden, load_metric, score
from tests.metrics.tiny.bert import checkpoint

Values = Callable[[Sequence[tuple[str, ...]]], list[dict[str, Any]]]

# Values of bert-score 0.3.13 with transformers 4.57.6 and torch 2.13 on this checkpoint.
KNOWN = (
    ("The heart is normal.", "the heart is clear.", 0.891690),
    ("lung normal", "The lungs are normal and clear", 0.905010),
    ("No \U0001fac1 effusion", "Hello", 0.921069),
    ("the " * 700, "the heart", 0.681598),
    ("ok", "no", 0.979350),
)
WORDS = ("the", "heart", "lung", "is", "clear", "no", "The", "2", "cm.", "edema,", "(left)", "²")


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("bert") / "model")


@pytest.fixture(scope="session")
def values(weights: Path) -> Values:
    return bert.load({"weights": str(weights)}, "cpu")


@pytest.fixture(autouse=True)
def own_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def package(weights: Path, *, repaired: bool = False, **changes: Any) -> Any:
    """Return the package's scorer; repaired, with a tokenizer that puts a blank in front."""
    from bert_score import BERTScorer
    from transformers import RobertaTokenizer

    scorer = BERTScorer(model_type=str(weights), num_layers=17, lang="en", **changes)
    if repaired:
        scorer._tokenizer = RobertaTokenizer.from_pretrained(weights, add_prefix_space=True)
    return scorer


def f1(scorer: Any, pairs: Sequence[tuple[str, ...]]) -> list[float]:
    return scorer.score([pair[0] for pair in pairs], [pair[1] for pair in pairs])[2].tolist()


def texts(count: int) -> list[str]:
    generator = random.Random(4)
    return [" ".join(generator.choices(WORDS, k=generator.randint(1, 40))) for _ in range(count)]


def broken(weights: Path, folder: Path, drop: Callable[[str], bool]) -> Path:
    """Write a copy without some of the weights."""
    shutil.copytree(weights, folder)
    kept = {k: v for k, v in load_file(folder / "model.safetensors").items() if not drop(k)}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    return folder


class TestValues:
    def test_are_those_of_transformers_4(self, values: Values) -> None:
        found = [one["f1"] for one in values([known[:2] for known in KNOWN])]
        assert found == pytest.approx([known[2] for known in KNOWN], abs=1e-5)

    def test_the_package_alone_loses_the_blank_before_the_first_word(
        self, values: Values, weights: Path
    ) -> None:
        pairs = [known[:2] for known in KNOWN]
        plain, repaired = f1(package(weights), pairs), f1(package(weights, repaired=True), pairs)
        assert abs(plain[0] - KNOWN[0][2]) > 0.01
        assert repaired == pytest.approx([known[2] for known in KNOWN], abs=1e-5)

    def test_against_the_package_in_any_order_and_company(
        self, values: Values, weights: Path
    ) -> None:
        many = texts(300)
        pairs = list(zip(many[:150], many[150:], strict=True))
        expected = f1(package(weights, repaired=True), pairs)
        assert len(set(expected)) > 100
        assert [one["f1"] for one in values(pairs)] == pytest.approx(expected, abs=1e-6)
        backwards = [one["f1"] for one in values(pairs[::-1])][::-1]
        assert backwards == pytest.approx(expected, abs=1e-6)
        alone = [values([pair])[0]["f1"] for pair in pairs[:5]]
        assert alone == pytest.approx(expected[:5], abs=1e-6)

    @pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")  # the package's
    def test_rescaled_against_the_package(self, values: Values, weights: Path) -> None:
        import bert_score

        shipped = Path(bert_score.__file__).parent / "rescale_baseline/en/roberta-large.tsv"
        scorer = package(
            weights, repaired=True, rescale_with_baseline=True, baseline_path=str(shipped)
        )
        pairs = [known[:2] for known in KNOWN]
        expected = f1(scorer, pairs)
        assert min(expected) < 0 < max(expected)
        assert [one["rescaled"] for one in values(pairs)] == pytest.approx(expected, abs=1e-5)

    def test_equal_texts(self, values: Values) -> None:
        for one in values([(text, text) for text in texts(20)]):
            assert one["f1"] == pytest.approx(1.0, abs=1e-6)
            assert one["rescaled"] == pytest.approx(1.0, abs=1e-5)

    def test_special_tokens_in_a_text_give_a_number(self, values: Values) -> None:
        found = [one["f1"] for one in values([("</s>", "the heart"), ("<pad> a", "<mask> </s>")])]
        assert all(0 <= value <= 1 for value in found)

    def test_of_more_than_512_tokens_the_first_are_read(self, values: Values) -> None:
        start = "the lung " * 300
        one, other, short = values(
            [(start, "clear"), (start + "heart " * 50, "clear"), ("the lung", "clear")]
        )
        assert one["f1"] == other["f1"] != short["f1"]
        assert [found["cut"] for found in (one, other, short)] == [True, True, False]

    def test_a_tokenizer_without_a_length_is_no_matter(self, weights: Path, tmp_path: Path) -> None:
        folder = tmp_path / "model"
        shutil.copytree(weights, folder)
        (folder / "tokenizer_config.json").unlink()
        with pytest.raises(OverflowError):
            f1(package(folder), [("heart", "lung")])
        (found,) = bert.load({"weights": str(folder)}, "cpu")([KNOWN[0][:2]])
        assert found["f1"] == pytest.approx(KNOWN[0][2], abs=1e-5)


class TestScores:
    def score(self, weights: Path, pairs: Sequence[tuple[str, str]], more: str = "") -> Score:
        return score(
            f"bertscore[weights={weights}{more}]",
            predictions=[output for output, _ in pairs],
            golds=[gold for _, gold in pairs],
        )

    def test_nothing_is_dropped_or_shifted(self, weights: Path, values: Values) -> None:
        pairs = [
            ("The heart is normal.", "the heart is clear."),
            ("", "the lungs are clear"),
            (" \t\n", "the lungs are clear"),
            ("ok", "no"),
            ("the heart\ris\u2028normal\u0085no\x0bedema", "the heart is normal no edema"),
            ("\U0001fac1", "the lungs \U0001f600 are clear"),
            ("the lungs are clear", ""),
            ("", ""),
            ("heart " * 1600, "the heart " * 5),
            ("Assistant: lung normal", "The lungs are normal and clear"),
        ]
        with pytest.raises(AttributeError):
            f1(package(weights), pairs)  # an empty text is more than it can take
        found = self.score(weights, pairs)
        left = [at for at in range(len(pairs)) if at not in (1, 2, 6, 7)]
        clean = [
            pairs[0], pairs[3], ("the heart is normal no edema",) * 2, pairs[5],
            ("heart " * 512, "the heart " * 5), ("lung normal", pairs[9][1]),
        ]  # fmt: skip
        expected = [0.0] * len(pairs)
        for at, one in zip(left, values(clean), strict=True):
            expected[at] = one["f1"]
        assert found.per_item == pytest.approx(expected, abs=1e-6)
        assert found.value == pytest.approx(sum(expected) / len(pairs))
        assert found.notes == {
            "n_empty": 3, "n_empty_gold": 2, "n_capped": 1, "n_gave_up": 0, "n_cut": 1,
        }  # fmt: skip
        assert found.name == "bertscore"
        assert found.made_with == bert.describe({"weights": str(weights)})
        rescaled = self.score(weights, pairs[:1], ",rescaled=on")  # of the same computation
        assert rescaled.name == "bertscore[rescaled=on]"
        assert rescaled.per_item == pytest.approx([values(clean[:1])[0]["rescaled"]], abs=1e-5)

    @pytest.mark.parametrize("nothing", [None, 3.5, float("nan")])
    def test_what_is_no_text(self, nothing: Any, weights: Path) -> None:
        with pytest.raises(UserError, match="has no output"):
            self.score(weights, [(nothing, "the heart")])

    def test_lengths_must_agree(self, weights: Path) -> None:
        with pytest.raises(UserError, match="2 predictions but 1 golds"):
            score(f"bertscore[weights={weights}]", predictions=["a", "b"], golds=["a"])

    def test_own_examples(self, weights: Path) -> None:
        check_golden(load_metric(f"bertscore[weights={weights}]"))


class TestWeights:
    @pytest.mark.parametrize(
        "name",
        [
            "roberta.encoder.layer.16.output.dense.weight",
            "roberta.encoder.layer.0.attention.self.key.bias",
            "roberta.embeddings.word_embeddings.weight",
        ],
    )
    def test_random_ones_never_score(self, name: str, weights: Path, tmp_path: Path) -> None:
        folder = broken(weights, tmp_path / "model", lambda key: key == name)
        assert 0 < f1(package(folder), [("heart", "lung")])[0] <= 1  # not a word from the package
        with pytest.raises(UserError) as raised:
            bert.load({"weights": str(folder)}, "cpu")
        assert "does not fill its model" in raised.value.what
        assert "1 weights" in raised.value.why
        assert name.removeprefix("roberta.") in raised.value.why

    def test_what_is_not_used_may_be_missing(
        self, weights: Path, values: Values, tmp_path: Path
    ) -> None:
        folder = broken(
            weights, tmp_path / "model", lambda key: "layer.17." in key or "lm_head" in key
        )
        found = bert.load({"weights": str(folder)}, "cpu")([KNOWN[0][:2]])
        assert found == values([KNOWN[0][:2]])

    def test_too_few_layers(self, tmp_path: Path) -> None:
        folder = checkpoint(tmp_path / "model", layers=12)
        with pytest.raises(UserError) as raised:
            bert.load({"weights": str(folder)}, "cpu")
        assert "It is a roberta of 12 layers" in raised.value.why

    def test_another_kind_of_model(self, weights: Path, tmp_path: Path) -> None:
        from transformers import BertConfig, BertModel

        folder = tmp_path / "model"
        shutil.copytree(weights, folder)
        config = BertConfig(
            hidden_size=16, num_hidden_layers=24, num_attention_heads=2, intermediate_size=64
        )
        BertModel(config).save_pretrained(folder)
        with pytest.raises(UserError) as raised:
            bert.load({"weights": str(folder)}, "cpu")
        assert "It is a bert of 24 layers" in raised.value.why

    @pytest.mark.parametrize("name", bert.FILES)
    def test_missing_files(self, name: str, weights: Path, tmp_path: Path) -> None:
        folder = tmp_path / "model"
        shutil.copytree(weights, folder)
        (folder / name).unlink()
        with pytest.raises(UserError, match=f"lacks {name}"):
            bert.describe({"weights": str(folder)})

    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(UserError) as raised:
            bert.describe({"weights": str(tmp_path / "nowhere")})
        assert raised.value.why == "It is no folder."

    def test_what_they_are_counts_and_not_where(self, weights: Path, tmp_path: Path) -> None:
        same, other = tmp_path / "same", checkpoint(tmp_path / "other", layers=17)
        shutil.copytree(weights, same)
        assert bert.describe({"weights": str(same)}) == bert.describe({"weights": str(weights)})
        assert bert.describe({"weights": str(other)}) != bert.describe({"weights": str(weights)})

    def test_describing_is_light(self, weights: Path) -> None:
        program = (
            "import sys; from medbench.scorers import bert; "
            f"bert.describe({{'weights': {str(weights)!r}}}); "
            "sys.exit(bool({'torch', 'transformers', 'bert_score', 'numpy'} & set(sys.modules)))"
        )
        root = str(Path(__file__).parents[2])
        assert subprocess.run([sys.executable, "-c", program], cwd=root).returncode == 0


class TestPublished:
    """Where the published weights are looked for, on a small model in their place."""

    @pytest.fixture
    def hub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        folder = tmp_path / "hub"
        monkeypatch.setenv("HF_HUB_CACHE", str(folder))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
        return folder

    def lay(self, weights: Path, hub: Path, name: str) -> Path:
        folder = hub / f"models--{name}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs/main").write_text("0" * 40)
        shutil.copytree(weights, folder / "snapshots" / ("0" * 40))
        return folder

    def test_are_found_as_the_package_spells_them(self, weights: Path, hub: Path) -> None:
        self.lay(weights, hub, "FacebookAI--roberta-large")
        with pytest.raises(UnavailableError) as raised:
            score("bertscore", predictions=["heart"], golds=["lung"])
        assert raised.value.do == "medbench doctor --metric bertscore --fetch"
        self.lay(weights, hub, "roberta-large")
        (found,) = bert.load({"weights": ""}, "cpu")([KNOWN[0][:2]])
        assert found["f1"] == pytest.approx(KNOWN[0][2], abs=1e-5)

    def test_that_are_not_the_published_ones_fail_their_examples(
        self, weights: Path, hub: Path
    ) -> None:
        self.lay(weights, hub, "roberta-large")
        with pytest.raises(UserError) as raised:
            check_golden(load_metric("bertscore"))
        assert "fails its own example" in raised.value.what

    def test_damaged(self, weights: Path, hub: Path) -> None:
        folder = self.lay(weights, hub, "roberta-large")
        file = folder / "snapshots" / ("0" * 40) / "model.safetensors"
        blob = folder / "blobs" / ("a" * 64)
        blob.parent.mkdir()
        file.rename(blob)
        file.symlink_to(blob)
        with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
            bert.describe({"weights": ""})

    def test_examples_follow_the_scale(self) -> None:
        plain, rescaled = BertScore().golden_published, BertScore(rescaled=True).golden_published
        assert len(plain) == 3
        baseline = 0.83122575  # of layer 17 in bert-score's table
        for (output, gold, raw), (*texts, value) in zip(plain, rescaled, strict=True):
            assert texts == [output, gold]
            assert value == pytest.approx((raw - baseline) / (1 - baseline), abs=5e-6)
        assert json.loads(json.dumps(plain)) == [list(one) for one in plain]
