"""The verb: what the page looks like, what it hides, and its exit codes."""

import json
from pathlib import Path

import pytest

from medbench.counting import counted
from medbench.doctor import examination
from medbench.doctor.finding import Finding, one_line, refused, shortened, size
from medbench.doctor.page import lines, verdict
from medbench.errors import UserError


@pytest.fixture
def parts(monkeypatch):
    """Replace all that needs no question by one finding each, so that a page is short."""

    def give(section, state="good"):
        return lambda *_: iter([Finding(section, state, f"{section} is {state}")])

    monkeypatch.setattr(examination, "check_packages", give("installation"))
    monkeypatch.setattr(examination, "check_torch", lambda: iter(()))
    monkeypatch.setattr(examination, "check_machine", give("machine"))
    monkeypatch.setattr(examination, "check_plugins", lambda: iter(()))
    monkeypatch.setattr(examination, "check_known_answers", give("known answers"))
    return lambda name, section, state: monkeypatch.setattr(examination, name, give(section, state))


def test_the_page_without_questions(medbench, parts):
    assert medbench("doctor") == (
        0,
        "installation\n  ok  installation is good\n\nmachine\n  ok  machine is good\n\n"
        "known answers\n  ok  known answers is good\n\nNothing stands in the way.\n",
        "",
    )


def test_a_problem_is_marked_counted_and_makes_the_exit_code_one(medbench, parts):
    parts("check_machine", "machine", "problem")
    parts("check_torch", "installation", "note")
    code, out, _ = medbench("doctor")
    assert code == 1
    assert "  !!  machine is problem\n" in out and "  --  installation is note\n" in out
    assert out.endswith("\n\n1 problem (!!); 1 note (--).\n")
    assert out.count("installation\n") == 1  # one heading for both of its parts


def test_notes_alone_stand_in_nobodys_way(medbench, parts):
    parts("check_torch", "installation", "note")
    code, out, _ = medbench("doctor")
    assert code == 0
    assert out.endswith("\nNothing stands in the way; 1 note (--).\n")


def test_json_holds_the_same(medbench, parts):
    parts("check_machine", "machine", "problem")
    code, out, err = medbench("doctor", "--json")
    content = json.loads(out)
    assert (code, err, content["problems"]) == (1, "", 1)
    assert content["findings"][1] == {
        "section": "machine", "state": "problem", "what": "machine is problem", "do": "",
    }  # fmt: skip


def test_a_backbone_task_and_method_have_sections_in_order(medbench, parts):
    arguments = ("--backbone", "phantom", "--task", "phantom", "--method", "lora+vcd")
    code, out, _ = medbench("doctor", *arguments, "--device", "cpu")
    assert code == 0, out
    headings = [line for line in out.splitlines() if line and not line.startswith(" ")]
    assert headings == [
        "installation",
        "machine",
        "backbone phantom",
        "task phantom",
        "method lora+vcd",
        "memory and disk",
        "known answers",
        "Nothing stands in the way.",
    ]


def test_the_real_one_answers_what_nothing_is_compared_with(medbench, parts):
    code, out, _ = medbench("doctor", "--backbone", "phantom", "--answer", "--device", "cpu")
    assert code == 0
    said = " ".join(out.split())
    assert "asked of a drawn image" in said and "in float32: loaded in" in said
    assert "GiB of main memory" in said or "MiB of main memory" in said
    assert "there is nothing to compare this with" in said


def test_a_backbone_that_is_not_whole_is_not_asked(medbench, parts):
    code, out, _ = medbench("doctor", "--backbone", "llava-med[weights=nowhere]", "--answer")
    assert code == 1
    assert "asked of" not in out


