"""Tags and keys with places to fill in: `$workspace`, and `$args[name]` or `$args[name.inner]` from the arguments."""

import hashlib
import re

import msgspec

_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/+-]{0,99}", re.ASCII)
_PLACE = re.compile(r"\$(?:workspace|args\[([^\[\]]{1,200})\])")
_LONGEST_KEY = 255


def why_not(tag: str) -> str | None:
    """Return what is wrong with a tag in half a sentence, or None when nothing is."""
    if _TAG.fullmatch(tag) is None:
        return "must be up to 100 letters, digits, '_', '.', ':', '/', '+' or '-', and begin with a letter or digit"
    return None


def why_not_template(tag: str) -> str | None:
    """Return what is wrong with a tag that may have places to fill in, or None when nothing is."""
    return why_not(_PLACE.sub("x", tag))


def fill(template: str, workspace: str, args: str) -> str:
    """Return the template with its places filled in; an argument that is not there reads `null`."""
    if "$" not in template:
        return template

    def value(place: re.Match[str]) -> str:
        name = place[1]
        return workspace if name is None else _spell(_argument(args, name))

    return _PLACE.sub(value, template)


def limit_key(template: str | None, workspace: str, path: str | None, args: str, *, of: str = "script") -> str:
    """Return the key that a concurrency limit counts by; a long one is shortened to its digest."""
    key = fill(template, workspace, args) if template else f"{workspace}/{of}/{path}"
    key = key.replace("\0", "")
    if len(key) > _LONGEST_KEY:
        return f"{key[:100]}#{hashlib.sha256(key.encode()).hexdigest()}"
    return key


def _argument(args: str, name: str) -> object:
    value: object = msgspec.json.decode(args)
    whole = isinstance(value, dict) and name in value
    for part in [name] if whole else name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _spell(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
