"""The manifest: what it accepts, and each kind of mistake with its line."""

import json
import time
from datetime import timedelta

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from proctor.domain.permission import Role
from proctor.ports.sender import new_secret
from proctor.services.manifest import (
    Manifest,
    check_manifest,
    format_duration,
    locate,
    parse_duration,
    read_manifest,
)
from proctor.services.yaml_source import MAX_MISTAKES, ManifestInvalid

SECRET = new_secret()
WHOLE = """\
company: Acme
callback_secret: ${SECRET}
users:
  - {username: ci, password: "${CI_PASSWORD}", roles: [ROLE_USER, role_run_test], email: ci@acme.example}
hubs:
  - {name: local, kind: local}
  - {name: grid, kind: Selenium, url: http://grid.internal:4444, slots: 8}
environments:
  - {name: chrome, os: linux, browser: Chrome, version: 1.10, resolution: 1440x900}
projects:
  - name: shop
    repository: ./examples/shop
    framework: selenium
    runner: pytest
    setup: |
      uv pip install -r requirements.txt
      echo "$${HOME}"
    command: null
    credential: {username: git, token: "${CI_PASSWORD}"}
    scenarios:
      - {name: pays by card, source: tests/test_checkout.py, select: test_pays, parameters: {CARD: visa, PIN: 0123}}
      - {name: signs in}
    plans:
      - name: smoke
        scenarios: [pays by card]
        environments: [chrome, LINUX / Firefox 153]
        parallel: 4
        retries: 1
        timeout: 1h30m
        screenshots: YES
        video: on
      - {name: all of it, environments: [chrome]}
  - name: api
    repository: https://git.example/api.git
    framework: SERVICE
    runner: command
    command: make report
    scenarios: [{name: health}]
    plans: [{name: health}]
"""
VARIABLES = {"SECRET": SECRET, "CI_PASSWORD": "x: {y] #secret"}


def mistakes_in(text: str, **variables: str) -> list[tuple[int | None, str, str]]:
    with pytest.raises(ManifestInvalid) as caught:
        read_manifest(text, variables)
    return [(mistake.line, mistake.path, mistake.message) for mistake in caught.value.mistakes]


def project(*lines: str, framework: str = "SERVICE", runner: str = "pytest") -> str:
    head = ["company: Acme", "projects:", "- name: shop", "  repository: r", f"  framework: {framework}"]
    return "\n".join([*head, f"  runner: {runner}", *(f"  {line}" for line in lines)])


# --- what is accepted ------------------------------------------------------------------------------------------------


def test_a_whole_manifest_is_read() -> None:
    manifest = read_manifest(WHOLE, VARIABLES)

    shop, api = manifest.projects
    smoke, everything = shop.plans
    assert manifest.callback_secret == SECRET
    assert manifest.users[0].password == "x: {y] #secret"
    assert manifest.users[0].roles == (Role.USER, Role.RUN_TEST)
    assert manifest.hubs[1].kind == "selenium"
    assert (manifest.environments[0].os, manifest.environments[0].browser) == ("LINUX", "chrome")
    assert (shop.framework, shop.branch, shop.command, shop.enabled) == ("SELENIUM", "main", "", True)
    assert (smoke.scenarios, everything.scenarios) == (("pays by card",), "all")
    assert smoke.environments == ("chrome", "LINUX / Firefox 153")
    assert (smoke.parallel, smoke.retries, smoke.timeout) == (4, 1, timedelta(minutes=90))
    assert (everything.parallel, everything.retries, everything.timeout) == (1, 0, timedelta(minutes=10))
    assert (smoke.screenshots, smoke.video, everything.screenshots) == ("YES", True, "ONLY_FAILURE")
    assert api.command == "make report"


def test_values_stay_as_they_are_written_where_yaml_would_change_them() -> None:
    manifest = read_manifest(WHOLE, VARIABLES)

    assert manifest.environments[0].version == "1.10"
    assert manifest.projects[0].scenarios[0].parameters == {"CARD": "visa", "PIN": "0123"}


