"""`medbench view`: what it writes, says and refuses."""

import pytest


@pytest.fixture
def view(medbench, place):
    def call(*arguments):
        code, out, err = medbench("view", *arguments)
        assert "Traceback" not in err
        return code, out, err

    return call


def test_the_file_and_its_size_are_told(made, view, place):
    made("greedy")
    made("vcd")
    code, out, err = view("greedy", "vcd")
    size = (place / "view.html").stat().st_size
    assert (code, err) == (0, "")
    assert out == f"view.html ({size / 1e6:.1f} MB)\n"
    assert "<title>greedy, vcd on gallery</title>" in (place / "view.html").read_text("utf-8")
    code, out, _ = view("vcd", "--output", "other.html", "--image-size", "32")
    assert (code, out.split()[0]) == (0, "other.html")


def test_what_is_missing_is_told(made, view, place):
    made("greedy")
    (place / "tasks" / "gallery.py").unlink()
    code, out, err = view("greedy")
    assert code == 0
    assert out.startswith("view.html")
    assert err.startswith("Left out for 8 samples: the image;")


def test_the_data_may_be_elsewhere(view, place, made, plugin_with_data):
    folder = plugin_with_data("filed")
    code, _, err = view(folder)
    assert (code, "Left out for 2 samples" in err) == (0, True)
    code, _, err = view(folder, "--data", place / "there")
    assert (code, err) == (0, "")


@pytest.fixture
def plugin_with_data(place, made):
    """Return a writer of a task whose data lie in the folder `there`, and of a run on it."""

    def write(name):
        source = (place / "tasks" / "gallery.py").read_text(encoding="utf-8")
        source = source.replace('name = "gallery"', f'name = "{name}"').replace(
            "images: int = 4", "images: int = 1"
        )
        source = source.replace("class Gallery", f"class {name.title()}").replace(
            "    def samples(self, split):\n",
            "    def samples(self, split):\n"
            "        from pathlib import Path\n"
            "        from medbench.errors import UserError\n"
            "        if not (Path(self.data) / 'here').is_file():\n"
            "            raise UserError('no data of filed', f'{self.data!r} lacks them')\n",
        )
        (place / "tasks" / f"{name}.py").write_text(source, encoding="utf-8")
        (place / "there").mkdir()
        (place / "there" / "here").touch()
        command = f"medbench run --method greedy --task {name} --data gone"
        return made(task=f"{name}[data=there]", command=command)

    return write


def test_a_restricted_task_is_shown_only_by_name(made, view, place):
    made(task="ward", restricted=True)
    code, _, err = view("greedy", "--task", "ward")
    assert (code, err.startswith("ward is restricted")) == (0, True)
    text = (place / "view.html").read_text(encoding="utf-8")
    secrets = (
        "quillon",
        "marmaduke",
        "xanadu",
        "zephyrine",
        "white bar",
        "data:image/webp;base64,",
    )
    assert [secret for secret in secrets if secret in text] == []
    assert (place / "view.html").stat().st_mode & 0o077
    code, _, err = view("greedy", "--task", "ward", "--show-restricted")
    assert (code, err) == (0, "")
    text = (place / "view.html").read_text(encoding="utf-8")
    assert all(secret in text for secret in secrets[:5])
    assert (place / "view.html").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("gredy",), "no run at 'gredy'"),
        (("greedy", "--task", "ward"), "no runs of task 'ward'"),
        (("greedy", "--preset", "published"), "no runs of preset 'published'"),
        (("greedy", "--image-size", "0"), "--image-size 0 makes no sense"),
        (("greedy", "--output", "nowhere/a.html"), "no folder nowhere"),
        (
            ("greedy", "--output", "results"),
            "Invalid value for '--output': File 'results' is a directory.",
        ),
        ((), "Missing argument 'RUN...'."),
    ],
)
def test_mistakes_are_told_in_three_lines(made, view, place, words, told):
    made("greedy")
    code, out, err = view(*words)
    assert (code, out) == (2, "")
    assert err.splitlines()[0] == told
    assert len(err.splitlines()) <= 3
    assert not (place / "view.html").exists()
