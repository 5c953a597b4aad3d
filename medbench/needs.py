"""What a method needs against what there is: said before anything heavy happens."""

from __future__ import annotations

from collections.abc import Sequence

from medbench.backbone import Depth
from medbench.errors import UserError
from medbench.method import Method


def require(name: str, needs: Sequence[str], offers: Sequence[str], where: str = "here") -> None:
    """Make sure that everything a method needs is on offer.

    Raises:
        UserError: something is missing; it names what, and what there is.
    """
    missing = [need for need in needs if need not in offers]
    if missing:
        raise UserError(
            f"{name} cannot run {where}",
            f"It needs {', '.join(missing)}; on offer are {', '.join(offers) or 'nothing'}.",
            "medbench list shows what methods need and what backbones and tasks offer.",
        )


def check_depth(method: Method, depth: Depth | None) -> None:
    """Make sure that a method's layers are there; what is not known cannot be checked yet.

    Raises:
        UserError: they are not.
    """
    if depth is None:
        return
    try:
        method.check(depth)
    except ValueError as error:
        raise UserError(
            f"{method.name} cannot run on {depth.language} decoder layers "
            f"and {depth.vision} vision blocks",
            f"{error}.",
            f"See: medbench show {method.name}",
        ) from None
