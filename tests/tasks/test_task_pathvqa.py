"""PathVQA: the release, its conversions and mirror, the dirt in them, and look-alikes."""

from __future__ import annotations

import hashlib
import io
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from medbench.data.passport import hash_ids
from medbench.data.pictures import open_image, with_images
from medbench.errors import UserError
from medbench.provenance import hash_samples
from medbench.task import Sample, StoredImage
from medbench.tasks.pathvqa import PathVqa
from tests.tasks.conftest import draw, write_json

# Invented, with the real ones' dirt: blanks at the ends, double spaces, a doubled row.
ROWS = [
    ("test_0007", "What is  there ?", "the cytoplasm "),
    ("test_0007", "Is it pink?", "yes"),
    ("test_0007", "Is it pink?", "yes"),
    ("test_0001", " Is the nodule green?", "no "),
    ("test_0001", "How much is not seen?", "none"),
    ("test_0012", "Where are nests?", "yes and no"),
]
ID = "pathvqa-test-{}"


def official(root: Path, rows: list[Any] | None = None, short: str = "test") -> Path:
    path = root / "qas" / short / f"{short}_qa.pkl"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = [{"image": i, "question": q, "answer": a} for i, q, a in ROWS]
    path.write_bytes(pickle.dumps(content if rows is None else rows))
    return path


def pictures(root: Path) -> None:
    for image, _, _ in ROWS:
        draw(root / "images" / "test" / f"{image}.jpg")


def lxmert() -> list[dict[str, Any]]:
    """ROWS grouped by image, and an image without questions as the real file has hundreds."""
    images = ["test_0000", *dict.fromkeys(image for image, _, _ in ROWS)]
    return [
        {
            "img_id": name,
            "labelf": {"pvqa": [{a: 1} for image, _, a in ROWS if image == name]},
            "sentf": {"pvqa": [q for image, q, _ in ROWS if image == name]},
        }
        for name in images
    ]


def a3tune() -> list[dict[str, Any]]:
    return [
        {
            "qid": 300700000 + number,
            "image_name": f"{image}.jpg",
            "answer": answer,
            "answer_type": "yes/no" if answer.strip() in ("yes", "no") else "other",
            "question_type": "what",
            "question": question,
        }
        for number, (image, question, answer) in enumerate(ROWS)
    ]


def encoded(grey: int) -> bytes:
    file = io.BytesIO()
    Image.new("CMYK", (8, 6), (0, 0, 0, 255 - grey)).save(file, "JPEG", quality=100)
    return file.getvalue()


def huggingface(folder: Path, split: str = "test") -> None:
    """Two shards without the doubled row, lower-cased."""
    rows = list(dict.fromkeys(ROWS))
    content = {
        "image": [{"bytes": encoded(int(i[-2:]) * 20), "path": None} for i, _, _ in rows],
        "question": [question.lower() for _, question, _ in rows],
        "answer": [answer.lower() for _, _, answer in rows],
    }
    table = pa.table(content)
    folder.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate((table.slice(0, 3), table.slice(3))):
        name = f"{split}-0000{number}-of-00002-e5bc3d208bb4deeb.parquet"
        pq.write_table(part, folder / name, row_group_size=2)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    def counted(n: int) -> dict[str, Any]:
        return {"rows": n, "ids": hash_ids(ID.format(number) for number in range(n))}

    monkeypatch.setattr(PathVqa, "passport", {"test": counted(6)})
    monkeypatch.setattr(PathVqa, "mirrors", {"huggingface": {"test": counted(5)}})


@pytest.fixture
def release(tmp_path: Path) -> Path:
    root = tmp_path / "pvqa"
    official(root)
    pictures(root)
    return root


def read(folder: Path, split: str = "test") -> list[Sample]:
    return list(PathVqa(data=str(folder)).samples(split))


