"""The contract's options of pytest; runs of pytest that do not name the contract get none."""

from __future__ import annotations

import pytest

PACKAGE = "medbench.contract"


# A conftest.py inside a package that --pyargs names is read too late for options.
def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the options where the contract is among what is to be tested."""
    config: pytest.Config | None = pluginmanager.get_plugin("pytestconfig")
    asked = config.invocation_params.args if config else ()
    if not any(str(argument).startswith(PACKAGE) for argument in asked):
        return
    group = parser.getgroup("medbench", "medbench.contract")
    group.addoption(
        "--plugin",
        dest="medbench_plugins",
        action="append",
        default=[],
        metavar="NAME",
        help="Check this plugin, your own or a shipped one; may be repeated. [all your own]",
    )
    group.addoption(
        "--shipped",
        dest="medbench_shipped",
        action="store_true",
        help="Check the plugins that come with medbench.",
    )
    group.addoption(
        "--data",
        dest="medbench_data",
        default="",
        metavar="DIR",
        help="Folder of official files, for tasks that need some.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse names that nothing has, and a data folder that decides where pytest's cache goes."""
    if config.getoption("medbench_plugins", None):
        from medbench.contract.chosen import chosen_by

        chosen_by(config)
    data = str(config.getoption("medbench_data", None) or "")
    alone = data in map(str, config.invocation_params.args)
    if alone and config.inipath is None and config.rootpath != config.invocation_params.dir:
        raise pytest.UsageError(f"pytest takes {data} for a folder of tests; write --data={data}")
