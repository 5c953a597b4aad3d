"""`medbench compare`: numbers against plain loops, what is refused, and what is kept quiet.

Runs are written in the store's format, since no model has to answer for their numbers.
"""

import hashlib
import itertools
import json
import math
import re
import statistics
from functools import partial

import pytest

from medbench import store
from medbench.paired import Images
from medbench.scoring import score_rows, to_json

IMAGES, PER_IMAGE = 12, 4
TYPES = ("organ", "position", "size")
METRICS = ("closed/strict", "recall/strict")
# What a restricted task must not tell begins with these.
SECRETS = re.compile(r"zephyrine|peregrine|quillon|marmaduke|brambleton|left lung", re.IGNORECASE)
VERSIONS = {"medbench": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0", "numpy": "2.4.6"}


def dice(*what):
    """Return a number from 0 to 1 that hangs on these words alone."""
    text = "/".join(map(str, what)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:4]) / 2**32


def questions(images=range(IMAGES)):
    """Yield rows without answers: of four questions on an image, three are closed."""
    for image, number in itertools.product(images, range(PER_IMAGE)):
        closed = number != 3
        yield {
            "id": f"test-{image}-{number}",
            "group": f"image {image}",
            "kind": "closed" if closed else "open",
            "question": f"is {image} over {number}?" if closed else f"where is {image}?",
            "gold": ("yes" if image % 3 else "no") if closed else "left lung",
            "meta": {
                "question_type": TYPES[(image + number) % 3],
                "modality": "mri" if image % 2 else "ct",
                "location": f"place {image}-{number}",
                "content_type": "" if number else None,
            },
        }


def answered(rows, method, seed=0, right=0.7):
    """Return rows with answers, of which about so many are right."""
    found = []
    for row in rows:
        well = dice(method, seed, row["id"]) < right
        if row["kind"] == "closed":
            output = row["gold"] if well else {"yes": "no", "no": "yes"}[row["gold"]]
        else:
            output = "left lung" if well else "the left kidney"
        found.append({**row, "output": output, "tokens": [1, 2], "stop": "eos"})
    return found


def identity(method, seed, **changes):
    """Return the identity of a run; changes are by path, with __ for the dot."""
    tuner, _, decoder = method.rpartition("+")
    made = {
        "engine": 1,
        "task": {
            "name": "words",
            "parameters": {"language": "en"},
            "source": "a" * 64,
            "version": 1,
            "split": "test",
            "samples": "b" * 64,
        },
        "backbone": {"name": "toy", "weights": "c" * 64, "dtype": "float32"},
        "tuner": {"name": tuner, "source": "d" * 64} if tuner else None,
        "adapter": f"adapter{seed}" if tuner else None,
        "decoder": {"name": decoder, "source": decoder, "parameters": {}},
        "preset": "matched",
        "seed": seed,
        "limit": None,
        "batch_size": 16,
    }
    for path, value in changes.items():
        *above, last = path.split("__")
        place = made
        for step in above:
            place = place[step]
        place[last] = value
    return made


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    """Draw images less often, which tests of one more and one less cannot tell."""
    monkeypatch.setattr("medbench.comparing.compare.Images", partial(Images, resamples=1000))


@pytest.fixture
def make(place):
    """Return a writer of runs."""

    def write(
        method="greedy",
        seed=0,
        *,
        rows=None,
        metrics=METRICS,
        pooled=None,
        finished=True,
        restricted=False,
        partial=False,
        task="words",
        backbone="toy",
        versions=None,
        at=None,
        **changes,
    ):
        rows = answered(questions(), method, seed) if rows is None else rows
        told = identity(method, seed, task__name=task, backbone__name=backbone, **changes)
        key = hashlib.sha256(json.dumps([told, len(rows)]).encode()).hexdigest()[:12]
        folder = (at or place / "results" / "runs") / task / backbone / method / key
        folder.mkdir(parents=True)
        record = {
            "key": key,
            "identity": told,
            "display": {"task": task, "backbone": backbone, "method": method},
            "samples": len(rows),
            "partial": partial,
            "missing_images": 0,
            "data": {"edition": "official", "note": "", "restricted": restricted},
            "command": f"medbench run --method {method}",
            "versions": {**VERSIONS, **(versions or {})},
        }
        store.begin(folder, record)
        scores, rows = score_rows(rows, metrics)
        content = to_json(scores, rows)
        if pooled is not None:
            for row in rows:
                row["scores"]["bleu4/coco"] = 0.5
            content["scores"]["bleu4/coco"] = {
                **content["scores"]["closed/strict"],
                "value": pooled,
            }
        if finished:
            store.finish(folder, rows, content)
        else:
            with store.appending(folder) as append:
                append(rows[:-1])
        return folder

    return write


