"""`medbench import`: answers of other programs, matched by id and scored as a run's own are."""

import json
import os
import re
import shlex
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

import medbench as package
from medbench import store
from medbench.errors import UserError
from medbench.imported import ImportRequest, import_predictions
from tests.runs.lacking import LACKING

ROOT = Path(__file__).resolve().parents[2]

# Ids, native ids, groups and texts begin with what a restricted task must not tell.
WORDS = '''"""Questions about images that are not there."""

from dataclasses import dataclass
from pathlib import Path

from medbench.task import Sample, Task

OPTIONS = ["CT scan", "MRI", "X-ray"]


@dataclass(frozen=True)
class {title}(Task):
    """Questions about images that are not there."""

    name = "{name}"
    source = "example.org"
    metrics = ("closed/paper", "closed/strict", "recall/strict", "choice/strict")
    restricted = {restricted}

    count: int = 6
    shared: bool = False

    def samples(self, split):
        for number in range(self.count):
            kind, answer, text = (
                ("closed", "yes", "Yes, it is."),
                ("open", "Left lung", "Left lung"),
                ("choice", "MRI", "mri."),
            )[number % 3]
            yield Sample(
                id=f"{name}-Zephyrine{{number}}",
                image=Path("nowhere") / f"{{number}}.png",
                question=f"is Peregrine {{number}} well?",
                answer=answer,
                kind=kind,
                group=f"Quillon{{number % 4}}",
                meta={{
                    "native_id": 0 if self.shared else 7000 + number,
                    "answer_text": text,
                    "options": OPTIONS,
                }},
            )
'''
SECRETS = re.compile(r"zephyrine|peregrine|quillon|700\d|left lung|blurred", re.IGNORECASE)
GOLDS = ("yes", "Left lung", "MRI")
NAMES = ("--method", "vcd", "--backbone", "LLaVA-Med-1.5")


@pytest.fixture(autouse=True)
def here(place, plugin):
    plugin("tasks", "words", WORDS.format(name="words", title="Words", restricted=False))
    plugin("tasks", "ward", WORDS.format(name="ward", title="Ward", restricted=True))
    return place


def answers(**changes):
    """Return six right answers, with other texts for some of the numbers."""
    made = [
        {"id": f"words-Zephyrine{number}", "text": GOLDS[number % 3].lower()} for number in range(6)
    ]
    for number, text in changes.items():
        made[int(number[1:])]["text"] = text
    return made


def renamed(names, records):
    """Return records with other names of their fields."""
    return [{names[field]: value for field, value in one.items()} for one in records]


def write(records, path="answers.jsonl"):
    path = Path(path)
    lines = [one if isinstance(one, str) else json.dumps(one) for one in records]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def take(medbench):
    """Return a function that imports records, or a file, and returns folder and errors."""

    def call(records, *arguments, task="words"):
        path = records if isinstance(records, Path) else write(records)
        code, out, err = medbench("import", path, "--task", task, *NAMES, *arguments, "--json")
        assert code == 0, err
        return Path(json.loads(out)["folder"]), err

    return call


@pytest.fixture
def refused(medbench):
    """Return a function that imports what must be refused, and returns the lines."""

    def call(records, *arguments, task="words"):
        path = records if isinstance(records, Path) else write(records)
        before = package.runs()
        code, out, err = medbench("import", path, "--task", task, *NAMES, *arguments)
        assert (code, out) == (2, ""), err
        lines = err.splitlines()
        assert len(lines) in (2, 3), lines
        assert "Traceback" not in err
        assert package.runs() == before
        return lines

    return call


def outputs(folder):
    return {row["id"]: row["output"] for row in store.read_rows(folder)}


# What comes out


def test_answers_of_a_run_are_scored_as_in_the_run(run, medbench, here):
    folder = run("greedy")
    code, out, err = medbench(
        "import", folder / "samples.jsonl", "--task", "mini", "--method", "ours", "--json"
    )
    assert code == 0, err
    content = json.loads(out)
    before = store.read_scores(folder)
    for name in ("closed/paper", "closed/strict", "recall/paper"):
        assert content["scores"][name] == before["scores"][name]
    # Attention is not among what is imported.
    assert content["scores"]["coverage/sum"]["value"] is None
    for name in ("confusion", "disagreements", "unscored"):
        assert content[name] == before[name]
    assert content["health"] == {**before["health"], "cut": None}
    own, taken = store.read_rows(folder), store.read_rows(Path(content["folder"]))
    assert [row["id"] for row in own] == [row["id"] for row in taken]
    for name in ("output", "gold", "question", "kind", "group", "meta", "prompt"):
        assert [row[name] for row in own] == [row[name] for row in taken]
    for one, other in zip(own, taken, strict=True):
        texts = {name: one["scores"][name] for name in ("closed/paper", "recall/paper")}
        assert texts == {name: other["scores"][name] for name in texts}


