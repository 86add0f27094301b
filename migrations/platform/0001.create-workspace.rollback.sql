SET LOCAL ROLE tidemill_platform_owner;
DROP TABLE platform.flow_version, platform.flow, platform.script, platform.token, platform.invite, platform.member, platform.workspace, platform.person;
RESET ROLE;
