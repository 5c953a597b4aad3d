"""Table 1 of the A3Tune paper, printed back from the published numbers by its layout.

The table below was written down from the paper's text, not from our file. The text holds no bold
and no lines: `*` and `_` stand where the paper's caption wants them, at the best and the second of
a column, which has both of the paper's blocks, since both are of one model.
"""

import re
from html.parser import HTMLParser

import pytest

COLUMNS = (
    "SLAKE Open", "SLAKE Closed", "VQA-RAD Open", "VQA-RAD Closed", "PathVQA Open",
    "PathVQA Closed", "IU-Xray Closed", "OmniMedVQA Closed",
)  # fmt: skip
TABLE_1 = """
LLaVA-Med
  LLaVA-Med         41.28   57.75   32.48   68.90   10.34   52.49   72.83   31.79
  Greedy            42.81   60.00  _35.68_  68.11   11.35   52.34   75.00   31.11
  Beam              42.31   61.69   33.57   66.93    9.86   53.79   73.59   30.89
  Nucleus           41.06   61.41   32.64   68.11    9.93   53.17   73.09   30.96
  VCD               39.76   59.44   33.93   66.54   11.17   53.52   74.36   32.89
  DoLa              42.37   59.72  _35.68_  68.50   11.38   52.55   74.87   31.04
  OPERA             40.44   60.00   35.54   68.50    9.77   53.17   75.00   31.72
  AVISC             41.46   59.72   35.43   64.17   11.03   52.20   73.85   32.48
  M3ID              38.85   60.28   35.31   62.60    9.80   52.93   72.32   31.11
  DAMRO             41.33   59.72   32.73   66.54   10.80   51.84   72.19   31.45
  PAI               43.18   60.28   35.10   68.50   11.09   52.46   74.87   32.13
LLaVA-Med + LoRA
  LLaVA-Med + LoRA  80.65   82.82   33.37   66.54   31.92   90.95   83.29   90.65
  Greedy            81.12   85.07   31.88   68.50   33.90   91.86   83.93   90.73
  Beam              81.32  *86.76*  32.55   68.90   33.60  _91.92_  84.06   90.58
  Nucleus           80.18   85.35   31.34   68.50   30.14   90.92   83.41   90.05
  VCD               79.58   84.23   32.96   67.72   30.20   90.86   83.93   90.73
  DoLa              81.84  _86.48_  31.94   68.50  _34.00_  91.86   84.06   90.69
  OPERA             81.25  _86.48_  33.18   68.90   33.64   91.80   84.06   90.42
  AVISC             80.15   85.63   33.66  _69.29_  32.37   90.62   84.06   90.54
  M3ID              79.83   84.79   31.40   68.90   32.47   91.15  _84.95_  90.73
  DAMRO            _82.19_  83.66   32.41   66.14   32.27   90.12   84.69   90.08
  PAI               81.02  *86.76*  32.14   68.11   33.46   91.77   84.31  _90.95_
  A3Tune           *82.36* *86.76* *36.97* *70.87* *34.61* *92.19* *85.97* *91.98*
"""


def expected():
    """Return {(block, method): values with their marks}."""
    found, block = {}, ""
    for line in TABLE_1.strip().splitlines():
        if not line.startswith(" "):
            block = line
            continue
        name, *values = re.split(r"  +| (?=[*_])", line.strip())
        found[block, name] = values
    return found


def from_text(printed):
    """Read `*86.76` and `°86.48` of the paper's columns, which come after ours."""
    found, block = {}, ""
    for line in printed.split("\n\n")[0].splitlines()[4:]:
        if not line.startswith(" "):
            block = line
            continue
        name, *values = re.split(r"  +| (?=[*°])", line.strip())
        marked = [re.sub(r"^°(.*)", r"_\1_", re.sub(r"^\*(.*)", r"*\1*", one)) for one in values]
        assert set(marked[::2]) == {"–"}
        found[block, name] = marked[1::2]
    return found


