"""What `main` of a Python script takes, as a schema."""

import time
from typing import Any

import pytest

from tidemill.api.scripts.signatures import infer
from tidemill.api.scripts.signatures.signature import LONGEST_CONTENT, Signature

CLASSES = """
import datetime as dt, enum, wmill
from dataclasses import dataclass, field
from datetime import datetime as moment
from typing import *

class Color(str, enum.Enum):
    _ignore_ = "x"
    RED = "red"
    BLUE = "blue"

class Level(enum.Enum):
    LOW = enum.auto()

class Point(TypedDict, total=False):
    x: Required[int]
    y: int

class Named(Point):
    name: Optional[str]
    color: NotRequired[Color]

@dataclass(frozen=True)
class Order:
    count: int
    kind: ClassVar[str] = "order"
    tags: list[str] = field(default_factory=list)
    note: str = field(repr=False)
    size: int = 3

class Tree(TypedDict):
    left: "Tree"

class Plain:
    def main(self): pass

class postgresql(TypedDict):
    host: str

mysql = dict
ids = list[int]
Ids = list[int]
Loop = list["Loop"]
UserId = NewType("UserId", int)
"""


def read(content: str) -> Signature:
    return infer("python3", content)


def schema(content: str) -> Any:
    signature = read(content)
    assert signature.why is None
    assert signature.schema is not None
    return signature.schema


def kind(annotation: str) -> Any:
    return schema(f"{CLASSES}\ndef main(a: {annotation}): pass")["properties"]["a"]


def test_a_schema_lists_arguments_in_order_and_requires_those_without_default() -> None:
    assert schema("def main(b: int, a: str = 'x', *rest, c: bool, d=1.5, **more): pass") == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "b": {"type": "integer"},
            "a": {"type": "string", "default": "x"},
            "c": {"type": "boolean"},
            "d": {"type": "number", "default": 1.5},
        },
        "required": ["b", "c"],
        "order": ["b", "a", "c", "d"],
    }
    assert list(schema("def main(b, a): pass")["properties"]) == ["b", "a"]


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        ("int", {"type": "integer"}),
        ("float", {"type": "number"}),
        ("str", {"type": "string"}),
        ("bool", {"type": "boolean"}),
        ("bytes", {"type": "string", "contentEncoding": "base64"}),
        ("dt.datetime", {"type": "string", "format": "date-time"}),
        ("moment", {"type": "string", "format": "date-time"}),
        ("dt.date", {"type": "string", "format": "date"}),
        ("dict", {"type": "object"}),
        ("Dict[str, int]", {"type": "object"}),
        ("list", {"type": "array"}),
        ("List[int]", {"type": "array", "items": {"type": "integer"}}),
        ("list[list[str]]", {"type": "array", "items": {"type": "array", "items": {"type": "string"}}}),
        ("tuple[int, ...]", {"type": "array", "items": {"type": "integer"}}),
        ("tuple[int, str]", {"type": "array"}),
        ("'list[int]'", {"type": "array", "items": {"type": "integer"}}),
        ("Annotated[int, 'x']", {"type": "integer"}),
        ("Literal['a', 'b']", {"type": "string", "enum": ["a", "b"]}),
        ("Literal[1, True]", {"enum": [1, True]}),
        ("Literal['a', None]", {"type": "string", "enum": ["a"], "nullable": True}),
        ("Color", {"type": "string", "enum": ["red", "blue"]}),
        ("Level", {}),
        ("Optional[int]", {"type": "integer", "nullable": True}),
        ("None | int", {"type": "integer", "nullable": True}),
        ("Union[int, float]", {"type": "number"}),
        ("int | str", {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        ("int | Any", {}),
        ("Literal[1] | Literal[2]", {"type": "integer", "enum": [1, 2]}),
        ("postgresql", {"type": "object", "format": "resource-postgresql"}),
        ("mysql", {"type": "object", "format": "resource-mysql"}),
        ("c_mine", {"type": "object", "format": "resource-c_mine"}),
        ("wmill.slack", {"type": "object", "format": "resource-slack"}),
        ("np.ndarray", {}),
        ("S3Object", {"type": "object", "format": "resource-s3_object"}),
        ("wmill.S3Object", {"type": "object", "format": "resource-s3_object"}),
        ("ids", {"type": "array", "items": {"type": "integer"}}),
        ("Ids", {"type": "array", "items": {"type": "integer"}}),
        ("UserId", {"type": "integer"}),
        ("Loop", {"type": "array"}),
        ("Plain", {"type": "object"}),
        ("Any", {}),
        ("object", {}),
        ("Unheard", {}),
        ("'not python ('", {}),
        ("f(x)[0]", {}),
    ],
)  # fmt: skip
def test_an_annotation_becomes_a_schema(annotation: str, expected: Any) -> None:
    assert kind(annotation) == expected


