"""What a page holds: the answers side by side, the pictures, the regions, and what is left out."""

import base64
import hashlib
import io
import json

import numpy as np
import pytest
from PIL import Image

from medbench.errors import UserError
from medbench.loading import load_task
from medbench.metrics.attention import encode_mask
from medbench.model.geometry import Geometry
from medbench.viewer.joined import TROUBLES, VERDICTS

SECRETS = ("quillon", "marmaduke", "xanadu", "zephyrine", "peregrine", "bar")


def samples_of(task="gallery"):
    return list(load_task(task).samples("test"))


def test_answers_stand_side_by_side(made, gathered):
    made("greedy")
    made("vcd", lambda sample, number: "white" if sample.kind == "open" else "no")
    index = gathered("greedy", "vcd").index
    samples = samples_of()
    assert index["samples"]["id"] == [sample.id for sample in samples]
    assert index["samples"]["gold"] == [sample.answer for sample in samples]
    greedy, vcd = index["answers"]
    assert {VERDICTS[place] for place in greedy["verdict"]} == {"right"}
    kinds = zip(index["samples"]["kind"], vcd["verdict"], vcd["score"], strict=True)
    found = {(kind, VERDICTS[place], score) for kind, place, score in kinds}
    assert found == {("closed", "wrong", 0.0), ("open", "partly right", 0.5)}
    assert vcd["output"][:2] == ["no", "white"]
    assert [run["name"] for run in index["runs"]] == ["greedy", "vcd"]


def test_reports_are_ordered_by_a_metric_but_not_judged(made, gathered):
    made(change=lambda row: row.update(kind="report"))
    folder = made("vcd", finished=False, change=lambda row: row.update(kind="report"))
    lines = (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    for at, row in enumerate(rows):
        row["scores"] = {"closed/strict": None, "bleu4/coco": at / 10, "rouge_l/coco": 0.5}
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "samples.jsonl").write_text(text, encoding="utf-8")
    index = gathered(folder).index
    (vcd,) = index["answers"]
    assert index["by"] == {"report": "bleu4/coco"}
    assert vcd["score"] == [at / 10 for at in range(8)]
    assert {VERDICTS[place] for place in vcd["verdict"]} == {"not judged"}


def test_samples_of_all_runs_are_shown(made, gathered, detail_of):
    made("vcd", limit=2)
    made("greedy")
    content = gathered("vcd", "greedy")
    vcd, greedy = content.index["answers"]
    assert vcd["verdict"] == [2, 2, *[None] * 6]
    assert vcd["output"][2:] == [None] * 6
    assert greedy["verdict"] == [2] * 8
    assert detail_of(content, 5)["answers"][0] is None
    assert detail_of(content, 5)["answers"][1]["tokens"] == 2


def test_fields_of_few_values_are_filters(made, gathered):
    made(change=lambda row: row["meta"].update(same=1, nothing=None, many=[row["id"]]))
    fields = gathered("greedy").index["samples"]["fields"]
    assert set(fields) == {"modality", "seed", "question_type"}
    assert fields["modality"] == {"values": ["ct", "mri"], "of": [0, 0, 1, 1, 0, 0, 1, 1]}


def test_a_field_of_more_than_20_values_is_none(made, gathered):
    made(task="gallery[images=21]")
    fields = gathered("greedy").index["samples"]["fields"]
    assert set(fields) == {"modality", "question_type"}


def test_troubles_are_marked(made, gathered):
    said = ["", "none", "yes or no", "yes", "yes", "x", "yes", "x"]

    def change(row):
        if row["id"] == "quillon-1-what":
            row["stop"] = "length"

    made(said=lambda sample, number: said[number], change=change)
    (answers,) = gathered("greedy").index["answers"]
    told = [
        [name for bit, name in enumerate(TROUBLES) if bits >> bit & 1]
        for bits in answers["troubles"]
    ]
    assert told == [["empty", "neither"], [], ["both"], ["cut"], [], [], [], []]


