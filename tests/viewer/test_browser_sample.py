"""A sample opened in the browser: the image, the region, the overlay, steps, and the keyboard."""

import pytest


def pixel(ink, at):
    return ink[4 * at : 4 * at + 4]


def test_a_click_opens_a_sample_and_back_closes_it(opened, gallery):
    page = opened(gallery)
    tab = page.tab
    tab.locator("#list tbody tr").nth(4).click()
    assert page.heading() == "is bar 2 there?"
    assert not tab.locator("#browse").is_visible()
    tab.wait_for_timeout(300)
    assert tab.evaluate("location.hash") == "#sample=5"
    tab.go_back()
    tab.locator("#browse").wait_for()
    assert not tab.locator("#opened").is_visible()
    tab.go_forward()
    assert page.heading() == "is bar 2 there?"


def test_all_that_is_known_is_shown(opened, gallery):
    page = opened(gallery, "#sample=15")
    assert page.heading() == "is bar 7 there?"
    shown = page.tab.locator("#opened").inner_text()
    for words in (
        "gold yes", "quillon-7-yes", "Prompt: the question as it is.", "A greedy ✓ right",
        "C blind ✓ right", "ended by", "end token", "new tokens", "seconds", "0.250",
        "tokens through the model", "peak memory, MB", "closed/strict", "100.0", "modality", "mri",
        "xanadu 7", "marmaduke 7", "No attention was recorded.",
    ):  # fmt: skip
        assert words in shown, words
    assert page.tab.locator("#opened .frame img").count() == 3


def test_a_prompt_that_is_not_the_question_is_shown(opened, page_of):
    prompt = "Answer in a word: is it?\n<b>now</b>"
    page = opened(page_of({"change": lambda row: row.update(prompt=prompt)}), "#sample=1")
    page.heading()
    page.tab.locator("#opened summary").click()
    assert page.tab.locator("#opened .prompt pre").inner_text() == prompt


def test_the_overlay_is_drawn_and_taken_away(opened, gallery):
    page = opened(gallery, "#sample=5")
    page.heading()
    drawn, seen = page.ink(), page.seen()
    assert len(drawn) == 4 * 16
    assert max(drawn[3::4]) == 255, "the top of the map is opaque"
    page.tab.locator("#show-attention").uncheck()
    assert set(page.ink()) == {0}
    assert page.seen() != seen
    page.tab.keyboard.press("a")
    assert page.ink() == drawn
    assert page.seen() == seen
    page.tab.locator("#opacity").fill("20")
    assert page.ink() == drawn
    assert page.seen() != seen


def test_the_region_is_outlined_where_it_is(opened, gallery):
    page = opened(gallery, "#sample=5")
    page.heading()
    region = page.tab.locator(".frame svg.region").first
    assert region.locator("path").first.get_attribute("d") == "M8 4h8v24h-8z"
    assert region.get_attribute("viewBox") == "0 0 32 32"
    frame = page.tab.locator(".frame").first.bounding_box()
    box = region.locator("path").last.bounding_box()
    # The browser counts a margin for the line itself.
    assert box["x"] - frame["x"] == pytest.approx(frame["width"] * 8 / 32, abs=10)
    assert box["height"] == pytest.approx(frame["height"] * 24 / 32, abs=10)
    seen = page.seen()
    page.tab.keyboard.press("r")
    assert not region.is_visible()
    assert page.seen() != seen
    page.tab.locator("#show-region").check()
    assert page.seen() == seen


def test_steps_are_walked_by_slider_chips_and_keys(opened, gallery):
    page = opened(gallery, "#sample=2")
    page.heading()
    tab = page.tab
    assert tab.locator("#step").count() == 0, "without a region there is no attention"
    page.open("#sample=12")
    page.heading()
    mean = page.ink()
    assert tab.locator("#step-told").inner_text() == "Mean of 2 steps"
    chips = tab.locator(".run").first.locator("button.token")
    assert chips.all_inner_texts() == ["white", " bar"]
    tab.locator("#step").fill("1")
    first = page.ink()
    assert first != mean
    assert tab.locator("#step-told").inner_text() == "Step 1 of 2"
    assert chips.nth(0).get_attribute("aria-pressed") == "true"
    chips.nth(1).click()
    second = page.ink()
    assert second not in (mean, first)
    assert tab.locator("#step").input_value() == "2"
    tab.keyboard.press(",")
    assert page.ink() == first
    tab.keyboard.press(".")
    assert page.ink() == second
    chips.nth(1).click()
    assert page.ink() == mean
    assert chips.nth(1).get_attribute("aria-pressed") == "false"


def test_a_run_whose_answer_has_ended_shows_no_further_step(opened, gallery):
    page = opened(gallery, "#sample=8")  # greedy says "white", vcd "white bar"
    assert page.heading() == "what is 3?"
    greedy, vcd = page.ink(0), page.ink(1)
    page.tab.locator("#step").fill("2")
    assert set(page.ink(0)) == {0}
    assert page.ink(1) not in (vcd, greedy)


def test_one_scale_holds_for_all_runs(opened, gallery):
    """The brightest patch of the run that looks hardest is the ramp's end; others are darker."""
    page = opened(gallery, "#sample=5")
    page.heading()
    top = page.tab.locator("#top").inner_text()
    inks = [page.ink(0), page.ink(1)]
    brightest = [max(sum(pixel(ink, at)[:3]) for at in range(16)) for ink in inks]
    assert max(brightest) == sum((252, 245, 155))
    assert min(brightest) < max(brightest)
    assert top.startswith("0 to ")
    assert top.endswith("% of the answer's attention, a patch")


