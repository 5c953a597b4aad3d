"""`medbench export` and `medbench import` of its files: the same run elsewhere, or a refusal."""

import json
import os
import re
import shutil
import stat
import zipfile
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest

import medbench as package
from medbench import keys, store
from medbench.choose import side
from medbench.figures.attention import arrange
from medbench.sharing import unpacked
from medbench.sharing.portable import portable_command, portable_scores
from medbench.sharing.withholding import renamed, rows_without_texts
from medbench.tables.subset import members

MANIFEST = "manifest.json"
NAMES = [MANIFEST, store.RUN, store.SAMPLES, store.SCORES]
# Ids, groups, texts and fields of the restricted task hold one of these.
SECRETS = re.compile(rb"zephyrine|peregrine|quillon|marmaduke|brambleton|xanadu", re.IGNORECASE)


@pytest.fixture(autouse=True)
def here(place):
    return place


@pytest.fixture
def ward(place, plugin):
    """Write a restricted task, `mini` with names that must not be told."""
    source = (place / "tasks" / "mini.py").read_text(encoding="utf-8")
    for old, new in (
        ('"mini"', '"ward"'),
        ("class Mini", "class Ward"),
        ('f"{split}-', 'f"ward-Zephyrine-{split}-'),
        ('f"image {image}"', 'f"Quillon {image}"'),
        ('"left lung"', '"Marmaduke has left lung"'),
        ('f"is {image}', 'f"Peregrine, is {image}'),
        ('f"what is', 'f"Peregrine, what is'),
        ('meta={"number": number}', 'meta={"native_id": f"Xanadu{number}", "Brambleton": "x"}'),
        ("    max_new_tokens", "    restricted = True\n\n    max_new_tokens"),
    ):
        assert old in source
        source = source.replace(old, new)
    plugin("tasks", "ward", source)
    return place


@pytest.fixture
def answered(ward, medbench):
    """Return a function that runs methods on the restricted task, and returns their folders."""

    def call(methods="greedy", *arguments):
        words = ["run", "--method", methods, "--task", "ward", "--backbone", "toy", "--json"]
        code, out, err = medbench(*words, *arguments)
        assert code == 0, err
        return [Path(json.loads(line)["folder"]) for line in out.splitlines()]

    return call


@pytest.fixture
def export(medbench):
    """Return a function that exports runs and returns the files."""

    def call(*words):
        code, out, err = medbench("export", *words)
        assert code == 0, err
        return SimpleNamespace(files=[Path(line) for line in out.splitlines()], said=err)

    return call


@pytest.fixture
def take(medbench):
    """Return a function that imports one file, and returns the folder and what was said."""

    def call(path, *words, out="elsewhere"):
        code, printed, err = medbench("import", path, "--out", out, "--json", *words)
        assert code == 0, err
        return Path(json.loads(printed)["folder"]), err

    return call


@pytest.fixture
def refused(medbench):
    """Return a function that runs a command that must be refused, and returns the lines."""

    def call(*words, verb="import"):
        before = {path: path.read_bytes() for path in Path("elsewhere").rglob("*.json*")}
        more = ("--out", "elsewhere") if verb == "import" else ()
        code, out, err = medbench(verb, *words, *more)
        lines = err.splitlines()
        assert (code, out) == (2, ""), (out, err)
        assert len(lines) == 3 and all(lines), lines
        after = {path: path.read_bytes() for path in Path("elsewhere").rglob("*.json*")}
        assert after == before, "something was written"
        return lines

    return call