def test_each_image_is_held_once_and_small(made, gathered):
    made(task="gallery[images=3,width=64]")
    content = gathered("greedy", size=40)
    assert content.index["samples"]["picture"] == [0, 0, 1, 1, 2, 2]
    ((name, pictures), *_) = content.parts()
    assert name == "pictures-0"
    assert len(pictures) == 3
    for at, (width, height, kind, data) in enumerate(pictures):
        assert (width, height, kind) == (40, 20, "webp")
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.size == (40, 20)
            seen = np.asarray(image.convert("RGB"), float)
        whole = samples_of("gallery[images=3,width=64]")[2 * at].image().resize((40, 20))
        assert np.abs(seen - np.asarray(whole, float)).mean() < 8


def test_a_region_is_drawn_from_its_own_mask(made, gathered, detail_of, filled):
    made()
    content = gathered("greedy")
    for at, sample in enumerate(samples_of()):
        region = detail_of(content, at)["region"]
        if sample.roi is None:
            assert region is None
            continue
        assert (region["width"], region["height"], region["run"]) == (32, 32, None)
        np.testing.assert_array_equal(filled(region["path"], 32, 32), sample.roi())


def test_without_data_the_page_has_all_but_pictures(made, gathered, detail_of, place):
    made()
    (place / "tasks" / "gallery.py").unlink()
    content = gathered("greedy")
    assert content.index["samples"]["picture"] == [None] * 8
    (told,) = content.told
    assert told.startswith("Left out for 8 samples: the image; no task named 'gallery'.")
    assert told.endswith("--data DIR")
    assert [name for name, _ in content.parts()] == ["details-0"]
    region = detail_of(content, 2)["region"]
    assert (region["width"], region["height"], region["run"]) == (4, 4, 0)
    assert "box" not in detail_of(content, 2)["answers"][0]


def test_an_image_with_other_pixels_is_left_out(made, gathered, detail_of):
    def change(row):
        if row["group"] == "marmaduke 1":
            row["image"] = "0" * 64

    made(change=change)
    content = gathered("greedy")
    assert content.index["samples"]["picture"] == [0, 0, None, None, 2, 2, 3, 3]
    (told,) = content.told
    assert told == (
        "Left out for 2 samples: the image; it has other pixels than the one that the runs saw."
    )
    assert detail_of(content, 2)["region"]["run"] == 0


def test_samples_that_the_data_lack_are_counted(made, gathered, place):
    made(task="gallery[images=3]")
    folder = made(
        "vcd", task="gallery[images=3]", change=lambda row: row.update(id=f"{row['id']}!")
    )
    content = gathered(folder)
    assert content.told == ("Left out for 6 samples: the image; the data do not have the sample.",)


def test_a_run_that_saw_another_image_gets_no_overlay(made, gathered, detail_of):
    images = [hashlib.sha256(one.image().tobytes()).hexdigest() for one in samples_of()]
    swapped = dict(zip(images, images[2:] + images[:2], strict=True))
    made("greedy")
    made("shuffled", change=lambda row: row.update(image=swapped[row["image"]]))
    content = gathered("greedy", "shuffled")
    assert content.index["samples"]["picture"] == [0, 0, 1, 1, 2, 2, 3, 3]
    greedy, shuffled = detail_of(content, 2)["answers"]
    assert greedy["box"] is None
    assert shuffled["unplaced"] == "This run saw another image."
    alone = gathered("shuffled")
    assert alone.told == ()
    assert alone.index["samples"]["picture"] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_answers_of_another_program_need_no_hash(made, gathered):
    def change(row):
        for name in ("image", "attention", "roi", "tokens", "stop", "seconds", "forwards"):
            row.pop(name, None)

    made(change=change)
    content = gathered("greedy")
    assert content.index["samples"]["picture"] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert content.told == ()


def rows_placed(fit, task):
    """Return what puts the regions of rows onto the grid as a backbone of some fit would."""
    geometry = Geometry(56, 14, fit, (0, 0, 0), (1, 1, 1))
    regions = {one.id: one.roi for one in samples_of(task)}

    def change(row):
        if "roi" in row:
            row["roi"] = encode_mask(geometry.mask_to_grid(regions[row["id"]]()) > 0)

    return change


