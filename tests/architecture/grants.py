"""Who may do what in the database, as a text that can be compared: one line a right."""

from collections.abc import Mapping

from tests.support.database import Connection

SCHEMAS = ("audit", "bus", "platform", "public", "queue")

_QUERIES: Mapping[str, str] = {
    "role": """
        SELECT rolname AS object, NULL AS grantee, NULL AS privilege, concat_ws(' ',
            CASE WHEN rolcanlogin THEN 'LOGIN' ELSE 'NOLOGIN' END,
            CASE WHEN rolinherit THEN 'INHERIT' ELSE 'NOINHERIT' END,
            CASE WHEN rolsuper THEN 'SUPERUSER' END, CASE WHEN rolcreaterole THEN 'CREATEROLE' END,
            CASE WHEN rolcreatedb THEN 'CREATEDB' END, CASE WHEN rolreplication THEN 'REPLICATION' END,
            CASE WHEN rolbypassrls THEN 'BYPASSRLS' END) AS more
        FROM pg_roles WHERE rolname LIKE 'tidemill\\_%' AND rolname <> 'tidemill_migrator'
    """,
    "member": """
        SELECT m.roleid::regrole::text AS object, m.member::regrole::text AS grantee, NULL AS privilege,
               concat_ws(' ', CASE WHEN m.inherit_option THEN 'INHERIT' END, CASE WHEN m.set_option THEN 'SET' END,
                         CASE WHEN m.admin_option THEN 'ADMIN' END) AS more
        FROM pg_auth_members m
        WHERE m.roleid::regrole::text LIKE 'tidemill\\_%' AND m.member::regrole::text <> 'tidemill_migrator'
    """,
    "database": """
        SELECT 'it' AS object, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee,
               a.privilege_type AS privilege, NULL AS more
        FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
        WHERE d.datname = current_database() AND a.grantee <> d.datdba
    """,
    "schema": """
        SELECT n.nspname AS object, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee,
               a.privilege_type AS privilege, NULL AS more
        FROM pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
        WHERE n.nspname = ANY ($1) AND a.grantee <> n.nspowner
    """,
    "relation": """
        SELECT n.nspname || '.' || c.relname AS object,
               CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee,
               a.privilege_type AS privilege, NULL AS more
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
             aclexplode(coalesce(
                 c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner))) a
        WHERE n.nspname = ANY ($1) AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND a.grantee <> c.relowner
    """,
    "column": """
        SELECT n.nspname || '.' || c.relname || '.' || t.attname AS object,
               CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee,
               a.privilege_type AS privilege, NULL AS more
        FROM pg_attribute t JOIN pg_class c ON c.oid = t.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace,
             aclexplode(t.attacl) a
        WHERE n.nspname = ANY ($1)
    """,
    "function": """
        SELECT p.oid::regprocedure::text AS object,
               CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee,
               a.privilege_type AS privilege, CASE WHEN p.prosecdef THEN 'as owner' END AS more
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace,
             aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
        WHERE n.nspname = ANY ($1) AND a.grantee <> p.proowner
    """,
    "default": """
        SELECT d.defaclrole::regrole::text || coalesce(' in ' || n.nspname, '') AS object,
               CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee,
               a.privilege_type AS privilege, CASE d.defaclobjtype WHEN 'f' THEN 'functions' WHEN 'r' THEN 'tables'
               ELSE d.defaclobjtype::text END AS more
        FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
        LEFT JOIN LATERAL aclexplode(d.defaclacl) a ON a.grantee <> d.defaclrole
    """,
}


async def present_grants(admin: Connection) -> str:
    """Return every right that somebody has on something that is not their own, one line each, in a fixed order."""
    lines = []
    for kind, query in _QUERIES.items():
        for row in await admin.fetch(query, *([list(SCHEMAS)] if "$1" in query else [])):
            grantee = f"to {row['grantee']}" if row["grantee"] else None
            words = (kind, row["object"], row["privilege"], grantee, row["more"])
            lines.append("  ".join(word for word in words if word))
    return "\n".join(sorted(lines)) + "\n"