def read(path):
    """Return what a file holds: name -> content."""
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def write(path, contents, *, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in contents.items():
            file.writestr(name, content)
    return path


def sealed(contents):
    """Return contents with the manifest that fits them."""
    manifest = json.loads(contents[MANIFEST])
    for name in manifest["files"]:
        content = contents[name]
        manifest["files"][name] = {"sha256": sha256(content).hexdigest(), "size": len(content)}
    return {**contents, MANIFEST: json.dumps(manifest).encode()}


def changed(contents, name, change):
    """Return contents, sealed, in which a function has changed the object in one of them."""
    read = json.loads(contents[name])
    change(read)
    return sealed({**contents, name: json.dumps(read).encode()})


def with_rows(contents, change):
    """Return contents, sealed, in which a function has changed the list of rows."""
    rows = [json.loads(line) for line in contents[store.SAMPLES].splitlines()]
    rows = change(rows) or rows
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    return sealed({**contents, store.SAMPLES: lines.encode()})


def files_of(folder):
    return {name: (folder / name).read_bytes() for name in NAMES[1:]}


# There and back


def test_a_run_is_the_same_elsewhere(run, export, take, medbench):
    greedy, nucleus = run("greedy,nucleus")
    done = export(greedy, nucleus)
    keys_ = [folder.name for folder in (greedy, nucleus)]
    assert [str(one) for one in done.files] == [
        f"mini-greedy-{keys_[0]}.zip",
        f"mini-nucleus-{keys_[1]}.zip",
    ]
    assert re.search(r"^  greedy on mini with toy, 21 samples, 0\.0 MiB$", done.said, re.MULTILINE)
    for path, folder in zip(done.files, (greedy, nucleus), strict=True):
        taken, said = take(path)
        assert taken == Path("elsewhere", *folder.parts[-4:])
        assert files_of(taken) == files_of(folder)
        assert said.splitlines() == [
            f"{folder.parts[-2]} on mini with toy, seed 0, imported from {path}"
        ]
    for words in (
        ("table", "--metric", "closed/strict,recall/paper", "--reference", "greedy", "--cost"),
        ("compare", "greedy", "nucleus"),
        ("list", "runs"),
    ):
        code, out, _ = medbench(*words, "--out", "elsewhere")
        assert (code, out) == medbench(*words)[:2]
        assert code == 0


def test_the_file_holds_the_run_and_what_it_must_be(run, export):
    folder = run()
    (path,) = export(folder, "--output", "some.zip").files
    assert path == Path("some.zip")
    contents = read(path)
    assert list(contents) == NAMES
    assert json.loads(contents[MANIFEST]) == {
        "format": "medbench run",
        "schema": 1,
        "medbench": package.__version__,
        "withheld": False,
        "files": {
            name: {"sha256": sha256(content).hexdigest(), "size": len(content)}
            for name, content in files_of(folder).items()
        },
    }


def test_the_same_run_makes_the_same_bytes(run, export, snapshot):
    folder = run()
    first = export(folder, "--output", "one.zip").files[0].read_bytes()
    copy = snapshot(folder)
    for name in NAMES[1:]:
        os.utime(copy / name, (2e9, 2e9))
    assert export(copy, "--output", "two.zip").files[0].read_bytes() == first
    with zipfile.ZipFile("one.zip") as file:
        assert {entry.date_time for entry in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_partial_run_and_one_of_an_adapter(run, export, take):
    for words in (("lora",), ("greedy", "--limit", "4")):
        folder = run(*words)
        taken, _ = take(export(folder).files[0])
        assert files_of(taken) == files_of(folder)
        assert store.read_record(taken).state == ("partial" if len(words) > 1 else "complete")


def test_answers_of_another_program(run, medbench, export, take):
    answers = run() / store.SAMPLES
    words = ("--task", "mini", "--method", "lora+vcd[alpha=2]", "--backbone", "other", "--json")
    code, out, err = medbench("import", answers, *words)
    assert code == 0, err
    folder = Path(json.loads(out)["folder"])
    (path,) = export(folder).files
    assert path.name == f"mini-lora+vcd-{folder.name}.zip"
    taken, said = take(path)
    assert taken.parts[:4] == ("elsewhere", "mini", "other", "lora+vcd")
    assert said.startswith("lora+vcd[alpha=2] on mini with other, seed 0, imported from")
    # The command named a file of this machine.
    here, there = (json.loads((one / store.RUN).read_text()) for one in (folder, taken))
    assert str(answers) in here.pop("command")
    assert there.pop("command") == (
        "medbench import FILE --task mini --method 'lora+vcd[alpha=2]' --backbone other"
    )
    assert here == there
    assert files_of(taken)[store.SAMPLES] == files_of(folder)[store.SAMPLES]
    # Where it came from it is there.
    again, said = take(path, out="results/runs")
    assert again == folder
    assert "  this run is there already; nothing was done" in said.splitlines()


def test_several_runs_by_a_folder_and_a_key(run, export, medbench):
    folders = run("nucleus", "--seeds", "0-2")
    done = export("results/runs/mini", "--output", "shared")
    assert {path.parent for path in done.files} == {Path("shared")}
    assert {path.name for path in done.files} == {f"mini-nucleus-{one.name}.zip" for one in folders}
    (path,) = export(folders[0].name, "--output", "shared").files
    assert path == Path("shared") / f"mini-nucleus-{folders[0].name}.zip"
    (path,) = export(folders[0].name, "--output", "new").files
    assert path.parent == Path("new")
    code, out, err = medbench("import", *done.files, "--out", "elsewhere", "--json")
    assert code == 0, err
    found = [json.loads(line)["folder"].rpartition("/")[2] for line in out.splitlines()]
    assert sorted(found) == sorted(one.name for one in folders)


def test_where_files_cannot_go(run, refused, place):
    folders = run("nucleus", "--seeds", "0-1")
    lines = refused(*folders, "--output", "both.zip", verb="export")
    assert lines == [
        "both.zip cannot hold 2 runs",
        "Each run makes a file of its own, named after it.",
        "Name a folder: --output both",
    ]
    shutil.copytree(folders[0], place / "copy")
    assert refused(folders[0], "copy", verb="export")[0].endswith("and copy are the same run")
    (place / "flat").write_text("")
    lines = refused(folders[0], "--output", "flat/x.zip", verb="export")
    assert lines[0] == "cannot write flat/x.zip"
    assert refused(folders[0], "--output", "x.csv", "--format", "zip", verb="export") == [
        "--format zip does not write x.csv",
        "It is called .csv.",
        "Name it .zip, or leave out --format.",
    ]


def test_what_is_exported_must_be_whole(run, refused, place):
    folder = run()
    content = json.loads((folder / store.SCORES).read_text())
    content["scores"]["closed/strict"]["n"] += 1
    (folder / store.SCORES).write_text(json.dumps(content))
    assert refused(folder, verb="export")[0] == f"{folder} is not a run as medbench writes it"
    (folder / store.SCORES).unlink()
    assert refused(folder, verb="export")[0] == f"{folder} is not finished"
    assert not list(place.glob("*.zip"))


# What a command line tells of a machine


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("medbench run --method vcd --task phantom", None),
        ("medbench run --method 'vcd[alpha=0.5]+x' --task t --seed 3 --allow-missing-images", None),
        ("medbench run --task slake --data '/home/me/my data'",
         "medbench run --task slake --data DIR"),
        ("medbench run --task slake --out ../secret --seed 1",
         "medbench run --task slake --seed 1"),
        ("medbench run --backbone 'LLaVA-hf[weights=/w/x,device_map=auto]' --data d",
         "medbench run --backbone 'llava_hf[weights=DIR,device_map=auto]' --data DIR"),
        ("medbench run --method 'a3tune[labels=npz[file=~/me.npz,must_match=false]]'",
         "medbench run --method 'a3tune[labels=\"npz[file=DIR,must_match=false]\"]'"),
        ("medbench run --task 't[data=\"/home/me/\", x]'", "medbench run --task DIR"),
        ("medbench run --task 't[data=C:\\Users\\me]'", "medbench run --task 't[data=DIR]'"),
        ("medbench run --unknown /home/me", "medbench run --unknown DIR"),
        ("medbench import '/home/me/my answers.jsonl' --task t --method m",
         "medbench import FILE --task t --method m"),
        ("medbench import ans.jsonl --task t", "medbench import FILE --task t"),
        ("a quote ' that is not closed", ""),
    ],
)  # fmt: skip
def test_commands_name_no_place(command, told):
    found = portable_command(command)
    assert found == (command if told is None else told)
    assert "me" not in re.split(r"\W+", found)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("bleu4/coco needs Java", None),
        ("See https://example.org/x and 3/4", None),
        ("It looks for x in /home/me/nltk data, /usr", "It looks for x in ..."),
        ("'~/cache/x' is not there", "'..."),
        (r"cannot read C:\Users\me", "cannot read ..."),
        ("Name a Python, --python /path/to/python3.12.", "Name a Python, --python ..."),
    ],
)
def test_reasons_name_no_place(line, told):
    found = portable_scores({"scores": {}, "unscored": {"m": ["what", line, ""]}})
    assert found == {"scores": {}, "unscored": {"m": ["what", told or line, ""]}}


