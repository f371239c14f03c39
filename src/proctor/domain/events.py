"""The names of events, the same in outbox, stream and callback."""

from enum import StrEnum


class EventType(StrEnum):
    """What a callback is told (contract §7)."""

    EXECUTION_STARTED = "execution.started"
    TEST_FINISHED = "test.finished"
    EXECUTION_FINISHED = "execution.finished"
