"""Where runs look: toy runs over drawn images that are no squares, and the picture of them."""

import json
import re

import numpy as np
import pytest

import medbench as package
from medbench import choose, store
from medbench.errors import UserError
from medbench.figures import placement, style
from medbench.figures.attention import arrange
from medbench.figures.attention_picture import picture
from medbench.metrics.attention import decode_map
from medbench.model.geometry import Geometry
from medbench.run_index import find_runs
from tests.bars import write_task

WIDE = {"images": 3, "width": 48, "bar": 16}


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    """Return a working folder with runs of two methods on `street`, and of one on `ward`."""
    folder = tmp_path_factory.mktemp("street")
    write_task(folder, "street", **WIDE)
    write_task(folder, "ward", restricted=True, **WIDE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for method, task in (("greedy", "street"), ("pai", "street"), ("greedy", "ward")):
            package.run(method, task, backbone="toy", device="cpu", dtype="float32")
    return folder


@pytest.fixture
def sides(street, monkeypatch):
    """Return a function from methods to the runs of them on a task."""
    monkeypatch.chdir(street)

    def find(*methods, task="street"):
        root = street / "results" / "runs"
        records = [one for one in find_runs(root) if one.task == task]
        return [choose.side(method, root, records) for method in methods]

    return find


def rows(side):
    return {row["id"]: row for row in store.read_rows(side.runs[0].folder)}


def test_a_panel_is_the_attention_of_a_run_on_a_question(sides):
    both = sides("greedy", "pai")
    found = arrange(both)
    assert found.columns == ("greedy", "pai")
    assert [line.id for line in found.lines] == ["quillon-0-yes", "quillon-1-yes", "quillon-2-yes"]
    for line in found.lines:
        assert line.image.size == (48, 32)
        assert line.region.shape == (32, 48)
        for side, panel in zip(both, line.panels, strict=True):
            row = rows(side)[line.id]
            np.testing.assert_array_equal(panel.attention, decode_map(row["attention"]))
            assert panel.answer == row["output"]
            assert panel.inside == row["scores"]["attention/in_roi"]
            right = row["scores"]["closed/strict" if row["kind"] == "closed" else "recall/strict"]
            assert panel.verdict == {0: "wrong", 1: "right"}.get(right, "partly right")
    assert found.note.startswith("Task street; backbone toy; preset matched.")


def test_patches_lie_where_the_backbone_put_them(sides):
    """The toy's own geometry tells what the regions must have told."""
    backbone = package.load_backbone("toy", device="cpu", dtype="float32")
    (line, *_) = arrange(sides("greedy")).lines
    assert line.panels[0].extent == placement.extent(backbone.geometry.fit, 48, 32)


@pytest.mark.parametrize("fit", placement.FITS)
def test_regions_tell_how_images_were_placed(fit):
    rng = np.random.default_rng(0)
    geometry = Geometry(56, 14, fit, (0, 0, 0), (1, 1, 1))
    masks = [rng.random((30, 50)) > 0.5 for _ in range(4)]
    pairs = [(mask, geometry.mask_to_grid(mask) > 0) for mask in masks]
    assert placement.found(pairs) == {fit}


def test_extents_of_a_wide_image():
    assert placement.extent("squash", 60, 40) == (0, 60, 40, 0)
    assert placement.extent("crop", 60, 40) == (10, 50, 40, 0)
    assert placement.extent("pad", 60, 40) == (0, 60, 50, -10)


def test_samples_that_are_asked_for_stand_in_that_order(sides):
    found = arrange(sides("greedy"), samples=["quillon-2-what", "quillon-0-yes"])
    assert [line.id for line in found.lines] == ["quillon-2-what", "quillon-0-yes"]
    with pytest.raises(UserError, match="has no answer for the sample 'quillon-2-wat'") as caught:
        arrange(sides("greedy"), samples=["quillon-2-wat"])
    assert caught.value.why.startswith("Did you mean quillon-2-what")
    with pytest.raises(UserError, match="has no attention on a region for the sample"):
        arrange(sides("greedy"), samples=["quillon-0-what"])


def test_the_picture_shows_image_outline_and_maps_on_one_scale(sides):
    found = arrange(sides("greedy", "pai"), samples=["quillon-1-yes", "quillon-2-yes"])
    with style.styled():
        drawn = picture(found)
    *panels, first_bar, second_bar = drawn.axes
    assert [ax.get_title() for ax in panels[1:4]] == ["image and region", "greedy", "pai"]
    for at, (line, bar) in enumerate(zip(found.lines, (first_bar, second_bar), strict=True)):
        words, image, *maps = panels[4 * at : 4 * at + 4]
        assert words.get_title(loc="left") == line.id
        assert "gold: yes" in words.texts[0].get_text()
        np.testing.assert_array_equal(image.get_images()[0].get_array(), np.asarray(line.image))
        highest = max(panel.attention.max() for panel in line.panels)
        assert bar.get_ylim() == (0, pytest.approx(100 * highest))
        assert bar.get_title() == "%"
        for ax, panel in zip(maps, line.panels, strict=True):
            _, heat = ax.get_images()
            np.testing.assert_allclose(heat.get_array(), 100 * panel.attention)
            assert heat.get_clim() == (0, pytest.approx(100 * highest))
            assert tuple(heat.get_extent()) == panel.extent
            assert f": {panel.verdict}" in " ".join(ax.get_xlabel().split("\n"))
            assert f"{100 * panel.inside:.0f} % in region" in ax.get_xlabel()
            assert _outlined(ax) == (8 * (at + 1), 8 * (at + 1) + 16, 4, 28)
        assert _outlined(image) == (8 * (at + 1), 8 * (at + 1) + 16, 4, 28)


def _outlined(ax):
    """Return left, right, top and bottom of what is outlined."""
    points = np.concatenate([path.vertices for path in ax.collections[0].get_paths()])
    low, high = points.min(axis=0), points.max(axis=0)
    return tuple(float(value) for value in (low[0], high[0], low[1], high[1]))


def test_a_restricted_task_is_drawn_only_by_name(sides):
    ward = sides("greedy", task="ward")
    with pytest.raises(UserError, match="ward is restricted") as caught:
        arrange(ward)
    assert "--show-restricted" in caught.value.do
    assert len(arrange(ward, show_restricted=True).lines) == 3
    with pytest.raises(UserError) as caught:
        arrange(ward, show_restricted=True, samples=["quillon-2-wat"])
    assert "quillon-2-what" not in " ".join(caught.value.lines())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"preset": "published"}, "different presets"),
        ({"limit": 4}, "different limits"),
        ({"task": {"name": "other"}}, "different tasks"),
    ],
)
def test_runs_of_different_kinds_are_refused(sides, tmp_path, change, told):
    first, second = sides("greedy", "pai")
    copied = _copy(second.runs[0].folder, tmp_path, identity=change)
    with pytest.raises(UserError, match=told):
        arrange([first, choose.side(str(copied), tmp_path)])