@pytest.fixture
def pair(make):
    """Write a run of greedy and one of vcd, and return their folders."""
    return make("greedy"), make("vcd")


@pytest.fixture
def compared(medbench):
    """Return a function that compares, and returns what is printed as JSON."""

    def call(*words):
        code, out, err = medbench("compare", *words, "--format", "json")
        assert (code, err) == (0, "")
        assert "NaN" not in out
        return json.loads(out)

    return call


@pytest.fixture
def shown(medbench):
    """Return a function that compares, and returns the text."""

    def call(*words):
        code, out, err = medbench("compare", *words)
        assert (code, err) == (0, "")
        assert not re.search(r"\bnan\b|None|np\.", out)
        assert max(map(len, out.splitlines())) <= 100
        return out

    return call


@pytest.fixture
def refused(medbench):
    """Return a function that asks for what cannot be compared, and returns the three lines."""

    def call(*words, lines=3):
        for form in ("text", "json"):
            code, out, err = medbench("compare", *words, "--format", form)
            assert (code, out) == (2, ""), (code, out, err)
            assert len(err.splitlines()) == lines, err
        return err.splitlines()

    return call


def metric(found, name):
    (one,) = [one for one in found["metrics"] if one["metric"] == name]
    return one


def values(folder, name):
    """Return a run's values of a metric by id, those left out that it does not apply to."""
    found = {row["id"]: row["scores"][name] for row in store.read_rows(folder)}
    return {id: value for id, value in found.items() if value is not None}


def table(out, head):
    """Return the lines of a printed table as lists of cells, by their first."""
    lines = out.splitlines()
    start = next(at for at, line in enumerate(lines) if re.fullmatch(head, line.strip()))
    block = itertools.takewhile(bool, lines[start + 1 :])
    cells = [re.split(r"\s{2,}", line) for line in block]
    return {row[0]: row[1:] for row in cells}


# Numbers


def test_two_runs_against_a_plain_count(pair, compared):
    a, b = pair
    found = compared("greedy", "vcd")
    one = metric(found, "closed/strict")
    mine, others = values(a, "closed/strict"), values(b, "closed/strict")
    lost = [id for id in mine if mine[id] > others[id]]
    won = [id for id in mine if mine[id] < others[id]]
    assert lost and won and len(lost) != len(won)
    assert (one["n"], one["groups"]) == (36, 12)
    assert one["a"] == pytest.approx(sum(mine.values()) / 36)
    assert one["b"] == pytest.approx(sum(others.values()) / 36)
    assert one["gap"] == pytest.approx((len(won) - len(lost)) / 36)
    assert one["questions"] == len(won) - len(lost)
    assert (one["a_spread"], one["b_spread"]) == (None, None)
    assert (one["seeds"], one["same_sign"]) == ([], None)
    # Every way in which what flipped on an image could have flipped together.
    images = {}
    for id in (*lost, *won):
        name = id.split("-")[1]
        images[name] = images.get(name, 0) + (1 if id in won else -1)
    sums = [
        abs(sum(sign * size for sign, size in zip(signs, images.values(), strict=True)))
        for signs in itertools.product((1, -1), repeat=len(images))
    ]
    far = abs(len(won) - len(lost))
    test = one["test"]
    assert test["name"] == "mcnemar"
    assert test["p"] == pytest.approx(sum(one >= far for one in sums) / len(sums))
    # McNemar's exact test: the rarer change, of a fair coin.
    flipped, rarer = len(lost) + len(won), min(len(lost), len(won))
    tail = sum(math.comb(flipped, k) for k in range(rarer + 1)) / 2**flipped
    assert test["independent"] == pytest.approx(min(1, 2 * tail))
    assert test["low"] <= one["gap"] <= test["high"]
    # 1.96 + 0.84 standard errors, and the interval is 1.96 to either side.
    error = (test["high"] - test["low"]) / 2 / 1.96
    assert test["smallest"] == pytest.approx(2.8016 * error, rel=0.1)
    assert test["smallest_questions"] == pytest.approx(36 * test["smallest"])


