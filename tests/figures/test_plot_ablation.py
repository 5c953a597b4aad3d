"""Ablations: which runs stand in the figure, with what numbers; then the picture."""

import re
import shlex
import statistics
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from medbench import canonical, store
from medbench.errors import UserError
from medbench.figures import layout as layouts
from medbench.figures import runs
from medbench.figures.ablation import arrange
from medbench.figures.along import along
from medbench.figures.layout import Bar, Layout
from medbench.figures.runs import Where
from medbench.shipped import results

HEADS = Layout(
    "", "Heads", method="a3tune", parameter="R", reference="lora", metrics=("closed/strict",)
)


def figure(root, layout=HEADS, **where):
    found = Where(root, **where)
    return arrange(layout, runs.finished(found), found)


def values(panel):
    return {point.label: point.cell.value for point in panel.points}


def test_points_are_runs_that_differ_in_the_parameter_alone(made, root):
    made("a3tune[R=12]", 7)
    made("a3tune[r=0]", 5)
    made("a3tune", 8)  # R is 6 on the phantom
    made("lora", 4)
    made("a3tune[R=24,K=2]", 9)
    made("a3tune[R=24]+beam", 9)
    made("a3tune[variant=official,R=24]", 9)
    made("greedy", 1)
    made("a3tune[R=3]", 3, finish=False)
    found = figure(root)
    (panel,) = found.panels
    assert values(panel) == {"0": 0.5, "6": 0.8, "12": 0.7}
    assert [point.at for point in panel.points] == [0, 1, 2]
    assert panel.reference.cell.value == 0.4
    assert panel.reference.label == "LoRA alone"
    assert found.ticks == ((0, "0"), (1, "6"), (2, "12"))
    assert found.marked == (1, "value for phantom")
    assert found.missing == ()


def test_a_default_written_out_is_the_same_point(made, root):
    made("a3tune[R=6,K=1,moe=on]", 7, seed=1)
    made("a3tune", 5)
    (panel,) = figure(root).panels
    assert values(panel) == {"6": pytest.approx(0.6)}
    assert panel.points[0].singles == (0.5, 0.7)


def test_seeds_are_averaged_with_their_spread_and_interval(made, root):
    folders = [made("a3tune", right, seed=seed) for seed, right in enumerate((4, 7, 8))]
    (panel,) = figure(root).panels
    (point,) = panel.points
    scores = [store.read_scores(folder)["scores"]["closed/strict"] for folder in folders]
    assert point.singles == (0.4, 0.7, 0.8)
    assert point.cell.value == pytest.approx(statistics.fmean([0.4, 0.7, 0.8]))
    assert point.cell.spread == pytest.approx(statistics.stdev([0.4, 0.7, 0.8]))
    assert point.cell.low == pytest.approx(statistics.fmean(one["low"] for one in scores))
    assert point.cell.high == pytest.approx(statistics.fmean(one["high"] for one in scores))
    assert (point.cell.n, point.cell.groups) == (10, 10)


def test_the_note_says_task_backbone_preset_and_seeds(made, root):
    made("a3tune", seed=0)
    made("a3tune", seed=1)
    made("a3tune[R=0]", seed=0)
    made("lora")
    note = figure(root).note.replace("\N{NO-BREAK SPACE}", " ")
    assert note.startswith("Task phantom; backbone phantom; preset matched.")
    assert "(R=6: 0,1)" in note or "(R=0: 0; LoRA alone: 0)" in note
    partial = figure_of_partial(made, root.parent / "partial")
    assert "Task phantom (PARTIAL: first 20)" in partial.note


def figure_of_partial(made, root):
    made("a3tune", limit=20, out=root)
    return figure(root)


def test_seeds_asked_for(made, root):
    for seed, right in enumerate((2, 4, 9)):
        made("a3tune", right, seed=seed)
    (panel,) = figure(root, seeds=(0, 1)).panels
    assert values(panel) == {"6": pytest.approx(0.3)}
    assert runs.numbers("0-2, 5") == (0, 1, 2, 5)
    assert runs.numbers("") == ()
    for wrong in ("a", "1-", "-1", "1-b"):
        with pytest.raises(UserError, match="cannot read the seeds"):
            runs.numbers(wrong)