def test_what_is_printed(medbench, here):
    code, out, err = medbench("import", write(answers(n0="no", n1="")), "--task", "words", *NAMES)
    assert code == 0
    assert err.splitlines() == [
        "vcd on words with LLaVA-Med-1.5, imported from answers.jsonl",
        "  6 answers in 'text'; 'id' has the task's ids; 0 gold answers compared",
    ]
    lines = out.splitlines()
    assert re.fullmatch(r"  closed/strict +50\.00  \[[\d., ]+\]  n=2, 2 images", lines[1])
    assert lines[4:7] == [
        "  6 answers: 1 empty",
        "  yes-no questions: gold yes 2 -> yes 1, no 1",
        "  paper and strict rules differ on: closed 0, recall 0, choice 0",
    ]
    assert re.fullmatch(r"  results/runs/words/llava_med_1\.5/vcd/[0-9a-f]{12}", lines[7])


def test_the_folder_is_a_runs(take, here):
    records = [
        {**one, "gt_ans": GOLDS[n % 3], "prompt": f"Q{n}"} for n, one in enumerate(answers())
    ]
    folder, _ = take(records, task="words[count=6]")
    assert {path.name for path in folder.iterdir()} == {
        "run.json", "samples.jsonl", "scores.json", ".lock",
    }  # fmt: skip
    record = store.read_run(folder)
    assert record["schema"] == store.SCHEMA
    assert record["key"] == folder.name
    assert record["display"] == {
        "task": "words[count=6]", "backbone": "llava_med_1.5", "method": "vcd",
    }  # fmt: skip
    assert (record["samples"], record["partial"], record["missing_answers"]) == (6, False, 0)
    assert record["data"]["edition"] == "official"
    passport = record["data"]["passport"]
    assert (passport["rows"], passport["images"]) == (6, None)
    assert record["metrics"][0] == "closed/paper"
    assert record["imported"] | {"sha256": ""} == {
        "file": "answers.jsonl", "sha256": "", "id": "id", "output": "text", "ids": "id",
        "golds": 6,
    }  # fmt: skip
    assert record["versions"]["medbench"] == package.__version__
    identity = record["identity"]
    assert (identity["preset"], identity["seed"], identity["limit"]) == ("imported", 0, None)
    assert {row["prompt"] for row in store.read_rows(folder)} == {f"Q{n}" for n in range(6)}
    (found,) = package.runs()
    assert (found.state, found.done, found.total) == ("complete", 6, 6)
    assert found.scores["closed/strict"]["value"] == 1.0


def test_tables_show_imports_by_themselves(take, medbench, run, here):
    folder = run("greedy")
    take([{"id": row["id"], "text": "yes"} for row in store.read_rows(folder)], task="mini")
    code, out, err = medbench("table")
    assert (code, err) == (0, "")
    imported, own = out.split("\n\n")[0::2]
    assert "greedy" in own and "vcd" not in own
    assert "vcd" in imported and "greedy" not in imported
    assert "Preset imported: answers that other programs wrote" in out
    code, out, _ = medbench("list", "runs")
    (line,) = [line for line in out.splitlines() if "vcd" in line]
    assert line.split()[1:8] == [
        "complete",
        "mini",
        "llava_med_1.5",
        "vcd",
        "seed",
        "0",
        "imported",
    ]


def test_seeds_are_pooled_and_other_answers_told_apart(take, medbench, here):
    for seed, text in enumerate(("yes", "no", "yes")):
        take(answers(n0=text, n3=text), "--seed", seed)
    _, out, _ = medbench("table", "--metric", "closed/strict")
    assert re.search(r"vcd +66\.67 \[[\d., ]+\] ± 57\.74 \(3 seeds\)", out), out
    # A second run of one seed is not a second draw.
    take(answers(n0="no"), "--seed", 2)
    _, out, _ = medbench("table", "--metric", "closed/strict")
    keys = [record.key for record in package.runs()]
    assert len(keys) == 4
    assert all(f"vcd ({key})" in out for key in keys)


