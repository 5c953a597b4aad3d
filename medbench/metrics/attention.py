"""Where the model looks: attention on the image against the ground-truth region, patch by patch.

The published text defines coverage and intensity on a map M without saying how M is scaled, and
the scale decides their size and even the sign of a change: both readings are here, under names of
their own. `minmax` stretches a map to reach from 0 to 1; `sum` makes its patches sum to 1, which
puts most patches of a fine grid far below the threshold. Nor does it say which queries, layers and
heads M is of: here it is all that the answer's tokens are chosen from, in plain means
(`medbench.decoding.stack`), and each rule says so.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medbench.errors import UserError
from medbench.metric import Metric
from medbench.rows import PatchMap, Row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Map = NDArray[np.float64]
    Mask = NDArray[np.bool_]

# The threshold of the published experiments.
_THRESHOLD = 0.15


@dataclass(frozen=True)
class OnRegion(Metric):
    """Base of the metrics that compare a row's attention with its region."""

    def applies(self, row: Row) -> bool:
        """Say whether the row has attention and a region that is not empty on the grid."""
        return super().applies(row) and bool(_region(row).any())

    def items(self, rows: Sequence[Row]) -> list[float]:
        """Return one value for each row."""
        values: list[float] = []
        for row in rows:
            attention, region = _attention(row), _region(row)
            if attention.shape != region.shape:
                raise _unreadable(
                    f"row {row.get('id', '?')}: attention is on a grid of "
                    f"{attention.shape}, the region on {region.shape}"
                )
            values.append(self.item(attention, region))
        return values

    def item(self, attention: Map, region: Mask) -> float:
        """Return the value of one map [rows, columns] and one region of the same shape."""
        raise NotImplementedError

    def notes(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Count the rows left out because their region covers no patch centre."""
        regions = (_region(row) for row in rows if super(OnRegion, self).applies(row))
        return {"n_empty_region": sum(not region.any() for region in regions)}

    def example(self, output: str, gold: str) -> Row:
        """Make the row of a golden example: matrices as text, `;` between the rows."""
        import numpy as np

        attention, region = (
            np.array([line.split() for line in text.split(";")], dtype=np.float64)
            for text in (output, gold)
        )
        return {
            "id": "example",
            "group": "example",
            "kind": self.kinds[0],
            "output": output,
            "gold": gold,
            "attention": encode_map(attention),
            "roi": encode_mask(region > 0),
        }


@dataclass(frozen=True)
class CoverageMinmax(OnRegion):
    """Share of the region's patches whose attention, stretched to 0..1, reaches 0.15.

    The map: attention on the image's patches of the queries that chose the answer's tokens (the
    prompt's last position, then every new token but the last), softmax over all keys, mean over
    heads, layers and these queries, in half precision; of beams those of the answer given, of a
    contrast those of its main branch, of edited attention the edited. The region: the gold mask
    through the backbone's own crop, padding or squash; a patch is in if its centre is.

    M is the map minus its minimum, divided by its range (all 0 if it is constant). The value is the
    number of region patches with M >= 0.15 over the number of region patches, the score the mean
    over rows. A row without map or region is not in it; nor is one whose region covers no patch
    centre, which `n_empty_region` counts.
    """

    name = "coverage/minmax"
    paper = "A3Tune, appendix D.2 (a); min-max normalised"
    kinds = ("closed", "open", "choice", "report")
    needs = ("attention", "roi")
    golden = (("0 1; 2 4", "1 1; 0 0", 0.5), ("3 3; 3 3", "1 0; 0 0", 0.0))

    def item(self, attention: Map, region: Mask) -> float:
        """Return the covered share of one region."""
        return float((_minmax(attention)[region] >= _THRESHOLD).mean())


@dataclass(frozen=True)
class CoverageSum(OnRegion):
    """Share of the region's patches that hold at least 0.15 of the attention on the image.

    The map: attention on the image's patches of the queries that chose the answer's tokens (the
    prompt's last position, then every new token but the last), softmax over all keys, mean over
    heads, layers and these queries, in half precision; of beams those of the answer given, of a
    contrast those of its main branch, of edited attention the edited. The region: the gold mask
    through the backbone's own crop, padding or squash; a patch is in if its centre is.

    M is the map divided by its sum (all 0 if that is 0). The value is the number of region patches
    with M >= 0.15 over the number of region patches, the score the mean over rows. On a grid of
    many patches hardly any reaches that. A row without map or region is not in it; nor is one whose
    region covers no patch centre, which `n_empty_region` counts.
    """

    name = "coverage/sum"
    paper = "A3Tune, appendix D.2 (a); normalised to sum 1"
    kinds = ("closed", "open", "choice", "report")
    needs = ("attention", "roi")
    golden = (("0 1; 2 5", "0 1; 1 0", 0.5), ("0 0; 0 0", "1 0; 0 0", 0.0))

    def item(self, attention: Map, region: Mask) -> float:
        """Return the covered share of one region."""
        return float((_share(attention)[region] >= _THRESHOLD).mean())


@dataclass(frozen=True)
class IntensityMinmax(OnRegion):
    """Mean attention over the region's patches, the map stretched to 0..1.

    The map: attention on the image's patches of the queries that chose the answer's tokens (the
    prompt's last position, then every new token but the last), softmax over all keys, mean over
    heads, layers and these queries, in half precision; of beams those of the answer given, of a
    contrast those of its main branch, of edited attention the edited. The region: the gold mask
    through the backbone's own crop, padding or squash; a patch is in if its centre is.

    M is the map minus its minimum, divided by its range (all 0 if it is constant). The value is the
    mean of M over the region's patches, the score the mean over rows; there is no threshold. A row
    without map or region is not in it; nor is one whose region covers no patch centre, which
    `n_empty_region` counts.
    """

    name = "intensity/minmax"
    paper = "A3Tune, appendix D.2 (b); min-max normalised"
    kinds = ("closed", "open", "choice", "report")
    needs = ("attention", "roi")
    golden = (("0 1; 2 4", "1 1; 0 0", 0.125), ("3 3; 3 3", "1 0; 0 0", 0.0))

    def item(self, attention: Map, region: Mask) -> float:
        """Return the mean intensity of one region."""
        return float(_minmax(attention)[region].mean())


@dataclass(frozen=True)
class IntensitySum(OnRegion):
    """Mean share of the attention on the image that one patch of the region holds.

    The map: attention on the image's patches of the queries that chose the answer's tokens (the
    prompt's last position, then every new token but the last), softmax over all keys, mean over
    heads, layers and these queries, in half precision; of beams those of the answer given, of a
    contrast those of its main branch, of edited attention the edited. The region: the gold mask
    through the backbone's own crop, padding or squash; a patch is in if its centre is.

    M is the map divided by its sum (all 0 if that is 0). The value is the mean of M over the
    region's patches, the score the mean over rows; there is no threshold. It shrinks with the
    number of patches. A row without map or region is not in it; nor is one whose region covers no
    patch centre, which `n_empty_region` counts.
    """

    name = "intensity/sum"
    paper = "A3Tune, appendix D.2 (b); normalised to sum 1"
    kinds = ("closed", "open", "choice", "report")
    needs = ("attention", "roi")
    golden = (("0 1; 2 5", "0 1; 1 0", 0.1875), ("0 0; 0 0", "1 0; 0 0", 0.0))

    def item(self, attention: Map, region: Mask) -> float:
        """Return the mean intensity of one region."""
        return float(_share(attention)[region].mean())


@dataclass(frozen=True)
class InRegion(OnRegion):
    """Share of the attention on the image that lies inside the region.

    The map: attention on the image's patches of the queries that chose the answer's tokens (the
    prompt's last position, then every new token but the last), softmax over all keys, mean over
    heads, layers and these queries, in half precision; of beams those of the answer given, of a
    contrast those of its main branch, of edited attention the edited. The region: the gold mask
    through the backbone's own crop, padding or squash; a patch is in if its centre is.

    The value is the map's sum over the region divided by its sum over all patches (0 if that is 0),
    the score the mean over rows; there is no threshold. A row without map or region is not in it;
    nor is one whose region covers no patch centre, which `n_empty_region` counts.
    """

    name = "attention/in_roi"
    kinds = ("closed", "open", "choice", "report")
    needs = ("attention", "roi")
    golden = (("0 1; 2 5", "0 1; 1 0", 0.375), ("0 0; 0 0", "1 0; 0 0", 0.0))

    def item(self, attention: Map, region: Mask) -> float:
        """Return the share of one region."""
        return float(_share(attention)[region].sum())


def encode_map(values: NDArray[Any]) -> PatchMap:
    """Write a map [rows, columns], or one for every step, as float16 in base64.

    Numbers are little-endian and in row-major order.
    """
    import numpy as np

    return _packed(values.shape, np.asarray(values).astype("<f2").tobytes())


def decode_map(packed: PatchMap) -> Map:
    """Read a map written by `encode_map` as float64, [rows, columns] or [steps, rows, columns].

    Raises:
        UserError: the text is not such a map.
    """
    import numpy as np

    shape, data = _unpacked(packed)
    if len(data) != 2 * math.prod(shape):
        raise _unreadable(f"{len(data)} bytes are not a float16 map of {shape}")
    return np.frombuffer(data, dtype="<f2").astype(np.float64).reshape(shape)


def encode_mask(mask: NDArray[Any]) -> PatchMap:
    """Write a bool mask [rows, columns] as bits (row-major, highest bit first) in base64."""
    import numpy as np

    return _packed(mask.shape, np.packbits(np.asarray(mask, dtype=bool)).tobytes())


def decode_mask(packed: PatchMap) -> Mask:
    """Read a mask written by `encode_mask` as bool [rows, columns].

    Raises:
        UserError: the text is not such a mask.
    """
    import numpy as np

    shape, data = _unpacked(packed)
    if len(data) != (math.prod(shape) + 7) // 8:
        raise _unreadable(f"{len(data)} bytes are not a mask of {shape}")
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8), count=math.prod(shape))
    return bits.astype(bool).reshape(shape)


def _attention(row: Row) -> Map:
    assert "attention" in row, "`applies` has seen to it"
    return decode_map(row["attention"])


def _region(row: Row) -> Mask:
    assert "roi" in row, "`applies` has seen to it"
    return decode_mask(row["roi"])


def _packed(shape: tuple[int, ...], data: bytes) -> PatchMap:
    return {"grid": list(shape), "data": base64.b64encode(data).decode("ascii")}


def _unpacked(packed: PatchMap) -> tuple[tuple[int, ...], bytes]:
    try:
        *steps, rows, columns = packed["grid"]
        return (*steps, rows, columns), base64.b64decode(packed["data"], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise _unreadable("grid or data is missing or is not base64") from error


def _unreadable(why: str) -> UserError:
    return UserError(
        "a stored attention map or region cannot be read",
        f"{why}.",
        "The run's samples.jsonl is damaged or was edited; run the command again in a new folder.",
    )


def _minmax(attention: Map) -> Map:
    low, high = attention.min(), attention.max()
    # Any value would do for a constant map; 0 says that no patch stands out.
    return (attention - low) / (high - low) if high > low else attention * 0.0


def _share(attention: Map) -> Map:
    total = attention.sum()
    return attention / total if total > 0 else attention
