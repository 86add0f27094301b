"""Locks: the text that says what exactly is installed. Pure.

    # py: 3.11
    requests==2.32.3 \\
        --hash=sha256:70761cfe03c773ceb22aa2f671b4757976145175cdfca038c02654d061d6dcc6

Only names with exact versions: no options, no addresses, no files, whoever has written it.
"""

import re
from dataclasses import dataclass

from tidemill.shared import requirements
from tidemill.shared.requirements import NotUnderstood
from tidemill.worker.environments.failure import NotInstallable

_PIN = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?(?:\[[A-Za-z0-9._,\s-]*\])?\s*==\s*[A-Za-z0-9.+!_-]+"
    r"(?:\s*;[A-Za-z0-9_.\s'\"()<>=!~,+-]+?)?(?P<hashes>(?:\s+--hash=[a-z0-9]+:[0-9a-f]+)*)",
    re.ASCII,
)
_PYTHON = re.compile(r"#\s*(?:py\s*:\s*(.+)|(py3\d{1,2})\s*)")
_MOST = 1000
_LONGEST = 65_536  # of one package with all its hashes, of which some have two hundred


@dataclass(frozen=True)
class Lock:
    """What exactly is installed, for which interpreters, and whether each piece proves itself by a hash."""

    python: str | None = None
    pins: tuple[str, ...] = ()
    hashed: bool = True


def read(text: str) -> Lock:
    """Return what a lock says; raises NotInstallable, naming the line that is none of a lock."""
    python: str | None = None
    pins: list[str] = []
    hashed = True
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            named = _PYTHON.fullmatch(stripped)
            if named is not None and python is None and not pins:
                python = _versions(named[1] or named[2])
            continue
        # One blank between words, as it is installed: of long runs of them the pattern would try every division.
        bare = " ".join(stripped.partition(" #")[0].split())
        if not bare:
            continue
        if len(bare) > _LONGEST:
            raise NotInstallable("LockNotUnderstood", f"The lock has a line that is too long: {bare[:100]!r}.")
        found = _PIN.fullmatch(bare)
        if found is None:
            raise NotInstallable("LockNotUnderstood", f"The lock has a line that pins no package: {bare[:100]!r}.")
        hashed = hashed and bool(found["hashes"])
        pins.append(bare)
        if len(pins) > _MOST:
            raise NotInstallable("LockNotUnderstood", f"The lock names more than {_MOST} packages.")
    return Lock(python, tuple(pins), hashed)


def write(python: str, compiled: str) -> str:
    """Return the lock made of what was resolved for an interpreter."""
    return f"{requirements.marker(python)}\n{compiled.strip()}\n"


def _versions(text: str) -> str:
    try:
        return requirements.python_versions(text)
    except NotUnderstood as wrong:
        raise NotInstallable("LockNotUnderstood", f"The lock is wrong: {wrong}") from wrong
