"""The one exception a user's mistake raises: what happened, why, and what to do."""


class UserError(Exception):
    """A mistake that the user can mend; printed as three short lines, exit code 2.

    Args:
        what: what is wrong, in one line.
        why: the reason, in one line; may be empty.
        do: what to do about it, in one line; may be empty.
    """

    def __init__(self, what: str, why: str = "", do: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.do = do

    def lines(self) -> list[str]:
        """Return the lines to print, empty ones left out."""
        return [line for line in (self.what, self.why, self.do) if line]


class UnavailableError(UserError):
    """Something that one job needs is not on this machine; other jobs can do without it."""


class ToldError(UserError):
    """A mistake that another process of the same command tells the user."""
