"""Plugins: found by reading, from four places; their typed values; what is broken."""

import hashlib
import os
import sys
from pathlib import Path
from types import MappingProxyType

import pytest

import medbench
from medbench import plugins
from medbench.errors import UserError
from medbench.spec import parse

DECODER = '''"""Module."""
from dataclasses import dataclass
from typing import Literal

from medbench import Decoder

Rule = Literal["left", "Right-most"]
DEFAULT = 3


@dataclass(frozen=True)
class Mine(Decoder):
    """Does nothing much.

    More of it.

    Args:
        rate: how fast; count: how many,
            in words.
        rule, layers: of both.
    """

    name = "mine"
    needs = ("attention",)
    variants = {"official": {"rate": 2, "layers": (1, 2)}}

    rate: float = 2 / 4
    count: int = DEFAULT
    flag: bool = False
    text: str = ""
    rule: Rule = "left"
    limit: int | None = None
    layers: tuple[int, ...] = (0,)
    pair: tuple[int, float] = (1, 0.5)
    R: int = 1
'''
METHOD = """
from medbench import Decoder
class A(Decoder):
    "Summary."
    name = "{name}"
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Work in an empty folder, with no plugins from outside."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MEDBENCH_PLUGINS", raising=False)
    return folder


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def only(kind, name):
    (plugin,) = [plugin for plugin in plugins.find(kind) if plugin.name == name]
    return plugin


@pytest.fixture
def mine(elsewhere):
    write(elsewhere / "methods" / "mine.py", DECODER)
    return plugins.get("method", "mine")


# Finding


def test_every_built_in_plugin_is_sound():
    for kind in plugins.FOLDERS:
        assert {p.name: p.broken for p in plugins.find(kind) if p.broken} == {}
    assert {"greedy", "vcd"} <= {plugin.name for plugin in plugins.find("method")}


def test_a_file_says_what_it_is(mine):
    assert (mine.kind, mine.origin, mine.class_name, mine.role) == (
        "method", "working folder", "Mine", "decoder",
    )  # fmt: skip
    assert mine.summary == "Does nothing much."
    assert mine.attributes["needs"] == ("attention",)
    assert mine.attributes["image"] == "own"  # of the base class
    names = [parameter.name for parameter in mine.parameters]
    assert names[:4] == ["select", "temperature", "top_k", "top_p"]
    assert names[4:7] == ["repetition_penalty", "beams", "length_norm"]
    assert names[7:] == ["rate", "count", "flag", "text", "rule", "limit", "layers", "pair", "R"]
    assert mine.parameter("rate").default == 0.5
    assert mine.parameter("count").default == 3
    assert mine.parameter("rule").choices == ("left", "Right-most")
    assert mine.parameter("rate").help == "how fast"
    assert mine.parameter("count").help == "how many, in words."
    assert mine.parameter("layers").help == "of both."


def test_four_places(elsewhere, tmp_path, monkeypatch):
    write(elsewhere / "methods" / "a.py", METHOD.format(name="here"))
    write(tmp_path / "p" / "methods" / "b.py", METHOD.format(name="variable"))
    write(tmp_path / "q" / "methods" / "c.py", METHOD.format(name="second"))
    monkeypatch.setenv("MEDBENCH_PLUGINS", f"{tmp_path / 'p'}{os.pathsep}{tmp_path / 'q'}")
    installed = tmp_path / "site"
    write(installed / "ours" / "__init__.py", "raise RuntimeError('imported while listing')")
    write(installed / "ours" / "deep" / "d.py", METHOD.format(name="installed"))
    write(
        installed / "ours-1.dist-info" / "entry_points.txt",
        "[console_scripts]\nx = ours:main\n\n[medbench.methods]\nD = ours.deep.d:A\n",
    )
    monkeypatch.syspath_prepend(str(installed))
    origins = {plugin.name: plugin.origin for plugin in plugins.find("method")}
    assert origins["here"] == "working folder"
    assert origins["variable"] == origins["second"] == "MEDBENCH_PLUGINS"
    assert origins["installed"] == "entry point D"
    assert origins["greedy"] == "built-in"
    assert "ours" not in sys.modules


def test_an_entry_point_loads_its_module(tmp_path, monkeypatch):
    installed = tmp_path / "site"
    write(installed / "theirs.py", METHOD.format(name="theirs"))
    write(
        installed / "theirs-1.dist-info" / "entry_points.txt",
        "[medbench.methods]\ntheirs = theirs:A\nlost = gone.away:B\n",
    )
    monkeypatch.syspath_prepend(str(installed))
    _, instance = plugins.create("method", parse("theirs"))
    assert type(instance) is sys.modules["theirs"].A
    assert "'gone.away'" in only("method", "lost").broken


def test_listing_runs_nothing(elsewhere):
    write(elsewhere / "methods" / "bomb.py", "raise SystemExit\n" + METHOD.format(name="bomb"))
    assert only("method", "bomb").broken is None
    with pytest.raises(UserError, match="cannot be loaded") as caught:
        plugins.create("method", parse("bomb"))
    assert "SystemExit" in caught.value.why
    assert "bomb.py, line 1" in caught.value.do


def test_a_foreign_folder_of_the_same_name_is_let_be(elsewhere):
    before = plugins.find("task")
    write(elsewhere / "tasks" / "celery.py", "def send(): ...\n")
    write(elsewhere / "methods" / "_shared.py", METHOD.format(name="shared"))
    assert plugins.find("task") == before
    assert "shared" not in [plugin.name for plugin in plugins.find("method")]


def test_a_copy_of_a_built_in_counts_once(elsewhere):
    greedy = plugins.get("method", "greedy")
    write(elsewhere / "methods" / "copy.py", greedy.path.read_text(encoding="utf-8"))
    assert plugins.get("method", "greedy") == greedy


def test_two_of_one_name_are_an_error_that_names_both(elsewhere):
    path = write(elsewhere / "methods" / "own.py", METHOD.format(name="GREEDY"))
    with pytest.raises(UserError) as caught:
        plugins.get("method", "greedy")
    assert "greedy.py" in caught.value.why
    assert str(path.relative_to(elsewhere)) in caught.value.why
    broken = [p.broken for p in plugins.find("method") if p.name.lower() == "greedy"]
    assert len(broken) == 2
    assert all("same name" in why for why in broken)
    assert plugins.get("method", "vcd").broken is None


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("class A(Decoder:\n", "syntax error in line"),
        ("x = 1\n", "no class derived from Decoder or Tuner"),
        ("class A:\n    name = 'a'\n", "no class derived from"),
        ("class A(Task):\n    name = 'a'\n", "does not derive from Decoder or Tuner"),
        ("class A(Decoder):\n    name = 'a' + str(1)\n", "'name' is not a literal"),
        ("class A(Decoder):\n    name = 'a'\n    needs = set()\n", "'needs' is not a literal"),
        ("class A(Decoder):\n    name = 'a'\n    needs = 'roi'\n", "'roi', which is no tuple"),
        ("class A(Decoder):\n    name = 'a'\n    x: int = 1\n", "is no @dataclass"),
        ("@dataclass\nclass A(Decoder):\n    name = 'a'\n    x: int = 'b'\n", "whole number"),
        ("@dataclass\nclass A(Decoder):\n    name = 'a'\n    x: set[int] = 1\n", "set[int]"),
        ("@dataclass\nclass A(Decoder):\n    name = 'a'\n    variant: int = 1\n", "'variant'"),
        ("class A(Decoder):\n    name = 'a'\n    variants = {'b': {'c': 1}}\n", "no parameter"),
        ("class A(Decoder):\n    name = 'a'\n    variants = {'b': 1}\n", "no dict"),
        ("class A(Decoder):\n    name = 'a'\n    variants = {'b': {'beams': 'x'}}\n", "expects"),
        ("class A(Decoder):\n    name = 'a'\n    variants = {'paper': {'beams': 2}}\n", "paper"),
        ("class A(Decoder):\n    name = 'a'\n    published = {'select': 'best'}\n", "one of"),
        ("class A(B):\n    name = 'a'\nclass B(A):\n    pass\n", "circle"),
        ("@dataclass\nclass A(Decoder):\n    name = 'a'\n    x: 'in t' = 1\n", "cannot be read"),
        ("A = B\nB = A\nclass C(Decoder):\n    name = 'a'\n    paper = A\n", "not a literal"),
        (
            "BASE = {}\nclass C(Decoder):\n    name = 'a'\n    variants = {**BASE}\n",
            "not a literal",
        ),
    ],
)
def test_a_broken_file_says_why_and_hurts_no_other(elsewhere, body, why):
    head = "from dataclasses import dataclass\nfrom medbench import Decoder, Task\n"
    write(elsewhere / "methods" / "a.py", head + body)
    plugin = only("method", "a")
    assert why in plugin.broken
    assert "\n" not in plugin.broken
    assert plugins.get("method", "vcd").broken is None
    with pytest.raises(UserError, match="'a' is broken"):
        plugins.get("method", "a")


def test_inheriting_from_another_file(elsewhere):
    write(
        elsewhere / "methods" / "double.py",
        """
