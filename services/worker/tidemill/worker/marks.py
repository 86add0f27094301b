"""What a result says about its own run. Pure.

wm_labels ──── texts by which the job is found, also when it failed
wm_failure ─── why the run is a failure although its code ended well
"""

from collections.abc import Mapping

import msgspec

from tidemill.worker.sandbox.execution import Ending

_LABELS, _FAILURE = "wm_labels", "wm_failure"
_MOST_LABELS = 50
_LONGEST_LABEL = 200
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


class NoLabels(Exception):
    """What stands under wm_labels can't be labels."""


def labels(ending: Ending) -> list[str] | None:
    """Return the labels in a result, each once; raises NoLabels."""
    written = _of(ending).get(_LABELS)
    if written is None:
        return None
    named = msgspec.json.decode(written)
    if not isinstance(named, list) or not all(
        isinstance(each, str) and 0 < len(each) <= _LONGEST_LABEL for each in named
    ):
        raise NoLabels(f"{_LABELS} is no list of texts with 1 to {_LONGEST_LABEL} characters each")
    if len(named) > _MOST_LABELS:
        raise NoLabels(f"{_LABELS} holds more than {_MOST_LABELS} labels")
    return list(dict.fromkeys(named)) or None


def judged(ending: Ending) -> Ending:
    """Return the ending as a failure when its result calls it one, with an error beside what else it holds."""
    if not ending.success:
        return ending
    fields = _of(ending)
    why = msgspec.json.decode(fields[_FAILURE]) if _FAILURE in fields else None
    if not isinstance(why, str) or not why:
        return ending
    error = msgspec.json.encode({"name": "ManualFailure", "message": why})
    result = msgspec.json.encode({**fields, "error": msgspec.Raw(error)})
    return msgspec.structs.replace(ending, success=False, result=msgspec.Raw(result))


def _of(ending: Ending) -> Mapping[str, msgspec.Raw]:
    written = bytes(ending.result)
    if b"wm_" not in written or not written.lstrip().startswith(b"{"):
        return {}
    try:
        return _fields.decode(written)
    except RecursionError:
        # Too deep to be looked into: it says nothing about its run.
        return {}
