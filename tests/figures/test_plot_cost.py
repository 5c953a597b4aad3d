"""Score against cost: which methods stand in the figure, what they cost; then the picture."""

import json
from itertools import combinations

import pytest
from matplotlib.colors import to_hex

from medbench import store
from medbench.errors import UserError
from medbench.figures import gather, style
from medbench.figures.cost import arrange
from medbench.figures.cost_picture import picture
from medbench.figures.gather import Asked
from medbench.figures.labels import Box, place

MACHINE = {"machine": "x86_64", "system": "Linux 1", "cores": 2, "threads": 1}
OTHER = {**MACHINE, "cores": 64}


def figure(root, metric="closed/strict", kind="seconds", **asked):
    meant = Asked(**asked)
    return arrange(gather.finished(root, meant), meant, metric=metric, kind=kind)


def test_dots_are_methods_with_their_score_and_seconds(made, root):
    made("greedy", 3, seconds=0.1)
    made("lora+vcd", 6, seconds=0.4)
    made("lora+vcd[alpha=1.0]", 8, seed=1, seconds=0.2)
    made("a3tune", 7, seconds=0.05)
    found = figure(root)
    assert [(dot.label, dot.family) for dot in found.dots] == [
        ("a3tune", "tuned otherwise"),
        ("greedy", "model as it is"),
        ("vcd", "LoRA, then …"),
    ]
    assert [dot.cost for dot in found.dots] == pytest.approx([0.05, 0.1, 0.3])
    assert [dot.cell.value for dot in found.dots] == pytest.approx([0.7, 0.3, 0.7])
    assert found.told == ()


def test_forwards_are_those_of_a_new_token(made, root):
    made("greedy", forwards=2)  # of two tokens
    made("opera", forwards=71)
    found = figure(root, kind="forwards")
    assert [(dot.label, dot.cost) for dot in found.dots] == [("greedy", 1), ("opera", 35.5)]
    assert "Measured on" not in found.note


def test_seconds_of_different_machines_are_refused_and_forwards_are_not(made, root):
    made("greedy")
    made("vcd", hardware=OTHER, forwards=4)
    with pytest.raises(UserError, match="seconds of different machines") as caught:
        figure(root)
    assert caught.value.why.startswith("cores: 2 or 64; see ")
    assert "--cost forwards" in caught.value.do
    assert len(figure(root, kind="forwards").dots) == 2


def test_a_run_that_went_on_elsewhere_is_of_two_machines(made, root):
    folder = made("greedy", hardware=MACHINE)
    made("vcd", hardware=MACHINE)
    run = store.read_run(folder)
    assert "Measured on machine x86_64, cores 2, threads 1, batch size 16." in figure(root).note
    run["continued"] = [{"hardware": MACHINE | {"system": "Linux 2"}}]  # a newer kernel
    (folder / store.RUN).write_text(json.dumps(run), encoding="utf-8")
    assert len(figure(root).dots) == 2
    run["continued"] += [{"hardware": OTHER}]
    (folder / store.RUN).write_text(json.dumps(run), encoding="utf-8")
    with pytest.raises(UserError, match="seconds of different machines"):
        figure(root)


def test_methods_without_the_image_are_told_and_not_drawn(made, root):
    made("greedy", 7)
    made("blind", 5)
    made("lora+shuffled", 4)
    found = figure(root)
    assert [dot.label for dot in found.dots] == ["greedy"]
    assert found.note.startswith("Without the question's image: blind 50.00, lora+shuffled 40.00.")
    assert found.told == ()


def test_long_names_are_numbered_and_told_below(made, root):
    inside = "temperature=0.7,top_p=0.9"
    for method in ("greedy", f"nucleus[{inside}]", f"lora+nucleus[{inside}]", "vcd[alpha=0.5]"):
        made(method)
    found = figure(root)
    assert sorted(dot.label for dot in found.dots) == [
        "greedy", "nucleus[1]", "nucleus[1]", "vcd[alpha=0.5]",
    ]  # fmt: skip
    assert found.note.endswith(f"[1]: [{inside}].")


def test_methods_that_do_not_tell_are_named(made, root):
    made("greedy")
    made("pai", seconds=None)
    assert figure(root).told == ("Left out, no closed/strict or no seconds: pai.",)
    made("vcd")
    text = next(root.glob("*/*/vcd/*/scores.json"))
    text.write_text(text.read_text("utf-8").replace("closed/strict", "other"), encoding="utf-8")
    assert figure(root).told == ("Left out, no closed/strict or no seconds: pai, vcd.",)


