"""Goes through every place that keeps something of a person: what was found, what was removed, what remains."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from backends.log import Record, open_reader
from backends.log.sqlite_rewrite import rewrite
from backends.store.forget import Forgetting
from backends.store.rebuild import RebuildError, open_beside
from backends.wiping import occurrences, wipe
from schemas.forgetting import ANONYMOUS_FIELDS, Whom, digest, left_out
from schemas.small import person_digest
from schemas.topics import Topics
from service.settings import Settings


class _Received(msgspec.Struct):
    received: int


_received = msgspec.json.Decoder(_Received)


class Person(NamedTuple):
    """By the hash of the user id, by the anonymous id, or by both; as of `at`, epoch ms."""

    user: str | None
    anonymous: str | None
    at: int

    def digests(self) -> list[str]:
        found = [digest(self.user)] if self.user is not None else []
        return found + ([digest(None, self.anonymous)] if self.anonymous is not None else [])

    def rows(self) -> list[str]:
        """Whose the rows of checklists are."""
        found = [person_digest(self.user, None)] if self.user is not None else []
        return found + ([person_digest(None, self.anonymous)] if self.anonymous is not None else [])

    def needles(self) -> list[bytes]:
        """What any line has that they are in. The last is how JSON may write any character."""
        user = [self.user.encode()] if self.user is not None else []
        return [*user, *([msgspec.json.encode(self.anonymous)] if self.anonymous is not None else []), b"\\u"]

    def marks(self) -> list[bytes]:
        """What no file may have any more."""
        marks = [one.encode() for one in ([self.user] if self.user is not None else []) + self.rows()]
        if self.anonymous is not None:
            marks += [b'"%s":%s' % (name.encode(), msgspec.json.encode(self.anonymous)) for name in ANONYMOUS_FIELDS]
        return marks

    def without(self, line: bytes, received: int) -> bytes:
        """What came later is not to be forgotten."""
        if received > self.at:
            return line
        return left_out(line, Whom(lambda user: user == self.user, lambda anonymous: anonymous == self.anonymous))

    def without_in_record(self, record: Record) -> bytes:
        return b"\n".join(self.without(line, _time(line, record)) for line in record.value.split(b"\n"))

    def came_back(self, record: Record) -> bool:
        """Whether a line of the record that came later is theirs."""
        later = self._replace(at=1 << 62)
        return any(
            _time(line, record) > self.at and later.without(line, 0) != line for line in record.value.split(b"\n")
        )


def _time(line: bytes, record: Record) -> int:
    try:
        return _received.decode(line).received
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return record.timestamp


class Place(NamedTuple):
    """One place: how many rows, records or files had something, in how many it was removed, and how many still have."""

    name: str
    found: int
    removed: int
    remaining: int


class Kept(NamedTuple):
    """A topic that cannot be changed: until when (epoch ms) it may hold what was received before; None without end."""

    topic: str
    until: int | None


class Search:
    """Of one person in one installation. With `dry_run` nothing is changed."""

    def __init__(self, settings: Settings, engine: sa.Engine, organisation: str, person: Person, dry_run: bool) -> None:
        self._settings = settings
        self._store = Forgetting(engine, organisation)
        self._person = person
        self._dry_run = dry_run
        self.came_back = False

    def run(self) -> tuple[list[Place], list[Kept]]:
        """Everything is looked through again after it was removed. Raises LogError, WipeError, SQLAlchemy's errors."""
        on_kafka = not self._settings.log_url.startswith("sqlite:")
        kept = self._retention() if on_kafka else []  # a log that is away is to be known before anything is removed
        if not self._dry_run:
            self._store.enter(self._person.digests(), self._person.at)
        places = [self._progress(), self._rejected(), self._rebuild()]
        if not on_kafka:
            places += [self._topic(topic) for topic in Topics(self._settings.topic_prefix).all()]
        return [*places, *self._files()], kept

    def _progress(self) -> Place:
        rows = self._person.rows()
        found = self._store.progress(rows)
        removed = 0 if self._dry_run else self._store.remove_progress(rows)
        return Place("checklist progress", found, removed, self._store.progress(rows))

    def _rejected(self) -> Place:
        return self._twice(
            "set aside", lambda dry: self._store.rewrite_rejected(self._person.needles(), self._person.without, dry)
        )

    def _topic(self, topic: str) -> Place:
        path = self._settings.log_url.removeprefix("sqlite:///")

        def change(record: Record) -> bytes:
            self.came_back = self.came_back or self._person.came_back(record)
            return self._person.without_in_record(record)

        needles = self._person.needles()
        return self._twice(f"topic {topic}", lambda dry: rewrite(path, topic, needles, change, dry))

    def _twice(self, name: str, work: Callable[[bool], int]) -> Place:
        found = work(self._dry_run)
        return Place(name, found, 0 if self._dry_run else found, work(True))

    def _rebuild(self) -> Place:
        """What was begun before is of no use any more. One that runs now finds that out itself, and begins anew."""
        name = "a rebuild that was begun"
        beside = open_beside(self._settings.store_url)
        try:
            found = int(beside.conditions() is not None)
            if not found or self._dry_run:
                return Place(name, found, 0, found)
            with beside.alone():
                beside.throw_away()
            return Place(name, found, found, int(beside.conditions() is not None))
        except RebuildError:
            return Place(f"{name} and runs", 1, 0, 1)
        finally:
            beside.close()

    def _files(self) -> Iterable[Place]:
        """SQLite's own: deleted rows stay in them until their place is needed."""
        files = {"the file of the log": self._settings.log_url, "the file of the store": self._settings.store_url}
        for name, url in files.items():
            if url.startswith("sqlite:") and not self.came_back:
                path = url.removeprefix("sqlite:///")
                found = int(occurrences(path, self._person.marks()) > 0)
                remaining = found if self._dry_run else int(wipe(path, self._person.marks()) > 0)
                yield Place(name, found, found - remaining, remaining)

    def _retention(self) -> list[Kept]:
        reader = open_reader(self._settings.log_url)
        try:
            found = [(topic, reader.kept_ms(topic)) for topic in Topics(self._settings.topic_prefix).all()]
        finally:
            reader.close()
        return [Kept(topic, None if kept is None else self._person.at + kept) for topic, kept in found]


def remaining(places: Sequence[Place]) -> int:
    return sum(place.remaining for place in places)
