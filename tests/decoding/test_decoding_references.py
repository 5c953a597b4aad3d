"""Decoders against references written here: no cache, no batch, no padding, no branches."""

import math

import pytest
import torch

import medbench

STEPS = 26


def inputs(backbone, images, questions):
    """Return the ids and the pixels of each sample, as a reference needs them."""
    pixels = backbone.pixel_values(images)
    features = backbone.encode(pixels)
    ids = [backbone.prompt(q, f).ids.tolist() for q, f in zip(questions, features, strict=True)]
    return ids, pixels


def naive_vcd(reference, ids, features, noised, alpha, beta, steps):
    """Return tokens and scores; barred tokens have -inf."""
    tokens, scores = [], []
    for _ in range(steps):
        main = reference.next(ids + tokens, features)
        other = reference.next(ids + tokens, noised)
        row = [
            (1 + alpha) * float(z) - alpha * float(n)
            if float(z) >= float(main.max()) + math.log(beta)
            else -math.inf
            for z, n in zip(main, other, strict=True)
        ]
        scores.append(row)
        tokens.append(max(range(len(row)), key=row.__getitem__))
    return tokens, torch.tensor(scores)


def naive_beam(reference, ids, features, beams, ends, steps):
    """Return the best hypothesis; every running hypothesis is a list of tokens."""
    running, finished = [([], 0.0)], []
    for step in range(1, steps + 1):
        candidates = []
        for tokens, score in running:
            logs = reference.next(ids + tokens, features).log_softmax(-1)
            candidates += [(score + float(log), tokens, t) for t, log in enumerate(logs)]
        candidates.sort(key=lambda one: -one[0])
        running = []
        for rank, (score, tokens, token) in enumerate(candidates):
            if token in ends or step == steps:
                if rank < beams:
                    finished.append((score / step, [*tokens, token]))
            elif len(running) < beams:
                running.append(([*tokens, token], score))
            if len(running) == beams and rank >= beams:
                break
        finished = sorted(finished, key=lambda one: -one[0])[:beams]
        if not running:
            break
        if len(finished) == beams and running[0][1] / step <= finished[-1][0]:
            break
    return finished[0][1]


@pytest.mark.parametrize(
    ("spec", "alpha", "beta"),
    [("toy", 1.0, 0.1), ("toy[text=qwen2,kv_heads=4]", 0.5, 0.3)],
)
def test_vcd_scores_are_those_of_a_cache_free_loop(
    toy, eager, images, questions, spec, alpha, beta
):
    backbone = toy(spec)
    reference = eager(backbone)
    images, questions = images[:3], questions[:3]
    ids, pixels = inputs(backbone, images, questions)
    noised = pixels + torch.randn(pixels.shape, generator=torch.Generator().manual_seed(7))
    common = {
        "method": f"vcd[alpha={alpha},beta={beta}]",
        "branch_tensors": {"noised": noised},
        "max_new_tokens": STEPS,
        "record_scores": STEPS,
        "images": images,
        "prompts": questions,
    }
    single = medbench.generate(backbone, batch_size=1, **common)
    ragged = medbench.generate(backbone, batch_size=3, **common)
    for index in range(3):
        length = len(single[index].token_ids)
        tokens, scores = naive_vcd(
            reference,
            ids[index],
            reference.features(pixels[index]),
            reference.features(noised[index]),
            alpha,
            beta,
            length,
        )
        barred = ~scores.isfinite()
        assert barred.any()
        for answer in (single[index], ragged[index]):
            assert answer.token_ids == tokens
            assert torch.equal(~answer.scores.isfinite(), barred)
            assert (answer.scores - scores)[~barred].abs().max() < 1e-4
    assert max(len(answer.token_ids) for answer in single) >= 24
    plain = medbench.generate(backbone, images=images, prompts=questions, max_new_tokens=STEPS)
    assert any(a.token_ids != b.token_ids for a, b in zip(plain, single, strict=True))