class TestOfficial:
    def test_samples(self, release: Path) -> None:
        samples = read(release)
        assert [sample.id for sample in samples] == [ID.format(number) for number in range(6)]
        assert [sample.question for sample in samples] == [
            "What is  there ?",
            "Is it pink?",
            "Is it pink?",
            "Is the nodule green?",
            "How much is not seen?",
            "Where are nests?",
        ]
        assert [sample.answer for sample in samples] == [
            "the cytoplasm", "yes", "yes", "no", "none", "yes and no",
        ]  # fmt: skip
        assert [sample.kind for sample in samples] == [
            "open", "closed", "closed", "closed", "open", "open",
        ]  # fmt: skip
        assert [sample.group for sample in samples] == [image for image, _, _ in ROWS]
        assert samples[3].image == release / "images/test/test_0001.jpg"
        assert samples[0].roi is None
        assert not samples[0].meta

    def test_edition(self, release: Path) -> None:
        edition = PathVqa(data=str(release)).edition("test")
        assert (edition.name, edition.note) == ("official", "")
        assert edition.files == (release / "qas/test/test_qa.pkl",)

    @pytest.mark.parametrize("place", [".", "pvqa", "PathVQA", "PathVQA/pvqa", "path-vqa/pvqa"])
    def test_found_in_the_folder_or_below(self, tmp_path: Path, place: str) -> None:
        root = tmp_path / "data" / place
        official(root)
        pictures(root)
        for folder in (tmp_path / "data", root):
            task = PathVqa(data=str(folder))
            found, missing = with_images(task, "test", task.samples("test"), allow_missing=False)
            assert (len(found), missing) == (6, [])

    def test_pickles_and_images_side_by_side(self, tmp_path: Path) -> None:
        official(tmp_path / "pvqa").rename(tmp_path / "test_qa.pkl")
        pictures(tmp_path)
        assert read(tmp_path)[0].image == tmp_path / "images/test/test_0007.jpg"

    def test_the_validation_split_is_called_val(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(PathVqa, "passport", {"validation": {"rows": 1}})
        row = {"image": "val_0003", "question": "a?", "answer": "b"}
        official(tmp_path, [row], "val")
        (sample,) = read(tmp_path, "validation")
        assert sample.id == "pathvqa-validation-0"
        assert sample.image == tmp_path / "images/val/val_0003.jpg"

    def test_missing_images_are_counted(self, release: Path) -> None:
        (release / "images/test/test_0007.jpg").unlink()
        task = PathVqa(data=str(release))
        with pytest.raises(UserError) as raised:
            with_images(task, "test", task.samples("test"), allow_missing=False)
        assert raised.value.what == "pathvqa: 3 of 6 test samples lack their image"
        assert "images/test/test_0007.jpg" in raised.value.why

    def test_a_row_less(self, tmp_path: Path) -> None:
        official(tmp_path, [{"image": "a", "question": "b", "answer": "c"}] * 5)
        assert fails(tmp_path).what == "pathvqa: 5 of 6 test questions found"

    def test_a_malicious_pickle(self, tmp_path: Path) -> None:
        official(tmp_path).write_bytes(b"cbuiltins\neval\n(S'1'\ntR.")
        error = fails(tmp_path)
        assert "builtins.eval" in error.why
        assert "any code" in error.why

    def test_rows_of_another_form(self, tmp_path: Path) -> None:
        official(tmp_path, [{"img_id": "a", "sent": "b", "label": {"c": 1}}])
        assert fails(tmp_path).why == "Entry 1 has no 'image'."

    def test_region_texts(self, release: Path) -> None:
        task, sample = PathVqa(data=str(release)), read(release)[1]
        assert task.name_region(sample) == "Medical image of pathology. Is it pink?"
        published = task.name_region(sample, published=True)
        assert published == "Medical image of pathology.Is it pink?"


class TestConversions:
    def test_lxmert(self, tmp_path: Path) -> None:
        write_json(tmp_path / "pvqa_test.json", lxmert())
        pictures(tmp_path)
        samples = read(tmp_path)
        # All questions of an image stand together there.
        assert [(s.group, s.question, s.answer) for s in samples] == [
            (image, question.strip(), answer.strip()) for image, question, answer in ROWS
        ]
        assert samples[0].image == tmp_path / "images/test/test_0007.jpg"
        edition = PathVqa(data=str(tmp_path)).edition("test")
        assert edition.name == "lxmert"
        assert "same questions" in edition.note

    @pytest.mark.parametrize("name", ["test.json", "test_copy.json", "pvqa/test.json"])
    def test_a3tune(self, tmp_path: Path, name: str) -> None:
        write_json(tmp_path / name, a3tune())
        pictures((tmp_path / name).parent)
        samples = read(tmp_path)
        assert [sample.kind for sample in samples].count("closed") == 3
        assert samples[3].image == (tmp_path / name).parent / "images/test/test_0001.jpg"
        assert samples[3].group == "test_0001"
        assert samples[3].meta == {
            "native_id": 300700003,
            "answer_type": "yes/no",
            "question_type": "what",
        }
        assert PathVqa(data=str(tmp_path)).edition("test").name == "a3tune"

    def test_they_hold_the_official_rows(self, tmp_path: Path) -> None:
        write_json(tmp_path / "pvqa_test.json", lxmert()[:-1])
        assert fails(tmp_path).what == "pathvqa: 5 of 6 test questions found"
        (tmp_path / "pvqa_test.json").unlink()
        write_json(tmp_path / "test.json", a3tune()[:-2])
        assert fails(tmp_path).what == "pathvqa: 4 of 6 test questions found"

    @pytest.mark.parametrize(
        "change",
        [
            {"labelf": {"pvqa": [{"yes": 1}]}},
            {"labelf": {"pvqa": [{"a": 1, "b": 1}] * 3}},
            {"labelf": {"vqa": []}},
            {"sentf": []},
            {"sentf": {"pvqa": None}},
        ],
    )
    def test_lxmert_of_another_form(self, tmp_path: Path, change: dict[str, Any]) -> None:
        content = lxmert()
        content[1] |= change
        write_json(tmp_path / "pvqa_test.json", content)
        assert "Entry 2" in fails(tmp_path).why

    def test_llava_form_is_refused(self, tmp_path: Path) -> None:
        write_json(tmp_path / "test.json", [{"id": 1, "image": "a.jpg", "conversations": []}])
        assert fails(tmp_path).why == "Entry 1 has no 'qid'."


class TestHuggingFace:
    def test_samples(self, tmp_path: Path) -> None:
        huggingface(tmp_path / "data")
        samples = read(tmp_path)
        assert [sample.id for sample in samples] == [ID.format(number) for number in range(5)]
        assert samples[2].question == "is the nodule green?"
        assert [sample.answer for sample in samples][2:] == ["no", "none", "yes and no"]
        assert [sample.kind for sample in samples] == ["open", "closed", "closed", "open", "open"]

    def test_questions_about_one_image_form_a_group(self, tmp_path: Path) -> None:
        huggingface(tmp_path / "data")
        samples = read(tmp_path)
        assert Counter(sample.group for sample in samples) == {
            hashlib.sha256(encoded(140)).hexdigest(): 2,
            hashlib.sha256(encoded(20)).hexdigest(): 2,
            hashlib.sha256(encoded(240)).hexdigest(): 1,
        }
        assert all(sample.stamp == sample.group for sample in samples)

    def test_images_open_and_travel(self, tmp_path: Path) -> None:
        huggingface(tmp_path / "data")
        for sample, grey in zip(read(tmp_path), (140, 140, 20, 20, 240), strict=True):
            assert isinstance(sample.image, StoredImage)
            assert sample.image.content() == encoded(grey)
            opened = np.asarray(open_image(sample.image))
            assert opened.shape == (6, 8, 3)
            assert abs(opened.astype(int) - grey).max() <= 2
            assert pickle.loads(pickle.dumps(sample)) == sample

    def test_edition(self, tmp_path: Path) -> None:
        huggingface(tmp_path / "data")
        edition = PathVqa(data=str(tmp_path)).edition("test")
        assert edition.name == "huggingface"
        assert "duplicates dropped" in edition.note
        assert [path.name[:10] for path in edition.files] == ["test-00000", "test-00001"]

    def test_content_is_in_the_hash(self, tmp_path: Path) -> None:
        huggingface(tmp_path / "a")
        huggingface(tmp_path / "b")
        assert hash_samples(read(tmp_path / "a")) == hash_samples(read(tmp_path / "b"))
        path = tmp_path / "b" / "test-00000-of-00002-e5bc3d208bb4deeb.parquet"
        table = pq.read_table(path)
        cells = [{"bytes": encoded(77), "path": None}, *table["image"].to_pylist()[1:]]
        changed = table.set_column(0, "image", pa.array(cells, type=table["image"].type))
        pq.write_table(changed, path)
        assert hash_samples(read(tmp_path / "a")) != hash_samples(read(tmp_path / "b"))

    def test_a_duplicate_less_is_not_this_copy(self, tmp_path: Path) -> None:
        huggingface(tmp_path / "data")
        path = tmp_path / "data" / "test-00001-of-00002-e5bc3d208bb4deeb.parquet"
        pq.write_table(pq.read_table(path).slice(1), path)
        assert fails(tmp_path).what == "pathvqa: 4 of 5 test questions found"


class TestWhichCopy:
    def test_the_release_goes_before_all(self, release: Path) -> None:
        huggingface(release / "data")
        write_json(release / "test.json", a3tune())
        write_json(release / "pvqa_test.json", lxmert())
        task = PathVqa(data=str(release))
        for name, file in (
            ("official", "qas/test/test_qa.pkl"),
            ("lxmert", "pvqa_test.json"),
            ("a3tune", "test.json"),
        ):
            assert task.edition("test").name == name
            (release / file).unlink()
        assert task.edition("test").name == "huggingface"

    @pytest.mark.parametrize(
        ("name", "what"),
        [
            ("data/QA_pairs_vb.json", "older list"),
            ("basic_pathology.json", "without answers"),
            ("qas/test_vqa.pkl", "derived"),
            ("qas/trainval_ans2label.pkl", "derived"),
            ("test.csv", "conversion"),
            ("PathVQA_TEST.tsv", "conversion"),
        ],
    )
    def test_look_alikes_are_named(self, tmp_path: Path, name: str, what: str) -> None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("[]", encoding="utf-8")
        error = fails(tmp_path)
        assert "test_qa.pkl" in error.what
        assert Path(name).name in error.why
        assert what in error.why

    def test_what_is_wrong_with_a_mirror_is_said_beside_a_look_alike(self, tmp_path: Path) -> None:
        huggingface(tmp_path)
        next(tmp_path.glob("test-00001*.parquet")).unlink()
        (tmp_path / "test.csv").write_text("", encoding="utf-8")
        assert fails(tmp_path).why == "Number 1 is missing."

    def test_empty_folder(self, tmp_path: Path) -> None:
        assert "qas/test/test_qa.pkl" in fails(tmp_path).what

    def test_no_folder(self, monkeypatch: pytest.MonkeyPatch, release: Path) -> None:
        monkeypatch.chdir(release)
        assert fails("").what == "pathvqa: no data folder given"

    def test_unknown_split(self, release: Path) -> None:
        assert fails(release, "val").what == "pathvqa has no split 'val'"


def test_what_the_published_counts_are() -> None:
    """The source's own literals, which the fixture stands in for elsewhere."""
    from medbench.plugins import get

    known = get("task", "pathvqa").attributes
    counts = {"train": (19755, 19654), "validation": (6279, 6259), "test": (6761, 6719)}
    for split, (rows, unique) in counts.items():
        for passport, n in ((known["passport"], rows), (known["mirrors"]["huggingface"], unique)):
            ids = hash_ids(f"pathvqa-{split}-{number}" for number in range(n))
            assert passport[split] == {"rows": n, "ids": ids}


class TestStorage:
    """What the data set's images, and other exports, are stored as."""

    RED, GREEN = (200, 30, 40), (20, 180, 60)

    def both(self, path: Path) -> tuple[list[int], list[int]]:
        """Return the colours of the upper left and the lower right corner, as loaded."""
        pixels = np.asarray(open_image(path))
        assert pixels.shape == (16, 24, 3)
        return pixels[2, 2].tolist(), pixels[-3, -3].tolist()

    def halves(self, left: Any, right: Any, mode: str) -> Image.Image:
        image = Image.new(mode, (24, 16), right)
        image.paste(left, (0, 0, 8, 16))
        return image

    def test_cmyk_is_not_inverted(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jpg"
        # No ink and black ink; Pillow writes Adobe's marker and the inverted values it stands for.
        self.halves((0, 0, 0, 0), (0, 255, 255, 0), "CMYK").save(path, quality=100, subsampling=0)
        assert b"Adobe" in path.read_bytes()
        white, red = self.both(path)
        assert min(white) >= 250
        assert red[0] >= 250
        assert max(red[1:]) <= 5

    def test_grey(self, tmp_path: Path) -> None:
        self.halves(10, 200, "L").save(tmp_path / "a.jpg", quality=100)
        dark, light = self.both(tmp_path / "a.jpg")
        assert len(set(dark)) == len(set(light)) == 1
        assert abs(dark[0] - 10) <= 2
        assert abs(light[0] - 200) <= 2

    def test_sixteen_bits(self, tmp_path: Path) -> None:
        pixels = np.full((16, 24), 3000, dtype=np.uint16)
        pixels[:, :8] = 1000
        Image.fromarray(pixels).save(tmp_path / "a.png")
        assert self.both(tmp_path / "a.png") == ([0, 0, 0], [255, 255, 255])

    def test_palette(self, tmp_path: Path) -> None:
        image = self.halves(self.RED, self.GREEN, "RGB").quantize(4)
        image.save(tmp_path / "a.png")
        with Image.open(tmp_path / "a.png") as stored:
            assert stored.mode == "P"
        assert self.both(tmp_path / "a.png") == (list(self.RED), list(self.GREEN))

    def test_transparency_is_dropped(self, tmp_path: Path) -> None:
        image = self.halves((*self.RED, 0), (*self.GREEN, 255), "RGBA")
        image.save(tmp_path / "a.png")
        assert self.both(tmp_path / "a.png") == (list(self.RED), list(self.GREEN))

    def test_orientation_is_ignored(self, tmp_path: Path) -> None:
        image = self.halves(self.RED, self.GREEN, "RGB")
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by a quarter for display
        image.save(tmp_path / "a.png", exif=exif)
        with Image.open(tmp_path / "a.png") as stored:
            assert stored.getexif()[0x0112] == 6
        assert self.both(tmp_path / "a.png") == (list(self.RED), list(self.GREEN))


_MEASURE = """
import sys, tracemalloc
import pyarrow
from medbench.tasks.pathvqa import PathVqa

PathVqa.mirrors = {"huggingface": {"test": {"rows": int(sys.argv[2])}}}
tracemalloc.start()
n = sum(1 for _ in PathVqa(data=sys.argv[1]).samples("test"))
print(n, tracemalloc.get_traced_memory()[1], pyarrow.default_memory_pool().max_memory())
"""


def test_memory_of_twenty_thousand_questions(tmp_path: Path) -> None:
    """The images are 200 MB, 50 MB in a row group; none of them may be held."""
    rows, size, parts = 20_000, 10_000, 4
    path = tmp_path / "test.parquet"
    noise = np.random.default_rng(0)
    asked = [f"what is seen in image number {number}?" for number in range(rows // parts)]
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", image), ("question", pa.string()), ("answer", pa.string())])
    try:
        with pq.ParquetWriter(path, schema) as writer:
            for _ in range(parts):
                part = {
                    "image": [{"bytes": noise.bytes(size), "path": None} for _ in asked],
                    "question": asked,
                    "answer": ["the cytoplasm"] * len(asked),
                }
                writer.write_table(pa.table(part, schema=schema))
        assert path.stat().st_size > rows * size
        # A process of its own: Arrow knows the peak of all that a process did.
        done = subprocess.run(
            [sys.executable, "-c", _MEASURE, str(tmp_path), str(rows)],
            capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
        )  # fmt: skip
    finally:
        path.unlink(missing_ok=True)
    n, python, arrow = (int(number) for number in done.stdout.split())
    assert n == rows
    # Measured: 2 MB of Python's objects, 32 MB in Arrow's buffers, most of it two pages.
    assert python < 5e6
    assert arrow < 45e6


def fails(folder: Path | str, split: str = "test") -> UserError:
    with pytest.raises(UserError) as raised:
        list(PathVqa(data=str(folder)).samples(split))
    assert len(raised.value.lines()) == 3
    return raised.value
