"""Beams that look ahead and go back, and the length rule of 4.29, against whole passes."""

import pytest
import torch

import medbench
from medbench.decoding.lookahead import BeamStack
from medbench.decoding.reading import Reading

BACKBONES = ["toy[layers=3]", "toy[layers=3,text=mistral,kv_heads=1]", "toy[text=qwen2,kv_heads=4]"]
# Of three beams, what is tried in each round, then which beam goes on, with which of its tokens.
ROUNDS = [
    ([[30, 31, 32, 33], [30, 31, 32, 33], [30, 31, 32, 33]], [0, 1, 2], [0, 3, 1]),
    ([[40, 41, 42, 43], [4, 5, 6, 7], [90, 8, 55, 4]], [2, 0, 0], [3, 1, 2]),
    ([[50, 51, 52, 53], [60, 60, 61, 2], [70, 71, 30, 73]], [1, 2, 1], [0, 2, 3]),
    ([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]], [0, 2, 1], [1, 1, 1]),
]


@pytest.fixture
def begin(toy, images, questions):
    """Return a maker of a stack of three beams that begin with a prompt."""

    def make(spec, reading=None):
        backbone = toy(spec)
        features = backbone.encode(backbone.pixel_values(images[1:2]))[0]
        return BeamStack(backbone, backbone.prompt(questions[1], features), 3, reading)

    return make


@pytest.fixture
def whole(toy, eager, images, questions):
    """Return the next logits and the last token's last-layer attention, one pass an answer."""

    def run(spec, answers):
        backbone = toy(spec)
        reference = eager(backbone)
        [pixels] = backbone.pixel_values(images[1:2])
        features = reference.features(pixels)
        ids = backbone.prompt(questions[1], features).ids.tolist()
        passes = [reference.run([*ids, *answer], features) for answer in answers]
        logits = torch.stack([logits[-1] for logits, _ in passes])
        return logits, torch.stack([attention[-1][:, -1] for _, attention in passes])

    return run


def close(one, other):
    return torch.allclose(one, other, rtol=0, atol=1e-4)


def go_on(answers, candidates, parents, choices):
    """Return the beams that follow."""
    return [
        [*answers[parent], candidates[parent][choice]]
        for parent, choice in zip(parents, choices, strict=True)
    ]


def accept(stack, candidates, parents, choices):
    proposals = stack.propose(torch.tensor(candidates))
    stack.accept(torch.tensor(parents), torch.tensor(choices))
    return proposals


@pytest.mark.parametrize("spec", BACKBONES)
def test_proposals_are_passes_of_their_own(begin, whole, spec):
    stack, answers = begin(spec), [[], [], []]
    for candidates, parents, choices in ROUNDS:
        proposals = accept(stack, candidates, parents, choices)
        tried = [
            [*answer, token]
            for answer, row in zip(answers, candidates, strict=True)
            for token in row
        ]
        logits, rows = whole(spec, tried)
        assert close(proposals.logits.flatten(0, 1), logits)
        assert proposals.rows.shape[-1] == rows.shape[-1]
        assert close(proposals.rows.transpose(1, 2).flatten(0, 1), rows)
        answers = go_on(answers, candidates, parents, choices)
        assert close(stack.logits, whole(spec, answers)[0])


@pytest.mark.parametrize("spec", BACKBONES)
def test_accepting_a_proposal_is_appending_its_token(begin, whole, spec):
    accepting = begin(spec, Reading(attention=True))
    appending = begin(spec, Reading(attention=True))
    answers = [[], [], []]
    for candidates, parents, choices in ROUNDS:
        accept(accepting, candidates, parents, choices)
        answers = go_on(answers, candidates, parents, choices)
        appending.keep(torch.tensor(parents))
        appending.append(torch.tensor([answer[-1] for answer in answers]))
        assert close(accepting.logits, appending.logits)
        assert close(accepting.attention, appending.attention)
        assert torch.equal(accepting.lengths, appending.lengths)
    assert close(appending.logits, whole(spec, answers)[0])


