"""`medbench check`: runs against a baseline; what fails, what is refused, and what is kept."""

import copy
import json
import re
import shutil
from pathlib import Path

import pytest

from medbench import plugins, spec, store
from medbench.checking import baseline

ROOT = Path(__file__).resolve().parents[2]
FILE = "results/baseline.json"
GREEDY = "greedy on mini with toy, seed 0, matched"
COMMAND = (
    "medbench run --method greedy --task mini --backbone toy --data DIR --batch-size 16 "
    "--device cpu --dtype float32"
)
VCD = "vcd on mini with toy, seed 0, matched"
IDENTITY = {
    "engine": 1,
    "task": {
        "name": "mini", "parameters": {"max_new_tokens": 5}, "version": 1, "split": "test",
        "samples": "a" * 64,
    },
    "backbone": {
        "name": "toy", "parameters": {"seed": 0}, "weights": "c" * 64, "dtype": "float32",
        "device": "cpu",
    },
    "tuner": None,
    "adapter": None,
    "decoder": {"name": "greedy", "parameters": {"beams": 1}, "selection": {"beams": 1}},
    "preset": "matched",
    "seed": 0,
    "limit": None,
    "batch_size": 16,
}  # fmt: skip
KINDS = {"task": "task", "backbone": "backbone", "tuner": "method", "decoder": "method"}


def bits(right, of):
    """Return that many right answers, then wrong ones."""
    return [1.0] * right + [0.0] * (of - right)


class Maker:
    """Writes finished runs that no model made.

    Answers are over images of `an_image` questions each; a metric's values are given or, as one
    number, are that many right of 1000.
    """

    def __init__(self, root):
        self.root = root

    def __call__(self, method="greedy", *, name="", changed=(), state="complete", **scores):
        """Write a run and return its folder.

        Args:
            name: of the folder, in place of the key.
            changed: what of its identity and run.json is other: dotted path -> value.
            state: "complete", or "unfinished".
            scores: metric, with `__` for `/` -> values of its samples, or a number of 1000.
        """
        one = self.record(method, dict(changed))
        folder = self.root / "mini" / "toy" / method / (name or f"{len(list(self.folders())):012x}")
        folder.mkdir(parents=True)
        store.begin(folder, {**one, "key": folder.name})
        values = {
            metric.replace("__", "/"): bits(given, 1000) if isinstance(given, int) else given
            for metric, given in (scores or {"closed__strict": 800}).items()
        }
        self.finish(folder, values, finished=state == "complete")
        return folder

    def folders(self):
        return self.root.glob("*/*/*/*")

    def record(self, method, changed):
        identity = copy.deepcopy(IDENTITY)
        identity["decoder"]["name"] = spec.parse_chain(method)[-1].name
        for part, kind in KINDS.items():
            if identity[part]:
                found = plugins.get(kind, identity[part]["name"])
                identity[part]["source"] = plugins.source_hash(found)
        record = {
            "identity": identity,
            "display": {"task": "mini", "backbone": "toy", "method": method},
            "samples": 1000,
            "partial": False,
            "missing_images": 0,
            "data": {"edition": "official", "note": "", "restricted": False},
            "metrics": ["closed/strict"],
            "command": f"medbench run --method {method} --task mini --backbone toy",
            "versions": {"medbench": "0.1.0", "torch": "2.8.0", "numpy": "2.4.6", "rich": "1"},
            "hardware": {},
            "device": "cpu",
            "git": {},
            "started": "2026-01-01T00:00:00Z",
        }
        for path, value in changed.items():
            *above, last = path.split(".")
            inside = record
            for part in above:
                inside = inside[part]
            inside[last] = value
        return record

    def finish(self, folder, values, *, an_image=1, finished=True, unscored=(), **more):
        count = max(map(len, values.values()))
        assert store.read_run(folder)["samples"] == count
        rows = [
            {
                "id": str(at), "group": f"image {at // an_image}", "kind": "closed",
                "gold": "yes", "output": "no",
                "scores": {metric: given[at] for metric, given in values.items()},
            }
            for at in range(count)
        ]  # fmt: skip
        if not finished:
            with store.appending(folder) as append:
                append(rows[:7])
            return
        kept = {metric: [v for v in given if v is not None] for metric, given in values.items()}
        scores = {
            metric: {
                "value": sum(given) / len(given) if given else None, "low": None, "high": None,
                "n": len(given), "groups": len(given), "notes": {},
                "made_with": more.get("made_with", {}),
            }
            for metric, given in kept.items()
        }  # fmt: skip
        content = {"scores": scores, "health": {}, "unscored": dict(unscored)}
        store.finish(folder, rows, content)


@pytest.fixture
def make(place):
    return Maker(place / "results" / "runs")


@pytest.fixture
def check(medbench):
    """Return a function that runs the check and returns (exit code, lines, errors' lines)."""

    def call(*arguments):
        code, out, err = medbench("check", *arguments)
        assert "Traceback" not in err
        return code, out.splitlines(), err.splitlines()

    return call


@pytest.fixture
def kept(make, check):
    """Keep a run with 800 of 1000 right, as the baseline; return its folder."""
    folder = make()
    code, out, err = check(folder, "--update")
    assert (code, err) == (0, [])
    assert out == [
        f"new: {GREEDY}, 1 score",
        f"{FILE}: 1 cell, 1 new; 0 scores replaced; tolerance 0.5 points",
    ]
    return folder


