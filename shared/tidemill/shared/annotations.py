"""What a script says of itself among the comments at its top: `# network: none`, `# warm`. Pure."""

from collections.abc import Iterator


def annotations(code: str) -> Iterator[str]:
    """Yield the text of each comment line before the first line of code."""
    for line in code.splitlines():
        if line.startswith("#"):
            yield line[1:].strip()
        elif line.strip():
            return
