"""The installation itself: its version, its settings, the description of its API."""

from typing import Any

from tidemill.api.http.route import Answer, Policy, Route, Who, answers_json, answers_text
from tidemill.api.instance import handlers

ROUTES = (
    Route(
        method="GET",
        path="/version",
        handler=handlers.version,
        policy=Policy("settings", "read", Who.ANYONE),
        summary="The version that clients compare; our own is in the header Tidemill-Version",
        answers={200: answers_text("The version")},
    ),
    Route(
        method="GET",
        path="/settings/global/{key}",
        handler=handlers.global_setting,
        policy=Policy("settings", "read", Who.PERSON),
        summary="A setting of the installation, null while it is unset",
        answers={200: answers_json(None, "Null: none of them can be set yet")},
    ),
    Route(
        method="GET",
        path="/openapi.yaml",
        handler=handlers.openapi_yaml,
        policy=Policy("openapi", "read", Who.ANYONE),
        summary="This document as YAML",
        answers={200: Answer(says="OpenAPI 3.1", media="application/yaml", kind=dict[str, Any])},
    ),
    Route(
        method="GET",
        path="/openapi.json",
        handler=handlers.openapi_json,
        policy=Policy("openapi", "read", Who.ANYONE),
        summary="This document as JSON",
        answers={200: answers_json(dict[str, Any], "OpenAPI 3.1")},
    ),
)
