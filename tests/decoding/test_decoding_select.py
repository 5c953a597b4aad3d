import math
from dataclasses import replace

import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor

import medbench
from medbench.decoding.plausibility import plausible
from medbench.decoding.randomness import generator, sample_seed
from medbench.decoding.select import Selection, penalised, pick, resolve, warp
from medbench.errors import UserError


def draws(rows, width, seed=0):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) * 3


def kept(scores):
    return [set(row.isfinite().nonzero().flatten().tolist()) for row in scores]


def test_the_nucleus_is_the_smallest_set_that_reaches_p():
    scores = draws(200, 40)
    for p in (0.05, 0.5, 0.9, 0.999):
        sets = kept(warp(scores, Selection("sample", top_p=p)))
        for row, found in zip(scores.softmax(-1).double(), sets, strict=True):
            expected, total = set(), 0.0
            for token in row.argsort(descending=True).tolist():
                expected.add(token)
                total += float(row[token])
                if total >= p:
                    break
            assert found == expected


def test_the_nucleus_keeps_the_likeliest_token_however_small_p_is():
    assert kept(warp(draws(5, 10), Selection("sample", top_p=1e-9))) == [
        {int(row.argmax())} for row in draws(5, 10)
    ]


def test_temperature_comes_before_top_k_and_top_k_before_top_p():
    scores = torch.tensor([0.6, 0.3, 0.1]).log()[None]
    # Squared: 0.783, 0.196, 0.022. Over the two likeliest: 0.8, 0.2.
    assert kept(warp(scores, Selection("sample", top_p=0.7))) == [{0, 1}]
    assert kept(warp(scores, Selection("sample", top_p=0.7, temperature=0.5))) == [{0}]
    assert kept(warp(scores, Selection("sample", top_p=0.95, top_k=2))) == [{0, 1}]
    # 0.6 of all three is 0.67 of two: only after top-k does the first one reach 0.65 alone.
    assert kept(warp(scores, Selection("sample", top_p=0.65))) == [{0, 1}]
    assert kept(warp(scores, Selection("sample", top_p=0.65, top_k=2))) == [{0}]


def test_warped_scores_keep_the_proportions_of_what_is_left():
    scores = draws(3, 12)
    warped = warp(scores, Selection("sample", temperature=0.7, top_k=5)).softmax(-1)
    for row, out in zip(scores, warped, strict=True):
        top = row.argsort(descending=True)[:5]
        weights = (row[top] / 0.7).exp()
        assert torch.allclose(out[top], weights / weights.sum(), atol=1e-6)
        assert int((out > 0).sum()) == 5


def test_top_k_above_the_vocabulary_keeps_everything():
    assert kept(warp(draws(2, 4), Selection("sample", top_k=50))) == [set(range(4))] * 2


def test_barred_tokens_stay_barred():
    scores = draws(50, 6)
    scores[:, ::2] = -math.inf
    selection = Selection("sample", top_p=0.9, temperature=5.0)
    generators = [generator(0, str(index), "tokens") for index in range(50)]
    assert set((pick(scores, selection, generators) % 2).tolist()) == {1}


def test_argmax_takes_the_first_of_equals_and_ignores_the_warpers():
    scores = torch.tensor([[0.0, 2.0, 2.0, 1.0]])
    assert pick(scores, Selection(temperature=9.0, top_k=1, top_p=0.1), []).tolist() == [1]


def test_draws_have_the_probabilities_of_the_scores():
    scores = torch.tensor([[0.5, 0.3, 0.2]]).log().expand(4000, 3)
    generators = [generator(0, str(index), "tokens") for index in range(4000)]
    picked = pick(scores, Selection("sample"), generators)
    shares = torch.bincount(picked, minlength=3) / 4000
    assert torch.allclose(shares, torch.tensor([0.5, 0.3, 0.2]), atol=0.03)


def test_a_draw_depends_on_the_seed_the_sample_and_the_purpose():
    seeds = {
        sample_seed(seed, name, purpose)
        for seed in (0, 1)
        for name in ("a", "b")
        for purpose in ("noise", "tokens")
    }
    assert len(seeds) == 8
    assert sample_seed(3, "x", "noise") == sample_seed(3, "x", "noise")
    # Written down, so that a later version cannot change published draws unnoticed.
    assert sample_seed(0, "a", "tokens") == 7650457273767578805


def test_drawing_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    pick(draws(2, 9), Selection("sample"), [generator(0, name, "tokens") for name in "ab"])
    assert torch.equal(torch.rand(3), expected)