def content():
    return json.loads(Path(FILE).read_text())


def edit(change):
    """Change the baseline's file as one who writes in it."""
    known = content()
    change(known)
    Path(FILE).write_text(json.dumps(known))


def key_of(known, name=GREEDY):
    return known["cells"][name]["key"]


def score_of(known):
    return known["cells"][GREEDY]["scores"]["closed/strict"]


# What passes and what fails


def test_the_runs_that_were_kept_pass(kept, check):
    said = f"1 run against {FILE}: 0 scores worse, 0 better, 0 moved, 1 unchanged; "
    for arguments in ((), (kept,), (kept.name,), ("results/runs",)):
        assert check(*arguments) == (0, [f"{said}tolerance 0.5 points"], [])


@pytest.mark.parametrize(
    ("right", "verdict", "code"),
    [
        (795, "lower, within the tolerance: -5 +0 answers, p = 0.062", 0),
        (794, "worse: beyond the tolerance, -6 +0 answers, p = 0.031", 1),
        (804, "higher, within the tolerance: -0 +4 answers, p = 0.12", 0),
        (820, "better: beyond the tolerance, -0 +20 answers, p = 1.9e-06", 0),
    ],
)
def test_a_score_may_fall_by_the_tolerance_and_no_further(kept, make, check, right, verdict, code):
    now = make(closed__strict=right)
    found, (cell, run, line, summary, *hint), err = check(now)
    assert (found, err) == (code, [])
    assert (cell, run) == (GREEDY, f"  {now}: same plugins and versions")
    change = f"{(right - 800) / 10:+.2f}"
    assert line == f"  closed/strict   80.00 ->  {right / 10:.2f}  {change}  {verdict}"
    number = {0: "0 scores", 1: "1 score"}[code]
    assert f": {number} worse, " in summary
    told = verdict.startswith(("worse", "better"))
    keep = f"If that was meant, keep it: medbench check {now} --against {FILE} --update"
    assert hint == ([keep] if told else [])


def test_a_fall_within_the_tolerance_fails_if_it_is_significant(make, check):
    check(make(), "--update", "--tolerance", "0.02")
    # Twelve answers lost, none gained: p = 2 / 2**12.
    code, (_, _, line, summary, _), _ = check(make(closed__strict=788))
    assert code == 1
    assert line.endswith("-1.20  worse: -12 +0 answers, p = 0.00049")
    assert summary.endswith("1 score worse, 0 better, 0 moved, 0 unchanged; tolerance 2 points")
    # As many lost in either direction: the same score, and nothing to tell.
    flipped = bits(800, 1000)[::-1]
    assert check(make(closed__strict=flipped))[0] == 0


def test_images_and_not_questions_are_counted(make, check):
    """Twelve lost answers of one image are one image's worth of evidence."""
    folders = [make(name=name) for name in ("a" * 12, "b" * 12)]
    values = bits(800, 1000), [0.0] * 12 + bits(788, 988)
    for folder, given in zip(folders, values, strict=True):
        (folder / store.SCORES).unlink()
        Maker.finish(None, folder, {"closed/strict": given}, an_image=20)
    check(folders[0], "--update", "--tolerance", "0.02")
    code, (_, _, line, _), _ = check(folders[1])
    assert code == 0
    assert line.endswith("lower, within the tolerance: -12 +0 answers"), "of one image, p is 1"


def test_p_values_are_corrected_for_all_tests_of_the_check(make, check):
    """Six lost answers have p = 2 / 2**6 = 0.031, and two such tests 0.062 each."""
    runs = [make("greedy"), make("vcd")]
    check(*runs, "--update", "--tolerance", "0.02")
    worse = [make("greedy", closed__strict=794), make("vcd", closed__strict=794)]
    code, lines, _ = check(worse[0])
    assert code == 1 and lines[2].endswith("p = 0.031")
    code, lines, _ = check(*worse)
    assert code == 0
    for line in (lines[2], lines[5]):
        assert line.endswith("lower, within the tolerance: -6 +0 answers, p = 0.062")


def test_scores_that_are_shares_have_the_tolerance_alone(make, check):
    shares = [0.5] * 1000
    check(make(recall__strict=shares), "--update")
    assert content()["cells"][GREEDY]["answers"] == {}
    code, (_, _, line, _), _ = check(make(recall__strict=[0.495] * 1000))
    assert code == 0 and line.endswith("lower, within the tolerance")
    code, (_, _, line, *_), _ = check(make(recall__strict=[0.494] * 1000))
    assert code == 1 and line.endswith("-0.60  worse: beyond the tolerance")


def test_what_moves_by_less_than_is_printed_is_unchanged_unless_nothing_may_fall(make, check):
    check(make(recall__strict=[0.5] * 1000), "--update")
    less = make(recall__strict=[0.49997] * 1000)
    assert check(less)[1][0].endswith("0 moved, 1 unchanged; tolerance 0.5 points")
    edit(lambda known: known.update(tolerance=0))
    code, (_, _, line, *_), _ = check(less)
    assert code == 1 and line.endswith("50.0000 -> 49.9970  -0.0030  worse: beyond the tolerance")


@pytest.mark.parametrize("right", [400, 600])
def test_a_rate_of_yes_is_told_and_never_fails(make, check, right):
    check(make(yes_rate=500), "--update")
    code, (_, _, line, summary), _ = check(make(yes_rate=right))
    assert code == 0
    assert "  told only: neither is better: " in line
    assert "p = " not in line
    assert ": 0 scores worse, 0 better, 1 moved, " in summary


