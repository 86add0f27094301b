"""Looking at scripts."""

from aiohttp import web

from tidemill.api.http.answer import json, text
from tidemill.api.http.errors import NotFound
from tidemill.api.http.paging import Paged
from tidemill.api.http.route import Call
from tidemill.api.scripts import paths, store
from tidemill.api.scripts.schemas import ListQuery


async def head(call: Call) -> web.StreamResponse:
    """Answer the head of a path."""
    script = await store.head(call.ctx.database, call.workspace, call.params["path"], call.viewer)
    if script is None:
        raise NotFound(f"There is no script at {call.params['path']}.")
    return json(script)


async def version(call: Call) -> web.StreamResponse:
    """Answer one version."""
    script = await store.version(call.ctx.database, call.workspace, call.params["hash"], call.viewer)
    if script is None:
        raise NotFound(f"There is no version {call.params['hash']}.")
    return json(script)


async def deployment_status(call: Call) -> web.StreamResponse:
    """Answer whether a version has its lock, or why not."""
    status = await store.deployment_status(call.ctx.database, call.workspace, call.params["hash"], call.viewer)
    if status is None:
        raise NotFound(f"There is no version {call.params['hash']}.")
    return json(status)


async def source_of_head(call: Call) -> web.StreamResponse:
    """Answer the bare content of the head of a path."""
    path = call.params["path"]
    content = await store.source_of_head(
        call.ctx.database, call.workspace, path, paths.without_extension(path), call.viewer
    )
    if content is None:
        raise NotFound(f"There is no script at {path}.")
    return text(content)


async def source_of_version(call: Call) -> web.StreamResponse:
    """Answer the bare content of one version."""
    wanted = paths.without_extension(call.params["hash"])
    script = await store.version(call.ctx.database, call.workspace, wanted, call.viewer)
    if script is None:
        raise NotFound(f"There is no version {wanted}.")
    return text(script.content)


async def listing(call: Call) -> web.StreamResponse:
    """Answer one page of scripts, newest first unless asked otherwise."""
    query: ListQuery = call.query
    return json(await store.listing(call.ctx.database, call.workspace, query, call.viewer))


async def exists(call: Call) -> web.StreamResponse:
    """Answer whether a path has a head."""
    return json(await store.exists(call.ctx.database, call.workspace, call.params["path"], call.viewer))


async def history(call: Call) -> web.StreamResponse:
    """Answer the versions of a path, newest first."""
    path = call.params["path"]
    query: Paged = call.query
    return json(await store.history(call.ctx.database, call.workspace, path, query, call.viewer))


async def latest(call: Call) -> web.StreamResponse:
    """Answer the newest version of a path."""
    path = call.params["path"]
    newest = await store.history(call.ctx.database, call.workspace, path, Paged(per_page=1), call.viewer)
    if not newest:
        raise NotFound(f"There is no script at {path}.")
    return json(newest[0])


async def list_paths(call: Call) -> web.StreamResponse:
    """Answer all paths."""
    return json(await store.paths_of_heads(call.ctx.database, call.workspace, call.viewer))
