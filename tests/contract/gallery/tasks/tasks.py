"""Tasks that break the contract, each in one way, and one that keeps it."""

import itertools
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from medbench.task import Sample, Task

NUMBERS = itertools.count()
# Not as it is printed, since tracebacks show lines of this file.
PATIENT = f"patient-{4000 + 711}"


@dataclass(frozen=True)
class Square(Task):
    """Base of the others: drawn squares."""

    metrics = ("closed/strict", "recall/strict")
    offers = ("roi",)

    max_new_tokens: int = 4

    def samples(self, split):
        first = {"train": 10, "test": 0}[split]
        for number in range(first, first + 4):
            yield Sample(
                id=f"{split}-{number}",
                image=partial(draw, number),
                question=f"what is {number}?",
                answer="yes" if number % 2 else "left lung",
                kind="closed" if number % 2 else "open",
                group=f"image {number}",
                stamp=f"square {number}",
                roi=region,
            )

    def first(self, **changes):
        """Return the samples with changes of the first one."""
        one, *others = Square.samples(self, "test")
        return [replace(one, **changes), *others]


def draw(number):
    from PIL import Image

    return Image.new("RGB", (24, 20), (40 * (number % 6), 90, 200))


def region():
    import numpy as np

    mask = np.zeros((20, 24), bool)
    mask[5:9, 6:12] = True
    return mask


class Good(Square):
    """Drawn squares."""

    name = "good_squares"


class Twice(Square):
    """Give two samples one id."""

    name = "twice"

    def samples(self, split):
        return iter(self.first(id="test-1"))


class Leaks(Square):
    """Ask in the test about images of the training split."""

    name = "leaks"

    def samples(self, split):
        return Square.samples(self, "test")


class LeaksAndSays(Leaks):
    """Do the same, and say why."""

    name = "leaks_and_says"
    shared_images = "all of them, since this is a test"


class NoImage(Square):
    """Name an image that is not there."""

    name = "no_image"

    def samples(self, split):
        return iter(self.first(image=Path("nowhere.png")))


class NoPicture(Square):
    """Give something that is no image."""

    name = "no_picture"

    def samples(self, split):
        return iter(self.first(image=lambda: "a picture"))


class NoStamp(Square):
    """Draw an image that nothing tells apart."""

    name = "no_stamp"

    def samples(self, split):
        return iter(self.first(stamp=""))


class NoSuchMetric(Square):
    """Name a metric that is not there."""

    name = "no_such_metric"
    metrics = ("closed/stict",)


class NoSuchSample(Square):
    """Name a metric that is for other samples."""

    name = "no_such_sample"
    metrics = ("choice/strict",)


class WrongGold(Square):
    """Call a question closed whose answer is neither yes nor no."""

    name = "wrong_gold"
    metrics = ("closed/paper",)

    def samples(self, split):
        return iter(self.first(kind="closed"))


class OtherKind(Square):
    """Have a kind of its own."""

    name = "other_kind"

    def samples(self, split):
        return iter(self.first(kind="maybe"))


class OtherOrder(Square):
    """Yield samples by a count that goes on."""

    name = "other_order"

    def samples(self, split):
        samples = list(Square.samples(self, split))
        turn = next(NUMBERS) % len(samples)
        return iter(samples[turn:] + samples[:turn])


class NotJson(Square):
    """Keep a set in meta."""

    name = "not_json"

    def samples(self, split):
        return iter(self.first(meta={"organs": {"lung"}}))


class NoQuestion(Square):
    """Ask nothing."""

    name = "no_question"

    def samples(self, split):
        return iter(self.first(question=" "))


class TurnedRegion(Square):
    """Give regions of [width, height]."""

    name = "turned_region"

    def samples(self, split):
        return iter(self.first(roi=lambda: region().T))


class GreyRegion(Square):
    """Give regions in shades of grey."""

    name = "grey_region"

    def samples(self, split):
        return iter(self.first(roi=lambda: region().astype("uint8")))


class Traceback(Square):
    """Open a file that is not there."""

    name = "traceback"

    def samples(self, split):
        if not self.data:
            from medbench.errors import UserError

            raise UserError("no data folder given", "", "Give data=DIR.")
        lines = (Path(self.data) / "test.jsonl").read_text()
        yield from (Sample(line, Path(line), "?", "yes", "closed", line) for line in lines)


class Untrue(Square):
    """Show samples that are others."""

    name = "untrue"
    examples = (("test-9", "open", "what?", "this"), ("test-8", "open", "what?", "this"))


class NoFolder(Square):
    """Open a file of the working folder where none was named."""

    name = "no_folder"

    def samples(self, split):
        lines = (Path(self.data) / f"{split}.jsonl").read_text()
        yield from (Sample(line, Path(line), "?", "yes", "closed", line) for line in lines)


class Private(Square):
    """Give two patients one id."""

    name = "private"
    restricted = True

    def samples(self, split):
        first, second, *_ = self.first(id=PATIENT)
        return iter([first, replace(second, id=PATIENT)])


class PrivateImage(Square):
    """Fail with words about a patient."""

    name = "private_image"
    restricted = True

    def samples(self, split):
        return iter(self.first(id=PATIENT, image=fail))


def fail():
    raise ValueError(f"{PATIENT} has no image")