def test_independent_questions_are_tested_as_statsmodels_does(pair, compared):
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    a, b = pair
    mine, others = (values(folder, "closed/strict") for folder in (a, b))
    counts = [
        [sum(mine[id] == one and others[id] == other for id in mine) for other in (1, 0)]
        for one in (1, 0)
    ]
    found = metric(compared("greedy", "vcd"), "closed/strict")["test"]["independent"]
    assert found == pytest.approx(tables.mcnemar(counts, exact=True).pvalue)


def test_values_between_right_and_wrong_are_tested_by_drawing_images(pair, compared):
    a, b = pair
    one = metric(compared("greedy", "vcd"), "recall/strict")
    mine, others = values(a, "recall/strict"), values(b, "recall/strict")
    assert {*mine.values(), *others.values()} == {0.5, 1.0}
    assert one["gap"] == pytest.approx((sum(others.values()) - sum(mine.values())) / 12)
    assert one["test"]["name"] == "bootstrap"
    assert one["questions"] is one["test"]["independent"] is None
    assert one["test"]["smallest"] and one["test"]["smallest_questions"] is None


def test_p_values_of_several_metrics_are_corrected(pair, compared):
    found = compared("greedy", "vcd")["metrics"]
    small, large = sorted((one["test"] for one in found), key=lambda test: test["p"])
    assert small["holm"] == pytest.approx(min(1, 2 * small["p"]))
    assert large["holm"] == pytest.approx(max(small["holm"], large["p"]))
    (one,) = compared("greedy", "vcd", "--metric", "recall")["metrics"]
    assert one["test"]["holm"] is None


def test_the_order_of_the_sides_is_the_sign(pair, compared):
    there, back = compared("greedy", "vcd"), compared("vcd", "greedy")
    for one, other in zip(there["metrics"], back["metrics"], strict=True):
        assert one["gap"] == -other["gap"]
        assert (one["a"], one["b"]) == (other["b"], other["a"])
        assert one["test"]["low"] == pytest.approx(-other["test"]["high"])
        assert one["test"]["p"] == pytest.approx(other["test"]["p"])
    one, other = there["flips"][0], back["flips"][0]
    assert (one["total"]["lost"], one["total"]["won"]) == (
        other["total"]["won"], other["total"]["lost"],
    )  # fmt: skip
    assert [row["id"] for row in one["samples"]] == [row["id"] for row in other["samples"]]
    assert one["samples"][0]["a"] == other["samples"][0]["b"]


def test_several_seeds_are_averaged_question_by_question(make, compared, shown):
    ours = [make("lora+greedy", seed) for seed in range(3)]
    theirs = [make("lora+vcd", seed) for seed in range(3)]
    found = compared("lora", "lora+vcd")
    mine, others = ([values(run, "closed/strict") for run in side] for side in (ours, theirs))
    of_runs = [[statistics.fmean(one.values()) for one in side] for side in (mine, others)]
    one = metric(found, "closed/strict")
    assert one["a"] == pytest.approx(statistics.fmean(of_runs[0]))
    assert one["a_spread"] == pytest.approx(statistics.stdev(of_runs[0]))
    assert one["b_spread"] == pytest.approx(statistics.stdev(of_runs[1]))
    gaps = [b - a for a, b in zip(*of_runs, strict=True)]
    assert [seed["gap"] for seed in one["seeds"]] == pytest.approx(gaps)
    assert [(seed["a_seed"], seed["b_seed"]) for seed in one["seeds"]] == [(0, 0), (1, 1), (2, 2)]
    assert one["gap"] == pytest.approx(statistics.fmean(gaps))
    assert one["same_sign"] == sum(gap * one["gap"] > 0 for gap in gaps)
    assert one["questions"] == pytest.approx(36 * one["gap"])
    assert one["test"]["name"] == "mcnemar" and one["test"]["independent"] is None
    # Flips are means over the three pairs of one seed.
    assert (found["pairs"], found["paired_by"]) == (3, "seed")
    flips = found["flips"][0]
    lost = sum(a[id] > b[id] for a, b in zip(mine, others, strict=True) for id in a)
    won = sum(a[id] < b[id] for a, b in zip(mine, others, strict=True) for id in a)
    assert flips["total"]["lost"] == pytest.approx(lost / 3)
    assert flips["total"]["won"] == pytest.approx(won / 3)
    means = {
        id: statistics.fmean(b[id] - a[id] for a, b in zip(mine, others, strict=True))
        for id in mine[0]
    }
    order = sorted((id for id in means if means[id]), key=lambda id: -abs(round(means[id], 9)))
    assert [row["id"] for row in flips["samples"]] == order[:10]
    assert flips["flipped"] == len(order)
    for row in flips["samples"]:
        changes = [b[row["id"]] - a[row["id"]] for a, b in zip(mine, others, strict=True)]
        seed = next(at for at, change in enumerate(changes) if change * sum(changes) > 0)
        assert row["a_seed"] == row["b_seed"] == seed
        texts = [
            {given["id"]: given["output"] for given in store.read_rows(side[seed])}[row["id"]]
            for side in (ours, theirs)
        ]
        assert [row["a"], row["b"]] == texts
    out = shown("lora", "lora+vcd")
    assert re.search(rf"[+-]?{36 * one['gap']:.1f} of 36", out)
    assert f"{one['same_sign']} of 3" in out
    assert "means over 3 pairs of one seed" in out


