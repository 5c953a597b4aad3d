"""The installation: versions against ranges, torchvision beside torch, Java, folders, plugins."""

import json
import os
import stat
import sys
from pathlib import Path

import pytest

from medbench.doctor import machine, packages
from medbench.doctor.machine import check_machine, check_plugins, free_memory
from medbench.doctor.packages import check_packages, look_up, missing_of, read_declared
from medbench.doctor.torches import check_torch


def install(folder, name, version, requires=(), extras=()):
    """Write what pip leaves of a distribution."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {text}" for text in requires]
    lines += [f"Provides-Extra: {text}" for text in extras]
    (info / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")


def program(folder, name, script):
    """Write a program that the PATH may lead to."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_what_fits_is_one_line_with_all_versions(said):
    import torch

    found = list(check_packages())
    assert all(one.state != "problem" for one in found), said(found)
    (line,) = [one.what for one in found if one.what.startswith("torch ")]
    version, _, _ = torch.__version__.partition("+")  # metadata need not name the build
    assert f"torch {version}" in line and ", transformers 5." in line
    assert "tokenizers 0." in line and "huggingface_hub" in line
    assert found[0].what.startswith("medbench ")
    assert f"Python {sys.version.split()[0]} in" in found[1].what


@pytest.mark.parametrize(
    ("version", "fits"),
    [("4.56.2", False), ("5.17.0", True), ("5.40.0.dev0", True), ("6.0", False)],
)
def test_a_version_outside_the_range_is_a_problem(tmp_path, monkeypatch, problems, version, fits):
    install(tmp_path, "transformers", version)
    monkeypatch.syspath_prepend(tmp_path)
    what = f"transformers {version} is installed; medbench needs <6,>=5.17"
    found = problems(check_packages())
    assert found == ([] if fits else [(what, 'pip install "transformers<6,>=5.17"')])


def test_what_is_missing_is_named_with_its_command(monkeypatch, problems):
    whole = read_declared()
    asked = (*whole.required, "no-such-package>=2")
    monkeypatch.setattr(
        packages, "read_declared", lambda: packages.Declared(whole.python, asked, {})
    )
    assert problems(check_packages()) == [
        ("no-such-package is not installed", 'pip install "no-such-package>=2"')
    ]


def test_a_python_out_of_range_is_a_problem(monkeypatch, problems):
    declared = packages.Declared(">=3.99", (), {})
    monkeypatch.setattr(packages, "read_declared", lambda: declared)
    ((what, do),) = problems(check_packages())
    assert what.endswith("medbench needs >=3.99") and ">=3.99" in do


def test_extras_are_read_from_the_project_and_told_how_to_complete(monkeypatch):
    lacking = ("pillow", "no-such-one==1.0")
    extras = {"good": ("pillow",), "lacking": lacking, "test": ("nothing",)}
    extras |= {"bundle": ("medbench[good,lacking]",)}
    declared = packages.Declared("", (), extras)
    monkeypatch.setattr(packages, "read_declared", lambda: declared)
    good, lacking = list(check_packages())[-2:]
    assert (good.state, good.what) == ("good", "medbench[good] is complete")
    assert lacking.state == "note" and "no-such-one==1.0" in lacking.what
    assert lacking.do == 'pip install "medbench[lacking]"'
    assert missing_of("lacking") == ["no-such-one==1.0"]
    assert missing_of("unheard-of") == []


def test_a_checkout_is_read_from_its_project_file():
    import tomllib

    file = Path(packages.__file__).resolve().parents[2] / "pyproject.toml"
    project = tomllib.loads(file.read_text("utf-8"))["project"]
    declared = read_declared()
    assert list(declared.required) == project["dependencies"]
    assert {k: list(v) for k, v in declared.extras.items()} == project["optional-dependencies"]