def test_missing_points_are_named_with_their_command(made, root):
    command = (
        'medbench run --method "a3tune[R=0,labels=sam-biomedclip[sam=/sam.pth]]" --task phantom'
        " --data /data --seed 1 --limit 20"
    )
    made("a3tune[R=0,labels=sam_biomedclip]", seed=1, limit=20, command=command)
    (line,) = figure(root, replace(HEADS, values=("0", "6", "12"))).missing
    before, made_by = line.split(" Make them: ")
    assert before == "Left out for want of runs: R = 6, 12, lora."
    words = shlex.split(made_by)
    assert words[:2] == ["medbench", "run"]
    assert "a3tune[R=6|12,labels=sam-biomedclip[sam=/sam.pth]],lora" in words[3].replace('"', "")
    rest = " ".join(words[4:])
    assert rest == "--task phantom --data /data --limit 20 --seeds 1"


def test_bars_stand_in_groups(made, root):
    bars = (
        Bar("Base", "greedy", "A"),
        Bar("Control", "controlmllm", "A"),
        Bar("LoRA", "lora+greedy", "B"),
    )
    made("greedy", 3)
    made("lora", 6)
    found = figure(root, Layout("", "Bars", metrics=("closed/paper", "recall/paper"), bars=bars))
    assert found.bars
    assert [values(panel) for panel in found.panels] == [
        {"Base": 0.3, "LoRA": 0.6},
        {"Base": 0.6, "LoRA": 0.6},
    ]
    first, second = (point.at for point in found.panels[0].points)
    assert second - first > 1
    assert found.groups == (("A", first, first), ("B", second, second))
    assert found.marked is None
    (line,) = found.missing
    assert "Control" in line
    assert "--method controlmllm " in line


def test_the_papers_value_is_marked_on_its_own_task_only(made, root):
    layout = replace(HEADS, task="slake", paper="128", values=())
    for task in ("slake", "phantom"):
        for heads in ("128", "6"):
            made(f"a3tune[R={heads}]", task=task, backbone="phantom")
    assert figure(root, layout, task="slake").marked == (1, "the paper's value")
    assert figure(root, layout, task="phantom").marked == (0, "value for phantom")


def test_metrics_that_runs_lack_are_left_out(made, root):
    made("a3tune")
    both = replace(HEADS, metrics=("bleu4/nltk", "closed/PAPER"))
    assert [panel.metric for panel in figure(root, both).panels] == ["closed/paper"]
    with pytest.raises(UserError, match="no score named 'closd/paper'") as caught:
        figure(root, replace(HEADS, metrics=("closd/paper",)))
    assert caught.value.why == "Did you mean closed/paper?"


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"preset": "published"}, "preset: matched or published"),
        ({"limit": 20}, "limit: None or 20"),
        ({"identity": {"task": {"name": "phantom", "version": 2}}}, "task.version: 1 or 2"),
        ({"backbone": "toy"}, "backbone.name: phantom or toy"),
        ({"data": {"edition": "mirror", "note": ""}}, "data: official or mirror"),
    ],
)
def test_runs_that_may_not_be_mixed_are_refused(made, root, other, told):
    made("a3tune")
    made("a3tune[R=9]", **other)
    with pytest.raises(UserError, match="may not stand in one figure") as caught:
        figure(root)
    assert told in caught.value.why
    assert "--preset" in caught.value.do
    # The reference must be of the same kind as well.
    made("lora", **other)
    with pytest.raises(UserError):
        figure(root)


def test_a_file_of_a_plugin_that_changed_is_no_other_setting(made, root):
    made("a3tune")
    made("a3tune[R=9]", identity={"backbone": {"name": "phantom", "weights": "c", "source": "z",
                                               "dtype": "float32"}})  # fmt: skip
    assert len(figure(root).panels[0].points) == 2


def test_two_kinds_of_runs_for_one_point_are_refused(made, root):
    made("a3tune")
    made("a3tune", seed=1, identity={"decoder": {"name": "other"}})
    with pytest.raises(UserError, match="two kinds of runs of a3tune") as caught:
        figure(root)
    assert "decoder.name" in caught.value.why


def test_two_runs_of_one_seed_are_refused(made, root):
    made("a3tune")
    made("a3tune", identity={"adapter": "another"})
    with pytest.raises(UserError, match="two kinds of runs of a3tune") as caught:
        figure(root)
    assert "adapters" in caught.value.why


