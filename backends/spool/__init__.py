"""The edge's spool: what was accepted while the log was away, on this machine's disk until the log has it."""

from backends.spool.frames import Entry
from backends.spool.spool import Range, Spool, SpoolError, SpoolFull, SpoolInUse

__all__ = ["Entry", "Range", "Spool", "SpoolError", "SpoolFull", "SpoolInUse"]
