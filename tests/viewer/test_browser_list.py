"""The page in a browser: what stands above the list, the list, its filters, order and address."""

import re

import pytest


@pytest.fixture
def samples(gallery, said):
    return said(gallery)


def questions(samples, test):
    return [sample["question"] for sample in samples if test(sample)]


def test_it_opens_with_runs_and_samples(opened, gallery):
    page = opened(gallery)
    tab = page.tab
    assert tab.title() == "greedy, vcd, blind on gallery[images=60]"
    assert tab.locator("h1").inner_text() == tab.title()
    head = tab.locator("#head").inner_text()
    for words in ("A greedy", "B vcd", "C blind", "closed/strict", "120 answers: 1 empty, 1 cut"):
        assert words in head
    assert re.search(r"n=60, 60 images", head)
    assert "C blind: PARTIAL" in head
    assert "limit: None or 20" in head
    assert page.count() == "120 of 120 samples"
    assert len(page.questions()) == 50


def test_a_verdict_is_a_symbol_and_a_word_beside_the_colour(opened, gallery):
    tab = opened(gallery).tab
    first = tab.locator("#list tbody tr").nth(0).locator("td.answer")
    told = first.all_text_contents()
    assert [cell.split(":")[0] for cell in told] == ["A✗wrong", "B✗wrong", "C✓right"]
    answers = tab.locator("#list tbody tr").nth(0).locator("td.answer .said")
    assert answers.all_text_contents() == ["no", "grey", "yes"]
    marks = tab.locator("#list td.answer .mark").all_inner_texts()
    assert set(marks) <= {"✓", "✗", "◐", "∅", "–"}
    colours = tab.locator("#list td.answer").evaluate_all(
        "(cells) => cells.map((cell) => [cell.className, getComputedStyle(cell).backgroundColor])"
    )
    assert len({colour for name, colour in colours if "none" not in name}) == 3


def test_thumbnails_are_the_images(opened, gallery):
    tab = opened(gallery).tab
    tab.wait_for_load_state("load")
    sizes = tab.locator("#list tbody img").evaluate_all(
        "(images) => Promise.all(images.map((one) => one.decode().then(() => one.naturalWidth)))"
    )
    assert sizes == [32] * 50


def test_pages_are_turned(opened, gallery, samples):
    page = opened(gallery)
    following = page.tab.get_by_role("button", name="Next ›").first
    following.click()
    assert page.questions() == [one["question"] for one in samples[50:100]]
    following.click()
    assert len(page.questions()) == 20
    assert following.is_disabled()
    page.tab.get_by_role("button", name="‹ Previous").last.click()
    assert page.questions()[0] == samples[50]["question"]


@pytest.mark.parametrize(
    ("name", "label", "test"),
    [
        ("flip", "A right, B wrong", lambda one: (one["A"], one["B"]) == ("right", "wrong")),
        ("flip", "A wrong, B right", lambda one: (one["A"], one["B"]) == ("wrong", "right")),
        ("flip", "A and B differ", lambda one: one["A"] != one["B"]),
        ("verdict", "A partly right", lambda one: one["A"] == "partly"),
        ("verdict", "B wrong", lambda one: one["B"] == "wrong"),
        ("kind", "open", lambda one: one["kind"] == "open"),
        ("health", "A empty", lambda one: one["question"] == "what is 1?"),
        ("health", "A cut at the limit", lambda one: one["question"] == "what is 8?"),
    ],
)
def test_a_filter_shows_what_it_says(opened, gallery, samples, name, label, test):
    page = opened(gallery)
    page.choose(name, label)
    expected = questions(samples, test)
    assert 0 < len(expected) < 120
    assert page.count() == f"{len(expected)} of 120 samples"
    assert page.questions() == expected[:50]


def test_all_wrong_and_no_answer_count_every_run(opened, gallery, samples):
    page = opened(gallery)
    page.choose("verdict", "all wrong")
    assert page.count() == "0 of 120 samples", "blind is right wherever it answers"
    assert page.tab.locator("#list tr.nothing").inner_text() == "No sample is like that."
    page.choose("verdict", "C without answer")
    assert page.count() == "100 of 120 samples"


def test_neither_counts_closed_answers_without_yes_or_no(opened, gallery, samples):
    page = opened(gallery)
    page.choose("health", "any neither yes nor no")
    closed = [at for at, one in enumerate(samples) if one["kind"] == "closed" and at % 3 == 0]
    assert page.count() == f"{len(closed)} of 120 samples"


