"""Cells against their row's reference: each number by a plain count over all that could be drawn.

With four images there are 256 ways to draw four of them, and with eight of them 256 ways to give
their differences signs, so that nothing here has to be drawn.
"""

import itertools
import re
import statistics

import pytest

from medbench import store

CLOSED = "closed/paper"
FOUR = "11010010"  # two questions an image
EIGHT = "1100110001100101"
MUCH = "11111111111111111111"


def contrast(cells, label, group="Toy", metric=CLOSED):
    return cells[group, label, metric]["contrast"]


def by_image(first, second):
    """Return (sum of differences, questions) of each image, for values of one seed."""
    pairs = [float(b) - float(a) for a, b in zip(first, second, strict=True)]
    return [(sum(pairs[at : at + 2]), len(pairs[at : at + 2])) for at in range(0, len(pairs), 2)]


def all_draws(images):
    """Return the mean over the questions drawn, for every way to draw as many images."""
    return sorted(
        sum(one[0] for one in drawn) / sum(one[1] for one in drawn)
        for drawn in itertools.product(images, repeat=len(images))
    )


def all_signs(images):
    """Return the share of signs that put the sum as far from zero as it is."""
    sums = [total for total, _ in images]
    found = [
        abs(sum(s * one for s, one in zip(signs, sums, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(sums))
    ]
    return sum(one >= abs(sum(sums)) - 1e-9 for one in found) / len(found)


def holm(p_values):
    """Return p values corrected step by step, the smallest times their number first."""
    found, least = {}, 0.0
    for at, p in enumerate(sorted(p_values)):
        least = max(least, p * (len(p_values) - at))
        found[p] = min(1.0, least)
    return [found[p] for p in p_values]


# The numbers of one comparison


def test_the_gap_is_that_of_the_row_over_its_reference(make, layout, cells):
    make("greedy", "1100")
    make("vcd", "1110")
    make("dola", "1000")
    found = cells(layout())
    assert contrast(found, "VCD")["gap"] == 0.25
    assert contrast(found, "DoLa")["gap"] == -0.25
    assert contrast(found, "VCD")["reference"] == "Toy / Greedy"
    assert "contrast" not in found["Toy", "Greedy", CLOSED]


def test_the_gap_in_questions(make, layout, cells, shown):
    make("greedy", "11000000", [0.5, 0.25, 0.0])
    make("vcd", "11111000", [0.5, 0.5, 0.5])
    found = cells(layout())
    assert contrast(found, "VCD")["questions"] == 3
    assert contrast(found, "VCD", metric="recall/paper")["questions"] == pytest.approx(0.75)
    printed = shown(layout())
    assert re.search(r"\+37\.50 \[.*\] \+3 of 8 p \.", printed)
    assert re.search(r"\+25\.00 \[.*\] \+0\.8 of 3 p ", printed)


def test_a_loss_is_written_with_a_minus(make, layout, shown):
    make("greedy", "11111000")
    make("vcd", "11000000")
    assert re.search(r"VCD +−37\.50 \[−[0-9.]+, [−0-9.]+\] −3 of 8 p ", shown(layout()))


def test_the_interval_draws_whole_images(make, layout, cells):
    # Images of unlike sizes: two questions on each but the last.
    first, second = "1101001", "1111101"
    make("greedy", first)
    make("vcd", second)
    found = contrast(cells(layout()), "VCD")
    draws = all_draws(by_image(first, second))
    low, high = draws[int(0.025 * len(draws))], draws[int(0.975 * len(draws))]
    assert (found["low"], found["high"]) == (pytest.approx(low), pytest.approx(high))
    assert found["groups"] == 4 and found["n"] == 7


def test_the_smallest_gap_is_that_of_the_draws_spread(make, layout, cells):
    second = "11111100"
    make("greedy", FOUR)
    make("vcd", second)
    spread = statistics.pstdev(all_draws(by_image(FOUR, second)))
    smallest = (1.959964 + 0.841621) * spread
    assert contrast(cells(layout()), "VCD")["smallest"] == pytest.approx(smallest, rel=0.03)


def test_right_and_wrong_answers_have_mcnemar_s_test_over_images(make, layout, cells):
    second = "1111111111100111"
    make("greedy", EIGHT)
    make("vcd", second)
    found = contrast(cells(layout()), "VCD")
    p = all_signs(by_image(EIGHT, second))
    assert 0 < p < 1
    assert (found["test"], found["p_uncorrected"]) == ("mcnemar", pytest.approx(p))
    assert found["p"] == found["p_uncorrected"]  # the only comparison


def test_shares_have_the_test_of_the_draws(make, layout, cells):
    first, second = [0.5, 0.0, 1.0, 0.25, 0.5, 0.5, 0.0, 0.5], [1.0, 0.5, 1.0, 0, 1, 1, 0, 0.25]
    make("greedy", "", first)
    make("vcd", "", second)
    found = contrast(cells(layout()), "VCD", metric="recall/paper")
    draws = all_draws(by_image(first, second))
    below = sum(one <= 1e-9 for one in draws) / len(draws)
    assert 0.02 < 2 * below < 0.5
    assert (found["test"], found["p_uncorrected"]) == (
        "bootstrap",
        pytest.approx(2 * below, abs=0.02),
    )


def test_equal_answers_have_no_gap_and_p_1(make, layout, cells, shown):
    make("greedy", FOUR)
    make("vcd", FOUR)
    found = contrast(cells(layout()), "VCD")
    assert (found["gap"], found["questions"], found["p"]) == (0, 0, 1)
    assert "0.00 [0.00, 0.00] 0 of 8 p 1" in shown(layout())


def test_one_image_alone_has_neither_interval_nor_p(make, layout, cells, shown):
    make("greedy", "10")
    make("vcd", "11")
    found = contrast(cells(layout()), "VCD")
    assert found["gap"] == 0.5
    assert found["low"] is found["high"] is found["p"] is found["smallest"] is None
    assert re.search(r"VCD +\+50\.00 \+1 of 2 +–\n", shown(layout()))


# Seeds


def test_seeds_are_averaged_question_by_question(make, layout, cells):
    """Two seeds of one against three of the other: exact over the signs of images all the same."""
    first, second = ("11010010", "10010010"), ("11110010", "11011110", "11010111")
    for seed, closed in enumerate(first):
        make("greedy", closed, seed=seed)
    for seed, closed in enumerate(second):
        make("vcd", closed, seed=seed)
    means = [
        [statistics.fmean(map(float, answers)) for answers in zip(*seeds, strict=True)]
        for seeds in (first, second)
    ]
    images = by_image(*means)
    found = contrast(cells(layout()), "VCD")
    assert found["gap"] == pytest.approx(sum(total for total, _ in images) / 8)
    assert found["questions"] == pytest.approx(sum(total for total, _ in images))
    assert found["p_uncorrected"] == pytest.approx(all_signs(images))
    draws = all_draws(images)
    assert found["low"] == pytest.approx(draws[int(0.025 * len(draws))])


# Which questions


def test_answers_are_paired_by_the_sample_s_id(make, layout, cells):
    make("greedy", "11001100")
    folder = make("vcd", "11011110")
    before = contrast(cells(layout()), "VCD")
    rows = store.read_rows(folder)
    store.finish(folder, [rows[at] for at in (5, 2, 7, 0, 1, 6, 3, 4)], store.read_scores(folder))
    assert contrast(cells(layout()), "VCD") == before


def test_a_question_without_a_value_in_one_run_is_left_out(make, layout, cells):
    make("greedy", "11001100")
    folder = make("vcd", "11111100")
    rows = store.read_rows(folder)
    rows[0]["scores"][CLOSED] = rows[2]["scores"][CLOSED] = None
    kept = [value for row in rows if (value := row["scores"][CLOSED]) is not None]
    content = store.read_scores(folder)
    content["scores"][CLOSED] |= {"value": statistics.fmean(kept), "n": 6}
    store.finish(folder, rows, content)
    found = contrast(cells(layout()), "VCD")
    # Of the two questions that vcd has more, one is left out.
    assert (found["n"], found["questions"]) == (6, 1)


def test_a_column_about_some_samples_compares_these(make, layout, cells):
    lungs = 'metric = "closed/paper"\nwhere = { location = "Lung" }'
    for method, closed in (("greedy", "1000110011"), ("vcd", "1010100101")):
        make(method, closed, locations=("Lung", "Heart"))
    found = contrast(cells(layout(('metric = "closed/paper"', lungs))), "VCD")
    # Every other question, one an image: 1 0 1 0 1 against 1 1 1 0 0.
    assert (found["n"], found["groups"], found["gap"]) == (5, 5, 0.0)
    assert found["p"] == 1
    assert found["low"] == -found["high"] == pytest.approx(-0.6)


def test_a_score_that_is_no_mean_is_not_compared(make, layout, cells):
    make("greedy", FOUR, pooled=0.3)
    make("vcd", FOUR, pooled=0.4)
    found = cells(layout(('metric = "closed/paper"', 'metric = "bleu4/coco"')))
    assert found["Toy", "VCD", "bleu4/coco"]["value"] == 0.4
    assert "contrast" not in found["Toy", "VCD", "bleu4/coco"]


def test_what_does_not_judge_questions_has_no_gap_in_questions(make, layout, cells):
    metrics = ("yes_rate",)
    make("greedy", FOUR, metrics=metrics)
    make("vcd", FOUR, metrics=metrics)
    found = cells(layout(('metric = "closed/paper"', 'metric = "yes_rate"')))
    assert contrast(found, "VCD", metric="yes_rate")["questions"] is None


# Which rows


def test_a_row_is_compared_with_its_own_reference(make, layout, cells, shown):
    make("greedy", "1100")
    make("lora", "1110")
    make("blind", "1000")
    found = cells(layout())
    tuned = contrast(found, "Greedy", group="Toy + LoRA")
    assert (tuned["reference"], tuned["gap"]) == ("Toy / Greedy", 0.25)
    assert "contrast" not in found["Toy + LoRA", "no image", CLOSED]
    assert "Against Greedy\n" in shown(layout())


def test_several_references_are_named_in_the_rows(make, layout, shown):
    for method in ("greedy", "vcd", "lora", "blind"):
        make(method, "1100")
    text = shown(layout(('method = "blind", reference = ""', 'method = "blind"')))
    below = text.split("Against the reference\n")[1]
    assert "  VCD − Greedy " in below
    assert "  Greedy − Toy / Greedy " in below
    assert "  no image − Greedy " in below


def test_without_the_reference_s_run_nothing_is_compared(make, layout, cells, shown):
    make("vcd", "1110")
    assert "contrast" not in cells(layout())["Toy", "VCD", CLOSED]
    assert "Against" not in shown(layout())


def test_a_reference_named_by_hand_compares_the_runs_found(make, shown, tables):
    make("greedy", "1100")
    make("vcd", "1110")
    (table,) = tables("--reference", "greedy", "--metric", CLOSED)
    (told,) = [
        cell["contrast"] for row in table["rows"] for cell in row["cells"] if "contrast" in cell
    ]
    assert (told["reference"], told["gap"]) == ("greedy", 0.25)


# Many comparisons


def test_p_is_corrected_over_all_comparisons_of_the_table(make, layout, cells, shown):
    recall = [0.5] * 8
    make("greedy", "0" * 20, recall)
    make("vcd", "1" * 18 + "00", [0.5, 1, 1, 0.5, 0.5, 1, 0.5, 0])
    make("dola", "1" * 12 + "0" * 8, recall)
    make("lora", "1" * 8 + "0" * 12, [1, 1, 0.5, 0, 0, 0.5, 1, 1])
    told = [cell["contrast"] for cell in cells(layout()).values() if "contrast" in cell]
    raw = [one["p_uncorrected"] for one in told]
    assert len(set(raw)) == len(raw) == 6
    assert [one["p"] for one in told] == pytest.approx(holm(raw))
    # Correcting matters: some fall above 0.05 only by it.
    assert sum(one <= 0.05 for one in raw) > sum(one["p"] <= 0.05 for one in told) > 0
    assert "corrected by Holm for 6 comparisons" in shown(layout())


def test_presets_are_corrected_apart(make, layout, tables):
    for preset in ("matched", "published"):
        make("greedy", EIGHT, preset=preset)
        make("vcd", MUCH[:16], preset=preset)
    for table in tables(layout()):
        (told,) = [
            c["contrast"] for row in table["rows"] for c in row["cells"] if c and "contrast" in c
        ]
        assert told["p"] == told["p_uncorrected"] < 1


def test_arrows_show_what_is_beyond_chance_after_correction(make, layout, shown):
    make("greedy", "10" * 8)
    make("vcd", "11" * 8)
    make("dola", "00" * 8)
    make("lora", "11" * 5 + "10" * 3)  # p is 1/16
    lines = shown(layout()).splitlines()
    scores = lines[: lines.index("")]
    marks = {line.split()[0]: line for line in scores if line.startswith("  ")}
    assert [line.split("]")[1].split()[0] for line in scores if "VCD" in line] == ["↑"]
    assert "↓" in marks["DoLa"] and "↑" not in marks["DoLa"]
    assert sum("↑" in line or "↓" in line for line in scores) == 2


def test_an_arrow_needs_the_corrected_p(make, layout, shown, cells):
    """Six images of one sign have a p of 1/32, which two comparisons double."""
    make("greedy", "10" * 6)
    make("vcd", "11" * 6)
    assert re.search(r"VCD .*↑", shown(layout()))  # the only comparison
    make("dola", "10" * 6)
    found = cells(layout())
    assert contrast(found, "VCD")["p_uncorrected"] == pytest.approx(1 / 32)
    assert contrast(found, "VCD")["p"] == pytest.approx(1 / 16)
    assert not re.search(r"VCD .*↑", shown(layout()))


def test_a_tiny_p_is_written_as_such(make, layout, shown):
    make("greedy", "00" * 12)
    make("vcd", "11" * 12)
    assert "+24 of 24 p < .001" in shown(layout())


def test_the_smallest_gap_stands_below(make, layout, cells, shown):
    make("greedy", EIGHT)
    make("vcd", "1111111111100111")
    make("dola", "0011001110011010")
    found = cells(layout())
    gap = statistics.median(contrast(found, label)["smallest"] for label in ("VCD", "DoLa"))
    assert (
        "Smallest gap that about 3 of 4 such comparisons would find, before correction "
        "(median over the rows): "
        f"World Closed {100 * gap:.1f} points ({16 * gap:.0f} of 16)."
    ) in shown(layout())
