"""The tuners that are to be checked."""

from medbench.contract.tuners import TunerContract


class TestTuner(TunerContract):
    """Every tuner that is to be checked, one after the other."""
