"""What comes with medbench keeps the contract."""

import pytest

from medbench import plugins
from medbench.contract.decoders import DecoderContract
from medbench.contract.metrics import MetricContract
from medbench.contract.tasks import TaskContract
from medbench.contract.tuners import TunerContract


def shipped(kind, role=""):
    """Return the plugins of a kind and role that come with medbench."""
    found = [one for one in plugins.find(kind) if one.origin == "built-in" and one.role == role]
    return pytest.fixture(params=found, ids=lambda plugin: plugin.name)


class TestDecoders(DecoderContract):
    @shipped("method", "decoder")
    def plugin(self, request):
        return request.param


class TestTuners(TunerContract):
    @shipped("method", "tuner")
    def plugin(self, request):
        return request.param


class TestMetrics(MetricContract):
    @shipped("metric")
    def plugin(self, request):
        return request.param


class TestTasks(TaskContract):
    @pytest.fixture(params=["phantom", "phantom_report"])
    def plugin(self, request):
        return plugins.get("task", request.param)