def test_rescore_works_on_it(take, medbench, here):
    folder, _ = take(answers(n0="no"))
    code, out, _ = medbench("rescore", folder.name, "--metric", "yes_rate,closed/strict")
    assert code == 0
    assert re.search(r"yes_rate +50\.00 .* gold_yes_rate=100\.00 %", out)
    assert set(store.read_scores(folder)["scores"]) == {
        "closed/paper", "closed/strict", "recall/strict", "choice/strict", "yes_rate",
    }  # fmt: skip


def test_the_same_import_twice_is_there_already(take, medbench, here):
    folder, err = take(answers())
    assert "already" not in err
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    again, err = take(answers())
    assert again == folder
    assert "these answers are there already" in err
    # In another order, as a list, in other fields: the same answers.
    shuffled = renamed({"id": "qid", "text": "pred"}, answers()[::-1])
    Path("list.json").write_text(json.dumps(shuffled, indent=1))
    assert take(Path("list.json"))[0] == folder
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    assert {n: v for n, v in after.items() if n != ".lock"} == {
        n: v for n, v in before.items() if n != ".lock"
    }
    assert len(package.runs()) == 1


def test_what_makes_another_run(take, medbench, here):
    folders = [
        take(answers())[0],
        take(answers(n1="left  lung"))[0],
        take(answers(), "--method", "pai")[0],
        take(answers(), "--backbone", "other")[0],
        take(answers(), "--seed", "1")[0],
        take(answers()[:5], "--partial")[0],
        take(answers(), "--out", "elsewhere", "--method", "pai")[0],
    ]
    assert len({folder.name for folder in folders}) == 6
    assert folders[2].name == folders[6].name
    assert folders[6].parts[0] == "elsewhere"


def test_the_command_in_run_json_is_the_import(take, medbench, here):
    odd = write(answers(), "my answers.jsonl")
    folder, _ = take(odd, "--seed", "3", "--id", "id")
    command = shlex.split(store.read_run(folder)["command"])
    assert command[0] == "medbench"
    code, _, err = medbench(*command[1:])
    assert code == 0
    assert "already" in err


def test_an_import_that_was_stopped_is_done_again(server, here):
    words = ("import", write(answers(n0="no")), "--task", "words", *NAMES)
    points = [
        ("medbench.task_scores:measure", "after", 2, "kill"),
        ("medbench.store:write_json", "before", 1, "kill"),
    ]
    for point in points:
        assert server.run(here, words, points=[point]) < 0
        (record,) = package.runs()
        assert record.state == "unfinished"
    assert server.run(here, words) == 0
    (record,) = package.runs()
    assert (record.state, record.scores["closed/strict"]["value"]) == ("complete", 0.5)
    assert {path.name for path in record.folder.iterdir()} == {
        "run.json", "samples.jsonl", "scores.json", ".lock",
    }  # fmt: skip


def test_a_metric_that_cannot_be_computed_here_does_not_lose_the_others(take, plugin, here):
    plugin("metrics", "lacking", LACKING)
    source = WORDS.format(name="words", title="Words", restricted=False)
    plugin("tasks", "words", source.replace('("closed/paper"', '("lacking", "closed/paper"'))
    folder, _ = take(answers())
    content = store.read_scores(folder)
    assert content["unscored"] == {
        "lacking": ["a package is missing", "It is nowhere.", "Install it."]
    }
    assert content["scores"]["closed/paper"]["value"] == 1.0


def test_from_python(here):
    done = import_predictions(ImportRequest(write(answers()), "words", "vcd", out=Path("kept")))
    assert done.folder.parent == Path("kept/words/unknown/vcd")
    assert done.scores["scores"]["closed/strict"]["value"] == 1.0
    assert (done.known, done.missing, done.pairing.ids) == (False, 0, "id")


def test_neither_images_nor_torch_are_asked_for(here):
    code = (
        "import sys; from medbench.cli import main; code = main(sys.argv[1:]);"
        "print([m for m in ('torch', 'transformers', 'PIL') if m in sys.modules]); sys.exit(code)"
    )
    words = ["import", str(write(answers())), "--task", "words", *NAMES]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert not Path("nowhere").exists()


