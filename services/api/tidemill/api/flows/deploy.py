"""Deploying versions of flows, and taking flows away."""

from aiohttp import web
from asyncpg import UniqueViolationError

from tidemill.api.flows import reading, references, rules, store
from tidemill.api.flows.check import Checked
from tidemill.api.flows.schemas import Archiving, EditFlow, NewFlow, NewMessage
from tidemill.api.flows.version import number_of
from tidemill.api.http.answer import text
from tidemill.api.http.errors import BadRequest, Forbidden, NotFound
from tidemill.api.http.policy import beyond_scopes
from tidemill.api.http.route import Call
from tidemill.api.jobs import dependencies
from tidemill.api.tokens.scopes import Use
from tidemill.chassis.outbox import SayingTransaction
from tidemill.shared.ids import new_job_id

NOTE_HEADER = "Tidemill-Note"


async def create(call: Call) -> web.StreamResponse:
    """Deploy the first version of a flow and answer its path."""
    new: NewFlow = call.body
    checked, note = await _checked(call, new, new.path)
    try:
        async with call.ctx.outbox.transaction() as tx:
            await _refuse_writing(call, tx, new.path)
            standing = await store.lock(tx, call.workspace, new.path, call.viewer)
            if standing is not None and not standing.archived:
                raise BadRequest(f"The path {new.path} is taken: update the flow that is there.")
            # What stands archived goes on with its history.
            flow_id = await store.insert(tx, call.workspace, new.path) if standing is None else standing.id
            await _add_version(call, tx, flow_id, new.path, new, checked)
    except UniqueViolationError as taken:
        raise BadRequest(f"The path {new.path} is taken.") from taken
    return _noted(text(new.path, status=201), note)


async def update(call: Call) -> web.StreamResponse:
    """Deploy a version of a flow that is there, which may move it, and answer its path."""
    new: EditFlow = call.body
    path, old_path = new.path or call.params["path"], call.params["path"]
    if path != old_path:
        _refuse_beyond_scopes(call, path)
    checked, note = await _checked(call, new, path)
    try:
        async with call.ctx.outbox.transaction() as tx:
            standing = await store.lock(tx, call.workspace, old_path, call.viewer)
            if standing is None:
                raise NotFound(f"There is no flow at {old_path}.")
            if not standing.may_write:
                raise Forbidden(f"You may not change {old_path}.")
            if path != old_path:
                await _refuse_writing(call, tx, path)
                if await store.is_taken(tx, call.workspace, path):
                    raise BadRequest(f"The path {path} is taken: the flow can't be moved to it.")
            await _add_version(call, tx, standing.id, path, new, checked)
    except UniqueViolationError as taken:
        raise BadRequest(f"The path {path} is taken: the flow can't be moved to it.") from taken
    return _noted(text(path), note)


async def archive(call: Call) -> web.StreamResponse:
    """Archive a flow, or let it be there again; the same once more changes nothing."""
    path = call.params["path"]
    body: Archiving | None = call.body
    archived = True if body is None or body.archived is None else body.archived
    async with call.ctx.outbox.transaction() as tx:
        standing = await store.lock(tx, call.workspace, path, call.viewer)
        if standing is None:
            raise NotFound(f"There is no flow at {path}.")
        if not standing.may_write:
            raise Forbidden(f"You may not change {path}.")
        if standing.archived != archived:
            await store.set_archived(tx, standing.id, archived=archived)
            await tx.say(call.audit("Updated", path, {"archived": archived}))
    return text(f"flow {path} {'archived' if archived else 'unarchived'}")


async def delete(call: Call) -> web.StreamResponse:
    """Take a flow away; where there is none nothing happens, because clients ask once for each of its files."""
    path = call.params["path"]
    async with call.ctx.outbox.transaction() as tx:
        standing = await store.lock(tx, call.workspace, path, call.viewer)
        if standing is not None:
            if not standing.may_write:
                raise Forbidden(f"You may not change {path}.")
            await store.delete(tx, standing.id)
            await tx.say(call.audit("Delete", path))
    return text(f"flow {path} deleted")


async def change_message(call: Call) -> web.StreamResponse:
    """Change what a version is said to be about."""
    new: NewMessage = call.body
    wanted = number_of(call.params["version"])
    async with call.ctx.outbox.transaction() as tx:
        path = await store.set_message(tx, call.workspace, wanted, new.deployment_msg, call.viewer)
        if path is not None:
            await tx.say(call.audit("Updated", path, {"version": wanted}))
    if path is None:
        if await store.version(call.ctx.database, call.workspace, wanted, call.viewer) is None:
            raise NotFound(f"There is no version {wanted}.")
        raise Forbidden("You may not change this flow.")
    return text(f"version {wanted} updated")


async def _checked(call: Call, new: EditFlow, path: str) -> tuple[Checked, str]:
    """Return what the value is made of, and what is to be said of flows that it names before they are there."""
    rules.check(new, path)
    checked = await reading.read(bytes(new.value))
    await call.ctx.expressions.check(checked.expressions)
    absent = await references.check(call.ctx.database, call.workspace, path, checked, call.viewer)
    return checked, rules.note_of(absent)


def _refuse_beyond_scopes(call: Call, path: str) -> None:
    """Raise Forbidden where the token may not write to a path that only the body names."""
    policy = call.route.policy
    refused = beyond_scopes(call.route, call.viewer, Use(domain=policy.domain, action=policy.action, path=path))
    if refused is not None:
        raise refused


async def _refuse_writing(call: Call, tx: SayingTransaction, path: str) -> None:
    if not await store.may_write(tx, path, call.viewer):
        raise Forbidden(f"You may not deploy to the path {path}.")


async def _add_version(
    call: Call, tx: SayingTransaction, flow_id: int, path: str, new: EditFlow, checked: Checked
) -> None:
    locks = rules.locks_text(checked.locks)
    lock_job = None if locks is not None else new_job_id()
    version = await store.insert_version(
        tx, flow_id, path, rules.columns(new, checked.flow), list(checked.flows), locks, lock_job, call.viewer
    )
    if lock_job is not None:
        tx.said.append(await dependencies.request_for_flow(tx, call, path, version, lock_job))
    created = call.route.audited == "flows.create"
    await tx.say(call.audit("Created" if created else "Updated", path, {"version": version}))


def _noted(answer: web.Response, note: str) -> web.Response:
    if note:
        answer.headers[NOTE_HEADER] = note
    return answer
