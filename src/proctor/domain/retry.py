"""Whether a job that did not pass gets another attempt."""

from dataclasses import dataclass

from proctor.domain.verdict import Level, Outcome, Verdict

# Machinery that fails is retried elsewhere without spending the plan's retries, at most this often.
INFRASTRUCTURE_RETRIES = 2


@dataclass(frozen=True)
class Spent:
    """What a job has used up, this attempt included."""

    attempts: int
    infrastructure: int


def next_level(verdict: Verdict, spent: Spent, retries: int, *, stopping: bool) -> Level:
    """WAITING when the job shall be tried again, else the level it ends with."""
    if stopping:
        # What ended by itself before the stop reached it keeps its own verdict.
        return Level.STOPPED if verdict.outcome is Outcome.INFRASTRUCTURE else verdict.level
    if verdict.outcome is Outcome.INFRASTRUCTURE:
        return Level.WAITING if spent.infrastructure <= INFRASTRUCTURE_RETRIES else Level.ERROR
    tries_of_the_test = spent.attempts - spent.infrastructure
    if verdict.outcome in {Outcome.FAILED, Outcome.BROKEN} and tries_of_the_test <= retries:
        return Level.WAITING
    return verdict.level
