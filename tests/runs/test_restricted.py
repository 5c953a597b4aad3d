"""A restricted task's texts, image paths and ids stay in its data and its run folders."""

import json
import os
import socket
import stat
import traceback
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import medbench as package
from medbench import store
from medbench.cell import Request, plan, prepare_task
from medbench.data.passport import check_passport
from medbench.errors import ToldError, UserError
from medbench.loading import load_task
from medbench.memo import Memo
from medbench.order import in_order
from medbench.provenance import hash_samples
from medbench.restricted import WithheldError, make_private, withholding
from medbench.run_index import find_runs
from medbench.runner import execute
from medbench.task import Sample, Task

# Texts, ids, native ids, patients' folders and files all begin with one of these.
SECRETS = ("xanadu", "peregrine", "zephyrine", "marmaduke", "quillon", "brambleton")
WARD = '''"""Reports on drawn squares."""

from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

from medbench.data.find import find_file
from medbench.data.passport import check_passport
from medbench.data.read import read_records
from medbench.task import Sample, Task


@dataclass(frozen=True)
class Ward(Task):
    """Reports on drawn squares."""

    name = "ward"
    source = "example.org"
    licence = "Nobody's"
    offers = ("roi",)
    metrics = ("recall/paper", "coverage/sum")
    tuning = {{
        "epochs": 1, "learning_rate": 0.02, "rank": 4, "batch_size": 4, "align_weight": 0.1,
        "labels": "roi", "R": 4, "expert_rank": 2, "q_experts": 2, "k_experts": 3,
    }}
    restricted = {restricted}

    max_new_tokens: int = 3
    stored: bool = False
    counted: bool = False

    def samples(self, split):
        path = find_file(self, ["ward.json"], ["ward-1.0"])
        keys = ["id", "native_id", "split", "question", "report", "patient", "image", "mask"]
        rows = [row for row in read_records(path, keys) if row["split"] == split]
        if self.counted:
            check_passport(self, split, [row["id"] for row in rows], expected={{}})
        for row in rows:
            image, mask = path.parent / row["image"], path.parent / row["mask"]
            yield Sample(
                row["id"],
                Stored(image) if self.stored else image,
                row["question"],
                row["report"],
                "open",
                row["patient"],
                roi=partial(region, mask),
                roi_files=(mask,),
                meta={{"native_id": row["native_id"]}},
            )


@dataclass(frozen=True)
class Stored:
    path: Path

    def __call__(self):
        from PIL import Image

        return Image.open(BytesIO(self.content()))

    def content(self):
        data = self.path.read_bytes()
        if not data.startswith(b"\\x89PNG"):
            raise KeyError(f"{{self.path.stem}} is no member")
        return data


def region(path):
    import numpy as np

    try:
        return np.load(path)
    except ValueError:
        raise ValueError(f"no region in {{path}}") from None
'''
BAD = '''"""A tuner that fails."""

from dataclasses import dataclass
import os

import torch

from medbench.method import Tuner


@dataclass(frozen=True)
class Bad(Tuner):
    """A tuner that fails in the process of a rank."""

    name = "bad"
    needs = ("training",)

    how: str = "nan"
    rank_that_fails: int = 0

    def auxiliary(self, view):
        zeros = torch.zeros(len(view.batch.ids))
        if int(os.environ.get("RANK", "0")) != self.rank_that_fails:
            return {"odd": zeros}
        if self.how == "raise":
            raise KeyError(f"{view.batch.ids[0]} is odd")
        return {"odd": zeros * torch.nan}
'''
ROWS = 6  # of each split


@pytest.fixture(params=[True, False], ids=["restricted", "open"])
def closed(request):
    """Return whether the task is restricted."""
    return request.param


