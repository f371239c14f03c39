"""Roles, and what each may do."""

import pytest

from proctor.domain.permission import Permission, Role, permissions_of

VIEW = {Permission.PLAN_VIEW, Permission.TEST_RESULT_VIEW, Permission.TEST_EXECUTION_VIEW}


@pytest.mark.parametrize(
    ("role", "permitted"),
    [
        (Role.ADMIN, set(Permission)),
        (Role.COMPANY_ADMIN, set(Permission)),
        (Role.USER, VIEW),
        (Role.RUN_TEST, VIEW | {Permission.PLAN_RUN}),
        (Role.REPORT, VIEW),
        (Role.CHANGE_USER, set()),
    ],
)
def test_each_role_permits_its_own(role: Role, permitted: set[Permission]) -> None:
    assert permissions_of([role]) == permitted


def test_every_role_of_the_contract_is_known() -> None:
    assert {role.value for role in Role} == {
        "ROLE_ADMIN",
        "ROLE_COMPANY_ADMIN",
        "ROLE_USER",
        "ROLE_RUN_TEST",
        "ROLE_REPORT",
        "ROLE_CHANGE_USER",
    }


def test_several_roles_permit_what_any_of_them_does() -> None:
    assert permissions_of(["ROLE_CHANGE_USER", "ROLE_RUN_TEST"]) == VIEW | {Permission.PLAN_RUN}


def test_no_role_permits_nothing() -> None:
    assert permissions_of([]) == set()
