"""What a flow has to come to, said by a straight interpreter that knows nothing of the engine, of rows or of events.

    Reference({}).flow(value, args)

It calls itself for what is inside. The little language of its expressions and of its steps is that of `flow_model.py`.
"""

import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MISSING = object()
GOOD = ("success", "skipped")
Path = tuple[Any, ...]


class Wrong(Exception):
    """The expression has no value."""


def evaluate(source: str, names: Mapping[str, Any]) -> Any:
    """Return the value of `a.b.c`, of a literal, or whether a path equals or reaches a number."""
    for sign in ("==", ">="):
        if sign in source:
            left, right = (evaluate(each.strip(), names) for each in source.split(sign))
            if sign == "==":
                return json.dumps(left) == json.dumps(right)
            return isinstance(left, int) and left >= right
    if source in ("true", "false") or source.lstrip("-").isdigit():
        return json.loads(source)
    root, *keys = source.split(".")
    value = names.get(root, MISSING)
    if value is MISSING:
        raise Wrong(f"{root} is not defined")
    for key in keys:
        if value is MISSING or value is None:
            raise Wrong(f"nothing has no {key}")
        value = value.get(key, MISSING) if isinstance(value, Mapping) else MISSING
    return None if value is MISSING else value


def truthy(value: Any) -> bool:
    """Return whether JavaScript takes it for true: objects are, even empty ones."""
    return isinstance(value, dict | list) or bool(value)


def ran(code: str, args: Mapping[str, Any], before: int) -> tuple[str, Any]:
    """Return how a step's code ends that has run so often before at this place."""
    x = args.get("x")
    what, _, count = code.partition(":")
    fails = {
        "value": False,
        "list": False,
        "fail": True,
        "odd fails": isinstance(x, int) and x % 2 == 1,
        "fails first": before < int(count or 0),
        "recover": False,
    }[what]
    if fails:
        return "failure", {"error": {"name": "Bad", "message": f"{code} {json.dumps(x)}"}}
    if what == "list":
        return "success", [x, 1]
    if what == "recover":
        return "success", {"recover": True, "x": x}
    return "success", x


@dataclass(frozen=True)
class Said:
    """How something ended."""

    outcome: str
    result: Any
    stopped: bool = False
    handled: bool = False
    step: str | None = None
    """Who has failed, where it is not the step that says so."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """What a plain step was given."""

    @property
    def good(self) -> bool:
        """Whether it ended well."""
        return self.outcome in GOOD


@dataclass
class Place:
    """Where an expression stands: what it sees."""

    value: Mapping[str, Any]
    input: Mapping[str, Any]
    path: Path
    inside: bool
    around: "Place | None" = None
    results: list[tuple[str, Any]] = field(default_factory=list)

    def names(self, own: Mapping[str, Any] | None = None, **more: Any) -> Mapping[str, Any]:
        """Return what an expression sees here."""
        here = {**self.input, **(own or {})}
        previous, results = here, {}
        places: list[Place] = []
        place: Place | None = self
        while place is not None:
            places.append(place)
            place = place.around
        for each in reversed(places):
            results.update(dict(each.results))
            if each.results:
                previous = each.results[-1][1]
        return {"flow_input": here, "results": results, "previous_result": previous, **more}


def error(step: str, name: str, message: str) -> Said:
    """Return a failure of a step."""
    return Said("failure", {"error": {"name": name, "message": message, "step_id": step}})


class Broken(Exception):
    """A step can't even begin; that is not tried again."""

    def __init__(self, step: str, key: str, why: str, name: str = "ExpressionError") -> None:
        self.said = error(step, name, f"step {step}, {key}: {why}")


