"""Any text gives a signature, and any schema holds together."""

import json
import keyword
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.api.scripts.signatures import infer

TYPES = {"integer", "number", "string", "boolean", "array", "object", "null"}

names = st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True).filter(lambda name: not keyword.iskeyword(name))
leaves = st.sampled_from(
    ["int", "float", "str", "bool", "bytes", "None", "dict", "list", "datetime", "date", "Any", "postgresql",
     "S3Object", "A", "B", "C", "'A'", "'['", "Literal['x', 2, None]", "Literal[1 + 1]", "Literal[()]", "1", "f()",
     "x.y.z", "lambda: 1"]
)  # fmt: skip
annotations = st.recursive(
    leaves,
    lambda inner: st.one_of(
        inner.map(lambda a: f"list[{a}]"),
        inner.map(lambda a: f"Optional[{a}]"),
        inner.map(lambda a: f"tuple[{a}, ...]"),
        inner.map(lambda a: f"Annotated[{a}, 1]"),
        st.lists(inner, min_size=1, max_size=4).map(lambda each: f"Union[{', '.join(each)}]"),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}) | ({pair[1]})"),
    ),
    max_leaves=8,
)
defaults = st.one_of(
    st.none(),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=5,
    ).map(repr),
    st.just("f()"),
)
parameters = st.lists(st.tuples(names, st.none() | annotations, defaults), max_size=6, unique_by=lambda each: each[0])
fields = st.dictionaries(names, annotations, max_size=3)


def hold_together(schema: Any) -> None:
    assert isinstance(schema, dict)
    assert schema.get("type", "null") in TYPES
    assert schema.get("nullable", True) is True
    if "enum" in schema:
        assert schema["enum"]
    for each in schema.get("anyOf", ()):
        hold_together(each)
    if "items" in schema:
        assert schema["type"] == "array"
        hold_together(schema["items"])
    if "properties" in schema:
        assert schema["type"] == "object"
        assert set(schema["required"]) <= schema["properties"].keys()
        assert schema["order"] == list(schema["properties"])
        for each in schema["properties"].values():
            hold_together(each)


def written(name: str, annotation: str | None, default: str | None) -> str:
    return name + (f": {annotation}" if annotation else "") + (f" = {default}" if default else "")


@settings(deadline=None)
@given(parameters, st.lists(fields, min_size=3, max_size=3), st.sampled_from(["TypedDict", "BaseModel", "Enum", "A"]))
def test_any_python_signature_gives_a_schema_that_holds_together(
    takes: list[tuple[str, str | None, str | None]], classes: list[dict[str, str]], base: str
) -> None:
    lines = []
    for name, each in zip("ABC", classes, strict=True):
        lines += [f"class {name}({base}):", *(f"  {field}: {kind}" for field, kind in each.items()), "  v = 1"]
    # The star lets parameters without a default follow others.
    star = "*, " if takes else ""
    lines.append(f"def main({star}{', '.join(written(*each) for each in takes)}): pass")
    signature = infer("python3", "\n".join(lines))
    assert signature.why is None or "large" in signature.why
    if signature.schema is not None:
        hold_together(signature.schema)
        assert signature.schema["order"] == [name for name, _, _ in takes]
        for name, _, default in takes:
            assert default is None or name not in signature.schema["required"]
        json.dumps(signature.schema, allow_nan=False).encode()


@settings(deadline=None)
@given(st.dictionaries(names, st.none() | st.text(alphabet="ab $'-", max_size=5), max_size=6))
def test_any_bash_script_gives_a_schema_that_holds_together(takes: dict[str, str | None]) -> None:
    lines = [
        f'{name}="${{{position}{"" if default is None else f":-{default}"}}}"'
        for position, (name, default) in enumerate(takes.items(), 1)
    ]
    schema = infer("bash", "\n".join(lines)).schema
    assert schema is not None
    hold_together(schema)
    assert schema["order"] == list(takes)
    assert schema["required"] == [name for name, default in takes.items() if default is None]


@settings(deadline=None)
@given(
    st.sampled_from(["python3", "bash"]), st.text(st.characters()) | st.text(alphabet="def main():[]{}'\"=,*|\\\n $1-x")
)
def test_any_text_gives_a_signature(language: str, content: str) -> None:
    for each in (content, f"def main({content}): pass", f"def main(a: {content!r}): pass"):
        signature = infer(language, each)
        assert sum([signature.schema is not None, signature.why is not None, signature.is_library]) == 1
        if signature.schema is not None:
            hold_together(signature.schema)
