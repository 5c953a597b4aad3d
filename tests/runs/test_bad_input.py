"""What cannot work: at most three lines that say what to do, exit code 2, and nothing is lost."""

import errno
import json
import os
import re

import pytest

from medbench import store
from medbench.cell import Request, plan
from medbench.errors import UserError
from medbench.run_index import find_runs
from medbench.runner import execute

MINI = ("--task", "mini", "--backbone", "toy")
GREEDY = ("--method", "greedy", *MINI)


def filed(data, *more):
    return ("--method", "greedy", "--task", "filed", "--backbone", "toy", "--data", data, *more)


@pytest.mark.parametrize(
    ("words", "what", "do"),
    [
        (("--method", "vdc", *MINI), "no method named 'vdc'", "See: medbench list methods"),
        (("--method", "greedy", "--task", "minni"), "no task named 'minni'", "medbench list tasks"),
        ((*GREEDY, "--backbone", "tiy"), "no backbone named 'tiy'", "medbench list backbones"),
        (("--method", "vcd[alpha=1", *MINI), "cannot read 'vcd[alpha=1'", "Write name[param"),
        (("--method", "vcd]", *MINI), "cannot read 'vcd]'", "Write name[param"),
        (("--method", "vcd[alpha]", *MINI), "cannot read 'vcd[alpha]'", "Write name[param"),
        (("--method", "vcd[alpha=1,alpha=2]", *MINI), "cannot read", "Write name[param"),
        (("--method", "lora+", *MINI), "cannot read ''", "Write name[param"),
        (("--method", "", *MINI), "cannot read ''", "Write name[param"),
        (("--method", "greedy,,vcd", *MINI), "cannot read ''", "Write name[param"),
        (("--method", "vcd[alfa=1]", *MINI), "vcd has no parameter 'alfa'", "It has: "),
        (("--method", "vcd[alpha=much]", *MINI), "vcd cannot take alpha=much", "show vcd"),
        (("--method", "vcd[variant=mine]", *MINI), "vcd has no variant 'mine'", "It has: "),
        (("--method", "greedy+vcd", *MINI), "'greedy+vcd' is not a chain", "A chain is one"),
        (("--method", "vcd+lora", *MINI), "'vcd+lora' is not a chain", "A chain is one"),
        (("--method", "lora+lora", *MINI), "'lora+lora' is not a chain", "A chain is one"),
        ((*GREEDY, "--task", "mini+filed"), "cannot read 'mini+filed'", "Write name[param"),
        ((*GREEDY, "--preset", "mine"), "no preset 'mine'", "Take matched or published."),
        ((*GREEDY, "--dtype", "float8"), "no dtype 'float8'", "Take auto, float32"),
        ((*GREEDY, "--device", "tpu9"), "no device 'tpu9'", "Take auto, cpu, cuda"),
        ((*GREEDY, "--device", "meta"), "no device 'meta'", "Take auto, cpu, cuda"),
        ((*GREEDY, "--batch-size", "0"), "--batch-size 0 makes no sense", "Take 1 or more."),
        ((*GREEDY, "--limit", "many"), "Invalid value for '--limit'", "See: medbench run --help"),
        ((*GREEDY, "--presett", "mine"), "no option '--presett'", "See: medbench run --help"),
        (MINI, "Missing option '--method'", "See: medbench run --help"),
        (("--method", "greedy", "--task", "filed"), "filed: no data folder", "data=DIR"),
        (filed("nowhere"), "filed: nowhere is not a folder", "Give the folder that holds"),
        (filed("tasks"), "filed: filed.json not found in tasks", "Give the folder"),
        (("--method", "lora[adapter=no]", *MINI), "no adapter in no", "that holds adapter.json"),
        (("--method", "vcd[beta=2]", *MINI), "vcd refuses these values", "show vcd"),
        (("--method", "m3id[m3id_gate=0]", *MINI), "m3id refuses these values", "show m3id"),
        (("--method", "avisc[blind_topk=0]", *MINI), "avisc refuses these values", "show avisc"),
        (("--method", "damro[topk=0]", *MINI), "damro refuses these values", "show damro"),
        (("--method", "pai[start_layer=4,end_layer=2]", *MINI), "pai refuses these", "show pai"),
        (("--method", "dola[relative_top=2]", *MINI), "dola refuses these values", "show dola"),
        (("--method", "opera[beams=1]", *MINI), "opera refuses these values", "show opera"),
        (("--method", "opera[select=sample]", *MINI), "cannot select tokens", "do not go together"),
        (("--method", "controlmllm[steps=-1]", *MINI), "controlmllm refuses", "show controlmllm"),
    ],
)
def test_what_cannot_be_asked_is_refused(place, refused, words, what, do):
    lines = refused(*words)
    assert what in lines[0]
    assert do in lines[-1]
    assert not (place / "results").exists()


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("--method", "vdc", *MINI), "Did you mean vcd?"),
        (("--method", "vcd[alfa=1]", *MINI), "Did you mean alpha?"),
        (("--method", "greedy", "--task", "minni"), "Did you mean mini?"),
        ((*GREEDY, "--presett", "mine"), "Did you mean --preset?"),
    ],
)
def test_a_typo_is_guessed(place, refused, words, hint):
    assert refused(*words)[1] == hint


