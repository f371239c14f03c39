"""Where logs, command logs and screenshots are kept."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.store import LocalStore

if TYPE_CHECKING:
    from obstore import GetResult  # a stub's name only


class Artifacts:
    """Files of attempts, in an object store; today a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        self._store = LocalStore(str(folder))

    async def put(self, execution_id: int, attempt_id: int, name: str, file: Path) -> int:
        """Keeps the file; gives its size in bytes."""
        await obstore.put_async(self._store, _path(execution_id, attempt_id, name), file)
        return file.stat().st_size

    async def get(self, execution_id: int, attempt_id: int, name: str) -> AsyncIterator[bytes]:
        """The file's content in pieces; raises FileNotFoundError before the first."""
        found = await obstore.get_async(self._store, _path(execution_id, attempt_id, name))
        return _pieces(found)

    async def read_end(self, execution_id: int, attempt_id: int, name: str, limit: int) -> bytes:
        """The last `limit` bytes, or all; raises FileNotFoundError."""
        path = _path(execution_id, attempt_id, name)
        size = (await obstore.head_async(self._store, path))["size"]
        if size == 0:
            return b""
        start = max(0, size - limit)
        return bytes(await obstore.get_range_async(self._store, path, start=start, end=size))


async def _pieces(found: "GetResult") -> AsyncIterator[bytes]:
    async for piece in found.stream(min_chunk_size=256 * 1024):
        yield bytes(piece)


def _path(execution_id: int, attempt_id: int, name: str) -> str:
    return f"executions/{execution_id}/attempts/{attempt_id}/{name}"