@pytest.mark.parametrize(("right", "code", "told"), [(700, 0, "better"), (900, 1, "worse")])
def test_where_lower_is_better_a_rise_is_worse(make, check, monkeypatch, right, code, told):
    monkeypatch.setattr("medbench.checking.check.better", lambda metric: "lower")
    check(make(closed__strict=800), "--update")
    found, (_, _, line, *_), _ = check(make(closed__strict=right))
    assert (found, f"  {told}: beyond the tolerance" in line) == (code, True)


def test_what_made_a_score_move_stands_beside_it(kept, make, check):
    changed = {
        "identity.decoder.source": "0" * 64,
        "versions": {"medbench": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6", "rich": "2"},
    }
    now = make(closed__strict=700, changed=changed)
    code, (_, line, *_), _ = check(now)
    assert code == 1
    assert line == f"  {now}: methods/greedy.py changed, torch 2.8.0 -> 2.13.0"
    code, (line,), _ = check(make(changed=changed))
    assert code == 0 and "1 unchanged" in line, "sources and versions alone are no reason to fail"


def test_a_run_that_went_on_under_other_versions_has_both(make, check):
    run = make()
    known = json.loads((run / store.RUN).read_text())
    known["continued"] = [{"versions": {**known["versions"], "torch": "2.9.0"}}]
    (run / store.RUN).write_text(json.dumps(known))
    check(run, "--update")
    versions = content()["cells"][GREEDY]["made_with"]["versions"]
    assert versions == {"medbench": "0.1.0", "numpy": "2.4.6", "torch": "2.8.0 then 2.9.0"}


def test_packages_of_a_metric_are_told(make, check):
    for name, version, value in (("a", "1.0", 0.5), ("b", "1.1", 0.4)):
        run = make(name=name * 12)
        values = {"bertscore": [value] * 1000}
        Maker.finish(None, run, values, made_with={"weights": version, "hash": "f" * 64})
    check("a" * 12, "--update")
    score = content()["cells"][GREEDY]["scores"]["bertscore"]
    assert score == {"value": 0.5, "n": 1000, "made_with": {"hash": "f" * 8, "weights": "1.0"}}
    assert check("b" * 12)[1][1].endswith(": bertscore: weights 1.0 -> 1.1")


def test_scores_of_a_run_are_lines_in_columns_below_it(make, check):
    check(make("greedy", closed__strict=800, yes_rate=500), make("vcd[alpha=0.5]"), "--update")
    now = [
        make("greedy", closed__strict=700, yes_rate=90),
        make("vcd[alpha=0.5]", closed__strict=799),
    ]
    code, lines, _ = check(*now)
    assert code == 1
    assert [line for line in lines if not line.startswith(" ")] == [
        GREEDY,
        VCD.replace("vcd", "vcd[alpha=0.5]"),
        f"2 runs against {FILE}: 1 score worse, 0 better, 2 moved, 0 unchanged; "
        "tolerance 0.5 points",
        f"If that was meant, keep it: medbench check {now[0]} --against {FILE} --update",
    ]
    assert lines[2].startswith("  closed/strict   80.00 ->  70.00  -10.00  worse")
    assert lines[3].startswith("  yes_rate        50.00 ->   9.00  -41.00  told only")


def test_two_runs_of_a_cell_are_told_by_their_folders(kept, make, check):
    runs = [make(closed__strict=700), make(closed__strict=600)]
    lines = check(*runs)[1]
    assert (lines[0], lines[3]) == (GREEDY, GREEDY)
    assert [line.partition(":")[0].strip() for line in (lines[1], lines[4])] == list(map(str, runs))


def test_the_result_as_data(kept, make, check):
    now = make(closed__strict=700, changed={"versions": {"torch": "2.13.0"}})
    gone = kept.parent / "nothing"
    code, (line,), err = check(now, gone, "--json")
    found = json.loads(line)
    assert (code, err) == (1, [])
    assert found.pop("refused")[0][0] == f"no run at '{gone}'"
    (run,) = found.pop("runs")
    assert found == {"exit_code": 1, "tolerance": 0.005}
    (moved,) = run.pop("moved")
    assert moved.pop("p") < 1e-20
    assert moved == {
        "metric": "closed/strict", "before": 0.8, "now": 0.7, "verdict": "worse", "lost": 100,
        "gained": 0,
    }  # fmt: skip
    assert run == {
        "cell": GREEDY, "folder": str(now), "unchanged": 0, "unkept": 0,
        "causes": ["medbench 0.1.0 -> none", "numpy 2.4.6 -> none", "torch 2.8.0 -> 2.13.0"],
    }  # fmt: skip


# What cannot be compared


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("task.version", 2, "task.version: 1 -> 2"),
        ("task.samples", "b" * 64, "data (task.samples): aaaaaaaa -> bbbbbbbb"),
        ("task.parameters", {"max_new_tokens": 9}, "task.parameters.max_new_tokens: 5 -> 9"),
        ("backbone.weights", "d" * 64, "backbone.weights: cccccccc -> dddddddd"),
        ("backbone.dtype", "bfloat16", "backbone.dtype: float32 -> bfloat16"),
        ("backbone.device", "cuda", "backbone.device: cpu -> cuda"),
        ("decoder.parameters", {"beams": 4}, "decoder.parameters.beams: 1 -> 4"),
        ("decoder.selection", {"beams": 5}, "decoder.selection.beams: 1 -> 5"),
        ("batch_size", 8, "batch_size: 16 -> 8"),
        ("engine", 2, "decoding engine: 1 -> 2"),
        ("tuner", {"name": "lora"}, "tuner.name: none -> lora"),
        ("later", None, "a part without a value, which only one of them has"),
    ],
)
def test_another_run_is_refused_with_the_part_that_differs(kept, make, check, path, value, said):
    now = make(changed={f"identity.{path}": value})
    shown = now.relative_to(Path.cwd())
    code, out, err = check(now)
    assert code == 2
    assert err == [
        f"{GREEDY}: cannot be compared",
        f"  From baseline to {shown}, {said}.",
        f"  Go back to what was and run {COMMAND}; "
        f"or keep this run: medbench check {shown} --against {FILE} --update",
    ]
    assert out == [
        f"0 runs against {FILE}: 0 scores worse, 0 better, 0 moved, 0 unchanged, 1 not compared; "
        "tolerance 0.5 points"
    ]
    code, out, err = check(now, "--update")
    assert (code, err) == (0, [])
    assert out[:2] == [GREEDY, f"  {now}: {said}"]
    assert check(now)[0] == 0