def test_one_run_stands_beside_each_seed_of_the_other_side(make, compared):
    a = make("greedy")
    theirs = [make("nucleus", seed) for seed in range(3)]
    found = compared("greedy", "nucleus")
    mine, others = values(a, "closed/strict"), [values(b, "closed/strict") for b in theirs]
    one = metric(found, "closed/strict")
    assert [(seed["a_seed"], seed["b_seed"]) for seed in one["seeds"]] == [(0, 0), (0, 1), (0, 2)]
    assert (found["pairs"], found["paired_by"]) == (3, "all")
    total = found["flips"][0]["total"]
    assert total["lost"] == pytest.approx(sum(mine[i] > o[i] for o in others for i in mine) / 3)
    assert (total["won"] - total["lost"]) / 36 == pytest.approx(one["gap"])


def test_other_seeds_on_each_side_are_all_counted(make, compared):
    ours = [values(make("lora+greedy", seed), "closed/strict") for seed in (0, 1)]
    theirs = [values(make("lora+vcd", seed), "closed/strict") for seed in (1, 2, 3)]
    found = compared("lora+greedy", "lora+vcd")
    one = metric(found, "closed/strict")
    assert (found["pairs"], found["paired_by"]) == (6, "all")
    (seed,) = one["seeds"]
    assert (seed["a_seed"], seed["b_seed"]) == (1, 1)
    assert seed["gap"] == pytest.approx((sum(theirs[0].values()) - sum(ours[1].values())) / 36)
    total = found["flips"][0]["total"]
    assert (total["won"] - total["lost"]) / 36 == pytest.approx(one["gap"])


def test_questions_are_matched_by_their_ids(make, compared):
    make("greedy")
    make("vcd")
    backwards = answered(reversed([*questions()]), "vcd")
    make("vcd", rows=backwards, preset="published")
    make("greedy", preset="published")
    matched, published = (
        compared("greedy", "vcd", "--preset", p) for p in ("matched", "published")
    )
    assert [one["gap"] for one in matched["metrics"]] == [
        one["gap"] for one in published["metrics"]
    ]
    assert matched["flips"] == published["flips"]


def test_flips_are_counted_by_what_is_known_of_the_questions(pair, compared):
    a, b = pair
    (flips,) = compared("greedy", "vcd", "--samples", 1000)["flips"]
    assert flips["metric"] == "closed/strict"
    # No value of content_type, and too many of location.
    assert list(flips["by"]) == ["question_type", "modality", "kind"]
    mine, others = values(a, "closed/strict"), values(b, "closed/strict")
    rows = {row["id"]: row for row in questions()}
    for field, counts in flips["by"].items():
        assert [c["n"] for c in counts] == sorted((c["n"] for c in counts), reverse=True)
        for count in counts:
            ids = [
                id
                for id in mine
                if (rows[id]["kind"] if field == "kind" else rows[id]["meta"][field])
                == count["value"]
            ]
            assert count["n"] == len(ids)
            assert count["a_right"] == sum(mine[id] for id in ids)
            assert count["b_right"] == sum(others[id] for id in ids)
            assert count["lost"] == sum(mine[id] > others[id] for id in ids)
            assert count["won"] == sum(mine[id] < others[id] for id in ids)
    changed = [id for id in mine if mine[id] != others[id]]
    assert [row["id"] for row in flips["samples"]] == changed
    assert flips["flipped"] == len(changed)
    for row in flips["samples"]:
        assert row["change"] == ("lost" if mine[row["id"]] else "won")
        assert (row["question"], row["gold"]) == (
            rows[row["id"]]["question"], rows[row["id"]]["gold"],
        )  # fmt: skip
        place = [other["id"] for other in store.read_rows(a)].index(row["id"])
        assert row["place"] == place + 1


