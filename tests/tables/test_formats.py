"""One small table in every format: the same numbers, heads over their columns, signs escaped."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from medbench.tables import text
from medbench.tables.sheets import Line, Sheet, Text

FORMATS = ("text", "md", "tex", "csv", "json", "html")
# All that means something in TeX, HTML or Markdown, and how each of them writes it.
SIGNS = r"[_a_ b_c % & <i> > # $ {d} ~ ^ \e | *f* `g` --h"
IN_TEX = (
    r"{[}\_a\_ b\_c \% \& $<$i$>$ $>$ \# \$ \{d\} \textasciitilde{} \textasciicircum{} "
    r"\textbackslash{}e $\vert$ {*}f{*} `g` -{}-h"
)
IN_HTML = r"[_a_ b_c % &amp; &lt;i&gt; &gt; # $ {d} ~ ^ \e | *f* `g` --h"
IN_MARKDOWN = r"[\_a\_ b_c % &amp; \<i> > # $ {d} \~ ^ \\e &#124; \*f\* \`g\` --h"

TEXT = """\
A small table of Toy
            World                    World
            Closed                   Open
            4 q / 2 img              2 q / 1 img
Toy
  Greedy    50.00 [50.00, 50.00]     25.00
  VCD      °75.00 [50.00, 100.00]   °50.00
  DoLa      –                        –
Toy + LoRA
  Greedy   *100.00 [100.00, 100.00] *75.00
  no image  25.00 [0.00, 50.00] †    0.00 †

Preset matched: all methods pick tokens by the same rule.
What is known of Toy.
Percent; q: questions, img: images. [low, high]: 95 % interval over the images.
Fewer than 50 images: such 95 % intervals hold the truth in about 9 of 10 cases.
†: more than 2 % of the answers are not sound: no image on phantom, 7.0 % cut.
↑ ↓: above or below its reference by more than chance; see below.
*: best of a backbone, °: second.

Against Greedy
            World                                World
            Closed                               Open
            4 q / 2 img                          2 q / 1 img
Toy
  VCD       +25.00 [0.00, +50.00] +1 of 4 p 1    +25.00 +0.5 of 2
Toy + LoRA
  Greedy    +50.00 [+50.00, +50.00] +2 of 4 p 1  +50.00 +1 of 2

Gap to the reference on the same questions, each question's mean over seeds; [low, high]: 95 % \
interval over the images. p: McNemar's exact test with whole images as units where answers are \
right or wrong, corrected by Holm for 2 comparisons. ↑ ↓: p at most 0.05.
Smallest gap that about 3 of 4 such comparisons would find, before correction (median over the \
rows): World \
Closed 48.9 points (2 of 4).
Made with medbench 0.1.0, torch 2.13.0, transformers 5.23.0, toy weights cccccccc float32.
Made by: medbench run --method greedy,vcd,lora,blind --task phantom --backbone toy
"""
MARKDOWN = """\
**A small table of Toy**

|  |  | World Closed 4 q / 2 img | World Open 2 q / 1 img |
| --- | --- | --- | --- |
| Toy | Greedy | 50.00 [50.00, 50.00] | 25.00 |
| Toy | VCD | <u>75.00 [50.00, 100.00]</u> | <u>50.00</u> |
| Toy | DoLa | – | – |
| Toy + LoRA | Greedy | **100.00 [100.00, 100.00]** | **75.00** |
| Toy + LoRA | no image | 25.00 [0.00, 50.00] † | 0.00 † |
"""
LATEX = r"""
\begin{tabular}{lll}
\toprule
 & \multicolumn{2}{c}{World} \\
\cmidrule(lr){2-3}
 & Closed & Open \\
 & 4 q / 2 img & 2 q / 1 img \\
\midrule
\multicolumn{3}{l}{\textit{Toy}} \\
Greedy & 50.00 {\scriptsize [50.00, 50.00]} & 25.00 \\
VCD & \underline{75.00} {\scriptsize [50.00, 100.00]} & \underline{50.00} \\
DoLa & -- & -- \\
\midrule
\multicolumn{3}{l}{\textit{Toy + LoRA}} \\
Greedy & \textbf{100.00} {\scriptsize [100.00, 100.00]} & \textbf{75.00} \\
no image & 25.00 {\scriptsize [0.00, 50.00]} \textdagger{} & 0.00 \textdagger{} \\
\bottomrule
\end{tabular}
"""


class Page(HTMLParser):
    """Collects tables as lines of (tag, text, columns it spans), and makes sure that tags close."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tables, self.titles = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attributes):
        if tag in ("meta", "br"):
            return
        self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append((tag, "", int(dict(attributes).get("colspan", 1))))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open or "th" in self.open:
            tag, text, span = self.tables[-1][-1][-1]
            self.tables[-1][-1][-1] = tag, text + data, span
        elif "h2" in self.open:
            self.titles.append(data)


