"""Every error that Proctor raises on purpose; a class states the fact, its docstring is the message."""

from typing import ClassVar


class ProctorError(Exception):
    """Internal Server Error"""

    # `code` is a stable word for programs, `status` the HTTP status that the API answers with.
    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_server_error"

    def __init__(self, detail: str | None = None, *, message: str | None = None) -> None:
        """`message` is the short exact text of the contract, `detail` a sentence: what happened, why, what to do."""
        self.message = message or (type(self).__doc__ or "").strip().splitlines()[0]
        self.detail = detail or self.message
        super().__init__(self.detail)


# --- who calls -------------------------------------------------------------------------------------------------------


class Unauthorized(ProctorError):
    """Unauthorized"""

    status = 401
    code = "unauthorized"


class InvalidClient(Unauthorized):
    """INVALID_CLIENT"""

    code = "invalid_client"


class InvalidGrant(Unauthorized):
    """invalid_grant"""

    code = "invalid_grant"


class Forbidden(ProctorError):
    """Forbidden"""

    status = 403
    code = "forbidden"


class TooManyRequests(ProctorError):
    """Too Many Requests"""

    status = 429
    code = "too_many_requests"

    def __init__(self, detail: str | None = None, *, retry_after: int = 60) -> None:
        """`retry_after` in seconds."""
        super().__init__(detail)
        self.retry_after = retry_after


# --- what is asked ---------------------------------------------------------------------------------------------------


class InvalidRequest(ProctorError):
    """INVALID_REQUEST"""

    status = 400
    code = "invalid_request"


class InvalidInput(ProctorError):
    """Invalid input data"""

    status = 400
    code = "invalid_input"


class CallbackRefused(InvalidInput):
    """Callback URL refused"""

    code = "callback_refused"


class ValidationFailed(ProctorError):
    """Validation Failed"""

    status = 422
    code = "validation_failed"


class IdempotencyConflict(ProctorError):
    """Idempotency-Key was used for another request"""

    status = 422
    code = "idempotency_conflict"


class PlanAlreadyRunning(ProctorError):
    """Test plan is already running"""

    status = 409
    code = "already_running"


class NotFound(ProctorError):
    """Not Found"""

    status = 404
    code = "not_found"


class PlanNotFound(NotFound):
    """Test Plan not found"""

    code = "plan_not_found"


class CompanyNotFound(NotFound):
    """Company not found"""

    code = "company_not_found"


class ProjectNotFound(NotFound):
    """Project not found"""

    code = "project_not_found"


class ScenarioNotFound(NotFound):
    """Scenario not found"""

    code = "scenario_not_found"


class ExecutionNotFound(NotFound):
    """Test Execution not found"""

    code = "execution_not_found"


class ResultNotFound(NotFound):
    """Test Result Not Found"""

    code = "result_not_found"


# --- what an attempt may meet: the job ends ERROR with the detail ----------------------------------------------------


class AttemptError(ProctorError):
    """The attempt broke"""

    code = "attempt_broken"


class SourceUnavailable(AttemptError):
    """The repository could not be fetched"""

    code = "source_unavailable"


class SetupFailed(AttemptError):
    """The project's setup failed"""

    code = "setup_failed"


class ToolMissing(AttemptError):
    """The runner's tool is not there"""

    code = "tool_missing"


class ReportMissing(AttemptError):
    """The test left no report"""

    code = "report_missing"


class ReportBroken(AttemptError):
    """The test's report cannot be read"""

    code = "report_broken"


class NothingSelected(AttemptError):
    """The scenario selects no test"""

    code = "nothing_selected"


class AttemptTimedOut(AttemptError):
    """The test ran past its timeout"""

    code = "timed_out"


class InfrastructureError(ProctorError):
    """Machinery failed, not the test"""

    code = "infrastructure"


class HubUnreachable(InfrastructureError):
    """The hub does not answer"""

    code = "hub_unreachable"


class DriverFailed(InfrastructureError):
    """The browser's driver did not start"""

    code = "driver_failed"


class QueueStopped(InfrastructureError):
    """The queue gives no more work"""

    code = "queue_stopped"


class WorkerForgotten(InfrastructureError):
    """The worker is no longer known"""

    code = "worker_forgotten"


class FenceLost(InfrastructureError):
    """The attempt no longer holds its lease"""

    code = "fence_lost"


# --- the command line ------------------------------------------------------------------------------------------------


class UsageError(ProctorError):
    """The command cannot be carried out as given"""

    status = 400
    code = "usage"