# Files that are not what they should be


@pytest.fixture
def packed(run, export):
    """Return the content of an exported run."""
    return read(export(run()).files[0])


def test_files_that_are_no_zip(packed, refused, place):
    (place / "a.zip").write_text("<html>")
    assert refused("a.zip")[0] == "a.zip is no zip file"
    whole = write(place / "b.zip", packed).read_bytes()
    for name in ("b.zip", "b.bin"):  # as a zip by its name, and by how it begins
        (place / name).write_bytes(whole[:-100])
        assert refused(name)[0] == f"{name} is no zip file"
    assert refused("gone.zip")[:2] == ["cannot read gone.zip", "No such file or directory."]
    (place / "d.zip").mkdir()
    assert refused("d.zip")[1] == "Is a directory."


def test_zips_of_others(packed, refused, monkeypatch):
    for content in ({"a.txt": b"a"}, {MANIFEST: b"{}"}, {MANIFEST: b'{"format": "x"}'},
                    {MANIFEST: b"[" * 100_000}, {MANIFEST: b"\xff"}):  # fmt: skip
        lines = refused(write(Path("x.zip"), content))
        assert lines[:2] == [
            "x.zip is no exported run",
            "It has no manifest.json of medbench.",
        ]
    monkeypatch.setattr(unpacked, "_LONGEST_MANIFEST", 100)
    assert refused(write(Path("x.zip"), packed))[0] == "x.zip is no exported run"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"withheld": 0}, "medbench or withheld is of another type"),
        ({"files": {}}, "it lists nothing instead of run.json, samples.jsonl, scores.json"),
        ({"files": None}, "AttributeError"),
    ],
)
def test_broken_manifests(packed, refused, change, why):
    manifest = {**json.loads(packed[MANIFEST]), **change}
    lines = refused(write(Path("x.zip"), {**packed, MANIFEST: json.dumps(manifest)}))
    assert lines[0] == "x.zip has a broken manifest"
    assert why in lines[1]


@pytest.mark.parametrize(("value", "why"), [("-1", "a size is none"), ('"1"', "a size is none")])
def test_sizes_that_are_none(packed, refused, value, why):
    text = re.sub(rb'"size": \d+', f'"size": {value}'.encode(), packed[MANIFEST])
    assert why in refused(write(Path("x.zip"), {**packed, MANIFEST: text}))[1]


def test_a_member_that_was_changed(packed, refused):
    for name in NAMES[1:]:
        content = packed[name].replace(b"0", b"1", 1)
        assert len(content) == len(packed[name]) and content != packed[name]
        lines = refused(write(Path("x.zip"), {**packed, name: content}))
        assert lines[0] == "x.zip is not as it was exported"
        assert lines[1] == f"{name} has another content than {MANIFEST} says."
        lines = refused(write(Path("x.zip"), {**packed, name: content + b" "}))
        assert lines[1] == f"{name} has another size than {MANIFEST} says."
        lines = refused(write(Path("x.zip"), {n: c for n, c in packed.items() if n != name}))
        assert lines[1] == f"{name} is missing."