def test_a_score_that_is_no_mean_has_a_gap_and_no_test(make, compared, shown):
    make("greedy", pooled=0.25)
    make("vcd", pooled=0.3)
    one = metric(compared("greedy", "vcd"), "bleu4/coco")
    assert one["gap"] == pytest.approx(0.05) and one["test"] is None
    out = shown("greedy", "vcd")
    assert "bleu4/coco is no mean over questions, so there is no test." in out
    assert "+5.00" in out
    assert "Holm: p corrected for 2 metrics." in out
    shown("greedy", "vcd", "--metric", "bleu4/coco")


def test_scores_that_are_no_means_of_other_questions_have_no_gap(make, compared, refused):
    make("greedy", pooled=0.25)
    folder = make("vcd", pooled=0.3)
    rows = store.read_rows(folder)
    rows[0]["scores"]["bleu4/coco"] = None
    store.finish(folder, rows, store.read_scores(folder))
    found = compared("greedy", "vcd")
    assert [one["metric"] for one in found["metrics"]] == [*METRICS]
    assert "of different ones" in found["left_out"]["bleu4/coco"]
    refused("greedy", "vcd", "--metric", "bleu4")


def test_values_that_some_runs_lack_are_left_out_and_told(make, compared, shown):
    make("greedy")
    folder = make("vcd")
    rows = store.read_rows(folder)
    rows[0]["scores"]["closed/strict"] = None
    kept = [v for row in rows if (v := row["scores"]["closed/strict"]) is not None]
    content = store.read_scores(folder)
    content["scores"]["closed/strict"] |= {"value": statistics.fmean(kept), "n": 35}
    store.finish(folder, rows, content)
    one = metric(compared("greedy", "vcd"), "closed/strict")
    assert one["n"] == 35
    told = "closed/strict is over the 35 questions with a value in all runs; A has one for 36, B"
    assert told in " ".join(shown("greedy", "vcd").split())


def test_equal_answers_and_a_single_image(make, compared, shown):
    rows = answered(questions(), "any")
    make("greedy", rows=rows)
    make("vcd", rows=rows)
    one = metric(compared("greedy", "vcd"), "closed/strict")
    assert (one["gap"], one["questions"], one["test"]["p"]) == (0, 0, 1)
    out = shown("greedy", "vcd")
    assert "0 of 36" in out and "Fewer than 50 images" in out
    few = {"partial": True, "limit": 3}
    make("beam", rows=answered(questions([1]), "beam"), **few)
    make("dola", rows=answered(questions([1]), "dola"), **few)
    test = metric(compared("beam", "dola"), "closed/strict")["test"]
    assert test["p"] is test["low"] is test["smallest"] is None
    out = shown("beam", "dola")
    assert "PARTIAL: both are over the same part of --limit 3" in out
    assert "Fewer than" not in out  # there is no interval to doubt


# What is printed


