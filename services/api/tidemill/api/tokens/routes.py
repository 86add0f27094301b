"""Tokens: make one, list one's own, revoke."""

from tidemill.api.http.route import Policy, Refused, Route, Who, answers_json, answers_text
from tidemill.api.tokens import handlers
from tidemill.api.tokens.schemas import NewToken, TokenPage, TruncatedToken

ROUTES = (
    Route(
        method="POST",
        path="/users/tokens/create",
        handler=handlers.create,
        policy=Policy("users", "write", Who.PERSON),
        summary="Make a token",
        body=NewToken,
        answers={201: answers_text("The token, shown this once")},
        refuses={"scopes": Refused(reason="scoped tokens are not available yet", harmless=(None, []))},
        audited="users.token.create",
    ),
    Route(
        method="GET",
        path="/users/tokens/list",
        handler=handlers.list_own,
        policy=Policy("users", "read", Who.PERSON),
        summary="List one's own tokens",
        query=TokenPage,
        answers={200: answers_json(list[TruncatedToken], "Newest first")},
        tolerates={"exclude_ephemeral": "the tokens of jobs are never listed"},
    ),
    Route(
        method="DELETE",
        path="/users/tokens/delete/{token_prefix}",
        handler=handlers.delete,
        policy=Policy("users", "write", Who.PERSON),
        summary="Revoke one of one's own tokens",
        answers={200: answers_text("What was done")},
        audited="users.token.delete",
    ),
)
