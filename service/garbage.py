"""When the collector looks for cycles. What a start imports stays, and looking through it is a tenth of the start."""

import gc

GARBAGE_OBJECTS = 3_000
"""So many more than were given back, and the collector looks. A good request makes no cycle; a refusal may."""


def put_off() -> None:
    """Until `settle`, which has to follow."""
    gc.disable()


def settle() -> None:
    """What has been made so far stays; the collector need not look at it ever."""
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS, 10, 10)
    gc.enable()
