"""The JSON Schemas in docs/schema against what runs really write, and against the documents."""

import json
import re
import shutil
import zipfile
from pathlib import Path

import pytest

from medbench import store
from tests.runs.lacking import LACKING

jsonschema = pytest.importorskip("jsonschema")

DOCS = Path(__file__).resolve().parents[2] / "docs"
# Schema -> the heading of its section.
SECTIONS = {
    "run": "run.json",
    "sample": "samples.jsonl",
    "scores": "scores.json",
    "adapter": "adapter.json",
}


def schema(name):
    return json.loads((DOCS / "schema" / f"{name}.schema.json").read_text(encoding="utf-8"))


SCHEMAS = {name: schema(name) for name in (*SECTIONS, "manifest")}
VALIDATORS = {name: jsonschema.Draft202012Validator(one) for name, one in SCHEMAS.items()}


def faults(name, content):
    """Return what a schema finds in an object."""
    return [f"{one.json_path}: {one.message}" for one in VALIDATORS[name].iter_errors(content)]


def check(folder):
    """Make sure that a run folder is as its schemas say, and return its files' contents."""
    run = json.loads((folder / store.RUN).read_text())
    rows = [json.loads(line) for line in (folder / store.SAMPLES).read_text().splitlines()]
    scores = json.loads((folder / store.SCORES).read_text())
    assert faults("run", run) == []
    assert faults("scores", scores) == []
    assert rows
    for row in rows:
        assert faults("sample", row) == []
    return run, rows, scores


@pytest.fixture(autouse=True)
def here(place):
    return place


# What runs write


def test_a_run(run):
    folder = run()
    check(folder)


def test_a_partial_run_with_the_attention_of_every_step(run):
    folder = run("vcd[alpha=0.5]", "--limit", "4", "--record-steps")
    content, rows, _ = check(folder)
    assert content["partial"] and content["identity"]["limit"] == 4
    assert all("steps" in row for row in rows)


def test_a_published_preset_that_samples_and_beams(run):
    for folder in run("nucleus,beam", "--preset", "published", "--seeds", "1"):
        check(folder)


@pytest.mark.parametrize("method", ["lora", "a3tune+vcd"])
def test_a_tuner_and_its_adapter(run, method):
    content, _, _ = check(run(method))
    (path,) = Path("results/runs/adapters").glob(f"*/*/*/{content['adapter']}/adapter.json")
    assert faults("adapter", json.loads(path.read_text())) == []


def test_a_run_that_went_on_elsewhere(run):
    folder = run()
    (folder / store.SCORES).unlink()
    lines = (folder / store.SAMPLES).read_text().splitlines(keepends=True)
    (folder / store.SAMPLES).write_text("".join(lines[:5]))
    before = json.loads((folder / store.RUN).read_text())
    before["versions"] = {"medbench": "0.0.1"}
    (folder / store.RUN).write_text(json.dumps(before))
    run()
    content, _, _ = check(folder)
    assert len(content["continued"]) == 1


def test_a_run_without_a_metric_and_without_scores(run, place, plugin):
    plugin("metrics", "lacking", LACKING)
    source = (place / "tasks" / "mini.py").read_text()
    plugin("tasks", "mini", source.replace('"closed/paper"', '"lacking"', 1))
    folder = run()
    _, _, scores = check(folder)
    assert set(scores["unscored"]) == {"lacking"}
    plugin("tasks", "mini", re.sub(r"metrics = \(.*?\)", "metrics = ()", source))
    _, rows, scores = check(run("greedy", "--out", "unscored"))
    assert scores["scores"] == {} and rows[0]["scores"] == {}


def test_rows_before_they_are_scored(run, monkeypatch):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("medbench.runner.finish", stop)
    with pytest.raises((KeyboardInterrupt, AssertionError)):
        run()
    (folder,) = Path("results/runs/mini/toy/greedy").iterdir()
    assert not (folder / store.SCORES).exists()
    assert faults("run", store.read_run(folder)) == []
    rows = store.read_rows(folder)
    assert rows and "scores" not in rows[0]
    for row in rows:
        assert faults("sample", row) == []


def test_data_from_files_with_images_missing(medbench, files):
    next(files.rglob("0.png")).unlink()
    words = ("--task", "filed", "--backbone", "toy", "--data", files, "--allow-missing-images")
    code, out, err = medbench("run", "--method", "greedy", *words, "--json")
    assert code == 0, err
    content, _, _ = check(Path(json.loads(out)["folder"]))
    assert content["missing_images"] == 3


def test_answers_of_another_program(run, medbench):
    answers = run() / store.SAMPLES
    kept = answers.read_text().splitlines()[:9]
    Path("some.jsonl").write_text("\n".join(kept))
    words = ("--task", "mini", "--method", "x", "--partial", "--json")
    for name in ("some.jsonl", answers):
        code, out, err = medbench("import", name, *words)
        assert code == 0, err
        content, rows, _ = check(Path(json.loads(out)["folder"]))
        assert content["missing_answers"] == 21 - len(rows)


