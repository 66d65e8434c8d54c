"""`zenstep prune`: retention. For cron, once a day."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import date, timedelta
from typing import Any

import click
import sqlalchemy as sa

from backends.log import TopicPartition, open_admin, open_reader
from backends.store.accounts import Accounts
from backends.store.days import DAYS_AHEAD, create_day_partitions
from backends.store.retention import Busy, Retention
from cli.output import command, json_option, show, store
from schemas.topics import Topics
from service.settings import Settings, load
from workers.clock import DAY, WINDOW_DAYS

EDGE_DAYS = 7
# A session that began before this and has an event again counts as a new one, so it must not be less than an event may
# be late, twice: no visit lasts that long.
LEAST_SESSION_DAYS = 2 * WINDOW_DAYS + 1
STEP = 5_000  # records that one transaction takes out of the SQLite log; appends wait for it


@click.command()
@click.option(
    "--rejected-days",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    help="How long what was set aside can be looked at and replayed.",
)
@click.option(
    "--session-days",
    type=click.IntRange(min=LEAST_SESSION_DAYS),
    default=90,
    show_default=True,
    help="How long a session is known after its last step. The numbers keep it.",
)
@click.option(
    "--log-days",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    help="How long the SQLite log keeps what is counted. Kafka has its own retention.",
)
@json_option
@command
def prune(rejected_days: int, session_days: int, log_days: int, as_json: bool) -> None:
    """Drop what is past its retention.

    May run at any time, also while workers count; a second run finds nothing left to do.
    """
    settings = load()
    engine = store()
    now = time.time_ns() // 1_000_000
    retention = Retention(engine)
    through = retention.counted_through(Topics(settings.topic_prefix).all())
    counted = min(now, through) if through else None
    try:
        first = None if counted is None else first_day(counted, settings)
        result = {
            "ids_before": None if first is None else str(date(1970, 1, 1) + timedelta(days=first)),
            "ids": 0 if first is None else retention.drop_days(first),
            "sessions": 0 if counted is None else retention.drop_sessions(counted - session_days * DAY),
            "rejected": retention.drop_rejected(now - rejected_days * DAY),
            "edges": retention.fold_edges(now - EDGE_DAYS * DAY),
            "log_records": _prune_log(settings, engine, now - log_days * DAY),
        }
    except Busy as error:
        raise click.ClickException(f"{error}; what was dropped before stays dropped. Try again later.") from None
    create_day_partitions(engine, range(now // DAY, now // DAY + DAYS_AHEAD + 1))
    show(result, as_json, "\n".join(_lines(result)))


def _lines(result: Mapping[str, Any]) -> Iterator[str]:
    ids = f"ids of days before {result['ids_before']}" if result["ids_before"] else "ids: nothing is counted yet"
    for name, key in (
        (ids, "ids"),
        ("sessions", "sessions"),
        ("rejected events", "rejected"),
        ("ended edges folded into one", "edges"),
        ("records of the log", "log_records"),
    ):
        yield f"{name:30} {result[key]:>12,}" if result[key] is not None else f"{name}: Kafka's own retention"


def first_day(counted: int, settings: Settings) -> int:
    """The first day whose ids are still needed (days since 1970), where all before `counted` (epoch ms) is counted.

    An event may name a time the window before its receipt, be tried again the window later, and that retry may lie in
    a spool: see workers/clock.py.
    """
    spooled = max(1, math.ceil(settings.spool_max_age * 1000 / DAY))
    return counted // DAY - 2 * WINDOW_DAYS - spooled


def _prune_log(settings: Settings, engine: sa.Engine, before: int) -> int | None:
    """Takes counted records out of the SQLite log; None for Kafka, which does it by itself."""
    from backends.log.sqlite import SqliteLogAdmin

    offsets: Mapping[tuple[str, int], int] = Accounts(engine).offsets()
    removed = 0
    with closing(open_admin(settings.log_url)) as admin, closing(open_reader(settings.log_url)) as reader:
        if not isinstance(admin, SqliteLogAdmin):
            return None
        for topic in Topics(settings.topic_prefix).all():
            for tp in (TopicPartition(topic, partition) for partition in range(reader.partitions(topic))):
                first = reader.beginning_offsets([tp])[tp]
                end = min(offsets.get(tp, 0), reader.offset_at(tp, before))
                removed += max(0, end - first)
                for offset in [*range(first + STEP, end, STEP), end] if end > first else ():
                    admin.delete_before(tp, offset)
    return removed