def test_a_class_of_fields_becomes_an_object_with_what_its_parents_hold() -> None:
    assert kind("Named") == {
        "type": "object",
        "properties": {
            "x": {"type": "integer"},
            "y": {"type": "integer"},
            "name": {"type": "string", "nullable": True},
            "color": {"type": "string", "enum": ["red", "blue"]},
        },
        "required": ["x", "name"],
        "order": ["x", "y", "name", "color"],
    }
    order = kind("Order")
    assert (order["order"], order["required"]) == (["count", "tags", "note", "size"], ["count", "note"])


def test_a_class_that_holds_itself_ends() -> None:
    assert kind("Tree")["properties"] == {"left": {"type": "object"}}


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        ("a=3", {"type": "integer", "default": 3}),
        ("a=-1.5", {"type": "number", "default": -1.5}),
        ("a=True", {"type": "boolean", "default": True}),
        ("a=[1, {'b': None}]", {"type": "array", "default": [1, {"b": None}]}),
        ("a=b'ab'", {"type": "string", "contentEncoding": "base64", "default": "YWI="}),
        ("a=None", {"nullable": True, "default": None}),
        ("a: str = None", {"type": "string", "nullable": True, "default": None}),
        ("a: int = f()", {"type": "integer", "default": "<function call>"}),
        ("a={**b}", {"default": "<function call>"}),
        ("a=1e999", {"default": "<function call>"}),
        ("a=99999999999999999999", {"default": "<function call>"}),
        ("a='\\ud800'", {"default": "<function call>"}),
        ("a='\\0'", {"default": "<function call>"}),
    ],
)
def test_a_default_is_recorded_and_what_must_be_computed_is_left_to_python(parameter: str, expected: Any) -> None:
    found = schema(f"def main({parameter}): pass")
    assert found["properties"]["a"] == expected
    assert found["required"] == []


def test_what_may_be_null_need_not_be_given() -> None:
    assert schema("def main(a: int | None, b): pass")["required"] == ["b"]


def test_a_first_self_is_no_argument() -> None:
    assert schema("def main(self, a): pass")["order"] == ["a"]
    assert schema("def main(a, self): pass")["order"] == ["a", "self"]


@pytest.mark.parametrize(
    "content",
    ["async def main(a): pass", "def main(): pass\ndef main(a): pass", "if 1:\n  def main(a): pass",
     "try:\n  import x\nexcept ImportError:\n  def main(a): pass", "from x import *\n@wrap\ndef main(a): pass",
     "main = 1\ndef main(a): pass", "def main(a): pass\nnames[main] = 'main'"],
)  # fmt: skip
def test_main_is_the_last_function_of_that_name_outside_of_classes(content: str) -> None:
    assert schema(content)["order"] == ["a"]


@pytest.mark.parametrize("content", ["", "x = 1", "def helper(a): pass", "class A:\n  def main(self): pass"])
def test_a_script_without_main_is_a_library(content: str) -> None:
    assert read(content) == Signature(is_library=True)


@pytest.mark.parametrize(
    "content",
    ["from x import main", "import y as main", "from x import *", "main = f()", "a, main = f()",
     "def main(): pass\nmain = wrap(main)", "class main: pass"],
)  # fmt: skip
def test_a_main_from_elsewhere_is_not_looked_into(content: str) -> None:
    assert read(content) == Signature(why="main is not a function of this file")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("\ndef main(:\n  pass", "line 2"),
        ("a\0", "not Python"),
        ("a = '\ud800'", "not text"),
        ("-" * 50_000 + "1", "too deeply"),
        ("1" + " ** 1" * 10_000, "too deeply"),
        ("class A0(TypedDict): pass\n" + "".join(f"class A{n}(A{n - 1}): pass\n" for n in range(1, 2000))
         + "def main(a: A1999): pass", "too deeply"),
        ("#" * (LONGEST_CONTENT + 1), "longer than"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_gives_no_schema_and_the_reason(content: str, why: str) -> None:
    signature = read(content)
    assert signature.schema is None
    assert why in (signature.why or "")


def test_classes_that_multiply_are_given_up_early() -> None:
    doubling = "".join(f"class A{n}(TypedDict):\n x: A{n + 1}\n y: A{n + 1}\n" for n in range(40))
    started = time.perf_counter()
    assert read(f"{doubling}\ndef main(a: A0): pass") == Signature(why="it would be too large")
    assert time.perf_counter() - started < 2


def test_deep_annotations_are_cut() -> None:
    found = schema(f"def main(a: {'list[' * 90}int{']' * 90}): pass")
    assert str(found).count("array") < 20


def test_nothing_of_a_script_is_run(capsys: pytest.CaptureFixture[str]) -> None:
    content = "print('run')\nclass M(type):\n  print('run')\ndef main(a: print('run') = print('run')): pass"
    assert schema(content)["properties"] == {"a": {"default": "<function call>"}}
    assert capsys.readouterr() == ("", "")