def test_keys_walk_through_the_list_and_the_samples(opened, gallery):
    page = opened(gallery)
    keyboard, tab = page.tab.keyboard, page.tab
    focused = "document.activeElement.textContent"
    for key in ("j", "ArrowDown", "j", "k", "ArrowUp", "ArrowDown"):
        keyboard.press(key)
    assert tab.evaluate(focused) == "what is 0?"
    keyboard.press("Enter")
    assert page.heading() == "what is 0?"
    keyboard.press("j")
    tab.locator("#opened h2", has_text="is bar 1 there?").wait_for()
    keyboard.press("ArrowRight")
    tab.locator("#opened h2", has_text="what is 1?").wait_for()
    keyboard.press("ArrowLeft")
    keyboard.press("k")
    tab.locator("#opened h2", has_text="what is 0?").wait_for()
    keyboard.press("k")
    keyboard.press("k")
    tab.locator("#opened h2", has_text="is bar 0 there?").wait_for()
    assert tab.get_by_role("button", name="Previous").first.is_disabled()
    keyboard.press("Escape")
    tab.locator("#browse").wait_for()
    assert tab.evaluate(focused) == "is bar 0 there?"
    keyboard.press("/")
    keyboard.type("jkra 7")
    assert tab.locator("#search").input_value() == "jkra 7"


def test_walking_goes_over_filtered_samples_and_over_pages(opened, gallery, said):
    page = opened(gallery, "#kind=open&page=1&sample=100")
    assert page.heading() == "what is 49?"
    assert "50 of 60" in page.tab.locator("#opened nav").inner_text()
    page.tab.keyboard.press("j")
    page.tab.locator("#opened h2", has_text="what is 50?").wait_for()
    page.tab.keyboard.press("Escape")
    assert page.questions()[0] == "what is 50?"
    assert "page 2 of 2" in page.tab.locator("nav.pages").first.inner_text()


def test_a_sample_that_filters_leave_out_is_still_shown(opened, gallery):
    page = opened(gallery, "#kind=open&sample=1")
    assert page.heading() == "is bar 0 there?"
    assert "not among the filtered" in page.tab.locator("#opened nav").inner_text()
    page.tab.keyboard.press("j")
    page.tab.locator("#opened h2", has_text="what is 0?").wait_for()


def test_the_sample_asked_for_last_is_shown_though_another_comes_later(opened, gallery):
    page = opened(gallery)
    page.tab.evaluate(
        """async () => {
            const late = new Promise((go) => setTimeout(() => go(parse("details-0")), 200));
            read.set("details-0", late);
            go({ sample: 0 });
            go({ sample: 119 });
            await late;
        }"""
    )
    page.tab.wait_for_timeout(100)
    assert page.heading() == "what is 59?"


def test_a_slider_keeps_its_arrows(opened, gallery):
    page = opened(gallery, "#sample=12")
    page.heading()
    page.tab.locator("#step").focus()
    page.tab.keyboard.press("ArrowRight")
    assert page.tab.locator("#step-told").inner_text() == "Step 1 of 2"
    assert page.heading() == "what is 5?"


def test_patches_of_a_cropped_image_lie_in_its_middle(opened, page_of):
    page = opened(page_of({"task": "gallery[width=48]"}, fit="crop"), "#sample=3")
    page.heading()
    frame = page.tab.locator(".frame").bounding_box()
    canvas = page.tab.locator(".frame canvas").bounding_box()
    assert frame["width"] / frame["height"] == pytest.approx(1.5, abs=0.01)
    assert (canvas["x"] - frame["x"]) / frame["width"] == pytest.approx(1 / 6, abs=0.01)
    assert canvas["width"] / frame["width"] == pytest.approx(2 / 3, abs=0.01)
    assert canvas["height"] == pytest.approx(frame["height"], abs=1)


def test_without_images_maps_and_regions_are_shown_by_themselves(opened, page_of):
    page = opened(page_of({"method": "greedy"}, remove_data=True))
    assert page.tab.locator(".alarm").first.inner_text().startswith("Left out for 8 samples")
    page.tab.locator("#list button.open").nth(4).click()
    page.heading()
    assert page.tab.locator(".frame img").count() == 0
    assert any(page.ink())
    region = page.tab.locator(".frame svg.region")
    assert region.get_attribute("viewBox") == "0 0 4 4"
    assert region.is_visible()


def test_a_restricted_page_shows_verdicts_only(opened, page_of):
    ward = {"task": "ward", "restricted": True, "steps": True}
    page = opened(page_of({"method": "greedy", **ward}, {"method": "vcd", **ward}))
    assert "ward is restricted" in page.tab.locator(".alarm").first.inner_text()
    assert page.questions()[:2] == ["sample 1", "sample 2"]
    assert "white bar" not in page.tab.locator("body").inner_text()
    page.choose("kind", "open")
    assert page.count() == "4 of 8 samples"
    page.tab.locator("#list button.open").first.click()
    assert page.heading() == "sample 2"
    shown = page.tab.locator("#opened").inner_text()
    assert "recall/strict" in shown
    assert "A greedy ✓ right" in shown
    assert page.tab.locator("#opened .frame").count() == 0


@pytest.mark.slow
def test_a_real_run_is_shown(opened, medbench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("--task", "phantom", "--limit", "6", "--record-steps")
    assert medbench("run", "--method", "greedy", *words)[0] == 0
    code, _, err = medbench("view", "greedy")
    assert (code, err) == (0, "")
    page = opened(tmp_path / "view.html", "#sample=1")
    page.heading()
    assert len(page.ink()) == 4 * 64
    assert page.tab.locator("#step").get_attribute("max") == str(
        page.tab.locator("button.token").count()
    )
    mean = page.ink()
    page.tab.locator("#step").fill("1")
    assert page.ink() != mean
    assert page.tab.locator(".frame svg.region").is_visible()
