"""The training loop: what it changes, what it logs, and that a killed run goes on exactly."""

from __future__ import annotations

import json
import math
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from medbench import generate
from medbench.backbones.toy import Toy
from medbench.errors import UserError
from medbench.method import Tuner
from medbench.model.llava import Backbone
from medbench.model.tiny import build_toy
from medbench.tuning import loop
from medbench.tuning.adapter import Adapter, attached
from medbench.tuning.batch import Example, collate
from medbench.tuning.loop import CHECKPOINT, LOG, Progress
from medbench.tuning.step import forward, losses

MakeTuner = Callable[..., Tuner]
MakeExample = Callable[[int], Example]
SAMPLES, EPOCHS = 8, 5  # two steps an epoch


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


def trained(
    backbone: Backbone,
    tuner: Tuner,
    example: MakeExample,
    folder: Path,
    *,
    seed: int = 0,
    epochs: int = EPOCHS,
    report: Callable[[Progress], None] = lambda _: None,
) -> dict[str, Tensor]:
    folder.mkdir(exist_ok=True)
    with attached(backbone, tuner, seed=seed) as adapter:
        loop.train(
            tuner, adapter, SAMPLES, example, folder, seed=seed, epochs=epochs, report=report
        )
        return {k: v.clone() for k, v in adapter.state().items()}


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[k], wanted[k]) for k in wanted)


@pytest.mark.parametrize("name", ["lora", "a3tune"])
def test_the_loss_falls_and_the_model_learns_its_answers(
    backbone: Backbone, make_tuner: MakeTuner, example: MakeExample, tmp_path: Path, name: str
) -> None:
    tuner = make_tuner(name, micro_batch=4, rank=8, learning_rate=0.02)
    with attached(backbone, tuner) as adapter:
        loop.train(tuner, adapter, 4, example, tmp_path, seed=0, epochs=50)
        stack = [example(i) for i in range(4)]
        _, logits = forward(tuner, adapter, collate(adapter.backbone, stack))
    log = lines(tmp_path)
    assert [entry["step"] for entry in log] == list(range(1, 51))
    assert log[0]["language"] > 4
    assert log[-1]["language"] < 0.2
    best = logits[:, :-1].argmax(-1)
    for row, one in enumerate(stack):
        assert best[row, -len(one.answer) :].tolist() == one.answer


def share_in_segments(tuner: Tuner, adapter: Adapter, examples: list[Example]) -> float:
    view, _ = forward(tuner, adapter, collate(adapter.backbone, examples))
    assert view.attention is not None and view.valid is not None
    rows = view.attention.mean((1, 2)) * view.valid[..., None]
    pooled = rows.sum(1)
    inside = (pooled * view.batch.targets["segments"].values[:, 0]).sum(-1)
    return float((inside / pooled.sum(-1)).mean().detach())


def test_the_alignment_loss_alone_moves_attention_into_the_segments(
    backbone: Backbone, make_tuner: MakeTuner, example: MakeExample
) -> None:
    tuner = make_tuner("a3tune", R=8)
    examples = [replace(example(i), targets=example(1).targets) for i in range(4)]
    with attached(backbone, tuner) as adapter:
        optimizer = torch.optim.AdamW(adapter.trainable().values(), lr=0.03, weight_decay=0)
        before = share_in_segments(tuner, adapter, examples)
        for _ in range(30):
            batch = collate(adapter.backbone, examples)
            optimizer.zero_grad()
            losses(tuner, adapter, batch)["alignment"].sum().backward()
            optimizer.step()
        after = share_in_segments(tuner, adapter, examples)
    assert before < 0.3
    assert after > 0.6


WITHOUT_GRADIENT = [
    ({}, ""),
    ({"kmoe_text_lora": "shared", "moe_router": "mlp"}, ""),
    ({"kmoe_combine": "weighted_renorm"}, ""),
    # As published: only the balance loss reaches the K router when gates scale nothing.
    ({"kmoe_combine": "last_write", "k_top": 4}, "key.*.router"),
    ({"kmoe_combine": "last_write", "k_top": 4, "balance_weight": 0.01}, ""),
]


