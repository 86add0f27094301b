"""People: log in, log out, who am I."""

from tidemill.api.http.route import Policy, Route, Who, answers_json, answers_text
from tidemill.api.users import handlers, sessions
from tidemill.api.users.schemas import GlobalUserInfo, Login, User

ROUTES = (
    Route(
        method="POST",
        path="/auth/login",
        handler=sessions.log_in,
        policy=Policy("users", "write", Who.ANYONE),
        summary="Log in with a password",
        body=Login,
        answers={200: answers_text("A session's token; it also comes as the cookie `token`")},
        audited="users.login",
    ),
    Route(
        method="POST",
        path="/auth/logout",
        handler=sessions.log_out,
        policy=Policy("users", "write", Who.PERSON),
        summary="Revoke the token that is sent",
        answers={200: answers_text("What was done")},
        audited="users.logout",
    ),
    Route(
        method="GET",
        path="/users/whoami",
        handler=handlers.whoami,
        policy=Policy("users", "read", Who.PERSON),
        summary="The person behind the token",
        answers={200: answers_json(GlobalUserInfo, "The person")},
    ),
    Route(
        method="GET",
        path="/w/{workspace}/users/whoami",
        handler=handlers.whoami_here,
        policy=Policy("users", "read", Who.MEMBER),
        summary="What the viewer is in this workspace",
        answers={200: answers_json(User, "The member")},
    ),
    Route(
        method="GET",
        path="/w/{workspace}/users/username_to_email/{username}",
        handler=handlers.username_to_email,
        policy=Policy("users", "read", Who.MEMBER),
        summary="The email behind a username",
        answers={200: answers_text("The email")},
    ),
)
