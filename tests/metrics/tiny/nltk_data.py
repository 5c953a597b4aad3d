"""Small data in the formats that NLTK reads: a model of sentence ends, a database of synonyms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

REPORTS = (
    "The heart is normal in size. The lungs are clear. There is no pleural effusion. "
    "A nodule of approx. 5 mm is seen. It is approx. as large as before. The effusion is approx. "
    "300 ml. No pneumothorax. The patient was seen by Dr. Smith. The tube ends 2 cm above the "
    "carina. Heart size is stable. Dr. Jones was told at 5 p.m. by phone. Lungs are well expanded. "
)
SYNONYMS = (("heart", "pump", "ticker"), ("effusion", "outpouring"), ("lung",), ("heart", "core"))

_HEADER = "  1 WordNet 3.0 Copyright by nobody: made for tests.  \n"
_PARTS = ("adj", "adv", "noun", "verb")


def punkt(root: Path, *, reports: str = REPORTS, repeated: int = 20) -> Path:
    """Write an English model of sentence ends, trained by NLTK and saved as punkt_tab.

    Args:
        root: a folder of NLTK's data.
        reports: what it is trained on; repeated: how often.
    """
    from nltk import data
    from nltk.tokenize.punkt import PunktTrainer, save_punkt_params

    folder = root / "tokenizers" / "punkt_tab" / "english"
    _folders(folder)
    trained = PunktTrainer(reports * repeated).get_params()
    before = list(data.path)
    data.path[:] = [str(root)]  # NLTK writes nowhere else
    try:
        save_punkt_params(trained, dir=str(folder))
    finally:
        data.path[:] = before
    return _readable(folder)


def wordnet(root: Path, *, synonyms: Sequence[Sequence[str]] = SYNONYMS) -> Path:
    """Write a WordNet of nouns, as its authors lay it out.

    Args:
        root: a folder of NLTK's data.
        synonyms: sets of nouns with one meaning.
    """
    folder = root / "corpora" / "wordnet"
    _folders(folder)
    offsets: dict[str, list[int]] = {}
    senses: list[str] = []
    lines = [_HEADER]
    for number, words in enumerate(synonyms):
        # A meaning is called by where its line begins.
        offset = sum(map(len, lines))
        listed = " ".join(f"{word} {number:x}" for word in words)
        lines.append(f"{offset:08d} 00 n {len(words):02x} {listed} 000 | meaning {number}  \n")
        for word in words:
            offsets.setdefault(word, []).append(offset)
            senses.append(f"{word}%1:00:{number:02d}:: {offset:08d} {len(offsets[word])} 0\n")
    index = [
        f"{word} n {len(found)} 0 {len(found)} 0 {' '.join(f'{at:08d}' for at in found)}  \n"
        for word, found in sorted(offsets.items())
    ]
    files = {f"{kind}.{part}": _HEADER for kind in ("data", "index") for part in _PARTS}
    files |= {f"{part}.exc": "" for part in _PARTS}
    files |= {"lexnames": "00\tnoun.Tops\t1\n", "cntlist.rev": ""}
    files |= {"data.noun": "".join(lines), "index.noun": _HEADER + "".join(index)}
    files |= {"index.sense": "".join(sorted(senses))}
    for name, content in files.items():
        (folder / name).write_bytes(content.encode("ascii"))
    return _readable(folder)


def _folders(folder: Path) -> None:
    """Make a folder and those above it; NLTK reads none that others may write to."""
    for one in (*reversed(folder.parents), folder):
        one.mkdir(mode=0o755, exist_ok=True)


def _readable(folder: Path) -> Path:
    for file in folder.iterdir():
        file.chmod(0o644)
    return folder
