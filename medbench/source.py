"""Reading plugins: what a file's source says of the plugins in it, without running it."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

from medbench.literals import evaluate
from medbench.parameters import Parameter, type_name
from medbench.spec import normalise

Kind = Literal["method", "task", "backbone", "metric", "provider"]

PACKAGE = Path(__file__).resolve().parent

_MISSING = object()
# The classes that plugins derive from: name -> (kind, file in the package, role).
_ROOTS: dict[str, tuple[Kind, str, str]] = {
    "Method": ("method", "method.py", ""),
    "Decoder": ("method", "method.py", "decoder"),
    "Tuner": ("method", "method.py", "tuner"),
    "Task": ("task", "task.py", ""),
    "Checkpoint": ("backbone", "backbone.py", ""),
    "Metric": ("metric", "metric.py", ""),
    "Provider": ("provider", "provider.py", ""),
    "Regions": ("provider", "provider.py", "regions"),
    "Expert": ("provider", "provider.py", "expert"),
}
_BASES: dict[Kind, str] = {
    "method": "Decoder or Tuner",
    "task": "Task",
    "backbone": "Checkpoint",
    "metric": "Metric",
    "provider": "Regions or Expert",
}


@dataclass(frozen=True)
class Plugin:
    """A method, task, backbone, metric or provider as its source describes it.

    Attributes:
        kind: "method", "task", "backbone", "metric" or "provider".
        name: what users type, as declared; the file's name where it cannot be read.
        path: the file.
        origin: "built-in", "entry point NAME", "MEDBENCH_PLUGINS" or "working folder".
        class_name: the class in the file.
        summary: the docstring's first line.
        doc: the class's docstring, or the module's where the class has none.
        attributes: literal class attributes, the base classes' included.
        parameters: declared parameters, the base classes' first.
        role: "decoder" or "tuner" for methods, "regions" or "expert" for providers, else empty.
        broken: why it cannot be used, in one line; None where it can.
        module: import name of the file, where it has one of its own.
    """

    kind: Kind
    name: str
    path: Path
    origin: str = "built-in"
    class_name: str = ""
    summary: str = ""
    doc: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    parameters: tuple[Parameter, ...] = ()
    role: str = ""
    broken: str | None = None
    module: str = ""

    @property
    def variants(self) -> dict[str, Mapping[str, Any]]:
        """Variant name -> parameter values; "paper" is the defaults and sets none."""
        return {"paper": {}, **self.attributes.get("variants", {})}

    def parameter(self, name: str) -> Parameter | None:
        """Return the parameter of a name, in any case and with `-` for `_`."""
        for parameter in self.parameters:
            if normalise(parameter.name) == normalise(name):
                return parameter
        return None


class _UnreadableError(Exception):
    """Why a class or a file cannot be used as a plugin, in one line."""


@dataclass(frozen=True, eq=False)  # compared by identity, to be a key of a cache
class _Module:
    """The parts of a parsed file that plugins are read from."""

    doc: str
    classes: Mapping[str, ast.ClassDef]
    constants: Mapping[str, ast.expr]
    imports: Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class _Class:
    """What a class says, its base classes' words included."""

    attributes: dict[str, Any]
    parameters: dict[str, Parameter]
    root: str


def read_file(kind: Kind, path: Path, only: str = "") -> list[Plugin]:
    """Return the plugins of a file, broken ones included; at least one, except for metrics.

    Args:
        kind: what the file's folder holds.
        path: a Python file.
        only: a class name; other classes are left out.
    """
    try:
        module = _module(path)
        plugins = list(_plugins(kind, path, module, only))
        # Files beside the metrics hold what several of them share.
        if not plugins and kind != "metric":
            raise _UnreadableError(f"no class derived from {_BASES[kind]} with a literal 'name'")
    except _UnreadableError as error:
        return [Plugin(kind, path.stem, path, broken=str(error))]
    return plugins


def module_file(name: str) -> Path | None:
    """Return the file of a module without importing it or the packages around it."""
    top, *rest = name.split(".")
    if top == "medbench":
        folders = [PACKAGE, PACKAGE.parent] if rest[:1] in (["methods"], ["tasks"]) else [PACKAGE]
    else:
        try:
            spec = importlib.util.find_spec(top)
        except (ImportError, ValueError):
            return None
        if spec is None:
            return None
        if not spec.submodule_search_locations:
            return Path(spec.origin) if spec.origin and not rest else None
        folders = [Path(folder) for folder in spec.submodule_search_locations]
    for folder in folders:
        stem = folder.joinpath(*rest)
        for path in (stem / "__init__.py", stem.parent / f"{stem.name}.py"):
            if path.is_file():
                return path
    return None


