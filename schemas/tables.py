"""The store's tables, the same on PostgreSQL and SQLite. Times are epoch milliseconds, buckets epoch seconds.

`organisation_id` leads every primary key, so that the tables distribute by it (Citus) unchanged. What a reader adds
up stands in *cells*: a `grain` of a quarter of an hour or a UTC day, and the `bucket` it begins at. A quarter, not an
hour, because time zones such as Asia/Kolkata begin their days at half past, and a cell must not straddle a midnight.
A cell has counters, which are sums, and a sketch, which merges; null where it holds nothing.

The quarters have every event. A day's cells are their sums, but for `open_days`, whose quarters have more.
"""

from typing import Any

import sqlalchemy as sa

QUARTER = 900
DAY = 86_400
GRAINS = (QUARTER, DAY)
NO_STEP = ""  # the cell of the whole flow
NO_FLOW = ""  # custom events that name no flow
SKETCHES = ("users", "seconds")  # columns of cells; see schemas/sketches.py
OTHER_NAMES = "(other)"  # custom events beyond the names an organisation may have

metadata = sa.MetaData()


# Rows that nearly every batch updates: with room on their page PostgreSQL leaves the index alone, at half the cost.
# Not as an option of PostgreSQL's: SQLAlchemy would load all that it has for it, wherever the store is.
_UPDATED: dict[str, Any] = {"info": {"fillfactor": 50}}


def _organisation() -> sa.Column[str]:
    return sa.Column("organisation_id", sa.String(36), primary_key=True)


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default="0")


def sketch_of(table: sa.Table) -> tuple[str, ...]:
    """The name of the column of a table of cells that holds a sketch; none where it has counters alone."""
    return tuple(name for name in SKETCHES if name in table.c)


def _sketch(name: str) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary)