def test_a_file_that_was_damaged_on_its_way(packed, refused):
    data = bytearray(write(Path("x.zip"), packed).read_bytes())
    at = data.index(b"samples.jsonl") + 200
    data[at : at + 4] = b"\x00\xff\x00\xff"
    Path("x.zip").write_bytes(data)
    assert refused("x.zip")[0] == "x.zip is not as it was exported"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../evil.json", "which leads outside"),
        ("/tmp/evil.json", "which leads outside"),
        ("a/../../evil", "which leads outside"),
        ("C:\\evil", "which leads outside"),
        ("\\evil", "which leads outside"),
        ("notes.txt", "which is no part of a run"),
        ("folder/", "which is no part of a run"),
        ("sub/run.json", "which is no part of a run"),
    ],
)
def test_what_does_not_belong_to_a_run(packed, refused, place, name, why):
    lines = refused(write(Path("x.zip"), {**packed, name: b"x"}))
    assert lines[0] == "x.zip is not safe to import"
    assert lines[1].endswith(f"{why}.")
    assert not (place.parent / "evil.json").exists()


def test_a_member_twice(packed, refused):
    write(Path("x.zip"), packed)
    with zipfile.ZipFile("x.zip", "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr(store.RUN, packed[store.RUN])
    assert refused("x.zip")[1] == "run.json is in it 2 times."


def test_sizes_are_bounded(packed, refused, monkeypatch):
    # A directory that promises less than is there: no more than that is read.
    manifest = json.loads(packed[MANIFEST])
    manifest["files"][store.SAMPLES]["size"] = 10
    write(Path("y.zip"), {**packed, store.SAMPLES: b" " * 10**7, MANIFEST: json.dumps(manifest)})
    assert refused("y.zip")[1] == f"samples.jsonl has another size than {MANIFEST} says."
    data = Path("y.zip").read_bytes().replace((10**7).to_bytes(4, "little"), b"\x0a\0\0\0")
    Path("y.zip").write_bytes(data)
    assert refused("y.zip")[0] == "y.zip is not as it was exported"
    # What is held in memory has a limit, and what is written one as well.
    write(Path("x.zip"), packed)
    with monkeypatch.context() as patch:
        patch.setattr(unpacked, "_LONGEST", 100)
        assert re.fullmatch(r"run\.json would be \d+ bytes long, which none is\.",
                            refused("x.zip")[1])  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(unpacked, "_CHUNK", 64)
        patch.setattr(unpacked, "_LONGEST", 10**4)
        long = with_rows(packed, lambda rows: [{**row, "prompt": "x" * 10**5} for row in rows])
        assert "is longer than any" in refused(write(Path("y.zip"), long))[1]
    usage = SimpleNamespace(free=10)
    monkeypatch.setattr(unpacked.shutil, "disk_usage", lambda folder: usage)
    assert refused("x.zip")[0].startswith("no space left for elsewhere/mini/toy/greedy/")


@pytest.mark.parametrize("compression", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_only_what_can_be_read_in_pieces_is_read(packed, refused, compression):
    with zipfile.ZipFile("x.zip", "w") as file:
        for name, content in packed.items():
            kind = compression if name == store.SAMPLES else zipfile.ZIP_DEFLATED
            file.writestr(name, content, compress_type=kind)
    assert refused("x.zip")[1] == "samples.jsonl is packed in a way that medbench does not write."


def test_newer_files(packed, refused):
    newer = json.loads(packed[MANIFEST]) | {"schema": 2, "format": "medbench run", "files": "?"}
    lines = refused(write(Path("x.zip"), {**packed, MANIFEST: json.dumps(newer)}))
    assert lines == [
        "x.zip is from a newer medbench",
        "Its manifest's schema is 2; this version reads up to 1.",
        "Upgrade medbench.",
    ]
    for name in (store.RUN, store.SCORES):
        contents = changed(packed, name, lambda read: read.update(schema=2))
        lines = refused(write(Path("x.zip"), contents))
        assert lines[0] == "x.zip is from a newer medbench"
        assert lines[1] == f"The schema of its {name} is 2; this version reads up to 1."


def rename(read, **names):
    read["display"].update(names)


def set_identity(read, part, **values):
    """Change a part of the identity, and the key with it."""
    read["identity"][part].update(values)
    read["key"] = keys.key(read["identity"])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda run: run["identity"].update(seed=7), "Its key is .*, the hash of its identity is"),
        (lambda run: run.update(key="0" * 12), "Its key is 0{12}, the hash of its identity is"),
        (lambda run: rename(run, method="vcd"), "It says that it is vcd on mini with toy; its"),
        (lambda run: rename(run, method="lora+greedy"), "It says that it is lora.greedy"),
        (lambda run: rename(run, task="phantom"), "It says that it is greedy on phantom"),
        (lambda run: rename(run, backbone="../toy"), "Its names cannot be read"),
        (lambda run: rename(run, backbone=".."), "Its names cannot be read"),
        (lambda run: rename(run, method=""), "Its names cannot be read"),
        (lambda run: set_identity(run, "task", name="other"), "It says that it is greedy on mini"),
        (lambda run: run.pop("display"), "Its run.json lacks display"),
        (lambda run: run["data"].pop("restricted"), "Its run.json lacks data.restricted"),
        (lambda run: run["data"].update(restricted="no"), "something else as data.restricted"),
        (lambda run: run.update(samples=True), "Its run.json has something else as samples"),
        (lambda run: run.update(identity=[]), "Its run.json has something else as identity"),
        (lambda run: run.pop("schema"), r"Its run.json cannot be read \(KeyError\)"),
        (lambda run: run.update(withheld=True), "differ in whether texts are withheld"),
        (lambda run: run.update(samples=20), "tells of 20 samples, scores.json of 21, and"),
    ],
)
def test_a_run_json_that_does_not_fit(packed, refused, change, why):
    lines = refused(write(Path("x.zip"), changed(packed, store.RUN, change)))
    assert re.search(why, lines[1]), lines