def from_markdown(printed):
    lines = [line.strip("| ").split(" | ") for line in printed.splitlines() if line[:1] == "|"]
    found = {}
    for block, name, *values in lines[2:]:
        assert set(values[::2]) == {"–"}
        found[block, name] = [
            re.sub(r"<u>(.*)</u>", r"_\1_", one).replace("**", "*") for one in values[1::2]
        ]
    return found


def from_latex(printed):
    found, block = {}, ""
    for line in printed.splitlines():
        if begun := re.search(r"\\textit\{(.*)\}\} \\\\", line):
            block = begun[1]
        elif block and line.endswith(r" \\"):
            name, *values = line.removesuffix(r" \\").split(" & ")
            assert set(values[::2]) == {"--"}
            found[block, name] = [
                re.sub(r"\\textbf\{(.*)\}", r"*\1*", re.sub(r"\\underline\{(.*)\}", r"_\1_", one))
                for one in values[1::2]
            ]
    return {place: ["–" if one == "--" else one for one in row] for place, row in found.items()}


class _Body(HTMLParser):
    """Collects the body's lines: th and td texts, with the marks of b and u."""

    def __init__(self):
        super().__init__()
        self.lines, self.inside, self.mark = [], False, ""

    def handle_starttag(self, tag, attributes):
        self.inside |= tag == "tbody"
        if tag == "tr":
            self.lines.append([])
        self.mark = {"b": "*", "u": "_"}.get(tag, self.mark)

    def handle_endtag(self, tag):
        self.inside &= tag != "tbody"
        self.mark = "" if tag in "bu" else self.mark

    def handle_data(self, data):
        if self.inside and data.strip():
            self.lines[-1].append(f"{self.mark}{data}{self.mark}")


def from_html(printed):
    body = _Body()
    body.feed(printed)
    found, block = {}, ""
    for name, *values in filter(None, body.lines):
        if values:
            found[block, name] = values[1::2]
        else:
            block = name
    return found


READERS = {"text": from_text, "md": from_markdown, "tex": from_latex, "html": from_html}


def test_the_table_as_written_down_is_whole():
    table = expected()
    assert len(table) == 23
    assert {len(values) for values in table.values()} == {8}


@pytest.mark.parametrize("written_as", READERS)
def test_every_value_stands_at_its_place_with_its_mark(place, shown, written_as):
    found = READERS[written_as](shown("1", "--with", "paper", "--format", written_as))
    ours = {key for key in found if key[0] == "Beside the paper"}
    assert {value for key in ours for value in found[key]} == {"–"}
    assert {name for _, name in ours} == {
        "ControlMLLM", "MedAlign", "A3Tune, 5 beams", "no image", "another image",
    }  # fmt: skip
    assert {key: row for key, row in found.items() if key not in ours} == expected()
    # In the paper's order, too.
    assert [key for key in found if key not in ours] == list(expected())


def test_columns_are_the_papers(place, tables):
    (table,) = tables("1", "--with", "paper")
    assert tuple(" ".join(column["heads"]) for column in table["columns"]) == COLUMNS


def test_closed_cells_are_whole_numbers_of_questions(place, tables):
    (table,) = tables("1", "--with", "paper")
    sizes = {"slake": 355, "vqa_rad": 254, "pathvqa": 3391, "iu_xray": 784, "omnimedvqa": 2642}
    inexact, closed = set(), 0
    for at, column in enumerate(table["columns"]):
        if column["heads"][1] != "Closed":
            continue
        for row in table["rows"]:
            if row["cells"][at] is None:
                continue
            told, closed = row["cells"][at]["published"], closed + 1
            assert told["n"] == sizes[column["task"]]
            right = round(told["value"] * told["n"])
            if f"{100 * right / told['n']:.2f}" != told["text"]:
                inexact.add((row["label"], column["task"], told["text"], right))
    assert closed == 5 * 23
    # These two are cut where all others are rounded.
    assert inexact == {("Beam", "iu_xray", "73.59", 577), ("Nucleus", "iu_xray", "83.41", 654)}