# Which field is which


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "id", "text": "output", "gold": "gold"},  # medbench's own
        {"id": "question_id", "text": "text", "gold": "gt"},  # LLaVA-Med 1.0
        {"id": "question_id", "text": "text", "gold": "gt_ans"},  # LLaVA-Med-1.5
        {"id": "id", "text": "prediction", "gold": "ground_truth"},
        {"id": "qid", "text": "pred", "gold": "answer"},
        {"id": "sample_id", "text": "response", "gold": "answer"},
    ],
)
def test_known_fields_are_found(take, fields):
    more = {"image": "x.png", "metadata": {}, "answer_id": "abc", "model_id": "m", "question": "?"}
    records = [{**one, "gold": GOLDS[n % 3]} for n, one in enumerate(answers(n2="CT scan"))]
    folder, err = take([{**one, **more} for one in renamed(fields, records)])
    assert outputs(folder)["words-Zephyrine2"] == "CT scan"
    assert f"6 answers in '{fields['text']}'; '{fields['id']}' has the task's ids; 6 gold" in err


def test_fields_can_be_named(take, refused, here):
    records = renamed({"id": "which", "text": "answer"}, answers(n0="no"))
    lines = refused(records)
    assert lines == [
        "answers.jsonl has no field with the id of an answer",
        "Its first object has no 'id', nor question_id, qid, sample_id; it has 'which', 'answer'.",
        "Name it: --id FIELD",
    ]
    lines = refused(records, "--id", "which")
    assert lines[0] == "answers.jsonl has no field with the output of an answer"
    folder, _ = take(records, "--id", "which", "--output", "answer")
    assert outputs(folder)["words-Zephyrine0"] == "no"
    assert store.read_run(folder)["imported"]["golds"] == 0, "the answer is no gold answer here"
    assert refused(records, "--id", "witch")[1] == (
        "Its first object has no 'witch'; it has 'which', 'answer'."
    )


def test_which_of_several_fields_must_be_said(take, refused, here):
    records = [{**one, "prediction": one["text"], "text": "raw"} for one in answers()]
    assert refused(records) == [
        "answers.jsonl has several fields that may be the output",
        "They are text and prediction.",
        "Name the right one: --output text",
    ]
    assert outputs(take(records, "--output", "prediction")[0])["words-Zephyrine0"] == "yes"
    records = [{**one, "question_id": "x"} for one in answers()]
    assert refused(records)[0] == "answers.jsonl has several fields that may be the id"


@pytest.mark.parametrize("field", ["id", "text"])
def test_a_field_that_one_object_lacks(refused, field):
    records = answers()
    del records[3][field]
    lines = refused(records)
    assert lines[0] == f"line 4 of answers.jsonl has no '{field}'"


# Which answer is whose


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (lambda n: 7000 + n, "the data set's own ids;"),
        (lambda n: f" {7000 + n} ", "the data set's own ids;"),
        (lambda n: f"{7000 + n}_train{9 - n}", "the data set's own ids with a number behind;"),
    ],
)
def test_the_data_sets_own_ids(take, name, kind):
    records = [{**one, "id": name(n)} for n, one in enumerate(answers(n3="normal"))]
    folder, err = take(records[::-1])
    assert kind in err
    assert outputs(folder)["words-Zephyrine3"] == "normal"
    # Whatever they are called, they are the same answers.
    assert take(answers(n3="normal"))[0] == folder


def test_own_ids_that_several_samples_share_tell_nothing(refused, take, here):
    records = [{**one, "id": 0} for one in answers()]
    assert refused(records, task="words[shared=on]") == [
        "6 of 6 ids in answers.jsonl are of several test samples of words",
        "The first is in line 1, '0'.",
        "The data set's own ids do not tell its samples apart here; use the task's.",
    ]
    take(answers(), task="words[shared=on]")


def test_unknown_ids(refused, here):
    records = answers()
    records[2]["id"], records[4]["id"] = "words-2", "words-4"
    assert refused(records) == [
        "2 of 6 ids in answers.jsonl are of no test sample of words",
        "The first is in line 3, 'words-2'.",
        "Its ids are like words-Zephyrine0, in the data set 7000; another field for them: "
        "--id FIELD",
    ]
    # Left out are samples, never answers.
    assert refused(records, "--partial")[0].startswith("2 of 6 ids")
    # Of two ways to call samples, a file has one.
    mixed = [{**one, "id": 7000 + n} if n < 2 else one for n, one in enumerate(answers())]
    assert refused(mixed)[1] == "The first is in line 1, '7000'."
    assert refused(renamed({"id": "id", "text": "text"}, answers()), task="mini")[0] == (
        "6 of 6 ids in answers.jsonl are of no test sample of mini"
    )