class Reference:
    """Goes through flows straight on."""

    def __init__(self, flows: Mapping[str, Any]) -> None:
        self.flows = flows
        self.runs: Counter[Path] = Counter()

    def flow(self, value: Mapping[str, Any], args: Mapping[str, Any], path: Path = ()) -> Said:
        """Return how a flow ends."""
        if not value["modules"]:
            return Said("success", args)
        return self._body(value["modules"], Place(value, args, path, inside=False))

    def _body(self, modules: Sequence[Any], place: Place) -> Said:
        result: Any = None
        for module in modules:
            said = self._step(module, place)
            if not said.good and not (module.get("continue_on_error") and not said.stopped):
                place.results.append((module["id"], said.result))
                return self._failed(said, module["id"], place)
            result = said.result
            if said.stopped:
                return Said("success", result, stopped=place.inside)
            place.results.append((module["id"], result))
            if module["value"]["type"] not in ("forloopflow", "whileloopflow"):
                ended = self._ended(module, "stop_after_if", said, place)
                if ended is not None:
                    return ended
            ended = self._ended(module, "stop_after_all_iters_if", said, place)
            if ended is not None:
                return ended
        return Said("success", result)

    def _ended(self, module: Any, key: str, said: Said, place: Place) -> Said | None:
        """Return how the flow ends when a rule of the step ends it."""
        rule, result = module.get(key), said.result
        if rule is None:
            return None
        names = place.names(result=result, all_iters=result, params=said.params)
        try:
            stops = self._truth(module, key, rule["expr"], names)
        except Broken as broken:
            return self._failed(broken.said, module["id"], place)
        if not stops:
            return None
        if rule.get("error_message") is not None and not rule.get("skip_if_stopped"):
            return error(module["id"], "EarlyStopError", f"Flow early stop: {rule['error_message']}")
        if place.inside:
            return Said("success", result, stopped=not rule.get("skip_if_stopped"))
        return Said("skipped" if rule.get("skip_if_stopped") else "success", result)

    def _failed(self, said: Said, step: str, place: Place) -> Said:
        """Go to the failure module, once."""
        what, step = said.result, said.step or step
        if isinstance(what, dict) and isinstance(what.get("error"), dict):
            what = {"error": {**what["error"], "step_id": what["error"].get("step_id", step)}}
        else:
            what = {"error": {"name": "Error", "message": "the step has failed", "result": what, "step_id": step}}
        module = place.value.get("failure_module")
        if module is None:
            return Said("failure", what)
        if said.handled:
            # What the failure module has answered inside is the answer of all that is around it.
            return Said("failure", said.result, handled=place.inside)
        try:
            made = self._plain(module, place, {"error": what["error"], "previous_result": what}, {}, place.path)
        except Broken as broken:
            made = broken.said
        if not made.good:
            what = made.result
            what["error"].setdefault("step_id", module["id"])
            return Said("failure", what, handled=place.inside)
        if isinstance(made.result, dict) and made.result.get("recover") is True:
            return Said("success", made.result)
        return Said("failure", made.result, handled=place.inside)

    def _step(self, module: Any, place: Place) -> Said:
        try:
            skip = module.get("skip_if")
            if skip is not None and self._skipped(module, skip["expr"], place.names()):
                return Said("success", place.names()["previous_result"])
            if module.get("mock", {}).get("enabled"):
                return Said("success", module["mock"]["return_value"])
            kind = module["value"]["type"]
            branch = self._choose(module, place) if kind == "branchone" else None
            args: list[Any] = []
            for attempt in itertools.count():
                match kind:
                    case "branchone":
                        said = self._branch(module, place, branch or 0)
                    case "branchall":
                        said = self._children(module, place, None)
                    case "forloopflow":
                        said = self._children(module, place, self._items(module, place))
                    case "whileloopflow":
                        said = self._children(module, place, None)
                    case _:
                        # What the first try was given the others are given, too.
                        args = args or [self._args(module, place.names())]
                        said = self._plain(module, place, {}, {}, place.path, args[0])
                if said.good or not self._again(module, said, attempt, place):
                    return said
        except Broken as broken:
            return broken.said
        raise AssertionError

    def _skipped(self, module: Any, source: str, names: Mapping[str, Any]) -> bool:
        # Only a rule that looks at them needs the inputs before it is known whether the step is to run.
        params = self._args(module, names) if "params" in source else {}
        return self._truth(module, "skip_if", source, {**names, "params": params})

    def _again(self, module: Any, said: Said, attempt: int, place: Place) -> bool:
        retry = module.get("retry")
        if retry is None or attempt >= retry["constant"]["attempts"]:
            return False
        if said.handled and module["value"]["type"] != "branchone":
            return False
        if "retry_if" not in retry:
            return True
        what = said.result.get("error") if isinstance(said.result, dict) else None
        try:
            names = place.names(result=said.result, error=what, params=said.params)
            return self._truth(module, "retry_if", retry["retry_if"]["expr"], names)
        except Broken:
            return False

    def _truth(self, module: Any, key: str, source: str, names: Mapping[str, Any]) -> bool:
        try:
            return truthy(evaluate(source, names))
        except Wrong as wrong:
            raise Broken(module["id"], key, str(wrong)) from None

    def _args(self, module: Any, names: Mapping[str, Any]) -> Mapping[str, Any]:
        args = {}
        for key, transform in module["value"].get("input_transforms", {}).items():
            try:
                args[key] = evaluate(transform["expr"], names) if "expr" in transform else transform["value"]
            except Wrong as wrong:
                raise Broken(module["id"], f"input {key}", str(wrong)) from None
        return args

    def _plain(
        self, module: Any, place: Place, names: Any, own: Mapping[str, Any], path: Path, args: Any = None
    ) -> Said:
        seen = {**place.names(own), **names}
        if module["value"]["type"] == "identity":
            return Said("success", seen["previous_result"])
        args = self._args(module, seen) if args is None else args
        path = (*path, module["id"])
        if module["value"]["type"] == "flow":
            if module["value"]["path"] not in self.flows:
                raise Broken(module["id"], "flow", "there is none", "NotFound")
            said = self.flow(self.flows[module["value"]["path"]], args, path)
            return Said(said.outcome, said.result, params=args)
        before = self.runs[path]
        self.runs[path] += 1
        return Said(*ran(module["value"]["content"], args, before), params=args)

    def _items(self, module: Any, place: Place) -> Sequence[Any]:
        iterator = module["value"]["iterator"]
        try:
            items = evaluate(iterator["expr"], place.names()) if "expr" in iterator else iterator["value"]
        except Wrong as wrong:
            raise Broken(module["id"], "iterator", str(wrong)) from None
        if not isinstance(items, list):
            raise Broken(module["id"], "iterator", "it must be a list", "IteratorError")
        return items

    def _choose(self, module: Any, place: Place) -> int:
        for no, case in enumerate(module["value"]["branches"]):
            if self._truth(module, f"branch {no}", case["expr"], place.names()):
                return no
        return -1

    def _branch(self, module: Any, place: Place, branch: int) -> Said:
        value = module["value"]
        modules = value["default"] if branch < 0 else value["branches"][branch]["modules"]
        return self._inner(module, modules, place, {}, branch) if modules else Said("success", [])

    def _inner(self, module: Any, modules: Sequence[Any], place: Place, own: Mapping[str, Any], index: int) -> Said:
        path = (*place.path, module["id"], index)
        if len(modules) == 1 and _is_simple(modules[0]):
            # It stands for the body: there is no place around it that a failure module could belong to.
            try:
                said = self._plain(modules[0], place, {}, own, path)
            except Broken as broken:
                return broken.said
            return said if said.good else Said(said.outcome, said.result, step=modules[0]["id"])
        inner = Place(place.value, {**place.input, **own}, path, inside=True, around=_frozen(place))
        return self._body(modules, inner)

    def _children(self, module: Any, place: Place, items: Sequence[Any] | None) -> Said:
        value = module["value"]
        branches = value.get("branches")
        count = len(branches) if branches is not None else None if items is None else len(items)
        parallel = bool(value.get("parallel")) and value["type"] != "whileloopflow"
        results: list[Any] = []
        stopped = handled = False
        failed: Said | None = None
        for index in itertools.count():
            if index == count:
                break
            item = index if items is None else items[index]
            said = self._child(module, place, index, item)
            results.append(said.result)
            if not said.good:
                skip = branches[index].get("skip_failure") if branches is not None else value.get("skip_failures")
                if not skip:
                    failed = failed or said
                    handled = handled or said.handled
                    if not parallel:
                        break
                continue
            if branches is not None:
                stopped = stopped or said.stopped
            if not parallel and (
                said.stopped or self._loop_stops(module, said.result, {"index": index, "value": item}, place)
            ):
                break
        if failed is not None:
            return Said("failure", failed.result, handled=handled, step=failed.step)
        return Said("success", results, stopped=stopped)

    def _child(self, module: Any, place: Place, index: int, item: Any) -> Said:
        branches = module["value"].get("branches")
        own: dict[str, Any] = {}
        if branches is None:
            own["iter"] = {"index": index, "value": item}
            if "iter" in place.input:
                own["iter_parent"] = place.input["iter"]
        modules = module["value"]["modules"] if branches is None else branches[index]["modules"]
        return self._inner(module, modules, place, own, index) if modules else Said("success", own or [])

    def _loop_stops(self, module: Any, result: Any, iteration: Any, place: Place) -> bool:
        rule = module.get("stop_after_if")
        if rule is None or module["value"]["type"] == "branchall":
            return False
        names = place.names({"iter": iteration}, result=result, params={})
        return self._truth(module, "stop_after_if", rule["expr"], names)


def _frozen(place: Place) -> Place:
    return Place(place.value, place.input, place.path, place.inside, place.around, list(place.results))


def _is_simple(module: Any) -> bool:
    rules = ("skip_if", "stop_after_if", "suspend", "sleep", "retry", "continue_on_error", "mock")
    return module["value"]["type"] in ("rawscript", "flow") and not any(module.get(rule) for rule in rules)
