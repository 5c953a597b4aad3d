"""The Indiana chest X-rays of Open-i in the forms they circulate in: R2Gen, Kaggle, XML.

All three have the same studies under the same numbers. R2Gen chose those with findings and at
least two images, and gave each an id that begins with the number: `CXR2384_IM-0942`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medbench.data.read import read_table
from medbench.errors import UserError

if TYPE_CHECKING:
    import xml.etree.ElementTree as ElementTree

XML_FOLDER = "ecgen-radiology"
_KAGGLE_IMAGES = ("images/images_normalized", "images_normalized", "images")
_OPEN_I_IMAGES = ("NLMCXR_png", "images", ".", XML_FOLDER)
_AGAIN = "Download it again from the official source."


@dataclass(frozen=True)
class Study:
    """One examination.

    Attributes:
        findings: the report's section of that name, as written; may be empty.
        images: the one to be shown first; there may be none.
    """

    findings: str
    images: tuple[Path, ...]


def study_number(name: str) -> int:
    """Return the number of a study by R2Gen's id of it (2384 for "CXR2384_IM-0942")."""
    found = re.match(r"CXR(\d+)_", name)
    assert found is not None, f"{name} is no id of R2Gen's"
    return int(found[1])


def find_images(folder: Path) -> Path:
    """Return the folder with R2Gen's images `<id>/0.png` for questions that lie in `folder`."""
    places = [
        place / below
        for place in (folder, folder.parent)
        for below in ("images", "iu_xray/images", "IU-Xray/images")
    ]
    return next((place for place in places if place.is_dir()), places[0])


def read_kaggle(reports: Path) -> Mapping[int, Study]:
    """Read Kaggle's tables: study number -> study; of its images the first frontal one leads.

    Args:
        reports: `indiana_reports.csv`; `indiana_projections.csv` lies beside it.

    Raises:
        UserError: a table is missing or broken.
    """
    folder = reports.parent
    places = (folder / name for name in _KAGGLE_IMAGES)
    images = next((place for place in places if place.is_dir()), folder / _KAGGLE_IMAGES[0])
    shown: dict[int, list[tuple[bool, Path]]] = {}
    projections = folder / "indiana_projections.csv"
    for row in read_table(projections, ("uid", "filename", "projection")):
        lateral = row["projection"].strip().lower() != "frontal"
        shown.setdefault(_uid(projections, row), []).append((lateral, images / row["filename"]))
    studies: dict[int, Study] = {}
    for row in read_table(reports, ("uid", "findings")):
        number = _uid(reports, row)
        # Sorting keeps the order of the table within the frontal and within the lateral ones.
        views = sorted(shown.get(number, []), key=lambda view: view[0])
        _add(studies, number, row["findings"], tuple(path for _, path in views), reports)
    return studies


def read_xml(folder: Path) -> Mapping[int, Study]:
    """Read Open-i's own reports, one XML file each: study number -> study.

    Images lie in `NLMCXR_png` beside the reports' folder, or beside or among the reports.

    Args:
        folder: `ecgen-radiology`.

    Raises:
        UserError: a file is broken, or there are none.
    """
    places = [folder.parent / name for name in _OPEN_I_IMAGES]
    images = next((place for place in places if any(place.glob("CXR*.png"))), places[0])
    studies: dict[int, Study] = {}
    for path in sorted(folder.glob("*.xml")):
        report = _parse(path)
        named = report.find(".//uId")
        number = re.fullmatch(r"CXR(\d+)", "" if named is None else named.get("id", ""))
        if number is None:
            raise UserError(
                f"{path} is no report of Open-i",
                "It has no uId such as CXR1.",
                "Leave only the official reports in the folder.",
            )
        # A section may be missing, empty, or anywhere: only its label says which it is.
        sections = [one for one in report.iter("AbstractText") if one.get("Label") == "FINDINGS"]
        findings = " ".join("".join(section.itertext()).strip() for section in sections)
        names = (image.get("id", "") for image in report.iter("parentImage"))
        files = tuple(images / f"{name}.png" for name in names if name)
        _add(studies, int(number[1]), findings, files, path)
    if not studies:
        raise UserError(f"{folder} is empty", "It has no XML file.", _AGAIN)
    return studies


def _parse(path: Path) -> ElementTree.Element:
    """Return the root of an XML file; one that declares its own entities is refused."""
    import xml.etree.ElementTree as ElementTree

    class Builder(ElementTree.TreeBuilder):
        def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
            # Official reports declare nothing; what does may blow up or reach out of the file.
            raise UserError(
                f"{path} declares a document type",
                "Official reports have none; entities are not resolved.",
                _AGAIN,
            )

    try:
        content = path.read_bytes()
        parser = ElementTree.XMLParser(target=Builder())
        parser.feed(content)
        return parser.close()
    except OSError as error:
        why = f"{error.strerror or error}."
        raise UserError(f"cannot read {path}", why, "Check the path and its rights.") from error
    except ElementTree.ParseError as error:
        raise UserError(f"{path} is damaged XML", f"{str(error).capitalize()}.", _AGAIN) from error


def _uid(path: Path, row: Mapping[str, str]) -> int:
    if not row["uid"].strip().isdecimal():
        raise UserError(
            f"{path} is not the official table",
            f"A uid is '{row['uid']}' and no number.",
            _AGAIN,
        )
    return int(row["uid"])


def _add(
    studies: dict[int, Study], number: int, findings: str, images: tuple[Path, ...], path: Path
) -> None:
    if number in studies:
        raise UserError(
            f"{path} holds study {number} a second time", "Every study has one report.", _AGAIN
        )
    studies[number] = Study(findings.strip(), images)
