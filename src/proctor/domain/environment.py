"""Environments, what hubs offer, and which offer serves which environment."""

from dataclasses import dataclass
from enum import StrEnum


class MissingReason(StrEnum):
    """Why an environment cannot be had (contract §3)."""

    DISABLED = "disabled"
    UNKNOWN = "unknown"
    OFFLINE = "offline"


@dataclass(frozen=True)
class Stereotype:
    """What one kind of slot offers: `os` as in `LINUX`, `browser` as in `chrome`, `version` as in `156.0.8078.73`."""

    os: str
    browser: str
    version: str

    @property
    def display_name(self) -> str:
        """As in `LINUX / Chrome 156`."""
        return f"{self.os} / {self.browser.capitalize()} {self.version.split('.')[0]}"


@dataclass(frozen=True)
class Offer:
    """A stereotype and how many sessions of it a hub has room for."""

    stereotype: Stereotype
    slots: int


@dataclass(frozen=True)
class Environment:
    """Where a scenario runs. `version` is a prefix of the stereotype's, or empty; `resolution` as in `1440x900`."""

    id: int
    name: str
    os: str
    browser: str
    version: str = ""
    resolution: str | None = None
    enabled: bool = True

    @property
    def mobile(self) -> bool:
        return self.os in {"ANDROID", "IOS"}


@dataclass(frozen=True)
class HubOffer:
    """One stereotype on one hub, and whether that hub answers now."""

    hub_id: int
    stereotype: Stereotype
    slots: int
    online: bool


def serves(stereotype: Stereotype, environment: Environment) -> bool:
    """True when a slot of the stereotype can run the environment's tests."""
    return (
        stereotype.os.upper() == environment.os.upper()
        and stereotype.browser.lower() == environment.browser.lower()
        and version_matches(environment.version, stereotype.version)
    )


def version_matches(asked: str, offered: str) -> bool:
    """`156` matches `156.0.8078.73`, and not `1560`; the empty string and `LATEST` match every version."""
    if not asked or asked.upper() == "LATEST":
        return True
    wanted = asked.split(".")
    return offered.split(".")[: len(wanted)] == wanted


def why_missing(environment: Environment, offers: list[HubOffer]) -> MissingReason | None:
    """The reason of the contract, or None when the environment is available (busy counts as available)."""
    if not environment.enabled:
        return MissingReason.DISABLED
    serving = [offer for offer in offers if serves(offer.stereotype, environment)]
    if not serving:
        return MissingReason.UNKNOWN
    if not any(offer.online for offer in serving):
        return MissingReason.OFFLINE
    return None
