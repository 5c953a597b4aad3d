"""Where targets come from, seen from a run: specs in specs, keys, needs, files of one's own."""

from __future__ import annotations

import json

import pytest

from medbench import spec
from medbench.cell import Request, plan
from medbench.errors import UserError

PROVIDER = '''
"""The upper half of every image."""

from dataclasses import dataclass

import numpy as np

from medbench.provider import Region, Regions


@dataclass(frozen=True)
class UpperPart(Regions):
    """The upper part of every image.

    Args:
        share: of its height.
    """

    name = "upper-part"
    unkeyed = ("note",)

    share: float = 0.5
    note: str = ""

    def open(self, samples, around):
        around.progress(len(samples), len(samples), "")
        mask = np.zeros((8, 8), bool)
        mask[: int(8 * self.share)] = True
        return lambda sample: [Region(mask, 1.0, (8, 8))]
'''


@pytest.fixture
def own(place):
    """Return the working folder with a provider of one's own in it."""
    (place / "providers").mkdir()
    (place / "providers" / "upper.py").write_text(PROVIDER, encoding="utf-8")
    return place


def planned(method: str, task: str = "mini", backbone: str = "toy", **options):
    return plan(Request(method=method, task=task, backbone=backbone, **options))


def test_a_provider_is_a_file_in_the_working_folder(own, medbench):
    code, out, _ = medbench("list", "providers")
    assert code == 0 and any(
        line.split()[:2] == ["upper-part", "regions"] for line in out.splitlines()
    )
    code, out, _ = medbench("show", "upper-part")
    assert code == 0 and "share  float  0.5  of its height." in out
    words = ["run", "--task", "mini", "--backbone", "toy", "--limit", "3"]
    code, _, err = medbench(*words, "--method", "a3tune[labels=upper-part[share=0.25]]")
    assert code == 0, err
    (record,) = own.glob("results/runs/adapters/mini/toy/a3tune/*/adapter.json")
    told = json.loads(record.read_text(encoding="utf-8"))
    assert told["samples_with"]["segments"] == told["samples"]
    assert told["identity"]["supervision"]["labels"]["parameters"] == {"share": 0.25}


def test_what_moves_the_labels_moves_the_key_and_what_does_not_does_not(own):
    base = planned("a3tune[labels=upper-part]").key
    assert planned("a3tune[labels=upper-part[share=0.5]]").key == base
    assert planned("a3tune[labels=Upper_Part[note=x]]").key == base
    assert planned("a3tune[labels=upper-part[share=0.25]]").key != base
    assert planned("a3tune[labels=roi]").key != base
    source = own / "providers" / "upper.py"
    source.write_text(PROVIDER.replace("8 * self.share", "8 * self.share + 1"), encoding="utf-8")
    assert planned("a3tune[labels=upper-part]").key != base


def test_labels_that_are_not_used_move_nothing(own):
    base = planned("a3tune[align_weight=0,labels=roi]")
    assert base.providers == {}
    assert planned("a3tune[align_weight=0,labels=wrong]").key == base.key
    # Not even weights that are not there are asked for.
    assert planned("a3tune[align_weight=0,labels=sam-biomedclip]").key == base.key


def test_tables_show_labels_without_their_paths(own):
    cell = planned("a3tune[labels=upper-part[share=0.25,note=/some/where]]")
    assert cell.display["method"] == 'a3tune[labels="upper_part[share=0.25]"]'
    assert planned("a3tune[labels=roi]").display["method"] == "a3tune[labels=roi]"


@pytest.mark.parametrize(
    ("method", "what", "why"),
    [
        ("a3tune[labels=rois]", "no provider named 'rois'", "Did you mean roi?"),
        ("a3tune[labels=wrong[by=2]]", "wrong has no parameter 'by'", ""),
        ("a3tune[labels=wrong[shift=far]]", "wrong cannot take shift=far", ""),
        ("a3tune[labels=open_clip]", "a3tune cannot take labels=open_clip", "Take one of"),
        ("a3tune[labels=sam-biomedclip]", "sam-biomedclip needs the weights of a SAM", ""),
        ("a3tune[labels=roi", "cannot read", "not closed"),
    ],
)
def test_a_mistake_in_a_spec_in_a_spec_is_said_before_anything_loads(place, method, what, why):
    with pytest.raises(UserError) as error:
        planned(method)
    assert error.value.what.startswith(what)
    assert why in " ".join(error.value.lines())


def test_the_datas_regions_need_data_with_regions(files):
    with pytest.raises(UserError, match="cannot run") as error:
        planned("a3tune[labels=roi,epochs=1,align_weight=0.1]", task="filed", data=str(files))
    assert "roi" in error.value.why


def test_a_grid_inside_a_spec_in_a_spec():
    assert list(spec.expand("a3tune[K=1|2,labels=wrong[shift=0.2|0.3]]")) == [
        f'a3tune[k={k},labels="wrong[shift={shift}]"]' for k in (1, 2) for shift in (0.2, 0.3)
    ]
    assert list(spec.expand("a3tune[labels=roi|wrong[shift=0.2]]")) == [
        "a3tune[labels=roi]",
        'a3tune[labels="wrong[shift=0.2]"]',
    ]