def test_a_token_exactly_on_the_plausibility_edge_is_kept():
    edge = torch.tensor(2.0) + math.log(0.1)
    main = torch.stack([torch.tensor(2.0), edge, torch.nextafter(edge, torch.tensor(-9.0))])[None]
    scores = plausible(torch.zeros(1, 3), main, 0.1)
    assert scores.tolist() == [[0.0, 0.0, -math.inf]]


def test_plausibility_reads_the_main_branch_and_logits_as_well_as_log_probabilities():
    main, scores = draws(20, 30), draws(20, 30, seed=1)
    out = plausible(scores, main, 0.2)
    expected = main.softmax(-1) >= 0.2 * main.softmax(-1).amax(-1, keepdim=True)
    assert torch.equal(out.isfinite(), expected)
    assert torch.equal(out[expected], scores[expected])
    assert torch.equal(plausible(scores, main.log_softmax(-1), 0.2).isfinite(), expected)


def test_a_vanishing_beta_keeps_everything():
    main, scores = draws(4, 9), draws(4, 9, seed=1)
    for beta in (None, 0.0, 1e-30):
        assert torch.equal(plausible(scores, main, beta), scores)


def test_beta_one_keeps_the_likeliest_tokens_alone():
    main = torch.tensor([[1.0, 3.0, 3.0, 2.0]])
    assert plausible(torch.zeros(1, 4), main, 1.0).isfinite().tolist() == [
        [False, True, True, False]
    ]


def decoder(text):
    from medbench.decoding.generate import create_decoder

    return create_decoder(text)


def test_matched_gives_every_method_the_argmax_and_published_the_authors_selection():
    assert resolve(decoder("vcd"), "matched") == Selection("argmax")
    assert resolve(decoder("vcd"), "published").select == "sample"
    assert resolve(decoder("greedy"), "published").select == "argmax"


def test_what_the_method_says_itself_wins_over_the_preset():
    assert resolve(decoder("vcd[select=argmax]"), "published").select == "argmax"
    assert resolve(decoder("vcd[select=sample]"), "matched").select == "sample"
    for preset in ("matched", "published"):
        nucleus, beam = resolve(decoder("nucleus"), preset), resolve(decoder("beam"), preset)
        assert (nucleus.select, nucleus.top_p, nucleus.top_k) == ("sample", 0.9, 0)
        assert (beam.select, beam.beams) == ("argmax", 5)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("greedy[temperature=0]", "Temperature is above 0"),
        ("greedy[top_k=-1]", "Top_k is 0"),
        ("greedy[top_p=0]", "Top_p lies above 0"),
        ("greedy[top_p=1.5]", "Top_p lies above 0"),
        ("greedy[beams=0]", "Beams is 1 or more"),
        ("nucleus[beams=2]", "Beams and sampling"),
    ],
)
def test_values_that_select_nothing_are_refused(text, rule):
    with pytest.raises(UserError) as error:
        resolve(decoder(text), "matched")
    assert rule in error.value.why


def test_an_unknown_preset_is_refused():
    with pytest.raises(UserError, match="no preset 'fair'"):
        resolve(decoder("greedy"), "fair")


@pytest.mark.parametrize("penalty", [1.3, 0.8])
def test_a_repetition_penalty_is_that_of_transformers(penalty):
    scores = draws(3, 20)
    scores[0, 4], scores[1, 7], scores[2, :5] = -math.inf, 0.0, -math.inf
    ids = torch.tensor([[4, 9, 9, 3, 11, 4], [7, 0, 19, 1, 2, 7], [0, 1, 15, 15, 6, 8]])
    expected = RepetitionPenaltyLogitsProcessor(penalty)(ids, scores.clone())
    seen = scores.gather(1, ids)
    assert (seen > 0).any()
    assert ((seen < 0) & seen.isfinite()).any()
    before = scores.clone()
    assert torch.equal(penalised(scores, penalty, ids.tolist()), expected)
    assert torch.equal(scores, before)
    for row in range(3):
        alone = penalised(scores[row : row + 1], penalty, ids[row : row + 1].tolist())
        assert torch.equal(alone[0], expected[row])


