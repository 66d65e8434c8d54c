"""The promise behind every 2xx to a write: the log has it."""

from backends.log import LogError, RecordTooLarge
from ingest import answers
from ingest.enqueue import Enqueuer


async def put(enqueuer: Enqueuer, organisation: str, line: bytes) -> None:
    """Returns when the log has acknowledged. Raises a 413 Refusal, and a 503 where it is not known to be written."""
    try:
        await enqueuer.put(organisation, line)
    except RecordTooLarge:
        raise answers.too_large() from None
    except LogError:
        raise answers.unavailable("log_away") from None
