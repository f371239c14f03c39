"""Roles, and what each may do."""

from collections.abc import Iterable
from enum import StrEnum


class Role(StrEnum):
    """The roles of the contract (§6)."""

    ADMIN = "ROLE_ADMIN"
    COMPANY_ADMIN = "ROLE_COMPANY_ADMIN"
    USER = "ROLE_USER"
    RUN_TEST = "ROLE_RUN_TEST"
    REPORT = "ROLE_REPORT"
    CHANGE_USER = "ROLE_CHANGE_USER"


class Permission(StrEnum):
    """What can be permitted; the first four are named in the product's documentation, the last is ours."""

    PLAN_RUN = "PLAN_RUN"
    PLAN_VIEW = "PLAN_VIEW"
    TEST_RESULT_VIEW = "TEST_RESULT_VIEW"
    TEST_EXECUTION_VIEW = "TEST_EXECUTION_VIEW"
    COMPANY_CHANGE = "COMPANY_CHANGE"


_VIEW = frozenset({Permission.PLAN_VIEW, Permission.TEST_RESULT_VIEW, Permission.TEST_EXECUTION_VIEW})

_GRANTS: dict[Role, frozenset[Permission]] = {
    Role.ADMIN: frozenset(Permission),
    Role.COMPANY_ADMIN: frozenset(Permission),
    Role.USER: _VIEW,
    Role.RUN_TEST: _VIEW | {Permission.PLAN_RUN},
    Role.REPORT: _VIEW,
    Role.CHANGE_USER: frozenset(),
}


def permissions_of(roles: Iterable[str]) -> frozenset[Permission]:
    """All that the roles permit together."""
    return frozenset().union(*(_GRANTS[Role(role)] for role in roles))
