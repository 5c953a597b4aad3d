"""Numbers with their words, for messages."""


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with its word, such as "1 file" or "3 files"."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"
