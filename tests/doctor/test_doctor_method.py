"""A method against backbone and task: needs, layers, providers, and adapters that are there."""

import json
import shutil

import pytest

import medbench
from medbench import UserError
from medbench.doctor.backbone import check_backbone
from medbench.doctor.method import check_method
from medbench.doctor.task import check_task

LACKS = ["segment-anything==1.0", "open_clip_torch>=3.3"]


@pytest.fixture
def check(asked, finished):
    """Return a looker at a method with what is given beside: (findings, what came of it)."""

    def run(**options):
        read = looked = None
        given = asked(**options)
        if given.backbone:
            _, looked = finished(check_backbone(*given.backbone))
        if given.task:
            splits = ("train", "test")
            found = check_task(*given.task, data=given.request.data, splits=splits)
            _, read = finished(found)
        return finished(check_method(given, looked, read))

    return run


@pytest.fixture
def extras(monkeypatch):
    """Return a setter of what medbench[labels] lacks, whatever is installed here."""
    from medbench.doctor import providers

    def lacking(names):
        monkeypatch.setattr(providers, "missing_of", lambda _: list(names))

    return lacking


def test_a_chain_is_told_with_its_needs(check, problems, said):
    found, chain = check(method="lora+vcd", backbone="phantom", task="phantom")
    assert problems(found) == [], said(found)
    text = said(found)
    assert "good the tuner lora, then the decoder vcd" in text
    assert "good what it needs is on offer: training, pixels" in text
    assert "good adapter: to be trained on 1600 questions for 3 epochs" in text
    assert (chain.tuner.name, chain.decoder.name, chain.trained) == ("lora", "vcd", False)


def test_a_tuner_alone_is_decoded_greedily(check):
    _, chain = check(method="lora", backbone="phantom", task="phantom")
    assert chain.decoder.name == "greedy"
    _, chain = check(method="pai", backbone="phantom", task="phantom")
    assert (chain.tuner, chain.decoder.name) == (None, "pai")


def test_needs_that_are_not_on_offer_are_a_problem(check, problems, tmp_path):
    found, _ = check(method="controlmllm", backbone="phantom", task="slake", data=str(tmp_path))
    assert problems(found) == []  # SLAKE has regions, though not here
    found, _ = check(method="controlmllm", backbone="phantom", task="vqa_rad", data=str(tmp_path))
    ((what, do),) = problems(found)
    assert what.startswith("controlmllm cannot run on vqa_rad with phantom. It needs roi")
    assert "medbench list" in do


def test_needs_are_a_note_where_nothing_is_given_to_compare(check, problems):
    found, _ = check(method="controlmllm", backbone="phantom")
    assert problems(found) == []
    assert found[1].state == "note" and found[1].what.startswith("it needs roi: give backbone and")


def test_layers_that_are_not_there_are_a_problem(check, problems):
    method = "medalign[layer=9,expert=open_clip[weights=phantom]]"
    found, _ = check(method=method, backbone="toy", task="phantom")
    assert any(
        what.startswith("medalign cannot run on 2 decoder layers") for what, _ in problems(found)
    )


def test_a_task_that_sets_no_epochs_is_said(check, problems, tmp_path, monkeypatch):
    from medbench.tasks.phantom import Phantom

    monkeypatch.setattr(Phantom, "tuning", {})
    (tmp_path / "tasks").mkdir()
    text = (
        "from dataclasses import dataclass\nfrom medbench.tasks.phantom import Phantom\n"
        '@dataclass(frozen=True)\nclass Bare(Phantom):\n    "Bare."\n    name = "bare"\n'
        "    tuning = {}\n"
    )
    (tmp_path / "tasks" / "bare.py").write_text(text, "utf-8")
    monkeypatch.chdir(tmp_path)
    found, _ = check(method="lora", backbone="toy", task="bare")
    assert problems(found) == [
        ("lora does not know how long to train; bare sets no epochs", 'Write "lora[epochs=N]".')
    ]
    assert problems(check(method="lora[epochs=2]", backbone="toy", task="bare")[0]) == []


def test_weights_of_a_provider_that_are_missing_are_named(check, problems, tmp_path):
    method = "a3tune[labels=sam-biomedclip[sam={},clip=phantom]]"
    missing = method.format(tmp_path / "sam.pth")
    ((what, do),) = problems(check(method=missing, backbone="toy", task="phantom")[0])
    assert what.startswith("labels=sam-biomedclip: no SAM in") and do == "Check the path."
    clip = "a3tune[labels=sam-biomedclip[sam=phantom,clip=hf-hub:owner/clip]]"
    ((what, do),) = problems(check(method=clip, backbone="toy", task="phantom")[0])
    assert what.startswith("labels=sam-biomedclip: owner/clip is not on this machine")
    assert do == "Fetch it once: hf download owner/clip Or run this again with --fetch."