def test_the_company_alone_is_a_manifest() -> None:
    assert read_manifest("company: Acme", {}) == Manifest(company="Acme")


def test_what_goes_over_the_wire_comes_back_the_same() -> None:
    manifest = read_manifest(WHOLE, VARIABLES)
    wire = json.loads(json.dumps(manifest.model_dump(mode="json")))

    assert Manifest.model_validate(wire) == manifest
    assert check_manifest(wire) == manifest


def test_secrets_are_not_in_the_representation() -> None:
    shown = repr(read_manifest(WHOLE, VARIABLES))

    assert SECRET not in shown
    assert "#secret" not in shown


def test_aliases_repeat_a_value() -> None:
    text = project("setup: &install pip install .", "description: *install")

    assert read_manifest(text, {}).projects[0].description == "pip install ."


# --- variables -------------------------------------------------------------------------------------------------------


def test_a_variable_cannot_bring_yaml_with_it() -> None:
    text = "company: ${NAME}\nusers: [{username: ci, name: 'a ${NAME} b'}]"
    manifest = read_manifest(text, {"NAME": "null, x: [y] ${NAME}"})

    assert manifest.company == "null, x: [y] ${NAME}"
    assert manifest.users[0].name == "a null, x: [y] ${NAME} b"


def test_two_dollars_write_the_text_itself() -> None:
    text = project("setup: echo $${HOME} $HOME $$ $${")

    assert read_manifest(text, {}).projects[0].setup == "echo ${HOME} $HOME $$ ${"


def test_a_variable_that_is_not_set_is_one_mistake_with_its_line() -> None:
    found = mistakes_in("company: Acme\nusers:\n- username: ci\n  password: ${CI_PASSWORD}")

    [(line, path, message)] = found
    assert (line, path) == (4, "users[0].password")
    assert message.startswith("needs the variable CI_PASSWORD;")
    assert "`$${CI_PASSWORD}`" in message


@pytest.mark.parametrize("value", ["${", "${}", "${a-b}", "${a", "${1}"])
def test_what_is_no_variable_is_a_mistake(value: str) -> None:
    [(line, path, message)] = mistakes_in(f"company: '{value}'", a="set")

    assert (line, path) == (1, "company")
    assert "without a variable's name" in message


def test_the_value_of_a_variable_is_not_in_the_mistake_about_it() -> None:
    with pytest.raises(ManifestInvalid) as caught:
        read_manifest("company: A\nusers: [{username: ci, password: '${P}'}]\ncallback_secret: ${P}", {"P": "hushhsh"})

    assert len(caught.value.mistakes) == 2
    assert "hushhsh" not in caught.value.detail


