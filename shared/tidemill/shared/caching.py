"""Under which key the result of a run is kept, so that the same run again is answered from it. Pure."""

import hashlib
from decimal import Decimal
from typing import Any

import msgspec

_read: msgspec.json.Decoder[Any] = msgspec.json.Decoder(float_hook=Decimal)
_write = msgspec.json.Encoder(order="deterministic", decimal_format="number")


def cache_key(workspace: str, runnable: str, args: str) -> str:
    """Return the key of a run: `runnable` says what runs, such as its kind and hash, and `args` is a JSON object.

    Neither the order of names nor blanks between them tell two runs apart; how a number is written does.
    """
    digest = hashlib.sha256()
    for part in (workspace.encode(), runnable.encode(), _canonical(args)):
        digest.update(len(part).to_bytes(8) + part)
    return digest.hexdigest()


def _canonical(args: str) -> bytes:
    try:
        return _write.encode(_read.decode(args))
    except (msgspec.MsgspecError, RecursionError, ValueError):
        # Valid JSON that can't be taken apart here is only equal to itself.
        return args.encode()