def test_a_run_json_that_is_none(packed, refused):
    for content in (b"[]", b"{", b"[" * 100_000, b"\xff{}"):
        contents = sealed({**packed, store.RUN: content})
        assert "Its run.json cannot be read" in refused(write(Path("x.zip"), contents))[1]


def set_score(scores, metric="closed/strict", **values):
    scores["scores"][metric].update(values)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda s: set_score(s, value=0.123), "Its closed/strict is 0.123, the mean of its answ"),
        (lambda s: set_score(s, n=6), "is said to be of 6 answers on 7 images, and its samples"),
        (lambda s: set_score(s, groups=8), "is said to be of 7 answers on 8 images"),
        (lambda s: set_score(s, value=None), "Its closed/strict has no score, or one of no"),
        (lambda s: set_score(s, value="high"), "Its score closed/strict is none"),
        (lambda s: s["scores"]["closed/strict"].pop("n"), "Its score closed/strict is none"),
        (lambda s: s["scores"].update({"x": 1}), "Its score x is none"),
        (lambda s: s["scores"].update(x=s["scores"]["closed/strict"]), "Its x is said to be of 7"),
        (lambda s: s["health"].update(rows=22), "scores.json of 22, and samples.jsonl has 21"),
        (lambda s: s.pop("health"), "Its scores.json lacks health"),
        (lambda s: s.pop("scores"), "Its scores.json lacks scores"),
    ],
)
def test_scores_that_do_not_fit(packed, refused, change, why):
    lines = refused(write(Path("x.zip"), changed(packed, store.SCORES, change)))
    assert lines[0] == "x.zip is not a run as medbench writes it"
    assert why in lines[1], lines


def test_scores_that_are_no_means_are_taken_as_they_are(packed, medbench):
    """Scores of metrics that pool their samples, or are not known here, are not computed again."""
    score = json.loads(packed[store.SCORES])["scores"]["closed/strict"]
    contents = with_rows(packed, lambda rows: [
        {**row, "scores": {"bleu4/coco": 0.25, "nobody/knows": None}} for row in rows
    ])  # fmt: skip

    def change(scores):
        pooled = {**score, "value": 0.75, "n": 21, "groups": 7}
        none = {**score, "value": None, "n": 0, "groups": 0}
        scores["scores"] = {"bleu4/coco": pooled, "nobody/knows": none}

    write(Path("x.zip"), changed(contents, store.SCORES, change))
    code, _, err = medbench("import", "x.zip", "--out", "elsewhere")
    assert code == 0, err


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda rows: rows[1:], "and samples.jsonl has 20"),
        (lambda rows: [rows[0], *rows[:-1]], "1 of its 21 answers are to samples that have one"),
        (lambda rows: rows[3].pop("output") and None, "Line 4 of its samples.jsonl lacks output"),
        (lambda rows: rows[3].update(id=7), "Line 4 of its samples.jsonl lacks id"),
        (lambda rows: rows[3].update(scores=[]), "Line 4 of its samples.jsonl has scores that"),
        (lambda rows: rows[3]["scores"].update(x="1"), "has scores that are no numbers"),
        (lambda rows: rows[3]["scores"].update(x=True), "has scores that are no numbers"),
        (lambda rows: [*rows[:-1], []], "Line 21 of its samples.jsonl is no answer"),
    ],
)
def test_rows_that_do_not_fit(packed, refused, change, why):
    lines = refused(write(Path("x.zip"), with_rows(packed, change)))
    assert why in lines[1], lines


def test_a_row_whose_score_was_changed(packed, refused):
    def change(rows):
        scores = next(row["scores"] for row in rows if row["scores"]["closed/strict"] is not None)
        scores["closed/strict"] = 0.5

    assert "the mean of its answers" in refused(write(Path("x.zip"), with_rows(packed, change)))[1]


def test_lines_that_cannot_be_read(packed, refused):
    for content, why in (
        (packed[store.SAMPLES] + b"{\n", "line 22 of samples.jsonl is no JSON"),
        (packed[store.SAMPLES] + b"[" * 10**5 + b"\n", "line 22 of samples.jsonl is no JSON"),
        (packed[store.SAMPLES][:-1], "the last line of samples.jsonl is cut off."),
    ):
        contents = sealed({**packed, store.SAMPLES: content})
        assert why in refused(write(Path("x.zip"), contents))[1]