def test_data_that_changed_since_the_run_are_refused(sides, street, monkeypatch):
    greedy = sides("greedy")
    folder = street / "moved"
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    write_task(folder, "street", **WIDE)
    source = (folder / "tasks" / "street.py").read_text(encoding="utf-8")
    path = folder / "tasks" / "street.py"
    path.write_text(source.replace("shade: int = 200", "shade: int = 90"), encoding="utf-8")
    with pytest.raises(UserError, match="saw another image of sample quillon-0-yes"):
        arrange(greedy)
    path.write_text(source.replace("quillon", "marmaduke"), encoding="utf-8")
    with pytest.raises(UserError, match="no question of the task has attention"):
        arrange(greedy)
    with pytest.raises(UserError, match="no sample 'quillon-0-yes' with a region"):
        arrange(greedy, samples=["quillon-0-yes"])


def test_runs_without_attention_and_broken_lines_are_told(sides, tmp_path):
    (greedy,) = sides("greedy")
    copied = _copy(greedy.runs[0].folder, tmp_path)
    text = (copied / store.SAMPLES).read_text(encoding="utf-8")
    (copied / store.SAMPLES).write_text(text.replace('"attention":', '"a":'), encoding="utf-8")
    with pytest.raises(UserError, match="holds no attention"):
        arrange([choose.side(str(copied), tmp_path)])
    (copied / store.SAMPLES).write_text(f"{{\n{text}", encoding="utf-8")
    with pytest.raises(UserError, match=r"line 1 of .* is broken"):
        arrange([choose.side(str(copied), tmp_path)])


def _copy(folder, place, *, identity=None):
    """Return a copy of a run whose identity says something else."""
    copied = place / "run"
    copied.mkdir()
    for name in (store.SAMPLES, store.SCORES):
        (copied / name).write_bytes((folder / name).read_bytes())
    run = store.read_run(folder)
    run["identity"] |= identity or {}
    (copied / store.RUN).write_text(json.dumps(run), encoding="utf-8")
    return copied


def test_files_hold_the_words_and_are_the_same_each_time(sides, drawn):
    sides()
    text = drawn("attention", "greedy", "pai", "--task", "street", "--sample", "quillon-1-what")
    for words in ("image and region", "greedy", "pai", "what is 1?", "gold: white bar"):
        assert words in text
    assert re.search(r"\d+ % in region", text)


def test_what_is_not_there_is_told(sides, medbench, tmp_path):
    sides()
    path = tmp_path / "a.png"
    for words, told in (
        (("gredy", "--task", "street"), "no run at 'gredy'"),
        (("greedy",), "'greedy' names runs of several kinds"),
        (("greedy", "--preset", "published"), "no finished runs of published"),
        (("greedy", "--task", "ward"), "ward is restricted"),
    ):
        code, out, err = medbench("plot", "attention", *words, "--output", path)
        assert (code, out) == (2, "")
        assert err.splitlines()[0] == told
        assert len(err.splitlines()) <= 3
    assert not path.exists()