from dataclasses import dataclass
from medbench.methods.vcd import VCD
@dataclass(frozen=True)
class Double(VCD):
    "Twice."
    name = "double"
    alpha: float = 2.0
""",
    )
    plugin, instance = plugins.create("method", parse("double[beta=0.3]"))
    above = plugins.get("method", "vcd")
    assert plugin.role == "decoder"
    assert plugin.attributes["needs"] == above.attributes["needs"]
    assert [p.name for p in plugin.parameters] == [p.name for p in above.parameters]
    assert (instance.alpha, instance.beta) == (2.0, 0.3)
    assert type(instance).__mro__[1] is plugins.load(above)
    # What is inherited moves answers, so it is part of the hash.
    alone = plugin.path.read_bytes()
    assert plugins.source_hash(plugin) != hashlib.sha256(alone).hexdigest()


def test_a_class_may_be_called_as_the_one_it_derives_from(elsewhere):
    source = "from medbench.methods.vcd import VCD\nclass VCD(VCD):\n    name = 'again'\n"
    write(elsewhere / "methods" / "again.py", source)
    plugin, instance = plugins.create("method", parse("again[alpha=3]"))
    assert (plugin.role, instance.alpha) == ("decoder", 3.0)


def test_several_metrics_in_a_file_and_none_in_a_helper(elsewhere):
    write(
        elsewhere / "metrics" / "many.py",
        """
