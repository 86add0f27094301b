"""Where an item lives: `u/<username>/<name…>` or `f/<folder>/<name…>`, in letters, digits, `_`, `-` and `.`."""

import re

LONGEST = 255
_PATH = re.compile(r"[uf](/[A-Za-z0-9_.-]+){2,}", re.ASCII)
_EXTENSIONS = (".py", ".sh")


def why_not(path: str) -> str | None:
    """Return what is wrong with an item's path in half a sentence, or None when nothing is."""
    if len(path) > LONGEST:
        return f"must not be longer than {LONGEST} characters"
    if _PATH.fullmatch(path) is None:
        return "must be u/<username>/<name> or f/<folder>/<name>, in letters, digits, '_', '-' and '.'"
    if any(part.strip(".") == "" for part in path.split("/")) or ".." in path:
        return "must not contain '..' nor a part of dots alone"
    return None


def without_extension(path: str) -> str:
    """Return the path without the file extension that imports put behind it."""
    for extension in _EXTENSIONS:
        if path.endswith(extension):
            return path.removesuffix(extension)
    return path