@pytest.fixture
def small(make, layout):
    """Return a layout, and runs that fill most of it."""
    make("greedy", "1010", [0.5, 0.0])
    make("vcd", "1110", [0.5, 0.5])
    make("lora", "1111", [1.0, 0.5])
    make("blind", "1000", [0.0, 0.0], health={"rows": 100, "cut": 7})
    return layout()


@pytest.fixture
def odd(make, layout):
    """Return a layout whose title, heads, groups, labels and notes have signs."""
    signs = SIGNS.replace("\\", "\\\\")
    make("greedy", "1010")
    make("vcd", "1110")
    return layout(
        ("A small table of Toy", signs),
        ('"World", "Closed"', f'"{signs}", "Closed"'),
        ('name = "Toy"', f'name = "{signs}"'),
        ('"Toy / Greedy"', f'"{signs} / Greedy"'),
        ('"VCD"', f'"{signs}"'),
        ("What is known of Toy.", signs),
    )


# What each looks like


def test_text(small, shown):
    assert shown(small) == TEXT


def test_text_in_a_narrow_terminal_is_split_between_columns():
    lines = [Line("A", "one", (Text("1.00", "best"), Text("2.00"), Text("3.00")))]
    sheet = Sheet("", (("first",), ("second",), ("third",)), tuple(lines), ())
    assert text.as_text([sheet], width=None).splitlines()[:3] == [
        "       first  second  third",
        "A",
        "  one *1.00   2.00    3.00",
    ]
    split = text.as_text([sheet], width=22).splitlines()
    assert split[:7] == [
        "       first  second",
        "A",
        "  one *1.00   2.00",
        "",
        "       third",
        "A",
        "  one  3.00",
    ]


def test_the_best_is_bold_where_the_terminal_can_show_it():
    sheet = Sheet("", (("x",),), (Line("A", "one", (Text("1.00", "best"),)),), ())
    shown = text.as_text([sheet], bold=lambda words: f"!{words}!")
    assert "  one  !1.00!" in shown and "*" not in shown
    assert shown.endswith("bold: best of a backbone.")


def test_markdown(small, shown):
    printed = shown(small, "--format", "md")
    assert printed.startswith(MARKDOWN)
    # Lines that end without two blanks would run into each other.
    notes = printed.split("\n\n")[2].splitlines()
    assert len(notes) == 7 and all(line.endswith("  ") for line in notes[:-1])
    assert notes[-1] == "Bold: best of a backbone, underlined: second."


def test_latex(small, shown):
    printed = shown(small, "--format", "tex")
    assert LATEX in printed
    assert printed.count("\\begin{tabular}") == 2
    assert "Bold: best of a backbone,\\allowbreak{} underlined: second.\\par" in printed
    assert "medbench run -{}-method greedy" in printed


def test_html(small, shown):
    page = Page(shown(small, "--format", "html"))
    assert page.titles == ["A small table of Toy", "Against Greedy"]
    table, _ = page.tables
    assert table == [
        [("td", "", 1), ("th", "World", 2)],
        [("td", "", 1), ("th", "Closed", 1), ("th", "Open", 1)],
        [("td", "", 1), ("th", "4 q / 2 img", 1), ("th", "2 q / 1 img", 1)],
        [("th", "Toy", 3)],
        [("th", "Greedy", 1), ("td", "50.00 [50.00, 50.00]", 1), ("td", "25.00", 1)],
        [("th", "VCD", 1), ("td", "75.00 [50.00, 100.00]", 1), ("td", "50.00", 1)],
        [("th", "DoLa", 1), ("td", "–", 1), ("td", "–", 1)],
        [("th", "Toy + LoRA", 3)],
        [("th", "Greedy", 1), ("td", "100.00 [100.00, 100.00]", 1), ("td", "75.00", 1)],
        [("th", "no image", 1), ("td", "25.00 [0.00, 50.00] †", 1), ("td", "0.00 †", 1)],
    ]