from medbench import Metric
class Base(Metric):
    kinds = ("open",)
class First(Base):
    "One."
    name = "many/one"
    golden = (("a b c", "a b", 2 / 3),)
class Second(Base):
    "Two."
    name = "many/two"
""",
    )
    write(elsewhere / "metrics" / "helper.py", "# for medbench\nclass Helper:\n    name = 'x'\n")
    names = [plugin.name for plugin in plugins.find("metric")]
    assert {"many/one", "many/two"} <= set(names)
    assert "x" not in names
    first = plugins.get("metric", "many/one")
    assert first.attributes["golden"] == (("a b c", "a b", 2 / 3),)
    assert first.attributes["kinds"] == ("open",)
    assert plugins.load(first).name == "many/one"


# Asking


def test_an_unknown_name_asks_back():
    with pytest.raises(UserError) as caught:
        plugins.get("method", "vdc")
    assert caught.value.lines() == [
        "no method named 'vdc'", "Did you mean vcd?", "See: medbench list methods",
    ]  # fmt: skip


def test_nothing_close_is_not_guessed():
    with pytest.raises(UserError) as caught:
        plugins.get("task", "qqqqqq")
    assert caught.value.why == ""


def test_the_class_defaults(mine):
    assert plugins.values(mine, parse("mine")) == {
        "select": "preset", "temperature": 1.0, "top_k": 0, "top_p": 1.0,
        "repetition_penalty": 1.0, "beams": 1, "length_norm": "generated",
        "rate": 0.5, "count": 3, "flag": False, "text": "", "rule": "left", "limit": None,
        "layers": (0,), "pair": (1, 0.5), "R": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("rate=2", "rate", 2.0),
        ("rate=1e-3", "rate", 0.001),
        ("count=-4", "count", -4),
        ("flag=True", "flag", True),
        ("flag=yes", "flag", True),
        ("flag=ON", "flag", True),
        ("flag=1", "flag", True),
        ("flag=False", "flag", False),
        ("flag=no", "flag", False),
        ("flag=off", "flag", False),
        ("flag=0", "flag", False),
        ("text=a/b", "text", "a/b"),
        ("text=none", "text", "none"),
        ("rule=RIGHT_most", "rule", "Right-most"),
        ("limit=none", "limit", None),
        ("limit=7", "limit", 7),
        ("layers=0/2/4", "layers", (0, 2, 4)),
        ("layers=5", "layers", (5,)),
        ("layers=", "layers", ()),
        ("pair=3/4", "pair", (3, 4.0)),
        ("r=9", "R", 9),
        ("TOP-K=50", "top_k", 50),
    ],
)
def test_written_values_are_typed(mine, text, name, value):
    result = plugins.values(mine, parse(f"mine[{text}]"))[name]
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("text", "expects"),
    [
        ("rate=fast", "a number"),
        ("rate=nan", "a number"),
        ("rate=inf", "a number"),
        ("rate=", "a number"),
        ("count=1.5", "a whole number"),
        ("flag=maybe", "true or false"),
        ("rule=up", "one of left, Right-most"),
        ("limit=some", "a whole number or none"),
        ("layers=0/x", "values separated by '/', each a whole number"),
        ("pair=1", "2 values separated by '/': a whole number, a number"),
    ],
)
def test_a_malformed_value_says_what_is_expected(mine, text, expects):
    with pytest.raises(UserError) as caught:
        plugins.values(mine, parse(f"mine[{text}]"))
    assert text in caught.value.what
    assert f"expects {expects}" in caught.value.why


def test_an_unknown_parameter_asks_back(mine):
    with pytest.raises(UserError) as caught:
        plugins.values(mine, parse("mine[conut=1]"))
    assert caught.value.what == "mine has no parameter 'conut'"
    assert caught.value.why == "Did you mean count?"
    assert "layers" in caught.value.do


def test_precedence_written_variant_task_class(mine):
    defaults = {"rate": 7, "count": 8, "foreign": 1, "layers": [9]}
    task = plugins.values(mine, parse("mine"), defaults)
    assert (task["rate"], task["count"], task["layers"]) == (7.0, 8, (9,))
    assert "foreign" not in task
    variant = plugins.values(mine, parse("mine[variant=Official]"), defaults)
    assert (variant["rate"], variant["count"], variant["layers"]) == (2.0, 8, (1, 2))
    written = plugins.values(mine, parse("mine[variant=official,rate=3]"), defaults)
    assert (written["rate"], written["layers"]) == (3.0, (1, 2))
    paper = plugins.values(mine, parse("mine[variant=paper]"), MappingProxyType({}))
    assert paper == plugins.values(mine, parse("mine"))


def test_an_unknown_variant_lists_them(mine):
    with pytest.raises(UserError) as caught:
        plugins.values(mine, parse("mine[variant=oficial]"))
    assert caught.value.why == "Did you mean official?"
    assert caught.value.do == "It has: paper, official."


def test_a_default_of_the_wrong_type_is_refused(mine):
    with pytest.raises(UserError, match="as a default"):
        plugins.values(mine, parse("mine"), {"count": True})


def test_a_value_that_must_be_given(elsewhere):
    write(
        elsewhere / "backbones" / "far.py",
        """
