"""What a browser asks for by `Sec-GPC: 1` or `DNT: 1`, and what its organisation has chosen to do then."""

from schemas.privacy import Privacy, Treatment
from schemas.records import Envelope
from service import metrics
from service.fields import Headers, none_of, values

_SIGNALS = ((b"sec-gpc", "gpc"), (b"dnt", "dnt"))
_NAMES = {name for name, _ in _SIGNALS}


def treatment(headers: Headers, privacy: Privacy, events: int = 1) -> Treatment | None:
    """What becomes of this request's events, or of one small write; None where the browser asks for nothing.

    With `anonymous` the caller leaves the user and the anonymous id out and takes the rest. With `drop` it takes
    nothing and answers `{"accepted": 0}`; those events are counted here. The stricter of two signals holds.
    """
    if none_of(headers, _NAMES):
        return None
    asked = []
    for name, signal in _SIGNALS:
        for value in values(headers, name):
            if value.strip() == b"1":
                asked.append(signal)
    if not asked:
        return None
    dropping = [signal for signal in privacy._fields if signal in asked and getattr(privacy, signal) == "drop"]
    if dropping:
        metrics.events_withheld.labels(dropping[0]).inc(events)
        return "drop"
    return "anonymous"


def anonymise(envelope: Envelope) -> None:
    """Sessions stay, so that funnels do."""
    for event in envelope.events:
        event.user = event.anon = None