def test_a_clip_described_for_an_older_open_clip_is_named(check, problems, tmp_path, extras):
    from medbench.phantom import LABELS

    extras([])
    clip = shutil.copytree(LABELS / "clip", tmp_path / "clip")
    about = json.loads((clip / "open_clip_config.json").read_text("utf-8"))
    about["model_cfg"]["text_cfg"] |= {"proj": "mlp", "pooler_type": "cls"}
    (clip / "open_clip_config.json").write_text(json.dumps(about), "utf-8")
    method = f"a3tune[labels=sam-biomedclip[sam=phantom,clip={clip}]]"
    assert problems(check(method=method, backbone="toy", task="phantom")[0]) == [
        (
            "labels=sam-biomedclip: its CLIP is described for an older open_clip, "
            "by proj and pooler_type",
            "Fetch it anew, or rename to hf_proj_type and hf_pooler_type.",
        )
    ]


def test_a_provider_whose_targets_are_all_there_needs_no_extra(check, problems, said, extras):
    extras(LACKS)
    found, _ = check(method="a3tune", backbone="phantom", task="phantom")
    assert problems(found) == []
    assert "all targets are there, so that medbench[labels] is not needed" in said(found)


def test_a_provider_that_must_compute_needs_its_extra(check, problems, extras, tmp_path):
    import importlib.util

    method = f"a3tune[labels=sam-biomedclip[side=200,cache={tmp_path}]]"
    extras(LACKS)
    if importlib.util.find_spec("segment_anything") is None:
        ((what, do),) = problems(check(method=method, backbone="phantom", task="phantom")[0])
        assert what.startswith("labels=sam-biomedclip has not all targets of the 1600 training")
        assert 'pip install "medbench[labels]"' in do
    # Without a task, or where only what comes last is missing, nothing is tried.
    extras(["opencv-python-headless"])
    ((what, do),) = problems(check(method=method, backbone="phantom", task="phantom")[0])
    assert what.endswith("computes with opencv-python-headless, which is not installed")
    assert do == 'pip install "medbench[labels]"'
    extras([])
    assert problems(check(method=method, backbone="phantom", task="phantom")[0]) == []


def test_regions_of_the_data_set_need_no_files(check, problems, said, extras):
    extras(LACKS)
    found, _ = check(method="a3tune[labels=roi]", backbone="phantom", task="phantom")
    assert problems(found) == []
    assert "good labels=roi needs no files" in said(found)
    # A task without regions cannot give any.
    found, _ = check(
        method="a3tune[labels=roi]", backbone="phantom", task="vqa_rad", data="nowhere"
    )
    assert any("roi cannot run for a3tune[labels=roi]" in what for what, _ in problems(found))


FEW = '''
from dataclasses import dataclass
from itertools import islice
from medbench.tasks.phantom import Phantom

@dataclass(frozen=True)
class Few(Phantom):
    """A few of the phantom's questions."""

    name = "few"
    passport = {"train": {}, "test": {}}
    examples = ()

    def samples(self, split):
        yield from islice(super().samples(split), 4)
'''


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Return a folder of runs in which a LoRA was trained on the toy."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "few.py").write_text(FEW, "utf-8")
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "runs"
    medbench.run("lora[epochs=1,rank=1]", task="few", backbone="toy", out=out, device="cpu")
    return out


def test_an_adapter_of_the_same_key_is_found(check, trained, said, problems):
    options = {"backbone": "toy", "task": "few", "out": trained}
    method = "lora[epochs=1,rank=1]"
    found, chain = check(method=f"{method}+vcd", **options)
    assert problems(found) == []
    assert chain.trained
    assert f"good adapter of seed 0: trained, in {trained}/adapters/few/toy/lora/" in said(found)
    found, chain = check(method=method.replace("rank=1", "rank=2"), **options)
    assert not chain.trained
    assert "to be trained on 4 questions for 1 epochs; the 1 adapter there are of" in said(found)
    # Given by the user it is compared as a run does.
    (folder,) = (trained / "adapters" / "few" / "toy" / "lora").iterdir()
    given = method.replace("]", f",adapter={folder}]")
    found, chain = check(method=given, **options)
    assert chain.trained and "good adapter given: " in said(found)
    record = json.loads((folder / "adapter.json").read_text("utf-8"))
    (folder / "adapter.json").write_text(json.dumps({**record, "files": "0" * 64}), "utf-8")
    found, chain = check(method=given, **options)
    assert not chain.trained
    assert any("is not the one that was trained" in what for what, _ in problems(found))


def test_an_adapter_given_waits_for_what_it_is_compared_with(check, problems, tmp_path):
    found, chain = check(method=f"lora[adapter={tmp_path}]", backbone="llava-med", task="phantom")
    assert problems(found) == [] and not chain.trained
    assert found[-1].state == "note"


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"method": "vdc"}, "no method named 'vdc'"),
        ({"method": "lora[rnk=2]"}, "lora has no parameter 'rnk'"),
        ({"method": "vcd+lora"}, "'vcd+lora' is not a chain that can run"),
        ({"method": "a3tune[labels=biomedclip]"}, "a3tune cannot take labels=biomedclip"),
        ({"backbone": "llava"}, "no backbone named 'llava'"),
        ({"task": "slak"}, "no task named 'slak'"),
        ({"device": "gpu"}, "no device 'gpu'"),
        ({"dtype": "half"}, "no dtype 'half'"),
        ({"batch_size": 0}, "--batch-size 0 makes no sense"),
    ],
)
def test_what_is_asked_wrongly_is_refused_before_anything_is_looked_at(asked, options, what):
    with pytest.raises(UserError) as error:
        asked(**options)
    assert error.value.what == what
