"""Ablations: which runs stand in the figure, with what numbers; then the picture."""

import shlex
import statistics
from dataclasses import replace

import pytest

from medbench import store
from medbench.errors import UserError
from medbench.figures import gather, style
from medbench.figures.ablation import arrange
from medbench.figures.ablation_picture import picture
from medbench.figures.gather import Asked
from medbench.figures.layout import Layout, Named

TASK = {"name": "phantom", "version": 1, "samples": "a"}
HEADS = Layout(
    "Heads", method="a3tune", parameter="R", reference="lora", metrics=("closed/strict",)
)


def figure(root, layout=HEADS, metrics=(), **asked):
    meant = Asked(**asked)
    return arrange(layout, gather.finished(root, meant), meant, metrics)


def values(figure, number=0):
    """Return label -> score of a panel."""
    column = figure.table.columns[number]
    return {row.label: figure.table.cells[row, column].value for _, row in figure.points(column)}


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
    assert values(found) == {"0": 0.5, "6": 0.8, "12": 0.7}
    assert [at for _, at in found.places] == [0, 1, 2]
    assert found.table.cells[found.reference, found.table.columns[0]].value == 0.4
    assert found.marked == (1, "default on phantom")
    assert found.x_label == "R of a3tune"
    assert found.told == ()


def test_a_default_written_out_is_the_same_point(made, root):
    made("a3tune[R=6,K=1,moe=on]", 7, seed=1)
    made("a3tune", 5)
    found = figure(root)
    assert values(found) == {"6": pytest.approx(0.6)}
    (runs,) = found.table.runs.values()
    assert {run.seed for run in runs} == {0, 1}


def test_other_parameters_of_the_method_are_kept(made, root):
    made("a3tune[K=2,R=3]", 3)
    made("a3tune[K=2,R=9]+beam", 9)
    made("a3tune[R=12]", 1)
    layout = replace(HEADS, method="a3tune[K=2]", reference="")
    assert values(figure(root, layout)) == {"3": 0.3}
    assert values(figure(root, replace(layout, method="a3tune[K=2]+beam"))) == {"9": 0.9}


def test_seeds_are_averaged_and_their_intervals_too(made, root):
    folders = [made("a3tune", right, seed=seed) for seed, right in enumerate((4, 7, 8))]
    found = figure(root)
    ((row, _),) = found.places
    cell = found.table.cells[row, found.table.columns[0]]
    scores = [store.read_scores(folder)["scores"]["closed/strict"] for folder in folders]
    assert cell.value == pytest.approx(statistics.fmean([0.4, 0.7, 0.8]))
    assert cell.low == pytest.approx(statistics.fmean(one["low"] for one in scores))
    assert cell.high == pytest.approx(statistics.fmean(one["high"] for one in scores))
    assert (cell.n, cell.groups) == (10, 10)


def test_the_note_says_task_backbone_preset_seeds_and_versions(made, root):
    made("a3tune", seed=0, versions={"medbench": "1.2", "torch": "3.4"})
    made("a3tune[R=0]", seed=0)
    made("a3tune[R=0]", seed=1)
    made("lora")
    note = figure(root).note.replace("\N{NO-BREAK SPACE}", " ")
    assert note.startswith("Task phantom; backbone phantom; preset matched. Seed 0 (0,1: 0).")
    assert "Made with medbench 1.2, torch 3.4, phantom weights c float32." in note


def test_missing_points_are_named_with_their_command(made, root):
    made("a3tune[R=0]", seed=1)
    first, command = figure(root, replace(HEADS, values=("0", "6", "12"))).told
    assert first == "Left out for want of runs: R = 6, 12, lora."
    words = shlex.split(command.removeprefix("More runs: "))
    assert words[:4] == ["medbench", "run", "--method", "a3tune[R=6],a3tune[R=12],lora"]
    assert words[4:] == ["--task", "phantom", "--backbone", "phantom", "--seeds", "1"]


def test_methods_side_by_side_stand_in_groups(made, root):
    points = (
        Named("Base", "greedy", "A"),
        Named("Control", "controlmllm", "A"),
        Named("LoRA", "lora+greedy", "B"),
    )
    made("greedy", 3)
    made("lora", 6)
    found = figure(root, Layout("x", metrics=("closed/paper", "recall/paper"), points=points))
    assert values(found) == {"Base": 0.3, "LoRA": 0.6}
    assert values(found, 1) == {"Base": 0.6, "LoRA": 0.6}
    assert [(row.group, at) for row, at in found.places] == [("A", 0), ("B", 1.6)]
    assert (found.x_label, found.marked, found.reference) == ("", None, None)
    told = " ".join(found.told)
    assert "Control" in told
    assert "--method controlmllm " in told


