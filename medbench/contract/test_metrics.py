"""The metrics that are to be checked."""

from medbench.contract.metrics import MetricContract


class TestMetric(MetricContract):
    """Every metric that is to be checked, one after the other."""