@pytest.mark.parametrize(
    ("changed", "called", "apart"),
    [
        ({"seed": 3}, "seed 3, matched", "seed: 0 -> 3"),
        ({"preset": "published"}, "seed 0, published", "preset: matched -> published"),
        ({"limit": 20}, "seed 0, matched, limit 20", "limit: none -> 20"),
        ({"seed": 1, "limit": 20}, "seed 1, matched, limit 20", "limit: none -> 20 and 1 more"),
    ],
)
def test_a_run_that_is_not_in_the_baseline(kept, make, check, changed, called, apart):
    now = make(changed={f"identity.{path}": value for path, value in changed.items()})
    code, _, err = check(now)
    assert code == 2
    shown = now.relative_to(Path.cwd())
    assert err[0] == f"{shown}: not in {FILE}"
    called = f"greedy on mini with toy, {called}"
    assert err[1] == f"  It is {called}; nearest there is {GREEDY} ({apart})."
    assert err[2] == f"  Add it: medbench check {shown} --against {FILE} --update"
    assert check(now, "--update")[0] == 0
    assert len(content()["cells"]) == 2
    assert check()[0] == 0, "a part of the samples is a cell of its own"


def test_a_part_of_the_data_is_refused_for_check_and_for_update(kept, make, check):
    changed = {"missing_images": 3, "partial": True}
    now = make(changed=changed)
    before = Path(FILE).read_bytes()
    for words in ((), ("--update",)):
        code, out, err = check(now, *words)
        assert code == 2
        shown = now.relative_to(Path.cwd())
        assert err[0] == f"{shown} is a part of a run"
        assert err[1] == "  3 samples lacked an image or an answer."
    assert out == [f"{FILE} is as it was"]
    assert Path(FILE).read_bytes() == before


def test_a_score_that_the_run_lacks(make, check):
    check(make(closed__strict=800, recall__strict=[0.5] * 1000), "--update")
    now = make(closed__strict=800)
    code, _, err = check(now)
    assert code == 2
    assert err == [
        f"{GREEDY}: no score recall/strict",
        "  The run was not scored by it.",
        f"  medbench rescore {now.relative_to(Path.cwd())} --metric recall/strict",
    ]
    # For what a machine lacks nothing is taken out of the baseline; what a rule lost is told.
    reasons = ["bert-score is not installed", "Why.", "Do."]
    lacking = make(name="f" * 12)
    values = {"closed/strict": bits(800, 1000)}
    Maker.finish(None, lacking, values, unscored={"recall/strict": reasons})
    for words in ((), ("--update",)):
        assert "  bert-score is not installed." in check(lacking, *words)[2]
    assert "recall/strict" in content()["cells"][GREEDY]["scores"]
    code, out, err = check(now, "--update")
    assert (code, err) == (0, [])
    assert out[2].split() == ["recall/strict", "50.00", "->", "–", "–"]
    assert "recall/strict" not in content()["cells"][GREEDY]["scores"]


def test_a_score_that_the_baseline_lacks_is_counted(kept, make, check):
    now = make(closed__strict=800, yes_rate=500)
    code, (line,), _ = check(now)
    assert code == 0
    assert "1 unchanged, 1 not in it (--update adds them); " in line


def test_a_rule_that_applies_to_other_answers(make, check):
    first = [None] + bits(500, 999)
    check(make(closed__strict=first), "--update")
    fewer = make(closed__strict=[None, None] + bits(500, 998))
    code, _, err = check(fewer)
    assert code == 2
    assert err[:2] == [
        f"{GREEDY}: closed/strict is over other answers",
        "  Its rule applies to 999 -> 998 of them.",
    ]
    other = make(closed__strict=bits(500, 999) + [None])
    assert check(other)[2][1] == "  Its rule applies to other 999 of them."


def test_a_cell_without_a_run(kept, make, check):
    for path in (store.RUN, store.SAMPLES, store.SCORES):
        (kept / path).unlink()
    code, _, err = check()
    assert code == 2
    assert err == [
        f"{GREEDY}: no run",
        "  None in results/runs is of this cell.",
        f"  Make it: {COMMAND}",
    ]
    assert check("--out", "elsewhere")[2][2] == f"  Make it: {COMMAND} --out elsewhere"


