"""What the steps of a flow name, looked up: scripts have to be there, and no flow may run inside of itself."""

from collections.abc import Mapping

from tidemill.api.flows import store
from tidemill.api.flows.check import Checked
from tidemill.api.http.errors import Unprocessable
from tidemill.api.http.route import Viewer
from tidemill.chassis.database import Executor

DEEPEST = 20
"""How deep flows may run inside of others."""


async def check(
    db: Executor, workspace: str, own_path: str | None, checked: Checked, viewer: Viewer
) -> Mapping[str, str]:
    """Return the paths of flows that are not there (yet), by the modules that name them; raises Unprocessable."""
    await _check_scripts(db, workspace, checked, viewer)
    return await _check_flows(db, workspace, own_path, checked, viewer)


async def _check_scripts(db: Executor, workspace: str, checked: Checked, viewer: Viewer) -> None:
    if not checked.scripts and not checked.versions:
        return
    paths, hashes = await store.absent_scripts(db, workspace, list(checked.scripts), list(checked.versions), viewer)
    for path in paths:
        raise _absent(checked.scripts[path], "value.path", path, "script")
    for version in hashes:
        raise _absent(checked.versions[version], "value.hash", version, "version")


async def _check_flows(
    db: Executor, workspace: str, own_path: str | None, checked: Checked, viewer: Viewer
) -> Mapping[str, str]:
    if not checked.flows:
        return {}
    below = await store.flows_below(db, workspace, list(checked.flows), own_path, DEEPEST, viewer)
    for each in below:
        where = f"The field value.path of the module {checked.flows[each.named]!r} names {each.named}"
        if each.path == own_path:
            raise Unprocessable(f"{where}: so the flow {own_path} would run inside of itself.")
        if each.depth >= DEEPEST:
            raise Unprocessable(f"{where}: so flows would run {DEEPEST} deep inside of others, or in a circle.")
    return {checked.flows[each.path]: each.path for each in below if each.path == each.named and not each.is_there}


def absent_flow(module: str, path: str) -> Unprocessable:
    """Return what is wrong with a step whose flow is not there."""
    return _absent(module, "value.path", path, "flow")


def _absent(module: str, field: str, name: str, kind: str) -> Unprocessable:
    return Unprocessable(
        f"The field {field} of the module {module!r} names {name}: there is no such {kind} that you may run."
    )
