"""The `zenstep` command: which commands there are. A new one is entered here."""

import click

from cli.lazy import Entry, LazyGroup

COMMANDS = {
    "edge": Entry("cli.roles", "Take events and heartbeats over HTTP and put them into the log."),
    "worker": Entry("cli.roles", "Consume the log and count each event exactly once."),
    "reader": Entry("cli.roles", "Answer analytics over HTTP."),
    "dev": Entry("cli.dev", "Run the whole system until Ctrl-C."),
    "demo": Entry("cli.demo", "Play sessions against the whole system."),
    "migrate": Entry("cli.migrate", "Create the store's tables, or bring them to this release's."),
    "topics": Entry("cli.topics", "The log's topics."),
    "offsets": Entry("cli.offsets", "Where the workers stand in the log."),
    "org": Entry("cli.org", "Organisations."),
    "key": Entry("cli.key", "Snippet keys."),
    "flow": Entry("cli.flow", "Flows and their steps."),
    "member": Entry("cli.member", "Members: who may read an organisation's analytics."),
    "ledger": Entry("cli.ledger", "Show what became of every event."),
    "audit": Entry("cli.audit", "Check that what edges accepted is in the numbers exactly once."),
    "prune": Entry("cli.prune", "Drop what is past its retention."),
    "rejected": Entry("cli.rejected", "What was set aside instead of counted, and why."),
    "rebuild": Entry("cli.rebuild", "Count the topics anew, beside the live tables, and swap."),
    "replay": Entry("cli.replay", "Put a range of a topic, or a file of lines, into a log again."),
    "forget": Entry("cli.forget", "Remove what is kept of one user, and look again."),
    "spool": Entry("cli.spool", "What an edge that is stopped has left on its disk."),
    "settings": Entry("cli.settings", "Print every setting as a Markdown table."),
    "schemas": Entry("cli.schemas", "Write the JSON Schemas of request bodies and of records."),
    "token": Entry("cli.token", "Print a session token signed with ZENSTEP_JWT_SECRET."),
}

main = LazyGroup(
    "main", COMMANDS, "Takes Zenstep's browser events in, counts each exactly once, and answers with funnels."
)
main = click.version_option(package_name="zenstep-ingest")(main)
