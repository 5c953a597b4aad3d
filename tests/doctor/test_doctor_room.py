"""Memory and disk: the formulas against what is really held, and what is said when it is tight."""

from dataclasses import replace

import pytest
import torch

from medbench import plugins, spec
from medbench.doctor import estimate, room
from medbench.doctor.backbone import Looked, check_backbone, without_values
from medbench.doctor.lengths import longest_example, longest_prompt, rows_of
from medbench.doctor.method import Chain, check_method
from medbench.doctor.room import check_room
from medbench.doctor.task import Read, check_task
from medbench.model.load import create_checkpoint

# LLaVA-Med-1.5's: Mistral 7B, CLIP L/14, and both together.
SEVEN_B = estimate.Sizes(
    weights=2 * 7.6e9, element=2, layers=32, width=4096, inner=14336, heads=32, key_width=1024,
    vocabulary=32000,
)  # fmt: skip


def create(text):
    return plugins.create("method", spec.parse(text))[1]


def sizes(text, dtype=torch.float32, four_bits=False):
    return estimate.sizes(without_values(create_checkpoint(text)), dtype, four_bits=four_bits)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["phantom", "toy", "toy[kv_heads=4]"])
def test_weights_are_those_of_the_loaded_model(toy, name, dtype):
    import medbench

    loaded = medbench.load_backbone(name, device="cpu", dtype=dtype)
    parts = (loaded.language_model, loaded.vision_tower, loaded.projector)
    held = sum(one.nbytes for part in parts for one in part.parameters())
    assert sizes(name, getattr(torch, dtype)).weights == held


def test_four_bits_take_the_matrices_and_leave_the_rest():
    whole, small = sizes("toy", torch.bfloat16), sizes("toy", torch.bfloat16, four_bits=True)
    layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64  # q, o; k, v of two heads; the MLP
    assert whole.weights - small.weights == 2 * layer * (2 - 0.5 - 4 / 64)


@pytest.mark.parametrize(
    ("method", "rows"),
    [
        ("greedy", 1),
        ("vcd", 2),
        ("vcd[beams=3]", 6),
        ("beam", 5),
        ("beam[beams=4]", 4),
        ("opera", 5),
        ("dola", 1),
        ("pai", 2),
    ],
)
def test_rows_of_a_sample(method, rows):
    assert rows_of(create(method)) == rows


@pytest.mark.parametrize("name", ["toy[layers=3]", "toy[kv_heads=4]", "phantom"])
def test_the_cache_is_what_is_held_and_never_more(name, toy, images):
    from medbench.decoding.stack import RowStack

    backbone, model = toy(name), sizes(name)
    features = backbone.encode(backbone.pixel_values(images[:1]))[0]
    prompts = [backbone.prompt("is it ?", features)] * 3
    stack = RowStack(backbone, prompts)
    for _ in range(5):
        stack.append(stack.logits.argmax(-1))
    held = sum(
        states.untyped_storage().nbytes()
        for layer in stack.cache.layers
        for states in (layer.keys, layer.values)
    )
    said = estimate.cache_bytes(model, rows=3, prompt=len(prompts[0]), new=5)
    assert held <= said <= 1.2 * held
    assert held > estimate.cache_bytes(model, rows=2, prompt=len(prompts[0]), new=5)


