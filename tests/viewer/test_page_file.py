"""The file: one page that holds all it needs, and whose data cannot become markup or code."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from medbench.errors import UserError
from medbench.viewer.page import pieces, write

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "<img src=x onerror=alert(1)>",
    "]]>\u2028\u2029\x00'\"&amp;{{script}}{{title}}",
    "SURROGATE alone",
)


class Read(HTMLParser):
    """What is in a page: its tags, and the contents of its scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.parts, self.policy, self.title = [], [], "", ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        attributes = dict(attrs)
        if attributes.get("http-equiv") == "Content-Security-Policy":
            self.policy = attributes["content"]
        self.attributes = attributes

    def handle_data(self, data):
        if self.tags and self.tags[-1] in ("script", "style") and data.strip():
            self.parts.append((self.tags[-1], self.attributes, data))
        if self.tags and self.tags[-1] == "title":
            self.title += data.strip()

    def data(self, name):
        (found,) = [
            json.loads(text)
            for tag, attributes, text in self.parts
            if tag == "script" and attributes.get("id") == name
        ]
        return found


@pytest.fixture
def text_of(gathered):
    def call(*words, **options):
        return "".join(pieces(gathered(*words, **options)))

    return call


def test_the_page_loads_nothing(made, text_of):
    made()
    text = text_of("greedy")
    page = Read(text)
    # The name of SVG, which nobody asks for.
    assert set(re.findall(r"\w+://[\w.-]+", text)) == {"http://www.w3.org"}
    assert not {"iframe", "object", "embed", "base", "a"} & set(page.tags)
    assert page.tags.count("link") == 1
    assert '<link rel="icon" href="data:,">' in text


def test_the_policy_allows_this_script_and_this_style_alone(made, text_of):
    made()
    page = Read(text_of("greedy"))
    rules = dict(rule.split(" ", 1) for rule in page.policy.split("; "))

    def of(tag):
        parts = [
            text
            for name, attributes, text in page.parts
            if name == tag and "type" not in attributes
        ]
        assert len(parts) == 1
        digest = hashlib.sha256(parts[0].encode()).digest()
        return f"'sha256-{base64.b64encode(digest).decode()}'"

    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": of("style"),
        "script-src": of("script"),
        "base-uri": "'none'",
        "form-action": "'none'",
        "require-trusted-types-for": "'script'",
    }


def test_hostile_texts_stay_texts(made, text_of):
    def change(row):
        row["question"] = row["output"] = HOSTILE[0]
        row["meta"] = {HOSTILE[2]: HOSTILE[1]}
        row["gold"], row["prompt"] = HOSTILE[3:]

    made("vcd")
    folder = made(change=change)
    rows = (folder / "samples.jsonl").read_text(encoding="utf-8")
    # As JSON may have it, though no program of ours writes it.
    (folder / "samples.jsonl").write_text(rows.replace("SURROGATE", "\\ud800"), encoding="utf-8")
    text = text_of("greedy")
    assert text.encode("utf-8")
    page = Read(text)
    assert page.tags == Read(text_of("vcd")).tags
    index = page.data("index")
    assert set(index["samples"]["question"]) == {HOSTILE[0]}
    assert set(index["samples"]["gold"]) == {HOSTILE[3]}
    detail = page.data("details-0")[0]
    assert detail["answers"][0]["prompt"] == "\ud800 alone"
    assert [HOSTILE[2], HOSTILE[1]] in detail["meta"]


def test_data_hold_no_letter_that_a_parser_looks_for(made, text_of):
    made(change=lambda row: row.update(output="".join(HOSTILE), question="<&>"))
    text = text_of("greedy")
    blocks = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        assert block.isascii()
        assert not set("<>&\u2028\x00") & set(block)
        assert json.loads(block)


def test_a_hostile_name_of_a_method_stays_a_text(made, text_of):
    name = "</title><script>alert(1)</script>"
    folder = made()
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    run["display"]["method"] = name
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    text = text_of(folder)
    page = Read(text)
    assert page.tags.count("script") == text.count("<script") == 4
    assert "alert(1)&lt;/script&gt; on gallery</title>" in text
    assert page.data("index")["runs"][0]["name"] == name


def test_the_file_is_written_whole_or_not_at_all(made, gathered, place):
    made()
    path = place / "view.html"
    path.write_text("before", encoding="utf-8")
    size = write(gathered("greedy"), path)
    assert path.stat().st_size == size > 10_000
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    with pytest.raises(UserError, match="cannot write"):
        write(gathered("greedy"), place / "nowhere" / "view.html")
    assert not list(place.glob(".*"))


def test_where_the_runs_lie_is_not_told(made, text_of, place):
    folder = made()
    text = text_of(folder)
    assert str(place) not in text
    assert "/".join(folder.parts[-4:]) in text


def test_the_same_runs_make_the_same_file(made, text_of):
    made(steps=True)
    assert text_of("greedy") == text_of("greedy")