def test_the_text_has_the_numbers_of_the_json(pair, compared, shown):
    found, out = compared("greedy", "vcd"), shown("greedy", "vcd")
    scores = table(out, r"A +B +B - A .*")
    tests = table(out, r"test +p +Holm .*")
    for one in found["metrics"]:
        test = one["test"]
        assert scores[one["metric"]] == [
            f"{100 * one['a']:.2f}",
            f"{100 * one['b']:.2f}",
            f"{100 * one['gap']:+.2f}",
            f"[{100 * test['low']:+.2f}, {100 * test['high']:+.2f}]",
            "–" if one["questions"] is None else f"{one['questions']:+.0f} of {one['n']}",
        ]
        independent = "–" if test["independent"] is None else f"{test['independent']:.4f}"
        questions_ = test["smallest_questions"]
        assert tests[one["metric"]] == [
            {"mcnemar": "McNemar", "bootstrap": "bootstrap"}[test["name"]],
            f"{test['p']:.4f}",
            f"{test['holm']:.4f}",
            independent,
            f"{100 * test['smallest']:.2f}",
            *([] if questions_ is None else [f"{questions_:.1f} of {one['n']}"]),
        ]
    (flips,) = found["flips"]
    total = flips["total"]
    assert f"{total['lost']:.0f} lost (A right, B wrong), {total['won']:.0f} won, of 36" in out
    for count in itertools.chain(*flips["by"].values()):
        numbers = (count[name] for name in ("n", "a_right", "b_right", "lost", "won"))
        line = r"\s+".join(f"{number:.0f}" for number in numbers)
        assert re.search(rf"^  {count['value']}\s+{line}$", out, re.MULTILINE)
    for row in flips["samples"]:
        assert f"{row['change']}  {row['id']}\n      {row['question']}\n" in out
        assert f"gold: {row['gold']}   A: {row['a']}   B: {row['b']}" in out


def test_so_many_flipped_samples_are_shown_as_asked_for(pair, shown):
    for number in (0, 2):
        lines = shown("greedy", "vcd", "--samples", number).splitlines()
        assert sum(line.startswith(("lost  ", "won  ")) for line in lines) == number


def test_long_answers_and_odd_letters_stay_in_their_lines(make, shown):
    rows = answered(questions(), "greedy", right=1)
    make("greedy", rows=rows)
    make("vcd", rows=[{**row, "output": "no\x1b[2J or\nyes " * 90} for row in rows])
    out = shown("greedy", "vcd")
    assert "\x1b" not in out and "…" in out


def test_metrics_are_named_in_full_or_by_what_stands_before_the_rule(make, compared):
    both = ("closed/paper", "closed/strict", "recall/strict")
    make("greedy", metrics=both)
    make("vcd", metrics=both)

    def names(*words):
        found = compared("greedy", "vcd", *words)
        return [o["metric"] for o in found["metrics"]], [o["metric"] for o in found["flips"]]

    assert names() == ([*both], ["closed/strict"])
    assert names("--metric", "closed") == (["closed/paper", "closed/strict"], ["closed/strict"])
    assert names("--metric", "closed/paper") == (["closed/paper"], ["closed/paper"])
    asked = ("--metric", "recall/strict,Closed/Paper")
    assert names(*asked) == (["closed/paper", "recall/strict"], ["closed/paper"])
    assert names("--metric", "recall", "--metric", "closed/strict")[0] == [*both[1:]]


def test_the_share_of_yes_has_no_flips(make, compared):
    make("greedy", metrics=("yes_rate",))
    make("vcd", metrics=("yes_rate",))
    found = compared("greedy", "vcd")
    assert found["flips"] == [] and metric(found, "yes_rate")["questions"] is not None


def test_a_side_is_named_in_four_ways(pair, compared, place):
    a, b = pair
    expected = compared("greedy", "vcd")
    for words in (
        (a, b), (a.parent, b.name), (a.name[:6], b), ("Greedy", "VCD[alpha=1]"),
        (a.relative_to(place), "vcd"),
    ):  # fmt: skip
        found = compared(*words)
        for one in (expected, found):
            for side in ("a", "b"):
                one[side].pop("folders", None)
        assert found == expected


def test_runs_of_many_tasks_are_narrowed(make, compared, refused):
    for task, backbone in itertools.product(("words", "slake"), ("toy", "phantom")):
        a = make("greedy", task=task, backbone=backbone)
        b = make("vcd", task=task, backbone=backbone)
    what, why, do = refused("greedy", "vcd")
    assert what == "'greedy' names runs of several kinds"
    assert "--task" in do
    options = ("--task", "slake[language=en]", "--backbone", "phantom")
    found = compared("greedy", "vcd", *options)
    assert found["task"] == "slake" and found["a"]["keys"] == [a.name]
    # A key is meant whatever the options say of methods.
    assert compared(a.name, b.name, "--task", "words")["a"]["keys"] == [a.name]
    assert refused("greedy", "vcd", "--task", "slak") == [
        "no runs of task 'slak'", "Did you mean slake?", "There are runs of: slake, words.",
    ]  # fmt: skip
    refused("greedy", "vcd", "--task", "slake", "--backbone", "llava")
    refused("greedy", "vcd", "--preset", "published")