def test_answers_that_are_not_those_of_the_key(run, medbench, export, refused):
    answers = run() / store.SAMPLES
    words = ("--task", "mini", "--method", "x", "--json")
    folder = json.loads(medbench("import", answers, *words)[1])["folder"]
    contents = read(export(folder).files[0])
    # One that every metric judges as before.
    changed_ = with_rows(contents, lambda rows: rows[0].update(output=rows[0]["output"] + " "))
    assert refused(write(Path("x.zip"), changed_))[1] == (
        "Its answers are not those that its key is of."
    )


# What is there already


def test_what_is_there_stays(run, export, take, refused, medbench):
    (path,) = export(run()).files
    folder, _ = take(path)
    before = files_of(folder)
    again, said = take(path)
    assert (again, files_of(folder)) == (folder, before)
    assert said.splitlines()[-1] == "  this run is there already; nothing was done"
    assert medbench("rescore", folder, "--metric", "yes_rate")[0] == 0
    assert refused(path) == [
        f"{folder} holds this run with another content",
        "Not the same: samples.jsonl, scores.json. It was run twice, or scored since.",
        f"Nothing was written; import {path} elsewhere, with --out DIR.",
    ]


def test_an_unfinished_run_of_ones_own_stays(run, export, refused, place):
    folder = run()
    (path,) = export(folder).files
    (folder / store.SCORES).unlink()
    run_ = json.loads((folder / store.RUN).read_text())
    (folder / store.RUN).write_text(json.dumps({**run_, "started": "2030-01-01T00:00:00Z"}))
    shutil.move(place / "results" / "runs", place / "elsewhere")
    folder = place / "elsewhere" / folder.relative_to("results/runs")
    lines = refused(path)
    assert lines[0].endswith("holds an unfinished run of this key")
    assert lines[1] == "21 answers would be lost."
    # Answers without a run.json might be anybody's.
    (folder / store.RUN).unlink()
    assert refused(path)[1] == "21 answers would be lost."


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_import_that_was_killed_is_mended(run, export, server, place, count, when):
    folder = run()
    (path,) = export(folder).files
    words = ("import", path, "--out", "elsewhere")
    point = ("medbench.sharing.unpacked:write_atomically", when, count, "kill")
    assert server.run(place, words, points=[point]) < 0
    taken = Path("elsewhere", *folder.parts[-4:])
    whole = (count, when) == (3, "after")
    assert (taken / store.SCORES).exists() is whole
    assert server.run(place, words) == 0
    said = (place / "stderr.txt").read_text()
    assert ("there already" in said) is whole
    assert files_of(taken) == files_of(folder)
    assert sorted(one.name for one in taken.iterdir()) == [".lock", *NAMES[1:]]


def test_an_import_killed_in_the_middle_of_a_file(run, export, server, place):
    (path,) = export(run()).files
    words = ("import", path, "--out", "elsewhere")
    assert server.run(place, words, points=[("os:fsync", "before", 2, "kill")]) < 0
    (part,) = Path("elsewhere").rglob(".samples.jsonl.*.part")
    assert server.run(place, words) == 0
    assert not part.exists()
    assert [record.state for record in package.runs("elsewhere")] == ["complete"]


def test_two_imports_at_once(run, export, server, place, same):
    (path,) = export(run()).files
    words = ("import", path, "--out", "elsewhere")
    point = ("medbench.sharing.unpacked:write_atomically", "before", 1, "pause")
    pid = server.start(place, words, points=[point], suffix="-1")
    same.wait_for(place / "paused")
    assert server.run(place, words) == 2
    assert "another process is writing this run" in (place / "stderr.txt").read_text()
    (place / "go").touch()
    assert server.wait(pid) == 0


# Options


@pytest.mark.parametrize(
    "words",
    [("--task", "mini"), ("--method", "x"), ("--data", "d"), ("--backbone", "unknown"),
     ("--seed", "0"), ("--id", "id"), ("--output", "text"), ("--partial",)],
)  # fmt: skip
def test_an_exported_run_takes_no_option_of_answers(packed, refused, words):
    lines = refused(write(Path("x.zip"), packed), *words)
    assert lines == [
        f"x.zip is an exported run, which takes no {words[0]}",
        "It says itself what it is a run of.",
        f"Leave out {words[0]}.",
    ]


def test_answers_need_their_options_and_come_alone(packed, medbench, refused, place):
    answers = place / "answers.jsonl"
    answers.write_text('{"id": "a", "text": "b"}\n')
    for given, missing in ((("--method", "x"), "task"), (("--task", "mini"), "method")):
        code, out, err = medbench("import", "answers.jsonl", *given)
        assert (code, out) == (2, "")
        assert err == f"Missing option '--{missing}'.\nSee: medbench import --help\n"
    assert medbench("import")[0] == 2
    write(place / "x.zip", packed)
    lines = refused("x.zip", "answers.jsonl")
    assert lines[0] == "answers.jsonl is no exported run, as x.zip is"
    lines = refused("answers.jsonl", "more.jsonl", "--task", "mini", "--method", "x")
    assert lines[0] == "2 files of answers at once"


