"""Hostile texts in a real browser, the page's policy, and what people with other eyes can use."""

import pytest

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    "<!--<script>alert(3)</script>-->",
    "javascript:alert(4)",
    "\u2028'\";alert(5)//\\",
    "<style>*{display:none}</style>",
    "{{script}} ${alert(6)} __proto__",
)


@pytest.fixture(scope="module")
def hostile(page_of):
    def change(row):
        number = int(row["id"].split("-")[1])
        text = HOSTILE[number % len(HOSTILE)]
        row["question"] = f"{text} {row['kind']}?"
        row["gold"] = row["output"] = row["prompt"] = text
        row["meta"] = {"__proto__": text, HOSTILE[0]: HOSTILE[number % 2], "constructor": "a"}
        row["id"] = f"{text} {row['id']}"
        if "steps" in row:
            row["steps"]["pieces"] = [text for _ in row["steps"]["pieces"]]

    options = {"task": "gallery[images=7]", "steps": True, "change": change, "note": HOSTILE[1]}
    return page_of({"method": "greedy", **options}, {"method": "vcd", **options, "seed": 3})


def elements(page):
    ours = "img[alt=''], script[type='application/json']"
    return page.tab.evaluate(
        f"""[...document.querySelectorAll("script, style, link, iframe, img")]
            .filter((one) => !one.matches("{ours}")).map((one) => one.tagName)"""
    )


def test_hostile_texts_are_shown_as_texts(opened, hostile):
    page = opened(hostile)
    assert sorted(elements(page)) == ["LINK", "SCRIPT", "STYLE"]
    assert page.count() == "14 of 14 samples"
    for place in range(7):
        page.open(f"#sample={2 * place + 1}")
        text = HOSTILE[place]
        assert page.heading() == f"{text} closed?".replace("\u2028", page.heading()[0])
        assert page.tab.locator("#opened .run .output").first.text_content() == text
        assert sorted(elements(page)) == ["LINK", "SCRIPT", "STYLE"]
        assert page.tab.locator("button.token").first.text_content() == text
        assert page.tab.locator("table.meta").text_content().count(text) >= 1
    assert page.tab.locator(".alarm", has_text=HOSTILE[1]).count() == 1


def test_hostile_texts_can_be_searched_and_filtered(opened, hostile):
    page = opened(hostile)
    page.tab.locator("#search").fill("</script><script>alert(2)")
    assert page.count() == "2 of 14 samples"
    page.tab.locator("#search").fill("")
    page.field("__proto__", HOSTILE[1])
    assert page.count() == "2 of 14 samples"
    page.tab.wait_for_timeout(400)
    again = opened(hostile, page.tab.evaluate("location.hash"))
    assert again.count() == "2 of 14 samples"
    assert sorted(elements(again)) == ["LINK", "SCRIPT", "STYLE"]


def test_the_browser_runs_no_other_script(opened, gallery):
    """Even if a text became markup, nothing in it would run."""
    page = opened(gallery)
    tried = page.tab.evaluate(
        """async () => {
            const tried = {};
            try { document.body.innerHTML += "<p>"; } catch { tried.markup = "refused"; }
            const script = document.createElement("script");
            script.append("window.evil = 1");
            document.body.append(script);
            await fetch("https://example.org/").catch(() => { tried.fetch = "refused"; });
            const image = new Image();
            image.src = "https://example.org/a.png";
            await image.decode().catch(() => { tried.image = "refused"; });
            return tried;
        }"""
    )
    assert tried == {"markup": "refused", "fetch": "refused", "image": "refused"}
    assert page.tab.evaluate("window.evil") is None
    assert len(page.faults) >= 3
    refusals = ("Policy", "Trusted", "https://example.org/")
    assert all(any(word in fault for word in refusals) for fault in page.faults), page.faults
    page.faults.clear()


CONTRAST = """
() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = numbers(colour).slice(0, 3).map((one) => one / 255)
      .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if (numbers(colour)[3] !== 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const weak = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    if (element.closest("script, option, :disabled")) continue;
    const [one, other] = [light(getComputedStyle(element).color), light(behind(element))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    seen += 1;
    if (ratio < 4.5) weak.push([element.className, element.textContent.slice(0, 30), ratio]);
  }
  return { seen, weak };
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_texts_have_contrast_enough(opened, gallery, scheme):
    page = opened(gallery, color_scheme=scheme)
    for hash_ in ("", "#sample=12"):
        page.open(hash_)
        if hash_:
            page.heading()
            page.tab.locator("button.token").first.click()
        found = page.tab.evaluate(CONTRAST)
        assert found["seen"] > 30
        assert found["weak"] == []
    dark = (
        page.tab.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    )
    assert dark == (scheme == "dark")


def test_every_control_has_a_name_and_the_focus_is_seen(opened, gallery):
    page = opened(gallery)
    for hash_ in ("", "#sample=12"):
        page.open(hash_)
        if hash_:
            page.heading()
        nameless = page.tab.evaluate(
            """() => [...document.querySelectorAll("button, input, select, summary")]
                .filter((one) => one.checkVisibility())
                .filter((one) => !(one.labels?.[0]?.textContent ?? one.textContent).trim())
                .map((one) => one.outerHTML)"""
        )
        assert nameless == []
    page.open()
    page.tab.keyboard.press("Tab")
    page.tab.keyboard.press("Tab")
    outline = page.tab.evaluate(
        "[getComputedStyle(document.activeElement).outlineStyle, document.activeElement.tagName]"
    )
    assert outline[0] == "solid"
    assert outline[1] in ("SUMMARY", "INPUT", "SELECT", "BUTTON")
