"""RaTEScore: the package's values, one for each pair, in its place, and never of random weights."""

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

pytest.importorskip("medspacy", reason="medbench[clinical] is not installed")

from safetensors.torch import load_file, save_file

from medbench.errors import UnavailableError, UserError
from medbench.metric import Setting
from medbench.scorers import rate
from medbench.scoring import Score, check_golden, load_metric, score
from tests.metrics.tiny import rate as tiny

Values = Callable[[Sequence[tuple[str, ...]]], list[dict[str, Any]]]

# Values of RaTEScore 0.6.0 and of 0.5.0, with transformers 4.57.6 and torch 2.13 on these models.
KNOWN = (
    (
        "The heart is normal in size. No pleural effusion.",
        "The lungs are clear. There is no pneumothorax.",
        (0.967698, 0.857370),
    ),
    (
        "Mild bilateral edema. Opacity of the left lobe.",
        "Opacity in left lobe, 2 cm.",
        (0.972897, 0.872099),
    ),
    (
        "The chest is stable.",
        "Large pleural effusion on the right. Consolidation.",
        (0.942570, 0.752744),
    ),
)
# The same, of texts that transformers 5 reads in another way: a raised 2, a 3 of full width.
KNOWN_BEYOND_ASCII = (
    (
        "Mild bilateral edema. Opacity of the left lobe 3 cm\u00b2.",
        "Opacity in left lobe, 2 cm.",
        (0.974356, 0.873859),
    ),
    (
        "Opacity of \uff13 cm in the left lobe.",
        "Opacity in left lobe, 2 cm.",
        (0.975329, 0.882957),
    ),
)
SENTENCES = (
    "The heart is normal in size.",
    "No pleural effusion or pneumothorax.",
    "The lungs are clear.",
    "There is a small left pleural effusion.",
    "Mild bilateral edema.",
    "Stable consolidation of the right lobe, 3 cm.",
    "Degenerative changes in the thoracic spine.",
    "Heart size normal",
    "no Heart effusion. Heart. heart",
)
# What a text must not be for the package: of these it finds no sentence.
WITHOUT = ("", " ", "ok", "..")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("rate")
    return {"ner": str(tiny.ner(root / "ner")), "encoder": str(tiny.encoder(root / "encoder"))}


@pytest.fixture(scope="session")
def values(models: dict[str, str]) -> Values:
    return rate.load(models, "cpu")


@pytest.fixture(autouse=True)
def own_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def package(models: dict[str, str], matrix: str = "long") -> Any:
    from RaTEScore import RaTEScore

    return RaTEScore(
        bert_model=models["ner"],
        eval_model=models["encoder"],
        use_gpu=False,
        affinity_matrix=matrix,
    )


def computed(scorer: Any, pairs: Sequence[tuple[str, ...]]) -> list[float]:
    return scorer.compute_score([pair[0] for pair in pairs], [pair[1] for pair in pairs])


def reports(count: int) -> list[str]:
    generator = random.Random(2)
    return [" ".join(generator.sample(SENTENCES, generator.randint(1, 6))) for _ in range(count)]


def of(found: Sequence[dict[str, Any]], release: str = "0.6.0") -> list[float]:
    return [one[release] for one in found]


def broken(folder: str, to: Path, name: str) -> str:
    """Write a copy of a model without one of its weights."""
    shutil.copytree(folder, to)
    kept = {k: v for k, v in load_file(to / "model.safetensors").items() if k != name}
    save_file(kept, to / "model.safetensors", {"format": "pt"})
    return str(to)


