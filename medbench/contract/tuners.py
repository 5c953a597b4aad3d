"""What every tuner keeps to, tried by two steps of training on the backbone `toy`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from medbench import plugins
from medbench.contract import toys
from medbench.contract.breach import breach, telling
from medbench.contract.keyed import check_key
from medbench.contract.on_toy import OnToyContract
from medbench.contract.running import check_run
from medbench.contract.targets import STAND_INS, examples, on_few
from medbench.contract.traces import changed, digest, fingerprint, parts, randomness
from medbench.contract.well_formed import check_needs
from medbench.method import Tuner
from medbench.model.llava import Backbone
from medbench.plugins import Plugin
from medbench.spec import Spec
from medbench.tuning import loop
from medbench.tuning.adapter import Adapter, attached
from medbench.tuning.batch import Example, collate
from medbench.tuning.step import losses

# Eight samples in steps of four.
_SMALL = (("epochs", "1"), ("batch_size", "4"), ("micro_batch", "2"))


class TunerContract(OnToyContract):
    """What a tuner keeps to; a subclass names it."""

    @pytest.fixture
    def spec(self, sound: Plugin) -> Spec:
        """The tuner's spec for a short training on regions and views that are made up."""
        supervision = sound.attributes.get("supervision", {})
        providers = {name: STAND_INS[role] for name, role in supervision.items()}
        return Spec(sound.name, (*_SMALL, *providers.items()))

    @pytest.fixture
    def tuner(self, sound: Plugin, spec: Spec, backbone: Backbone) -> Tuner:
        """The tuner as a task sets it, where the toy has what it needs."""
        lacking = [
            need for need in sound.attributes["needs"] if need not in (*backbone.offers, "roi")
        ]
        if lacking:
            pytest.skip(f"the toy offers no {', '.join(lacking)}")
        tuning = plugins.get("task", "phantom").attributes["tuning"]
        with telling(f"{sound.name} cannot be made with the defaults of phantom"):
            return plugins.create("method", spec, tuning)[1]

    @pytest.fixture
    def stack(self, tuner: Tuner, backbone: Backbone) -> list[Example]:
        """Eight samples with the tuner's targets; some have no region or an empty one."""
        return examples(tuner, backbone)

    def test_what_it_needs_is_known(self, sound: Plugin) -> None:
        """`needs` and `uses` name what some backbone or task offers."""
        check_needs(sound)

    def test_every_parameter_is_in_the_key(self, sound: Plugin) -> None:
        """Another value of a parameter is another adapter."""
        check_key(sound)

    def test_two_steps_train(
        self, tuner: Tuner, backbone: Backbone, stack: list[Example], tmp_path: Path
    ) -> None:
        """Two steps have finite losses and change the adapter."""
        with attached(backbone, tuner) as adapter:
            before = _digests(adapter)
            _train(tuner, adapter, stack, tmp_path)
            after = _digests(adapter)
        log = [json.loads(line) for line in (tmp_path / loop.LOG).read_text().splitlines()]
        if len(log) != 2 or not all(math.isfinite(entry["loss"]) for entry in log):
            breach("two steps of training do not end with finite losses", f"They log {log}.")
        if not changed(before, after):
            breach(
                "two steps of training change no weight",
                "Nothing that is trainable gets a gradient.",
                "See that the loss depends on the adapter, and that parameters require gradients.",
            )

    def test_the_base_weights_stay(
        self, tuner: Tuner, backbone: Backbone, stack: list[Example], tmp_path: Path
    ) -> None:
        """Only the adapter trains; afterwards the backbone is as before."""
        before = fingerprint(backbone)
        weights = [
            (f"{part}.{name}", weight, digest(weight))
            for part, module in parts(backbone).items()
            for name, weight in module.named_parameters()
        ]
        with attached(backbone, tuner) as adapter:
            own = {id(weight) for weight in adapter.trainable().values()}
            trained = [name for name, weight, _ in weights if id(weight) in own]
            if trained:
                breach(
                    f"weights of the backbone are trainable: {', '.join(trained[:3])}",
                    "Only an adapter is saved, so they would be lost.",
                    "Add modules of your own in `extend`; do not register the backbone's.",
                )
            _train(tuner, adapter, stack, tmp_path)
            moved = [name for name, weight, known in weights if digest(weight) != known]
        if moved:
            breach(
                f"training changes the backbone itself: {', '.join(moved[:3])}",
                "Only an adapter is saved, and the next run would start from a changed model.",
                "Leave the backbone's weights alone in `extend`, `attach` and the losses.",
            )
        found = changed(before, fingerprint(backbone))
        if found:
            breach(
                f"after training, {len(found)} things are not as before: {', '.join(found[:3])}",
                "Every method after this one would run on a changed model.",
                "What `attach` puts on a module, the function that it returns takes off.",
            )

    def test_a_saved_adapter_answers_the_same(
        self, tuner: Tuner, backbone: Backbone, stack: list[Example], tmp_path: Path
    ) -> None:
        """Saved and loaded again, it gives the same scores to the last bit, in any batch."""
        with attached(backbone, tuner, seed=1) as adapter:
            _train(tuner, adapter, stack, tmp_path)
            adapter.save(tmp_path)
            trained = toys.answers("greedy", adapter.backbone, record_scores=3)
        with attached(backbone, tuner, seed=2, folder=tmp_path) as adapter:
            loaded = toys.answers("greedy", adapter.backbone, record_scores=3)
            single = toys.answers("greedy", adapter.backbone, batch_size=1)
        for at, answer in loaded.items():
            if not torch.equal(_scores(answer), _scores(trained[at])):
                breach(
                    f"the adapter, saved and loaded, scores {toys.NAMES[at]} differently",
                    "Something that answers depend on is not in what was saved.",
                    "Keep it in parameters or buffers of the module that `extend` returns.",
                )
        found = toys.different(single, loaded)
        if found:
            breach(
                f"with the adapter, answers depend on the batch, first that of {found[0]}",
                "They are compared with batches of 1, in float32.",
                "What follows the rows of a batch is told by begin, settle and keep (RowState).",
            )

    def test_a_loss_is_one_number_a_sample(
        self, tuner: Tuner, backbone: Backbone, stack: list[Example]
    ) -> None:
        """Each loss of a batch is that of the sample alone, whether or not it has a region."""
        with attached(backbone, tuner) as adapter:
            batch = _losses(tuner, adapter, stack[:4])
            for at, one in enumerate(stack[:4]):
                alone = _losses(tuner, adapter, [one])
                if alone.keys() != batch.keys():
                    breach(
                        f"losses differ from sample to sample: {sorted(alone)}, {sorted(batch)}",
                        "",
                        "Return 0 for a sample without targets, not nothing.",
                    )
                for name, values in batch.items():
                    _compare(name, values, alone[name], at, one.id)

    def test_training_repeats_itself(
        self, tuner: Tuner, backbone: Backbone, stack: list[Example], tmp_path: Path
    ) -> None:
        """The same seed trains the same adapter, and moves no generator that others use."""
        found: list[dict[str, str]] = []
        for turn in ("once", "twice"):
            (tmp_path / turn).mkdir()
            torch.manual_seed(len(turn))
            before = randomness()
            with attached(backbone, tuner, seed=1) as adapter:
                _train(tuner, adapter, stack, tmp_path / turn)
                found.append(_digests(adapter))
            moved = changed(before, randomness())
            if moved:
                breach(
                    f"training moves the generator of {', '.join(moved)}",
                    "What runs afterwards in the same process would differ.",
                    "Draw what you draw in `extend`, which is seeded, or from a generator of "
                    "your own.",
                )
        if changed(*found):
            breach(
                "trained again with the same seed, the adapter is another",
                "Something is drawn, or kept, beside the run's seed.",
                "Draw in `extend`, which is seeded; keep nothing on the tuner.",
            )

    def test_a_run_goes_on_where_it_was_cut(self, tuner: Tuner, spec: Spec, tmp_path: Path) -> None:
        """`medbench run` trains on a few samples, answers, and goes on from half of the answers."""
        check_run(str(spec), tmp_path, lambda cell: on_few(cell, tuner))


