"""A run's own token, taken out of all that it says: who may read that may not act in its name. Pure.

The token is looked for as it is written; a job that spells it in another way means to give it away.
"""

import msgspec

from tidemill.worker.sandbox.execution import Ending

MASK = "*****"


def hidden(text: str, secret: str) -> str:
    """Return the text with the mask in the secret's place."""
    return text.replace(secret, MASK) if secret else text


def begun(text: str, secret: str) -> int:
    """Return how many characters at the end of the text may be the secret's beginning."""
    longest = min(len(text), len(secret) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(secret[:length])), 0)


def masked(ending: Ending, secret: str) -> Ending:
    """Return the ending with the mask in the secret's place."""
    written = bytes(ending.result)
    if not secret or secret.encode() not in written:
        return ending
    result = msgspec.Raw(written.replace(secret.encode(), MASK.encode()))
    return msgspec.structs.replace(ending, result=result)