class TestValues:
    @pytest.mark.parametrize("at", [0, 1])
    def test_are_those_of_transformers_4(self, at: int, values: Values) -> None:
        known = [*KNOWN, *KNOWN_BEYOND_ASCII]
        found = of(values([one[:2] for one in known]), ("0.6.0", "0.5.0")[at])
        assert found == pytest.approx([one[2][at] for one in known], abs=1e-5)

    def test_the_package_under_transformers_5_reads_some_texts_in_another_way(
        self, models: dict[str, str]
    ) -> None:
        scorer = package(models)
        plain = computed(scorer, [one[:2] for one in KNOWN])
        assert plain == pytest.approx([one[2][0] for one in KNOWN], abs=1e-5)
        beyond = computed(scorer, [one[:2] for one in KNOWN_BEYOND_ASCII])
        for found, known in zip(beyond, KNOWN_BEYOND_ASCII, strict=True):
            assert abs(found - known[2][0]) > 0.001

    def test_against_the_package_in_any_order_and_company(
        self, values: Values, models: dict[str, str]
    ) -> None:
        many = reports(80)
        pairs = list(zip(many[:40], many[40:], strict=True))
        expected = computed(package(models), pairs)
        assert len(set(expected)) > 30
        assert of(values(pairs)) == pytest.approx(expected, abs=1e-9)
        assert of(values(pairs[::-1]))[::-1] == pytest.approx(expected, abs=1e-9)
        # Nothing is remembered from before.
        fresh = rate.load(models, "cpu")
        assert of(fresh([pairs[3]])) == pytest.approx(expected[3:4], abs=1e-9)

    def test_release_050_is_the_package_with_another_weight_of_negation(
        self, values: Values, models: dict[str, str], tmp_path: Path
    ) -> None:
        from RaTEScore.scorer import DEFAULT_MATRIX_LONG

        file = tmp_path / "matrix.json"
        file.write_text(json.dumps({**DEFAULT_MATRIX_LONG, "neg_weight": 0.3612}))
        pairs = [one[:2] for one in KNOWN]
        expected = computed(package(models, str(file)), pairs)
        assert of(values(pairs), "0.5.0") == pytest.approx(expected, abs=1e-9)

    def test_entities_are_counted(self, values: Values) -> None:
        one, other = values([KNOWN[0][:2], KNOWN[0][1::-1]])
        assert min(one["entities"]) > 0
        assert other["entities"] == one["entities"][::-1]
        assert other["0.6.0"] == pytest.approx(one["0.6.0"], abs=1e-9)

    def test_without_entities(self, models: dict[str, str], tmp_path: Path) -> None:
        ner = tmp_path / "ner"
        shutil.copytree(models["ner"], ner)
        weights = load_file(ner / "model.safetensors")
        weights["classifier.bias"][0] = 1e4  # of O
        save_file(weights, ner / "model.safetensors", {"format": "pt"})
        settings = {**models, "ner": str(ner)}
        pairs = [one[:2] for one in KNOWN]
        assert computed(package(settings), pairs) == [0.5] * 3
        for one in rate.load(settings, "cpu")(pairs):
            assert one == {"0.6.0": 0.5, "0.5.0": 0.5, "entities": [0, 0]}

    @pytest.mark.parametrize("text", WITHOUT)
    def test_without_a_sentence(self, text: str, values: Values, models: dict[str, str]) -> None:
        with pytest.raises(IndexError):
            computed(package(models), [(text, SENTENCES[0])])
        (found,) = values([(text, SENTENCES[0])])
        assert found["0.6.0"] == 0.5
        assert found["entities"][0] == 0 < found["entities"][1]

    def test_the_package_drops_items_and_shifts_the_rest(
        self, values: Values, models: dict[str, str]
    ) -> None:
        scorer = package(models)
        pairs = [one[:2] for one in KNOWN]
        right = computed(scorer, pairs)
        for text in WITHOUT:
            with_one = [pairs[0], (text, SENTENCES[4]), *pairs[1:]]
            found = computed(scorer, with_one)
            assert len(found) == 3
            assert found[0] == right[0]
            # Each output after it is compared with the gold of the one before.
            shifted = [(pairs[1][0], SENTENCES[4]), (pairs[2][0], pairs[1][1])]
            assert found[1:] == computed(scorer, shifted) != right[1:]
            ours = of(values(with_one))
            assert ours == pytest.approx([right[0], 0.5, *right[1:]], abs=1e-9)

    def test_its_sentence_splitter_is_silent(self, values: Values) -> None:
        from loguru import logger

        said: list[str] = []
        sink = logger.add(said.append, level="TRACE")
        try:
            values([("No large opacity there. The chest is clear.", "The heart is large.")])
        finally:
            logger.remove(sink)
        assert said == []

    @pytest.mark.parametrize(
        "text",
        [
            "\U0001fac1 \U0001f600",
            "lungs \U0001f600 clear",
            "心脏正常。",
            "heart " * 512,
            "no [SEP] [CLS] effusion </s> <pad>",
            "the heart is normal in size and " * 100,
            "effusion." * 100,
        ],
    )
    def test_odd_texts_have_the_packages_value(
        self, text: str, values: Values, models: dict[str, str]
    ) -> None:
        (expected,) = computed(package(models), [(text, SENTENCES[0])])
        (found,) = values([(text, SENTENCES[0])])
        assert found["0.6.0"] == pytest.approx(expected, abs=1e-6)