def imported_plugins(path: Path) -> Iterator[Path]:
    """Yield the files under medbench's folders of plugins that a file imports."""
    for module, name in _module(path).imports.values():
        for candidate in (module, f"{module}.{name}"):
            if re.match(r"medbench\.(methods|tasks|providers)\.", candidate):
                file = module_file(candidate)
                if file is not None:
                    yield file
                    break


def _plugins(kind: Kind, path: Path, module: _Module, only: str) -> Iterator[Plugin]:
    for class_name, node in module.classes.items():
        if only and class_name != only:
            continue
        own = _own_name(node)
        if own is None:  # an intermediate class, or no plugin at all
            continue
        doc = ast.get_docstring(node) or module.doc
        summary = next(iter(doc.strip().splitlines()), "")
        name = own if isinstance(own, str) and own else path.stem
        plugin = Plugin(kind, name, path, class_name=class_name, summary=summary, doc=doc)
        try:
            facts = _facts(class_name, path, module)
            if not facts.root:
                continue
            if name is not own:
                raise _UnreadableError(f"the name of class {class_name} is not a literal")
            _check(kind, class_name, node, facts)
        except (_UnreadableError, RecursionError) as error:
            circle = isinstance(error, RecursionError)
            yield replace(plugin, broken="base classes in a circle" if circle else str(error))
            continue
        yield replace(
            plugin,
            attributes=facts.attributes,
            parameters=tuple(facts.parameters.values()),
            role=_ROOTS[facts.root][2],
        )


def _check(kind: Kind, class_name: str, node: ast.ClassDef, facts: _Class) -> None:
    found, file, role = _ROOTS[facts.root]
    if found != kind or (kind in ("method", "provider") and not role):
        raise _UnreadableError(f"class {class_name} does not derive from {_BASES[kind]}")
    expected = _facts(facts.root, PACKAGE / file, _module(PACKAGE / file)).attributes
    for name, value in facts.attributes.items():
        if not isinstance(value, type(expected.get(name, value))):
            kind_of = type(expected[name]).__name__
            raise _UnreadableError(f"attribute '{name}' is {value!r}, which is no {kind_of}")
    try:
        for parameter in facts.parameters.values():
            parameter.check()
    except ValueError as error:
        raise _UnreadableError(str(error)) from None
    if "variant" in facts.parameters:
        raise _UnreadableError("a parameter cannot be named 'variant'")
    own = any(note is not None and not _is_class_var(note) for _, note, _ in _assignments(node))
    if own and not any("dataclass" in ast.unparse(item) for item in node.decorator_list):
        raise _UnreadableError(
            f"class {class_name} declares parameters but is no @dataclass(frozen=True)"
        )
    groups: dict[str, Any] = dict(facts.attributes.get("variants", {}))
    if groups.get("paper"):
        raise _UnreadableError("variant 'paper' is the defaults and cannot set anything")
    if "published" in facts.attributes:
        groups["published"] = facts.attributes["published"]
    for group, values in groups.items():
        if not isinstance(values, dict):
            raise _UnreadableError(f"variant '{group}' is no dict of parameter values")
        for key, value in cast("dict[str, Any]", values).items():
            if key not in facts.parameters:
                raise _UnreadableError(f"'{group}' sets '{key}', which is no parameter")
            try:
                facts.parameters[key].accept(value)
            except ValueError as error:
                raise _UnreadableError(f"'{group}' sets '{key}', which {error}") from None