@pytest.mark.parametrize(
    ("method", "changed", "words"),
    [
        ("greedy", {"batch_size": 8}, "--batch-size 8 --device cpu --dtype float32"),
        (
            "greedy",
            {"seed": 3, "limit": 20},
            "--seed 3 --limit 20 --batch-size 16 --device cpu --dtype float32",
        ),
        ("vcd[alpha=0.5]", {}, "--batch-size 16 --device cpu --dtype float32"),
        (
            "greedy",
            {"backbone.dtype": "bfloat16", "backbone.device": "cuda", "preset": "published"},
            "--batch-size 16 --device cuda --dtype bfloat16 --preset published",
        ),
    ],
)
def test_the_command_of_a_cell_asks_for_all_of_it(make, check, method, changed, words):
    check(make(method, changed={f"identity.{k}": v for k, v in changed.items()}), "--update")
    err = check("--out", "results/runs/none")[2]
    shown = "'vcd[alpha=0.5]'" if "[" in method else method
    expected = f"medbench run --method {shown} --task mini --backbone toy --data DIR {words}"
    assert err[2] == f"  Make it: {expected} --out results/runs/none"


def test_a_run_that_is_not_finished(kept, make, check):
    (kept / store.SCORES).unlink()
    going = "Go on with it: medbench run --method greedy --task mini --backbone toy"
    code, _, err = check()
    assert code == 2
    assert err == [
        f"{GREEDY}: not finished",
        f"  1000 of 1000 samples are answered in {kept.relative_to(Path.cwd())}.",
        f"  {going}",
    ]
    code, _, err = check(kept)
    assert code == 2 and (err[0], err[2]) == (f"{kept} is not finished", f"  {going}")
    assert check("--update")[0] == 2


def test_one_unfinished_run_in_a_folder_does_not_keep_the_others_from_being_compared(
    kept, make, check
):
    make("vcd", state="unfinished")
    code, (line,), err = check("results/runs")
    assert code == 2
    assert "1 unchanged, 1 not compared" in line
    assert err[0] == "results/runs/mini/toy/vcd/000000000001 is not finished"


def test_broken_runs(kept, make, check):
    broken = make()
    (broken / store.RUN).write_text("{}")
    assert check(broken)[2][0] == f"cannot read {broken / store.RUN}"
    (broken / store.RUN).write_text((kept / store.RUN).read_text())
    (broken / store.SAMPLES).write_text("")
    assert check(broken)[2][:2] == [
        f"{broken.relative_to(Path.cwd())} is broken",
        "  samples.jsonl has 0 of its 1000 answers.",
    ]
    (broken / store.SCORES).write_text("{")
    assert check(broken)[2][0] == f"cannot read {broken / store.SCORES}"
    (kept / store.RUN).write_text("{")
    code, _, err = check()
    assert code == 2
    assert err[1].endswith("; 2 there cannot be read, see: medbench list runs.")


def test_a_run_with_a_broken_line(kept, make, check):
    """Its score counts an answer that cannot be read."""
    broken = make()
    path, shown = broken / store.SAMPLES, broken.relative_to(Path.cwd())
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:41], lines[41][:9], *lines[42:]]) + "\n")
    code, out, err = check(broken, kept)
    assert code == 2
    assert "1 run against" in out[0] and "1 unchanged, 1 not compared" in out[0]
    assert err[0] == f"line 42 of {path} is broken"
    assert err[1].startswith("  JSONDecodeError: ")
    assert err[2] == (
        f"  Delete that line and {shown}/scores.json, then go on: "
        "medbench run --method greedy --task mini --backbone toy"
    )
    path.write_text("\n".join([*lines[:-1], lines[-1][:9]]))
    code, _, err = check(broken)
    assert code == 2 and err[1] == "  samples.jsonl has 999 of its 1000 answers."
    lines[0] = json.dumps({**json.loads(lines[0]), "scores": {"closed/strict": "yes"}})
    path.write_text("\n".join(lines) + "\n")
    code, _, err = check(broken)
    assert code == 2 and err[:2] == [
        f"{shown} is broken",
        "  could not convert string to float: 'yes'.",
    ]


@pytest.mark.parametrize("name", [store.RUN, store.SCORES])
def test_a_run_of_a_newer_medbench(kept, make, check, name):
    path = make() / name
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 2}))
    code, _, err = check(path.parent)
    assert code == 2
    assert err[0] == f"{path} is from a newer medbench"
    assert err[2].startswith("  Upgrade medbench")


def test_a_run_that_is_not_there(kept, check):
    code, _, err = check("results/runs/mini/toy/vcd")
    assert code == 2
    assert err[0] == "no run at 'results/runs/mini/toy/vcd'"


def test_a_run_without_any_score(kept, make, check):
    empty = make(closed__strict=[None] * 1000).relative_to(Path.cwd())
    code, _, err = check(empty)
    assert code == 2 and err == [
        f"{empty} has no score",
        "  There is nothing to compare.",
        f"  medbench rescore {empty} --metric ...",
    ]


