"""Tokens: make one, list one's own, revoke."""

from tidemill.api.http.route import Policy, Route, Who, answers_json, answers_text
from tidemill.api.tokens import handlers
from tidemill.api.tokens.schemas import NewLabel, NewScopes, NewToken, TokenPage, TruncatedToken

ROUTES = (
    Route(
        method="POST",
        path="/users/tokens/create",
        handler=handlers.create,
        policy=Policy("users", "write", Who.PERSON),
        summary="Make a token",
        body=NewToken,
        answers={201: answers_text("The token, shown this once")},
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
    Route(
        method="POST",
        path="/users/tokens/update_label/{token_prefix}",
        handler=handlers.update_label,
        policy=Policy("users", "write", Who.PERSON),
        summary="Call one of one's own tokens something else",
        body=NewLabel,
        answers={200: answers_text("What was done"), 404: answers_text("There is none")},
        audited="users.update",
    ),
    Route(
        method="POST",
        path="/users/tokens/update_scopes/{token_prefix}",
        handler=handlers.update_scopes,
        policy=Policy("users", "write", Who.PERSON),
        summary="Limit one of one's own tokens anew; without scopes it may do all that its person may",
        body=NewScopes,
        in_person=True,
        answers={200: answers_text("What was done"), 404: answers_text("There is none")},
        audited="users.update",
    ),
)
