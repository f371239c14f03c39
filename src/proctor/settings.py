"""What can be set, each with its default and the reason for it; every field is read from `PROCTOR_<NAME>`."""

import os
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


def default_data_folder() -> Path:
    """Where the XDG convention puts a user's data."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "proctor"


class Settings(BaseSettings):
    """All settings of one process."""

    model_config = SettingsConfigDict(env_prefix="PROCTOR_", extra="ignore", frozen=True)

    # Where database, artifacts and workspaces live.
    data: Path = Field(default_factory=default_data_folder)
    # Empty: the embedded PostgreSQL in `data`.
    database_url: str = ""
    # Loopback by default: whoever opens it to a network does so knowingly, behind TLS.
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    # The address that users see; empty: taken from each request.
    public_url: str = ""
    # Addresses of reverse proxies whose X-Forwarded-For is believed, as in `127.0.0.1,10.0.0.7`: throttling counts it.
    trusted_proxies: str = ""
    # The password of `admin` when the data folder is new; empty: one is made and shown once.
    admin_password: str = ""
    # The public client pair that clients in the field ship (contract §1).
    client_id: str = "client1"
    client_secret: str = "client1"  # noqa: S105 (public by contract)
    access_token_lifetime: timedelta = timedelta(hours=12)
    refresh_token_lifetime: timedelta = timedelta(days=30)
    # Addresses, beyond the public ones, that callbacks may go to, as in `10.0.0.0/8,192.168.1.5`.
    callback_allow: str = ""
    # `up --dev` and `demo`: callbacks may go to loopback.
    dev: bool = False
    # How many attempts one worker runs at once; 0: twice the cores, at least 4 (a test mostly waits for its browser).
    concurrency: int = Field(default=0, ge=0, le=1000)
    # How many browsers the local hub offers; 0: as many as cores.
    local_slots: int = Field(default=0, ge=0, le=1000)
    # The local hub that this worker's browsers belong to.
    hub: str = "local"
    # Queues beside its hub's that a worker takes from.
    queues: str = "jobs"
    sandbox: Literal["auto", "bubblewrap", "none"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    # Set by `up`: the listening socket that the server takes over, so that no caller is refused while it restarts.
    listen_fd: int = -1
    # A request body larger than this is refused; uploads come with a later issue.
    body_limit: int = 2 * 1024 * 1024

    @cached_property
    def workers_at_once(self) -> int:
        return self.concurrency or max(4, 2 * (os.cpu_count() or 1))

    @cached_property
    def browser_slots(self) -> int:
        return self.local_slots or os.cpu_count() or 1

    @property
    def artifacts_folder(self) -> Path:
        return self.data / "artifacts"

    @property
    def work_folder(self) -> Path:
        return self.data / "work"

    @property
    def token_file(self) -> Path:
        """Holds the administrator's token for the client commands on this machine; mode 0600."""
        return self.data / "admin.token"

    @property
    def address_file(self) -> Path:
        """Holds the server's address for the client commands on this machine."""
        return self.data / "address"
