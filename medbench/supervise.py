"""The providers that a tuner's parameters name: found from source, checked, created, hashed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medbench import keys, plugins, provenance, spec
from medbench.errors import UserError
from medbench.method import Tuner
from medbench.needs import require
from medbench.plugins import Plugin
from medbench.provider import Provider
from medbench.spec import Spec, normalise


def check_names(tuner: Plugin, values: Mapping[str, Any], task: Mapping[str, Any]) -> None:
    """Make sure from source alone that every provider named exists and takes its values.

    Args:
        tuner: any plugin; those that are no tuner name none.
        values: the tuner's parameters; task: the task's literal attributes.

    Raises:
        UserError: a provider is unknown, of the wrong kind, or refuses a value.
    """
    if tuner.role != "tuner":  # a task has an attribute of that name, which is another thing
        return
    for parameter, role in tuner.attributes.get("supervision", {}).items():
        _look_up(tuner.name, parameter, role, spec.parse(str(values[parameter])), task)


def create(
    tuner: Tuner, task: Mapping[str, Any], offers: Sequence[str]
) -> dict[str, tuple[Plugin, Provider]]:
    """Return the providers that a tuner uses, by parameter.

    Args:
        task: the task's literal attributes; offers: what task and backbone have.

    Raises:
        UserError: as `check_names`, or a provider needs what is not on offer.
    """
    found: dict[str, tuple[Plugin, Provider]] = {}
    for parameter in tuner.supervised():
        asked = spec.parse(getattr(tuner, parameter))
        role = tuner.supervision[parameter]
        plugin = _look_up(tuner.name, parameter, role, asked, task)
        where = f"for {tuner.name}[{parameter}={asked.name}]"
        require(plugin.name, plugin.attributes.get("needs", ()), offers, where)
        found[parameter] = plugins.create("provider", asked, _defaults(plugin, task))
    return found


def create_one(written: str, task: Mapping[str, Any]) -> tuple[Plugin, Provider]:
    """Return the provider of a spec, with the defaults it takes from a task.

    Args:
        task: the task's literal attributes.

    Raises:
        UserError: it is unknown, or needs what the task has not.
    """
    asked = spec.parse(written)
    plugin = plugins.get("provider", asked.name)
    require(plugin.name, plugin.attributes.get("needs", ()), task.get("offers", ()))
    return plugins.create("provider", asked, _defaults(plugin, task))


def identity(providers: Mapping[str, tuple[Plugin, Provider]]) -> dict[str, Any]:
    """Return what of the providers goes into an adapter's key: settings, source, files."""
    return {
        parameter: {
            **keys.identity(plugin, provider),
            "files": provenance.hash_files(provider.files()),
        }
        for parameter, (plugin, provider) in providers.items()
    }


def shown(written: Spec, tuner: Tuner) -> Spec:
    """Return a tuner's spec with its providers' paths left out, for tables."""
    values: list[tuple[str, str]] = []
    for name, text in written.values:
        if name in tuner.supervision:
            text = shown_provider(text)
        values.append((name, text))
    return Spec(written.name, tuple(values))


def shown_provider(written: str) -> str:
    """Return a provider's spec without its paths."""
    asked = spec.parse(written)
    hidden = plugins.get("provider", asked.name).attributes.get("unkeyed", ())
    return str(Spec(asked.name, tuple(pair for pair in asked.values if pair[0] not in hidden)))


def _look_up(tuner: str, parameter: str, role: str, asked: Spec, task: Mapping[str, Any]) -> Plugin:
    plugin = plugins.get("provider", asked.name)
    if plugin.role != role:
        fitting = [one.name for one in plugins.find("provider") if one.role == role]
        raise UserError(
            f"{tuner} cannot take {parameter}={asked.name}",
            f"{plugin.name} gives {'regions' if plugin.role == 'regions' else 'an expert view'}.",
            f"Take one of {', '.join(fitting)}.",
        )
    plugins.values(plugin, asked, _defaults(plugin, task))
    return plugin


def _defaults(plugin: Plugin, task: Mapping[str, Any]) -> Mapping[str, Any]:
    by_name = {normalise(name): one for name, one in task.get("supervision", {}).items()}
    return by_name.get(normalise(plugin.name), {})