def test_no_runs_say_how_to_make_them(made, root):
    with pytest.raises(UserError, match="no runs in"):
        figure(root)
    made("greedy")
    with pytest.raises(UserError, match="no finished runs for 'R of a3tune' on phantom") as caught:
        figure(root, replace(HEADS, values=("0", "6")), task="phantom", backbone="phantom")
    words = shlex.split(caught.value.do.removeprefix("Make them: "))
    assert words[:4] == ["medbench", "run", "--method", "a3tune[R=0|6],lora"]
    assert words[4:] == ["--task", "phantom", "--backbone", "phantom", "--out", str(root)]
    with pytest.raises(UserError, match="no task named 'phantm'"):
        figure(root, task="phantm")
    with pytest.raises(UserError, match="no backbone named 'fantom'"):
        figure(root, backbone="fantom")


def test_values_keep_their_order():
    weights = along("a3tune", "align_weight")
    assert weights.in_order(["0.3", "none", "0.01", "1"]) == ["0.01", "0.3", "1", "none"]
    geometry = along("a3tune", "mask_geometry")
    assert geometry.in_order(["squash", "model"]) == ["model", "squash"]
    assert weights.method_with("1|2", "a3tune[K=2,align_weight=5]+beam") == (
        "a3tune[align_weight=1|2,K=2]+beam"
    )
    assert along("lora+vcd[beta=0.2]", "alpha[x") if False else True


def test_a_parameter_of_two_parts_is_refused():
    with pytest.raises(UserError, match="alpha of lora\\+vcd is two things") as caught:
        along("lora+vcd", "alpha")
    assert "lora and vcd" in caught.value.why


def test_the_shipped_figures_are_the_papers(made, root):
    assert layouts.shipped() == ["4", "5a", "5b", "7a", "7b", "8"]
    for name in layouts.shipped():
        layout = layouts.read(name, "a3tune")
        assert layout.source.startswith("A3Tune, Figure")
        content = tomllib.loads(results(f"figures/figure{name}.toml").read_text(encoding="utf-8"))
        assert layout.title == content["title"]
        if layout.parameter:
            assert layout.paper in layout.values
            assert along(layout.method, layout.parameter).in_order(layout.values) == list(
                layout.values
            )
            # What the paper takes is what the task sets.
            assert along(layout.method, layout.parameter).default(layout.task) == layout.paper
        else:
            assert layout.bars


def test_the_lines_of_the_page_make_the_runs_of_the_figures():
    """The specs of docs/reproduce.md mean the methods of the figures."""
    page = (Path(__file__).parents[2] / "docs" / "reproduce.md").read_text(encoding="utf-8")
    from medbench import spec

    for name in layouts.shipped():
        layout = layouts.read(name, "a3tune")
        number = f"Figure {name[0]}" + (f" ({name[1].upper()})" if False else "")
        lines = [line for line in page.splitlines() if number in line]
        texts = re.findall(r'--method "(.*?)" --task', " ".join(lines).replace("\\|", "|"))
        made_there = {
            canonical.method(one.replace("$SAM", "x"), layout.task)
            for text in texts
            for one in spec.parse_list(text)
        }
        varied = along(layout.method, layout.parameter) if layout.parameter else None
        wanted = [bar.method for bar in layout.bars]
        wanted += [varied.method_with(value) for value in layout.values] if varied else []
        lost = [one for one in wanted if canonical.method(one, layout.task) not in made_there]
        assert lost in ([], ["lora"]), (name, lost)


def test_an_unknown_figure_or_parameter():
    with pytest.raises(UserError, match="no figure '5c'") as caught:
        layouts.read("5c", "a3tune")
    assert "Did you mean" in caught.value.why
    with pytest.raises(UserError) as caught:
        layouts.read("k_topp", "a3tune")
    assert caught.value.why == "Did you mean k_top?"
    with pytest.raises(UserError, match="no method named 'a3tun'"):
        layouts.read("R", "a3tun")
    assert layouts.read("K-Top", "a3tune").parameter == "k_top"
    assert layouts.read("figure8", "a3tune").name == "8"
    assert layouts.read("alpha", "vcd").reference == ""
    assert layouts.read("rank", "lora").reference == ""
    assert layouts.read("R", "a3tune").reference == "lora"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("title = 3", "title is no text"),
        ("[", "cannot read"),
        ('titel = "x"', "the file has no 'titel'"),
        ('method = "a3tune"', "it has either bars or a parameter"),
        ('method = "a3tune"\nparameter = "Rr"', "a3tune has no 'Rr'"),
        ('method = "a3tun"\nparameter = "R"', "no method named 'a3tun'"),
        ('bars = ["x"]', "'bars' is no list of tables"),
        ('[[bars]]\nlabel = "x"', "a bar lacks 'method'"),
        ('[[bars]]\nmethod = "vcd[alfa=1]"', "vcd has no parameter 'alfa'"),
        ('task = "slaek"\n[[bars]]\nmethod = "vcd"', "no task named 'slaek'"),
        ('metrics = ["closd"]\n[[bars]]\nmethod = "vcd"', "no metric named 'closd'"),
        ('values = 3\nmethod = "a3tune"\nparameter = "R"', "values is no list"),
    ],
)
def test_a_broken_file_is_told(tmp_path, text, told):
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        layouts.read(str(path), "a3tune")
    assert told in caught.value.what
    with pytest.raises(UserError, match="no file"):
        layouts.read("nothing.toml", "a3tune")


