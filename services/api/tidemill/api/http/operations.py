"""The names of what can be audited: a closed list, because generated clients refuse to read any other."""

from collections.abc import Mapping

_VERBS: Mapping[str, tuple[str, ...]] = {
    "account": ("delete",),
    "ai": ("request",),
    "apps": ("create", "update", "delete"),
    "flows": ("create", "update", "delete", "archive"),
    "folder": ("create", "update", "delete", "add_owner", "remove_owner"),
    "group": ("create", "delete", "edit", "adduser", "removeuser"),
    "igroup": ("create", "delete", "adduser", "removeuser"),
    "instance_groups": ("jit_adduser", "jit_removeuser"),
    "jobs": ("run", "flow_dependencies", "cancel", "force_cancel", "run_now", "disapproval", "delete"),
    "jobs.run": ("script", "preview", "flow", "flow_preview", "script_hub", "dependencies", "identity", "noop"),
    "oauth": ("login", "login_failure", "signup"),
    "resource_types": ("create", "update", "delete"),
    "resources": ("create", "update", "delete"),
    "schedule": ("create", "setenabled", "edit", "delete"),
    "scripts": ("create", "update", "archive", "delete"),
    "users": (
        "create",
        "delete",
        "update",
        "login",
        "login_failure",
        "logout",
        "accept_invite",
        "decline_invite",
        "add_to_workspace",
        "add_global",
        "setpassword",
        "impersonate",
        "leave_workspace",
    ),
    "users.token": ("create", "delete"),
    "variables": ("create", "delete", "update", "decrypt_secret"),
    "workspaces": (
        "read_encryption_key",
        "edit_command_script",
        "edit_deploy_to",
        "edit_auto_invite_domain",
        "edit_webhook",
        "edit_copilot_config",
        "edit_error_handler",
        "create",
        "update",
        "archive",
        "unarchive",
        "delete",
    ),
}

OPERATIONS: frozenset[str] = frozenset(f"{domain}.{verb}" for domain, verbs in _VERBS.items() for verb in verbs) | {
    "jobs"
}
