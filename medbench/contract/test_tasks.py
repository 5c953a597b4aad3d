"""The tasks that are to be checked."""

from medbench.contract.tasks import TaskContract


class TestTask(TaskContract):
    """Every task that is to be checked, one after the other."""
