"""Running jobs of scripts again, many at a time, and what such jobs have in common."""

from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec
from aiohttp import web

from tidemill.api.http.answer import json
from tidemill.api.http.errors import HttpError, NotFound, Unprocessable
from tidemill.api.http.route import Call
from tidemill.api.jobs import args as arguments
from tidemill.api.jobs import rules, store
from tidemill.api.jobs.rules import Runnable
from tidemill.api.jobs.schemas import BatchRerun, InputTransform, JobGroup, RequestQuery, RerunOptions, SchemaGroup
from tidemill.chassis.errors import DatabaseUnavailable
from tidemill.chassis.outbox import to_say
from tidemill.chassis.telemetry import current_traceparent
from tidemill.shared.ids import new_job_id
from tidemill.shared.script import JobKind

_NO_SCHEMA = msgspec.Raw(b"{}")
_AS_IT_WAS = RerunOptions()


async def batch(call: Call) -> web.StreamResponse:
    """Run jobs again and answer a line for each: nothing runs unless all can be found and all options understood."""
    body: BatchRerun = call.body
    jobs = await _selected(call, body.job_ids)
    changes = _changes(body, {each.path for each in jobs})
    runnables = await _runnables(call, jobs, body.script_options_by_path)
    audit: str | None = to_say([call.audit("Execute", f"{len(jobs)} jobs", {"ids": [str(each.id) for each in jobs]})])
    response = web.StreamResponse(status=201, headers={"Content-Type": "text/plain; charset=utf-8"})
    await response.prepare(call.request)
    for each, runnable in zip(jobs, runnables, strict=True):
        try:
            line = str(await _again(call, each, runnable, changes.get(each.path or "", {}), audit))
            audit = None
        except HttpError as error:
            line = f"Error: {error.message}"
        except DatabaseUnavailable:
            # Too late for a status: it has been sent.
            await response.write(b"Error: The database can't be reached at this moment; the rest was not run.\n")
            break
        await response.write(f"{line}\n".encode())
    return response


async def groups(call: Call) -> web.StreamResponse:
    """Answer the jobs by script and version."""
    jobs = await store.selected(call.ctx.database, call.workspace, _unique(call.body), call.viewer)
    of_paths: dict[str, dict[str, list[UUID]]] = {}
    for each in jobs:
        if each.kind == JobKind.SCRIPT and each.path is not None and each.hash is not None:
            of_paths.setdefault(each.path, {}).setdefault(each.hash, []).append(each.id)
    hashes = [version for of_path in of_paths.values() for version in of_path]
    known = await store.schemas(call.ctx.database, call.workspace, hashes, list(of_paths), call.viewer)
    by_hash = {each.hash: _schema(each) for each in known}
    latest = {each.path: _schema(each) for each in known if each.is_head}
    return json(
        [
            JobGroup(
                kind="script",
                script_path=path,
                latest_schema=latest.get(path, _NO_SCHEMA),
                schemas=[
                    SchemaGroup(schema=by_hash.get(version, _NO_SCHEMA), script_hash=version, job_ids=ids)
                    for version, ids in of_path.items()
                ],
            )
            for path, of_path in sorted(of_paths.items())
        ]
    )


async def _selected(call: Call, ids: Sequence[UUID]) -> Sequence[store.Selected]:
    """Return the jobs to run again; raises NotFound or Unprocessable naming one that can't be."""
    wanted = _unique(ids)
    jobs = await store.selected(call.ctx.database, call.workspace, wanted, call.viewer)
    if missing := set(wanted) - {each.id for each in jobs}:
        raise NotFound(f"There is no job {min(missing)}.")
    for each in jobs:
        if each.kind != JobKind.SCRIPT:
            raise Unprocessable(f"The field job_ids names {each.id}, a {each.kind}: only jobs of scripts run again.")
    return jobs


def _changes(body: BatchRerun, paths: set[str | None]) -> Mapping[str, Mapping[str, msgspec.Raw]]:
    """Return which arguments become what, by path; raises Unprocessable naming the field."""
    for path in body.script_options_by_path:
        if path not in paths:
            raise Unprocessable(f"The field script_options_by_path.{path} is not allowed: no job is of this script.")
    return {
        path: {
            name: _static(f"{path}.input_transforms.{name}", each) for name, each in options.input_transforms.items()
        }
        for path, options in body.script_options_by_path.items()
    }


def _static(where: str, transform: InputTransform) -> msgspec.Raw:
    if transform.type != "static" or transform.expr is not msgspec.UNSET:
        raise Unprocessable(
            f"The input transform {where} is not supported: expressions are not evaluated yet, send"
            ' {"type": "static", "value": ...}.'
        )
    return msgspec.Raw(b"null") if transform.value is msgspec.UNSET else transform.value


async def _runnables(
    call: Call, jobs: Sequence[store.Selected], options: Mapping[str, RerunOptions]
) -> Sequence[Runnable]:
    """Return what to run for each job; raises NotFound when a version, or the head that is wanted, is there no more."""
    db, found = call.ctx.database, dict[tuple[str, str], Runnable]()
    keys = []
    for each in jobs:
        path = each.path or ""
        latest = options.get(path, _AS_IT_WAS).use_latest_version
        key = (path, "" if latest else each.hash or "")
        if key not in found:
            script = await (
                store.script_by_path(db, call.workspace, path, call.viewer)
                if latest
                else store.script_by_hash(db, call.workspace, key[1], call.viewer)
            )
            if script is None:
                raise NotFound(f"There is no {'script' if latest else f'version {key[1]}'} at {path}.")
            found[key] = script
        keys.append(key)
    return [found[key] for key in keys]


async def _again(
    call: Call, of: store.Selected, runnable: Runnable, changes: Mapping[str, msgspec.Raw], audit: str | None
) -> UUID:
    args = await store.args_of(call.ctx.database, call.workspace, of.id)
    if args is None:
        raise NotFound(f"There is no job {of.id}.")
    args, job_id = arguments.with_values(args, changes), new_job_id()
    job = rules.request(
        runnable,
        # Another version may have been given another time on purpose.
        RequestQuery(
            timeout=of.timeout_s if runnable.hash == of.hash else None, invisible_to_owner=not of.visible_to_owner
        ),
        args,
        call.viewer,
        call.workspace,
        job_id,
        traceparent=current_traceparent(),
    )
    said = await store.request(call.ctx.database, job, args, audit)
    call.ctx.outbox.publish_soon(said)
    return job_id


def _unique(ids: Sequence[UUID]) -> list[UUID]:
    return list(dict.fromkeys(ids))


def _schema(known: store.Schema) -> msgspec.Raw:
    return _NO_SCHEMA if known.schema is None else msgspec.Raw(known.schema.encode())
