"""`medbench export` of samples: one row a sample, for pandas, as Parquet or CSV."""

import builtins
import json
import re
from pathlib import Path

import numpy as np
import pytest

from medbench import store

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

FIXED = [
    "task", "backbone", "method", "seed", "preset", "key", "id", "group", "kind", "question",
    "gold", "prompt", "output", "stop", "n_tokens", "forwards", "seconds", "peak_bytes",
]  # fmt: skip
NUMBERS = {"seed", "n_tokens", "forwards", "peak_bytes"}
# What a CSV file is easily broken by, and what pandas takes for a missing value.
TEXTS = [
    "a\nb", "a\r\nb", "a\rb", 'say "yes", or, "no"', "ﬁ 😀 e\u0301 ü", "None", "NA", "null", "nan",
    " a ", "1", "1e3", "true", "=1+1", "\u2028\x85", ";\t|", "'", '"', '""', "\\", "a\\nb",
]  # fmt: skip


@pytest.fixture(autouse=True)
def here(place):
    return place


@pytest.fixture
def export(medbench):
    """Return a function that exports samples and returns the table that pandas reads."""

    def call(*words, output="samples.parquet"):
        code, out, err = medbench("export", *words, "--output", output)
        assert (code, out) == (0, f"{output}\n"), err
        if output.endswith(".csv"):
            return pd.read_csv(output, keep_default_na=False, na_values=[""])
        return pd.read_parquet(output)

    return call


def rewrite(folder, rows):
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / store.SAMPLES).write_bytes(text.encode())


def test_a_row_a_sample_of_all_runs(run, export):
    folders = run("nucleus,lora", "--seeds", "0-1")
    found = export(*folders)
    rows = [row for folder in folders for row in store.read_rows(folder)]
    assert len(found) == len(rows) == 4 * 21
    assert list(found)[: len(FIXED)] == FIXED
    assert list(found)[len(FIXED) :] == [
        "meta.number", "score.closed/paper", "score.closed/strict", "score.coverage/sum",
        "score.intensity/sum", "score.recall/paper",
    ]  # fmt: skip
    assert found["method"].tolist() == ["nucleus"] * 42 + ["lora"] * 42
    assert found["seed"].tolist() == [0] * 21 + [1] * 21 + [0] * 21 + [1] * 21
    assert found["key"].unique().tolist() == [folder.name for folder in folders]
    assert set(found["task"]) == {"mini"} and set(found["backbone"]) == {"toy"}
    assert set(found["preset"]) == {"matched"}
    for name in ("id", "group", "kind", "question", "gold", "prompt", "output", "stop", "seconds",
                 "forwards", "peak_bytes"):  # fmt: skip
        assert found[name].tolist() == [row[name] for row in rows], name
    assert found["n_tokens"].tolist() == [len(row["tokens"]) for row in rows]
    assert found["meta.number"].tolist() == [str(row["meta"]["number"]) for row in rows]
    for name in rows[0]["scores"]:
        values = [row["scores"][name] for row in rows]
        expected = [np.nan if value is None else value for value in values]
        np.testing.assert_array_equal(found[f"score.{name}"].to_numpy(), expected)
        assert found[f"score.{name}"].isna().any(), "one that applies to some only"
    means = found.groupby("key")["score.closed/strict"].mean()
    for folder in folders:
        told = store.read_scores(folder)["scores"]["closed/strict"]["value"]
        assert means[folder.name] == pytest.approx(told)


def test_types_are_the_same_whatever_is_there(run, medbench, export):
    folder = run()
    whole = export(folder)
    words = ("import", folder / store.SAMPLES, "--task", "mini", "--method", "x", "--json")
    imported = Path(json.loads(medbench(*words)[1])["folder"])
    # Of another program it is not known what its answers cost.
    bare = export(imported)
    assert bare["n_tokens"].isna().all() and bare["seconds"].isna().all()
    for found in (whole, bare, export(folder, imported)):
        for name in found:
            kind = str(found[name].dtype)
            if name in NUMBERS:
                assert kind == "Int64", name
            elif name == "seconds" or name.startswith("score."):
                assert kind == "float64", name
            else:
                assert kind == "string", name
    both = export(folder, imported)
    assert both["n_tokens"].isna().sum() == 21
    assert both["seed"].tolist() == [0] * 42


def test_fields_of_meta_are_texts(run, export):
    folder = run()
    rows = store.read_rows(folder)
    values = ["ü", 3, 2.5, True, None, ["a", "é"], {"b": 1}, ""]
    for row, value in zip(rows, values, strict=False):
        row["meta"] = {"odd": value}
    rewrite(folder, rows)
    found = export(folder)["meta.odd"]
    expected = ["ü", "3", "2.5", "true", None, '["a", "é"]', '{"b": 1}', ""]
    assert [None if value is pd.NA else value for value in found[: len(values)]] == expected
    assert found[len(values) :].isna().all()


