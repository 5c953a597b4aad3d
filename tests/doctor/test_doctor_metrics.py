"""Metrics in an examination: known values, what is missing, and how it is fetched."""

import json

import pytest

from medbench.metric import Setting

LACKING = '''"""Lacks weights."""

from dataclasses import dataclass

from medbench.errors import UnavailableError
from medbench.metric import Metric


@dataclass(frozen=True)
class Lacking(Metric):
    """Lacks weights."""

    name = "lacking"
    kinds = ("report",)
    extra = "clinical"
    downloads = (("somebody/scorer", "config.json scorer.pth", "1 GB"),)
    golden = (("abc", "", 0.3),)

    def measure(self, rows, setting):
        from huggingface_hub import try_to_load_from_cache
        from medbench.metric import Measured

        if not isinstance(try_to_load_from_cache("somebody/scorer", "scorer.pth"), str):
            raise UnavailableError(
                "somebody/scorer is not on this machine",
                "Its file scorer.pth was not downloaded yet.",
                "medbench doctor --metric lacking --fetch",
            )
        return Measured([0.3] * len(rows))
'''
WRONG = LACKING.replace("lacking", "wrong").replace("Lacking", "Wrong").replace(
    "if not isinstance", "if None and isinstance"
).replace("[0.3]", "[0.4]")  # fmt: skip


def of_metrics(page):
    return [one for one in page["findings"] if one["section"] == "metrics"]


@pytest.fixture
def metrics(tmp_path, monkeypatch):
    """Drop files of metrics into the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "lacking.py").write_text(LACKING)
    (tmp_path / "metrics" / "wrong.py").write_text(WRONG)


def test_what_answers_what_lacks_something_and_what_is_wrong(metrics, medbench):
    words = ("doctor", "--metric", "closed/strict,recall/paper,lacking,wrong", "--json")
    code, out, _ = medbench(*words)
    assert code == 1
    wrong, good, lacking = of_metrics(json.loads(out))
    assert good["state"] == "good"
    assert good["what"].endswith("closed/strict, recall/paper")
    assert lacking["state"] == wrong["state"] == "problem"
    assert lacking["what"] == "lacking cannot be computed: somebody/scorer is not on this machine"
    assert lacking["do"] == "medbench doctor --metric lacking --fetch"
    assert "metric wrong fails its own example. For 'abc'" in wrong["what"]


def test_only_what_is_read_is_fetched_and_then_it_answers(
    metrics, hub, examined, tmp_path, monkeypatch
):
    files = {"config.json": b"{}", "scorer.pth": b"weights", "other.pth": b"of another metric"}
    server = hub({"somebody/scorer": files})
    monkeypatch.setenv("MEDBENCH_PLUGINS", str(tmp_path))
    code, page = examined("--metric", "lacking", "--fetch", endpoint=server.endpoint)
    assert code == 0, page
    assert [one["state"] for one in of_metrics(page)] == ["good"]
    fetched = [one["what"] for one in page["findings"] if one["section"] == "fetching"]
    assert fetched[0].startswith("somebody/scorer: 2 files")
    assert not any("other.pth" in asked for asked in server.asked)


def test_metrics_of_a_task_do_not_stand_in_its_way(metrics, tmp_path):
    from medbench.doctor.metrics import check_metrics

    found = list(check_metrics(["lacking"], Setting(), heading="task x", wanted=False))
    assert [(one.state, one.section) for one in found] == [("note", "task x")]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--metric", "closed/papre"), "no metric named 'closed/papre'"),
        (("--metric", "closed/paper[x=1]"), "closed/paper has no parameter 'x'"),
        (("--fetch",), "--fetch of what?"),
    ],
)
def test_what_cannot_be_meant(words, told, medbench):
    code, _, err = medbench("doctor", *words)
    assert code == 2
    assert err.splitlines()[0] == told
