"""What the names of a Python file stand for: its main function, classes, aliases and imports."""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

MAIN = "main"
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Definitions:
    """The names of one file; of several definitions of one name, the last."""

    main: Function | None = None
    may_have_main: bool = False
    """Whether main comes from somewhere that can't be looked into."""
    classes: dict[str, ast.ClassDef] = field(default_factory=dict)
    aliases: dict[str, ast.expr] = field(default_factory=dict)
    originals: dict[str, str] = field(default_factory=dict)
    """What imported names are called where they come from; for a module, its own name."""

    @classmethod
    def of(cls, module: ast.Module) -> "Definitions":
        """Return what a file defines, in blocks of `if` and `try` as well."""
        found = cls()
        for statement in _statements(module):
            found._take(statement)
        return found

    def name_of(self, node: ast.expr) -> str:
        """Return what a name, the end of a dotted name, what is called or what is subscripted is called at home."""
        while isinstance(node, (ast.Call, ast.Subscript)):
            node = node.func if isinstance(node, ast.Call) else node.value
        match node:
            case ast.Name(id=name):
                return self.originals.get(name, name)
            case ast.Attribute(attr=name):
                return name
            case _:
                return ""

    def _take(self, statement: ast.stmt) -> None:
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if name == MAIN:
                    self.main = statement
            case ast.ClassDef(name=name):
                self.classes[name] = statement
                self._bind(name)
            case ast.Assign(targets=targets, value=value):
                if len(targets) == 1 and isinstance(targets[0], ast.Name):
                    self.aliases[targets[0].id] = value
                for name in _names(targets):
                    self._bind(name)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                self.aliases[name] = value
                self._bind(name)
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                for each in names:
                    self.originals[each.asname or each.name] = each.name
                    self._bind(each.asname or each.name)
            case _:
                pass

    def _bind(self, name: str) -> None:
        if name in (MAIN, "*"):
            self.may_have_main = True
            # What is defined here stays: a star seldom brings another main.
            if name == MAIN:
                self.main = None


def _names(targets: Sequence[ast.expr]) -> Iterator[str]:
    for target in targets:
        for node in ast.walk(target):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id


def _statements(module: ast.Module) -> Iterator[ast.stmt]:
    """Yield the statements of a file in order, those of its blocks included, those of its functions and classes not."""
    waiting: list[ast.AST] = [*reversed(module.body)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.stmt):
            yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            inner = [each for each in ast.iter_child_nodes(node) if isinstance(each, _BLOCKS)]
            waiting.extend(reversed(inner))


_BLOCKS = (ast.stmt, ast.ExceptHandler, ast.match_case)
