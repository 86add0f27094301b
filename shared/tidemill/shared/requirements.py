"""What a script wants installed, read off its text and never by running it. Pure, by the standard library alone.

    # requirements:             the packages in the comment lines below it, and no others
    # extra_requirements:       these as well as what is imported
    # /// script                the same as `requirements:`, in the form of PEP 723
    import yaml                 PyYAML, by the table; what no row names is called as it is imported
    import fitz  # pin: PyMuPDF==1.26.0
    # py: 3.12                  the interpreter, also as `# py312` or `# py: >=3.11,<3.13`

Code that Python can't read wants nothing: it fails by itself when it runs.
"""

import ast
import re
import sys
import tomllib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

PACKAGES: Mapping[str, str] = {
    "attr": "attrs",
    "azure.identity": "azure-identity",
    "azure.keyvault.secrets": "azure-keyvault-secrets",
    "azure.servicebus": "azure-servicebus",
    "azure.storage.blob": "azure-storage-blob",
    "Bio": "biopython",
    "box": "python-box",
    "bs4": "beautifulsoup4",
    "Crypto": "pycryptodome",
    "cv2": "opencv-python-headless",
    "databricks.sql": "databricks-sql-connector",
    "dateutil": "python-dateutil",
    "discord": "discord.py",
    "dns": "dnspython",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "faiss": "faiss-cpu",
    "fitz": "PyMuPDF",
    "git": "GitPython",
    "github": "PyGithub",
    "gitlab": "python-gitlab",
    "google.api_core": "google-api-core",
    "google.auth": "google-auth",
    "google.cloud.bigquery": "google-cloud-bigquery",
    "google.cloud.firestore": "google-cloud-firestore",
    "google.cloud.logging": "google-cloud-logging",
    "google.cloud.pubsub_v1": "google-cloud-pubsub",
    "google.cloud.secretmanager": "google-cloud-secret-manager",
    "google.cloud.storage": "google-cloud-storage",
    "google.cloud.vision": "google-cloud-vision",
    "google.genai": "google-genai",
    "google.generativeai": "google-generativeai",
    "google.oauth2": "google-auth",
    "google.protobuf": "protobuf",
    "google_auth_oauthlib": "google-auth-oauthlib",
    "googleapiclient": "google-api-python-client",
    "grpc": "grpcio",
    "hubspot": "hubspot-api-client",
    "imblearn": "imbalanced-learn",
    "jose": "python-jose",
    "jwt": "PyJWT",
    "kafka": "kafka-python",
    "ldap": "python-ldap",
    "magic": "python-magic",
    "mpl_toolkits": "matplotlib",
    "mysql": "mysql-connector-python",
    "MySQLdb": "mysqlclient",
    "nacl": "PyNaCl",
    "OpenSSL": "pyOpenSSL",
    "paho": "paho-mqtt",
    "PIL": "Pillow",
    "pkg_resources": "setuptools",
    "pptx": "python-pptx",
    "psycopg2": "psycopg2-binary",
    "ruamel": "ruamel.yaml",
    "serial": "pyserial",
    "shapefile": "pyshp",
    "shopify": "ShopifyAPI",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "slack": "slackclient",
    "slugify": "python-slugify",
    "snowflake.connector": "snowflake-connector-python",
    "snowflake.snowpark": "snowflake-snowpark-python",
    "socks": "PySocks",
    "tavily": "tavily-python",
    "telegram": "python-telegram-bot",
    "umap": "umap-learn",
    "usb": "pyusb",
    "websocket": "websocket-client",
    "wmill": "wmill",
    "yaml": "PyYAML",
    "zmq": "pyzmq",
}
"""Import name to package, where they differ; the longest dotted name that fits counts."""

SCRIPTS = ("f", "u")
"""The first parts of imports that mean other scripts."""
MOST = 200
"""Packages that one script may name."""
_LONGEST = 300
_DEEPEST = max(name.count(".") for name in PACKAGES) + 1

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_VERSION = r"(?:===|[~=!<>]=|[<>])\s*[A-Za-z0-9.*+!_-]+"
_REQUIREMENT = re.compile(
    rf"{_NAME}\s*(?:\[[A-Za-z0-9._,\s-]*\])?\s*(?:{_VERSION}(?:\s*,\s*{_VERSION})*)?"
    r"\s*(?:;[A-Za-z0-9_.\s'\"()<>=!~,+-]+)?",
    re.ASCII,
)
_PYTHON = re.compile(r"(?:(?:===|[~=!<>]=|[<>])\s*)?3(?:\.\d{1,3}){0,2}(?:\.\*)?", re.ASCII)
_BLOCK = re.compile(r"#\s*(extra_requirements|requirements)\s*:(.*)")
_INTERPRETER = re.compile(r"#\s*(?:py\s*:\s*(.+)|py(3)(\d{1,2})\s*)")
_SHORT = re.compile(r"py(3)(\d{1,2})")
_PIN = re.compile(r"#\s*(?:re)?pin\s*:\s*(.*)")
_UNSUPPORTED = re.compile(r"#\s*(no_cache|no_postinstall)\s*")
_OPENING, _CLOSING = "# /// script", "# ///"