def test_a_run_that_was_exported_without_texts(place, plugin, medbench):
    source = (place / "tasks" / "mini.py").read_text()
    source = source.replace("    max_new_tokens", "    restricted = True\n\n    max_new_tokens")
    plugin("tasks", "mini", source)
    words = ("--task", "mini", "--backbone", "toy", "--json")
    code, out, err = medbench("run", "--method", "greedy", *words)
    assert code == 0, err
    folder = Path(json.loads(out)["folder"])
    check(folder)
    assert medbench("export", folder, "--output", "x.zip")[0] == 0
    code, out, err = medbench("import", "x.zip", "--out", "elsewhere", "--json")
    assert code == 0, err
    content, rows, _ = check(Path(json.loads(out)["folder"]))
    assert content["withheld"] is True and "gold" not in rows[0]
    with zipfile.ZipFile("x.zip") as file:
        assert faults("manifest", json.loads(file.read("manifest.json"))) == []


# What schemas are for


def test_schemas_are_schemas():
    for validator in VALIDATORS.values():
        validator.check_schema(validator.schema)
        assert validator.schema["$schema"].endswith("2020-12/schema")
    assert {path.name for path in (DOCS / "schema").iterdir()} == {
        f"{name}.schema.json" for name in SCHEMAS
    }


def parts(part, path="$"):
    """Yield all subschemas that stand in a schema, with their paths."""
    if isinstance(part, dict):
        yield path, part
        for name, value in part.items():
            if name in ("properties", "$defs"):
                for inner, one in value.items():
                    yield from parts(one, f"{path}.{inner}")
            elif name not in ("required", "enum", "dependentRequired"):
                yield from parts(value, path)
    elif isinstance(part, list):
        for one in part:
            yield from parts(one, path)


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_field_is_described_and_no_other_allowed(name):
    for path, part in parts(SCHEMAS[name]):
        for field, one in part.get("properties", {}).items():
            if one is False:  # of what may not be there
                continue
            target = one
            if "description" not in one:
                target = SCHEMAS[name]["$defs"][one["$ref"].rpartition("/")[2]]
            assert re.fullmatch(r"[A-Z].{3,}\.", target["description"]), (path, field)
        if "properties" in part and "type" in part:
            assert part["additionalProperties"] is False, path


def test_drift_is_found(run):
    """A field too many, or of another type, or one that is gone, fails."""
    folder = run("a3tune")
    run_, rows, scores = check(folder)
    (path,) = Path("results/runs/adapters").glob("*/*/*/*/adapter.json")
    objects = {
        "run": run_, "sample": rows[0], "scores": scores, "adapter": json.loads(path.read_text()),
    }  # fmt: skip
    for name, content in objects.items():
        assert faults(name, {**content, "new_field": 1})
        assert faults(name, {**content, next(iter(content)): None})
        for field in SCHEMAS[name]["required"]:
            assert faults(name, {one: value for one, value in content.items() if one != field})
    for where in ("data", "display", "identity", "hardware", "git"):
        assert faults("run", {**run_, where: {**run_[where], "new_field": 1}}), where
    deep = json.loads(json.dumps(run_))
    deep["identity"]["decoder"]["selection"]["new_field"] = 1
    assert faults("run", deep)
    for where in ("health", "confusion", "disagreements"):
        assert faults("scores", {**scores, where: {**scores[where], "new_field": 1}}), where
    texts = {name: rows[0][name] for name in ("id", "group", "kind", "scores", "output")}
    assert faults("sample", texts), "a row has its texts or none of them"
    shutil.rmtree(folder)


# What the documents say


def sections():
    """Return the page's sections: heading -> text."""
    page = (DOCS / "results-format.md").read_text(encoding="utf-8")
    _, *found = re.split(r"^## (.+)$", page, flags=re.MULTILINE)
    return dict(zip(found[::2], found[1::2], strict=True))


def quoted(text):
    """Return the names of fields that a text tells of."""
    return set(re.findall(r"`([a-z][a-z0-9_]*)`", text))


def fields(name):
    """Return the fields of a schema at all depths, without those of an identity's parts."""
    return {field for _, part in parts(SCHEMAS[name]) for field in part.get("properties", {})}


@pytest.mark.parametrize("name", SECTIONS)
def test_the_page_names_what_the_schema_has(name):
    text = quoted(sections()[SECTIONS[name]])
    assert set(SCHEMAS[name]["properties"]) <= text
    nested = {
        "run": ("imported",),
        "sample": ("steps",),
        "scores": ("health", "confusion", "disagreements"),
    }
    for field in nested.get(name, ()):
        assert set(SCHEMAS[name]["properties"][field]["properties"]) <= text, field
    if name == "scores":
        score = SCHEMAS[name]["properties"]["scores"]["additionalProperties"]
        assert set(score["properties"]) <= text


@pytest.mark.parametrize("name", SECTIONS)
def test_the_schema_has_what_the_page_names(name):
    everywhere = set.union(*(fields(one) for one in SCHEMAS))
    text = sections()[SECTIONS[name]]
    rows = re.findall(r"^\| (`.+?) \|", text, re.MULTILINE)
    assert set.union(set(), *map(quoted, rows)) <= set(SCHEMAS[name]["properties"])
    if name == "run":
        assert quoted(text.partition("\n\nAnswers of")[0].partition(".")[0]) <= fields(name)
    assert quoted(text) <= everywhere


def test_the_page_of_exports_names_the_manifest():
    page = (DOCS / "export.md").read_text(encoding="utf-8")
    for field in SCHEMAS["manifest"]["properties"]:
        assert f"`{field}`" in page
    columns = re.findall(r"^\| (`.+?) \|", page, re.MULTILINE)
    from medbench.frame import _OF_ROWS, _OF_RUNS

    assert set.union(*map(quoted, columns)) == {*_OF_RUNS, *_OF_ROWS}