def test_doubled_ids(refused, here):
    records = [*answers(), answers()[1], answers()[0], answers()[1]]
    for arguments in ((), ("--partial",)):
        assert refused(records, *arguments) == [
            "3 answers in answers.jsonl to samples that have one",
            "The first are 'words-Zephyrine1', line 2 and line 7.",
            "Keep one answer for each sample.",
        ]
    suffixes = [{"id": f"7001_train{n}", "text": "a"} for n in range(2)]
    assert refused(suffixes, "--partial")[0].startswith("1 answer in")


def test_missing_answers(refused, take, medbench, here):
    records = [one for n, one in enumerate(answers(n0="no")) if n not in (1, 4)]
    assert refused(records) == [
        "2 of 6 test samples of words have no answer in answers.jsonl",
        "The first is words-Zephyrine1.",
        "Complete the file, or import what there is with --partial.",
    ]
    folder, err = take(records, "--partial")
    assert "  partial: 2 of 6 samples have no answer" in err.splitlines()
    record = store.read_run(folder)
    assert (record["samples"], record["partial"], record["missing_answers"]) == (4, True, 2)
    assert record["data"]["passport"]["rows"] == 6
    (found,) = package.runs()
    assert (found.state, found.missing_images) == ("partial", 2)
    assert found.scores["closed/strict"]["n"] == 2
    _, out, _ = medbench("table")
    assert out.startswith("PARTIAL")
    assert "words, 2 left out" in out
    # Others left out: numbers that are not to be compared.
    take(answers()[:4], "--partial")
    _, out, _ = medbench("table", "--metric", "closed/strict")
    assert len(re.findall(r"words #[0-9a-f]{8}, 2 left out", out)) == 2
    # All there are, though fewer were allowed.
    assert store.read_run(take(answers(), "--partial")[0])["partial"] is False


# Gold answers


def test_gold_answers_must_be_the_tasks(refused, take, here):
    records = [{**one, "gt": GOLDS[n % 3]} for n, one in enumerate(answers())]
    records[0]["gt"], records[3]["gt"], records[4]["gt"] = " YES\n", "no", "right  lung"
    assert refused(records) == [
        "2 of 6 gold answers in answers.jsonl are not words's",
        "The first is in line 4, words-Zephyrine3: 'no', and not 'yes'.",
        "Its ids are another split's or edition's; or 'gt' is no gold answer: then take it out.",
    ]
    records[3]["gt"], records[4]["gt"] = "Yes,  it is.", None
    _, err = take(records)
    assert "5 gold answers compared" in err


def test_every_gold_answer_counts(refused, here):
    records = [{**one, "gt": GOLDS[n % 3], "answer": "no"} for n, one in enumerate(answers())]
    assert refused(records)[0] == "6 of 12 gold answers in answers.jsonl are not words's"


def test_numbers_are_gold_answers_too(take, plugin, refused, here):
    source = WORDS.format(name="words", title="Words", restricted=False)
    plugin("tasks", "words", source.replace('"Left lung", "Left lung"', '"2", "two"'))
    records = [{**one, "answer": 2 if n % 3 == 1 else None} for n, one in enumerate(answers())]
    assert "2 gold answers compared" in take(records)[1]
    records[1]["answer"] = 3
    assert refused(records, "--out", "other")[1].endswith("'3', and not '2'.")


@pytest.mark.parametrize(("gold", "kind"), [(["yes"], "a list"), ({}, "an object"), (True, "true")])
def test_gold_answers_that_are_no_texts(refused, gold, kind):
    records = answers()
    records[2]["answer"] = gold
    lines = refused(records)
    assert lines[0] == "the 'answer' of line 3 of answers.jsonl is no text"
    assert kind in lines[1]


def test_a_long_gold_answer_is_cut_in_the_message(refused, here):
    lines = refused([{**one, "gt": "word\n" * 100} for one in answers()])
    assert len(lines) == 3 and len(lines[1]) < 200


# Texts