def kept(text, method, dtype, *, rows, letters, answer, checkpointing=False):
    """Return how many bytes autograd holds of a training pass, and the tokens of a row."""
    from contextlib import nullcontext

    import medbench
    from medbench.tuning.adapter import attached
    from medbench.tuning.batch import Example, collate
    from medbench.tuning.recompute import recomputing
    from medbench.tuning.step import losses

    backbone = medbench.load_backbone(text, device="cpu", dtype=dtype)
    tuner = create(method)
    size = backbone.geometry.size
    features = backbone.encode(torch.zeros(1, 3, size, size))[0]
    tokens = backbone.template.encode_answer(backbone.tokenizer, "a" * answer)
    prompt = backbone.prompt("q" * letters, features, training=True)
    examples = [Example(str(number), prompt, tokens, {}) for number in range(rows)]
    with attached(backbone, tuner) as adapter:
        adapter.train(True)
        own = {one.untyped_storage().data_ptr() for one in adapter.model.parameters()}
        seen, alive = {}, []

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                seen[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # so that no address is used twice
            return tensor

        batch = collate(adapter.backbone, examples)
        again = recomputing(adapter) if checkpointing else nullcontext()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), again:
            losses(tuner, adapter, batch)
    return sum(seen.values()), len(prompt) + len(tokens), len(tokens)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_training_keeps_is_what_autograd_holds(dtype, checkpointing):
    text = "toy[layers=6,width=128,heads=4,kv_heads=4,spread=0.02]"
    held, length, answer = kept(
        text, "lora[rank=8]", dtype, rows=2, letters=60, answer=4, checkpointing=checkpointing
    )
    model = sizes(text, getattr(torch, dtype))
    arguments = {"rows": 2, "length": length, "answer": answer, "rank": 8}
    said = estimate.training_bytes(model, **arguments, checkpointing=checkpointing)
    # With checkpointing one layer is held whole on the way back, which no hook sees here.
    whole = estimate.training_bytes(model, **arguments, checkpointing=False)
    assert held <= said <= 1.3 * held + (whole / 5 if checkpointing else 0)


def test_seven_billion_weights_take_what_others_measured():
    # 128 KiB a token: 2 x 32 layers x 8 heads x 128 x 2 bytes.
    assert estimate.cache_bytes(SEVEN_B, rows=1, prompt=600, new=336) == 1000 * 131072
    arguments = {"rows": 1, "length": 700, "answer": 40, "rank": 64}
    whole = estimate.training_bytes(SEVEN_B, **arguments, checkpointing=False)
    assert 9 * 2**30 < whole < 12 * 2**30
    assert estimate.training_bytes(SEVEN_B, **arguments, checkpointing=True) < whole / 8
    assert estimate.adapter_bytes(10) == 280


@pytest.fixture
def case(asked, finished):
    """Return a function that gives what a room is checked for."""

    def prepare(*, read=True, **options):
        given = asked(**options)
        _, looked = finished(check_backbone(*given.backbone))
        task = None
        if given.task:
            _, task = finished(check_task(*given.task, data="", splits=("train", "test")))
        chain = None
        if given.methods:
            _, chain = finished(check_method(given, looked, task))
        return given, looked, task, chain

    return prepare


def test_what_fits_is_told_in_three_lines(case, said, problems):
    found = list(check_room(*case(backbone="phantom", task="phantom", method="lora+vcd")))
    assert [one.state for one in found] == ["good"] * 3, said(found)
    training, answering, disk = (one.what for one in found)
    assert training.startswith("training: 188,416 weights; ")
    assert "with images and 32 samples of" in training
    assert answering.startswith("answering in float32: weights ")
    assert "(16 x 2 rows of" in answering and "+ 24 tokens)" in answering
    assert "answers 9.0 MiB" in disk and "adapter while it trains 5.0 MiB" in disk


def test_the_batch_and_the_type_asked_for_count(case):
    found = list(check_room(*case(backbone="phantom", batch_size=3, dtype="bfloat16")))
    assert "answering in bfloat16" in found[0].what and "(3 x 1 rows of" in found[0].what
    # In 16 bits samples go one by one unless told otherwise.
    found = list(check_room(*case(backbone="phantom", dtype="bfloat16")))
    assert "(1 x 1 rows of" in found[0].what
    assert len(found) == 1  # without a task nothing is known of the disk


def test_a_trained_adapter_needs_no_training(case):
    given, looked, read, chain = case(backbone="phantom", task="phantom", method="lora")
    ready = replace(chain, trained=True)
    found = list(check_room(given, looked, read, ready))
    assert not any(one.what.startswith("training") for one in found)
    assert "adapter" not in found[-1].what


def free(monkeypatch, count):
    monkeypatch.setattr(room, "free_memory", lambda: count)