def test_methods_may_stand_in_columns(small, shown, layout):
    turned = layout(("model =", 'across = "methods"\nmodel ='))
    assert shown(turned).splitlines()[1:6] == [
        "                      Toy                   Toy                    Toy   Toy + LoRA"
        "               Toy + LoRA",
        "                      Greedy                VCD                    DoLa  Greedy"
        "                   no image",
        "World",
        "  Closed 4 q / 2 img  50.00 [50.00, 50.00] °75.00 [50.00, 100.00]  –    "
        "*100.00 [100.00, 100.00]  25.00 [0.00, 50.00] †",
        "  Open 2 q / 1 img    25.00                °50.00                  –    "
        "*75.00                    0.00 †",
    ]
    (heads, *_), _ = Page(shown(turned, "--format", "html")).tables
    assert heads == [("td", "", 1), ("th", "Toy", 3), ("th", "Toy + LoRA", 2)]


def test_fractions_have_three_decimals(small, shown, layout):
    printed = shown(layout(("model =", 'unit = "fraction"\nmodel =')))
    assert "°0.750 [0.500, 1.000]" in printed
    assert "+0.250 [0.000, +0.500] +1 of 4" in printed
    assert "World Closed 0.489 (2 of 4)." in printed
    assert "Fractions; q: questions" in printed


def test_partial_runs_are_called_so_in_every_format(make, layout, shown):
    make("greedy", "1010", limit=4)
    assert shown(layout()).startswith("PARTIAL\nA small table of Toy\n")
    assert shown(layout(), "--format", "md").startswith("**Partial runs. A small table of Toy**\n")
    assert "\\textbf{Partial runs. A small table of Toy}" in shown(layout(), "--format", "tex")
    assert "<h2>Partial runs. A small table of Toy</h2>" in shown(layout(), "--format", "html")
    assert '"partial": true' in shown(layout(), "--format", "json")


@pytest.mark.parametrize("form", ["html", "tex"])
def test_heads_of_one_name_below_others_stay_apart(place, shown, form):
    """In Table 1 the last two data sets have closed questions only."""
    printed = shown("1", "--format", form)
    if form == "tex":
        lines = [line for line in printed.splitlines() if line.startswith(" & ")]
        assert [line.count("Closed") for line in lines] == [0, 5]
    else:
        (table,) = Page(printed).tables
        assert [span for _, name, span in table[0] if name] == [2, 2, 2, 1, 1]
        assert [span for _, name, span in table[1] if name] == [1] * 8


# Signs


def test_latex_escapes_signs(odd, shown):
    printed = shown(odd, "--format", "tex")
    assert f"\\textbf{{{IN_TEX}}}\\par" in printed  # title
    assert f" & {IN_TEX} & World \\\\" in printed  # head
    assert f"\\textit{{{IN_TEX}}}" in printed  # group
    assert f"\n{IN_TEX} & \\textbf{{75.00}}" in printed  # label
    assert f"\n{IN_TEX}\\par" in printed  # note


def test_html_escapes_signs(odd, shown):
    printed = shown(odd, "--format", "html")
    assert "<i>" not in printed
    page = Page(printed)
    assert page.tables[0][0][1][1] == SIGNS
    assert page.tables[0][5][0][1] == SIGNS
    assert f"<title>{IN_HTML}</title>" in printed


def test_markdown_escapes_signs(odd, shown):
    printed = shown(odd, "--format", "md")
    assert printed.startswith(f"**{IN_MARKDOWN}**\n")
    assert f"| {IN_MARKDOWN} | {IN_MARKDOWN} | **75.00" in printed
    assert f"| {IN_MARKDOWN} Closed 4 q / 2 img |" in printed
    # A sign left alone would be a column more.
    assert {line.count("|") for line in printed.splitlines() if line[:1] == "|"} == {5}