def test_an_installed_wheel_is_read_from_its_metadata(tmp_path, monkeypatch):
    requires = (
        "torch>=2.8",
        "pywin32; sys_platform == 'win32'",
        "open_clip_torch>=3.3; extra == 'labels'",
        "medspacy; python_version >= '3.12' and extra == 'clinical'",
    )
    install(tmp_path, "medbench", "9.9", requires, ("labels", "clinical"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(packages.medbench, "__file__", str(tmp_path / "medbench" / "__init__.py"))
    declared = read_declared()
    assert [one.name for one in look_up(declared.required)] == ["torch"]
    assert declared.extras["labels"] == ("open_clip_torch>=3.3",)
    new = sys.version_info >= (3, 12)
    assert declared.extras["clinical"] == (("medspacy",) if new else ())


def test_no_distribution_at_all_is_a_note(tmp_path, monkeypatch):
    monkeypatch.setattr(packages.medbench, "__file__", str(tmp_path / "medbench" / "__init__.py"))
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert read_declared() is None
    found = list(check_packages())[-1]
    assert found.state == "note" and "no version can be compared" in found.what


def torchvision(folder, *, version="0.28.0", local="+cu130", requires="torch (==2.13.0)", body=""):
    """Write a torchvision of another build, which fails as those do: when it is imported."""
    package = folder / "torchvision"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(body, encoding="utf-8")
    stated = f"__version__ = '{version}{local}'\ngit_version = 'abc'\n"
    (package / "version.py").write_text(stated, encoding="utf-8")
    install(folder, "torchvision", version, ("numpy", requires, "gdown; extra == 'gdown'"))


def looked(elsewhere, folder):
    """Return what the doctor says of torch where a folder comes first."""
    code = (
        f"import json, os, sys; sys.path.insert(0, {str(folder)!r})\n"
        "os.environ['PYTHONPATH'] = os.pathsep.join([sys.path[0], os.environ['PYTHONPATH']])\n"
        "from medbench.doctor.torches import check_torch\n"
        "print(json.dumps([(o.state, o.what, o.do) for o in check_torch()]))"
    )
    done = elsewhere("-c", code)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def torch_version():
    import torch

    return torch.__version__


def test_a_torchvision_that_breaks_at_import_is_found(elsewhere, tmp_path, torch_version):
    body = 'raise RuntimeError("operator torchvision::nms does not exist")'
    public = torch_version.partition("+")[0]
    torchvision(tmp_path / "site", body=body, requires=f"torch (=={public})")
    state, what, do = looked(elsewhere, tmp_path / "site")[0]
    assert state == "problem"
    assert what.startswith("torchvision 0.28.0 (built for CUDA 13.0) cannot be imported beside")
    assert what.endswith("RuntimeError: operator torchvision::nms does not exist")
    assert f'pip install --force-reinstall "torch=={public}" torchvision' in do
    if torch_version.endswith("+cpu"):
        assert f"torch {torch_version} (built for the CPU)" in what
        assert do.endswith("--index-url https://download.pytorch.org/whl/cpu")


def test_a_torchvision_for_another_torch_is_found_by_its_own_word(elsewhere, tmp_path):
    torchvision(tmp_path / "site", version="0.20.0", requires="torch (==2.5.0)")
    state, what, _ = looked(elsewhere, tmp_path / "site")[0]
    assert state == "problem"
    assert "torchvision 0.20.0" in what and "needs torch==2.5.0, here is torch 2." in what


def test_a_torchvision_that_fits_is_good(elsewhere, tmp_path):
    torchvision(tmp_path / "site", requires="torch (>=2.0)")
    state, what, do = looked(elsewhere, tmp_path / "site")[0]
    assert (state, do) == ("good", "")
    assert "fits torch" in what


def test_a_torch_that_cannot_be_imported_is_a_problem(elsewhere, tmp_path):
    package = tmp_path / "site" / "torch"
    package.mkdir(parents=True)
    body = 'raise ImportError("libcudnn.so.9: cannot open shared object file")'
    (package / "__init__.py").write_text(body, encoding="utf-8")
    install(tmp_path / "site", "torch", "2.15.0")
    state, what, do = looked(elsewhere, tmp_path / "site")[-1]
    assert state == "problem"
    assert what.startswith("torch 2.15.0 cannot be imported. ImportError: libcudnn.so.9")
    assert 'pip install --force-reinstall "torch==2.15.0"' in do


def test_a_gpu_that_torch_does_not_see_is_a_problem(tmp_path, monkeypatch, problems):
    import torch

    if torch.cuda.is_available():
        pytest.skip("torch sees a GPU here")
    assert problems(check_torch()) == []
    program(tmp_path / "bin", "nvidia-smi", "echo 550.54.15; echo 550.54.15")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    ((what, do),) = problems(check_torch())
    assert what.startswith("there is a GPU (driver 550.54.15), and torch does not find it.")
    assert "pytorch.org" in do


def test_gpus_are_told_with_their_memory(monkeypatch, said):
    from types import SimpleNamespace

    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    about = SimpleNamespace(name="H200")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: about)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (130 * 2**30, 139 * 2**30))
    assert "good cuda:0: H200, 130.0 GiB of 139.0 GiB free" in said(check_torch())


