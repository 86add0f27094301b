"""What the routes of workers do."""

from aiohttp import web

from tidemill.api.http.answer import json
from tidemill.api.http.route import Call
from tidemill.api.workers import store


async def list_workers(call: Call) -> web.Response:
    """Answer the workers that were heard of lately."""
    return json(await store.list_workers(call.ctx.database, call.query))
