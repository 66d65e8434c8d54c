"""The worker as a process: until SIGTERM, with the admin port beside it."""

import functools
import logging
import signal

import sqlalchemy as sa

from backends.log import open_consumer
from backends.store.engine import open_engine, ping
from schemas.topics import Topics
from service.admin import AdminServer
from service.garbage import BATCH_OBJECTS, settle
from service.settings import Settings
from service.threads import take_turns
from workers.limit import Limit
from workers.loop import Worker
from workers.stops import STOPS

log = logging.getLogger(__name__)


def create(settings: Settings, engine: sa.Engine) -> Worker:
    """A worker on the settings' log. Raises LogUnavailable where joining the group is refused at once."""
    topics = Topics(settings.topic_prefix).all()
    consumer = functools.partial(open_consumer, settings.log_url, settings.group, topics)
    return Worker(engine, consumer, settings.batch_records, Limit(settings.poison_in_a_row, settings.poison_share))


def work(worker: Worker) -> bool:
    """Until it is stopped; False where it stops by itself because somebody has to decide, which one line says."""
    try:
        worker.run()
    except tuple(STOPS) as error:
        log.error("worker stops: %s", error, extra={"reason": STOPS[type(error)]})
        return False
    return True


def run(settings: Settings) -> None:
    """Until SIGTERM or SIGINT: the batch under way is committed, the group left, and it returns.

    Raises SystemExit(1) where it stops by itself.
    """
    take_turns()
    engine = open_engine(settings.store_url, pool_size=10)  # writers, what they write next, days, checks
    worker = create(settings, engine)
    checks = {"worker": lambda: worker.problem, "store": lambda: ping(engine)}
    admin = AdminServer(settings.admin_host, settings.worker_admin_port, checks)

    def stop(signum: int, frame: object) -> None:
        admin.draining = True
        worker.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    settle(BATCH_OBJECTS)
    log.info("worker runs", extra={"admin": admin.port})
    try:
        well = work(worker)
    finally:
        admin.close()
        engine.dispose()
    if not well:
        raise SystemExit(1)
    log.info("worker stopped")