def test_what_else_differs_is_told(make, compared, shown):
    make("lora+greedy", versions={"torch": "2.12.0", "numpy": "1"})
    make(
        "lora+vcd",
        backbone__dtype="bfloat16",
        backbone__weights="e" * 64,
        batch_size=8,
        adapter="another",
        task__source="f" * 64,
    )
    found = compared("lora+greedy", "lora+vcd")["differs"]
    assert found == {
        "task.source": ["a" * 8, "f" * 8],
        "backbone.weights": ["c" * 8, "e" * 8],
        "backbone.dtype": ["float32", "bfloat16"],
        "batch_size": ["16", "8"],
        "adapter of seed 0": ["adapter0", "another"],
        "torch": ["2.12.0", "2.13.0"],
    }
    assert "also differs: backbone.dtype: float32 or bfloat16\n" in shown("lora+greedy", "lora+vcd")


def test_methods_of_one_name_and_two_sources_are_told(make, compared):
    a, b = make("vcd"), make("vcd", decoder__source="other", decoder__parameters={"alpha": 2})
    assert compared(a, b)["differs"] == {"decoder.source": ["vcd", "other"]}


def test_scores_computed_with_other_packages_are_told(make, compared):
    make("greedy")
    folder = make("vcd")
    content = store.read_scores(folder)
    content["scores"]["recall/strict"]["made_with"] = {"package": "2.0"}
    store.finish(folder, store.read_rows(folder), content)
    differs = compared("greedy", "vcd")["differs"]
    assert differs == {"what computed recall/strict": ["not told", "package 2.0"]}


def test_a_metric_of_one_side_is_left_out_and_told(make, compared, shown, refused):
    make("greedy")
    make("vcd", metrics=METRICS[:1])
    found = compared("greedy", "vcd")
    assert [one["metric"] for one in found["metrics"]] == ["closed/strict"]
    assert found["left_out"] == {"recall/strict": "B has none"}
    assert "not compared, B has none: recall/strict\n" in shown("greedy", "vcd")
    what, why, do = refused("greedy", "vcd", "--metric", "recall/strict")
    assert (what, why) == ("'recall/strict' cannot be compared", "recall/strict: B has none.")
    assert "medbench rescore" in do


# What is refused


@pytest.mark.parametrize(
    ("changes", "what", "why"),
    [
        ({"task": "other"}, "A and B are of different tasks", "A (greedy) is of words, B (vcd)"),
        ({"task__version": 2}, "A and B are of different kinds of words", "version 1 and 2."),
        (
            {"task__parameters": {"language": "zh"}},
            "A and B are of different kinds of words",
            "parameters.language en and zh.",
        ),
        ({"task__samples": "9" * 64}, "A and B read different data", "bbbbbbbb and 99999999"),
        ({"preset": "published"}, "A and B are of different presets", "matched, B (vcd) is publ"),
        (
            {"partial": True, "limit": 5},
            "a partial run cannot be compared with a whole one",
            "B (vcd) partial with 48.",
        ),
        (
            {"rows": answered(questions(range(20, 30)), "vcd")},
            "A and B share no samples",
            "No id of A's 48 samples is among B's 40.",
        ),
        (
            {"rows": answered(questions(range(6, 20)), "vcd")},
            "A and B share only some of their samples",
            "A has 48, B has 56, and 24 are the same.",
        ),
        (
            {"rows": answered(questions(range(6)), "vcd")},
            "A and B share only some of their samples",
            "A has 48, B has 24, and 24 are the same.",
        ),
        ({"metrics": ("yes_rate",)}, "A and B have no metric in common", "B has yes_rate."),
    ],
)
def test_what_may_not_be_mixed_is_refused(make, refused, changes, what, why):
    make("greedy")
    make("vcd", **changes)
    lines = refused("greedy", "vcd")
    assert lines[0] == what
    assert why in lines[1]


def test_partial_imports_of_different_answers_are_refused(make, refused):
    for method, images in (("mine", range(7)), ("yours", range(3, 10))):
        rows = answered(questions(images), method)
        make(method, rows=rows, partial=True, preset="imported", task__samples=method)
    assert refused("mine", "yours")[1] == "A has 28, B has 28, and 16 are the same."


