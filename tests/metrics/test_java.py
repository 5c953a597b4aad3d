"""Java: which one is taken, and what can be scored without any."""

from __future__ import annotations

from pathlib import Path

import pytest

from medbench.errors import UnavailableError
from medbench.metric import Setting
from medbench.scorers import java
from medbench.scoring import check_golden, load_metric, score

SAYS = 'echo \'openjdk version "{}" 2025-04-15\' >&2; echo "OpenJDK Runtime Environment" >&2'
IN_JAVA = ("bleu4/coco", "rougeL/coco", "meteor/1.5")


def put(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str | None) -> Path:
    """Let the PATH lead to a Java that is this script, or to none."""
    program = folder / "java"
    if script is not None:
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return program


@pytest.mark.parametrize(
    ("script", "version"),
    [
        (SAYS.format("17.0.15"), "17.0.15"),
        (SAYS.format("1.8.0_292"), "1.8.0_292"),
        (f"echo 'Picked up JAVA_TOOL_OPTIONS: -Xmx1g' >&2; {SAYS.format('21')}", "21"),
        (f"printf 'caf\\303\\251 \\377' >&2; {SAYS.format('11.0.2')}", "11.0.2"),
    ],
)
def test_one_is_found(
    script: str, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = put(tmp_path, monkeypatch, script)
    assert java.find() == java.Java(str(program), version)


@pytest.mark.parametrize(
    ("script", "what", "why"),
    [
        (None, "no Java: report metrics written in Java cannot run", "The PATH leads to none."),
        ("echo 'Unable to locate a Java Runtime.' >&2; exit 1", "no Java: ", "tells no version"),
        (f"{SAYS.format('17')}; exit 1", "no Java: ", "tells no version"),
        (SAYS.format("1.7.0_80"), "Java 1.7.0_80 is too old", "is what the PATH leads to"),
        (SAYS.format("7"), "Java 7 is too old", "is what the PATH leads to"),
    ],
)
def test_none_is_of_use(
    script: str | None, what: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, monkeypatch, script)
    with pytest.raises(UnavailableError) as raised:
        java.find()
    assert raised.value.what.startswith(what)
    assert why in raised.value.why
    assert "Java of version 8 or newer" in raised.value.do


def test_a_program_of_that_name_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = put(tmp_path, monkeypatch, "")
    program.write_bytes(b"\x7fELF")  # cannot be run
    with pytest.raises(UnavailableError, match="no Java"):
        java.find()


class TestWithout:
    @pytest.fixture(autouse=True)
    def surroundings(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("pycocoevalcap.bleu.bleu", reason="medbench[report] is not installed")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        (tmp_path / "empty").mkdir()
        monkeypatch.setenv("PATH", str(tmp_path / "empty"))

    @pytest.mark.parametrize("name", IN_JAVA)
    def test_its_metrics_say_so(self, name: str) -> None:
        for ask in (
            lambda: check_golden(load_metric(name)),
            lambda: score(name, predictions=["no edema"], golds=["no edema"]),
        ):
            with pytest.raises(UnavailableError, match="no Java"):
                ask()

    def test_the_others_are_computed(self) -> None:
        pytest.importorskip("rouge_score", reason="medbench[report] is not installed")
        from medbench.doctor.metrics import check_metrics

        good, lacking = check_metrics(["meteor/1.5", "rougeL/google", "bleu4/coco"], Setting())
        assert (good.state, lacking.state) == ("good", "problem")
        assert good.what.endswith(": rougeL/google")
        assert lacking.what.startswith("meteor/1.5, bleu4/coco cannot be computed: no Java")
        assert "Install a Java" in lacking.do