class TestScores:
    def score(
        self,
        models: dict[str, str],
        pairs: Sequence[tuple[str, str]],
        more: str = "",
        setting: Setting | None = None,
    ) -> Score:
        return score(
            f"ratescore[ner={models['ner']},encoder={models['encoder']}{more}]",
            predictions=[output for output, _ in pairs],
            golds=[gold for _, gold in pairs],
            setting=setting,
        )

    def test_nothing_is_dropped_or_shifted(self, models: dict[str, str], values: Values) -> None:
        pairs = [
            KNOWN[0][:2],
            ("", SENTENCES[0]),
            ("ok", SENTENCES[1]),
            (" \n", SENTENCES[2]),
            KNOWN[1][:2],
            ("heart\ris\u2028normal\u0085no\x0bedema", "The heart is normal."),
            (SENTENCES[0], ""),
            ("\U0001fac1", SENTENCES[3]),
            ("", ""),
            ("heart " * 600, SENTENCES[4]),
            (SENTENCES[0], "no"),
            ("Assistant: " + KNOWN[2][0], KNOWN[2][1]),
        ]
        asked = {
            0: pairs[0], 2: pairs[2], 4: pairs[4], 5: ("heart is normal no edema", pairs[5][1]),
            7: pairs[7], 9: ("heart " * 511 + "heart", pairs[9][1]), 10: pairs[10],
            11: KNOWN[2][:2],
        }  # fmt: skip
        expected = [0.0] * len(pairs)
        for at, one in zip(asked, of(values(list(asked.values()))), strict=True):
            expected[at] = one
        found = self.score(models, pairs, setting=Setting(python=sys.executable))
        assert found.per_item == pytest.approx(expected, abs=1e-6)
        assert [expected[at] for at in (2, 7, 10)] == [0.5] * 3
        assert found.value == pytest.approx(sum(expected) / len(pairs))
        assert found.notes == {
            "n_empty": 3, "n_empty_gold": 2, "n_capped": 1, "n_gave_up": 0, "n_no_entity": 3,
        }  # fmt: skip
        assert found.name == "ratescore"
        assert found.made_with == rate.describe(models)
        earlier = self.score(models, pairs[:1], ",release=0.5.0")  # of the same computation
        assert earlier.name == "ratescore[release=0.5.0]"
        assert earlier.value == pytest.approx(KNOWN[0][2][1], abs=1e-5)

    @pytest.mark.parametrize("nothing", [None, 3.5, float("nan")])
    def test_what_is_no_text(self, nothing: Any, models: dict[str, str]) -> None:
        with pytest.raises(UserError, match="has no output"):
            self.score(models, [(nothing, "the heart")])

    @pytest.mark.slow
    def test_own_examples(self, models: dict[str, str]) -> None:
        check_golden(load_metric(f"ratescore[ner={models['ner']},encoder={models['encoder']}]"))