def test_a_run_of_an_earlier_source_is_not_taken_for_one_of_today(kept, plugin, make, check):
    source = plugin("methods", "mine", _METHOD)
    run = make("mine")
    check(run, "--update")
    assert check()[0] == 0
    source.write_text(_METHOD + "\n# other\n", encoding="utf-8")
    code, _, err = check()
    assert code == 2
    assert err[:2] == [
        "mine on mini with toy, seed 0, matched: no run of the present source",
        f"  methods/mine.py has changed since {run.relative_to(Path.cwd())} was made.",
    ]
    assert check(run)[0] == 0, "who names it means it"
    make("mine", closed__strict=700, name="0" * 12)
    code, (_, line, *_), _ = check()
    assert code == 1 and line.endswith(": methods/mine.py changed")


def test_of_several_runs_of_today_the_latest_counts(kept, make, check):
    make(closed__strict=700, changed={"started": "2026-01-02T00:00:00Z"})
    make(closed__strict=800, changed={"started": "2025-12-01T00:00:00Z"})
    assert check()[0] == 1


def test_runs_that_are_not_in_the_baseline_are_not_looked_at_unless_they_are_named(
    kept, make, check
):
    make("vcd", closed__strict=0)
    assert check()[0] == 0
    assert check("results/runs")[0] == 2


def test_worse_counts_more_than_what_cannot_be_compared(kept, make, check):
    worse = make(closed__strict=700)
    other = make("vcd")
    code, (*_, summary, _), err = check(worse, other, "nothing")
    assert code == 1
    assert "1 score worse" in summary and "2 not compared" in summary
    assert len(err) == 6
    assert check(other, "nothing")[0] == 2


def test_targets_of_a_tuner_are_part_of_a_cell(make, check):
    """Their spec is in the adapter's key and not in the run's identity."""
    tuner = {"name": "a3tune", "parameters": {"rank": 4}}
    runs = [
        make(method, changed={"identity.tuner": tuner, "identity.adapter": f"{at}" * 12})
        for at, method in enumerate(("a3tune", "a3tune[labels=wrong]"))
    ]
    check(runs[0], "--update")
    (cell,) = content()["cells"].values()
    assert cell["key"]["tuner"]["supervision"] == {
        "expert": "unimed_l14_336",
        "labels": "roi",
    }, "as the task sets it"
    code, _, err = check(runs[1])
    assert code == 2 and "(tuner.supervision.labels: roi -> wrong)" in err[1]


def test_another_adapter_is_told_where_no_source_changed(make, check):
    tuner = {"name": "lora", "parameters": {}, "source": "1" * 64}
    changed = {"identity.tuner": tuner, "identity.adapter": "a" * 12}
    check(make("lora", changed=changed), "--update")
    changed["identity.adapter"] = "b" * 12
    line = check(make("lora", closed__strict=700, changed=changed))[1][1]
    assert line.endswith(": another adapter or training data (aaaaaaaa -> bbbbbbbb)")
    changed["identity.tuner"] = {**tuner, "source": "2" * 64}
    line = check(make("lora", closed__strict=700, changed=changed))[1][1]
    assert line.endswith(": methods/lora.py changed")


# Runs that medbench made


def test_a_run_and_what_became_of_it(place, medbench, check):
    """From answers to the exit code: right answers are kept, and then some are lost."""
    run = "run", "--method", "greedy", "--task", "mini", "--backbone", "toy", "--device", "cpu"
    assert medbench(*run)[0] == 0
    (folder,) = Path("results/runs").glob("mini/toy/greedy/*")

    def answer(wrong):
        rows = store.read_rows(folder)
        for at, row in enumerate(rows):
            row["output"] = "lungs?" if at in wrong else row["gold"]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / store.SAMPLES).write_text(text)
        assert medbench("rescore", folder)[0] == 0

    answer(wrong=())
    assert check(folder, "--update")[0] == 0
    assert check() == check(folder) and check()[0] == 0
    answer(wrong=range(21))
    code, lines, err = check()
    assert (code, err) == (1, [])
    assert lines[0] == GREEDY
    metrics = ("closed/paper", "closed/strict", "recall/paper")
    for metric, line in zip(metrics, lines[2:5], strict=True):
        assert line.startswith(f"  {metric}")
        assert "100.00 ->   0.00  -100.00  worse: beyond the tolerance" in line
    # Seven images lost it all, p = 2 / 2**7, and what is tested is counted.
    p = 2 / 2**7 * len(content()["cells"][GREEDY]["answers"])
    assert lines[2].endswith(f"-7 +0 answers, p = {p:.2g}")


def test_answers_of_another_program(place, medbench, check):
    """Other answers are the same cell: they are what is compared."""
    from medbench.cell import prepare_task

    samples = prepare_task("mini", "", "test")[1].samples

    def answers(wrong):
        lines = (
            json.dumps({"id": one.id, "output": "no idea" if at < wrong else one.answer})
            for at, one in enumerate(samples)
        )
        Path("answers.jsonl").write_text("\n".join(lines) + "\n")
        words = "--task", "mini", "--method", "theirs", "--backbone", "theirs"
        assert medbench("import", "answers.jsonl", *words)[0] == 0

    answers(wrong=0)
    assert check("results/runs", "--update")[0] == 0
    assert check()[0] == 0
    (folder,) = Path("results/runs").glob("mini/*/*/*")
    shutil.rmtree(folder)
    assert check()[2] == [
        "theirs on mini with theirs, seed 0, imported: no run",
        "  None in results/runs is of this cell.",
        "  Make it: medbench import FILE --backbone theirs --method theirs --task mini",
    ]
    answers(wrong=21)
    assert check()[0] == 1


