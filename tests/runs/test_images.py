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


def test_what_is_opened_ahead_is_the_same_and_opened_once(toy, sample, monkeypatch):
    opened = []
    monkeypatch.setattr(
        "medbench.images.open_image", lambda path: opened.append(path) or Image.open(path)
    )
    plain, ahead = ImageEncoder(toy()), ImageEncoder(toy())
    samples = [sample("red"), sample("blue", group="h"), sample("red", question="where?")]
    expected = [plain(one) for one in samples]
    opened.clear()
    ahead.ahead(samples)
    for one, wanted in zip(samples, expected, strict=True):
        got = ahead(one)
        assert got.digest == wanted.digest
        assert got.features.equal(wanted.features)
        assert got.pixels.equal(wanted.pixels)
    assert len(opened) == 2
    ahead.ahead(samples)  # kept already
    assert len(opened) == 2


def test_no_more_is_waiting_than_was_asked_for_last(toy, sample):
    encoder = ImageEncoder(toy())
    encoder.ahead([sample("red"), sample("blue")])
    encoder.ahead([sample("green")])
    assert len(encoder._coming) == 1
    encoder.ahead([])
    assert not encoder._coming
    assert encoder(sample("red")).digest == ImageEncoder(toy())(sample("red")).digest


def test_a_worker_works_elsewhere_than_the_model(toy, sample, monkeypatch):
    import threading

    threads = []
    real = Image.open

    def spying(path):
        threads.append(threading.current_thread())
        return real(path)

    monkeypatch.setattr("medbench.images.open_image", spying)
    encoder = ImageEncoder(toy())
    encoder.ahead([sample("red")])
    encoder(sample("red"))
    encoder(sample("blue"))
    assert threads[0] is not threading.main_thread()
    assert threads[1] is threading.main_thread()


def test_an_image_that_a_worker_cannot_open_is_the_same_message(toy, tmp_path):
    lost = Sample("id", tmp_path / "none.png", "?", "", "open", "g", "s")
    encoder = ImageEncoder(toy())
    encoder.ahead([lost])
    with pytest.raises(UserError, match="cannot read the image"):
        encoder(lost)