def test_metrics_of_a_figure_that_runs_lack_are_left_out_and_those_asked_for_are_not(made, root):
    made("a3tune")
    both = ("bleu4/nltk", "closed/PAPER")
    found = figure(root, replace(HEADS, metrics=both))
    assert [column.metric for column in found.table.columns] == ["closed/paper"]
    with pytest.raises(UserError, match="no score named 'bleu4/nltk'") as caught:
        figure(root, metrics=both)
    assert "closed/paper" in caught.value.why
    with pytest.raises(UserError, match="no score named 'closd/paper'") as caught:
        figure(root, replace(HEADS, metrics=("closd/paper",)))
    assert caught.value.why.startswith("Did you mean closed/paper")


def test_a_figures_task_is_taken_unless_another_is_asked_for(made, root):
    layout = replace(HEADS, task="slake", reference="")
    made("a3tune[R=128]", 3, task="slake")
    made("a3tune[R=128]", 7)
    made("a3tune[R=6]", 7)
    assert values(figure(root, layout)) == {"128": 0.3}
    assert figure(root, layout).marked == (0, "default on slake")
    assert values(figure(root, layout, task="phantom")) == {"6": 0.7, "128": 0.7}
    with pytest.raises(UserError, match="runs of several tasks may not") as caught:
        figure(root, replace(layout, task=""))
    assert caught.value.why == "There are some of phantom, slake."


@pytest.mark.parametrize(
    ("other", "told", "do"),
    [
        ({"preset": "published"}, "some of matched and published", "--preset matched"),
        ({"identity": {"task": TASK | {"version": 2}}}, "version is 1 in", "--out"),
        ({"identity": {"task": TASK | {"samples": "z"}}}, "samples is a in", "--out"),
        ({"missing_images": 3}, "left out is 0 in", "--out"),
        ({"identity": {"engine": 2}}, "engine is 1 in", "--out"),
        ({"backbone": "toy"}, "some of phantom, toy", "--backbone phantom"),
    ],
)
def test_runs_that_may_not_be_mixed_are_refused(made, root, other, told, do):
    made("a3tune")
    made("a3tune[R=9]", **other)
    with pytest.raises(UserError) as caught:
        figure(root)
    assert told in caught.value.why
    assert do in caught.value.do


def test_a_reference_of_another_kind_is_refused(made, root):
    made("a3tune")
    made("lora", preset="published")
    with pytest.raises(UserError, match="runs of several presets"):
        figure(root)
    found = figure(root, preset="matched")
    assert (found.reference, found.table.columns[0]) not in found.table.cells


def test_of_whole_and_partial_runs_the_whole_ones_are_drawn_and_the_others_told(made, root):
    made("a3tune", 7)
    made("a3tune", 1, limit=20)
    made("a3tune[R=9]", 2, limit=20)
    found = figure(root)
    assert values(found) == {"6": 0.7}
    assert found.told[0] == "Left out: 2 runs over part of the samples."
    assert "PARTIAL" not in found.note


def test_partial_runs_alone_are_drawn_and_called_so(made, root):
    made("a3tune", limit=20)
    made("lora")  # a whole run beside them is of other samples
    found = figure(root)
    assert "Task phantom (PARTIAL: first 20);" in found.note
    assert (found.reference, found.table.columns[0]) not in found.table.cells
    made("a3tune[R=9]", limit=10)
    with pytest.raises(UserError, match="several parts of the samples") as caught:
        figure(root)
    assert caught.value.why == "There are some with --limit 10 and 20."


def test_a_file_of_a_plugin_that_changed_is_no_other_setting(made, root):
    made("a3tune")
    backbone = {"name": "phantom", "weights": "c", "source": "z", "dtype": "float32"}
    made("a3tune[R=9]", identity={"backbone": backbone})
    assert set(values(figure(root))) == {"6", "9"}


def test_two_kinds_of_runs_for_one_point_are_refused(made, root):
    made("a3tune")
    made("a3tune", seed=1, identity={"batch_size": 4})
    with pytest.raises(UserError, match="runs of several kinds for ' / 6' on phantom") as caught:
        figure(root)
    assert "batch_size" in caught.value.why


def test_two_runs_of_one_seed_are_refused(made, root):
    made("a3tune")
    made("a3tune", identity={"adapter": "another"})
    with pytest.raises(UserError, match="two runs of seed 0"):
        figure(root)


def test_no_runs_say_how_to_make_them(made, root):
    with pytest.raises(UserError, match="no runs in"):
        figure(root)
    made("greedy")
    with pytest.raises(UserError, match="no finished runs for 'Heads' on slake with toy") as caught:
        figure(root, replace(HEADS, values=("0", "6")), task="slake", backbone="toy")
    assert caught.value.why == "There are finished runs on: phantom."
    words = shlex.split(caught.value.do.removeprefix("Make them: "))
    assert words[:4] == ["medbench", "run", "--method", "a3tune[R=0],a3tune[R=6]"]
    assert words[4:] == ["--task", "slake", "--backbone", "toy"]
    with pytest.raises(UserError, match="no task named 'phantm'"):
        figure(root, task="phantm")
    with pytest.raises(UserError, match="no backbone named 'fantom'"):
        figure(root, backbone="fantom")