class NotUnderstood(ValueError):
    """A comment asks for something that is not supported or that is no requirement; the text is a whole sentence."""


@dataclass(frozen=True)
class Requirements:
    """The packages that a script wants, in order, and which interpreters may run it."""

    packages: tuple[str, ...] = ()
    python: str | None = None

    @property
    def lock(self) -> str | None:
        """What a lock would say, where nothing has to be resolved for it."""
        if self.packages:
            return None
        return "" if self.python is None else marker(self.python)


NOTHING = Requirements()


def marker(python: str) -> str:
    """Return the first line of a lock, which names the interpreter."""
    return f"# py: {python}"


def of(language: str, code: str) -> Requirements:
    """Return what the script wants; raises NotUnderstood."""
    return of_python(code) if language == "python3" else NOTHING


def of_python(code: str) -> Requirements:
    """Return what a Python script wants; raises NotUnderstood."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            module = ast.parse(code)
            nodes = list(ast.walk(module))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return NOTHING
    lines = _outside_of_texts(code, nodes)
    for line in _leading(lines):
        if unsupported := _UNSUPPORTED.fullmatch(line):
            raise NotUnderstood(f"The annotation {unsupported[1]} is not supported.")
    blocks = dict(_blocks(lines))
    inline = _inline(lines)
    python = _python(lines)
    if inline is not None:
        if blocks:
            raise NotUnderstood("A script has either a block of PEP 723 or requirements of its own, not both.")
        packages, wanted = inline
        if python is not None and wanted is not None and python != wanted:
            raise NotUnderstood(f"The script asks for Python {python} and for {wanted}.")
        return Requirements(_distinct(packages), python or wanted)
    if "requirements" in blocks:
        return Requirements(_distinct([*blocks["requirements"], *blocks.get("extra_requirements", ())]), python)
    return Requirements(_distinct([*_imported(nodes, lines), *blocks.get("extra_requirements", ())]), python)


def requirement(text: str) -> str:
    """Return one requirement of a package by its name; raises NotUnderstood for options, addresses and files."""
    stripped = text.strip()
    if len(stripped) > _LONGEST or _REQUIREMENT.fullmatch(stripped) is None:
        raise NotUnderstood(f"{stripped[:100]!r} is no requirement of a package by its name, as in `requests>=2.31`.")
    return stripped


def python_versions(text: str) -> str:
    """Return which interpreters a text means, as `3.12` or `>=3.11,<3.13`; raises NotUnderstood."""
    parts = [part.strip() for part in text.split(",")]
    short = _SHORT.fullmatch(parts[0]) if len(parts) == 1 else None
    if short is not None:
        return f"{short[1]}.{short[2]}"
    if len(parts) > 5 or not all(_PYTHON.fullmatch(part) for part in parts):
        raise NotUnderstood(f"{text.strip()[:100]!r} names no version of Python, as 3.12 or >=3.11,<3.13 do.")
    return ",".join("".join(part.split()) for part in parts)


def _outside_of_texts(code: str, nodes: list[ast.AST]) -> list[str]:
    """Return the lines of the code, those within a text of several lines empty."""
    lines = ["", *re.split(r"\r\n|\r|\n", code)]
    # Each piece of an f-string has the lines of the whole: looked at one by one, they cost lines times pieces.
    texts = {
        (node.lineno + 1, min(node.end_lineno or 0, len(lines) - 1))
        for node in nodes
        if isinstance(node, (ast.Constant, ast.JoinedStr)) and (node.end_lineno or 0) > node.lineno
    }
    emptied = 0
    for first, last in sorted(texts):
        for number in range(max(first, emptied + 1), last + 1):
            lines[number] = ""
        emptied = max(emptied, last)
    return lines


def _leading(lines: list[str]) -> Iterator[str]:
    for line in lines[1:]:
        if line.strip() and not line.startswith("#"):
            return
        yield line


def _blocks(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    seen: set[str] = set()
    for number, line in enumerate(lines):
        if (found := _BLOCK.fullmatch(line)) is None:
            continue
        name = found[1]
        if found[2].strip():
            raise NotUnderstood(f"`{line.strip()[:100]}` names dependencies of a workspace, which are not supported.")
        if name in seen:
            raise NotUnderstood(f"The script has more than one block of {name}.")
        seen.add(name)
        yield name, list(_comments(lines, number + 1))


def _comments(lines: list[str], start: int) -> Iterator[str]:
    for line in lines[start:]:
        text = line.removeprefix("#").strip()
        if not line.startswith("#") or not text or _BLOCK.fullmatch(line):
            return
        bare = text.partition(" #")[0].strip()
        yield requirement(bare)


def _inline(lines: list[str]) -> tuple[list[str], str | None] | None:
    """Return the packages and the interpreter of a block of PEP 723, or None when there is none."""
    stripped = [line.rstrip() for line in lines]
    if _OPENING not in stripped:
        return None
    start = stripped.index(_OPENING) + 1
    text: list[str] = []
    for line in stripped[start:]:
        if line == _CLOSING:
            break
        if not line.startswith("#"):
            raise NotUnderstood("The block of PEP 723 has no end.")
        text.append(line.removeprefix("#").removeprefix(" "))
    else:
        raise NotUnderstood("The block of PEP 723 has no end.")
    try:
        said = tomllib.loads("\n".join(text))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise NotUnderstood(f"The block of PEP 723 is no TOML: {error}.") from error
    dependencies, python = said.get("dependencies", []), said.get("requires-python")
    if "uv" in (said.get("tool") or {}):
        raise NotUnderstood("The section tool.uv of PEP 723 is not supported.")
    if not isinstance(dependencies, list) or not all(isinstance(each, str) for each in dependencies):
        raise NotUnderstood("The dependencies of PEP 723 must be a list of texts.")
    if python is not None and not isinstance(python, str):
        raise NotUnderstood("The requires-python of PEP 723 must be a text.")
    return [requirement(each) for each in dependencies], None if python is None else python_versions(python)


def _python(lines: list[str]) -> str | None:
    for line in _leading(lines):
        if (found := _INTERPRETER.fullmatch(line)) is not None:
            return python_versions(found[1] or f"{found[2]}.{found[3]}")
    return None


def _imported(nodes: list[ast.AST], lines: list[str]) -> Iterator[str]:
    pins = {number: pin for number, line in enumerate(lines) if (pin := _pin(line)) is not None}
    for node in nodes:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            # A package below a namespace may be what is imported from it: `from google.cloud import storage`.
            module = ".".join(node.module.split(".", _DEEPEST)[:_DEEPEST])
            names = [f"{module}.{alias.name}" for alias in node.names] if len(module) <= _LONGEST else [module]
        else:
            continue
        foreign = [name for name in names if _is_foreign(name.partition(".")[0])]
        pinned = _pinned(node, pins)
        if pinned is not None and foreign:
            yield pinned
        else:
            yield from (package for name in foreign if (package := _package(name)) is not None)


def _is_foreign(name: str) -> bool:
    return name not in sys.stdlib_module_names and name not in SCRIPTS


def _package(name: str) -> str | None:
    parts = name.split(".", _DEEPEST)[:_DEEPEST]
    for length in range(len(parts), 0, -1):
        if (package := PACKAGES.get(".".join(parts[:length]))) is not None:
            return package
    # Names that no package can have are left for the import to fail on.
    return parts[0] if len(parts[0]) <= _LONGEST and re.fullmatch(_NAME, parts[0], re.ASCII) else None


def _pin(line: str) -> str | None:
    _, sign, comment = line.partition("#")
    found = _PIN.fullmatch(sign + comment.rstrip())
    return None if found is None else found[1]


def _pinned(node: ast.Import | ast.ImportFrom, pins: Mapping[int, str]) -> str | None:
    for number in range(node.lineno, (node.end_lineno or node.lineno) + 1):
        if number in pins:
            return requirement(pins[number])
    return None


def _distinct(packages: list[str]) -> tuple[str, ...]:
    distinct = tuple(sorted(set(packages), key=str.lower))
    if len(distinct) > MOST:
        raise NotUnderstood(f"The script names more than {MOST} packages.")
    return distinct
