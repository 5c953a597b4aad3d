"""Made-up runs over a small drawn task, pages of them, and a Chromium that opens the pages."""

import hashlib
import itertools
import json
import re
import shutil

import numpy as np
import pytest

from medbench import store
from medbench.loading import load_task
from medbench.metrics.attention import encode_map, encode_mask
from medbench.rows import row_of
from medbench.scoring import score_rows, to_json
from tests.bars import write_task

METRICS = ("closed/strict", "recall/strict", "attention/in_roi")
GRID = 4  # patches along a side


def on_grid(mask):
    """Return a mask on the patches of a squashed image: what is at their centres."""
    rows, columns = (
        (np.arange(GRID) * size / GRID + size / GRID / 2).astype(int) for size in mask.shape
    )
    return mask[np.ix_(rows, columns)]


def answer_of(sample, number, said, *, method, steps):
    """Return the row of an answer."""
    draws = np.random.default_rng([number, *method.encode()])
    row = {
        **row_of(sample, said),
        "prompt": sample.question,
        "tokens": list(range(10, 10 + max(1, len(said.split())))),
        "stop": "eos",
        "seconds": 0.25,
        "forwards": 7,
        "peak_bytes": 5_000_000,
        "image": hashlib.sha256(sample.image().tobytes()).hexdigest(),
    }
    if sample.roi is not None:
        pieces = [" " * bool(at) + word for at, word in enumerate(said.split())] or [""]
        maps = draws.random((len(pieces), GRID, GRID)) / GRID**2
        row |= {
            "attention": encode_map(maps.mean(axis=0)),
            "roi": encode_mask(on_grid(sample.roi())),
        }
        if steps:
            row["steps"] = {"attention": encode_map(maps), "pieces": pieces}
    return row


def write_run(
    place,
    method="greedy",
    said=None,
    *,
    task="gallery",
    seed=0,
    preset="matched",
    limit=None,
    finished=True,
    answered=None,
    steps=False,
    restricted=False,
    edition="official",
    note="",
    change=None,
    identity=None,
    command=None,
):
    """Write a run and return its folder.

    Args:
        said: from a sample and its number to an answer; right answers by default.
        answered: how many samples are; all by default.
        change: called with each row, may change it.
    """
    samples = list(load_task(task).samples("test"))[:limit]
    said = said or (lambda sample, number: sample.answer)
    rows = [
        answer_of(sample, number, said(sample, number), method=method, steps=steps)
        for number, sample in enumerate(samples)
    ][:answered]
    for row in rows:
        if change:
            change(row)
    name = task.partition("[")[0]
    facts = {
        "engine": 1,
        "task": {
            "name": name,
            "parameters": {},
            "version": 1,
            "split": "test",
            "samples": "b" * 64,
        },
        "backbone": {"name": "toy", "weights": "c" * 64},
        "tuner": None,
        "adapter": None,
        "decoder": {"name": method},
        "preset": preset,
        "seed": seed,
        "limit": limit,
        "batch_size": 16,
        **(identity or {}),
    }
    told = json.dumps([method, task, facts, finished], sort_keys=True)
    key = hashlib.sha256(told.encode()).hexdigest()[:12]
    folder = place / "results" / "runs" / name / "toy" / method.partition("[")[0] / key
    folder.mkdir(parents=True)
    store.begin(
        folder,
        {
            "key": key,
            "identity": facts,
            "display": {"task": task, "backbone": "toy", "method": method},
            "samples": len(samples),
            "partial": limit is not None,
            "missing_images": 0,
            "data": {"edition": edition, "note": note, "restricted": restricted},
            "metrics": list(METRICS),
            "command": command or f'medbench run --method "{method}" --task "{task}"',
            "versions": {"medbench": "0.1.0"},
            "hardware": {},
            "started": "2026-01-01T00:00:00Z",
            "device": "cpu",
            "git": {},
        },
    )
    if finished:
        scores, rows = score_rows(rows, METRICS)
        store.finish(folder, rows, to_json(scores, rows))
    else:
        with store.appending(folder) as append:
            append(rows)
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return the working folder, which has the tasks `gallery` and `ward`, and no runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEDBENCH_PLUGINS", raising=False)
    write_task(tmp_path, "gallery")
    write_task(tmp_path, "ward", restricted=True)
    return tmp_path


@pytest.fixture
def tasks(place):
    """Return a writer of further tasks like `gallery`."""

    def write(name):
        write_task(place, name)

    return write


@pytest.fixture
def made(place):
    """Return a writer of runs into the working folder: see `write_run`."""

    def make(*arguments, **options):
        return write_run(place, *arguments, **options)

    return make


@pytest.fixture
def gathered(place):
    """Return a function that gathers what a page of runs shows."""
    from medbench.viewer import chosen, content

    def gather(*words, root="results/runs", **options):
        narrow = {name: options.pop(name) for name in ("task", "preset") if name in options}
        found = chosen.find([str(word) for word in words], place / root, **narrow)
        return content.gather(found, **options)

    return gather


@pytest.fixture
def detail_of():
    """Return a function that returns what a page has of a sample, by its place."""

    def find(content, place):
        parts = (part for name, part in content.parts() if name.startswith("details-"))
        return list(itertools.chain.from_iterable(parts))[place]

    return find


