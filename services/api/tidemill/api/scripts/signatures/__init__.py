"""What a script takes, read off its content without running any of it. Pure."""

from collections.abc import Callable, Mapping

from tidemill.api.scripts.signatures import bash, python
from tidemill.api.scripts.signatures.signature import LONGEST_CONTENT, Signature
from tidemill.shared.script import Language

READERS: Mapping[str, Callable[[str], Signature]] = {
    Language.PYTHON3: python.read,
    Language.BASH: bash.read,
}


def infer(language: str, content: str) -> Signature:
    """Return the signature of a script; content that can't be read gives none, with the reason."""
    if len(content) > LONGEST_CONTENT:
        return Signature(why=f"the content is longer than {LONGEST_CONTENT // 1024} KiB")
    return READERS[language](content)