def _cell(*keys: sa.Column[str]) -> list[sa.Column[str] | sa.Column[int]]:
    """The key of a cell: whose, of which flow, which stretch of time, and what else."""
    return [
        _organisation(),
        sa.Column("flow_id", sa.String(36), primary_key=True),
        sa.Column("grain", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("bucket", sa.BigInteger, primary_key=True, autoincrement=False),
        *keys,
    ]


def _step() -> sa.Column[str]:
    return sa.Column("step_id", sa.String(36), primary_key=True)


# The catalogue: who there is and what they publish.
organisations = sa.Table(
    "organisations",
    metadata,
    _organisation(),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
)
organisation_limits = sa.Table(
    "organisation_limits",  # where they are other than schemas/limits.py
    metadata,
    _organisation(),
    sa.Column("bucket", sa.String(32), primary_key=True),
    sa.Column("per_minute", sa.Integer, nullable=False),
)
organisation_privacy = sa.Table(
    "organisation_privacy",  # where it is other than schemas/privacy.py
    metadata,
    _organisation(),
    sa.Column("gpc", sa.String(16), nullable=False),
    sa.Column("dnt", sa.String(16), nullable=False),
)
snippet_keys = sa.Table(
    "snippet_keys",
    metadata,
    _organisation(),
    sa.Column("key_digest", sa.String(64), primary_key=True),  # SHA-256: the table holds no credential
    sa.Column("hint", sa.String(4), nullable=False),  # the key's last characters, to tell keys apart in a list
    sa.Column("environment", sa.String(64)),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("revoked_at", sa.BigInteger),
    sa.Index("snippet_keys_digest", "key_digest"),
)
members = sa.Table(
    "members",
    metadata,
    _organisation(),
    sa.Column("user_id", sa.String(36), primary_key=True),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Index("members_user", "user_id"),
)
flows = sa.Table(
    "flows",
    metadata,
    _organisation(),
    sa.Column("flow_id", sa.String(36), primary_key=True),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("type", sa.String(32), nullable=False),
    sa.Column("published_at", sa.BigInteger),
    sa.Column("targeting", sa.JSON, nullable=False),
    sa.Column("updated_at", sa.BigInteger, nullable=False),
)
steps = sa.Table(
    "steps",
    metadata,
    _organisation(),
    sa.Column("flow_id", sa.String(36), primary_key=True),
    sa.Column("step_id", sa.String(36), primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("content", sa.JSON, nullable=False),
)

# Exactly once: where each partition stands, which ids are in, what became of every event.
offsets = sa.Table(
    "offsets",  # of the installation, not of one organisation
    metadata,
    sa.Column("topic", sa.String(255), primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("next_offset", sa.BigInteger, nullable=False),
    # What the log took up to this time (epoch ms) is counted.
    sa.Column("processed_through", sa.BigInteger, nullable=False),
    # Which topic of that name it is, as the log tells topics apart; null until a worker has asked.
    sa.Column("identity", sa.String(64)),
)
seen = sa.Table(
    "seen",  # on PostgreSQL partitioned by the day
    metadata,
    sa.Column("organisation_id", sa.Uuid(as_uuid=False), primary_key=True),
    sa.Column("event_id", sa.Uuid(as_uuid=False), primary_key=True),
    sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),  # days since 1970; see workers/clock.py
)
ledger = sa.Table(
    "ledger",
    metadata,
    _organisation(),
    sa.Column("topic", sa.String(255), primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True, autoincrement=False),
    # `consumed`, `counted`, `duplicate`, `rejected:` and a reason. consumed = the sum of the others.
    sa.Column("outcome", sa.String(64), primary_key=True),
    _count("events"),
    **_UPDATED,
)
rejected = sa.Table(
    "rejected",
    metadata,
    _organisation(),  # the nil UUID where the line did not say
    sa.Column("topic", sa.String(255), primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("record_offset", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("line", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("event", sa.Integer, primary_key=True, autoincrement=False),  # index in the envelope, -1 the whole line
    sa.Column("reason", sa.String(64), nullable=False),
    sa.Column("received_at", sa.BigInteger, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("replayed_at", sa.BigInteger),  # epoch ms; null where it was not put into its topic again
)

# What readers add up.
counts = sa.Table(
    "counts",
    metadata,
    *_cell(_step()),
    _count("views"),
    _count("completions"),
    _count("skips"),
    _count("dismissals"),
    _count("sessions"),  # of a step, by the bucket of their first view: started sessions that saw it
    _count("dropped"),  # of them, those that got no further and did not complete
    _sketch("users"),  # of any event; with no step, of the flow's and of all of its steps'
    **_UPDATED,
)
custom_events = sa.Table(
    "custom_events",
    metadata,
    *_cell(sa.Column("name", sa.String(255), primary_key=True)),
    _count("events"),
    _sketch("users"),
    **_UPDATED,
)
custom_names = sa.Table(
    "custom_names",  # an organisation's first so many names; the rest is counted as one
    metadata,
    _organisation(),
    sa.Column("name", sa.String(255), primary_key=True),
)
cohorts = sa.Table(
    "cohorts",
    metadata,
    *_cell(),
    _count("sessions"),  # by the bucket of a session's first event of any kind
    _count("starts"),  # by the bucket of its first view; so are the next two
    _count("completed"),
    _count("dismissed"),
    _sketch("seconds"),  # from the first view to the completion
    **_UPDATED,
)
CELLS = (counts, custom_events, cohorts)
open_days = sa.Table(
    "open_days",  # of a flow, whose cells of the day are not what its quarters add up to; see backends/store/rollups.py
    metadata,
    _organisation(),
    sa.Column("flow_id", sa.String(36), primary_key=True),
    sa.Column("bucket", sa.BigInteger, primary_key=True, autoincrement=False),
)
sessions = sa.Table(
    "sessions",
    metadata,
    _organisation(),
    sa.Column("flow_id", sa.String(36), primary_key=True),
    sa.Column("session", sa.String(32), primary_key=True),  # a digest of the client's session id
    sa.Column("first_at", sa.BigInteger, nullable=False),
    sa.Column("started_at", sa.BigInteger),
    sa.Column("completed_at", sa.BigInteger),
    sa.Column("dismissed", sa.Boolean, nullable=False),
    sa.Column("steps", sa.JSON, nullable=False),  # ids of the steps seen
    sa.Column("furthest", sa.String(36)),
    sa.Column("timed", sa.Boolean, nullable=False),  # its seconds to complete are in the sketch
    **_UPDATED,
)
heartbeats = sa.Table(
    "heartbeats",
    metadata,
    _organisation(),
    sa.Column("host", sa.String(255), primary_key=True),
    sa.Column("last_seen_at", sa.BigInteger, nullable=False),
)


def _step_of_flow() -> list[sa.Column[str]]:
    return [_organisation(), sa.Column("flow_id", sa.String(36), primary_key=True), _step()]


def _latest() -> list[sa.Column[int] | sa.Column[str]]:
    """What decides which report stays: the later one, and of two at the same time the one with the greater id."""
    return [
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("report_id", sa.Uuid(as_uuid=False), nullable=False),
    ]


# What the small writes leave.
checklist_progress = sa.Table(
    "checklist_progress",
    metadata,
    _organisation(),
    sa.Column("flow_id", sa.String(36), primary_key=True),
    sa.Column("person", sa.String(32), primary_key=True),  # schemas.small.person_digest
    _step(),
    sa.Column("completed", sa.Boolean, nullable=False),
    *_latest(),
)
step_fingerprints = sa.Table(
    "step_fingerprints",
    metadata,
    *_step_of_flow(),
    sa.Column("fingerprint", sa.LargeBinary, nullable=False),  # JSON as the snippet sent it
    sa.Column("url", sa.String(2048)),
    *_latest(),
)
step_health = sa.Table(
    "step_health",  # the last report; the counts are in the next table
    metadata,
    *_step_of_flow(),
    sa.Column("found", sa.Boolean, nullable=False),
    sa.Column("url", sa.String(2048)),
    *_latest(),
)
step_health_days = sa.Table(
    "step_health_days",
    metadata,
    *_step_of_flow(),
    sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),  # days since 1970, UTC
    _count("found"),
    _count("missing"),
)

accepted = sa.Table(
    "accepted",  # written by edges: cumulative sums, each edge its own rows, so that writing twice is writing once
    metadata,
    _organisation(),
    sa.Column("edge", sa.String(36), primary_key=True),  # one run of one edge process
    sa.Column("topic", sa.String(255), primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True, autoincrement=False),  # -1 where it has none yet
    # `acknowledged` by the log at once; `spooled`, safe on the edge's disk; `flushed` from there into the log.
    sa.Column("outcome", sa.String(16), primary_key=True),
    _count("events"),
    sa.Column("at", sa.BigInteger, nullable=False),  # epoch ms of the last change
)
pruned = sa.Table(
    "pruned",  # how many rows of a table retention has removed, so that an audit still adds up
    metadata,
    _organisation(),
    sa.Column("table", sa.String(16), primary_key=True),  # `seen`, `sessions` or `rejected`
    sa.Column("topic", sa.String(255), primary_key=True),  # of `rejected`, else empty
    sa.Column("partition", sa.Integer, primary_key=True, autoincrement=False),  # of `rejected`, else -1
    _count("removed"),
)
forgotten = sa.Table(
    "forgotten",  # of these people nothing received before `at` is kept, also when a topic is read again
    metadata,
    _organisation(),
    sa.Column("user_digest", sa.String(64), primary_key=True),  # SHA-256 of the user hash
    sa.Column("at", sa.BigInteger, nullable=False),
)

horizon = sa.Table(
    "horizon",  # of the installation: days before `day` are dropped from `seen`, so nothing of them can be counted
    metadata,
    sa.Column("singleton", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("day", sa.Integer, nullable=False),
)

INSTALLATION_TABLES = {"offsets", "horizon"}
