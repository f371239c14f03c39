"""Projects, scenarios and plans as they are read."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Project:
    """A repository of tests and how to run it. Its credential is not part of it: only a worker reads that."""

    id: int
    company_id: int
    name: str
    description: str
    enabled: bool
    repository: str
    branch: str
    framework: str
    runner: str


@dataclass(frozen=True)
class Scenario:
    """One thing to run in a project."""

    id: int
    project_id: int
    name: str
    description: str
    source: str
    selector: str
    parameters: Mapping[str, str]
    enabled: bool


@dataclass(frozen=True)
class Plan:
    """Scenarios times environments, with limits; `company_id` and `project_enabled` are its project's."""

    id: int
    project_id: int
    company_id: int
    name: str
    project_name: str
    description: str
    enabled: bool
    project_enabled: bool
    framework: str
    parallel: int
    retries: int
    timeout_seconds: int
    screenshots: str
    video: bool