def test_a_part_that_fails_does_not_keep_the_next_from_its_turn(medbench, parts, monkeypatch):
    def fail(*_):
        yield Finding("machine", "good", "so far so good")
        raise RuntimeError("out of the blue\nwith a second line")

    monkeypatch.setattr(examination, "check_machine", fail)
    code, out, _ = medbench("doctor")
    assert code == 1
    assert "so far so good" in out and "known answers is good" in out
    assert "  !!  this could not be looked at. RuntimeError: out of the blue\n" in out
    assert "second line" not in out


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--backbone", "lava"), "no backbone named 'lava'"),
        (("--method", "vcd[alfa=1]"), "vcd has no parameter 'alfa'"),
        (("--task", "slake["), "cannot read 'slake['"),
        (("--device", "gpu"), "no device 'gpu'"),
        (("--dtype", "int8"), "no dtype 'int8'"),
        (("--batch-size", "0"), "--batch-size 0 makes no sense"),
        (("--fetch",), "--fetch of what?"),
        (("--bckbone", "toy"), "no option '--bckbone'"),
    ],
)
def test_what_is_asked_wrongly_exits_with_two(medbench, arguments, what):
    code, out, err = medbench("doctor", *arguments)
    assert (code, out) == (2, "")
    assert err.splitlines()[0] == what
    assert len(err.splitlines()) <= 3


def test_the_whole_of_it_for_once(elsewhere):
    done = elsewhere("-m", "medbench", "doctor", "--device", "cpu")
    assert done.stderr == ""
    assert "\nknown answers\n  ok  as elsewhere" in done.stdout
    assert done.returncode == ("(!!)" in done.stdout)


def test_help_and_typos_import_nothing_heavy(elsewhere):
    for arguments, code in ((["--help"], 0), (["--backbone", "lava"], 2), (["--fetch"], 2)):
        words = ["doctor", *arguments]
        report = (
            "import sys\nfrom medbench.cli import main\n"
            f"code = main({words!r})\n"
            "print(code, {'torch', 'numpy', 'transformers', 'psutil'} & {*sys.modules})"
        )
        done = elsewhere("-c", report)
        assert done.stdout.splitlines()[-1] == f"{code} set()"


def test_the_home_folder_is_not_told(monkeypatch):
    home = str(Path.home())
    assert shortened(f"in {home}/models and '{home}'") == "in ~/models and '~'"
    assert shortened(f"weights={home}/x,base={home}") == "weights=~/x,base=~"
    assert shortened(f"{home}-too, /mnt{home}/x") == f"{home}-too, /mnt{home}/x"
    found = refused(f"method lora[adapter={home}/a]", UserError(f"no {home}/a", "", f"See {home}."))
    assert home not in repr(found)
    monkeypatch.setenv("HOME", "/")
    assert shortened("/models") == "/models"


def test_an_error_is_one_sentence_and_what_to_do():
    found = refused("x", UserError("what", "Why so.", "Do this."), "Or that.")
    assert (found.what, found.do, found.state) == ("what. Why so", "Do this. Or that.", "problem")
    assert refused("x", UserError("what")).what == "what"


def test_long_lines_are_broken_and_commands_are_not():
    command = "hf download " + "x" * 150
    whole = lines(Finding("x", "problem", "word " * 40, command))
    assert whole[0].startswith("  !!  word") and all(len(line) <= 98 for line in whole[:-1])
    assert all(line.startswith("      word") for line in whole[1:-1])
    assert whole[-1] == f"      -> {command}"
    long = "/" + "y" * 200
    assert lines(Finding("x", "good", long)) == [f"  ok  {long}"]


def test_an_exception_is_told_in_one_line():
    assert one_line(ImportError("\nno package of that name\nand more")) == (
        "ImportError: no package of that name"
    )
    assert one_line(ValueError()) == "ValueError"


def test_words():
    assert [size(count) for count in (0, 999, 1000, 2**20, 3.5 * 2**30, 2**40)] == [
        "0 B", "999 B", "1 KiB", "1.0 MiB", "3.5 GiB", "1.0 TiB",
    ]  # fmt: skip
    assert [counted(1, "file"), counted(2, "file"), counted(0, "copy", "copies")] == [
        "1 file", "2 files", "0 copies",
    ]  # fmt: skip
    two = [Finding("x", "problem", ""), Finding("x", "note", ""), Finding("x", "problem", "")]
    assert verdict(two) == "2 problems (!!); 1 note (--)."