def test_what_is_tight_is_a_note_and_what_cannot_fit_a_problem(case, monkeypatch):
    whole = case(backbone="phantom", task="phantom", method="vcd")
    weights = sizes("phantom").weights
    free(monkeypatch, int(weights) + 540 * 2**20)
    (found, _) = check_room(*whole)
    assert found.state == "note" and found.what.endswith("in main memory: it may not fit")
    assert found.do.startswith("--batch-size ")
    fewer = int(found.do.removeprefix("--batch-size "))
    assert 1 <= fewer < 16
    (found, _) = check_room(
        *case(backbone="phantom", task="phantom", method="vcd", batch_size=fewer)
    )
    assert found.state == "good"
    free(monkeypatch, int(weights) // 2)
    (found, _) = check_room(*whole)
    assert found.state == "problem" and found.what.endswith("it does not fit")
    assert found.do == "Take --dtype bfloat16, or a device with more memory."


def test_training_that_is_tight_says_what_to_write(case, monkeypatch):
    whole = case(backbone="phantom", task="phantom", method="lora")
    free(monkeypatch, 570 * 2**20)
    found = next(iter(check_room(*whole)))
    assert found.state == "note"
    assert found.do.startswith('Write "lora[micro_batch=')
    free(monkeypatch, 5 * 2**20)
    found = next(iter(check_room(*whole)))
    assert found.state == "problem" and found.do == "Take a device with more memory."


def test_a_disk_that_is_full_is_a_problem(case, monkeypatch):
    from types import SimpleNamespace

    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: SimpleNamespace(free=2**20))
    found = list(check_room(*case(backbone="phantom", task="phantom", method="lora")))[-1]
    assert found.state == "problem" and "--out DIR" in found.do


def test_a_device_that_is_not_there_is_a_problem(case, problems):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    found = list(check_room(*case(backbone="phantom", device="cuda")))
    assert problems(found) == [("no device 'cuda' here. torch finds no GPU", "Take --device cpu.")]


def test_a_gpu_is_asked_for_its_free_memory(case, monkeypatch, small):
    one = small("llava_med_1.5")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (100 * 1024, 2**40))
    found = list(check_room(*case(backbone=one.spec(), device="cuda:1")))[0]
    assert found.state == "problem" and "100 KiB free on cuda:1" in found.what
    assert found.do == (
        'Take "llava_med_1.5[quantize=4bit]", or "llava_med_1.5[device_map=auto]", '
        "or a device with more memory."
    )
    # Spread, all cards and the main memory count together.
    free(monkeypatch, 2**40)
    found = list(check_room(*case(backbone=one.spec(device_map="auto"), device="cuda")))[0]
    assert found.state == "good" and "free on all cards and in main memory" in found.what


def test_a_tuner_that_lacks_a_value_says_so(case, problems):
    found = list(check_room(*case(backbone="toy", method="a3tune[epochs=1]")))
    assert problems(found)[0][0].startswith("a3tune does not know how strongly to align")


def test_lengths_are_those_of_the_longest(toy):
    skeleton = without_values(create_checkpoint("toy"))
    read = plugins.create("task", spec.parse("phantom"))[1]
    samples = list(read.samples("train"))[:200]
    backbone = toy()
    features = torch.zeros(backbone.image_tokens, 32)
    longest = max(len(backbone.prompt(read.ask(one), features)) for one in samples)
    assert longest_prompt(skeleton, read, samples) == longest
    whole, answer = longest_example(skeleton, read, samples)
    ends = [len(backbone.template.encode_answer(backbone.tokenizer, one.answer)) for one in samples]
    assert whole >= max(
        len(backbone.prompt(read.ask(one), features, training=True)) + end
        for one, end in zip(samples, ends, strict=True)
    )
    assert answer <= max(ends)
    assert longest_prompt(skeleton, None, ()) > skeleton.image_tokens + 100


def test_nothing_is_left_on_the_skeleton(case):
    given, looked, read, chain = case(backbone="toy", task="phantom", method="lora")
    before = dict(looked.skeleton.language_model.named_parameters())
    list(check_room(given, looked, read, chain))
    assert {*looked.skeleton.language_model.state_dict()} >= {*before}
    assert not hasattr(looked.skeleton.language_model, "peft_config")
    assert isinstance(looked, Looked) and isinstance(read, Read) and isinstance(chain, Chain)