@pytest.fixture
def data(place, plugin, monkeypatch, closed):
    """Return the folder of the task's files; the user's cache is in the working folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    write_ward(place, plugin, closed)
    return place / "data"


def write_ward(place, plugin, closed):
    plugin("tasks", "ward", WARD.format(restricted=closed))
    plugin("methods", "bad", BAD)
    root = place / "data" / "ward-1.0"
    rows = []
    for number in range(2 * ROWS):
        patient = f"Quillon{number % 3}"
        image, mask = (f"files/{patient}/Brambleton{number}.{end}" for end in ("png", "npy"))
        rows.append(
            {
                "id": f"ward-Zephyrine{number}",
                "native_id": f"Marmaduke{number}",
                "split": "test" if number < ROWS else "train",
                "question": f"is Peregrine {number} well?",
                "report": f"Xanadu has effusion {number}",
                "patient": patient,
                "image": image,
                "mask": mask,
            }
        )
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (20 * number, 9, 9)).save(root / image)
        region = np.zeros((20, 20), bool)
        region[3:15, 3:15] = True
        np.save(root / mask, region)
    (root / "ward.json").write_text(json.dumps(rows), encoding="utf-8")


class Ward:
    """The command line on the task, in a process of its own; what it said and wrote is kept."""

    def __init__(self, server, place, closed):
        self.server, self.place, self.closed = server, place, closed

    def start(self, arguments, rank=None, **environment):
        """Start medbench in the working folder and return the process."""
        environment = {"XDG_CACHE_HOME": str(self.place / "cache"), **environment}
        suffix = "" if rank is None else f"-{rank}"
        return self.server.start(self.place, arguments, environment=environment, suffix=suffix)

    def __call__(self, *arguments):
        """Run a command; return its exit code and all it said."""
        code = self.server.wait(self.start(arguments))
        return code, self.said("stdout") + self.said("stderr")

    def run(self, *arguments, method="greedy", task="ward"):
        words = ("--task", task, "--backbone", "toy", "--data", "data", "--batch-size", "4")
        return self("run", "--method", method, *words, *arguments)

    def said(self, stream, rank=None):
        suffix = "" if rank is None else f"-{rank}"
        return (self.place / f"{stream}{suffix}.txt").read_text(encoding="utf-8")

    def telling(self):
        """Return files with a secret in content or name, other than data, plugins and answers."""
        return {
            str(path.relative_to(self.place))
            for path in self.place.rglob("*")
            if path.is_file()
            and not path.is_relative_to(self.place / "data")
            and not path.is_relative_to(self.place / "tasks")
            and not path.is_relative_to(self.place / "methods")
            and not path.match("results/runs/ward/*/*/*/samples.jsonl")
            and (tells(str(path.relative_to(self.place))) or tells(path.read_bytes()))
        }


def tells(text):
    """Return the secrets that stand in a text."""
    if isinstance(text, bytes):
        return [one for one in SECRETS if one.encode() in text.lower()]
    return [one for one in SECRETS if one in text.lower()]


@pytest.fixture
def ward(server, place, data, closed):
    return Ward(server, place, closed)


def damage(data, name, content=b"damaged"):
    """Write something else into a file of the data, or delete it."""
    (path,) = data.rglob(name)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    return path


def change(data, number, **values):
    path = data / "ward-1.0" / "ward.json"
    rows = json.loads(path.read_text())
    rows[number] |= values
    path.write_text(json.dumps(rows))


# Nothing goes wrong


@pytest.mark.parametrize("closed", [True], indirect=True)
def test_runs_keep_texts_and_ids_to_their_answers(ward, place):
    for method in ("greedy", "lora", "a3tune[labels=wrong]+vcd"):
        code, said = ward.run("--json", method=method)
        assert code == 0, said
        assert not tells(said)
    code, said = ward.run("--plan", method="lora")
    assert code == 0 and "trained" in said and not tells(said)
    for words in (
        ("list",),
        ("list", "runs", "--json"),
        ("table",),
        ("table", "--format", "json"),
        ("labels", "--task", "ward", "--data", "data", "--labels", "roi"),
        ("labels", "--task", "ward", "--data", "data", "--labels", "wrong", "--json"),
    ):  # fmt: skip
        code, said = ward(*words)
        assert code == 0, said
        assert not tells(said), words
    assert not ward.telling()
    assert all(tells(path.read_bytes()) for path in place.rglob("samples.jsonl"))
    assert (place / "cache" / "medbench" / "digests.sqlite").exists()
    # The folder of the data is the user's own word.
    records = find_runs()
    assert len(records) == 3
    assert "--data data" in store.read_run(records[0].folder)["command"]


def test_show_prints_no_samples(ward, closed):
    code, said = ward("show", "ward", "--data", "data")
    assert code == 0
    assert bool(tells(said)) is not closed


@pytest.mark.skipif(os.name != "posix", reason="rights as POSIX has them")
def test_folders_are_their_owners_alone_and_left_out_by_git(ward, place, closed):
    assert ward.run(method="lora")[0] == 0
    folders = [path.parent for path in place.rglob("run.json")]
    folders += [path.parent for path in place.rglob("adapter.json")]
    assert len(folders) == 2
    for folder in folders:
        others = stat.S_IMODE(folder.stat().st_mode) & 0o077
        assert (folder / ".gitignore").exists() is closed
        assert (not others) or not closed
        # Whoever opened a folder to others meant it.
        folder.chmod(0o755)
        (folder / "scores.json").unlink(missing_ok=True)
    assert ward.run(method="lora")[0] == 0
    assert all(stat.S_IMODE(folder.stat().st_mode) == 0o755 for folder in folders)
    (record,) = find_runs()
    assert record.state == "complete"
    assert store.read_run(record.folder)["data"]["restricted"] is closed
    (adapter,) = place.rglob("adapter.json")
    assert json.loads(adapter.read_text())["restricted"] is closed


def test_a_private_folder_ends_what_git_adds(tmp_path):
    make_private(tmp_path / "a" / "b")
    lines = (tmp_path / "a" / "b" / ".gitignore").read_text().splitlines()
    assert lines[0].startswith("# ") and lines[1:] == ["*"]
    (tmp_path / "c").mkdir()
    make_private(tmp_path / "c")
    assert list((tmp_path / "c").iterdir()) == []


def test_a_sheet_and_a_file_of_masks_are_asked_for_by_name(ward, place, closed):
    words = ("labels", "--task", "ward", "--data", "data", "--labels", "roi")
    for option, name in (("--view", "sheet.png"), ("--npz", "masks.npz")):
        code, said = ward(*words, option, name)
        assert (code == 2) is closed
        assert (place / name).exists() is not closed
        if closed:
            assert said.splitlines() == [
                "ward is restricted",
                "A sheet shows patients' images and texts, an .npz names them by their ids.",
                "Add --allow-restricted, and keep what is written to yourself.",
            ]
        code, said = ward(*words, option, name, "--allow-restricted")
        assert code == 0 and (place / name).exists()
        assert not tells(said)
    with np.load(place / "masks.npz") as file:
        assert set(file.files) == {f"Marmaduke{n}" for n in range(ROWS, 2 * ROWS)}
    code, said = ward(*words[:-1], "npz[file=masks.npz]")
    assert code == 0 and not tells(said)


def test_samples_without_a_region_are_called_by_their_places(ward, data, closed):
    empty = damage(data, "Brambleton8.npy")
    np.save(empty, np.zeros((20, 20), bool))
    words = ("labels", "--task", "ward", "--data", "data", "--npz", "some.npz", "--labels", "roi")
    assert ward(*words, "--limit", "5", "--allow-restricted")[0] == 0
    words = ("labels", "--task", "ward", "--data", "data", "--labels")
    for option in ((), ("--json",)):
        code, said = ward(*words, "npz[file=some.npz,must_match=false]", *option)
        assert code == 0
        (left_out,) = set(range(ROWS)) - labelled(data.parent / "some.npz")
        name = f"train[{left_out}]" if closed else f"ward-Zephyrine{left_out + ROWS}"
        assert name in said
        assert bool(tells(said)) is not closed
        task = load_task("ward", data=data)
        assert list(task.samples("train"))[left_out].id == f"ward-Zephyrine{left_out + ROWS}"


def labelled(path):
    with np.load(path) as file:
        return {int(name.removeprefix("Marmaduke")) - ROWS for name in file.files}


# Something goes wrong. What an open task tells is what its user needs to mend it.


def first(data, name):
    (path,) = data.rglob(name)
    return str(path.relative_to(data.parent))


def lines_of(said):
    """Return the lines of an error, without those that say what is being run."""
    return [line for line in said.splitlines() if not line.endswith(", matched")]


def check(ward, code, said, *, tells_open, tells_closed, exit_code=2):
    """Compare what was said with what an open and a restricted task may say."""
    assert code == exit_code, said
    if ward.closed:
        assert not tells(said), said
        assert tells_closed in said
        assert not ward.telling()
    else:
        assert tells_open in said, said
    if exit_code == 2:
        assert 2 <= len(lines_of(said)) <= 3, said
        assert "Traceback" not in said
    else:
        assert "Traceback" in said


def test_a_missing_image(ward, data):
    path = first(data, "Brambleton4.png")
    damage(data, "Brambleton4.png", None)
    archive = data / "ward-1.0" / "files" / "Quillon1" / "Quillon1.zip"
    archive.touch()
    code, said = ward.run()
    check(ward, code, said, tells_open=path, tells_closed="a file of sample test[4]")
    assert lines_of(said)[0] == "ward: 1 of 6 test samples lack their image"
    code, said = ward.run("--allow-missing-images")
    assert code == 0 and not tells(said)
    assert "partial: 1 of 6 samples lack their image" in said


def test_no_image_at_all(ward, data):
    for path in data.rglob("*.png"):
        path.unlink()
    code, said = ward.run("--allow-missing-images")
    told = "(a file of sample test[0])"
    check(ward, code, said, tells_open="Brambleton0.png", tells_closed=told)


@pytest.mark.parametrize("method", ["lora", "a3tune"])
def test_a_broken_image(ward, data, method):
    damage(data, "Brambleton7.png")
    code, said = ward.run(method=method)
    told = "cannot read the image (a file of sample train[1])"
    check(ward, code, said, tells_open="Brambleton7.png", tells_closed=told)


def test_a_missing_region(ward, data):
    damage(data, "Brambleton2.npy", None)
    code, said = ward.run()
    told = "cannot read (a file of sample test[2])"
    check(ward, code, said, tells_open="Brambleton2.npy", tells_closed=told)


def test_a_broken_region_is_an_unexpected_error_without_its_words(ward, data):
    damage(data, "Brambleton2.npy")
    code, said = ward.run()
    told = "WithheldError: ValueError; its words are withheld, since ward is restricted"
    check(ward, code, said, tells_open="Brambleton2.npy", tells_closed=told, exit_code=1)
    assert "ward.py" in said and "in region" in said, "the places in the source remain"


def test_a_broken_image_within_another_file(ward, data):
    damage(data, "Brambleton3.png")
    code, said = ward.run(task="ward[stored=true]")
    told = "cannot read the image of sample test[3]"
    check(ward, code, said, tells_open="Brambleton3 is no member", tells_closed=told)
    if ward.closed:
        withheld = "KeyError; its words are withheld, since ward is restricted."
        assert lines_of(said)[1] == withheld


@pytest.mark.parametrize("counted", ["false", "true"])
def test_double_ids(ward, data, counted):
    change(data, 4, id="ward-Zephyrine1")
    code, said = ward.run(task=f"ward[counted={counted}]")
    place = "number 2" if counted == "true" else "test[1]"
    check(ward, code, said, tells_open="ward-Zephyrine1", tells_closed=place)


@pytest.mark.parametrize(
    ("damaged", "told"),
    [
        (lambda text: text[:-40], "is damaged JSON"),
        (lambda text: text.replace('"is Peregrine', '"is "Peregrine'), "is damaged JSON"),
        (lambda text: "[" * 200_000 + text, "nested too deeply"),
        (lambda text: text[:-1] + "," + "9" * 9000 + "]", "too many digits"),
        (lambda text: '{"Xanadu": 1}', "is not the official file"),
        (lambda text: text[:-1] + ', "Xanadu"]', "is not the official file"),
        (lambda text: text.replace('"mask"', '"Xanadu"'), "has no 'mask'"),
        (lambda text: text.replace("Xanadu", "Xanadu\udcff"), "is not UTF-8"),
    ],
)
def test_a_damaged_file_of_questions(ward, data, damaged, told):
    path = data / "ward-1.0" / "ward.json"
    path.write_text(damaged(path.read_text()), encoding="utf-8", errors="surrogateescape")
    code, said = ward.run()
    check(ward, code, said, tells_open=told, tells_closed=told)
    assert "data/ward-1.0/ward.json" in said


def test_a_field_that_a_task_does_not_expect(ward, data):
    change(data, 1, image={"Brambleton": 1})
    code, said = ward.run()
    told = "WithheldError: TypeError; its words"
    check(ward, code, said, tells_open="TypeError: ", tells_closed=told, exit_code=1)


def test_a_loss_that_is_not_finite(ward):
    code, said = ward.run(method="bad")
    check(ward, code, said, tells_open="Samples of the batch: ward-Zephyrine",
          tells_closed="Samples of the batch: train[")  # fmt: skip
    assert lines_of(said)[0] == "the odd loss is not finite at step 1"


def test_an_unexpected_error_in_training(ward):
    code, said = ward.run(method="bad[how=raise]")
    told = "WithheldError: KeyError; its words"
    check(ward, code, said, tells_open=" is odd", tells_closed=told, exit_code=1)


@pytest.mark.parametrize(("how", "codes"), [("nan", [2, 2]), ("raise", [2, 1])])
def test_an_error_in_another_process(ward, how, codes):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = str(one.getsockname()[1])
    method = f"bad[how={how},rank_that_fails=1]"
    words = ("run", "--method", method, "--task", "ward", "--backbone", "toy", "--data", "data")
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    pids = [
        ward.start(words, rank, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(2)
    ]
    assert [ward.server.wait(pid) for pid in pids] == codes, ward.said("stderr", 1)
    said = [ward.said("stderr", rank) for rank in range(2)]
    if ward.closed:
        assert not tells("".join(said))
        assert not ward.telling()
        if how == "raise":
            withheld = "KeyError; its words are withheld, since ward is restricted"
            assert f"{withheld}." in said[0] and withheld in said[1]
        else:
            assert "Samples of the batch: train[" in said[0]
    else:
        assert "Zephyrine" in said[0]


def test_a_file_of_masks_that_lacks_samples_or_is_damaged(ward, place):
    path = place / "masks.npz"
    np.savez(path, Marmaduke6=np.ones((1, 256, 256), bool))
    for code, said in (
        ward("labels", "--task", "ward", "--data", "data", "--labels", "npz[file=masks.npz]"),
        ward.run(method="a3tune[labels=npz[file=masks.npz]]"),
    ):
        assert code == 2 and "has no entry for 5 of 6 samples" in said
        assert "Such as train[" in said if ward.closed else "Such as ward-Zephyrine" in said
        assert not ward.closed or not tells(said)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\x01" * 64, b"\x02" * 64, 1))
    labels = "npz[file=masks.npz,must_match=false]"
    code, said = ward("labels", "--task", "ward", "--data", "data", "--labels", labels)
    assert code == 2
    assert ("the masks of sample train[0] in masks.npz" in said) is ward.closed
    assert bool(tells(said)) is not ward.closed


# In Python


def told_by(error):
    """Return all that a traceback prints of an error, with what caused it."""
    return "".join(traceback.format_exception(error))


def test_an_image_that_breaks_later(place, data, closed):
    cell = plan(Request("greedy", "ward", backbone="toy", data="data", batch_size=2))
    damage(data, "Brambleton1.png")
    with pytest.raises(UserError, match="cannot read the image") as error:
        execute(cell)
    assert bool(tells(told_by(error.value))) is not closed
    assert ("sample test[1]" in error.value.what) is closed


def test_an_error_in_python_carries_nothing_along(data, closed):
    damage(data, "Brambleton4.png")
    with pytest.raises(UserError, match="cannot read the image") as error:
        package.run("greedy", "ward", backbone="toy", data="data")
    assert bool(tells(told_by(error.value))) is not closed


def test_a_sample_and_a_cell_print_no_text(data, closed):
    task, split = prepare_task("ward", "data", "train")
    samples = split.samples
    printed = repr(samples)
    assert not any(secret in printed.lower() for secret in ("xanadu", "peregrine", "brambleton"))
    assert bool(tells(printed)) is not closed
    assert {one.name for one in samples} == {
        f"train[{n}]" if closed else f"ward-Zephyrine{n + ROWS}" for n in range(ROWS)
    }
    # What stands in the files and in keys is the same as ever.
    given = in_order(task.samples("train"))
    assert hash_samples(samples) == hash_samples(given)
    assert [replace(one, roi=None) for one in samples] == [replace(one, roi=None) for one in given]
    assert "xanadu" not in repr(next(task.samples("train"))).lower()


class Closed(Task):
    """A restricted task that reads nothing."""

    name = "closed"
    restricted = True


def sample(id, image, alias, native="", mask=None):
    masks = (mask,) if mask else ()
    return Sample(id, image, "q", "a", "open", "g", roi_files=masks,
                  meta={"native_id": native} if native else {}, alias=alias)  # fmt: skip


SAMPLES = [
    sample("s100", Path("/d/p1/1.jpg"), "test[0]", "n-100"),
    sample("s1000", Path("/d/p1/1.jpg.png"), "test[1]", "n-1000", Path("/d/p2/mask.png")),
    sample("7", Path("/d/p3/7.jpg"), "test[2]"),
]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("s100, s1000 and s10000", "test[0], test[1] and s10000"),
        ("in n-100.", "in test[0]."),
        ("'n-1000': n-100-b, xs100", "'test[1]': n-100-b, xs100"),
        ("7 of 100 samples", "7 of 100 samples"),
        ("at /d/p1/1.jpg. a.zip is there", "at (a file of sample test[0])"),
        ("at /d/p1/1.jpg.png", "at (a file of sample test[1])"),
        ("cannot read /d/p2/mask.png", "cannot read (a file of sample test[1])"),
        ("/d/table.json is damaged", "/d/table.json is damaged"),
    ],
)
def test_what_becomes_of_a_line(line, told):
    with pytest.raises(UserError) as error, withholding(Closed(), SAMPLES):
        raise UserError(line, line, line)
    assert error.value.lines() == [told] * 3


@pytest.mark.parametrize(
    ("why", "told"),
    [
        ("OSError: [Errno 5] /e/f", "OSError; its words are withheld, since closed is restricted."),
        ("error: two\nlines", "error; its words are withheld, since closed is restricted."),
        ("Line 3: Expecting value.", "Line 3: Expecting value."),
    ],
)  # fmt: skip
def test_what_a_library_said_is_left_out(why, told):
    with pytest.raises(UserError) as error, withholding(Closed(), []):
        raise UserError("what", why)
    assert error.value.why == told


def test_kinds_of_errors_stay():
    with pytest.raises(ToldError), withholding(Closed(), []):
        raise ToldError("what")
    with pytest.raises(KeyboardInterrupt), withholding(Closed(), []):
        raise KeyboardInterrupt
    # A second block does not hide what the first one said.
    secret = "Xanadu"
    task = Closed()
    with pytest.raises(WithheldError) as error, withholding(task, []), withholding(task, []):
        raise LookupError(secret) from ValueError(secret)
    assert str(error.value) == "LookupError; its words are withheld, since closed is restricted"
    assert "Xanadu" not in told_by(error.value)
    with pytest.raises(LookupError, match="Xanadu"), withholding(Task(), SAMPLES):
        raise LookupError("Xanadu")


def test_ids_missing_from_a_file_are_not_named():
    with pytest.raises(UserError) as error:
        check_passport(Closed(), "test", ["a"], expected={"rows": 3}, gaps=["Zephyrine"])
    assert error.value.why == "2 ids missing."
    with pytest.raises(UserError) as error:
        check_passport(Closed(), "test", ["a", "Zephyrine", "Zephyrine"])
    assert error.value.why == "1 id comes more than once, first: number 2."


# What is remembered between runs


def test_arrays_of_restricted_images_are_kept_apart(tmp_path):
    shared = Memo("things", {"a": 1}, folder=str(tmp_path))
    assert shared.of(Task()) is shared
    apart = shared.of(Closed())
    assert apart.of(Closed()) is apart
    shared.write({"x": np.ones(1)})
    apart.write({"y": np.ones(1)})
    assert (shared.has(["x", "y"]), apart.has(["x", "y"])) == ({"x"}, {"y"})
    assert apart.path == tmp_path / "restricted" / shared.path.name
    if os.name == "posix":
        assert stat.S_IMODE(apart.path.parent.stat().st_mode) == 0o700


def test_labels_of_restricted_images_are_kept_apart(extra, ward, place):
    words = ("labels", "--task", "ward", "--data", "data", "--json", "--labels")
    for labels in ("sam-biomedclip[sam=phantom,clip=phantom]", "open_clip[weights=phantom]"):
        code, said = ward(*words, labels, "--fit", "pad")
        assert code == 0, said
        assert not ward.closed or not tells(said)
    found = {path.parent.name for path in place.glob("cache/**/*.sqlite")} - {"medbench"}
    assert found == {"restricted" if ward.closed else "labels"}
