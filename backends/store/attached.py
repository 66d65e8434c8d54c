"""What hangs on PostgreSQL tables beside their rows: whose they are, who may use them, row security, views.

A table that takes another's place gets the first three; what it cannot get is a reason to refuse.
"""

from typing import Any, NamedTuple

import sqlalchemy as sa

Rows = list[dict[str, Any]]

_TABLES = """
SELECT c.relname AS name, quote_ident(pg_get_userbyid(c.relowner)) AS owner, c.relrowsecurity AS row_security,
       c.relforcerowsecurity AS forced, pg_has_role(c.relowner, 'USAGE') AS ours
FROM pg_class c WHERE c.relnamespace = to_regnamespace(:schema) AND c.relname = ANY(:names) ORDER BY c.relname
"""
_GRANTS = """
SELECT c.relname AS name, a.privilege_type AS privilege, a.is_grantable AS grantable,
       CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee
FROM pg_class c, aclexplode(c.relacl) a
WHERE c.relnamespace = to_regnamespace(:schema) AND c.relname = ANY(:names) AND a.grantee <> c.relowner
ORDER BY 1, 2, 3, 4
"""
_HANGING = """
WITH ours AS (
    SELECT c.oid, c.relname FROM pg_class c
    WHERE c.relnamespace = to_regnamespace(:schema) AND c.relname = ANY(:names)
)
SELECT DISTINCT format('the view %s reads %s', v.oid::regclass, o.relname)
FROM pg_depend d JOIN ours o ON d.refclassid = 'pg_class'::regclass AND d.refobjid = o.oid
JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class
WHERE v.oid <> o.oid
UNION SELECT format('%s has the trigger %s', o.relname, g.tgname) FROM pg_trigger g JOIN ours o ON g.tgrelid = o.oid
WHERE NOT g.tgisinternal
UNION SELECT format('%s has the rule %s', o.relname, r.rulename) FROM pg_rewrite r JOIN ours o ON r.ev_class = o.oid
UNION SELECT format('%s has the policy %s', o.relname, p.polname) FROM pg_policy p JOIN ours o ON p.polrelid = o.oid
UNION SELECT format('%s has the foreign key %s', o.relname, k.conname) FROM pg_constraint k
JOIN ours o ON o.oid IN (k.conrelid, k.confrelid) WHERE k.contype = 'f'
UNION SELECT format('%s is in the publication %s', o.relname, p.pubname) FROM pg_publication_rel r
JOIN ours o ON r.prrelid = o.oid JOIN pg_publication p ON p.oid = r.prpubid
UNION SELECT format('%s has rights on its column %s', o.relname, a.attname) FROM pg_attribute a
JOIN ours o ON a.attrelid = o.oid WHERE a.attacl IS NOT NULL
ORDER BY 1
"""


class Attached(NamedTuple):
    """`problems` are sentences for the operator, none where all that hangs on the tables can come along."""

    tables: Rows
    grants: Rows
    problems: list[str]


def attached(connection: sa.Connection, schema: str, names: list[str]) -> Attached:
    """What hangs on these tables of the schema."""
    values = {"schema": f'"{schema}"', "names": names}
    tables, grants = (_rows(connection, query, values) for query in (_TABLES, _GRANTS))
    problems = [f"{row['name']} belongs to {row['owner']}" for row in tables if not row["ours"]]
    problems += connection.execute(sa.text(_HANGING), values).scalars()
    rights = "SELECT has_schema_privilege(to_regnamespace(:schema)::oid, 'CREATE')"
    if not connection.execute(sa.text(rights), values).scalar():
        problems.append(f"no right to create in the schema {schema}")
    return Attached(tables, grants, problems)


def give(connection: sa.Connection, hangs: Attached, schema: str) -> None:
    """Gives the tables that now have these names in the schema the same owners, rights and row security."""
    run = connection.exec_driver_sql
    names = [row["name"] for row in hangs.tables]
    for row in hangs.tables:
        table = f'"{schema}".{row["name"]}'
        run(f"ALTER TABLE {table} OWNER TO {row['owner']}")
        for flag, clause in ((row["row_security"], "ENABLE"), (row["forced"], "FORCE")):
            if flag:
                run(f"ALTER TABLE {table} {clause} ROW LEVEL SECURITY")
    for row in _rows(connection, _GRANTS, {"schema": f'"{schema}"', "names": names}):
        run(f'REVOKE ALL ON "{schema}".{row["name"]} FROM {row["grantee"]}')  # of the default privileges
    for row in hangs.grants:
        option = " WITH GRANT OPTION" if row["grantable"] else ""
        run(f'GRANT {row["privilege"]} ON "{schema}".{row["name"]} TO {row["grantee"]}{option}')


def _rows(connection: sa.Connection, query: str, values: dict[str, Any]) -> Rows:
    return [dict(row) for row in connection.execute(sa.text(query), values).mappings()]