def _module(path: Path) -> _Module:
    try:
        return _parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        where = f" in line {error.lineno}" if error.lineno else ""
        raise _UnreadableError(f"syntax error{where}: {error.msg}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise _UnreadableError(f"cannot be read: {error}") from None


@functools.lru_cache(maxsize=256)
def _parse(source: str) -> _Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a plugin's own affair, and not while listing
        tree = ast.parse(source)
    classes: dict[str, ast.ClassDef] = {}
    constants: dict[str, ast.expr] = {}
    imports: dict[str, tuple[str, str]] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            classes[node.name] = node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            constants[node.targets[0].id] = node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            constants[node.target.id] = node.value
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imports |= {item.asname or item.name: (node.module, item.name) for item in node.names}
        elif isinstance(node, ast.Import):
            imports |= {item.asname or item.name: (item.name, "") for item in node.names}
    return _Module(ast.get_docstring(tree) or "", classes, constants, imports)


@functools.lru_cache(maxsize=256)
def _facts(class_name: str, path: Path, module: _Module) -> _Class:
    node = module.classes[class_name]
    attributes: dict[str, Any] = {}
    parameters: dict[str, Parameter] = {}
    root = ""
    for base in reversed(node.bases):
        above = _base(base, class_name, path, module)
        attributes |= above.attributes
        parameters |= above.parameters
        root = above.root or root
    # Only the files of the base classes themselves end here without a base of their own.
    if path.parent == PACKAGE and class_name in _ROOTS:
        root = class_name
    for name, annotation, value in _assignments(node):
        if annotation is None or _is_class_var(annotation):
            if value is not None:
                attributes[name] = _literal(value, module, f"attribute '{name}'")
            continue
        default = None if value is None else _literal(value, module, f"default of '{name}'")
        text = ast.unparse(_alias(annotation, module))
        parameters[name] = Parameter(name, text, default, value is None)
    for name, line in split_arguments(ast.get_docstring(node) or "")[1].items():
        if name in parameters:
            parameters[name] = replace(parameters[name], help=line)
    return _Class(attributes, parameters, root)


def _base(node: ast.expr, child: str, path: Path, module: _Module) -> _Class:
    text = ast.unparse(node)
    if text in module.classes and text != child:  # `class VCD(VCD)` means the imported one
        return _facts(text, path, module)
    source, name = module.imports.get(text, ("", ""))
    if not name and text.startswith("medbench."):
        source, _, name = text.rpartition(".")
    if source == "medbench" and name in _ROOTS:
        source = f"medbench.{_ROOTS[name][1].removesuffix('.py')}"
    file = module_file(source) if source and name else None
    if file is None:
        return _Class({}, {}, "")
    above = _module(file)
    return _facts(name, file, above) if name in above.classes else _Class({}, {}, "")


def _assignments(node: ast.ClassDef) -> Iterator[tuple[str, ast.expr | None, ast.expr | None]]:
    """Yield (name, annotation, value) of the public class attributes."""
    for item in node.body:
        if isinstance(item, ast.Assign):
            target, annotation = item.targets[0], None
        elif isinstance(item, ast.AnnAssign):
            target, annotation = item.target, item.annotation
        else:
            continue
        if isinstance(target, ast.Name) and not target.id.startswith("_"):
            yield target.id, annotation, item.value


def _own_name(node: ast.ClassDef) -> object:
    """Return the class's literal name, None where it gives none, else something not a string."""
    for name, _, value in _assignments(node):
        if name == "name" and value is not None:
            return value.value if isinstance(value, ast.Constant) else _MISSING
    return None


def _is_class_var(annotation: ast.expr) -> bool:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return "ClassVar" in annotation.value
    return type_name(annotation) == "ClassVar"


def _alias(annotation: ast.expr, module: _Module) -> ast.expr:
    """Return what stands behind a type named in the same file, such as `Rule = Literal[...]`."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        try:
            annotation = ast.parse(annotation.value, mode="eval").body
        except SyntaxError:
            return annotation
    if isinstance(annotation, ast.Name):
        return module.constants.get(annotation.id, annotation)
    return annotation


def _literal(node: ast.expr, module: _Module, what: str) -> Any:
    try:
        return evaluate(node, module.constants)
    except (ValueError, TypeError, ArithmeticError):
        raise _UnreadableError(f"{what} is not a literal") from None


def split_arguments(doc: str) -> tuple[str, dict[str, str]]:
    """Return a docstring without its `Args:` block, and the block as parameter -> help.

    Both `rank, alpha: of LoRA` and `alpha: weight; beta: cut` are understood.
    """
    text: list[str] = []
    entries: list[str] = []
    inside = False
    for line in doc.splitlines():
        if line.strip() == "Args:":
            inside = True
        elif not inside or (line.strip() and not line.startswith(" ")):
            inside = False
            text.append(line)
        elif re.match(r" {2,4}\w", line):
            entries.append(line.strip())
        elif line.strip() and entries:
            entries[-1] += f" {line.strip()}"
    helps: dict[str, str] = {}
    for entry in entries:
        for part in re.split(r"; (?=\w+: )", entry):
            names, colon, line = part.partition(": ")
            if colon:
                helps |= dict.fromkeys(names.split(", "), line)
    return "\n".join(text).strip(), helps
