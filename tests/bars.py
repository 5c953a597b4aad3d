"""A small task of drawn bars, for tests of what shows its images and regions."""

_TASK = '''"""Drawn bars, two questions each."""

from dataclasses import dataclass
from functools import partial

from medbench.task import Sample, Task


@dataclass(frozen=True)
class {title}(Task):
    """Drawn bars, two questions each."""

    name = "{name}"
    source = "example.org"
    licence = "Nobody's"
    offers = ("roi",)
    metrics = ("closed/strict", "recall/strict", "attention/in_roi")
    restricted = {restricted}

    max_new_tokens: int = 4
    images: int = {images}
    width: int = {width}
    bar: int = {bar}
    shade: int = 200

    def samples(self, split):
        for image in range(self.images):
            for closed in (True, False):
                yield Sample(
                    id=f"quillon-{{image}}-{{'yes' if closed else 'what'}}",
                    image=partial(draw, self.width, self.sides(image), (self.shade, image, 90)),
                    question=f"is bar {{image}} there?" if closed else f"what is {{image}}?",
                    answer="yes" if closed else "white bar",
                    kind="closed" if closed else "open",
                    group=f"marmaduke {{image}}",
                    stamp=f"bar {{image}}",
                    roi=partial(region, self.width, self.sides(image)) if image or closed else None,
                    meta={{
                        "modality": ("ct", "mri")[image % 2],
                        "seed": f"xanadu {{image}}",
                        "question_type": "presence" if closed else "zephyrine",
                    }},
                )

    def sides(self, image):
        left = self.bar // 2 * (image % 5)
        return left, left + self.bar


def draw(width, sides, colour):
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (width, 32), (40, 40, 40))
    left, right = sides
    ImageDraw.Draw(picture).rectangle((left, 4, right - 1, 27), fill=colour)
    return picture


def region(width, sides):
    import numpy as np

    mask = np.zeros((32, width), bool)
    mask[4:28, slice(*sides)] = True
    return mask
'''


def write_task(folder, name, *, restricted=False, images=4, width=32, bar=8):
    """Write a task of drawn bars into a working folder."""
    (folder / "tasks").mkdir(exist_ok=True)
    given = {"images": images, "width": width, "bar": bar}
    text = _TASK.format(name=name, title=name.title(), restricted=restricted, **given)
    (folder / "tasks" / f"{name}.py").write_text(text, encoding="utf-8")