@pytest.fixture
def filled():
    """Return a function from a path and a size to the mask that it encloses."""

    def fill(path, height, width):
        """Return the mask that is enclosed: pixels with an odd number of edges to their left."""
        crossed = np.zeros((height, width + 1), int)
        x = y = 0
        for loop in re.findall(r"M[^z]*z", path):
            steps = re.findall(r"([Mhv])(-?\d+)(?: (-?\d+))?", loop)
            first = (int(steps[0][1]), int(steps[0][2]))
            points = [first]
            for way, length, _ in steps[1:]:
                x, y = points[-1]
                points.append((x + int(length), y) if way == "h" else (x, y + int(length)))
            points.append(first)
            for (x, y), (right, below) in zip(points, points[1:], strict=False):
                assert x == right or y == below, "a line is neither level nor upright"
                if x == right:
                    crossed[min(y, below) : max(y, below), x] += 1
        return np.cumsum(crossed, axis=1)[:, :-1] % 2 == 1

    return fill


@pytest.fixture(scope="session")
def chromium():
    """Return a Chromium that is on this machine, without a window."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as driver:
        # Tests may run as root, where its sandbox does not.
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


class Page:
    """A page in the browser, and whatever went wrong in it."""

    def __init__(self, tab, path):
        self.tab, self.path = tab, path
        self.faults = []
        tab.set_default_timeout(8000)
        tab.on("console", self._told)
        tab.on("pageerror", lambda error: self.faults.append(str(error)))
        tab.on("dialog", lambda dialog: (self.faults.append("dialog"), dialog.dismiss()))
        tab.on("request", self._request)

    def _told(self, message):
        # This is about tests, which read pixels; the page does not.
        if "getImageData" not in message.text:
            self.faults.append(message.text)

    def _request(self, request):
        # The page is read from the disk; of what it holds itself nothing is requested.
        if not request.url.startswith(("data:", self.path.as_uri())):
            self.faults.append(f"request of {request.url}")

    def open(self, hash_=""):
        """Open the page anew and wait until all of it is read."""
        self.tab.goto("about:blank")
        self.tab.goto(self.path.as_uri() + hash_)
        return self

    def count(self):
        return self.tab.locator("#count").inner_text()

    def questions(self):
        return self.tab.locator("#list button.open").all_inner_texts()

    def choose(self, name, label):
        self.tab.locator(f'#filters select[data-name="{name}"]').select_option(label=label)

    def field(self, name, label):
        self.tab.locator(f'#filters select[data-field="{name}"]').select_option(label=label)

    def heading(self):
        """Wait for an opened sample, and return what it is called."""
        self.tab.locator("#opened h2").wait_for()
        return self.tab.locator("#opened h2").inner_text()

    def ink(self, panel=0):
        """Return the pixels of a panel's overlay."""
        canvas = self.tab.locator(".frame").nth(panel).locator("canvas")
        return canvas.evaluate(
            "(c) => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
        )

    def seen(self, panel=0):
        """Return what a panel looks like on the screen."""
        return self.tab.locator(".frame").nth(panel).screenshot()


@pytest.fixture
def opened(chromium):
    """Return a function that opens a page, and see to it that nothing went wrong in any."""
    contexts, pages = [], []

    def call(path, hash_="", **options):
        contexts.append(
            chromium.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        )
        pages.append(Page(contexts[-1].new_page(), path.absolute()))
        return pages[-1].open(hash_)

    yield call
    for context in contexts:
        context.close()
    assert [fault for page in pages for fault in page.faults] == []


@pytest.fixture(scope="session")
def page_of(tmp_path_factory):
    """Return a writer of pages over made-up runs: page_of([options of `write_run`, ...])."""
    from medbench.viewer import chosen, content, page

    def write(*runs, remove_data=False, **options):
        folder = tmp_path_factory.mktemp("page")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.delenv("MEDBENCH_PLUGINS", raising=False)
            write_task(folder, "gallery")
            write_task(folder, "ward", restricted=True)
            folders = [str(write_run(folder, **run)) for run in runs]
            if remove_data:
                (folder / "tasks" / "gallery.py").unlink()
            found = chosen.find(folders, folder)
            page.write(content.gather(found, **options), folder / "view.html")
        return folder / "view.html"

    return write


def greedy_says(sample, number):
    """Answer most questions rightly, some wrongly, some partly, and one not at all."""
    if number == 3:
        return ""
    if number % 5 == 0:
        return "no"
    return "white" if sample.kind == "open" and number % 7 == 0 else sample.answer


def vcd_says(sample, number):
    return "grey" if number % 3 == 0 else sample.answer


def cut(row):
    if row["id"] == "quillon-8-what":
        row["stop"] = "length"


@pytest.fixture(scope="session")
def gallery(page_of):
    """Return a page of 120 samples: greedy and vcd with steps, and blind over the first 20."""
    task = "gallery[images=60]"
    return page_of(
        {"method": "greedy", "said": greedy_says, "task": task, "steps": True, "change": cut},
        {"method": "vcd", "said": vcd_says, "task": task, "steps": True},
        {
            "method": "blind",
            "task": task,
            "limit": 20,
            "change": lambda row: row.pop("attention", 0),
        },
    )


@pytest.fixture(scope="session")
def said():
    """Return what the page's runs say, a value a sample: pairs of verdicts, and outputs."""

    def verdict(sample, output):
        if output == sample.answer:
            return "right"
        return "partly" if output == "white" else "wrong"

    def call(place):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(place.parent)
            samples = list(load_task("gallery[images=60]").samples("test"))
        return [
            {
                "question": sample.question,
                "kind": sample.kind,
                "modality": sample.meta["modality"],
                "A": verdict(sample, greedy_says(sample, number)),
                "B": verdict(sample, vcd_says(sample, number)),
            }
            for number, sample in enumerate(samples)
        ]

    return call
