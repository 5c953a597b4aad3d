"""Figures as data: those that ship, files of one's own, and parameters."""

import re
import tomllib
from pathlib import Path

import pytest

from medbench import canonical, spec
from medbench.errors import UserError
from medbench.figures import layout as layouts
from medbench.figures.along import along
from medbench.figures.layout import Named
from medbench.shipped import results

PAGE = Path(__file__).parents[2] / "docs" / "reproduce.md"


def test_values_keep_their_order():
    weights = along("a3tune", "align_weight")
    assert weights.in_order(["0.3", "0.01", "1", "0.01"]) == ["0.01", "0.3", "1"]
    assert along("a3tune", "threshold").in_order(["none", "0.2"]) == ["0.2", "none"]
    assert along("a3tune", "mask_geometry").in_order(["squash", "model"]) == ["model", "squash"]
    with pytest.raises(UserError, match="a3tune cannot take align_weight=much"):
        weights.in_order(["much"])


def test_a_method_is_written_with_a_value_in_place_of_its_own():
    found = along("a3tune[align_weight=5,labels=sam-biomedclip[sam=/a.pth]]+beam", "align_weight")
    (one, other) = spec.parse_chain(found.method_with("0.2"))
    assert (one.name, str(other)) == ("a3tune", "beam")
    assert dict(one.values) == {"align_weight": "0.2", "labels": "sam-biomedclip[sam=/a.pth]"}


def test_a_parameter_of_two_parts_is_refused():
    with pytest.raises(UserError, match="alpha of lora\\+vcd is two things") as caught:
        along("lora+vcd", "alpha")
    assert "lora and vcd" in caught.value.why
    assert along("lora+vcd", "beta").at == 1


@pytest.mark.parametrize("name", layouts.shipped())
def test_a_shipped_figure_is_the_papers(name):
    layout = layouts.read(name)
    assert layout.source == f"A3Tune, Figure {name[0]}" + (f" ({name[1]})" if name[1:] else "")
    assert layout.metrics == ("recall/paper", "closed/paper")
    if layout.parameter:
        varied = along(layout.method, layout.parameter)
        assert varied.in_order(layout.values) == list(layout.values)
        # What the paper takes elsewhere is among them, and is what the task sets.
        assert varied.default(layout.task) in layout.values
    else:
        assert len(layout.points) > 3


def test_all_figures_of_ablations_ship():
    assert layouts.shipped() == ["4", "5a", "5b", "7a", "7b", "8"]


@pytest.mark.parametrize("name", layouts.shipped())
def test_the_lines_of_the_page_make_the_runs_of_a_figure(name):
    """The commands of docs/reproduce.md mean the methods of the figures."""
    layout = layouts.read(name)
    number = f"Figure {name[0]}" + (f" ({name[1]})" if name[1:] else "")
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if number in line]
    texts = re.findall(r'--method "(.*?)" --task', " ".join(lines).replace("\\|", "|"))
    made = {
        canonical.method(one.replace("$SAM", "x"), layout.task)
        for text in texts
        for one in spec.parse_list(text)
    }
    wanted = [point.method for point in layout.points]
    if layout.parameter:
        varied = along(layout.method, layout.parameter)
        wanted = [varied.method_with(value) for value in layout.values]
    lost = [one for one in wanted if canonical.method(one, layout.task) not in made]
    assert lost in ([], ["lora"])  # which the line of the tables makes


def test_a_parameter_of_any_method():
    layout = layouts.read("K-Top", "a3tune")
    assert (layout.method, layout.parameter, layout.title) == ("a3tune", "k_top", "k_top of a3tune")
    assert layouts.read("R").method == "a3tune"
    assert layouts.read("beta", "lora+vcd").parameter == "beta"
    assert layouts.read("Figure 8").parameter == "align_weight"


def test_an_unknown_figure_or_parameter():
    with pytest.raises(UserError, match="no figure '5c'") as caught:
        layouts.read("5c")
    assert caught.value.do.startswith("Figures: 4, 5a, 5b, 7a, 7b, 8. Parameters: medbench show")
    with pytest.raises(UserError) as caught:
        layouts.read("k_topp", "a3tune")
    assert caught.value.why == "Did you mean k_top?"
    with pytest.raises(UserError, match="no method named 'a3tun'"):
        layouts.read("R", "a3tun")
    with pytest.raises(UserError, match="no file nothing.toml"):
        layouts.read("nothing.toml")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("title = 3", "title is no text"),
        ("[", "cannot read"),
        ('titel = "x"', "the file has no 'titel'"),
        ('method = "a3tune"', "it has either points or a parameter"),
        ('method = "a3tune"\nparameter = "Rr"', "a3tune has no 'Rr'"),
        ('method = "a3tun"\nparameter = "R"', "no method named 'a3tun'"),
        ('points = ["x"]', "'points' is no list of tables"),
        ('[[points]]\nlabel = "x"', "a point lacks 'method'"),
        ('[[points]]\nmethod = "vcd"\n[[points]]\nmethod = "vcd"', "two points are called 'vcd'"),
        ('[[points]]\nmethod = "vcd[alfa=1]"', "vcd has no parameter 'alfa'"),
        ('task = "slaek"\n[[points]]\nmethod = "vcd"', "no task named 'slaek'"),
        ('metrics = ["closd"]\n[[points]]\nmethod = "vcd"', "no metric named 'closd'"),
        ('values = 3\nmethod = "a3tune"\nparameter = "R"', "values is no list"),
    ],
)
def test_a_broken_file_is_told(tmp_path, text, told):
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        layouts.read(str(path))
    assert told in caught.value.what
    assert "mine.toml" in caught.value.what


def test_the_files_of_the_page_are_read(tmp_path):
    page = (PAGE.parent / "figures.md").read_text(encoding="utf-8")
    sweep, beside = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    for text in (sweep, beside):
        (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
        layout = layouts.read(str(tmp_path / "mine.toml"))
        assert layout.title == tomllib.loads(text)["title"]
        assert bool(layout.points) == (text == beside)
    assert Named("LoRA, then VCD", "lora+vcd", "tuned") in layout.points


def test_every_shipped_file_is_read_as_data():
    assert {path.name for path in results("figures").glob("*")} == {
        f"figure{name}.toml" for name in layouts.shipped()
    }
