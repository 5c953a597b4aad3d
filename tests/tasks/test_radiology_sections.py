"""Sections of radiology reports: invented reports in the shape of MIMIC-CXR's."""

from __future__ import annotations

import pytest

from medbench.data.radiology_sections import sections

# Indented by one blank, wrapped, an empty line is "\n \n".
REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)
 
 INDICATION:  ___ year old juggler with a swallowed bell  // bell?
 
 COMPARISON:  Radiograph of ___.
 
 FINDINGS: 
 
 The bell lies in the stomach.  It is silent, and
 neither lung takes notice of it since ___.
 
 There is no second bell.
 
 IMPRESSION: 
 
 One silent bell,
 as expected.
"""  # noqa: W291, W293


def body(*lines: str) -> str:
    """Return a report of these lines under the usual first line."""
    return "\n".join(["            FINAL REPORT", *(f" {line}" for line in lines)])


def test_a_whole_report() -> None:
    assert sections(REPORT) == {
        "preamble": "FINAL REPORT",
        "examination": "CHEST (PA AND LAT)",
        "indication": "___ year old juggler with a swallowed bell // bell?",
        "comparison": "Radiograph of ___.",
        "findings": "The bell lies in the stomach. It is silent, and neither lung takes notice of "
        "it since ___. There is no second bell.",
        "impression": "One silent bell, as expected.",
    }


def test_line_ends_of_windows() -> None:
    assert sections(REPORT.replace("\n", "\r\n")) == sections(REPORT)


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("IMPRESSION", "impression"),
        ("CONCLUSION", "impression"),
        ("FINDINGS AND IMPRESSION", "impression"),
        ("FINDINGS/IMPRESSION", "impression"),
        ("FINAL IMPRESSION", "impression"),
        ("IMPRESSON", "impression"),
        ("IMPRESSSION", "impression"),
        ("IMPRSESION", "impression"),
        ("IMPREZSION", "impression"),
        ("CONCLUSON", "impression"),
        ("FINDING", "findings"),
        ("FINDNGS", "findings"),
        ("FIDNINGS", "findings"),
        ("CHEST, TWO VIEWS", "findings"),
        ("PORTABLE CHEST", "findings"),
        ("PA AND LATERAL CHEST RADIOGRAPHS", "findings"),
        ("CHEST, UPRIGHT", "findings"),
        ("SINGLE VIEW OF THE CHEST", "findings"),
        ("PORTABLE CHEST, COMPARISON", "comparison"),
        ("CLINICAL HISTORY", "history"),
        ("ADDENDUM (SECOND)", "addendum"),
        ("WET READ", "wet read"),
        ("INDICATION", "indication"),
        ("COMPRESSION", "compression"),
        ("TECHNIQUE", "technique"),
        ("APICAL LORDOTIC", "apical lordotic"),
    ],
)
def test_names_of_headers(header: str, name: str) -> None:
    found = sections(body(f"{header}: a bell"))
    assert found[name] == "a bell"
    assert set(found) == {"preamble", name}


@pytest.mark.parametrize(
    "line",
    [
        "Findings: a bell",  # not in capitals
        "CHEST, 2 VIEWS: a bell",  # digits are in no header
        "One: a bell",
        "FINDINGS a bell",  # no colon
        "FINDINGS:a bell",  # nothing after the colon
    ],
)
def test_what_is_no_header(line: str) -> None:
    assert sections(body(line)) == {"preamble": f"FINAL REPORT {line}"}


def test_header_needs_the_indent() -> None:
    assert "findings" not in sections("FINAL REPORT\nFINDINGS: a bell")


def test_of_two_sections_the_last_counts() -> None:
    report = body("IMPRESSION: One bell.", "", "ADDENDUM: See below.", "", "IMPRESSION: No bell.")
    assert sections(report)["impression"] == "No bell."


def test_an_empty_section_does_not_hide_an_earlier_one() -> None:
    report = body("FINDINGS: One bell.", "", "PORTABLE CHEST: ", "", "IMPRESSION: ", "  ")
    found = sections(report)
    assert found["findings"] == "One bell."
    assert "impression" not in found


def test_last_paragraph_where_there_is_neither() -> None:
    report = body("INDICATION: A juggler.", "", "One bell.", "No more.", "", "Silent.")
    found = sections(report)
    assert found["indication"] == "A juggler."
    assert found["last_paragraph"] == "One bell. No more. Silent."


def test_last_paragraph_of_a_report_without_headers() -> None:
    found = sections(body("", "One bell."))
    assert found == {"preamble": "FINAL REPORT", "last_paragraph": "One bell."}


def test_no_last_paragraph_beside_findings() -> None:
    found = sections(body("FINDINGS: One bell.", "", "Silent.", "", "TECHNIQUE: Ear.", "", "Ends."))
    assert found["technique"] == "Ear. Ends."
    assert "last_paragraph" not in found


def test_empty_findings_alone_leave_the_last_paragraph() -> None:
    found = sections(body("INDICATION: A juggler.", "", "One bell.", "", "FINDINGS: ", ""))
    assert found["last_paragraph"] == "One bell."


@pytest.mark.parametrize("report", ["", " ", "\n \n"])
def test_nothing(report: str) -> None:
    assert sections(report) == {"preamble": ""}


def test_addendum_above_a_line_of_underscores() -> None:
    report = body("ADDENDUM: One more bell.", "_" * 78, "FINAL REPORT", "IMPRESSION: No bell.")
    found = sections(report)
    assert found["impression"] == "No bell."
    assert found["addendum"].startswith("One more bell. ___")