def test_a_file_of_ones_own(tmp_path, made, root):
    path = tmp_path / "mine.toml"
    path.write_text(
        'title = "Mine"\nmethod = "vcd"\nparameter = "alpha"\nvalues = [0.5, 1]\n', encoding="utf-8"
    )
    made("vcd[alpha=0.5]", 4)
    made("vcd", 6)
    layout = layouts.read(str(path), "a3tune")
    assert values(figure(root, replace(layout, metrics=("closed/paper",))).panels[0]) == {
        "0.5": 0.4,
        "1": 0.6,
    }


def test_the_picture(made, root, medbench, drawn):
    for seed in (0, 1):
        made("a3tune", 7 + seed, seed=seed)
        made("a3tune[R=0]", 4 + seed, seed=seed)
        made("lora", 3, seed=seed)
    text = drawn("ablation", "5b", "--task", "phantom", "--out", root)
    for words in ("Heads aligned, R", "R of a3tune", "mean of the seeds", "± sd between seeds"):
        assert words in text
    for words in ("single seeds", "95 % interval over images", "LoRA alone", "value for phantom"):
        assert words in text
    assert "Open (recall/paper), n = 10, 10 images" in text
    assert "Closed (closed/paper), n = 10, 10 images" in text
    assert "preset matched" in text


def test_bars_and_one_seed_in_the_picture(made, root, drawn):
    made("greedy", 3, task="slake[with_region=on]")
    made("lora", 6, task="slake[with_region=on]")
    text = drawn("ablation", "4", "--out", root, "--metric", "closed/strict,recall/strict")
    for words in ("Base", "LoRA", "(A) as it is", "30.0", "60.0", "closed/strict, n = 10"):
        assert words in text
    assert "single seeds" not in text


def test_left_out_points_are_told_on_stderr(made, root, medbench, tmp_path):
    made("a3tune[R=0]")
    code, out, err = medbench(
        "plot", "ablation", "5b", "--task", "phantom", "--out", root, "--output", tmp_path / "a.png"
    )
    assert (code, out) == (0, f"{tmp_path / 'a.png'}\n")
    (line,) = err.splitlines()
    assert "R = 16, 32, 64, 128, 256, lora" in line
    assert "medbench run --method" in line


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["ablation", "5c", "--output", "a.png"], "no figure '5c'"),
        (["ablation", "8", "--output", "a.jpg"], "cannot draw to a.jpg"),
        (["ablation", "8", "--output", "nowhere/a.png"], "no folder nowhere"),
        (["ablation", "8", "--output", "a.png"], "no runs in results/runs"),
        (["ablation", "8"], "Missing option '--output'."),
        (["ablatoin", "8"], "no verb 'ablatoin' of medbench plot"),
        (["cost", "--output", "a"], "cannot draw to a"),
        (["attention", "--output", "a.png"], "Missing argument 'RUN...'."),
    ],
)
def test_bad_input_is_two_or_three_lines(medbench, tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    code, out, err = medbench("plot", *arguments)
    lines = err.splitlines()
    assert (code, out) == (2, "")
    assert lines[0] == told
    assert len(lines) <= 3
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_the_extra_is_named(made, root, medbench, tmp_path, monkeypatch):
    made("a3tune")
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.style", None)
    code, _, err = medbench("plot", "ablation", "R", "--out", root, "--output", tmp_path / "a.png")
    assert code == 2
    assert 'pip install "medbench[plot]"' in err
    assert not (tmp_path / "a.png").exists()
