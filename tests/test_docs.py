"""What the documents say works: their code runs as printed."""

from __future__ import annotations

import doctest
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
from PIL import Image

import medbench
from medbench import plugins
from medbench.contract.decoders import DecoderContract
from medbench.contract.tasks import TaskContract
from medbench.plugins import Plugin

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def page_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The method of docs/add-a-method.md, dropped into an empty working folder."""
    page = (DOCS / "add-a-method.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "blurred.py").write_text(source, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return source


def test_the_method_of_the_page_is_short_and_runs_as_printed(page_method: str) -> None:
    code = [line for line in page_method.splitlines() if line.strip()]
    assert len(code) < 30
    backbone = medbench.load_backbone("toy", device="cpu", dtype="float32")
    images = [Image.effect_noise((20, 30), 60).convert("RGB") for _ in range(2)]
    given = {"images": images, "prompts": ["what is it", "is it so"], "max_new_tokens": 8}
    blurred = medbench.generate(backbone, method="blurred[alpha=0.5]", **given)
    plain = medbench.generate(backbone, method="greedy", **given)
    off = medbench.generate(backbone, method="blurred[alpha=0]", **given)
    assert [a.token_ids for a in off] == [a.token_ids for a in plain]
    assert [a.token_ids for a in blurred] != [a.token_ids for a in plain]


class TestMethodOfThePage(DecoderContract):
    @pytest.fixture
    def plugin(self, page_method: str) -> Plugin:
        return plugins.get("method", "blurred")


def test_the_session_of_the_page_goes_as_printed(page_method: str) -> None:
    (block,) = re.findall(r"```pycon\n(.*?)```", _read("add-a-method.md"), re.DOTALL)
    session = doctest.DocTestParser().get_doctest(block, {}, "add-a-method.md", None, 0)
    assert doctest.DocTestRunner().run(session) == (0, 5)


def test_the_method_of_the_page_is_shared_by_the_entry_point_of_the_page(
    page_method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", _read("add-a-method.md"), re.DOTALL)
    ((group, entries),) = tomllib.loads(block)["project"]["entry-points"].items()
    (value,) = entries.values()
    package, _, file = value.partition(":")[0].partition(".")
    site = tmp_path / "site"
    for name, text in {
        f"{package}/__init__.py": "",
        f"{package}/{file}.py": page_method,
        f"{package}-1.dist-info/entry_points.txt": f"[{group}]\nblurred = {value}\n",
    }.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text, encoding="utf-8")
    (tmp_path / "methods" / "blurred.py").unlink()
    monkeypatch.syspath_prepend(str(site))
    found = plugins.get("method", "blurred")
    assert found.origin == "entry point blurred"
    assert plugins.load(found) is sys.modules[f"{package}.{file}"].Blurred


@pytest.fixture
def page_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of the task of docs/add-a-task.md, in a working folder with the task."""
    (source,) = re.findall(r"```python\n(.*?)```", _read("add-a-task.md"), re.DOTALL)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "ward.py").write_text(source, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return write_ward(tmp_path / "ward")


def write_ward(folder: Path) -> Path:
    """Write a few questions in the layout of the page; the first is the one that it prints."""
    (line,) = re.findall(r"```json\n(.*?)```", _read("add-a-task.md"), re.DOTALL)
    printed = json.loads(line)
    other = {"id": "8", "image": "8.png", "question": "what is it?", "answer": "a lung "}
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    mask = Image.new("L", (30, 20))
    mask.paste(200, (3, 4, 20, 12))
    for split in ("train", "test"):
        rows = [row | {"image": f"{split}-{row['image']}"} for row in (printed, other)]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        for number, row in enumerate(rows):
            image = Image.new("RGB", (30, 20), (90 * number, 90, len(split) * 30))
            image.save(folder / "images" / row["image"])
        mask.save(folder / "masks" / printed["mask"])
    return folder


class TestTaskOfThePage(TaskContract):
    @pytest.fixture
    def data(self, page_task: Path) -> Path:
        return page_task

    @pytest.fixture
    def plugin(self, page_task: Path) -> Plugin:
        return plugins.get("task", "ward")


def test_the_task_of_the_page_reads_what_the_page_prints(page_task: Path) -> None:
    first, second = medbench.load_task("ward", data=page_task).samples("test")
    assert (first.id, first.kind, first.answer) == ("7", "closed", "yes")
    assert (second.kind, second.answer, second.roi) == ("open", "a lung", None)
    assert first.roi is not None and first.roi().sum() == 17 * 8
    assert first.meta["location"] == "abdomen"
    run = medbench.run("greedy", "ward", data=str(page_task), backbone="toy")
    told = run.scores["scores"]
    assert {name: told[name]["n"] for name in told} == {
        "closed/strict": 1, "recall/strict": 1, "coverage/minmax": 1, "attention/in_roi": 1,
    }  # fmt: skip


def test_a_passport_as_the_page_has_it_refuses_other_files(page_task: Path) -> None:
    path = page_task.parent / "tasks" / "ward.py"
    (line,) = re.findall(r"^( *passport = .*)$", _read("add-a-task.md"), re.MULTILINE)
    source = path.read_text("utf-8").replace("    max_new_tokens", f"{line}\n\n    max_new_tokens")
    path.write_text(source, encoding="utf-8")
    with pytest.raises(medbench.UserError, match="2 of 12 test questions found"):
        list(medbench.load_task("ward", data=page_task).samples("test"))


def test_the_metric_of_the_page_scores_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source,) = re.findall(r"```python\n(.*?)```", _read("metrics.md"), re.DOTALL)
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "brevity.py").write_text(f'"""Brevity."""\n\n{source}', "utf-8")
    monkeypatch.chdir(tmp_path)
    texts = {"predictions": ["a b c", "a b"], "golds": ["", ""]}
    assert medbench.score("brevity", **texts).value == 1.0
    assert medbench.score("brevity[most=2]", **texts).value == 0.5


def test_every_metric_has_its_line_on_the_page() -> None:
    page = _read("metrics.md")
    named = set(re.findall(r"`([\w./*]+)`", page))
    for plugin in plugins.find("metric"):
        family = plugin.name.partition("/")[0]
        assert {plugin.name, f"{family}/*"} & named, plugin.name


def _read(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def test_the_python_of_the_readme_runs_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(source, "README.md", "exec"), {})
    *answer, folder, closed = capsys.readouterr().out.split()
    assert answer
    assert (tmp_path / folder / "scores.json").is_file()
    assert 0 < float(closed) <= 1


def test_every_page_that_is_linked_exists() -> None:
    root = DOCS.parent
    pages = [root / "README.md", *DOCS.glob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