def test_empty_answers_are_kept(take, here):
    folder, _ = take(answers(n0="", n1=" \n", n2="\u2028"))
    assert [outputs(folder)[f"words-Zephyrine{n}"] for n in range(3)] == ["", " \n", "\u2028"]
    content = store.read_scores(folder)
    assert content["health"]["empty"] == 3
    assert content["scores"]["closed/strict"] | {"low": 0, "high": 0} == {
        "value": 0.5, "low": 0, "high": 0, "n": 2, "groups": 2, "notes": {}, "made_with": {},
    }  # fmt: skip


def test_texts_come_through_as_they_are(take, here):
    texts = ["a\r\nb", "tab\tand \x00", "ﬁ 😀 e\u0301", "\x85\u2028\u2029", "no " * 3000, '"}\\n']
    folder, _ = take(answers(**{f"n{n}": text for n, text in enumerate(texts)}))
    assert [outputs(folder)[f"words-Zephyrine{n}"] for n in range(6)] == texts


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("null", "null"),
        ("3", "a number"),
        ("NaN", "a number"),
        ("true", "true or false"),
        ('["yes"]', "a list"),
        ('{"text": "yes"}', "an object"),
        ('"\\ud800"', "half of a character (a lone surrogate)"),
    ],
)
@pytest.mark.parametrize("field", ["id", "text"])
def test_what_is_no_text(refused, field, value, kind):
    records = [json.dumps(one) for one in answers()]
    other = {"id": '"words-Zephyrine3"', "text": '"a"', field: value}
    records[3] = f'{{"id": {other["id"]}, "text": {other["text"]}}}'
    if field == "id" and value == "3":
        assert refused(records)[0].startswith("1 of 6 ids")
        return
    assert refused(records)[:2] == [
        f"the '{field}' of line 4 of answers.jsonl is no text",
        f"It is {kind}.",
    ]


# Files


def test_lines_lists_marks_and_blanks(take, here):
    folder, _ = take(answers())
    lines = [json.dumps(one) for one in answers()]
    texts = {
        "crlf.jsonl": "\r\n".join(lines),
        "blank.jsonl": "\n\n" + "\n \n".join(lines) + "\n\n",
        "mark.jsonl": "\ufeff" + "\n".join(lines),
        "list.json": "\ufeff  " + json.dumps(answers(), indent=4),
        "one-line.json": json.dumps(answers()),
    }
    for name, text in texts.items():
        Path(name).write_bytes(text.encode("utf-8"))
        assert take(Path(name))[0] == folder, name


def test_lines_are_counted_as_an_editor_counts_them(refused, here):
    lines = [json.dumps(one) for one in answers()]
    separators = json.dumps({**answers()[0], "text": "a\u2028b\x85c"}, ensure_ascii=False)
    assert refused([separators, "", "", *lines[1:3], '{"id": 1, "text": null}'])[0] == (
        "the 'text' of line 6 of answers.jsonl is no text"
    )
    Path("list.json").write_text(json.dumps([*answers()[:2], {"id": "a", "text": 1}]))
    assert refused(Path("list.json"))[0] == "the 'text' of entry 3 of list.json is no text"


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", ["bad.json holds no answers", "It is empty."]),
        (b" \n\n", ["bad.json holds no answers", "It is empty."]),
        (b"[]", ["bad.json holds no answers", "It is empty."]),
        (b'{"id": "a", "text": "b"}\n{"id": "a",', ["line 2 of bad.json is no JSON"]),
        (b'[{"id": "a", "text": "b"}', ["bad.json is no JSON"]),
        (b'{\n "id": "a"\n}', ["line 1 of bad.json is no JSON"]),
        (b'{"id": "a", "text": "b"}\n["a", "b"]', ["line 2 of bad.json is no JSON object"]),
        (b'["a"]', ["entry 1 of bad.json is no JSON object", "It is a text."]),
        (b"id,text\na,b\n", ["line 1 of bad.json is no JSON"]),
        (b"<html></html>", ["line 1 of bad.json is no JSON"]),
        (b"[" * 100_000, ["bad.json is no JSON", "Lists or objects are nested too deeply."]),
        (b'{"id": ' + b"9" * 5000, ["line 1 of bad.json is no JSON"]),
        (b'{"id": "a", "text": "\xff"}', ["cannot read bad.json", "Byte 21 is not UTF-8."]),
        ("\ufeff{}".encode("utf-16"), ["cannot read bad.json"]),
        (b"{}", ["bad.json has no field with the id of an answer"]),
    ],
)
def test_files_that_cannot_be_read(refused, content, lines):
    Path("bad.json").write_bytes(content)
    found = refused(Path("bad.json"))
    assert found[: len(lines)] == lines