# Restricted tasks


def test_nothing_of_a_patient_leaves(answered, export, take, place):
    (folder,) = answered("lora")
    assert SECRETS.search((folder / store.SAMPLES).read_bytes())
    done = export(folder)
    (path,) = done.files
    assert done.said.strip().endswith(
        "21 samples, 0.0 MiB; the task is restricted: without texts, ids, attention and hashes of "
        "images"
    )
    contents = read(path)
    assert not SECRETS.search(path.read_bytes() + b"".join(contents.values()))
    assert not SECRETS.search(str(path).encode())
    assert json.loads(contents[MANIFEST])["withheld"] is True
    rows = store.read_rows(folder)
    shared = [json.loads(line) for line in contents[store.SAMPLES].splitlines()]
    assert {name for row in shared for name in row} == {
        "id", "group", "kind", "stop", "seconds", "forwards", "peak_bytes", "scores",
    }  # fmt: skip
    names = {row["id"]: one for row, one in zip(rows, renamed(rows), strict=True)}
    by_name = {row["id"]: row for row in shared}
    for row in rows:
        one = by_name[names[row["id"]]["id"]]
        assert re.fullmatch("[0-9a-f]{16}", one["id"]) and one["id"] != one["group"]
        assert one["scores"] == row["scores"] and one["kind"] == row["kind"]
        assert sha256(row["id"].encode()).hexdigest()[:16] != one["id"]
    groups = {(row["group"], names[row["id"]]["group"]) for row in rows}
    assert len(groups) == len({one for one, _ in groups}) == len({other for _, other in groups})
    # Nor does the order tell which is which.
    assert [row["id"] for row in shared] == sorted(by_name)
    here, there = store.read_run(folder), json.loads(contents[store.RUN])
    assert there.pop("withheld") is True
    assert there == here
    taken, said = take(path)
    assert "  without texts and ids: its task is restricted" in said.splitlines()
    assert taken.name == folder.name
    if os.name == "posix":
        # There is nothing in it to be kept from others.
        assert stat.S_IMODE(taken.stat().st_mode) != 0o700
    assert not (taken / ".gitignore").exists()


def test_what_is_not_known_to_be_harmless_stays(answered, export):
    (folder,) = answered()
    run = json.loads((folder / store.RUN).read_text())
    run |= {"odd": "Zephyrine", "command": "medbench run --task ward --data /Zephyrine"}
    run["data"]["files"] = {"Zephyrine.txt": "0" * 64}
    (folder / store.RUN).write_text(json.dumps(run))
    scores = json.loads((folder / store.SCORES).read_text())
    scores |= {"odd": "Zephyrine", "unscored": {"x": ["cannot read /a/Zephyrine", "", ""]}}
    scores["scores"]["closed/strict"]["notes"] = {"n_odd": 3, "odd": "Zephyrine", "no": ["Quillon"]}
    (folder / store.SCORES).write_text(json.dumps(scores))
    rows = [{**row, "odd": "Zephyrine"} for row in store.read_rows(folder)]
    (folder / store.SAMPLES).write_text("".join(json.dumps(row) + "\n" for row in rows))
    contents = read(export(folder).files[0])
    assert not SECRETS.search(b"".join(contents.values()))
    there = json.loads(contents[store.RUN])
    assert there["data"]["files"] == {"file 1": "0" * 64}
    assert there["command"] == "medbench run --task ward --data DIR"
    assert json.loads(contents[store.SCORES])["scores"]["closed/strict"]["notes"] == {"n_odd": 3}


def test_with_texts_if_asked_for_by_name(answered, export, take, medbench):
    (folder,) = answered()
    done = export(folder, "--show-restricted")
    (path,) = done.files
    assert "with texts and ids of a restricted task, to be shared under its licence only" in (
        done.said
    )
    taken, said = take(path)
    assert "without texts" not in said
    assert files_of(taken) == files_of(folder)
    assert (taken / ".gitignore").exists()
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(taken.stat().st_mode) == 0o700
    assert medbench("rescore", taken, "--metric", "yes_rate")[0] == 0


def without_folders(text):
    found = json.loads(text)
    for one in (found["a"], found["b"]):
        del one["folders"]
    return found


def test_a_run_without_texts_is_compared_as_before(answered, export, take, medbench, place):
    greedy, nucleus = answered("greedy,nucleus")
    for folder in (greedy, nucleus):
        take(export(folder).files[0])
    for words in (
        ("table", "--metric", "closed/strict,recall/paper,coverage/sum", "--reference", "greedy"),
        ("list", "runs"),
        ("compare", "greedy", "nucleus", "--samples", "0"),
    ):
        code, out, _ = medbench(*words, "--out", "elsewhere")
        assert (code, out) == medbench(*words)[:2]
        assert code == 0
    # A run with texts stands beside one without.
    words = ("compare", "--format", "json", "--samples", "0")
    own = without_folders(medbench(*words, greedy, nucleus)[1])
    mixed = medbench(*words, greedy, Path("elsewhere", *nucleus.parts[-4:]))
    assert mixed[0] == 0, mixed
    assert without_folders(mixed[1]) == own
    # And is checked against a baseline of one.
    code, _, err = medbench("check", greedy, "--against", "kept.json", "--update")
    assert code == 0, err
    code, out, err = medbench("check", "--against", "kept.json", "--out", "elsewhere")
    assert code == 0, (out, err)
    assert not SECRETS.search(Path("kept.json").read_bytes())