# The file


def test_an_update_of_the_same_runs_leaves_the_same_bytes(make, check):
    runs = [make("vcd"), make("greedy", yes_rate=300, closed__strict=800)]
    check(*runs, "--update")
    before = Path(FILE).read_bytes()
    for arguments in (runs, runs[:1], [runs[1], runs[0]], []):
        code, out, _ = check(*arguments, "--update")
        assert code == 0
        assert out == [f"{FILE}: 2 cells, 0 new; 0 scores replaced; tolerance 0.5 points"]
        assert Path(FILE).read_bytes() == before
    Path(FILE).unlink()
    check(runs[1], "--update")
    check(runs[0], "--update")
    assert Path(FILE).read_bytes() == before


def test_an_update_says_what_moved_and_keeps_the_other_cells(kept, make, check):
    check(make("vcd"), "--update")
    before = content()["cells"][VCD]
    now = make(closed__strict=850, changed={"identity.decoder.source": "0" * 64})
    code, out, err = check(now, "--update")
    assert (code, err) == (0, [])
    assert out == [
        GREEDY,
        f"  {now}: methods/greedy.py changed",
        "  closed/strict   80.00 ->  85.00  +5.00",
        f"{FILE}: 2 cells, 0 new; 1 score replaced; tolerance 0.5 points",
    ]
    assert content()["cells"][VCD] == before
    assert content()["cells"][GREEDY]["scores"]["closed/strict"]["value"] == 0.85
    code, (line,), _ = check(now, "--update", "--json")
    found = json.loads(line)
    (change,) = found.pop("changes")
    assert found == {"cells": 2, "exit_code": 0, "refused": [], "tolerance": 0.005}
    assert (change["cell"], change["folder"], change["replaced"]) == (GREEDY, str(now), [])


def test_without_a_run_an_update_takes_one_for_each_cell_and_adds_none(kept, make, check):
    make("vcd")
    make(closed__strict=850, changed={"started": "2027-01-01T00:00:00Z"})
    assert check("--update")[1][-1].startswith(f"{FILE}: 1 cell, 0 new; 1 score replaced")
    # A cell's run of another batch size is taken for it where there is no other.
    for folder in kept.parent.iterdir():
        (folder / store.SCORES).unlink()
    now = make(changed={"identity.batch_size": 8}).relative_to(Path.cwd())
    code, out, _ = check("--update")
    assert code == 0 and out[:2] == [GREEDY, f"  {now}: batch_size: 16 -> 8"]


def test_two_runs_of_one_cell_cannot_both_be_kept(kept, make, check):
    other = make(changed={"identity.batch_size": 8})
    code, out, err = check(kept, other, "--update")
    assert code == 2
    assert err[0] == f"{GREEDY}: two runs"
    assert err[1] == f"  {kept} and {other} differ in batch_size: 16 -> 8."
    assert out == [f"{FILE} is as it was"]


def test_a_spec_written_otherwise_is_the_same_cell(kept, make, check):
    same = make("greedy[beams=1]")
    assert check(same)[0] == 0
    before = Path(FILE).read_bytes()
    check(same, "--update")
    assert Path(FILE).read_bytes() == before


def test_the_tolerance_is_set_by_an_update_and_stays(kept, check):
    code, out, _ = check("--update", "--tolerance", "0.01")
    assert code == 0 and out[-1].endswith("tolerance 1 points")
    assert content()["tolerance"] == 0.01
    check("--update")
    assert content()["tolerance"] == 0.01
    code, _, err = check("--tolerance", "0.1")
    assert code == 2 and err[0] == "--tolerance goes with --update"
    assert check("--update", "--tolerance", "1")[0] == 2
    assert check("--update", "--tolerance", "-0.1")[0] == 2


def test_a_new_file_wants_runs(place, make, check):
    make()
    for words in ((), ("--update",)):
        code, _, err = check(*words)
        assert code == 2
        assert err[0] == f"no baseline at {FILE}"
        assert err[2].endswith(f"medbench check RUN --against {FILE} --update")


def test_a_file_of_a_newer_schema(kept, check):
    edit(lambda known: known.update(schema=2, cells="another thing"))
    for words in ((), ("--update",)):
        code, out, err = check(kept, *words)
        assert (code, out) == (2, [])
        assert err[0] == f"{FILE} is from a newer medbench"
        assert err[1] == "Its schema is 2; this version reads up to 1."


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda known: known.pop("schema"), "It lacks 'schema'."),
        (lambda known: known.pop("tolerance"), "It lacks 'tolerance'."),
        (lambda known: known.pop("cells"), "It lacks 'cells'."),
        (lambda known: known.update(tolerance=-1), "ValueError: a tolerance is a fraction, not -1"),
        (lambda known: known.update(cells=[]), "AttributeError"),
        (
            lambda known: score_of(known).update(value=float("nan")),
            f"ValueError: {GREEDY} has nan for closed/strict",
        ),
        (lambda known: score_of(known).update(value="high"), "ValueError: could not convert"),
        (lambda known: known["cells"][GREEDY].pop("scores"), "It lacks 'scores'."),
        (lambda known: known["cells"][GREEDY].pop("made_with"), "It lacks 'made_with'."),
        (lambda known: key_of(known).pop("task"), "It lacks 'task'."),
        (
            lambda known: known["cells"][GREEDY]["answers"]["closed/strict"].update(right="AA=="),
            f"ValueError: {GREEDY} has not one answer for each of its closed/strict",
        ),
    ],
)
def test_a_file_that_lacks_something(kept, check, change, said):
    edit(change)
    before = Path(FILE).read_bytes()
    for words in ((), ("--update",)):
        code, out, err = check(kept, *words)
        assert (code, out) == (2, [])
        assert err[0] == f"cannot read {FILE}"
        assert err[1].startswith(said)
    assert Path(FILE).read_bytes() == before, "what cannot be read is not written over"