from dataclasses import dataclass
from medbench import Checkpoint
@dataclass(frozen=True)
class Far(Checkpoint):
    "Far."
    name = "far"
    weights: str
""",
    )
    with pytest.raises(UserError, match="needs a value for 'weights'"):
        plugins.create("backbone", parse("far"))
    assert plugins.create("backbone", parse("far[weights=x]"))[1].weights == "x"


# Loading


def test_a_class_keeps_its_identity(mine):
    assert plugins.load(mine) is plugins.load(mine)
    greedy = plugins.load(plugins.get("method", "greedy"))
    assert greedy.__module__ == "medbench.methods.greedy"
    assert issubclass(greedy, medbench.Decoder)


def test_files_of_one_stem_do_not_mix(elsewhere, tmp_path, monkeypatch):
    write(elsewhere / "methods" / "same.py", METHOD.format(name="one"))
    write(tmp_path / "p" / "methods" / "same.py", METHOD.format(name="two"))
    monkeypatch.setenv("MEDBENCH_PLUGINS", str(tmp_path / "p"))
    assert plugins.create("method", parse("one"))[1].name == "one"
    assert plugins.create("method", parse("two"))[1].name == "two"


def test_a_changed_file_is_read_again(mine):
    assert plugins.create("method", parse("mine"))[1].rate == 0.5
    write(mine.path, DECODER.replace("2 / 4", "3.0"))
    assert plugins.create("method", parse("mine"))[1].rate == 3.0


def test_a_change_of_the_same_length_in_the_same_second_is_seen(mine, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)

    def rewritten(rate):
        mine.path.write_text(DECODER.replace("2 / 4", rate), encoding="utf-8")
        os.utime(mine.path, (1_000_000_000, 1_000_000_000))
        return plugins.load(plugins.get("method", "mine"))().rate

    assert [rewritten("1 / 4"), rewritten("3 / 4")] == [0.25, 0.75]


def test_failing_files_become_user_errors(elsewhere):
    write(elsewhere / "methods" / "a.py", "import no_such_thing\n" + METHOD.format(name="a"))
    with pytest.raises(UserError, match="cannot be loaded") as caught:
        plugins.create("method", parse("a"))
    assert "'no_such_thing'" in caught.value.do
    refuses = "    def __post_init__(self):\n        raise ValueError('too small')\n"
    source = DECODER.replace('"mine"', '"picky"') + "\n" + refuses
    write(elsewhere / "methods" / "b.py", source)
    with pytest.raises(UserError) as caught:
        plugins.create("method", parse("picky"))
    assert caught.value.why == "too small."


def test_the_hash_is_of_the_file_but_not_of_its_line_ends(mine):
    before = plugins.source_hash(mine)
    mine.path.write_bytes(DECODER.replace("\n", "\r\n").encode())
    assert plugins.source_hash(mine) == before
    write(mine.path, DECODER + "# more\n")
    assert plugins.source_hash(mine) != before