def test_files_that_are_not_there(refused, here):
    assert refused(Path("gone.jsonl"))[:2] == [
        "cannot read gone.jsonl",
        "No such file or directory.",
    ]
    assert refused(here)[1] == "Is a directory."


# Names


@pytest.mark.parametrize(
    ("option", "text", "what"),
    [
        ("--method", "a/b", "'a/b' cannot be the name of a folder"),
        ("--method", "..", "'..' cannot be the name of a folder"),
        ("--backbone", ".", "'.' cannot be the name of a folder"),
        ("--backbone", "../../x", "'../../x' cannot be the name of a folder"),
        ("--method", "my method", "cannot read 'my method'"),
        ("--method", "", "cannot read ''"),
        ("--backbone", "a+b", "cannot read 'a+b'"),
        ("--task", "wrds", "no task named 'wrds'"),
        ("--task", "words[cuont=3]", "words has no parameter 'cuont'"),
    ],
)
def test_names_that_cannot_be(refused, option, text, what):
    assert refused(answers(), option, text)[0] == what


def test_a_method_may_be_written_as_a_spec(take, here):
    folder, _ = take(answers(), "--method", "LoRA+vcd[alpha=0.5]")
    assert folder.parent.name == "lora+vcd"
    assert store.read_run(folder)["display"]["method"] == "lora+vcd[alpha=0.5]"


# Restricted tasks


def test_restricted_answers_stay_in_their_folder(take, medbench, here):
    records = [{**one, "id": one["id"].replace("words", "ward")} for one in answers(n0="Blurred.")]
    write(records)
    code, out, err = medbench("import", "answers.jsonl", "--task", "ward", *NAMES)
    assert code == 0
    assert not SECRETS.search(out + err)
    (record,) = package.runs()
    assert outputs(record.folder)["ward-Zephyrine0"] == "Blurred."
    for name in ("run.json", "scores.json"):
        assert not SECRETS.search((record.folder / name).read_text())
    assert store.read_run(record.folder)["data"]["restricted"] is True
    assert (record.folder / ".gitignore").exists()
    if os.name == "posix":
        assert stat.S_IMODE(record.folder.stat().st_mode) & 0o077 == 0
    for words in (("table",), ("list", "runs", "--json"), ("rescore", record.folder)):
        code, out, err = medbench(*words)
        assert code == 0
        assert not SECRETS.search(out + err)


def test_mistakes_about_restricted_samples_are_told_without_them(refused, here):
    good = [{"id": 7000 + n, "text": "Blurred", "gt": GOLDS[n % 3]} for n in range(6)]
    cases = {
        "2 of 6 ids": ([*good[:4], *({**one, "id": "Zephyrine"} for one in good[4:])], "line 5"),
        "1 answer in": ([*good, good[2]], "line 3 and line 7"),
        "1 of 6 test samples": (good[1:], "test[0]"),
        "1 of 6 gold answers": ([*good[:5], {**good[5], "gt": "Left lung"}], "line 6"),
        "the 'text' of line 2": ([good[0], {**good[1], "text": ["Blurred"]}], "a list"),
        "line 2 of answers.jsonl is no JSON": ([good[0], "Peregrine: Blurred"], "character 0"),
        "answers.jsonl has no field": ([{"7001": "Blurred"}], "nor question_id, qid, sample_id."),
    }
    for what, (records, why) in cases.items():
        lines = refused(records, task="ward")
        assert lines[0].startswith(what), lines
        assert why in lines[1], lines
        assert not SECRETS.search("\n".join(lines)), lines
    assert refused(good, task="ward[shared=on]")[0].startswith("6 of 6 ids")


# Size


def test_five_thousand_answers_take_no_time(here):
    def seconds(records, expected):
        path = write(records)
        request = ImportRequest(path, "words[count=5000]", "vcd")
        begin = time.process_time()
        try:
            import_predictions(request)
            what = ""
        except UserError as error:
            what = error.what
        assert what.startswith(expected)
        return time.process_time() - begin

    many = [{"id": f"words-Zephyrine{n}", "text": "yes", "gt": GOLDS[n % 3]} for n in range(5000)]
    assert seconds(many, "") < 6
    wrong = [{**one, "gt": "other"} for one in many]
    assert seconds(wrong, "5000 of 5000 gold") < 3
    assert seconds([*many, *many], "5000 answers") < 3