NEEDY = '''"""Wants more than there is."""

from medbench import Decoder


class Needy(Decoder):
    """Wants more than there is."""

    name = "needy"
    needs = ("pixels", "telepathy")
'''


def test_what_is_not_on_offer_is_refused_before_anything_is_loaded(
    place, refused, plugin, monkeypatch
):
    def loaded(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("medbench.backbones.toy.Toy.load", loaded)
    plugin("methods", "needy", NEEDY)
    what, why, do = refused("--method", "needy", *MINI)
    assert what == "needy cannot run on mini with toy"
    assert why.startswith("It needs telepathy; on offer are pixels, ")
    assert do.startswith("medbench list shows")
    # shuffled needs two images, which only the samples tell.
    what, why, do = refused("--method", "shuffled", *MINI, "--task", "mini[images=1]")
    assert (what, why) == ("no other image to take", "All samples of the split share one image.")
    assert refused(*GREEDY, "--task", "mini[images=0]")[0] == "mini has no test samples"


@pytest.mark.parametrize(
    ("method", "why"),
    [
        ("dola[candidate_premature_layers=0/7]", "Premature layer 7 does not lie below layer 2."),
        ("dola[mature_layer=32]", "Mature_layer is 32."),
        ("pai[end_layer=32]", "End_layer is 32."),
        ("damro[cls_layer=-9]", "Cls_layer is -9."),
    ],
)
def test_layers_that_are_not_there_are_refused_before_anything_is_loaded(
    place, refused, monkeypatch, method, why
):
    def loaded(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("medbench.backbones.toy.Toy.load", loaded)
    what, said, do = refused("--method", method, *MINI)
    assert what.endswith("cannot run on 2 decoder layers and 2 vision blocks")
    assert said.lower() == why.lower()
    assert do.startswith("See: medbench show")


def test_layers_are_checked_after_loading_where_no_file_tells_the_depth(
    place, refused, monkeypatch
):
    monkeypatch.setattr("medbench.backbones.toy.Toy.depth", lambda self: None)
    what, *_ = refused("--method", "dola[mature_layer=32]", *MINI)
    assert what == "dola cannot run on 2 decoder layers and 2 vision blocks"
    assert not list(place.glob("results/**/run.json"))


NO_REGIONS = '''"""Drawn squares without regions."""

from dataclasses import dataclass, replace

from medbench import load_task
from medbench.task import Task


@dataclass(frozen=True)
class Plain(Task):
    """Drawn squares without regions."""

    name = "plain"
    metrics = ("closed/strict",)
    offers = OFFERS

    def samples(self, split):
        for sample in load_task("mini").samples(split):
            yield replace(sample, roi=None)
'''


@pytest.mark.parametrize(
    ("offers", "what", "why"),
    [
        ("()", "controlmllm cannot run on plain with toy", "It needs roi; on offer are pixels"),
        (
            '("roi",)',
            "controlmllm cannot run on these samples",
            "It needs a region; none of the 21 samples of plain has one.",
        ),
    ],
)
def test_a_method_that_needs_regions_says_so_before_anything_is_loaded(
    place, refused, plugin, offers, what, why
):
    plugin("tasks", "plain", NO_REGIONS.replace("OFFERS", offers))
    lines = refused("--method", "controlmllm", "--task", "plain", "--backbone", "toy")
    assert lines[0] == what
    assert lines[1].startswith(why)


def test_samples_without_a_region_are_counted(place, medbench):
    code, _, err = medbench("run", "--method", "controlmllm[steps=1]", *MINI)
    assert code == 0
    assert "note: 14 of 21 samples have a region; the others are decoded without" in err
    [record] = place.glob("results/runs/mini/toy/controlmllm/*/run.json")
    assert json.loads(record.read_text())["samples_with_region"] == 14


BROKEN = '"""Broken."""\n\nfrom medbench import Decoder\n\n\nclass Broken(Decoder):\n    '


@pytest.mark.parametrize(
    ("source", "what"),
    [
        (BROKEN + 'name = "broken"\n\n1 / 0\n', "method 'broken' cannot be loaded"),
        (BROKEN + 'name = "broken"\n\nimport nowhere\n', "method 'broken' cannot be loaded"),
        (BROKEN + "name = medbench(\n", "method 'broken' is broken"),
    ],
)
def test_a_broken_plugin_is_refused(place, refused, plugin, source, what):
    plugin("methods", "broken", source)
    assert refused("--method", "broken", *MINI)[0] == what


def assert_finished(medbench, words, folder, rows):
    """The same command ends well, and keeps the answers that were there."""
    code, out, err = medbench("run", *words, "--json")
    assert code == 0, err
    assert json.loads(out)["folder"] == str(folder)
    assert store.read_rows(folder)[: len(rows)] == [
        {**row, "scores": store.read_rows(folder)[at]["scores"]} for at, row in enumerate(rows)
    ]


def test_corrupt_images_are_refused_before_anything_runs(place, refused, files):
    for name in ("1.png", "2.png"):
        image = files / "filed-1.0" / name
        image.write_bytes(image.read_bytes()[:-30])
    what, why, do = refused(*filed(files))
    assert what == f"cannot read the image {files / 'filed-1.0' / '1.png'}"
    assert "cut off, damaged, or not an image" in why
    assert why.endswith("1 more is broken.")
    assert do == "Download it again, or unpack the archive again."
    assert not (place / "results").exists()


def test_an_image_that_breaks_during_a_run_stops_it_and_what_was_answered_is_kept(
    place, medbench, files
):
    words = filed(files, "--batch-size", "1")
    cell = plan(Request("greedy", "filed", "toy", data=str(files), batch_size=1))
    images = [sample.image for sample in cell.samples]
    image = next(one for one in images if one != images[0])
    whole = image.read_bytes()
    image.write_bytes(whole[:-30])
    with pytest.raises(UserError, match="cannot read the image"):
        execute(cell)
    (record,) = find_runs()
    assert record.state == "unfinished"
    rows = store.read_rows(record.folder)
    assert len(rows) == record.done
    assert 0 < record.done < 9
    image.write_bytes(whole)
    assert_finished(medbench, words, record.folder, rows)


def test_a_missing_image_is_refused_before_anything_runs(place, refused, files):
    (files / "filed-1.0" / "1.png").unlink()
    what, why, do = refused(*filed(files))
    assert what == "filed: 3 of 9 test samples lack their image"
    assert str(files / "filed-1.0" / "1.png") in why
    assert "--allow-missing-images" in do
    assert not (place / "results").exists()


def test_with_leave_a_run_goes_without_the_missing_images_and_is_partial(place, medbench, files):
    (files / "filed-1.0" / "1.png").unlink()
    code, _, err = medbench("run", *filed(files, "--allow-missing-images"))
    assert code == 0
    assert "  partial: 3 of 9 samples lack their image\n" in err
    (record,) = find_runs()
    assert (record.state, record.missing_images, record.done) == ("partial", 3, 6)


@pytest.mark.parametrize("error", ["OSError('torn page')", "KeyError('image 3')", "EOFError()"])
def test_an_image_that_a_task_cannot_draw_names_its_sample(place, refused, medbench, error):
    path = place / "tasks" / "mini.py"
    source = path.read_text()
    path.write_text(source.replace("def draw(image):", f"def draw(image):\n    raise {error}"))
    what, why, do = refused(*GREEDY)
    assert re.fullmatch(r"cannot read the image of sample test-\d-\d", what)
    assert why.startswith(error.partition("(")[0])
    assert do.startswith("Mend the data and run the same command again")


def damaged(text):
    return [
        (text[: len(text) // 2], "is damaged JSON"),
        ("", "is empty"),
        ("<html>log in</html>", "is not JSON"),
        ("[]", "is not the official file"),
        ('[{"id": "1"}]', "is not the official file"),
    ]


def test_damaged_questions_are_refused(place, refused, files):
    path = files / "filed-1.0" / "filed.json"
    for content, what in damaged(path.read_text()):
        path.write_text(content)
        assert refused(*filed(files))[0] == f"{path} {what}"


@pytest.mark.parametrize(
    ("where", "call"),
    [("the answers", 2), ("more answers", 3), ("samples.jsonl", 5), ("scores.json", 6)],
)
def test_no_space_left_keeps_what_was_written(place, refused, medbench, monkeypatch, where, call):
    words = (*GREEDY, "--batch-size", "8")
    calls = iter(range(1, 99))

    def full(descriptor):
        if next(calls) == call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        what, why, do = refused(*words)
    (record,) = find_runs()
    assert what == f"no space left for {record.folder}"
    assert why == "What was written before is kept."
    assert do.startswith("Free some space and run the same command again")
    assert record.state == "unfinished"
    assert not list(record.folder.glob(".*.part"))
    assert_finished(medbench, words, record.folder, store.read_rows(record.folder))


@pytest.mark.parametrize(
    ("method", "what"),
    [
        ("greedy", "samples.jsonl"),
        ("lora", "adapter_model.safetensors"),
        ("a3tune", "extension.safetensors"),
        ("a3tune", "checkpoint.pt"),
    ],
)
def test_a_full_disk_keeps_what_was_written(server, undisturbed, same, place, method, what):
    words = ("run", *MINI, "--batch-size", "5", "--method", method)
    sizes = {path.name: path.stat().st_size for path in undisturbed(words).glob("results/**/*.*")}
    checkpoints = what == "checkpoint.pt"
    # A checkpoint, with what the optimiser knows, is larger than the adapter of the same numbers.
    # The seconds in the samples' lines make one run's file a few bytes longer than another's.
    size = sizes["extension.safetensors"] + 1 if checkpoints else sizes[what] - 200
    # A limit on the size of files is a full disk that needs no disk.
    assert server.run(place, words, file_size=size, checkpoints=checkpoints) == 2
    lines = (place / "stderr.txt").read_text().splitlines()[-3:]
    assert lines[0].startswith("no space left for results/runs/mini/toy/")
    assert not list(place.glob("results/**/.*.part"))
    assert server.run(place, words, checkpoints=checkpoints) == 0
    same.run(place, undisturbed(words))


@pytest.mark.parametrize(
    ("method", "size", "call", "error", "what", "do"),
    [
        (
            "greedy",
            16,
            "answering.decode",
            "cuda",
            "answering 16 samples at once",
            "--batch-size 8",
        ),
        ("greedy", 16, "answering.decode", "cpu", "answering 16 samples at once", "--batch-size 8"),
        ("greedy", 1, "answering.decode", "cuda", "answering a single sample", "--dtype bfloat16"),
        (
            "lora",
            16,
            "adapting.train",
            "cuda",
            "training on 8 samples at once",
            '"lora[micro_batch=4]"',
        ),
    ],
)
def test_full_memory_is_a_message(place, refused, monkeypatch, method, size, call, error, what, do):
    import torch

    kinds = {
        "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has"),
        "cpu": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    }

    def fail(*args, **kwargs):
        raise kinds[error]

    monkeypatch.setattr(f"medbench.{call}", fail)
    lines = refused("--method", method, *MINI, "--batch-size", size)
    assert lines[0] == f"not enough memory for {what}"
    assert "memory" in lines[1]
    assert do in lines[2]


def rewrite(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("name", ["run.json", "scores.json"])
def test_a_folder_from_a_newer_medbench_is_left_alone(place, run, refused, name):
    folder = run()
    rewrite(folder / name, schema=99)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for more in ((), ("--plan",)):
        what, why, do = refused(*GREEDY, *more)
        assert what.endswith(f"{name} is from a newer medbench")
        assert why == "Its schema is 99; this version reads up to 1."
        assert do.startswith("Upgrade medbench")
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert [record.state for record in find_runs()] == ["broken"]


@pytest.mark.parametrize("name", ["run.json", "scores.json"])
@pytest.mark.parametrize("content", ['{"schema": 1, "sc', "", "[]", "{}", '{"schema": "one"}'])
def test_a_broken_file_is_named_and_deleting_it_is_enough(place, run, refused, name, content):
    folder = run()
    rows = store.read_rows(folder)
    (folder / "scores.json").unlink()
    (folder / name).write_text(content)
    what, _, do = refused(*GREEDY)
    assert what.startswith("cannot read ")
    assert what.endswith(name)
    assert do == "Delete it and run the same command again; the answers beside it are kept."
    (record,) = find_runs()
    assert record.state == "broken"
    assert record.why == what
    (folder / name).unlink()
    assert run() == folder
    assert store.read_rows(folder) == rows


def test_a_copied_folder_is_not_taken_for_the_run_it_is_named_after(place, run, refused):
    one, two = run("greedy", "--seed", "1"), run("greedy", "--seed", "2")
    (two / "run.json").write_bytes((one / "run.json").read_bytes())
    what, _, do = refused(*GREEDY, "--seed", "2")
    assert what == f"{two} holds another run"
    assert do == "Move it away and run the same command again."


def test_a_place_that_cannot_be_written_to_is_refused(place, refused):
    (place / "file").write_text("")
    what, why, do = refused(*GREEDY, "--out", place / "file")
    assert what.startswith(f"cannot write to {place / 'file'}")
    assert why == "Not a directory."
    assert do == "Choose another folder with --out, or change its rights."


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_without_rights_is_refused(place, refused):
    (place / "locked").mkdir(mode=0o500)
    what, why, _ = refused(*GREEDY, "--out", place / "locked")
    assert what.startswith("cannot write to ")
    assert why == "Permission denied."


def test_a_metric_that_fails_its_own_example_stops_everything_first(place, refused, monkeypatch):
    from medbench.metrics.vqa import ClosedPaper

    monkeypatch.setattr(ClosedPaper, "items", lambda self, rows: [0.5 for _ in rows])
    what, why, do = refused(*GREEDY)
    assert what == "metric closed/paper fails its own example"
    assert "0.5, not" in why
    assert "reinstall" in do
    assert not (place / "results").exists()


@pytest.fixture
def adapter(place, run):
    """Return the folder of a trained adapter."""
    run("lora")
    (folder,) = place.glob("results/runs/adapters/mini/toy/lora/*")
    return folder.rename(place / "adapter")


def test_a_given_adapter_is_taken_as_it_is(place, run, adapter):
    (trained,) = find_runs()
    given = run("lora[adapter=adapter]", "--out", "given")
    assert not (place / "given" / "adapters").exists()
    assert given.name == trained.folder.name
    assert [row["tokens"] for row in store.read_rows(given)] == [
        row["tokens"] for row in store.read_rows(trained.folder)
    ]


@pytest.mark.parametrize(
    ("words", "what", "do"),
    [
        (("--method", "a3tune[adapter=adapter]", *MINI), "was made by lora", "lora[adapter=...]"),
        (
            ("--method", "lora[adapter=adapter]", *MINI, "--backbone", "toy[seed=5]"),
            "belongs to another backbone",
            "Take the backbone it was trained on",
        ),
        (
            ("--method", "lora[adapter=adapter,rank=8]", *MINI),
            "was trained with other settings",
            "Beside adapter= write rank=4.",
        ),
        (("--method", "lora[adapter=results]", *MINI), "no adapter in results", "adapter.json"),
    ],
)
def test_an_adapter_of_something_else_is_refused(place, refused, adapter, words, what, do):
    lines = refused(*words)
    assert what in lines[0]
    assert do in lines[-1]


def test_a_changed_newer_or_broken_adapter_is_refused(place, refused, adapter):
    words = ("--method", "lora[adapter=adapter]+vcd", *MINI)
    path, weights = adapter / "adapter.json", adapter / "adapter_model.safetensors"
    kept, whole = path.read_text(), weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert refused(*words)[0] == "the adapter in adapter is not the one that was trained"
    weights.write_bytes(whole)
    rewrite(path, schema=99)
    assert refused(*words)[0] == "adapter/adapter.json is from a newer medbench"
    for content in (kept[: len(kept) // 2], "{}", "[]", '{"schema": 1, "key": "", "identity": {}}'):
        path.write_text(content)
        assert refused(*words)[0] == "no adapter in adapter"


def test_an_adapter_that_cannot_be_loaded_is_a_message(place, run, refused):
    run("lora")
    (folder,) = place.glob("results/runs/adapters/mini/toy/lora/*")
    (folder / "adapter_model.safetensors").write_bytes(b"nothing")
    what, _, do = refused("--method", "lora+vcd", *MINI)
    assert what.startswith("cannot load the adapter in ")
    assert do == "Delete the folder to train it again."