# --- mistakes of single values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "path", "message"),
    [
        ("", 1, "company", "is missing"),
        ("{}", 1, "company", "is missing"),
        ("- a", 1, "", "must be a mapping"),
        ("Acme", 1, "", "must be a mapping"),
        ("company:\n  a: b", 1, "company", "must be text"),
        ("company: 42", 1, "company", "digits only"),
        ("company: ''", 1, "company", "must not be empty"),
        ("company: ' a'", 1, "company", "begin or end with a blank"),
        ('company: "a\\0b"', 1, "company", "cannot be stored"),
        ('company: "a\\ud800b"', 1, "company", "cannot be stored"),
        ('company: "a\\nb"', 1, "company", "one line"),
        (f"company: {'a' * 201}", 1, "company", "at most 200 characters"),
        ("company: A\nusers: ci", 2, "users", "must be a list"),
        ("company: A\nusers:\n- ci", 3, "users[0]", "must be a mapping"),
        ("company: A\nusers:\n- ~", 3, "users[0]", "must be a mapping"),
        ("company: A\nusers:\n- password: long enough", 3, "users[0].username", "is missing"),
        ("company: A\nusers:\n- username: ci\n  password: short", 4, "users[0].password", "at least 8 characters"),
        ("company: A\nusers:\n- username: ci\n  roles: [ROLE_RUN_TESTS]", 4, "users[0].roles[0]", "`ROLE_RUN_TEST`?"),
        ("company: A\ncallback_secret: hush", 2, "callback_secret", "whsec_"),
        ("company: A\nhubs:\n- name: g\n  kind: grid", 4, "hubs[0].kind", "there is local, selenium, appium"),
        ("company: A\nhubs:\n- name: g\n  kind: selenium", 3, "hubs[0].url", "is missing"),
        ("company: A\nhubs:\n- {name: g, kind: appium, url: grid}", 3, "hubs[0].url", "http://grid.internal"),
        ("company: A\nhubs:\n- {name: g, kind: appium, url: 'http://g:x'}", 3, "hubs[0].url", "http://grid.internal"),
        ("company: A\nhubs:\n- {name: g, kind: local, url: 'http://g'}", 3, "hubs[0].url", "must be left out"),
        ("company: A\nhubs:\n- {name: g, kind: local, slots: 0}", 3, "hubs[0].slots", "at least 1"),
        (
            "company: A\nenvironments:\n- name: c\n  os: LINUX\n  browser: b\n  resolution: big",
            6,
            "environments[0].resolution",
            "1440x900",
        ),
        (project("plans:", "- name: '7'"), 8, "projects[0].plans[0].name", "digits only"),
        (project("plans:", "- name: p", "  parallel: 0"), 9, "projects[0].plans[0].parallel", "at least 1"),
        (project("plans:", "- name: p", "  parallel: 1001"), 9, "projects[0].plans[0].parallel", "at most 1000"),
        (project("plans:", "- name: p", "  parallel: some"), 9, "projects[0].plans[0].parallel", "a whole number"),
        (project("plans:", "- name: p", "  parallel: 1.5"), 9, "projects[0].plans[0].parallel", "a whole number"),
        (project("plans:", "- name: p", "  retries: 11"), 9, "projects[0].plans[0].retries", "at most 10"),
        (project("plans:", "- name: p", "  retries: -1"), 9, "projects[0].plans[0].retries", "at least 0"),
        (project("plans:", "- name: p", "  timeout: 600"), 9, "projects[0].plans[0].timeout", "with its unit"),
        (project("plans:", "- name: p", "  timeout: 0s"), 9, "projects[0].plans[0].timeout", "1s to 24h"),
        (project("plans:", "- name: p", "  timeout: 25h"), 9, "projects[0].plans[0].timeout", "1s to 24h"),
        (project("plans:", "- name: p", "  video: maybe"), 9, "projects[0].plans[0].video", "true or false"),
        (project("plans:", "- name: p", "  screenshots: FAILURE"), 9, "projects[0].plans[0].screenshots", "ONLY_FAIL"),
        (project("plans:", "- name: p", "  scenarios: smoke"), 9, "projects[0].plans[0].scenarios", "`all` or a list"),
        (project("parameters: {9X: a}"), 7, "projects[0].parameters.9X", "no name for a variable"),
        (project("parameters: {PROCTOR_KEY: a}"), 7, "projects[0].parameters.PROCTOR_KEY", "belongs to Proctor"),
        (project("parameters:", "  X:"), 8, "projects[0].parameters.X", "write '' for an empty one"),
        (project("parameters:", "  X: [a]"), 8, "projects[0].parameters.X", "must be text"),
        (project("parameters: [X]"), 7, "projects[0].parameters", "must be a mapping"),
        (project("branch: --upload-pack=x"), 7, "projects[0].branch", "git would take it for an option"),
        (project("scenarios:", "- name: s", "  source: /etc/passwd"), 9, "projects[0].scenarios[0].source", "inside"),
        (project("scenarios:", "- name: s", "  source: a/../../b"), 9, "projects[0].scenarios[0].source", "inside"),
        (project("credential: {username: git}"), 7, "projects[0].credential", "username and token, or ssh_key"),
        (project("credential: {token: t, ssh_key: k}"), 7, "projects[0].credential", "username and token, or ssh_key"),
        (project(framework="SELENUM"), 5, "projects[0].framework", "did you mean `SELENIUM`?"),
        (project(runner="robot"), 6, "projects[0].runner", "cannot be `robot`; there is pytest, command"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_path(text: str, line: int, path: str, message: str) -> None:
    [(found_line, found_path, found_message)] = mistakes_in(text)

    assert (found_line, found_path) == (line, path)
    assert message in found_message


@pytest.mark.parametrize(
    ("text", "line", "path", "meant"),
    [
        ("company: A\nproject: []", 2, "project", "`projects`"),
        ("company: A\nusers:\n- username: ci\n  pasword: x", 4, "users[0].pasword", "`password`"),
        ("company: A\nhubs:\n- {name: l, kind: local, slot: 1}", 3, "hubs[0].slot", "`slots`"),
        (
            "company: A\nenvironments:\n- {name: c, os: L, browser: b, enable: no}",
            3,
            "environments[0].enable",
            "enabled",
        ),
        (project("setp: x"), 7, "projects[0].setp", "`setup`"),
        (project("credential: {ssh_key: a, sshkey: b}"), 7, "projects[0].credential.sshkey", "`ssh_key`"),
        (project("scenarios:", "- name: s", "  sourc: x"), 9, "projects[0].scenarios[0].sourc", "`source`"),
        (project("plans:", "- name: p", "  retry: 1"), 9, "projects[0].plans[0].retry", "`retries`"),
        ("company: A\nzzz: []", 2, "zzz", "there are company, callback_secret, users"),
    ],
)
def test_a_key_that_is_not_known_is_told_with_what_was_meant(text: str, line: int, path: str, meant: str) -> None:
    [(found_line, found_path, message)] = mistakes_in(text)

    assert (found_line, found_path) == (line, path)
    assert meant in message


# --- mistakes across values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "path", "message"),
    [
        ("company: A\nusers:\n- username: a\n- username: a", 4, "users[1].username", "`a` is there twice"),
        ("company: A\nhubs:\n- {name: a, kind: local}\n- {name: a, kind: local}", 4, "hubs[1].name", "twice"),
        (
            "company: A\nenvironments:\n- {name: a, os: l, browser: b}\n- {name: a, os: l, browser: b}",
            4,
            "environments[1].name",
            "twice",
        ),
        (project("scenarios:", "- name: a", "- name: a"), 9, "projects[0].scenarios[1].name", "twice"),
        (project("plans:", "- name: a", "- name: a"), 9, "projects[0].plans[1].name", "twice"),
        (
            project("scenarios: [{name: pays by card}]", "plans:", "- name: p", "  scenarios:", "  - pay by card"),
            11,
            "projects[0].plans[0].scenarios[0]",
            "did you mean `pays by card`?",
        ),
        (
            project("plans:", "- name: p", "  scenarios: [x]"),
            9,
            "projects[0].plans[0].scenarios[0]",
            "there is no scenario `x` in this project; add it",
        ),
        (
            project("scenarios: [{name: a}]", "plans:", "- name: p", "  scenarios: [a, a]"),
            10,
            "projects[0].plans[0].scenarios[1]",
            "`a` is named twice",
        ),
        (
            project("plans:", "- name: p", "  environments: [c, c]", framework="SELENIUM"),
            9,
            "projects[0].plans[0].environments[1]",
            "`c` is named twice",
        ),
        (
            project("plans:", "- name: p", "  environments: [c]"),
            9,
            "projects[0].plans[0].environments",
            "SERVICE projects run without an environment",
        ),
        (
            project("plans:", "- name: p", framework="selenium"),
            8,
            "projects[0].plans[0].environments",
            "a plan of SELENIUM needs at least one",
        ),
        (
            project("plans:", "- name: p", "  environments: []", framework="APPIUM"),
            9,
            "projects[0].plans[0].environments",
            "a plan of APPIUM needs at least one",
        ),
        (project("command: make"), 7, "projects[0].command", "for `runner: command` only"),
        (
            project("scenarios:", "- name: s", "  command: make"),
            9,
            "projects[0].scenarios[0].command",
            "for `runner: command` only",
        ),
        (
            project("scenarios:", "- {name: a, command: make}", "- {name: b}", runner="command"),
            9,
            "projects[0].scenarios[1].command",
            "needs one in the scenario or the project",
        ),
    ],
)
def test_values_that_contradict_each_other_are_told(text: str, line: int, path: str, message: str) -> None:
    [(found_line, found_path, found_message)] = mistakes_in(text)

    assert (found_line, found_path) == (line, path)
    assert message in found_message


def test_projects_of_one_name_are_told_with_the_second_ones_line() -> None:
    entry = "\n- {name: shop, repository: r, framework: SERVICE, runner: pytest}"

    [(line, path, _)] = mistakes_in(f"company: A\nprojects:{entry}{entry}")
    assert (line, path) == (4, "projects[1].name")


def test_all_mistakes_are_told_at_once_in_the_order_of_their_lines() -> None:
    text = project(
        "scenarios:",
        "- {name: one, parameters: {X: '${MISSING}'}}",
        "plans:",
        "- name: smoke",
        "  scenarios: [on]",
        "  timeout: soon",
        "  timeout: later",
        "  paralel: 4",
        framework="SELENIUM",
    )
    with pytest.raises(ManifestInvalid) as caught:
        read_manifest(text, {})

    found = [(mistake.line, mistake.path.rpartition("].")[2]) for mistake in caught.value.mistakes]
    assert found == [
        (8, "parameters.X"),
        (10, "environments"),
        (11, "scenarios[0]"),
        (12, "timeout"),
        (13, "timeout"),
        (14, "paralel"),
    ]
    assert caught.value.status == 422
    assert "6 mistakes; nothing was changed" in caught.value.detail
    assert "line 14: projects[0].plans[0].paralel: is not a key here; did you mean `parallel`?" in caught.value.detail


# --- YAML ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("company: A\nusers: [", 2, "cannot be read as YAML"),
        ("company: A\n\tusers: []", 2, "cannot be read as YAML"),
        ("company: A\n---\ncompany: B", 2, "cannot be read as YAML"),
        ("company: A\nusers: *ci", 2, "undefined alias"),
        ("company: A\nname: \x07", 2, "control character"),
        ('company: "\\UFFFFFFFF"', 1, "cannot be read as YAML"),
        ("company: A\nusers: " + "[" * 5_000, 2, "levels deep"),
        ("company: A\nusers: &a [*a]", 2, "too large once its aliases are written out"),
        ("company: !!python/object/apply:os.system [x]", 1, "tags are not used here"),
        ("company: !!binary aGk=", 1, "tags are not used here"),
        ("company: A\n? [a]\n: b", 2, "key that is not text"),
        ("company: A\n<<: {users: []}", 2, "`<<`, which is not supported"),
        ("company: A\ncompany: B", 2, "is there twice"),
    ],
)
def test_yaml_that_cannot_be_read_or_does_more_than_it_should_is_a_mistake(text: str, line: int, message: str) -> None:
    assert any(found[0] == line and message in found[2] for found in mistakes_in(text))


