"""What every use case works with."""

import asyncio
from dataclasses import dataclass, field

from proctor.clock import Clock
from proctor.ports.artifacts import Artifacts
from proctor.ports.queue import Queue
from proctor.ports.sender import Sender
from proctor.settings import Settings
from proctor.store.engine import Store


@dataclass(frozen=True)
class Context:
    """The outside world of one process, given once."""

    settings: Settings
    store: Store
    queue: Queue
    sender: Sender
    artifacts: Artifacts
    clock: Clock
    # How many sign-ins are checked at once: as many as passwords are hashed.
    sign_ins: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))