def test_limits_must_be_the_same(make, refused, compared):
    for method, limit in (("greedy", 24), ("vcd", 24), ("beam", 20)):
        rows = answered([*questions()][:limit], method)
        make(method, rows=rows, partial=True, limit=limit)
    assert refused("greedy", "beam")[1] == "A (greedy) has --limit 24, B (beam) --limit 20."
    assert compared("greedy", "vcd")["limit"] == 24


def test_runs_must_be_two(make, refused):
    a, other = make("nucleus"), make("nucleus", 1)
    assert refused("nucleus", "nucleus")[:2] == [
        "A and B are the same runs", f"Both are {a.relative_to(a.parents[5])} and 1 more.",
    ]  # fmt: skip
    assert refused(a, a)[1] == f"Both are {a}."
    assert refused("nucleus", other)[0] == "A and B have runs in common"


def test_unknown_names_are_refused(pair, refused):
    assert refused("greedy", "vcd", "--metric", "closed/strct")[:2] == [
        "A and B have no score named 'closed/strct'", "Did you mean closed/strict?",
    ]  # fmt: skip
    assert (
        refused("greedy", "vcd", "--metric", "zzz")[1] == "There are: closed/strict, recall/strict."
    )
    assert refused("greedy", "nothing")[0] == "no run at 'nothing'"
    assert refused("gredy", "vcd")[:2] == ["no run at 'gredy'", "Did you mean greedy?"]
    assert refused("greedy", "vcd", "--samples", "-1")[0] == "--samples -1 makes no sense"
    refused("greedy", "vcd", "--out", "nowhere")


def test_a_run_that_is_not_finished_is_refused(make, refused):
    make("greedy")
    folder = make("vcd", finished=False)
    for word in ("vcd", folder, folder.name):
        what, why, do = refused("greedy", word)
        assert what.endswith(f"{folder.name} is not finished")
        assert do == "Go on with it: medbench run --method vcd"


def test_a_broken_line_is_told_in_three_lines(make, refused):
    make("greedy")
    path = make("vcd") / "samples.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], '{"id": "te\n', *lines[2:]]))
    what, why, do = refused("greedy", "vcd")
    assert what.startswith("line 2 of ") and what.endswith("samples.jsonl is broken")


# A restricted task


@pytest.fixture
def ward(make):
    """Write two runs of a restricted task."""
    rows = [
        {
            **row,
            "id": f"Zephyrine{at}",
            "group": f"Quillon{row['group']}",
            "question": f"Peregrine: {row['question']}",
            "meta": {"modality": "Marmaduke", "native_id": f"Brambleton{at}"},
        }
        for at, row in enumerate(questions())
    ]
    return [make(name, rows=answered(rows, name), restricted=True) for name in ("greedy", "vcd")]


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_restricted_task_s_texts_are_not_printed(ward, medbench, form):
    words = ("compare", "greedy", "vcd", "--format", form, "--samples", 40)
    code, out, err = medbench(*words)
    assert (code, err) == (0, "")
    assert not SECRETS.search(out)
    code, open_, _ = medbench(*words, "--show-restricted")
    assert {word.lower() for word in SECRETS.findall(open_)} == {
        "zephyrine", "peregrine", "marmaduke",
    }  # fmt: skip


def test_a_restricted_sample_is_called_by_its_line(ward, compared, shown):
    (flips,) = compared("greedy", "vcd", "--samples", 40)["flips"]
    (told,) = compared("greedy", "vcd", "--samples", 40, "--show-restricted")["flips"]
    rows = store.read_rows(ward[0])
    out = shown("greedy", "vcd", "--samples", 40)
    for one, other in zip(flips["samples"], told["samples"], strict=True):
        assert one["id"] is one["question"] is one["gold"] is one["a"] is one["b"] is None
        assert rows[one["place"] - 1]["id"] == other["id"]
        assert f"{one['change']}  sample {one['place']}\n" in out
    assert list(flips["by"]) == ["kind"]


def test_a_restricted_run_s_mistakes_tell_nothing(ward, refused):
    path = ward[1] / "samples.jsonl"
    path.write_text(path.read_text().replace('"id"', '"ids"', 1))
    assert not SECRETS.search(" ".join(refused("greedy", "vcd")))
    (ward[1] / "scores.json").unlink()
    assert not SECRETS.search(" ".join(refused("greedy", "vcd")))