@pytest.mark.parametrize("output", ["s.parquet", "s.csv"])
def test_texts_come_back_as_they_are(run, export, output):
    folder = run()
    rows = store.read_rows(folder)
    for row, text in zip(rows, TEXTS, strict=True):
        row["output"], row["meta"] = text, {"text": text[::-1]}
    rewrite(folder, rows)
    found = export(folder, output=output)
    assert found["output"].tolist() == TEXTS
    assert found["meta.text"].tolist() == [text[::-1] for text in TEXTS]
    assert found["score.recall/paper"].tolist()[1:3] == pytest.approx(
        [np.nan if (one := row["scores"]["recall/paper"]) is None else one for row in rows[1:3]],
        nan_ok=True,
    )


def test_csv_has_the_numbers_with_all_their_digits(run, export):
    folder = run()
    rows = store.read_rows(folder)
    for number, row in enumerate(rows):
        row["scores"]["third"] = (number + 1) / 3
    rewrite(folder, rows)
    found = export(folder, output="s.csv")
    assert found["score.third"].tolist() == [(number + 1) / 3 for number in range(21)]
    assert found["n_tokens"].tolist() == [len(row["tokens"]) for row in rows]
    assert b"\r" not in Path("s.csv").read_bytes()


def test_an_empty_answer_is_told_from_none(run, export):
    folder = run()
    rows = store.read_rows(folder)
    rows[0]["output"] = ""
    rows[1].pop("prompt")
    rewrite(folder, rows)
    found = export(folder)
    assert found["output"][0] == "" and found["prompt"][1] is pd.NA
    # In CSV nothing tells them apart.
    assert pd.isna(export(folder, output="s.csv")["output"][0])


def test_restricted_texts_are_left_out(run, medbench, export):
    open_run, closed_run = run("greedy,nucleus")
    record = store.read_run(closed_run)
    record["data"]["restricted"] = True
    (closed_run / store.RUN).write_text(json.dumps(record))
    code, _, err = medbench("export", open_run, closed_run, "--output", "s.parquet")
    assert code == 0
    assert err == (
        "  42 samples of 2 runs; the task is restricted: without texts, ids, attention and hashes "
        "of images\n"
    )
    found = pd.read_parquet("s.parquet")
    ours, theirs = found[:21], found[21:]
    assert ours["output"].tolist() == [row["output"] for row in store.read_rows(open_run)]
    for name in ("question", "gold", "prompt", "output", "n_tokens", "meta.number"):
        assert theirs[name].isna().all(), name
    for name in ("id", "group"):
        assert theirs[name].str.fullmatch("[0-9a-f]{16}").all()
    rows = store.read_rows(closed_run)
    assert sorted(theirs["seconds"]) == sorted(row["seconds"] for row in rows)
    assert set(theirs["kind"]) == {"open", "closed"}
    strict = [row["scores"]["closed/strict"] for row in rows]
    assert theirs["score.closed/strict"].count() == sum(value is not None for value in strict)
    told = export(closed_run, "--show-restricted")
    assert told["output"].tolist() == [row["output"] for row in rows]
    assert told["id"].tolist() == [row["id"] for row in rows]


@pytest.mark.parametrize("name", ["s.csv", "s.parquet"])
def test_restricted_texts_are_for_their_owner_alone(run, export, name):
    folder = run()
    export(folder, "--show-restricted", output=name)
    assert Path(name).stat().st_mode & 0o077
    record = store.read_run(folder)
    record["data"]["restricted"] = True
    (folder / store.RUN).write_text(json.dumps(record))
    export(folder, output=name)
    assert Path(name).stat().st_mode & 0o077
    export(folder, "--show-restricted", output=name)
    assert Path(name).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("missing", ["pandas", "pyarrow"])
def test_without_the_extra(run, medbench, monkeypatch, missing):
    folder = run()
    real = builtins.__import__

    def lacking(name, *arguments, **options):
        if name.partition(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named '{missing}'", name=missing)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", lacking)
    code, out, err = medbench("export", folder, "--output", "samples.parquet")
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        f"the package '{missing}' is not installed",
        "Only some jobs need it.",
        'Install it: pip install "medbench[frame]"',
    ]
    assert not Path("samples.parquet").exists()


def test_what_is_asked_for_must_fit(run, medbench):
    folder = run()
    code, _, err = medbench("export", folder, "--format", "csv")
    assert (code, err.splitlines()[0]) == (2, "the table has no name")
    assert err.splitlines()[-1] == "Add --output samples.csv"
    code, _, err = medbench("export", folder, "--format", "csv", "--output", "s.parquet")
    assert (code, err.splitlines()[0]) == (2, "--format csv does not write s.parquet")
    assert medbench("export", folder, "--format", "csv", "--output", "table.txt")[0] == 0
    assert re.match(r'"task","backbone"', Path("table.txt").read_text())
    Path("flat").write_text("")
    code, _, err = medbench("export", folder, "--output", "flat/s.csv")
    assert (code, err.splitlines()[0]) == (2, "cannot write flat/s.csv")
    code, _, err = medbench("export", "nowhere", "--output", "s.csv")
    assert (code, err.splitlines()[0]) == (2, "no run at 'nowhere'")