def test_a_file_that_is_no_json(kept, check):
    Path(FILE).write_text('{"schema": 1, "cells"')
    code, _, err = check(kept, "--update")
    assert code == 2
    assert err[0] == f"cannot read {FILE}" and err[1].startswith("JSONDecodeError: ")
    Path(FILE).write_text('{"schema": 1, "tolerance": 0.1, "cells": {}}')
    assert check(kept)[2][0] == f"{FILE} holds no cells"


def test_a_score_taken_out_by_hand_is_no_longer_guarded(make, check):
    run = make(closed__strict=800, yes_rate=500)
    check(run, "--update")
    edit(lambda known: known["cells"][GREEDY]["scores"].pop("yes_rate"))
    code, (line,), _ = check(run)
    assert code == 0 and "1 unchanged, 1 not in it" in line


def test_the_file_has_a_line_a_score_and_is_sorted(make, check):
    check(make("vcd"), make("greedy", yes_rate=500, closed__strict=800), "--update")
    text = Path(FILE).read_text()
    assert all(len(line) <= 100 or '"right": "' in line for line in text.splitlines())
    assert text.endswith("}\n")
    assert '        "closed/strict": {"value": 0.8, "n": 1000},\n' in text
    cells = content()["cells"]
    assert list(cells) == sorted(cells)
    assert all(list(cell["scores"]) == sorted(cell["scores"]) for cell in cells.values())
    assert not re.search(r"image|gold|output|/tmp|/home", text)


# This project's own


def test_the_baseline_of_this_project_can_be_read_and_names_what_there_is():
    known = baseline.read(ROOT / "results" / "baseline.json")
    assert len(known.entries) > 3
    for name, entry in known.entries.items():
        assert name.startswith(f"{entry.run['method']} on phantom with phantom, seed 0, matched")
        for one in spec.parse_chain(entry.run["method"]):
            plugins.get("method", one.name)
        assert {"closed/strict", "recall/strict"} <= entry.scores.keys()
        assert {"closed/strict"} <= entry.answers.keys()
        key = entry.key
        assert (key["limit"], key["batch_size"]) == (None, 16)
        assert (key["backbone"]["dtype"], key["backbone"]["device"]) == ("float32", "cpu")


def test_the_baseline_of_this_project_is_laid_out_as_it_would_be_written(tmp_path):
    own = ROOT / "results" / "baseline.json"
    baseline.write(tmp_path / "again.json", baseline.read(own))
    assert (tmp_path / "again.json").read_bytes() == own.read_bytes()


@pytest.mark.parametrize("where", ["tox.ini", "docs/ci.md"])
def test_tox_and_the_workflow_of_the_page_run_the_cells_of_the_baseline(where):
    known = baseline.read(ROOT / "results" / "baseline.json")
    text = (ROOT / where).read_text(encoding="utf-8")
    (methods,) = re.findall(r"medbench run --method (\S+,\S+) --task phantom --device cpu", text)
    assert {*methods.split(",")} == {entry.run["method"] for entry in known.entries.values()}


def test_the_workflow_of_the_page_is_valid_and_uses_what_there_is(medbench):
    yaml = pytest.importorskip("yaml")
    page = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    workflow = yaml.safe_load(text)
    # YAML 1.1 reads `on` as a truth value.
    assert {"pull_request", "push"} <= set(workflow.get("on", workflow.get(True)))
    (job,) = workflow["jobs"].values()
    steps = job["steps"]
    assert [one["uses"].partition("@")[0] for one in steps if "uses" in one] == [
        "actions/checkout",
        "actions/setup-python",
        "actions/upload-artifact",
    ]
    assert steps[-1]["if"] == "failure()" and steps[-1]["with"]["path"] == "results/runs"
    commands = "\n".join(step["run"] for step in steps if "run" in step)
    for name in re.findall(r"-c (\S+)", commands):
        assert (ROOT / name).is_file()
    verbs = re.findall(r"medbench (\w+)(.*)", commands)
    assert [verb for verb, _ in verbs] == ["run", "check"]
    for verb, arguments in verbs:
        options = medbench(verb, "--help")[1]
        for option in re.findall(r"--[\w-]+", arguments):
            assert option in options, (verb, option)


def test_commands_of_the_page_are_ones_that_there_are(medbench):
    page = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    commands = re.findall(r"^medbench (\w+)([^#\n]*)", page, re.MULTILINE)
    assert len(commands) > 3
    for verb, arguments in commands:
        options = medbench(verb, "--help")[1]
        assert all(one in options for one in re.findall(r"--[\w-]+", arguments)), (verb, arguments)


_METHOD = '''"""Mine."""

from medbench.method import Decoder


class Mine(Decoder):
    """Mine."""

    name = "mine"
'''