def test_aliases_cannot_make_a_small_file_large() -> None:
    layers = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 12))
    started = time.monotonic()

    found = mistakes_in(f"l0: &l0 [a, a]\n{layers}")

    assert "aliases" in found[0][2]
    assert time.monotonic() - started < 20


def test_a_file_of_more_than_a_mebibyte_is_not_read() -> None:
    [(line, _, message)] = mistakes_in("# " + "ü" * 530_000)

    assert line == 1
    assert "1,048,576" in message


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    for candidate in (text, f"company: A\nprojects: {text}", f'company: "{text}"'):
        assert all(line is not None for line in lines_of_mistakes(candidate))


def lines_of_mistakes(text: str) -> list[int | None]:
    try:
        read_manifest(text, {})
    except ManifestInvalid as invalid:
        return [mistake.line for mistake in invalid.mistakes] or [None]
    return []


_KEYS = st.sampled_from(
    [*Manifest.model_fields, "name", "plans", "scenarios", "framework", "credential", "kind", "a.b[0]"]
)
_LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["SERVICE", "all", "local"])
_DOCUMENTS = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner), max_leaves=30
)


@given(_DOCUMENTS)
def test_any_document_is_accepted_or_refused_and_both_ends_agree(document: object) -> None:
    try:
        manifest = check_manifest(document)
    except ManifestInvalid:
        return
    assert check_manifest(manifest.model_dump(mode="json")) == manifest