def test_vcd_with_beams_searches_over_the_contrasted_scores(toy, eager, images, questions):
    """Three steps of two beams, by enumeration of every continuation."""
    backbone = toy()
    reference = eager(backbone)
    ids, pixels = inputs(backbone, images[:2], questions[:2])
    noised = pixels + torch.randn(pixels.shape, generator=torch.Generator().manual_seed(7))
    decoded = medbench.generate(
        backbone,
        method="vcd[beams=2]",
        images=images[:2],
        prompts=questions[:2],
        branch_tensors={"noised": noised},
        max_new_tokens=3,
    )
    for index, answer in enumerate(decoded):
        main, other = reference.features(pixels[index]), reference.features(noised[index])

        def logs(tokens, ids=ids[index], main=main, other=other):
            z, n = (reference.next(ids + tokens, part) for part in (main, other))
            barred = z < z.max() + math.log(0.1)
            return (2 * z - n).masked_fill(barred, -math.inf).log_softmax(-1).tolist()

        running = [([], 0.0)]
        for _ in range(3):
            extended = [
                ([*tokens, token], score + log)
                for tokens, score in running
                for token, log in enumerate(logs(tokens))
            ]
            running = sorted(extended, key=lambda one: -one[1])[:2]
        assert answer.token_ids == running[0][0]


@pytest.mark.parametrize(
    ("spec", "ends"), [("toy", 0), ("toy[text=mistral,kv_heads=1]", 6), ("toy", 70)]
)
def test_beam_search_is_that_of_a_loop_over_lists(toy, eager, images, questions, spec, ends):
    backbone = toy(spec, ends=ends)
    reference = eager(toy(spec))
    ids, pixels = inputs(backbone, images[:4], questions[:4])
    decoded = medbench.generate(
        backbone, method="beam", images=images[:4], prompts=questions[:4], max_new_tokens=10
    )
    for index, answer in enumerate(decoded):
        features = reference.features(pixels[index])
        expected = naive_beam(reference, ids[index], features, 5, backbone.eos_token_ids, 10)
        assert answer.token_ids == expected
    greedy = medbench.generate(
        backbone, images=images[:4], prompts=questions[:4], max_new_tokens=10
    )
    assert any(a.token_ids != b.token_ids for a, b in zip(greedy, decoded, strict=True))


def test_one_beam_is_greedy(toy, images, questions):
    one = medbench.generate(
        toy(), method="beam[beams=1]", images=images, prompts=questions, max_new_tokens=8
    )
    greedy = medbench.generate(toy(), images=images, prompts=questions, max_new_tokens=8)
    assert [a.token_ids for a in one] == [a.token_ids for a in greedy]


def test_blind_logits_are_those_of_the_text_alone(toy, eager, images, questions):
    backbone = toy()
    reference = eager(backbone)
    ids, _ = inputs(backbone, images, questions)
    decoded = medbench.generate(
        backbone,
        method="blind",
        images=images,
        prompts=questions,
        max_new_tokens=STEPS,
        record_scores=STEPS,
    )
    for prompt, answer in zip(ids, decoded, strict=True):
        text = [token for token in prompt if token != backbone.image_token_id]
        assert len(text) == len(prompt) - backbone.image_tokens
        logits = reference.run(text + answer.token_ids)[0][len(text) - 1 : -1]
        assert (answer.scores - logits).abs().max() < 1e-4


def test_greedy_scores_are_the_logits_of_one_pass_over_the_whole_answer(
    toy, eager, images, questions
):
    backbone = toy("toy[text=mistral,kv_heads=1]")
    reference = eager(backbone)
    ids, pixels = inputs(backbone, images, questions)
    decoded = medbench.generate(
        backbone, images=images, prompts=questions, max_new_tokens=STEPS, record_scores=STEPS
    )
    for index, answer in enumerate(decoded):
        features = reference.features(pixels[index])
        whole = ids[index] + answer.token_ids
        logits = reference.run(whole, features)[0][len(ids[index]) - 1 : -1]
        assert (answer.scores - logits).abs().max() < 1e-4
        assert logits.argmax(-1).tolist() == answer.token_ids