def test_rows_that_have_seen_different_numbers_of_tokens_are_penalised_by_their_own():
    scores, seen = draws(3, 20), [[3], [5, 6, 7, 8, 9, 5], [0, 19]]
    out = penalised(scores, 1.3, seen)
    for row, tokens in enumerate(seen):
        alone = RepetitionPenaltyLogitsProcessor(1.3)(
            torch.tensor([tokens]), scores[row : row + 1].clone()
        )
        assert torch.equal(out[row], alone[0])
        changed = (out[row] != scores[row]).nonzero().flatten().tolist()
        assert changed == sorted(set(tokens))


def test_a_penalty_of_one_changes_nothing():
    assert torch.equal(penalised(draws(2, 9), 1.0, [[1, 2], [3]]), draws(2, 9))


def penalised_greedy(reference, ids, features, penalty, steps):
    """Return tokens, by transformers' own processor; an image's places are no text."""
    processor = RepetitionPenaltyLogitsProcessor(penalty)
    text = [token for token in ids if token != reference.backbone.image_token_id]
    tokens = []
    for _ in range(steps):
        logits = reference.next(ids + tokens, features)[None]
        tokens.append(int(processor(torch.tensor([text + tokens]), logits).argmax()))
    return tokens


def penalised_beams(reference, ids, features, penalty, steps, beams):
    """Return the best of so many beams; the processor reads log-probabilities."""
    processor = RepetitionPenaltyLogitsProcessor(penalty)
    text = [token for token in ids if token != reference.backbone.image_token_id]
    running = [([], 0.0)]
    for _ in range(steps):
        extended = []
        for tokens, score in running:
            logs = reference.next(ids + tokens, features)[None].log_softmax(-1)
            logs = processor(torch.tensor([text + tokens]), logs)[0].tolist()
            extended += [([*tokens, token], score + log) for token, log in enumerate(logs)]
        running = sorted(extended, key=lambda one: -one[1])[:beams]
    return running[0][0]


@pytest.mark.parametrize(("spec", "beams"), [("toy", 1), ("toy[text=qwen2]", 1), ("toy", 3)])
def test_a_penalised_answer_is_that_of_a_loop_with_the_processor_of_transformers(
    toy, eager, images, questions, spec, beams
):
    backbone = replace(toy(spec), eos_token_ids=())
    reference, steps = eager(backbone), 24 if beams == 1 else 14
    options = {"images": images[:3], "prompts": questions[:3], "max_new_tokens": steps}
    method = "greedy[repetition_penalty=1.3,beams={}]".format
    single = medbench.generate(backbone, method=method(beams), batch_size=1, **options)
    ragged = medbench.generate(backbone, method=method(beams), batch_size=3, **options)
    plain = medbench.generate(backbone, beams=beams, **options)
    pixels = backbone.pixel_values(images[:3])
    for index, features in enumerate(backbone.encode(pixels)):
        ids = backbone.prompt(questions[index], features).ids.tolist()
        inputs = (reference, ids, reference.features(pixels[index]), 1.3, steps)
        expected = penalised_greedy(*inputs) if beams == 1 else penalised_beams(*inputs, beams)
        assert single[index].token_ids == expected
        assert ragged[index].token_ids == expected
        assert plain[index].token_ids != expected


@pytest.mark.parametrize("beams", [1, 3])
def test_a_penalised_text_goes_on_as_with_transformers(toy, eager, questions, beams):
    """No image, so that transformers counts the same tokens of the prompt by itself."""
    backbone = toy("toy[seed=1]", ends=6)
    texts = [backbone.tokenizer(question).input_ids for question in questions[:3]]
    options = {"input_ids": texts, "max_new_tokens": 20}
    method = f"greedy[repetition_penalty=1.3,beams={beams}]"
    single = medbench.generate(backbone, method=method, batch_size=1, **options)
    ragged = medbench.generate(backbone, method=method, batch_size=3, **options)
    plain = medbench.generate(backbone, beams=beams, **options)
    for index, text in enumerate(texts):
        whole = eager(toy("toy[seed=1]")).language_model.generate(
            input_ids=torch.tensor([text]),
            attention_mask=torch.ones(1, len(text), dtype=torch.long),
            repetition_penalty=1.3,
            num_beams=beams,
            do_sample=False,
            max_new_tokens=20,
            eos_token_id=list(backbone.eos_token_ids),
        )
        expected = whole[0, len(text) :].tolist()
        assert single[index].token_ids == ragged[index].token_ids == expected
        assert plain[index].token_ids != expected


def test_nothing_seen_is_nothing_penalised():
    assert torch.equal(penalised(draws(1, 3), 1.2, [[]]), draws(1, 3))
