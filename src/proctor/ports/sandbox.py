"""Sandboxes: what keeps test code to its workspace. It is not trusted."""

import asyncio
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

BWRAP_TRIAL_TIMEOUT = 10.0  # seconds
_EMPTIED = ("/dev/shm", "/tmp", "/run")  # noqa: S108 (each attempt gets its own)


@dataclass(frozen=True)
class Bounds:
    """What a process may touch; `writable` and `readable` are seen also where they lie below `hidden` folders."""

    cwd: Path
    writable: Sequence[Path] = ()
    readable: Sequence[Path] = ()
    hidden: Sequence[Path] = ()


class Sandbox(Protocol):
    """Turns a command into one that runs within bounds. Variables are the caller's: they never go on a command line."""

    name: str
    warning: str | None
    """What `proctor doctor` says of it; None when test code is really confined."""
    contained: bool
    """True when everything inside dies with the process that was started, also what called setsid."""

    def command(self, argv: Sequence[str], bounds: Bounds, *, status: int | None = None) -> list[str]:
        """`status` is an open descriptor; a contained sandbox writes JSON to it with its `child-pid`."""
        ...


class PlainSandbox:
    """No confinement but the death of the process when its worker dies; for machines without bubblewrap."""

    name = "plain"
    contained = False

    def __init__(self, warning: str | None = None) -> None:
        self.warning = warning
        self._setpriv = shutil.which("setpriv")

    def command(self, argv: Sequence[str], bounds: Bounds, *, status: int | None = None) -> list[str]:
        if self._setpriv is None:
            return list(argv)
        return [self._setpriv, "--pdeathsig", "KILL", "--", *argv]


class BubblewrapSandbox:
    """Namespaces by `bwrap`: the machine read-only, the home and data folders hidden, no capability, own processes."""

    name = "bubblewrap"
    contained = True
    warning: str | None = None

    def __init__(self, bwrap: str) -> None:
        self._bwrap = bwrap
        self._machine = machine_options(os.environ.get("PATH", ""))

    def command(self, argv: Sequence[str], bounds: Bounds, *, status: int | None = None) -> list[str]:
        # The order matters: a later mount covers an earlier one, so what is hidden comes before what is shown in it.
        return [
            self._bwrap,
            *(["--info-fd", str(status)] if status is not None else []),
            *self._machine,
            *hiding_options(bounds.hidden),
            *_binds("--ro-bind", bounds.readable),
            *_binds("--bind", bounds.writable),
            "--chdir",
            str(bounds.cwd),
            "--",
            *argv,
        ]


async def choose_sandbox() -> Sandbox:
    """Bubblewrap where it is installed and really works, else none, with the reason as its `warning`."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        return PlainSandbox(
            "Test code runs unconfined, with all rights of this user, because bwrap is not installed. "
            "Install it: apt-get install bubblewrap."
        )
    sandbox = BubblewrapSandbox(bwrap)
    complaint = await _try(sandbox)
    if complaint is None:
        return sandbox
    return PlainSandbox(
        f"Test code runs unconfined, with all rights of this user, because bwrap does not work here: {complaint}. "
        "In a container, allow it user namespaces and mounts; on Ubuntu 24.04, give bwrap an AppArmor profile."
    )


async def _try(sandbox: BubblewrapSandbox) -> str | None:
    """Why `true` does not run in it, or None."""
    process = await asyncio.create_subprocess_exec(
        *sandbox.command(["true"], Bounds(Path("/"))),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(BWRAP_TRIAL_TIMEOUT):
            _, said = await process.communicate()
    except TimeoutError:
        return f"it did not end within {BWRAP_TRIAL_TIMEOUT:g} s"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == 0:
        return None
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"it ended with exit code {process.returncode}"


def machine_options(path: str) -> list[str]:
    """bwrap's options for this machine without its secrets: read-only, own processes, no capability, an empty home.

    Temporary folders are empty and writable. Of what lies in a hidden folder only the tools that `path`, as in $PATH,
    names are shown. What is mounted over it comes after, and a command after `--`.
    """
    # A checkout or a build machine may have its tools below a folder that is hidden, as /tmp.
    tools = [tool for folder in map(Path, _EMPTIED) for tool in tools_below(folder, path)]
    return [*_machine(), *_binds("--ro-bind", tools), *_home(Path.home(), path)]


def hiding_options(folders: Iterable[Path]) -> list[str]:
    """bwrap's options that show those of the folders that exist as empty."""
    return list(_each("--tmpfs", sorted(folder for folder in folders if folder.is_dir())))


def never_through_links(path: str, flags: int) -> int:
    """An opener, as `open` takes one, for files where untrusted code may have put a link to a file of ours."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _machine() -> Iterator[str]:
    yield from ("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent")
    # Root inside would keep its capabilities, and with them could mount everything writable again.
    yield from ("--cap-drop", "ALL")
    yield from ("--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev")
    # Browsers keep shared memory in /dev/shm; sockets of databases and of Docker are in /run and /tmp.
    for path in _EMPTIED:
        yield from ("--perms", "1777", "--tmpfs", path)
    # bwrap leaves these open to root, who owns them: without capabilities it could still set the machine's sysctls.
    for name in ("sys", "sysrq-trigger", "irq", "bus", "fs"):
        yield from ("--ro-bind-try", f"/proc/{name}", f"/proc/{name}")
    resolver = Path("/etc/resolv.conf").resolve()
    if resolver.is_relative_to("/run"):
        yield from ("--ro-bind-try", str(resolver), str(resolver))
    if os.geteuid() == 0:
        for secret in _secrets_of_root():
            yield from ("--ro-bind", "/dev/null", str(secret))


def _secrets_of_root() -> Iterator[Path]:
    candidates = [Path("/etc/shadow"), Path("/etc/gshadow"), *Path("/etc/ssh").glob("ssh_host_*_key")]
    yield from (path for path in candidates if path.is_file())


def _home(home: Path, path: str) -> list[str]:
    """Hides the home folder, where keys and tokens are, and shows the tools that are installed in it."""
    if home == Path("/") or not home.is_dir():
        return []
    return ["--tmpfs", str(home), *_binds("--ro-bind", tools_below(home, path))]


def tools_below(home: Path, path: str) -> list[Path]:
    """The folders below `home` that running programs needs: this Python's, and those that `path` (as in $PATH) names.

    A tool with a folder of its own, as `~/.nvm/versions/node/v22/bin`, gets that folder; `~/.cargo/bin` gets no more
    than itself, for the credentials are beside it.
    """
    prefixes = [Path(sys.prefix), Path(sys.base_prefix)]
    entries = [Path(entry) for entry in path.split(":") if entry.startswith("/")]
    own = [entry.parent if _has_own_folder(entry, home) else entry for entry in entries]
    return [folder for folder in dict.fromkeys([*prefixes, *own]) if folder != home and folder.is_relative_to(home)]


def _has_own_folder(entry: Path, home: Path) -> bool:
    return entry.name == "bin" and entry.is_relative_to(home) and len(entry.relative_to(home).parts) > 2


def _each(option: str, paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        yield from (option, str(path))


def _binds(option: str, paths: Iterable[Path]) -> Iterator[str]:
    """Outer folders before inner ones, which they would cover."""
    for path in sorted(path for path in paths if path.exists()):
        yield from (option, str(path), str(path))
