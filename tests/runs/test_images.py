"""Images of samples are encoded once, never mixed up, and do not pile up."""

import pytest
from PIL import Image

from medbench.errors import UserError
from medbench.images import ImageEncoder
from medbench.task import Sample


@pytest.fixture
def sample(tmp_path):
    """Return a maker of samples whose image is a file of one colour."""

    def make(colour, group="g", stamp="s", question="what?"):
        path = tmp_path / f"{colour}.png"
        if not path.exists():
            Image.new("RGB", (20, 30), colour).save(path)
        return Sample(question, path, question, "", "open", group, stamp)

    return make


def test_an_image_asked_about_twice_is_encoded_once(toy, sample, monkeypatch):
    opened = []
    monkeypatch.setattr(
        "medbench.images.open_image", lambda path: opened.append(path) or Image.open(path)
    )
    encoder = ImageEncoder(toy())
    one, two = encoder(sample("red")), encoder(sample("red", question="where?"))
    assert one is two
    assert len(opened) == 1
    other = encoder(sample("blue", group="h"))
    assert other.digest != one.digest
    assert not other.features.equal(one.features)


def test_images_of_one_group_and_stamp_are_told_apart_by_their_files(toy, sample):
    encoder = ImageEncoder(toy())
    red, blue = sample("red"), sample("blue")
    assert encoder(red).digest != encoder(blue).digest
    assert encoder(red) is encoder(red)


def test_what_was_not_used_for_longest_goes_first(toy, sample):
    small = ImageEncoder(toy(), limit=1)
    red = small(sample("red"))
    small(sample("blue"))
    assert small(sample("red")) is not red
    assert small(sample("red")).features.equal(red.features)
    one = ImageEncoder(toy())(sample("red"))
    size = one.pixels.nbytes + one.features.nbytes
    two = ImageEncoder(toy(), limit=2 * size)
    first, second = two(sample("red")), two(sample("blue"))
    assert two(sample("red")) is first
    two(sample("green"))
    assert two(sample("red")) is first
    assert two(sample("blue")) is not second


def test_an_image_that_is_not_there_is_a_message(toy, tmp_path):
    lost = Sample("id", tmp_path / "none.png", "?", "", "open", "g", "s")
    with pytest.raises(UserError, match="cannot read the image"):
        ImageEncoder(toy())(lost)