@pytest.mark.parametrize(("options", "idle"), WITHOUT_GRADIENT)
def test_every_trainable_tensor_gets_a_gradient_but_the_published_idle_router(
    backbone: Backbone,
    make_tuner: MakeTuner,
    example: MakeExample,
    shake: Callable[[Adapter], None],
    options: dict[str, Any],
    idle: str,
) -> None:
    tuner = make_tuner("a3tune", **options)
    with attached(backbone, tuner) as adapter:
        shake(adapter)
        parts = losses(tuner, adapter, collate(adapter.backbone, [example(i) for i in range(4)]))
        torch.stack([part.sum() for part in parts.values()]).sum().backward()
        reached = {
            name: weight.grad is not None and bool(weight.grad.any())
            for name, weight in adapter.trainable().items()
        }
        assert not any(
            weight.grad is not None
            for name, weight in adapter.backbone.language_model.named_parameters()
            if "lora_" not in name
        )
    # With "last_write" and all experts kept, only the last one acts: slices stay at zero.
    without = {name for name, value in reached.items() if not value}
    assert without == {name for name in reached if idle and ".key." in name and "router" in name}
    assert any(".query." in name and "router" in name for name in reached)


class Interrupted(Exception):
    pass


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a checkpoint after every step."""
    monkeypatch.setattr(loop, "SHORTEST", 0.0)
    monkeypatch.setattr(loop, "PATIENCE", 0.0)


RESUMED = [
    ("lora", {"dropout": 0.3}),
    ("a3tune", {"dropout": 0.3, "head_selection": "fixed", "balance_weight": 0.1}),
]


@pytest.mark.parametrize(("name", "options"), RESUMED)
def test_a_run_interrupted_at_any_step_ends_bit_equal(
    make_tuner: MakeTuner,
    backbone: Backbone,
    example: MakeExample,
    tmp_path: Path,
    every_step: None,
    name: str,
    options: dict[str, Any],
) -> None:
    tuner = make_tuner(name, warmup_ratio=0.2, **options)
    straight = trained(backbone, tuner, example, tmp_path / "straight")
    wanted = (tmp_path / "straight" / LOG).read_bytes()
    assert len(wanted.splitlines()) == 10
    for stops in ((1,), (2, 7), (10,)):
        folder = tmp_path / f"stops-{stops}"
        for stop in stops:

            def interrupt(progress: Progress, at: int = stop) -> None:
                if progress.step == at:
                    raise Interrupted

            with pytest.raises(Interrupted):
                trained(backbone, tuner, example, folder, report=interrupt)
            # Reported before the checkpoint: the step itself is taken again.
            assert (folder / CHECKPOINT).exists() == (stop > 1)
            torch.manual_seed(stop)
        continued: list[int] = []
        end = trained(
            backbone, tuner, example, folder, report=lambda p, to=continued: to.append(p.step)
        )
        assert continued == list(range(stops[-1], 11))
        assert same(end, straight)
        assert (folder / LOG).read_bytes() == wanted


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_killed_in_the_middle_of_writing_a_checkpoint_goes_on_exactly(
    make_tuner: MakeTuner,
    backbone: Backbone,
    example: MakeExample,
    tmp_path: Path,
    every_step: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tuner = make_tuner("a3tune", dropout=0.3, head_selection="fixed")
    straight = trained(backbone, tuner, example, tmp_path / "straight")
    folder = tmp_path / "killed"
    with warnings.catch_warnings():
        # The child only computes and dies.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        save = torch.save

        def die_while_writing(state: dict[str, Any], path: Path) -> None:
            if state["step"] < 4:
                return save(state, path)
            path.write_bytes(b"half a checkpoint")
            os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(torch, "save", die_while_writing)
        try:
            trained(backbone, tuner, example, folder)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert len(lines(folder)) == 4
    steps: list[int] = []
    end = trained(backbone, tuner, example, folder, report=lambda p: steps.append(p.step))
    assert steps[0] == 4
    assert same(end, straight)
    assert (folder / LOG).read_bytes() == (tmp_path / "straight" / LOG).read_bytes()


@pytest.fixture
def interrupted(
    make_tuner: MakeTuner,
    backbone: Backbone,
    example: MakeExample,
    tmp_path: Path,
    every_step: None,
) -> Iterator[tuple[Tuner, Path]]:
    tuner = make_tuner("a3tune")

    def interrupt(progress: Progress) -> None:
        if progress.step == 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        trained(backbone, tuner, example, tmp_path, report=interrupt)
    yield tuner, tmp_path


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "another"])
def test_a_broken_checkpoint_is_a_users_error_that_names_it(
    backbone: Backbone, example: MakeExample, interrupted: tuple[Tuner, Path], damage: str
) -> None:
    tuner, folder = interrupted
    path = folder / CHECKPOINT
    data = path.read_bytes()
    if damage == "another":
        state = torch.load(path, weights_only=True)
        state["adapter"] = {"lora.other": torch.zeros(1)}
        torch.save(state, path)
    else:
        path.write_bytes({"empty": b"", "text": b"not this", "cut": data[: len(data) // 2]}[damage])
    with pytest.raises(UserError) as raised:
        trained(backbone, tuner, example, folder)
    assert str(path) in raised.value.what
    assert "Delete it" in raised.value.do
    path.unlink()
    assert len(trained(backbone, tuner, example, folder)) > 0
    assert len(lines(folder)) == 10


def test_a_checkpoint_holds_no_code(interrupted: tuple[Tuner, Path]) -> None:
    state = torch.load(interrupted[1] / CHECKPOINT, weights_only=True)
    assert state["step"] == 2


def not_finite(example: MakeExample, which: int) -> MakeExample:
    def spoilt(index: int) -> Example:
        one = example(index)
        if index != which:
            return one
        features = torch.full_like(one.prompt.features, math.nan)  # type: ignore[arg-type]
        return replace(one, prompt=replace(one.prompt, features=features))

    return spoilt


def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_samples(
    backbone: Backbone, make_tuner: MakeTuner, example: MakeExample, tmp_path: Path
) -> None:
    order = list(loop._order(SAMPLES, 4, EPOCHS, 0))
    bad = order[1][0]
    with pytest.raises(UserError) as raised:
        trained(backbone, make_tuner("lora"), not_finite(example, bad), tmp_path)
    assert "the language loss is not finite at step 2" in raised.value.what
    assert f"sample-{bad}" in raised.value.why
    assert f"sample-{order[1][2]}" not in raised.value.why
    assert len(lines(tmp_path)) == 1


def test_a_gradient_that_is_not_finite_stops_before_it_reaches_the_weights(
    backbone: Backbone, make_tuner: MakeTuner, example: MakeExample, tmp_path: Path
) -> None:
    tuner = make_tuner("lora")
    with attached(backbone, tuner) as adapter:
        weight = next(iter(adapter.trainable().values()))
        weight.register_hook(lambda gradient: gradient * math.inf)
        with pytest.raises(UserError, match="gradient of the loss is not finite at step 1"):
            loop.train(tuner, adapter, SAMPLES, example, tmp_path, seed=0, epochs=1)
        assert all(one.isfinite().all() for one in adapter.state().values())


def test_nothing_to_train_on_is_a_users_error(
    backbone: Backbone, make_tuner: MakeTuner, example: MakeExample, tmp_path: Path
) -> None:
    tuner = make_tuner("lora")
    with (
        pytest.raises(UserError, match="nothing to train on"),
        attached(backbone, tuner) as adapter,
    ):
        loop.train(tuner, adapter, 0, example, tmp_path, seed=0, epochs=1)


def test_order_and_dropout_follow_the_seed_and_nothing_else(
    backbone: Backbone, make_tuner: MakeTuner, example: MakeExample, tmp_path: Path
) -> None:
    tuner = make_tuner("a3tune", dropout=0.4)
    torch.manual_seed(1)
    first = trained(backbone, tuner, example, tmp_path / "a", epochs=2)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again = trained(backbone, tuner, example, tmp_path / "b", epochs=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(first, again)
    other = trained(backbone, tuner, example, tmp_path / "c", seed=1, epochs=2)
    assert not same(first, other)
    dry = trained(backbone, make_tuner("a3tune"), example, tmp_path / "d", epochs=2)
    assert not same(first, dry)


def test_every_epoch_is_a_new_permutation_that_only_the_seed_decides() -> None:
    order = list(loop._order(10, 4, 3, seed=5))
    assert [len(batch) for batch in order] == [4, 4, 2] * 3
    epochs = [sum(order[i : i + 3], []) for i in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert order == list(loop._order(10, 4, 3, seed=5))
    assert order != list(loop._order(10, 4, 3, seed=6))
    # A longer run begins as a shorter one.
    assert list(loop._order(10, 4, 5, seed=5))[:9] == order


def test_the_learning_rate_warms_up_and_falls_as_a_cosine(
    backbone: Backbone, make_tuner: MakeTuner, example: MakeExample, tmp_path: Path
) -> None:
    tuner = make_tuner("lora", learning_rate=0.01, warmup_ratio=0.15)
    trained(backbone, tuner, example, tmp_path)
    # Ten steps, of which ceil(1.5) = 2 warm up.
    wanted = [0.0, 0.005] + [0.005 * (1 + math.cos(math.pi * i / 8)) for i in range(8)]
    assert [entry["learning_rate"] for entry in lines(tmp_path)] == pytest.approx(wanted)


def test_a_step_is_adamw_on_clipped_gradients(
    backbone: Backbone, make_tuner: MakeTuner, example: MakeExample, tmp_path: Path
) -> None:
    tuner = make_tuner("lora", max_grad_norm=0.5, weight_decay=0.1, learning_rate=0.01)
    with attached(backbone, tuner) as adapter:
        start = {k: v.clone() for k, v in adapter.state().items()}
        chosen = next(loop._order(SAMPLES, 4, 1, 0))
        parts = losses(tuner, adapter, collate(adapter.backbone, [example(i) for i in chosen]))
        parts["language"].mean().backward()
        raw = {k: v.grad.clone() for k, v in adapter.trainable().items() if v.grad is not None}
        norm = math.sqrt(sum(float(one.square().sum()) for one in raw.values()))
        loop.train(tuner, adapter, 4, lambda i: example(chosen[i]), tmp_path, seed=0, epochs=1)
        end = adapter.state()
        entry = lines(tmp_path)[0]
        assert entry["gradient_norm"] == pytest.approx(norm, rel=1e-4)
        assert norm > 0.5
        for name, gradient in raw.items():
            clipped = gradient * 0.5 / norm
            # First step of Adam: both moments' bias corrections leave g / (|g| + eps).
            moved = start[name] * (1 - 0.01 * 0.1) - 0.01 * clipped / (clipped.abs() + 1e-8)
            large = clipped.abs() > 1e-4
            torch.testing.assert_close(end[name][large], moved[large], rtol=0, atol=1e-5)


def test_adam_uses_the_default_betas(
    backbone: Backbone, make_tuner: MakeTuner, interrupted: tuple[Tuner, Path]
) -> None:
    state = torch.load(interrupted[1] / CHECKPOINT, weights_only=True)
    (group,) = state["optimizer"]["param_groups"]
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.9, 0.999), 1e-8, 0.0)


@pytest.mark.parametrize("name", ["lora", "a3tune"])
def test_everything_but_the_adapter_stays_frozen(
    backbone: Backbone, make_tuner: MakeTuner, example: MakeExample, tmp_path: Path, name: str
) -> None:
    parts = {
        "tower": backbone.vision_tower,
        "projector": backbone.projector,
        "language": backbone.language_model,
    }
    before = {
        (part, key): value.clone()
        for part, module in parts.items()
        for key, value in module.state_dict().items()
    }
    start = None
    tuner = make_tuner(name)
    with attached(backbone, tuner) as adapter:
        start = {k: v.clone() for k, v in adapter.state().items()}
        loop.train(tuner, adapter, SAMPLES, example, tmp_path, seed=0, epochs=2)
        assert all(not torch.equal(start[k], v) for k, v in adapter.state().items())
    for part, module in parts.items():
        for key, value in module.state_dict().items():
            assert torch.equal(value, before[part, key])
        assert all(weight.grad is None for weight in module.parameters())


@pytest.mark.parametrize("name", ["lora", "a3tune"])
def test_a_bfloat16_backbone_trains_and_answers(
    make_tuner: MakeTuner, tmp_path: Path, name: str
) -> None:
    backbone = build_toy(Toy(), device=torch.device("cpu"), dtype=torch.bfloat16)
    pixels = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))

    def example(index: int) -> Example:
        return Example(
            str(index),
            backbone.prompt("what is it?", backbone.encode(pixels[index : index + 1])[0]),
            backbone.template.encode_answer(backbone.tokenizer, "a liver"),
            {"segments": torch.ones(1, 16)},
        )

    tuner = make_tuner(name)
    with attached(backbone, tuner) as adapter:
        loop.train(tuner, adapter, 4, example, tmp_path, seed=0, epochs=2)
        assert len(lines(tmp_path)) == 2
        answers = generate(
            adapter.backbone, prompts=["what is it?"] * 4, pixel_values=pixels, max_new_tokens=4
        )
    assert all(answer.token_ids for answer in answers)
