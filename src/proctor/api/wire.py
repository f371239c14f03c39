"""Schemas of the contract that the API's description shows, and its pagination."""

from typing import Any

from pydantic import BaseModel, Field

PAGE_LIMIT = 50


class OperatingSystem(BaseModel):
    code: str
    platform: str
    mobile: bool


class BrowserVersion(BaseModel):
    environment_id: int
    version: str


class Browser(BaseModel):
    code: str
    browser_name: str
    versions: list[BrowserVersion]


class UnavailableEnvironment(BaseModel):
    id: int
    name: str
    reason: str = Field(description="disabled, unknown (no hub offers it) or offline")
    detail: str
    operating_system: OperatingSystem
    browsers: list[Browser]
    devices: list[dict[str, Any]]


class RunTestPlanResponse(BaseModel):
    """The answer of the run route. `succesful` repeats `successful` for a client that reads the misspelt key."""

    execution_id: int | None = Field(None, description="Absent when nothing runs.")
    test_plan_id: int
    unavailable_env_list: list[UnavailableEnvironment]
    successful: bool
    succesful: bool
    already_running: bool
    message: str


class Problem(BaseModel):
    """The body of every error."""

    type: str
    title: str
    status: int
    detail: str
    message: str
    error: str
    error_description: str


# For the API's description: every refusal has the one body.
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": description,
        "content": {"application/problem+json": {"schema": Problem.model_json_schema()}},
    }
    for status, description in {"4XX": "Refused, and why.", "5XX": "Something went wrong on the server side."}.items()
}


def paginate(url: str, page: int, total: int) -> dict[str, Any]:
    """Dialect E's pagination; `url` is where a page's number follows."""
    pagination: dict[str, Any] = {"current_page": page, "total_count": total, "page_limit": PAGE_LIMIT}
    if page * PAGE_LIMIT < total:
        pagination["next_page"] = f"{url}/{page + 1}"
    if page > 1:
        pagination["previous_page"] = f"{url}/{page - 1}"
    return pagination
