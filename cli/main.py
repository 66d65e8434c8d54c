"""The `zenstep` command."""

import click

from cli import (
    audit,
    demo,
    dev,
    flow,
    forget,
    key,
    ledger,
    member,
    migrate,
    offsets,
    org,
    prune,
    rebuild,
    rejected,
    replay,
    roles,
    schemas,
    settings,
    spool,
    token,
    topics,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="zenstep-ingest")
def main() -> None:
    """Takes Zenstep's browser events in, counts each exactly once, and answers with funnels."""


for entry in (
    roles.edge,
    roles.worker,
    roles.reader,
    dev.dev,
    demo.demo,
    migrate.migrate,
    topics.topics,
    offsets.offsets,
    org.org,
    key.key,
    flow.flow,
    member.member,
    ledger.ledger,
    audit.audit,
    prune.prune,
    rejected.rejected,
    rebuild.rebuild,
    replay.replay,
    forget.forget,
    spool.spool,
    settings.settings,
    schemas.schemas,
    token.token,
):
    main.add_command(entry)