def test_names_are_the_same_in_all_exports_of_the_same_samples(answered):
    greedy, nucleus, some = (
        store.read_rows(one)
        for one in (*answered("greedy,nucleus"), *answered("greedy", "--limit", "5"))
    )
    names = [[row["id"] for row in rows_without_texts(rows)] for rows in (greedy, nucleus, some)]
    assert names[0] == names[1]
    assert not {*names[0]} & {*names[2]}, "fewer samples have other names"
    # They hang on what was asked, and not on the order or on what was answered.
    assert [row["id"] for row in rows_without_texts(greedy[::-1])] == names[0]
    other = [{**greedy[0], "gold": "another"}, *greedy[1:]]
    assert not {row["id"] for row in rows_without_texts(other)} & {*names[0]}
    assert rows_without_texts(rows_without_texts(greedy)) == rows_without_texts(greedy)


def test_what_needs_texts_says_that_there_are_none(answered, export, take, medbench, refused):
    greedy, nucleus = answered("greedy,nucleus")
    taken = [take(export(folder).files[0])[0] for folder in (greedy, nucleus)]
    why = "They were withheld when the run was exported, since its task is restricted."
    for words, verb, what in (
        ((taken[0],), "rescore", "rescore"),
        ((taken[0],), "view", "view"),
        ((*taken, "--show-restricted"), "compare", "--show-restricted"),
        ((taken[0], "--show-restricted"), "export", "--show-restricted"),
        ((taken[0], "--show-restricted", "--output", "x.csv"), "export", "--show-restricted"),
    ):
        lines = refused(*words, verb=verb)
        assert lines[:2] == [f"{what} needs texts, and {taken[0]} has none", why]
    with pytest.raises(package.UserError, match="plot attention needs texts"):
        arrange([side(str(taken[0]), Path("elsewhere"))], show_restricted=True)
    with pytest.raises(package.UserError, match="a column over some samples needs texts"):
        members(store.read_record(taken[0]), (("modality", ("x",)),))
    # With texts a column may be over some samples; they are named as they are compared.
    record = store.read_record(greedy)
    assert members(record, (("Brambleton", ("x",)),)).size == record.total
    # One more time: what was withheld stays so.
    contents = read(export(taken[0], "--output", "again.zip").files[0])
    assert {name: contents[name] for name in NAMES[1:]} == files_of(taken[0])


def test_the_same_command_finds_it_complete(answered, export, take, medbench):
    (folder,) = answered()
    taken, _ = take(export(folder).files[0])
    before = files_of(taken)
    (again,) = answered("greedy", "--out", "elsewhere")
    assert again == taken
    assert files_of(taken) == before
    # Where the run is whole, the file brings nothing new.
    (path,) = export(folder).files
    assert "there already" in take(path, out="results/runs")[1]


def test_texts_do_not_come_to_a_run_without(answered, export, take, refused):
    (folder,) = answered()
    (bare,) = export(folder, "--output", "bare.zip").files
    (full,) = export(folder, "--output", "full.zip", "--show-restricted").files
    taken, _ = take(bare)
    assert refused(full)[0] == f"{taken} holds this run with another content"


def test_rows_with_texts_are_not_taken_for_rows_without(answered, export, refused):
    contents = read(export(answered()[0]).files[0])
    contents = with_rows(contents, lambda rows: rows[2].update(output="Peregrine is well"))
    lines = refused(write(Path("x.zip"), contents))
    assert lines[1] == (
        "Line 3 of its samples.jsonl has output, though texts are said to be withheld."
    )


def test_no_answers_are_added_to_half_an_import(answered, export, server, medbench, place):
    (folder,) = answered()
    (path,) = export(folder).files
    words = ("import", path, "--out", "elsewhere")
    point = ("medbench.sharing.unpacked:write_atomically", "before", 3, "kill")
    assert server.run(place, words, points=[point]) < 0
    words = ("run", "--method", "greedy", "--task", "ward", "--backbone", "toy")
    code, _, err = medbench(*words, "--out", "elsewhere")
    assert code == 2
    assert err.splitlines()[-3:] == [
        f"{Path('elsewhere', *folder.parts[-4:])} was not imported to its end",
        "It belongs to a run without texts, to which no answers can be added.",
        "Import its file again, or delete the folder.",
    ]


def test_imported_answers_of_a_restricted_task(answered, export, take, medbench):
    (folder,) = answered()
    answers = Path("Zephyrine.jsonl")
    shutil.copy(folder / store.SAMPLES, answers)
    words = ("--task", "ward", "--method", "x", "--json")
    code, out, err = medbench("import", answers, *words)
    assert code == 0, err
    contents = read(export(json.loads(out)["folder"]).files[0])
    assert not SECRETS.search(b"".join(contents.values()))
    assert json.loads(contents[store.RUN])["imported"]["file"] == ""
    taken, _ = take(write(Path("x.zip"), contents))
    assert store.read_record(taken).state == "complete"
