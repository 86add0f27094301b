"""The names of what can be audited: a closed list, because generated clients refuse to read any other."""

OPERATIONS: frozenset[str] = frozenset(
    """
    jobs jobs.run jobs.run.script jobs.run.preview jobs.run.flow jobs.run.flow_preview jobs.run.script_hub
    jobs.run.dependencies jobs.run.identity jobs.run.noop jobs.flow_dependencies jobs.cancel jobs.force_cancel jobs.run_now
    jobs.disapproval jobs.delete account.delete ai.request resources.create resources.update resources.delete
    resource_types.create resource_types.update resource_types.delete schedule.create schedule.setenabled schedule.edit
    schedule.delete scripts.create scripts.update scripts.archive scripts.delete users.create users.delete users.update
    users.login users.login_failure users.logout users.accept_invite users.decline_invite users.token.create
    users.token.delete users.add_to_workspace users.add_global users.setpassword users.impersonate users.leave_workspace
    oauth.login oauth.login_failure oauth.signup variables.create variables.delete variables.update
    variables.decrypt_secret flows.create flows.update flows.delete flows.archive apps.create apps.update apps.delete
    folder.create folder.update folder.delete folder.add_owner folder.remove_owner group.create group.delete group.edit
    group.adduser group.removeuser igroup.create igroup.delete igroup.adduser igroup.removeuser
    instance_groups.jit_adduser instance_groups.jit_removeuser workspaces.read_encryption_key
    workspaces.edit_command_script workspaces.edit_deploy_to workspaces.edit_auto_invite_domain workspaces.edit_webhook
    workspaces.edit_copilot_config workspaces.edit_error_handler workspaces.create workspaces.update workspaces.archive
    workspaces.unarchive workspaces.delete
    """.split()
)
