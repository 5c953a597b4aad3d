"""Which values of a metric are better, as its author says."""

import pytest

from medbench.direction import better
from medbench.errors import UserError
from medbench.tables.model import Cell, Column, Row, Table

METRIC = '''"""How long answers are."""

from dataclasses import dataclass

from medbench.metric import Metric


@dataclass(frozen=True)
class {name}(Metric):
    """Mean number of words."""

    name = "{name}"
    better = "{better}"

    def items(self, rows):
        return [float(len(row["output"].split())) for row in rows]
'''


@pytest.fixture
def metric(tmp_path, monkeypatch):
    """Return a writer of a metric into the working folder."""

    def write(name, better):
        (tmp_path / "metrics").mkdir(exist_ok=True)
        path = tmp_path / "metrics" / f"{name}.py"
        path.write_text(METRIC.format(name=name, better=better), encoding="utf-8")
        return name

    monkeypatch.chdir(tmp_path)
    return write


def test_higher_is_better_unless_the_metric_says_otherwise(metric):
    assert better("closed/strict") == better("ratescore[release=0.5.0]") == "higher"
    assert better("yes_rate") == "neither"
    assert better(metric("words_said", "lower")) == "lower"
    assert better("a metric that is gone") == "higher"


def test_another_word_is_refused(metric):
    name = metric("words_meant", "up")
    with pytest.raises(UserError, match="metric 'words_meant' says that 'up' is better"):
        better(name)


def test_the_lowest_cell_is_the_best_where_lower_is_better(metric):
    column = Column("slake", 1, "", None, 0, metric("words_used", "lower"))
    rows = [Row("toy", method) for method in ("a", "b", "c")]
    cells = {
        (row, column): Cell(at / 4, None, None, 4, 2, None, (0,), ("",))
        for at, row in enumerate(rows)
    }
    found = Table("matched", False, tuple(rows), (column,), cells)
    assert found.ranks == {(rows[0], column): "best", (rows[1], column): "second"}
