"""Install the locked dependencies and our own packages into .venv, or write the lock anew: `install` or `lock`.

Runs before anything is installed, so it needs the standard library and pip alone. uv does the work, because it is ten
times faster; but uv does not know pip's settings (a mirror, a certificate), so they are handed over to it.
"""

import ast
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements.lock"
OVERRIDES = Path(__file__).with_name("overrides.txt")
BIN = Path(sys.executable).parent

# pip's setting -> uv's variable and what separates several values in it
SETTINGS: Mapping[str, tuple[str, str]] = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "no-index": ("UV_NO_INDEX", " "),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "timeout": ("UV_HTTP_TIMEOUT", " "),
    "cert": ("SSL_CERT_FILE", " "),
    "proxy": ("ALL_PROXY", " "),
}


def main() -> None:
    """Do what the first argument says."""
    match sys.argv[1:]:
        case ["install"]:
            install()
        case ["lock"]:
            lock()
        case _:
            sys.exit("usage: dependencies.py install | lock")


def install() -> None:
    """Install uv, everything that the lock names, and our own packages so that they are read from their folders."""
    pinned = locked_uv()
    if installed_uv() != pinned.split()[0].removeprefix("uv=="):
        tell("installing uv ...")
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirement:
            requirement.write(pinned)
            requirement.flush()
            run(sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", requirement.name)
    count = len(re.findall(r"^\S+==", LOCK.read_text(), re.MULTILINE))
    tell(f"installing up to {count} packages ...")
    # The lock is complete, and what it overrides is not to be judged again.
    uv("pip", "install", "--quiet", "--no-deps", "--require-hashes", "-r", str(LOCK))
    tell("installing Tidemill ...")
    folders = [argument for folder in members() for argument in ("-e", str(folder))]
    uv("pip", "install", "--quiet", "--no-deps", "--no-build-isolation", *folders)


def lock() -> None:
    """Write requirements.lock anew: each dependency of each package of ours, pinned with hashes, for every platform."""
    ours = [argument for name in sorted(map(name_of, members())) for argument in ("--no-emit-package", name)]
    uv(
        *("pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"),
        *("--no-emit-index-url", "--no-header", "--override", str(OVERRIDES.relative_to(ROOT))),
        *("--group", "dev", *ours, "pyproject.toml", "-o", LOCK.name),
    )


def members() -> list[Path]:
    """Return the folders of our own packages; `ee` is one only where it is present."""
    candidates = [ROOT / "shared", *sorted((ROOT / "services").iterdir()), ROOT / "deploy" / "allinone", ROOT / "ee"]
    return [folder.relative_to(ROOT) for folder in candidates if (folder / "pyproject.toml").exists()]


def name_of(folder: Path) -> str:
    """Return the name under which the package in this folder is distributed."""
    found = re.search(r'^name = "([^"]+)"', (ROOT / folder / "pyproject.toml").read_text(), re.MULTILINE)
    if found is None:
        sys.exit(f"{folder}/pyproject.toml has no name")
    return found[1]


def locked_uv() -> str:
    """Return uv's entry of the lock with its hashes."""
    found = re.search(r"^uv==(?:.*\\\n)*.*\n", LOCK.read_text(), re.MULTILINE)
    if found is None:
        sys.exit("requirements.lock does not name uv")
    return found[0]


def installed_uv() -> str | None:
    """Return the version of uv in .venv, or None."""
    try:
        answer = subprocess.run([BIN / "uv", "--version"], capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.split()[1]


def uv(*arguments: str) -> None:
    """Run uv on .venv with the settings of pip."""
    settings = as_uv_reads_them(pip_settings(), os.environ)
    environment = {**os.environ, **settings, "VIRTUAL_ENV": str(BIN.parent), "UV_NO_CONFIG": "1"}
    run(str(BIN / "uv"), *arguments, environment=environment)


def pip_settings() -> dict[str, str]:
    """Return pip's effective settings: the environment first, then `[install]`, then `[global]`."""
    answer = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True, timeout=60
    )
    found: dict[str, tuple[int, str]] = {}
    for line in answer.stdout.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        rank = {"global": 1, "install": 2, ":env:": 3}.get(section)
        key = key.removeprefix("default-")  # the former name of `timeout`
        if rank is not None and rank >= found.get(key, (0, ""))[0]:
            found[key] = (rank, str(ast.literal_eval(value)))
    return {key: value for key, (_, value) in found.items()}


def as_uv_reads_them(settings: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return uv's variables for these settings of pip; a variable that is already set wins."""
    translated = {}
    for key, (variable, separator) in SETTINGS.items():
        if settings.get(key) and variable not in environment:
            translated[variable] = separator.join(settings[key].split())
    if "UV_INDEX" in translated:
        # As pip does: look into every index. The hashes of the lock say what is acceptable.
        translated.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    return translated


def run(*command: str, environment: Mapping[str, str] | None = None) -> None:
    """Run a command in the root folder and end with it when it fails."""
    ended = subprocess.run(command, cwd=ROOT, env=environment, check=False)
    if ended.returncode != 0:
        sys.exit(ended.returncode)


def tell(line: str) -> None:
    """Show a line of progress at once."""
    sys.stdout.write(f"tidemill: {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