@pytest.mark.parametrize("turned", [False, True])
def test_latex_compiles_alone(odd, shown, place, turned):
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed")
    if turned:
        odd.write_text('across = "methods"\n' + odd.read_text(encoding="utf-8"), encoding="utf-8")
    folder = place / "tex"
    folder.mkdir()
    (folder / "table.tex").write_text(shown(odd, "--cost", "--format", "tex"), encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "table.tex"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Output written on table.pdf (3 pages" in done.stdout
    assert "Overfull" not in done.stdout


# Numbers for programs


def test_csv_and_json_hold_the_same_numbers_with_all_their_digits(
    small, make, lines_of_csv, tables
):
    for seed, closed in ((1, "1110"), (2, "1000")):
        make("vcd", closed, [1 / 3, 0.1 + 0.2], seed=seed)
    (table,) = tables(small, "--cost")
    in_json = {
        (row["group"], row["label"], column["metric"]): cell
        for row in table["rows"]
        for column, cell in zip(table["columns"], row["cells"], strict=True)
        if cell
    }
    in_csv = {
        (one["group"], one["label"], one["metric"]): one for one in lines_of_csv(small, "--cost")
    }
    assert in_csv.keys() == in_json.keys() and len(in_csv) == 8
    for place, line in in_csv.items():
        cell = in_json[place]
        told, cost = cell.get("contrast", {}), cell["cost"]
        for name, value in {
            **{name: cell[name] for name in ("value", "low", "high", "n", "groups", "spread")},
            "gap": told.get("gap"), "gap_low": told.get("low"), "gap_high": told.get("high"),
            "p": told.get("p"), "questions": told.get("questions"),
            "smallest_gap": told.get("smallest"),
            **{name: cost[name] for name in ("seconds", "forwards", "peak_bytes")},
        }.items():  # fmt: skip
            assert line[name] == ("" if value is None else str(value)), (place, name)
        assert line["keys"].split() == cell["keys"]
        assert [int(seed) for seed in line["seeds"].split()] == cell["seeds"]
        assert line["unwell"] == "; ".join(cell["unwell"])
        assert (line["preset"], line["partial"], line["task"]) == ("matched", "False", "phantom")
    assert in_json["Toy", "VCD", "recall/paper"]["seeds"] == [0, 1, 2]
    assert len(in_csv["Toy", "VCD", "recall/paper"]["value"]) > 15


def test_json_has_nothing_for_a_missing_cell_and_all_that_the_footer_says(small, tables):
    (table,) = tables(small)
    assert table["rows"][2]["label"] == "DoLa" and table["rows"][2]["cells"] == [None, None]
    assert table["title"] == "A small table of Toy"
    assert [column["heads"] for column in table["columns"]] == [
        ["World", "Closed"],
        ["World", "Open"],
    ]
    assert table["commands"] == [
        "medbench run --method greedy,vcd,lora,blind --task phantom --backbone toy"
    ]
    for line in table["caption"]:
        assert line in TEXT
    assert any(line.startswith("Smallest gap") for line in table["caption"])
    assert any(line.startswith("Made with medbench 0.1.0") for line in table["caption"])


def test_csv_has_a_line_for_a_cell_that_only_the_paper_has(place, lines_of_csv):
    lines = lines_of_csv("2", "--with", "paper")
    assert [(one["label"], one["published"], one["value"]) for one in lines[-2:]] == [
        ("A3Tune", "0.275", ""), ("A3Tune", "0.147", ""),
    ]  # fmt: skip


# The paper beside


def test_the_paper_s_value_is_in_our_interval_or_not(make, shown, tables):
    # Intervals of 25 to 100, 0 to 0 and none.
    for task, method, closed in (
        ("slake", "greedy", "11100111"), ("slake", "vcd", "00000000"), ("vqa_rad", "greedy", "11"),
    ):  # fmt: skip
        make(method, closed, task=task, backbone="llava_med")
    printed = shown("1", "--with", "paper")
    greedy, vcd = (
        next(line for line in printed.splitlines() if line.startswith(f"  {name} "))
        for name in ("Greedy", "VCD")
    )
    assert re.search(r"\*75\.00 \[[0-9., ]+\] +60\.00 in +–", greedy)
    assert re.search(r" 100\.00 +68\.11 +–", greedy)
    assert re.search(r"0\.00 \[0\.00, 0\.00\] ↓? +59\.44 out +–", vcd)
    assert "paper: Chang et al. 2025, Table 1; in, out: whether it lies in our interval" in printed
    (table,) = tables("1", "--with", "paper")
    told = {row["label"]: row["cells"][1]["published"] for row in table["rows"][:5]}
    assert told["Greedy"] == {
        "value": 0.6, "text": "60.00", "n": 355, "source": "Chang et al. 2025, Table 1",
        "note": "", "inside": True,
    }  # fmt: skip
    assert told["VCD"]["inside"] is False
    assert told["Beam"]["inside"] is None
    assert table["rows"][1]["cells"][3]["published"]["inside"] is None


def test_a_value_at_the_end_of_the_interval_is_in_it(make, shown):
    """60.00 of the paper, and ours is that for every image drawn."""
    make("greedy", "1110011100" * 2, task="slake", backbone="llava_med")
    folder = make("beam", "11100", task="slake", backbone="llava_med")
    path = folder / "scores.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["scores"]["closed/paper"] |= {"value": 0.7, "low": 0.6169, "high": 0.8}
    path.write_text(json.dumps(content), encoding="utf-8")
    beam = next(line for line in shown("1", "--with", "paper").splitlines() if "  Beam" in line)
    assert "61.69 in" in beam


def test_our_best_and_the_paper_s_are_marked_apart(make, shown):
    make("greedy", "1110", task="slake", backbone="llava_med")
    make("vcd", "1111", task="slake", backbone="llava_med")
    lines = shown("1", "--with", "paper").splitlines()
    (vcd,) = [line for line in lines if re.match(r"  VCD .*100\.00", line)]
    assert "*100.00" in vcd and "59.44" in vcd and "*59.44" not in vcd
    assert any("*82.36" in line for line in lines)


# Costs


def test_costs_stand_below_once_a_task(make, layout, shown):
    make("greedy", "1010", [0.5, 0.0], seconds=0.25)
    make("vcd", "1010", [0.5, 0.0], seconds=0.5)
    # Its 8 forward passes make 1 token, those above 4: 16 for 5 in all.
    more = {"seconds": 1.0, "tokens": 1, "peak_bytes": 5 * 2**20}
    make("vcd", "1010", [0.5, 0.0], seed=1, **more)
    below = shown(layout(), "--cost").split("\nCost\n")[1]
    assert below.splitlines()[:5] == [
        "            phantom",
        "Toy",
        "  Greedy    0.250 s / 2.00 / 3 MiB",
        "  VCD       0.750 s / 3.20 / 5 MiB",
        "  DoLa      –",
    ]
    assert "Made on: machine x86_64, system Linux.\n" in below
    assert "Cost" not in shown(layout())


def test_costs_that_a_run_does_not_tell_are_missing(make, layout, shown, tables):
    make("greedy", "1010", seconds=None)
    assert "  Greedy    – / 2.00 / 3 MiB\n" in shown(layout(), "--cost")
    (table,) = tables(layout(), "--cost")
    assert table["rows"][0]["cells"][0]["cost"]["seconds"] is None


def test_several_kinds_of_machine_are_told(make, layout, shown):
    make("greedy", "1010")
    make("vcd", "1010", hardware={"machine": "arm64"})
    assert (
        "Made on 2 kinds of machine, so that times and memory do not compare: "
        "machine x86_64, system Linux; machine arm64."
    ) in shown(layout(), "--cost")


# The footer


def test_versions_that_differ_are_named(make, layout, shown):
    make("greedy", "1010")
    make("vcd", "1010", versions={"torch": "2.8.0", "numpy": "2"})
    assert "Made with medbench 0.1.0, torch 2.13.0 and 2.8.0, transf" in shown(layout())


def test_a_run_that_tells_no_versions_has_no_such_line(make, layout, shown):
    identity = {"backbone": "toy"}
    make("greedy", "1010", preset="imported", identity=identity, versions={})
    assert "Made with" not in shown(layout())


def test_another_copy_of_the_data_is_named(make, layout, shown):
    make("greedy", "1010", edition="mirror", note="Two images are missing.")
    printed = shown(layout())
    assert "World (mirror)" in printed
    assert "\nphantom (mirror): Two images are missing.\n" in printed


def test_what_is_known_of_the_official_data_is_told(make, layout, shown):
    make("greedy", "1010", note="It is as its authors left it.")
    assert "\nphantom: It is as its authors left it.\n" in shown(layout())


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_ends_in_one_newline(small, shown, form):
    printed = shown(small, "--format", form)
    assert printed.endswith("\n") and not printed.endswith("\n\n")