JAVA = 'echo \'openjdk version "{}" 2025-04-15\' >&2; echo "OpenJDK Runtime Environment" >&2'


@pytest.mark.parametrize(
    ("script", "state", "what"),
    [
        (JAVA.format("17.0.15"), "good", "Java 17.0.15 (for report metrics in Java)"),
        (JAVA.format("1.8.0_292"), "good", "Java 1.8.0_292 (for report metrics in Java)"),
        (f"echo 'Picked up JAVA_TOOL_OPTIONS: -Xmx1g' >&2; {JAVA.format('21')}", "good", "Java 21"),
        (JAVA.format("1.7.0_80"), "note", "Java 1.7.0_80 is too old for the report metrics"),
        ("echo 'Unable to locate a Java Runtime.' >&2; exit 1", "note", "no Java: report metrics"),
        (None, "note", "no Java: report metrics written in Java cannot run"),
    ],
)
def test_java(tmp_path, monkeypatch, script, state, what):
    (tmp_path / "bin").mkdir()
    if script:
        program(tmp_path / "bin", "java", script)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}/bin" if script else str(tmp_path))
    found = list(check_machine(tmp_path))[-1]
    assert (found.state, found.what[: len(what)]) == (state, what)
    assert bool(found.do) == (state == "note")


def test_folders_that_can_be_written_are_told_and_left_as_they_were(tmp_path, said):
    text = said(check_machine(tmp_path / "results" / "runs"))
    assert f"good results: {tmp_path}/results/runs" in text
    assert not (tmp_path / "results").exists()


def test_a_results_folder_that_cannot_be_written_is_a_problem(tmp_path, monkeypatch, problems):
    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(machine.tempfile, "TemporaryFile", refuse)
    found = problems(check_machine(tmp_path))
    # The cache can be done without.
    assert found == [
        (
            f"results cannot be written: {tmp_path} (Read-only file system)",
            "Take another folder: --out DIR",
        )
    ]


def test_free_memory_heeds_the_limit_of_a_container(tmp_path):
    assert free_memory() > 2**20
    inner = tmp_path / "groups" / "job" / "step"
    inner.mkdir(parents=True)
    own = tmp_path / "cgroup"
    own.write_text("0::/job/step\n", encoding="utf-8")
    for folder, limit, used, pages in (
        (inner, "max", 700, 0),
        (inner.parent, "1000", 700, 300),
        (inner.parent.parent, "5000", 100, 0),
    ):
        (folder / "memory.max").write_text(f"{limit}\n", encoding="utf-8")
        (folder / "memory.current").write_text(f"{used}\n", encoding="utf-8")
        stated = f"anon 12\ninactive_file {pages}\nactive_file 9\n"
        (folder / "memory.stat").write_text(stated, encoding="utf-8")
    assert list(machine._left_by_groups(tmp_path / "groups", own)) == [600, 4900]
    assert list(machine._left_by_groups(tmp_path / "groups", tmp_path / "nothing")) == []


def test_broken_plugins_are_problems_with_their_reason(tmp_path, monkeypatch, problems, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEDBENCH_PLUGINS", raising=False)
    assert list(check_plugins()) == []
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "bad.py").write_text("import medbench (\n", encoding="utf-8")
    mine = 'from medbench import Decoder\nclass A(Decoder):\n    "Mine."\n    name = "mine"\n'
    (tmp_path / "methods" / "mine.py").write_text(mine, encoding="utf-8")
    ((what, do),) = problems(check_plugins())
    assert what.startswith("the method 'bad' is broken: syntax error in line 1")
    assert do == "Mend methods/bad.py."
    assert "good plugins beside medbench's own: mine (working folder)" in said(check_plugins())
