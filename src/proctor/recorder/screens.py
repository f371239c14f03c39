"""The last screenshot of an attempt."""

import asyncio
import base64
import binascii
from pathlib import Path

from proctor.ports.sandbox import never_through_links
from proctor.recorder.w3c_errors import Answer

_PNG = b"\x89PNG\r\n\x1a\n"


async def keep(answer: Answer, path: Path) -> bool:
    """Writes the picture that a driver answered; False, and an earlier picture stays, when there is none in it."""
    return await asyncio.to_thread(_write, answer, path)


def _write(answer: Answer, path: Path) -> bool:
    picture = png(answer)
    if picture is None:
        return False
    # Whole or not at all: a reader may look while the attempt still runs.
    unfinished = path.with_suffix(".part")
    unfinished.unlink(missing_ok=True)
    with open(unfinished, "xb", opener=never_through_links) as file:
        file.write(picture)
    unfinished.replace(path)
    return True


def png(answer: Answer) -> bytes | None:
    """The PNG file in the answer to `GET …/screenshot`; None when the command failed or it holds something else."""
    value = answer.value() if answer.status == 200 else None
    if not isinstance(value, str):
        return None
    try:
        picture = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
    return picture if picture.startswith(_PNG) else None