def test_filters_combine(opened, gallery, samples):
    page = opened(gallery)
    page.choose("flip", "A right, B wrong")
    page.choose("kind", "closed")
    page.field("modality", "mri")
    expected = questions(
        samples,
        lambda one: (
            (one["A"], one["B"], one["kind"], one["modality"])
            == ("right", "wrong", "closed", "mri")
        ),
    )
    assert page.questions() == expected != []
    page.tab.locator("#search").fill(expected[1].upper())
    assert page.questions() == [expected[1]]
    page.tab.get_by_role("button", name="Clear").click()
    assert page.count() == "120 of 120 samples"
    assert page.tab.locator("#search").input_value() == ""
    assert page.tab.locator('#filters select[data-name="flip"]').input_value() == ""


@pytest.mark.parametrize(
    ("text", "found"),
    [("what is 17?", 1), ("GREY", 40), ("white bar", 60), ("quillon-3", 22), ("no such thing", 0)],
)
def test_search_looks_at_questions_golds_answers_and_ids(opened, gallery, text, found):
    page = opened(gallery)
    page.tab.locator("#search").fill(text)
    assert page.count() == f"{found} of 120 samples"


def test_order_by_disagreement_and_by_score(opened, gallery, samples):
    page = opened(gallery)
    page.choose("sort", "most disagreement first")
    third = [{"right"} if at < 20 else set() for at in range(120)]  # blind, over the first 20
    apart = {
        one["question"]
        for one, more in zip(samples, third, strict=True)
        if {"right", "wrong"} <= {one["A"], one["B"], *more}
    }
    assert set(page.questions()[: len(apart)]) == apart
    page.choose("sort", "A greedy: lowest score first")
    wrong = questions(samples, lambda one: one["A"] == "wrong")
    partly = questions(samples, lambda one: one["A"] == "partly")
    assert page.questions()[: len(wrong) + len(partly)] == wrong + partly


def test_order_by_attention_in_the_region(opened, gallery):
    page = opened(gallery)

    def shares():
        return [
            int(cell.split()[-4])
            for cell in page.tab.locator("#list tbody tr td:nth-child(3)").all_inner_texts()
        ]

    page.choose("sort", "A greedy: least attention in region first")
    least = shares()
    assert least == sorted(least)
    page.choose("sort", "A greedy: most attention in region first")
    most = shares()
    assert most == sorted(most, reverse=True)
    assert most[0] > least[0]


def test_the_address_keeps_what_is_shown(opened, gallery, samples):
    page = opened(gallery)
    page.choose("flip", "A and B differ")
    page.field("modality", "ct")
    page.tab.locator("#search").fill("what is")
    page.choose("sort", "most disagreement first")
    shown, counted = page.questions(), page.count()
    page.tab.wait_for_timeout(400)
    hash_ = page.tab.evaluate("location.hash")
    assert {"flip=AB-any", "q=what+is", "sort=disagreement"} <= set(hash_[1:].split("&"))
    again = opened(gallery, hash_)
    assert (again.questions(), again.count()) == (shown, counted)
    assert again.tab.locator("#search").input_value() == "what is"
    assert again.tab.locator('#filters select[data-name="flip"]').input_value() == "AB-any"
    assert again.tab.locator('#filters select[data-field="modality"]').input_value() == "0"


def test_an_address_with_nonsense_shows_everything(opened, gallery):
    nonsense = (
        "#flip=XX-any&verdict=%3Cb%3E&meta.modality=x&meta.__proto__=1&page=-3&sample=999&sort=y"
    )
    page = opened(gallery, nonsense)
    assert page.count() == "120 of 120 samples"
    assert page.tab.locator("#browse").is_visible()
    assert opened(gallery, "#page=99").questions()[-1] == "what is 59?"


def test_going_back_undoes_an_address_typed_by_hand(opened, gallery):
    page = opened(gallery)
    page.tab.evaluate("location.hash = '#kind=open'")
    page.tab.wait_for_timeout(100)
    assert page.count() == "60 of 120 samples"
    page.tab.go_back()
    page.tab.wait_for_timeout(100)
    assert page.count() == "120 of 120 samples"


def test_few_controls_stand_on_a_narrow_screen(opened, gallery):
    page = opened(gallery, viewport={"width": 400, "height": 800})
    assert not page.tab.locator("#search").is_visible()
    page.tab.get_by_text("Search and filters").click()
    assert page.tab.locator("#search").is_visible()
    for hash_ in ("", "#sample=5"):
        page.open(hash_)
        wide = page.tab.evaluate("document.documentElement.scrollWidth")
        assert wide <= 400, "the page is scrolled sideways"


def test_it_works_for_one_run(opened, page_of):
    page = opened(page_of({"method": "greedy"}))
    assert page.count() == "8 of 8 samples"
    assert page.tab.locator('#filters select[data-name="flip"]').count() == 0
    options = page.tab.locator("#filters select[data-name=sort] option").all_inner_texts()
    assert "most disagreement first" not in options
