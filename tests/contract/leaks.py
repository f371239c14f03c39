"""What a test may not leave behind: processes and temporary folders of browsers."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest


def processes_below(folder: Path) -> list[psutil.Process]:
    """Live processes that name the folder, or a path below it, in their arguments or their environment."""
    mark = str(folder)
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = [*process.cmdline(), *process.environ().values()]
            if any(mark in word for word in words):
                found.append(process)
    return found


@contextmanager
def nothing_leaked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder of the test's own; on leaving, asserts that no process names it and that it is empty."""
    # A short path, because Chromium makes a socket in it; its own, because others may run browsers on this machine.
    with tempfile.TemporaryDirectory(prefix="pt-", dir="/tmp") as name:
        folder = Path(name)
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield folder
        assert processes_below(folder) == []
        assert list(folder.iterdir()) == []