def _train(tuner: Tuner, adapter: Adapter, stack: list[Example], folder: Path) -> None:
    with telling("training fails"):
        loop.train(tuner, adapter, len(stack), stack.__getitem__, folder, seed=0, epochs=1)


def _losses(tuner: Tuner, adapter: Adapter, stack: list[Example]) -> dict[str, Tensor]:
    found = losses(tuner, adapter, collate(adapter.backbone, stack))
    for name, values in found.items():
        if values.shape != (len(stack),):
            breach(
                f"loss '{name}' has the shape {tuple(values.shape)} for {len(stack)} samples",
                "The loop takes the mean over samples, over all parts of a step.",
                "Return one number a sample, [samples].",
            )
    return {name: values.detach() for name, values in found.items()}


def _compare(name: str, batch: Tensor, alone: Tensor, at: int, sample: str) -> None:
    if not torch.allclose(batch[at], alone[0], rtol=1e-3, atol=1e-5):
        breach(
            f"loss '{name}' of {sample} is {float(batch[at]):g} among others, "
            f"{float(alone[0]):g} alone",
            "Losses would depend on micro_batch, which is to change memory only.",
            "Reduce over a sample's own positions, and mask padding by view.valid.",
        )


def _digests(adapter: Adapter) -> dict[str, str]:
    return {name: digest(weight) for name, weight in adapter.state().items()}


def _scores(answer: Any) -> Tensor:
    return answer.scores
