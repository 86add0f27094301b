"""The value of a flow or of one body inside it, as it was sent, with whatever nobody here looks into. Pure."""

from collections.abc import Iterator, Sequence

import msgspec

from tidemill.shared.flow import DEFAULT_BRANCH, Body

_Modules = list[msgspec.Raw]


class _Case(msgspec.Struct, frozen=True):
    modules: _Modules = []


class _Value(msgspec.Struct, frozen=True):
    type: str
    modules: _Modules = []
    branches: list[_Case] = []
    default: _Modules = []


class _Module(msgspec.Struct, frozen=True):
    id: str
    value: _Value


class _Walked(msgspec.Struct, frozen=True):
    modules: _Modules


def part(value: str, body: Body) -> msgspec.Raw | None:
    """Return what a job of this body walks through, as the value of a flow; None for a body that is not there."""
    if body.module is None:
        return msgspec.Raw(value.encode())
    flow = msgspec.json.decode(value, type=_Walked)
    for name, modules in _bodies(flow.modules):
        if name == body:
            return msgspec.Raw(msgspec.json.encode(_Walked(modules)))
    return None


def _bodies(modules: Sequence[msgspec.Raw]) -> Iterator[tuple[Body, _Modules]]:
    for each in modules:
        module = msgspec.json.decode(each, type=_Module)
        for branch, inner in _inside(module.value):
            yield Body(module.id, branch), inner
            yield from _bodies(inner)


def _inside(value: _Value) -> Iterator[tuple[int | None, _Modules]]:
    if value.type in ("forloopflow", "whileloopflow"):
        yield None, value.modules
    elif value.type == "branchone":
        yield DEFAULT_BRANCH, value.default
    if value.type in ("branchone", "branchall"):
        for no, case in enumerate(value.branches):
            yield no, case.modules
