"""What the store has to say once everything in the topics is counted: the topics read line by line into the model.

It shares with the workers only the types of records; what each event comes to is tests/model.py's.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import msgspec

from chaos.topics import Record
from chaos.traffic import World
from schemas import records
from schemas.ids import NIL
from schemas.records import Envelope, Heartbeat, Line, RecordEvent, Refused
from tests.model import Model

Ledger = Counter[tuple[str, str, int, str]]
"""Events by organisation, topic, partition and outcome."""


class Books:
    """Kept through all rounds, since a line may reach its topic after its round."""

    def __init__(self) -> None:
        self.ledger: Ledger = Counter()
        self.rows: Ledger = Counter()  # of what is set aside; a whole line is one, however many events it has
        self.models: dict[str, Model] = {}
        self.counted: defaultdict[str, set[str]] = defaultdict(set)
        self.rejected: defaultdict[str, set[str]] = defaultdict(set)
        self._small: dict[str, Model] = {}

    def open(self, world: World) -> None:
        """Organisations that lines may come for from now on."""
        for organisation in world.organisations:
            self.models[organisation] = Model(world.steps(organisation))
            self._small[organisation] = Model(world.steps(organisation))

    def close(self, world: World) -> None:
        """Forgets what only analytics are made of."""
        for organisation in world.organisations:
            self.models[organisation].counted.clear()

    def enter(self, read: Iterable[Record]) -> None:
        """In the order of each partition."""
        for record in read:
            for line in record.value.split(b"\n"):
                if not line.strip():
                    continue
                for organisation, outcome, events in self._outcomes(line):
                    key = (organisation, record.topic, record.partition)
                    self.ledger[*key, outcome] += events
                    self.ledger[*key, "consumed"] += events
                    if outcome.startswith("rejected:"):
                        self.rows[*key, outcome] += 1

    def _outcomes(self, raw: bytes) -> list[tuple[str, str, int]]:
        """Of each event, or of a whole line: whose it is, what it comes to, and how many events that are."""
        try:
            line = records.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return [(NIL, "rejected:unreadable", 1)]
        organisation = line.org
        if line.v > records.VERSION:
            return [(organisation, "rejected:newer_version", len(line.events) if isinstance(line, Envelope) else 1)]
        if isinstance(line, Refused):
            return [(organisation, f"rejected:refused:{line.reason}", 1)]
        models = self.models if isinstance(line, Envelope) else self._small
        envelope = line if isinstance(line, Envelope) else _as_envelope(line)
        return [(organisation, self._outcome(models, envelope, event), 1) for event in envelope.events]

    def _outcome(self, models: Mapping[str, Model], envelope: Envelope, event: RecordEvent) -> str:
        model = models.get(envelope.org)
        if model is None:
            return "rejected:unknown_organisation"
        before = model.outcomes.copy()
        model.take(msgspec.structs.replace(envelope, events=[event]))
        outcome = next(iter(model.outcomes - before))
        if outcome == "counted":
            self.counted[envelope.org].add(event.id)
        elif outcome != "duplicate":
            self.rejected[envelope.org].add(event.id)
        return outcome


def _as_envelope(line: Line) -> Envelope:
    """A small write stands under the same rules of scope, age and de-duplication as an event."""
    if isinstance(line, Envelope):
        return line
    event = RecordEvent(id=line.id, type="view")
    if not isinstance(line, Heartbeat):
        event = RecordEvent(id=line.id, type="view", flow=line.flow, step=line.step, time=line.time)
    return Envelope(v=line.v, org=line.org, received=line.received, events=[event])
