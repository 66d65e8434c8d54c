"""When the collector looks for cycles. What a start imports stays, and looking through it is a tenth of the start."""

import gc

GARBAGE_OBJECTS = 3_000
"""So many more than were given back, and the collector looks. A good request makes no cycle; a refusal may."""

BATCH_OBJECTS = 50_000
"""As many where batches are held: less than that of one is not given back yet, and looking through it finds nothing."""

PASSED_BYTES = 64 * 1024 * 1024
"""Of records, some 180,000 events, and the collector looks: of kafka-python's cycles each may hold a whole fetch."""


def put_off() -> None:
    """Until `settle`, which has to follow."""
    gc.disable()


def settle(objects: int = GARBAGE_OBJECTS) -> None:
    """What has been made so far stays; the collector need not look at it ever, and at the rest after so many more."""
    gc.freeze()
    gc.set_threshold(objects, 10, 10)
    gc.enable()


class Passed:
    """Has the collector look after so many bytes, where few objects hold many of them."""

    def __init__(self) -> None:
        self._bytes = 0

    def add(self, size: int) -> None:
        """So many have come, and others will go in their place."""
        self._bytes += size
        if self._bytes >= PASSED_BYTES:
            self._bytes = 0
            gc.collect()
