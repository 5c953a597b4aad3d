"""Fetching from a hub that really answers: what is fetched, what is left, and what goes wrong."""

import json
import os

import pytest

from medbench.doctor.fetch import chosen

MODEL, TOWER = "microsoft/llava-med-v1.5-mistral-7b", "openai/clip-vit-large-patch14-336"
SPEC = "llava-med-1.5"
FETCH = """
import json, sys
from medbench.doctor.fetch import fetch
for one in fetch(sys.argv[1]): print(json.dumps([one.state, one.what, one.do]))
"""


def content(folder):
    """Return the files below a folder by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def repositories(small):
    """Return what the hub holds: a checkpoint and its tower, with what other programs want."""
    one = small("llava_med_1.5")
    others = {
        "README.md": b"# A model",
        "pytorch_model-00001-of-00001.bin": b"pickled twice" * 99,
        "pytorch_model.bin.index.json": b"{}",
        "flax_model.msgpack": b"flax",
        "onnx/model.onnx": b"onnx",
        "onnx/config.json": b"{}",
    }
    tower = {"pytorch_model.bin": b"pickled", "tf_model.h5": b"tensorflow"}
    return {
        MODEL: content(one.checkpoint) | others,
        TOWER: content(one.tower) | tower,
    }


@pytest.fixture
def fetched(elsewhere):
    """Return a function that fetches in a process of its own: what it says."""

    def run(hub_id, **options):
        done = elsewhere("-c", FETCH, hub_id, **options)
        assert done.stdout, done.stderr
        return [tuple(json.loads(line)) for line in done.stdout.splitlines()]

    return run


def test_nothing_is_asked_of_the_hub_without_the_flag(hub, repositories, examined):
    server = hub(repositories)
    code, page = examined("--backbone", SPEC, endpoint=server.endpoint)
    assert code == 1
    assert server.asked == []
    (problem,) = [one for one in page["findings"] if one["state"] == "problem"]
    assert problem["section"] == "backbone llava_med_1.5"
    assert f"{MODEL} is not on this machine" in problem["what"]
    assert problem["do"].startswith(f"Download it: hf download {MODEL}")
    assert problem["do"].endswith("Or run this again with --fetch.")


@pytest.mark.slow
def test_what_the_spec_names_is_fetched_and_then_whole(
    hub, repositories, examined, elsewhere, tmp_path
):
    server = hub(repositories)
    code, page = examined("--backbone", SPEC, "--fetch", endpoint=server.endpoint)
    assert code == 0, page
    told = [one["what"] for one in page["findings"] if one["section"] == "fetching"]
    assert [what.split(":")[0] for what in told] == [MODEL, TOWER]
    assert any("every tensor is there" in one["what"] for one in page["findings"])
    # Of each weight one format, and nothing for other programs.
    names = server.fetched()
    assert not [name for name in names if name.endswith((".bin", ".h5", ".msgpack", ".onnx"))]
    assert names.count("model.safetensors") == 1
    assert {"config.json", "tokenizer.model", "README.md"} <= {*names}
    # The smallest come first, so that what is wrong with a config is known early.
    assert names.index("config.json") < names.index("model-00001-of-00002.safetensors")

    # It is found again without a hub, by the doctor and by a run.
    code, page = examined("--backbone", SPEC, endpoint="http://127.0.0.1:9")
    assert code == 0, page
    where = [one["what"] for one in page["findings"] if one["section"].startswith("backbone")]
    assert any(what.startswith(f"{MODEL} at 0123456789 in {tmp_path}") for what in where)
    command = ("run", "--method", "greedy", "--task", "phantom", "--backbone", SPEC)
    done = elsewhere("-m", "medbench", *command, "--limit", 2, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    # And it is not fetched twice.
    server.asked.clear()
    code, _ = examined("--backbone", SPEC, "--fetch", endpoint=server.endpoint)
    assert (code, server.asked) == (0, [])


def test_a_download_that_breaks_off_goes_on_where_it_was(hub, fetched, tmp_path):
    large = os.urandom(24_000_000)
    server = hub({"owner/large": {"config.json": b"{}", "model.safetensors": large}})
    server.cuts = 1
    ((state, what, _),) = fetched("owner/large", endpoint=server.endpoint)
    assert (state, what.split(",")[0]) == ("good", "owner/large: 2 files")
    first, second = [way for _, path, way in server.sent if _ == "GET" and path.startswith("model")]
    assert first == ""
    assert int(second.removeprefix("bytes=").removesuffix("-")) >= 10_000_000
    (path,) = tmp_path.glob("hf/hub/*/snapshots/*/model.safetensors")
    assert path.read_bytes() == large


def test_after_a_failure_only_what_is_missing_is_fetched(hub, fetched):
    files = {"config.json": b"{}", "a.safetensors": b"1" * 5000, "b.safetensors": b"2" * 200_000}
    server = hub({"owner/model": files})
    server.cuts = 99
    ((state, what, do),) = fetched("owner/model", endpoint=server.endpoint)
    assert state == "problem"
    assert what.startswith("owner/model could not be fetched.")
    assert do == "Run this again: what has come is kept."
    server.cuts = 0
    server.sent.clear()
    ((state, what, _),) = fetched("owner/model", endpoint=server.endpoint)
    assert (state, what.split(",")[0]) == ("good", "owner/model: 1 file")
    assert server.fetched() == ["b.safetensors"]


@pytest.mark.parametrize(
    ("refusal", "what", "do"),
    [
        (
            (403, "GatedRepo"),
            "owner/model is gated: its owners decide who may have it",
            "Ask for access at https://huggingface.co/owner/model, then: hf auth login",
        ),
        (
            (401, "RepoNotFound"),
            "the hub has no owner/model, or not for you",
            "Check the name; if it is private: hf auth login",
        ),
        ((503, ""), "owner/model could not be fetched. HfHubHTTPError: ", "Run this again"),
    ],
)
def test_who_may_not_have_it_is_told_what_to_do(hub, fetched, refusal, what, do):
    server = hub({"owner/model": {"config.json": b"{}"}})
    server.refused["owner/model"] = refusal
    ((state, said, advised),) = fetched("owner/model", endpoint=server.endpoint)
    assert (state, said[: len(what)], advised[: len(do)]) == ("problem", what, do)


def test_without_a_hub_or_offline_it_is_said(fetched):
    ((state, what, do),) = fetched("owner/model", HF_HUB_OFFLINE="1")
    assert (state, do) == ("problem", "unset HF_HUB_OFFLINE")
    ((state, what, _),) = fetched("owner/model")
    assert (state, what[:37]) == ("problem", "owner/model could not be fetched. Con")


def test_what_does_not_fit_the_disk_is_not_begun(hub, elsewhere):
    server = hub({"owner/model": {"config.json": b"{}", "model.safetensors": b"x" * 5000}})
    code = FETCH.replace(
        "from medbench",
        "import shutil\nshutil.disk_usage = lambda _: shutil._ntuple_diskusage"
        "(9, 9, 4000)\nfrom medbench",
        1,
    )
    done = elsewhere("-c", code, "owner/model", endpoint=server.endpoint)
    state, what, do = json.loads(done.stdout)
    assert state == "problem"
    assert what.startswith("owner/model takes 5 KiB; 4 KiB are free in")
    assert "HF_HOME" in do
    assert server.sent == []


@pytest.mark.slow
def test_a_providers_clip_and_its_text_towers_config_are_fetched(hub, small, examined, tmp_path):
    one = small("llava_med_1.5")
    clip = "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"
    text = {"hf_model_name": "owner/bert", "hf_tokenizer_name": "owner/bert"}
    about = json.dumps({"model_cfg": {"text_cfg": text}}).encode()
    server = hub(
        {
            clip: {
                "open_clip_config.json": about,
                "open_clip_pytorch_model.bin": b"1",
                "tokenizer.json": b"{}",
            },
            "owner/bert": {"config.json": b"{}", "vocab.txt": b"a", "pytorch_model.bin": b"2"},
        }
    )
    (tmp_path / "sam.pth").write_bytes(b"3")
    method = "a3tune[align_weight=0.1,epochs=1,labels=sam-biomedclip[sam=sam.pth]]"
    arguments = ("--backbone", one.spec(), "--method", method)
    _, page = examined(*arguments, endpoint=server.endpoint)
    assert f"hf download {clip}" in str(page)
    _, page = examined(*arguments, "--fetch", endpoint=server.endpoint)
    fetched = [one["what"] for one in page["findings"] if one["section"] == "fetching"]
    assert [what.split(":")[0] for what in fetched] == [clip, "owner/bert"]
    assert sorted(server.fetched()) == [
        "config.json",
        "open_clip_config.json",
        "open_clip_pytorch_model.bin",
        "tokenizer.json",
        "vocab.txt",
    ]
    assert f"hf download {clip}" not in str(page)


def test_one_format_of_each_weight_is_chosen():
    both = ["model.safetensors", "pytorch_model.bin", "config.json", "tf_model.h5"]
    assert chosen(both) == ["model.safetensors", "config.json"]
    assert chosen(["pytorch_model.bin", "model.ckpt.index"]) == [
        "pytorch_model.bin",
        "model.ckpt.index",
    ]
    # Each folder for itself: a tower inside a checkpoint may be pickled.
    inside = ["model.safetensors.index.json", "a.safetensors", "vit/pytorch_model.bin", "old.bin"]
    assert chosen(inside) == inside[:3]
    open_clip = ["open_clip_model.safetensors", "open_clip_pytorch_model.bin", "weights.pt"]
    assert chosen(open_clip) == ["open_clip_model.safetensors", "weights.pt"]
    assert chosen(["onnx/config.json", "consolidated.00.pth", "x.gguf"]) == []


@pytest.mark.parametrize("flag", ["--fetch", "--answer"])
def test_nothing_to_fetch_or_to_ask_is_asked_wrongly(medbench, flag):
    code, out, err = medbench("doctor", flag)
    assert (code, out) == (2, "")
    assert err.splitlines()[0] == f"{flag} of what?"