def test_runs_that_tell_nothing_are_refused(made, root):
    made("greedy", seconds=None)
    with pytest.raises(UserError, match="no run tells its seconds") as caught:
        figure(root)
    assert caught.value.do == "Take the other: --cost forwards"
    with pytest.raises(UserError, match="no score named 'closed/strct'") as caught:
        figure(root, metric="closed/strct")
    assert caught.value.why.startswith("Did you mean closed/strict")


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"preset": "published"}, "runs of several presets"),
        ({"task": "slake"}, "runs of several tasks"),
        ({"backbone": "toy"}, "runs of several backbones"),
        ({"missing_images": 1}, "not over the same samples"),
    ],
)
def test_runs_that_may_not_be_mixed_are_refused(made, root, other, told):
    made("greedy")
    made("vcd", **other)
    with pytest.raises(UserError, match=told):
        figure(root)


def test_one_task_backbone_and_preset_may_be_asked_for(made, root):
    made("greedy")
    made("vcd", preset="published")
    made("pai", task="slake")
    made("dola", backbone="toy")
    found = figure(root, task="phantom", backbone="phantom", preset="matched")
    assert [dot.label for dot in found.dots] == ["greedy"]


def test_no_runs_of_what_is_asked_for(made, root):
    made("greedy")
    with pytest.raises(UserError, match="no finished runs of published") as caught:
        figure(root, preset="published")
    assert caught.value.why == "There are runs of: phantom with phantom, matched."


def test_a_broken_line_of_a_run_is_told(made, root, medbench, tmp_path):
    folder = made("greedy")
    lines = (folder / store.SAMPLES).read_text(encoding="utf-8").splitlines(keepends=True)
    lines[2] = "{broken\n"
    (folder / store.SAMPLES).write_text("".join(lines), encoding="utf-8")
    words = ("--out", root, "--output", tmp_path / "a.png")
    code, out, err = medbench("plot", "cost", *words)
    assert (code, out) == (2, "")
    assert err.splitlines()[0] == f"line 3 of {folder / store.SAMPLES} is broken"
    assert not (tmp_path / "a.png").exists()


def test_the_picture_has_a_marker_an_interval_and_a_name_each(made, root):
    made("greedy", 3, seconds=0.1)
    made("lora+vcd", 6, seconds=0.4)
    made("a3tune", 7, seconds=0.05)
    found = figure(root)
    with style.styled():
        drawn = picture(found)
    (ax,) = drawn.axes
    dots = {(line.get_xdata()[0], line.get_ydata()[0]): line for line in ax.get_lines()}
    assert list(dots) == [(dot.cost, pytest.approx(100 * dot.cell.value)) for dot in found.dots]
    looks = [(line.get_marker(), to_hex(line.get_color())) for line in dots.values()]
    assert len({marker for marker, _ in looks}) == len({colour for _, colour in looks}) == 3
    assert [bar.get_segments()[0][:, 1].tolist() for bar in ax.collections] == [
        pytest.approx([100 * dot.cell.low, 100 * dot.cell.high]) for dot in found.dots
    ]
    assert [text.get_text() for text in ax.texts] == ["a3tune", "greedy", "vcd"]
    assert ax.get_ylabel() == "closed/strict, percent (n = 10, 10 images)"
    assert (ax.get_xlabel(), ax.get_xscale()) == ("seconds a question", "log")
    legend = [text.get_text() for text in drawn.legends[0].get_texts()]
    assert legend == [
        "model as it is", "LoRA, then …", "tuned otherwise", "95 % interval over images",
    ]  # fmt: skip


def test_methods_of_one_cost_have_an_axis_and_names_too(made, root):
    for right, method in enumerate(("greedy", "vcd", "pai")):
        made(method, right + 4)
    with style.styled():
        drawn = picture(figure(root))
        drawn.draw_without_rendering()
    (ax,) = drawn.axes
    low, high = ax.get_xlim()
    assert 0 < low < 0.1 < high
    boxes = [text.get_window_extent() for text in ax.texts]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    frame = ax.get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)


def test_names_of_crowded_points_do_not_overlap():
    points = [(100.0, 100.0 + 4 * number) for number in range(6)]
    inside = Box(0, 0, 300, 300)
    boxes = place(points, [(40.0, 8.0)] * 6, inside=inside)
    assert not any(one.overlap(other) for one, other in combinations(boxes, 2))
    assert all(box.overlap(inside) == pytest.approx(320) for box in boxes)


def test_files_hold_the_words_and_are_the_same_each_time(made, root, drawn):
    made("greedy", 3)
    made("lora", 6, seconds=0.2)
    text = drawn("cost", "--out", root, "--metric", "closed/paper")
    for words in ("closed/paper against cost", "greedy", "lora", "seconds a question"):
        assert words in text
