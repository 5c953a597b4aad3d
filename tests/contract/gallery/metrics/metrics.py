"""Metrics that break the contract, each in one way, and one that keeps it."""

from medbench.metric import Metric


class Short(Metric):
    """1 for an output of one word, else 0."""

    name = "short"
    kinds = ("open",)
    golden = (("a", "b", 1.0), ("a b", "b", 0.0))

    def items(self, rows):
        return [float(len(row["output"].split()) == 1) for row in rows]


class WrongExample(Short):
    """Have an example that does not hold."""

    name = "wrong_example"
    golden = (("a b", "b", 1.0),)


class OutOfRange(Short):
    """Count words, and say that it is a share."""

    name = "out_of_range"
    golden = (("a", "b", 1.0),)

    def items(self, rows):
        return [float(len(row["output"].split())) for row in rows]


class Relative(Short):
    """Compare with the other rows."""

    name = "relative"
    golden = (("a", "b", 1.0),)

    def items(self, rows):
        longest = max(len(row["output"]) for row in rows) or 1
        return [len(row["output"]) / longest for row in rows]


class NoExample(Short):
    """Have no example."""

    name = "no_example"
    golden = ()