# --- the server's side -----------------------------------------------------------------------------------------------


def test_the_server_tells_the_path_and_the_command_finds_the_line() -> None:
    wire = read_manifest(WHOLE, VARIABLES).model_dump(mode="json")
    wire["projects"][0]["plans"][0]["retries"] = 99
    with pytest.raises(ManifestInvalid) as caught:
        check_manifest(wire)

    [mistake] = caught.value.mistakes
    assert (mistake.line, mistake.path) == (None, "projects[0].plans[0].retries")
    assert WHOLE.splitlines()[locate(WHOLE, mistake.path) - 1].strip() == "retries: 1"


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("", 1),
        ("company", 1),
        ("hubs[1].url", 7),
        ("projects[1]", 33),
        ("projects[0].plans[1].timeout", 32),
        ("projects[7].plans", 10),
        ("nowhere", 1),
        ("]x[.", 1),
    ],
)
def test_a_path_that_is_not_there_leads_to_what_is_around_it(path: str, line: int) -> None:
    assert locate(WHOLE, path) == line


def test_a_document_full_of_mistakes_is_answered_soon() -> None:
    names = [f"scenario that is not there, number {number}" for number in range(5_000)]
    known = [{"name": f"scenario that is there, number {number}"} for number in range(5_000)]
    plans = [{"name": "p", "scenarios": names}] * 10
    document = {"company": "A", "users": [{}] * 50_000, "projects": [{"name": "p", "scenarios": known, "plans": plans}]}
    started = time.monotonic()

    with pytest.raises(ManifestInvalid) as caught:
        check_manifest(document)

    assert len(caught.value.mistakes) == MAX_MISTAKES
    assert "or more" in caught.value.detail
    assert time.monotonic() - started < 20


def test_a_document_with_too_many_values_is_refused_as_a_whole() -> None:
    with pytest.raises(ManifestInvalid) as caught:
        check_manifest({"company": "A", "users": [{}] * 300_000})

    [mistake] = caught.value.mistakes
    assert "200,000 values" in mistake.message


# --- durations -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1h30m", 5_400), ("24h", 86_400), ("1h0m5s", 3_605)]
)
def test_durations_are_read_with_their_units(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "10", "1.5h", "10m1h", "-5s", "10 m", "1d", "٣s", "9999999s", None, 600])
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="with its unit"):
        parse_duration(text)


@given(st.integers(1, 86_400))
def test_durations_are_written_as_they_are_read(seconds: int) -> None:
    duration = timedelta(seconds=seconds)

    assert parse_duration(format_duration(duration)) == duration


def test_yaml_itself_would_have_read_some_values_differently() -> None:
    # Why scalars are taken as written: this is what the fields would have been given.
    assert yaml.safe_load("{a: 1.10, b: YES, c: 0123}") == {"a": 1.1, "b": True, "c": 83}
