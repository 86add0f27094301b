"""What can be asked of the installation itself."""

from importlib.metadata import version as installed

from aiohttp import web

from tidemill.api.http.answer import json, text
from tidemill.api.http.errors import NotFound
from tidemill.api.http.openapi import DOCUMENT
from tidemill.api.http.route import Call

COMPATIBLE = "CE v1.850.0"
"""The version whose clients we answer; some compare the number."""
OWN_VERSION = f"Tidemill {installed('tidemill-api')}"

UNSET_SETTINGS = frozenset(
    {"automate_username_creation", "base_url", "hub_base_url", "hub_accessible_url", "hub_api_secret", "uid"}
)
"""Settings of the installation that clients ask for and that can't be set yet: all of them are unset."""


class NoSuchSetting(NotFound):
    """There is no such setting."""


async def version(_: Call) -> web.Response:
    """Answer the version that clients compare, and our own in a header."""
    response = text(COMPATIBLE)
    response.headers["Tidemill-Version"] = OWN_VERSION
    return response


async def global_setting(call: Call) -> web.Response:
    """Answer null for the settings that clients know; nothing else is told."""
    if call.params["key"] not in UNSET_SETTINGS:
        raise NoSuchSetting
    return json(None)


async def openapi_yaml(call: Call) -> web.Response:
    """Answer the description of this API as YAML."""
    document = call.request.app[DOCUMENT]
    return web.Response(body=document.as_yaml, content_type="application/yaml", charset="utf-8")


async def openapi_json(call: Call) -> web.Response:
    """Answer the description of this API as JSON."""
    return call.request.app[DOCUMENT].as_json()
