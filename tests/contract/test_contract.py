"""The contract: plugins that break it fail where they should, with a word on what to do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
GALLERY = Path(__file__).with_name("gallery")
# A project's own options, which must not get in the way.
FOREIGN = """[pytest]
testpaths = nothing_of_medbench
addopts = --strict-markers --strict-config -ra
filterwarnings = error
xfail_strict = true
"""
ENTRY = "[pytest11]\nmedbench.contract.options = medbench.contract.options\n"
GOOD = ("fine", "good_squares", "leaks_and_says", "short")
# Plugin -> the test that it fails, and words of what is said.
BROKEN = {
    "keeps_state": ("answers_are_the_same_again", "Something is kept from one batch to the next"),
    "keeps_on_itself": ("answers_are_the_same_again", "leaves last_step on the decoder"),
    "mean_of_batch": ("do_not_depend_on_the_batch", "Treat each row for itself"),
    "draws_from_torch": ("shared_randomness", "moves the generator of torch"),
    "draws_from_python": ("shared_randomness", "context.generators('purpose')"),
    "hooks_on": ("model_is_left_as_it_was", "language_model (hooks)"),
    "changes_weights": ("model_is_left_as_it_was", "language_model.lm_head.weight (values)"),
    "not_annotated": ("attributes_are_known", "Write 'alpha: float = 1.0' for a parameter"),
    "not_in_the_key": ("not_in_the_key_moves_no_answer", "Take 'token' out of 'unkeyed'"),
    "keeps_default": ("every_parameter_is_in_the_key", "keeps_default[alpha=2.0] keeps alpha=1.0"),
    "refuses_variant": ("variants_are_accepted", "variant=official of refuses_variant is refused"),
    "needs_nothing_known": ("what_it_needs_is_known", "Did you mean image_span?"),
    "not_a_number": ("answers_are_well_formed", "Bar a token with -inf"),
    "bars_everything": ("answers_are_well_formed", "every token is barred"),
    "looks_at_regions": ("regions_move_only", "needs = ('roi',)"),
    "draws_alike": ("draws_follow_the_seed", "seeds 1 and 2 give the same answers"),
    "No-Words": ("name_can_be_typed", "'No-Words' is no good name"),
    "too_deep": ("answers_are_well_formed", "layer 20 is not there"),
    "moves_base": ("base_weights_stay", "changes the backbone itself: language_model.lm_head"),
    "trains_base": ("base_weights_stay", "trainable: language_model.lm_head.weight"),
    "tuner_hooks_on": ("base_weights_stay", "language_model.model.layers.0 (hooks)"),
    "forgets": ("saved_adapter_answers", "Keep it in parameters or buffers"),
    "mean_of_losses": ("loss_is_one_number", "micro_batch"),
    "one_loss": ("loss_is_one_number", "loss 'length' has the shape () for 4 samples"),
    "tuner_draws": ("training_repeats_itself", "moves the generator of random"),
    "learns_nothing": ("two_steps_train", "change no weight"),
    "infinite": ("two_steps_train", "training fails"),
    "twice": ("ids_are_unique", "2 test samples have the id of test-1"),
    "leaks": ("no_image_is_in_training", "4 groups of test samples"),
    "no_image": ("images_open", "nowhere.png"),
    "no_picture": ("images_open", "a function that returns a PIL image"),
    "no_stamp": ("images_open", "has no stamp"),
    "no_such_metric": ("metrics_score_the_gold", "Did you mean closed/strict"),
    "no_such_sample": ("metrics_score_the_gold", "choice/strict applies to no test sample"),
    "wrong_gold": ("metrics_score_the_gold", "closed/paper gives the gold answers 0.667"),
    "other_kind": ("kind_of_questions", "Take one of open, closed, choice, report"),
    "other_order": ("ids_are_unique", "stand in another order"),
    "not_json": ("texts_are_texts", "the meta of test-0"),
    "no_question": ("texts_are_texts", "the question of test-0"),
    "turned_region": ("regions_fit", "is (24, 20), its image (20, 24)"),
    "grey_region": ("regions_fit", "mask > 0 makes one"),
    "traceback": ("wrong_folder", "users would see this traceback"),
    "no_folder": ("wrong_folder", "Given no folder, users would see this traceback"),
    "private": ("ids_are_unique", "2 test samples have the id of test[0]"),
    "private_image": ("images_open", "This is the image of test[0]"),
    "untrue": ("examples_are_true", "not the first two"),
    "wrong_example": ("golden_examples_hold", "fails its own example"),
    "out_of_range": ("bears_odd_texts", "Its range is 0 to 1"),
    "relative": ("depend_on_its_neighbours", "among others and"),
    "no_example": ("golden_examples_hold", "golden = ((output, gold, value), ...)"),
}


def pytest_in(folder, *arguments):
    """Run pytest in a working folder, with medbench installed there."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name in ("MEDBENCH_PLUGINS", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER"):
        environment.pop(name, None)
    # An installed medbench is found by pytest; a checkout on the path alone has no such file.
    site = folder.parent / "site"
    (site / "options-1.dist-info").mkdir(parents=True, exist_ok=True)
    for name, text in (("METADATA", "Name: options\nVersion: 1\n"), ("entry_points.txt", ENTRY)):
        (site / "options-1.dist-info" / name).write_text(text, encoding="utf-8")
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(site)])
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)


