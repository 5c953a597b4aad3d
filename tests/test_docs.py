"""What the documents say works: their code runs as printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

import medbench
from medbench import plugins

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
