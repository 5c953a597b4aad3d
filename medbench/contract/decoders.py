"""What every decoder keeps to, tried on the backbone `toy`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from medbench.contract import toys
from medbench.contract.breach import breach, telling
from medbench.contract.keyed import changed_instances, check_key
from medbench.contract.on_toy import OnToyContract
from medbench.contract.running import check_run
from medbench.contract.traces import (
    changed,
    fingerprint,
    functions,
    randomness,
    scramble,
)
from medbench.contract.well_formed import check_needs, check_well_formed
from medbench.decoding.select import Selection, resolve
from medbench.errors import UserError
from medbench.method import Decoder
from medbench.model.llava import Backbone
from medbench.plugins import Plugin


class DecoderContract(OnToyContract):
    """What a decoder keeps to; a subclass names it."""

    @pytest.fixture
    def decoder(self, made: Any, backbone: Backbone) -> Decoder:
        """The decoder with its defaults, where the toy has what it needs."""
        if not isinstance(made, Decoder):
            pytest.skip(f"{made.name} is no decoder")
        lacking = [need for need in made.needs if need not in (*backbone.offers, "roi")]
        if lacking:
            pytest.skip(f"the toy offers no {', '.join(lacking)}")
        with telling("it does not answer", "Small models must do: let layers scale with depth."):
            toys.answers(made, backbone, [0, 1], max_new_tokens=1)
        return made

    def test_what_it_needs_is_known(self, sound: Plugin) -> None:
        """`needs` and `uses` name what some backbone or task offers."""
        check_needs(sound)

    def test_every_parameter_is_in_the_key(self, sound: Plugin) -> None:
        """Another value of a parameter is another run."""
        check_key(sound)

    def test_what_is_not_in_the_key_moves_no_answer(
        self, sound: Plugin, decoder: Decoder, backbone: Backbone
    ) -> None:
        """A parameter in `unkeyed` may not change a token."""
        known = None
        for name, value, other in changed_instances(sound):
            if name not in decoder.unkeyed:
                continue
            known = known or toys.answers(decoder, backbone)
            if toys.different(known, toys.answers(other, backbone)):
                breach(
                    f"{name}={value} gives other answers, but '{name}' is in 'unkeyed'",
                    "A run with one value would be taken for a run with the other.",
                    f"Take '{name}' out of 'unkeyed'.",
                )

    def test_answers_do_not_depend_on_the_batch(self, decoder: Decoder, backbone: Backbone) -> None:
        """Batches of 1 and 4, and samples in another order, give the same tokens."""
        single = toys.answers(decoder, backbone, range(6), batch_size=1)
        orders = {"in batches of 4": [0, 1, 2, 3, 4, 5], "in another order": [5, 2, 4, 0, 3, 1]}
        if decoder.image == "other":  # generate() gives each the next one's image
            del orders["in another order"]
        for how, order in orders.items():
            found = toys.different(single, toys.answers(decoder, backbone, order))
            if found:
                breach(
                    f"{how} {len(found)} of {len(single)} answers differ, first that of {found[0]}",
                    "They are compared with batches of 1, in float32.",
                    "Treat each row for itself: no mean, maximum or sort over the first "
                    "dimension, and nothing kept by a row's place, since finished rows leave.",
                )

    def test_answers_are_the_same_again(self, decoder: Decoder, backbone: Backbone) -> None:
        """Nothing is kept between calls, neither on the instance nor beside it."""
        first = toys.answers(decoder, backbone, [0, 1, 2, 3])
        toys.answers(decoder, backbone, [4, 5, 6, 7])
        again = toys.answers(decoder, backbone, [0, 1, 2, 3])
        found = toys.different(first, again)
        if found:
            breach(
                f"asked again, {len(found)} of {len(first)} answers differ, first that of "
                f"{found[0]}",
                "Something is kept from one batch to the next.",
                "Keep nothing outside the hooks' arguments; what `look` returns comes back as "
                "context.looked.",
            )
        left = vars(decoder).keys() - vars(replace(decoder)).keys()
        if left:
            breach(
                f"decoding leaves {', '.join(left)} on the decoder",
                "It is a frozen dataclass, shared by all batches.",
                "Hand it from hook to hook as an argument, or compute it again.",
            )

    def test_the_model_is_left_as_it_was(self, decoder: Decoder, backbone: Backbone) -> None:
        """No hook, no patch, no weight, no switch of the model is changed after an answer."""
        # transformers puts hooks on a model for good when hidden states are first asked for.
        toys.answers("greedy", backbone, [0])
        backbone.language_model(input_ids=torch.tensor([[5]]), output_hidden_states=True)
        before, patched = fingerprint(backbone), functions()
        toys.answers(decoder, backbone)
        found = [*changed(before, fingerprint(backbone)), *changed(patched, functions())]
        if found:
            breach(
                f"after decoding, {len(found)} things are not as before: {', '.join(found[:3])}",
                "Every method after this one would run on a changed model.",
                "Ask for what you need by `reading` or `look`; what you put on a module, take off "
                "in a finally block.",
            )

    def test_answers_are_well_formed(self, decoder: Decoder, backbone: Backbone) -> None:
        """Scores are numbers, some token is allowed, and answers end where they must."""
        found = toys.answers(decoder, backbone, record_scores=toys.TOKENS)
        for name, answer in zip(toys.NAMES, found.values(), strict=False):
            check_well_formed(answer, backbone, name)
        for answer in toys.answers(decoder, backbone, [0, 1], max_new_tokens=1).values():
            if len(answer.token_ids) != 1:
                breach(f"asked for 1 token at most, it gives {len(answer.token_ids)}")

    def test_draws_follow_the_seed(self, decoder: Decoder, backbone: Backbone) -> None:
        """Where tokens are drawn, the same seed draws the same ones, and another seed others."""
        sampling = replace(decoder, select="sample")
        tried: list[Selection] = []
        for one, preset in ((decoder, "matched"), (decoder, "published"), (sampling, "matched")):
            try:
                chosen = resolve(one, preset)
                if chosen.select == "argmax" or chosen in tried:
                    continue
                first = toys.answers(one, backbone, seed=1, preset=preset)
            except UserError:  # beams do not sample, and a search of its own may not
                continue
            tried.append(chosen)
            if toys.different(first, toys.answers(one, backbone, seed=1, preset=preset)):
                breach(
                    "the same seed gives other answers",
                    "Something is drawn that does not follow the run's seed.",
                    "Draw from context.generators('purpose'), one generator a sample.",
                )
            if not toys.different(first, toys.answers(one, backbone, seed=2, preset=preset)):
                breach(
                    f"seeds 1 and 2 give the same answers with select=sample, preset {preset}",
                    "Tokens are drawn there, so they must follow the seed.",
                    "A `search` of its own draws by settings.selection and "
                    "context.generators('tokens'), or refuses with a UserError.",
                )

    def test_shared_randomness_is_left_alone(self, decoder: Decoder, backbone: Backbone) -> None:
        """torch's, numpy's and Python's own generators are neither used nor moved."""
        scramble(1)
        before = randomness()
        first = toys.answers(decoder, backbone)
        moved = changed(before, randomness())
        scramble(2)
        if moved or toys.different(first, toys.answers(decoder, backbone)):
            what = (
                f"it moves the generator of {', '.join(moved)}" if moved else "it is seeded by it"
            )
            breach(
                f"answers draw from randomness that all of the process share: {what}",
                "Answers would depend on the order of samples and on what ran before.",
                "Draw from context.generators('purpose'), one generator a sample.",
            )

    def test_regions_move_only_what_needs_them(self, decoder: Decoder, backbone: Backbone) -> None:
        """Samples with, without and with an empty region are answered; others ignore it."""
        with_regions = toys.answers(decoder, backbone)
        if "roi" in (*decoder.needs, *decoder.uses):
            return
        plain = toys.answers(decoder, backbone, with_regions=False)
        if toys.different(with_regions, plain):
            breach(
                "answers change with the samples' regions",
                "Whoever reads its scores must know that it was told where to look.",
                "Say so: needs = ('roi',), or do not read context.rois.",
            )

    def test_a_run_goes_on_where_it_was_cut(self, decoder: Decoder, tmp_path: Path) -> None:
        """`medbench run` on `phantom` with `toy`, cut in the middle, ends with equal scores."""
        check_run(decoder.name, tmp_path)
