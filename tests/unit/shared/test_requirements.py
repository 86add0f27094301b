"""What a script wants installed, read off its text."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from tidemill.shared.requirements import NOTHING, NotUnderstood, of, of_python


@pytest.mark.parametrize(
    ("code", "packages"),
    [
        ("import os, json.decoder", ()),
        ("import requests", ("requests",)),
        ("import yaml, PIL.Image", ("Pillow", "PyYAML")),
        ("from sklearn.svm import SVC", ("scikit-learn",)),
        ("from google.cloud import storage", ("google-cloud-storage",)),
        ("import f.folder.helpers\nfrom u.ann.script import x\nfrom . import y\nfrom .z import a", ()),
        ("def main():\n    try:\n        import numpy as np\n    except ImportError:\n        pass", ("numpy",)),
        ("import wmill", ("wmill",)),
        ("import a_b.c\nimport a_b", ("a_b",)),
        ("import _private", ()),
        ("import fitz  # pin: PyMuPDF==1.26.0", ("PyMuPDF==1.26.0",)),
        ("import pandas  # repin: pandas<3\nimport os", ("pandas<3",)),
        ("from x import (\n    a,  # pin: x-y==1\n    b,\n)", ("x-y==1",)),
    ],
)  # fmt: skip
def test_imports_become_packages(code: str, packages: tuple[str, ...]) -> None:
    assert of_python(code).packages == packages


def test_a_block_of_requirements_is_all_there_is() -> None:
    code = "# requirements:\n# requests[socks]>=2,<3\n#rich==13.7.0 ; python_version < '4'\n\nimport yaml\n"
    assert of_python(code).packages == ("requests[socks]>=2,<3", "rich==13.7.0 ; python_version < '4'")


def test_extra_requirements_come_on_top() -> None:
    assert of_python("#extra_requirements:\n#lxml\n\nimport bs4\n").packages == ("beautifulsoup4", "lxml")


def test_the_inline_block_of_a_script_is_understood() -> None:
    code = '# /// script\n# requires-python = ">=3.11"\n# dependencies = [\n#   "rich",\n# ]\n# ///\nimport yaml\n'
    assert of_python(code).packages == ("rich",)
    assert of_python(code).python == ">=3.11"


@pytest.mark.parametrize(
    ("line", "python"),
    [
        ("# py: 3.12", "3.12"),
        ("#py: >=3.11, <3.13", ">=3.11,<3.13"),
        ("# py313", "3.13"),
        ("# py: py312", "3.12"),
        ("# python", None),
    ],
)
def test_the_interpreter_is_named_at_the_beginning(line: str, python: str | None) -> None:
    assert of_python(f"{line}\nimport os\n").python == python
    assert of_python(f"import os\n{line}\n").python is None


def test_what_stands_within_a_text_asks_for_nothing() -> None:
    assert of_python('"""\n# requirements:\n# evil\n"""\nimport rich\n').packages == ("rich",)


@contextmanager
def steps(most: int) -> Iterator[None]:
    """Let no more lines of Python run in the block."""
    left = most
    before = sys.gettrace()

    def count(_frame: FrameType, event: str, _what: object) -> Any:
        nonlocal left
        left -= event == "line"
        assert left, f"more than {most} lines of Python were run"
        return count

    sys.settrace(count)
    try:
        yield
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("opening", ['"""', 'f"""'])
def test_a_long_text_with_many_values_costs_no_more_than_its_length(opening: str) -> None:
    text = "# requirements:\n# evil {x}\n" * 2500
    with steps(500_000):
        wanted = of_python(f'x = {opening}{text}"""; y = """\n# evil\n"""\nimport rich  # pin: rich==13\n')
    assert wanted.packages == ("rich==13",)


def test_many_imports_in_one_line_are_looked_at_once() -> None:
    deep = ".a" * 3000
    with steps(100_000):
        assert of_python(f"{'import os; ' * 500}import rich{deep}; from yaml{deep} import b").packages == (
            "PyYAML",
            "rich",
        )
        assert of_python(f"from {'a' * 5000} import {'b, ' * 500}c") == NOTHING


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("# no_cache\nimport os", "no_cache"),
        ("# requirements: default\nimport os", "workspace"),
        ("# requirements:\n# -r /etc/passwd\n", "-r /etc/passwd"),
        ("# requirements:\n# x @ file:///etc/passwd\n", "file:///etc/passwd"),
        ("# requirements:\n# git+https://example.com/x\n", "git+https"),
        ("# requirements:\n# --index-url=https://example.com\n", "--index-url"),
        ("import x  # pin: ./here\n", "./here"),
        ("# py: 2.7\nimport os", "2.7"),
        ("# py: 3.12; rm\nimport os", "3.12; rm"),
        ("# /// script\n# dependencies = []\n", "no end"),
        ("# /// script\n# dependencies = [1]\n# ///\n", "list of texts"),
        ("# /// script\n# [tool.uv]\n# x = 1\n# ///\n", "tool.uv"),
        ("# requirements:\n# a\n\n# requirements:\n# b\n", "more than one"),
        ("\n".join(f"import m{n}" for n in range(201)), "200"),
    ],
)
def test_what_is_not_understood_is_named(code: str, names: str) -> None:
    with pytest.raises(NotUnderstood, match=names.replace("+", r"\+")):
        of_python(code)


@pytest.mark.parametrize("code", ["def main(:", "(" * 50_000, "x = '\0'", "import \ud800"])
def test_code_that_can_not_be_read_wants_nothing(code: str) -> None:
    assert of_python(code) == NOTHING


def test_bash_wants_nothing() -> None:
    assert of("bash", "# requirements:\n# requests\n") == NOTHING


def test_a_lock_is_known_at_once_where_nothing_is_to_be_resolved() -> None:
    assert of_python("import os").lock == ""
    assert of_python("# py: 3.12\nimport os").lock == "# py: 3.12"
    assert of_python("import rich").lock is None
