"""Where packages come from: pip's settings in the words of uv, which reads neither pip's variables nor its files.

uv's own variables go before pip's variables, and those before pip's files. Pure, but for the files.
"""

import configparser
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TRANSLATED: Mapping[str, tuple[str, str]] = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "timeout": ("UV_HTTP_TIMEOUT", " "),
    "retries": ("UV_HTTP_RETRIES", " "),
    "cert": ("SSL_CERT_FILE", " "),
    "proxy": ("ALL_PROXY", " "),
}
"""pip's setting -> uv's variable, and what stands between several values there."""

HANDED_ON = frozenset(
    (
        *("HOME", "LANG", "LC_ALL", "NETRC", "PATH", "TMPDIR"),
        *("SSL_CERT_DIR", "SSL_CERT_FILE", "SSL_CLIENT_CERT"),
        *("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "all_proxy", "https_proxy", "http_proxy", "no_proxy"),
        *("UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_INDEX", "UV_INDEX_STRATEGY", "UV_INDEX_URL"),
        *("UV_CONCURRENT_DOWNLOADS", "UV_EXCLUDE_NEWER", "UV_HTTP_RETRIES", "UV_HTTP_TIMEOUT", "UV_INSECURE_HOST"),
        *("UV_KEYRING_PROVIDER", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS"),
    )
)
"""Variables of the worker that uv gets as they are."""

_INDEXES = ("UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_INDEX", "UV_INDEX_URL")
_FALSE = ("", "0", "false", "no", "off")
_CREDENTIALS = ("_USERNAME", "_PASSWORD")
_SECTIONS = ("global", "install")
_ALIASES = {"default-timeout": "timeout"}


@dataclass(frozen=True)
class Sources:
    """Where packages come from: variables for uv, and what it knows as options of a command alone."""

    variables: Mapping[str, str]
    options: tuple[str, ...] = ()


def sources(environ: Mapping[str, str]) -> Sources:
    """Return where packages come from."""
    given = {
        name: value
        for name, value in environ.items()
        if value and (name in HANDED_ON or (name.startswith("UV_INDEX_") and name.endswith(_CREDENTIALS)))
    }
    pip = {**_from_files(environ), **_from_variables(environ)}
    variables = {**_translated(pip), **given}
    if pip.get("no-index", "").strip().lower() in _FALSE:
        return Sources(variables)
    # There is no variable for it, and an index that is named goes before the option.
    return Sources({name: value for name, value in variables.items() if name not in _INDEXES}, ("--no-index",))


def pip_files(environ: Mapping[str, str]) -> list[Path]:
    """Return where pip's settings may stand, the stronger ones later."""
    chosen = environ.get("PIP_CONFIG_FILE")
    if chosen == os.devnull:
        return []
    home = Path(environ.get("HOME") or "/")
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    found = [
        Path("/etc/xdg/pip/pip.conf"),
        Path("/etc/pip.conf"),
        home / ".pip" / "pip.conf",
        config / "pip" / "pip.conf",
        Path(sys.prefix, "pip.conf"),
    ]
    return [*found, Path(chosen)] if chosen else found


def _translated(settings: Mapping[str, str]) -> dict[str, str]:
    return {
        variable: separator.join(settings[key].split())
        for key, (variable, separator) in TRANSLATED.items()
        if settings.get(key, "").strip()
    }


def _from_variables(environ: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for name, value in environ.items():
        if name.startswith("PIP_") and value:
            key = name.removeprefix("PIP_").lower().replace("_", "-")
            found[_ALIASES.get(key, key)] = value
    return found


def _from_files(environ: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for section in _SECTIONS:
        for file in pip_files(environ):
            parser = configparser.RawConfigParser()
            try:
                parser.read_string(file.read_text())
            except (OSError, UnicodeDecodeError, configparser.Error):
                # Not there, or not for us to read: pip would say so to whoever calls pip.
                continue
            if parser.has_section(section):
                found.update({_ALIASES.get(key, key): value for key, value in parser.items(section)})
    return found