class TestWeights:
    @pytest.mark.parametrize(
        ("part", "name"),
        [
            ("ner", "classifier.weight"),
            ("ner", "deberta.encoder.layer.1.attention.self.query_proj.weight"),
            ("encoder", "encoder.layer.0.attention.attn.v.bias"),
            ("encoder", "embeddings.word_embeddings.weight"),
        ],
    )
    def test_random_ones_never_score(
        self, part: str, name: str, models: dict[str, str], tmp_path: Path
    ) -> None:
        settings = {**models, part: broken(models[part], tmp_path / part, name)}
        assert len(computed(package(settings), [KNOWN[0][:2]])) == 1  # not a word from the package
        with pytest.raises(UserError) as raised:
            rate.load(settings, "cpu")
        assert raised.value.what == f"{settings[part]} does not fill its model"
        assert raised.value.why == f"1 weights are not in it, first: {name}."

    def test_what_is_not_used_may_be_missing(
        self, models: dict[str, str], values: Values, tmp_path: Path
    ) -> None:
        encoder = broken(models["encoder"], tmp_path / "encoder", "pooler.dense.weight")
        found = rate.load({**models, "encoder": encoder}, "cpu")([KNOWN[0][:2]])
        assert found == values([KNOWN[0][:2]])

    @pytest.mark.parametrize("names", [{"0": "O", "1": "B-PERSON"}, {"0": "O"}])
    def test_other_kinds_of_entities(
        self, names: dict[str, str], models: dict[str, str], tmp_path: Path
    ) -> None:
        ner = tmp_path / "ner"
        shutil.copytree(models["ner"], ner)
        config = json.loads((ner / "config.json").read_text())
        config |= {"id2label": names, "label2id": {name: int(at) for at, name in names.items()}}
        (ner / "config.json").write_text(json.dumps(config))
        weights = load_file(ner / "model.safetensors")
        for name in ("classifier.weight", "classifier.bias"):
            weights[name] = weights[name][: len(names)].clone()
        save_file(weights, ner / "model.safetensors", {"format": "pt"})
        with pytest.raises(UserError, match="finds other kinds of entities"):
            rate.load({**models, "ner": str(ner)}, "cpu")

    @pytest.mark.parametrize(
        ("part", "name"), [(part, name) for part in rate.FILES for name in rate.FILES[part]]
    )
    def test_missing_files(
        self, part: str, name: str, models: dict[str, str], tmp_path: Path
    ) -> None:
        shutil.copytree(models[part], tmp_path / part)
        (tmp_path / part / name).unlink()
        with pytest.raises(UserError, match=f"lacks {name}"):
            rate.describe({**models, part: str(tmp_path / part)})

    def test_what_they_are_counts_and_not_where(
        self, models: dict[str, str], tmp_path: Path
    ) -> None:
        for part in models:
            shutil.copytree(models[part], tmp_path / part)
        same = {part: str(tmp_path / part) for part in models}
        assert rate.describe(same) == rate.describe(models)
        file = tmp_path / "encoder" / "special_tokens_map.json"
        file.write_text(file.read_text().replace("[UNK]", "<unk>"))
        assert rate.describe(same) != rate.describe(models)

    def test_published_ones_are_found_in_the_cache_of_the_hub(
        self,
        models: dict[str, str],
        values: Values,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        for part, hub_id in rate.HUB_IDS.items():
            with pytest.raises(UnavailableError, match=hub_id) as raised:
                rate.describe({"ner": "", "encoder": ""})
            assert raised.value.do == "medbench doctor --metric ratescore --fetch"
            folder = tmp_path / f"models--{hub_id.replace('/', '--')}"
            (folder / "refs").mkdir(parents=True)
            (folder / "refs/main").write_text("0" * 40)
            shutil.copytree(models[part], folder / "snapshots" / ("0" * 40))
        published = {"ner": "", "encoder": ""}
        assert rate.describe(published) == rate.describe(models)
        assert rate.load(published, "cpu")([KNOWN[0][:2]]) == values([KNOWN[0][:2]])


class TestPackages:
    """What is installed is told by metadata alone, so small folders stand for packages here."""

    def install(self, folder: Path, **versions: str) -> None:
        for name, version in versions.items():
            about = folder / f"{name}-{version}.dist-info" / "METADATA"
            about.parent.mkdir()
            about.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")

    @pytest.mark.parametrize(
        ("spacy", "numpy", "fits"),
        [
            ("3.7.5", "2.4.6", False),
            ("3.7.5", "1.26.4", True),
            ("3.8.18", "2.4.6", True),
            ("4.0.0.dev3", "3.0", True),
        ],
    )
    def test_spacy_must_fit_numpy(
        self,
        spacy: str,
        numpy: str,
        fits: bool,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.install(tmp_path, spacy=spacy, numpy=numpy)
        monkeypatch.syspath_prepend(str(tmp_path))
        if fits:
            rate.check_packages()
            return
        with pytest.raises(UnavailableError) as raised:
            rate.check_packages()
        assert "spaCy is a 3.7" in raised.value.why
        assert 'pip install "spacy>=3.8,<3.9"' in raised.value.do
        assert "--python" in raised.value.do

    def test_another_release(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.install(tmp_path, ratescore="0.5.0")
        monkeypatch.syspath_prepend(str(tmp_path))
        with pytest.raises(UnavailableError, match=r"RaTEScore is 0\.5\.0"):
            rate.check_packages()

    @pytest.mark.parametrize("installed", [False, True])
    def test_finding_out_is_light(
        self, installed: bool, models: dict[str, str], tmp_path: Path
    ) -> None:
        program = tmp_path / "program.py"
        program.write_text(
            "import sys\n"
            f"if not {installed}:\n"
            "    sys.path[:] = [one for one in sys.path if 'site-packages' not in one]\n"
            f"sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
            "from medbench.errors import UnavailableError\n"
            "from medbench.scorers import rate\n"
            "try:\n"
            f"    rate.describe({models!r})\n"
            "    print('there')\n"
            "except UnavailableError as error:\n"
            "    print(*error.lines(), sep='\\n')\n"
            "heavy = {'torch', 'transformers', 'medspacy', 'spacy', 'RaTEScore', 'numpy'}\n"
            "sys.exit(bool(heavy & set(sys.modules)))\n"
        )
        done = subprocess.run([sys.executable, program], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        lines = done.stdout.splitlines()
        if installed:
            assert lines == ["there"]
        elif sys.version_info < (3, 12):
            assert lines[0] == "RaTEScore is not installed in this Python"
            assert "--python" in lines[2]
        else:
            assert lines[0] == "medbench[clinical] is not installed"
            assert "RaTEScore, medspacy" in lines[1]
