"""`medbench backbone convert`: base and delta in one, and exports that answer the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, LlavaForConditionalGeneration

import medbench
from medbench.cli import main
from medbench.errors import UserError
from medbench.model.merge import write_merged
from medbench.model.tiny_original import TOWERS, write_tiny
from medbench.model.weights import read_tensors, weight_files

GOLDEN = Path(__file__).parents[1] / "golden" / "backbones"
BASE, DELTA, TARGET = (
    GOLDEN / "checkpoints" / name
    for name in ("llama-7b-base", "llava-med-1.0-delta", "llava-med-1.0-target")
)
NAMES = {
    "llava": "llava-med",
    "llava_mistral": "llava-med-1.5",
    "llava_qwen2": "huatuogpt-vision-7b",
}
QUESTIONS = ["Is the lung normal?", " two  blanks, one in front", "é ü\nand a line", ""]


def everything(name: str) -> bool:
    return bool(name)


@pytest.fixture(scope="module", params=list(NAMES))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def spec(kind: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp(kind)
    directory = write_tiny(kind, root)
    tower = (directory if kind == "llava_qwen2" else root) / TOWERS[kind]
    return f"{NAMES[kind]}[weights={directory},vision={tower}]"


@pytest.fixture(scope="module")
def exported(spec: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "hf"
    assert main(["backbone", "convert", spec, "--out", str(out), "--dtype", "float32"]) == 0
    return out


def image() -> Image.Image:
    drawn = np.random.default_rng(1).integers(0, 255, (37, 52, 3), dtype=np.uint8)
    return Image.fromarray(drawn)


def prompted(backbone, question: str, *, training: bool = False):
    features = backbone.encode(backbone.pixel_values([image()]))[0]
    return backbone.prompt(question, features, training=training)


def test_an_export_puts_the_same_tokens_and_pixels(spec, exported):
    original = medbench.load_backbone(spec, dtype="float32")
    copy = medbench.load_backbone(f"llava-hf[weights={exported}]", dtype="float32")
    assert torch.equal(original.pixel_values([image()]), copy.pixel_values([image()]))
    assert original.eos_token_ids == copy.eos_token_ids
    assert original.stop_strings == copy.stop_strings
    for question in QUESTIONS:
        for training in (False, True):
            ours = prompted(original, question, training=training)
            theirs = prompted(copy, question, training=training)
            assert ours.text_ids == theirs.text_ids
            assert torch.equal(ours.visual, theirs.visual)
            assert torch.equal(ours.question, theirs.question)
            assert torch.equal(ours.features, theirs.features)
        assert original.template.encode_answer(
            original.tokenizer, "yes, a lung"
        ) == copy.template.encode_answer(copy.tokenizer, "yes, a lung")


def test_an_export_answers_the_same(spec, exported):
    original = medbench.load_backbone(spec, dtype="float32")
    copy = medbench.load_backbone(f"llava-hf[weights={exported}]", dtype="float32")
    asked = {"images": [image()] * 4, "prompts": QUESTIONS, "max_new_tokens": 8}
    for method in ("greedy", "vcd", "pai"):
        ours, theirs = (
            medbench.generate(one, method=method, **asked, record_scores=1)
            for one in (original, copy)
        )
        assert [one.token_ids for one in ours] == [one.token_ids for one in theirs]


def test_transformers_own_class_reads_an_export(spec, exported):
    """With its forward and its splice: the second opinion on every part of ours."""
    original = medbench.load_backbone(spec, dtype="float32")
    model = LlavaForConditionalGeneration.from_pretrained(exported, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(exported)
    prompt = prompted(original, QUESTIONS[0])
    known = json.loads((exported / "medbench.json").read_text(encoding="utf-8"))
    text = known["prompt"].replace("<image>", known["image"] * original.image_tokens)
    ids = tokenizer(
        text.replace("{question}", QUESTIONS[0]),
        add_special_tokens=known["special_tokens"],
        return_tensors="pt",
    )["input_ids"]
    with torch.no_grad():
        theirs = model(input_ids=ids, pixel_values=original.pixel_values([image()])).logits[0]
        ours = original.language_model(inputs_embeds=original.embed(prompt)[None]).logits[0]
    assert theirs.shape[0] == len(prompt)
    assert torch.allclose(theirs[:, : ours.shape[1]], ours, atol=1e-4)


def test_the_image_token_is_never_the_likeliest(spec, exported):
    original = medbench.load_backbone(spec, dtype="float32")
    copy = medbench.load_backbone(f"llava-hf[weights={exported}]", dtype="float32")
    if copy.image_token_id < original.language_model.config.vocab_size:
        return  # it had its row before
    head = copy.language_model.lm_head.weight
    assert torch.equal(head[copy.image_token_id], head[0])


@pytest.mark.parametrize("shard_bytes", [1, 50_000, 2**30])
def test_base_and_delta_make_the_published_sum(tmp_path: Path, shard_bytes: int):
    told: list[tuple[int, int]] = []
    write_merged(BASE, DELTA, tmp_path, shard_bytes=shard_bytes, report=lambda *n: told.append(n))
    ours, theirs = (read_tensors(folder, everything) for folder in (tmp_path, TARGET))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert told[-1][0] == told[-1][1] == len(theirs)
    assert len(weight_files(tmp_path)) == len(told)
    assert (tmp_path / "added_tokens.json").read_bytes() == (
        DELTA / "added_tokens.json"
    ).read_bytes()


def test_a_sum_in_float32_would_be_another(tmp_path: Path):
    base, delta, target = (read_tensors(path, everything) for path in (BASE, DELTA, TARGET))
    name = "model.layers.0.mlp.up_proj.weight"
    exact = base[name].float() + delta[name].float()
    assert torch.equal(base[name] + delta[name], target[name])
    assert not torch.equal(exact, target[name].float())


def test_a_merged_checkpoint_loads_without_its_parts(tmp_path: Path, capsys):
    out = tmp_path / "merged"
    spec = f"llava-med[weights={DELTA},base={BASE}]"
    assert main(["backbone", "convert", spec, "--to", "original", "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    tower = GOLDEN / "openai" / "clip-vit-large-patch14"
    for weights in (out, TARGET):
        backbone = medbench.load_backbone(f"llava-med[weights={weights},vision={tower}]")
        assert backbone.image_token_id == 400
    assert not list(tmp_path.glob("*.part"))


class TestMistakes:
    def refused(self, *arguments: str) -> None:
        assert main(["backbone", "convert", *arguments]) == 2

    def test_a_folder_that_is_not_empty_is_not_touched(self, tmp_path: Path, capsys):
        (tmp_path / "mine").write_text("keep", encoding="utf-8")
        self.refused(f"llava-med[weights={TARGET}]", "--out", str(tmp_path))
        assert "is there already" in capsys.readouterr().err
        assert (tmp_path / "mine").read_text(encoding="utf-8") == "keep"

    def test_nothing_to_merge(self, tmp_path: Path, capsys):
        out = str(tmp_path / "out")
        self.refused(f"llava-med[weights={TARGET}]", "--to", "original", "--out", out)
        assert "nothing to merge" in capsys.readouterr().err
        assert not Path(out).exists()

    @pytest.mark.parametrize("name", ["toy", "phantom"])
    def test_no_authors_format(self, name: str, tmp_path: Path, capsys):
        self.refused(name, "--out", str(tmp_path / "out"))
        assert "no authors' format" in capsys.readouterr().err

    def test_a_base_that_is_another_model(self, tmp_path: Path):
        other = write_tiny("llava", tmp_path / "other")
        with pytest.raises(UserError, match="is no delta of") as raised:
            write_merged(other, DELTA, tmp_path)
        assert "lm_head.weight" in raised.value.why

    def test_a_killed_start_is_begun_anew(self, tmp_path: Path):
        out = tmp_path / "out"
        part = tmp_path / "out.part"
        part.mkdir()
        (part / "model-00001.safetensors").write_bytes(b"half")
        spec = f"llava-med[weights={DELTA},base={BASE}]"
        assert main(["backbone", "convert", spec, "--to", "original", "--out", str(out)]) == 0
        assert not part.exists()
        assert len(read_tensors(out, everything)) == len(read_tensors(TARGET, everything))

    def test_a_broken_shard_leaves_no_folder(self, tmp_path: Path, capsys):
        broken = tmp_path / "delta"
        shutil.copytree(DELTA, broken)
        file = sorted(broken.glob("*.bin"))[1]
        file.write_bytes(file.read_bytes()[:1000])
        out = tmp_path / "out"
        self.refused(
            f"llava-med[weights={broken},base={BASE}]", "--to", "original", "--out", str(out)
        )
        assert file.name in capsys.readouterr().err
        assert not out.exists()
