"""What comes with medbench keeps the contract."""

import pytest

from medbench import plugins
from medbench.contract.decoders import DecoderContract
from medbench.contract.metrics import MetricContract
from medbench.contract.tasks import TaskContract
from medbench.contract.tuners import TunerContract


def shipped(role):
    """Return a fixture of the methods that come with medbench."""
    methods = plugins.find("method")
    found = [one for one in methods if one.origin == "built-in" and one.role == role]
    return pytest.fixture(params=found, ids=lambda plugin: plugin.name)


class TestDecoders(DecoderContract):
    @shipped("decoder")
    def plugin(self, request):
        return request.param


class TestTuners(TunerContract):
    @shipped("tuner")
    def plugin(self, request):
        return request.param


# The others need packages, weights or attention; tests/metrics has them.
TEXTS = [
    one.name
    for one in plugins.find("metric")
    if one.origin == "built-in"
    and not (one.attributes["extra"] or one.attributes["downloads"])
    and set(one.attributes["needs"]) <= {"meta"}
]


class TestMetrics(MetricContract):
    @pytest.fixture(params=TEXTS)
    def plugin(self, request):
        return plugins.get("metric", request.param)


class TestTasks(TaskContract):
    @pytest.fixture(params=["phantom", "phantom_report"])
    def plugin(self, request):
        return plugins.get("task", request.param)
