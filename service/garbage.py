"""When the collector looks for cycles. What a start imports stays, and looking through it is a tenth of the start."""

import gc

GARBAGE_OBJECTS = 3_000
"""So many more than were given back, and the collector looks. A good request makes no cycle; a refusal may."""

BATCH_OBJECTS = 50_000
"""As many where batches are held: less than that of one is not given back yet, and looking through it finds nothing."""


def put_off() -> None:
    """Until `settle`, which has to follow."""
    gc.disable()


def settle(objects: int = GARBAGE_OBJECTS) -> None:
    """What has been made so far stays; the collector need not look at it ever, and at the rest after so many more."""
    gc.freeze()
    gc.set_threshold(objects, 10, 10)
    gc.enable()