def check(folder, *arguments):
    """Run the contract in a working folder; return its exit code, outcomes by test, and output."""
    report = folder / "report.xml"
    done = pytest_in(folder, "--pyargs", "medbench.contract", f"--junitxml={report}", *arguments)
    found = {}
    for case in ElementTree.parse(report).iter("testcase") if report.is_file() else ():
        failed = [one for one in case if one.tag in ("failure", "error")]
        skipped = case.find("skipped") is not None
        text = "\n".join(f"{one.get('message')}\n{one.text}" for one in failed)
        found[case.get("name")] = "skipped" if skipped else text
    return done.returncode, found, done.stdout + done.stderr


@pytest.fixture
def work(tmp_path):
    """Return an empty working folder."""
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def gallery(tmp_path):
    """Return a working folder with plugins that break the contract, and some that keep it."""
    folder = tmp_path / "work"
    shutil.copytree(GALLERY, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "pytest.ini").write_text(FOREIGN, encoding="utf-8")
    return folder


@pytest.mark.slow
def test_each_plugin_fails_the_test_of_what_it_breaks(gallery):
    wanted = [f"({name} and {test})" for name, (test, _) in BROKEN.items()]
    code, found, output = check(gallery, "-k", " or ".join([*GOOD, *wanted]))
    assert code == 1, output
    for name, (test, words) in BROKEN.items():
        (text,) = [text for case, text in found.items() if test in case and f"[{name}]" in case]
        assert words in text, f"{name}: {text or output}"
        assert "During handling" not in text, text
    assert "4711" not in output
    for name in GOOD:
        own = {case: text for case, text in found.items() if f"[{name}]" in case}
        assert len(own) >= 12
        assert set(own.values()) == {""}, own


def test_nothing_to_check_is_a_failure_that_names_the_places(work):
    code, found, output = check(work)
    assert code == 1
    assert list(found) == ["test_there_is_something_to_check"]
    for place in (work / "methods", work / "tasks", "$MEDBENCH_PLUGINS", "entry points"):
        assert str(place) in output


def test_what_cannot_be_read_fails_with_its_reason(work):
    folder = work / "tasks"
    folder.mkdir()
    begin = 'from medbench import Task\nclass A(Task):\n    name = "{}"\n    {}\n'
    sources = {
        "cut": "from medbench import Task\nclass A(Task:\n",
        "computed": begin.format("computed", "metrics = tuple(['closed/strict'])"),
        "untyped": begin.format("untyped", "language: Language = 'en'"),
        "phantom": begin.format("phantom", ""),
        "fails": "import medbench\nraise RuntimeError('no')\n" + begin.format("fails", ""),
    }
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source, encoding="utf-8")
    code, found, output = check(work, "-k", "read or first_line or made_with")
    assert code == 1
    failed = {name: text for name, text in found.items() if text not in ("", "skipped")}
    expected = {
        "test_it_can_be_read[cut]": "syntax error in line 2",
        "test_it_can_be_read[computed]": "attribute 'metrics' is not a literal",
        "test_it_can_be_read[untyped]": "has the type Language, which cannot be read from text",
        "test_it_can_be_read[phantom]": "has the same name",
        "test_its_first_line_tells_what_it_does[fails]": "Write one sentence under class A",
        "test_it_is_made_with_its_defaults[fails]": "RuntimeError: no",
    }
    assert failed.keys() == expected.keys(), output
    for name, words in expected.items():
        assert words in failed[name]
        assert "During handling" not in failed[name]


def test_plugins_are_named_and_shared_among_processes(gallery):
    words = ("--plugin=phantom-report", "--plugin", "Short", "-n", "2", "-k", "typed")
    code, found, output = check(gallery, *words)
    assert code == 0, output
    assert set(found) == {
        "test_its_name_can_be_typed[phantom_report]",
        "test_its_name_can_be_typed[short]",
    }


def test_what_is_not_there_is_refused_in_a_few_lines(gallery):
    code, _, output = check(gallery, "--plugin", "vdc")
    told = "ERROR: no plugin named 'vdc'\nDid you mean vcd?\nSee: medbench list"
    assert (code, output.strip()) == (4, told)
    data = gallery.parent / "data"
    data.mkdir()
    (gallery / "pytest.ini").unlink()
    code, _, output = check(gallery, "--plugin", "slake", "--data", str(data))
    told = f"ERROR: pytest takes {data} for a folder of tests; write --data={data}"
    assert (code, output.strip()) == (4, told)
    assert list(data.iterdir()) == []


def test_other_runs_of_pytest_have_none_of_its_options(work):
    (work / "conftest.py").write_text(
        "def pytest_addoption(parser):\n"
        "    for name in ('--plugin', '--data', '--shipped'):\n"
        "        parser.addoption(name)\n",
        encoding="utf-8",
    )
    (work / "test_own.py").write_text(
        "def test_own(pytestconfig):\n    assert pytestconfig.getoption('--data') == 'x'\n",
        encoding="utf-8",
    )
    done = pytest_in(work, "--data", "x")
    assert done.returncode == 0, done.stdout


def test_a_task_without_its_files_is_skipped_and_tells_the_option(work):
    code, found, output = check(work, "--plugin", "slake", "-rs")
    assert code == 0, output
    assert "slake needs its official files: give their folder with --data=DIR" in output
    assert found["test_a_wrong_folder_is_a_users_mistake[slake]"] == ""
    assert found["test_it_runs[slake]"] == "skipped"