@pytest.mark.parametrize(
    ("fit", "box"),
    [("squash", None), ("crop", [0.16667, 0, 0.66667, 1]), ("pad", [0, -0.25, 1, 1.5])],
)
def test_attention_lies_where_the_backbone_saw_it(made, gathered, detail_of, fit, box):
    task = "gallery[images=5,width=48]"
    made(task=task, change=rows_placed(fit, task))
    content = gathered("greedy")
    assert content.told == ()
    assert detail_of(content, 2)["answers"][0]["box"] == box


def test_where_the_fit_cannot_be_told_no_attention_is_drawn(made, gathered, detail_of):
    made(task="gallery[width=48]", change=lambda row: row.update(roi=encode_mask(np.eye(4) > 0)))
    content = gathered("greedy")
    assert "cannot tell where the patches of toy lie" in content.told[0]
    assert "--fit" in content.told[0]
    answer = detail_of(content, 2)["answers"][0]
    assert "cannot tell where" in answer["unplaced"]
    assert "box" not in answer
    told = gathered("greedy", fit="crop")
    assert told.told == ()
    assert detail_of(told, 2)["answers"][0]["box"] == [0.16667, 0, 0.66667, 1]


def test_a_page_of_a_restricted_task_tells_nothing_of_a_patient(made, gathered):
    def change(row):
        row["meta"]["note"] = "peregrine"

    for method in ("greedy", "vcd"):
        made(method, task="ward", restricted=True, change=change, steps=True)
    content = gathered("greedy", "vcd")
    text = json.dumps([content.index, *content.parts()])
    assert [secret for secret in SECRETS if secret in text.replace('"bar', "")] == []
    assert not any(word in text for word in ("picture-", "webp", "jpeg", 'attention":', "pieces"))
    assert content.told[0].startswith("ward is restricted")
    assert content.index["samples"] == {"kind": ["closed", "open"] * 4, "fields": {}}
    assert content.index["answers"][0]["verdict"] == [2] * 8
    shown = gathered("greedy", "vcd", show_restricted=True)
    text = json.dumps([shown.index, *shown.parts()])
    assert [secret for secret in SECRETS if secret not in text] == []
    assert shown.told == ()


def test_what_must_be_known_of_runs_is_told(made, gathered):
    made("greedy", note="Splits are ours.", edition="mirror")
    made("vcd", said=lambda sample, number: "", preset="published", limit=4)
    part = made("dola", finished=False, answered=3)
    index = gathered("greedy", "vcd", part).index
    greedy, vcd, dola = index["runs"]
    assert greedy["alarms"][0] == "mirror: Splits are ours."
    assert any("Fewer than 50 images" in alarm for alarm in greedy["alarms"])
    assert vcd["alarms"][0].startswith("PARTIAL")
    assert any(alarm.startswith("† ") and "100.0 % empty" in alarm for alarm in vcd["alarms"])
    assert dola["alarms"][0].startswith("UNFINISHED: 3 of 8 samples are answered")
    assert "preset matched, vcd of published" in index["differs"][0]
    assert "limit: None or 4" in index["differs"][1]
    assert dict(vcd["facts"])["answers"].startswith("4 answers: 4 empty, 0 cut")
    assert "of 2 to yes-no questions 2 neither yes nor no" in dict(vcd["facts"])["answers"]
    closed = next(one for one in index["scores"] if one["metric"] == "closed/strict")
    assert closed["main"]
    assert closed["cells"][0]["text"].startswith("100.00  [100.00, 100.00]  n=4, 4 images")
    assert closed["cells"][1]["unwell"] == ["100.0 % empty", "100.0 % neither yes nor no"]
    assert closed["cells"][2] == {"text": "", "unwell": []}


def test_the_first_of_several_seeds_says_so(made, gathered):
    for seed in range(3):
        made(seed=seed)
    (run,) = gathered("greedy").index["runs"]
    assert dict(run["facts"])["seed"] == "0, the first of 0-2"


def test_runs_without_any_answer_are_refused(made, gathered):
    with pytest.raises(UserError, match="no samples to show"):
        gathered(made(finished=False, answered=0))