def test_a_point_needs_the_score_in_all_its_runs(made, root):
    made("a3tune", 8)
    made("a3tune[R=9]", 2)
    unscored = made("a3tune[R=9]", 3, seed=1)
    text = (unscored / store.SCORES).read_text(encoding="utf-8")
    (unscored / store.SCORES).write_text(text.replace("closed/strict", "other"), encoding="utf-8")
    found = figure(root, replace(HEADS, reference=""))
    assert values(found) == {"6": 0.8}
    assert any("medbench rescore" in line for line in found.told)


def test_the_picture_shows_means_intervals_seeds_the_reference_and_the_default(made, root):
    for seed in (0, 1):
        made("a3tune", 7 + seed, seed=seed)
        made("a3tune[R=0]", 4 + seed, seed=seed)
        made("lora", 3, seed=seed)
    found = figure(root, replace(HEADS, metrics=("closed/strict", "recall/strict")))
    with style.styled():
        drawn = picture(found)
    upper, lower = drawn.axes
    lines = {line.get_zorder(): line for line in upper.get_lines()}
    assert list(lines[4].get_xdata()) == [0, 1]
    assert list(lines[4].get_ydata()) == pytest.approx([45, 75])
    seeds = [sorted(line.get_ydata()) for line in upper.get_lines() if line.get_zorder() == 5]
    assert seeds == [pytest.approx([40, 50]), pytest.approx([70, 80])]
    assert list(lines[1].get_ydata()) == pytest.approx([30, 30])
    (band,) = upper.patches
    assert band.get_x() < 1 < band.get_x() + band.get_width()
    column = found.table.columns[0]
    cells = [found.table.cells[row, column] for row, _ in found.places]
    assert [bar.get_segments()[0][:, 1].tolist() for bar in upper.collections] == [
        pytest.approx([100 * cell.low, 100 * cell.high]) for cell in cells
    ]
    assert upper.get_title(loc="left") == "closed/strict, n = 10, 10 images"
    assert upper.get_ylabel() == lower.get_ylabel() == "percent"
    assert [label.get_text() for label in lower.get_xticklabels()] == ["0", "6"]
    assert lower.get_xlabel() == "R of a3tune"
    legend = [text.get_text() for text in drawn.legends[0].get_texts()]
    assert legend == [
        "mean of the seeds",
        "95 % interval over images",
        "single seeds",
        "lora",
        "default on phantom",
    ]


def test_methods_side_by_side_are_not_joined_by_a_line(made, root):
    made("greedy", 3)
    made("lora", 6)
    points = (Named("Base", "greedy", "A"), Named("LoRA", "lora", "B"))
    found = figure(root, Layout("x", metrics=("closed/strict",), points=points))
    with style.styled():
        drawn = picture(found)
    (ax,) = drawn.axes
    (line,) = [line for line in ax.get_lines() if line.get_zorder() == 4]
    assert line.get_linestyle() == "None"
    assert list(line.get_ydata()) == pytest.approx([30, 60])
    assert [text.get_text() for text in ax.texts] == ["A", "B"]
    assert "single seeds" not in [text.get_text() for text in drawn.legends[0].get_texts()]


def test_files_hold_the_words_and_are_the_same_each_time(made, root, drawn):
    for seed in (0, 1):
        made("a3tune", 7 + seed, seed=seed)
        made("lora", 3, seed=seed)
    text = drawn("ablation", "5b", "--task", "phantom", "--out", root)
    for words in ("Heads aligned, R", "R of a3tune", "single seeds", "backbone phantom"):
        assert words in text
    assert "Open (recall/paper), n = 10, 10 images" in text
    assert "Closed (closed/paper), n = 10, 10 images" in text


def test_what_is_left_out_is_told_on_stderr(made, root, medbench, tmp_path):
    made("a3tune[R=0]")
    path = tmp_path / "a.png"
    words = ("--task", "phantom", "--out", root, "--output", path)
    code, out, err = medbench("plot", "ablation", "5b", *words)
    assert (code, out) == (0, f"{path}\n")
    left_out, command = err.splitlines()
    assert "R = 16, 32, 64, 128, 256, lora" in left_out
    assert "medbench run --method" in command


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["ablation", "5c", "--output", "a.png"], "no figure '5c'"),
        (["ablation", "8", "--output", "a.jpg"], "cannot draw to a.jpg"),
        (["ablation", "8", "--output", "nowhere/a.png"], "no folder nowhere"),
        (["ablation", "8", "--output", "a.png"], "no runs in results/runs"),
        (
            ["ablation", "8", "--method", "vcd", "--output", "a.png"],
            "the figure 8 says itself which methods it shows",
        ),
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