@pytest.mark.parametrize("pending", [True, False], ids=["with proposals", "without"])
@pytest.mark.parametrize("spec", BACKBONES)
def test_going_back_brings_back_what_was_said_there(begin, whole, spec, pending):
    stack, answers, past = begin(spec, Reading(attention=True)), [[], [], []], []
    for candidates, parents, choices in ROUNDS:
        accept(stack, candidates, parents, choices)
        answers = go_on(answers, candidates, parents, choices)
        past.append((answers, stack.logits, stack.attention))
    # From four tokens to two, from three to three others, from four to one.
    for number, round_number in ((1, 0), (2, 3), (0, 2)):
        answers, logits, attention = past[number]
        if pending:
            stack.propose(torch.tensor(ROUNDS[0][0]))
        stack.rewind(torch.tensor(answers), attention)
        assert close(stack.logits, logits)
        assert close(stack.logits, whole(spec, answers)[0])
        assert torch.equal(stack.attention, attention)
        candidates, parents, choices = ROUNDS[round_number]
        proposals = accept(stack, candidates, parents, choices)
        tried = [
            [*answer, token]
            for answer, row in zip(answers, candidates, strict=True)
            for token in row
        ]
        assert close(proposals.rows.transpose(1, 2).flatten(0, 1), whole(spec, tried)[1])
        answers = go_on(answers, candidates, parents, choices)
        assert close(stack.logits, whole(spec, answers)[0])


@pytest.mark.parametrize("spec", BACKBONES)
def test_discarded_proposals_leave_no_trace(begin, spec):
    looking, plain = begin(spec, Reading(attention=True)), begin(spec, Reading(attention=True))
    for candidates, parents, choices in ROUNDS:
        looking.propose(torch.tensor(ROUNDS[1][0]))
        looking.discard()
        looking.discard()
        assert torch.equal(looking.logits, plain.logits)
        one, other = (accept(stack, candidates, parents, choices) for stack in (looking, plain))
        assert torch.equal(one.logits, other.logits)
        assert torch.equal(one.rows, other.rows)
        looking.propose(torch.tensor(ROUNDS[1][0])[:, :1])
        looking.discard()
        for stack in (looking, plain):
            stack.append(torch.tensor([20, 21, 22]))
        assert torch.equal(looking.logits, plain.logits)
        assert torch.equal(looking.attention, plain.attention)
        assert looking.forwards > plain.forwards


def naive_beam_of_old(reference, ids, features, beams, ends, steps):
    """Return the answer and the steps of a search by the rules of transformers 4.29.

    A hypothesis's length counts the prompt, its image as one token, but not the end token.
    """
    image = reference.backbone.image_token_id
    prompt = len([token for token in ids if token != image]) + 1
    running, finished = [([], 0.0)], []
    for step in range(1, steps + 1):
        ranked = []
        for tokens, score in running:
            logs = reference.next(ids + tokens, features).log_softmax(-1).tolist()
            ranked += [([*tokens, token], score + log) for token, log in enumerate(logs)]
        ranked.sort(key=lambda one: -one[1])
        running = [one for one in ranked if one[0][-1] not in ends][:beams]
        over = [one for one in ranked[:beams] if one[0][-1] in ends]
        finished += [(score / (prompt + step - 1), tokens) for tokens, score in over]
        finished = sorted(finished, key=lambda one: -one[0])[:beams]
        # The best candidate counts, even if it has just ended.
        if len(finished) == beams and finished[-1][0] >= ranked[0][1] / (prompt + step):
            return finished[0][1], step
    finished += [(score / (prompt + steps), tokens) for tokens, score in running]
    return max(finished, key=lambda one: one[0])[1], steps


@pytest.mark.parametrize(
    ("spec", "ends", "beams"),
    [("toy", 30, 2), ("toy", 12, 5), ("toy[seed=1,text=mistral,kv_heads=1]", 12, 3)],
)
def test_beam_search_that_counts_the_prompt_is_that_of_a_loop_over_lists(
    toy, eager, images, spec, ends, beams
):
    """The prompts are short, so that one token of theirs more or less makes a difference."""
    backbone = toy(spec, ends=ends)
    reference = eager(toy(spec))
    prompts = [
        [1, *[backbone.image_token_id] * backbone.image_tokens, 30 + index] for index in range(8)
    ]
    counting, plain = (
        medbench.generate(
            backbone,
            method=f"beam[beams={beams},length_norm={counted}]",
            images=images,
            input_ids=prompts,
            max_new_tokens=10,
            record_scores=10,
        )
        for counted in ("prompt", "generated")
    )
    pixels = backbone.pixel_values(images)
    for ids, image, answer in zip(prompts, pixels, counting, strict=True):
        features = reference.features(image)
        tokens, steps = naive_beam_of_old(
            reference, ids, features, beams, backbone.eos_token_ids, 10
        )
        assert answer.token_ids == tokens
        assert len(answer.scores) == steps
    assert any(a.token_ids != b.token_ids for a, b in zip(counting, plain, strict=True))
