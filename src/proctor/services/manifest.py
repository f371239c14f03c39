"""The manifest of `proctor apply`: what a company's users, hubs, environments, projects and plans shall be.

It is read twice: by the command from YAML, which knows lines, and by the server from JSON, which believes nobody.
"""

import difflib
import heapq
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    StringConstraints,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from proctor.domain.permission import Role
from proctor.domain.text import storable
from proctor.ports.sender import valid_secret
from proctor.services.yaml_source import (
    MAX_MISTAKES,
    MAX_VALUES,
    Loc,
    ManifestInvalid,
    Mistake,
    path_of,
    read_source,
    shorten,
)

MAX_TIMEOUT: Final = timedelta(hours=24)

# Where something is wrong, and what.
Findings = Iterator[tuple[Loc, str]]


# --- values ----------------------------------------------------------------------------------------------------------


_DURATION: Final = re.compile(r"(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,6})s)?")


def parse_duration(text: object) -> timedelta:
    """Reads `90s`, `10m` or `1h30m`, from 1 second to 24 hours; ValueError says what to write."""
    if isinstance(text, timedelta):
        return text
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if not found or not found[0]:
        raise ValueError("must be a duration with its unit, as in 90s, 10m or 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    duration = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    if not timedelta(seconds=1) <= duration <= MAX_TIMEOUT:
        raise ValueError("must be from 1s to 24h")
    return duration


def format_duration(duration: timedelta) -> str:
    """Writes whole seconds the way `parse_duration` reads them, as in `1h30m`."""
    minutes, seconds = divmod(int(duration.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{number}{unit}" for number, unit in ((hours, "h"), (minutes, "m"), (seconds, "s")) if number]
    return "".join(parts) or "0s"


def _storable(text: str) -> str:
    # YAML's "\0" makes a NUL, JSON's "\ud800" half of a surrogate pair.
    if not storable(text):
        raise ValueError("contains a character that cannot be stored")
    return text


def _one_line(text: str) -> str:
    if any(character < " " or "\x7f" <= character <= "\x9f" for character in _storable(text)):
        raise ValueError("must be one line without control characters")
    return text


def _no_margin(text: str) -> str:
    if not text:
        raise ValueError("must not be empty")
    if text != text.strip():
        raise ValueError("must not begin or end with a blank")
    return text


def _not_a_number(text: str) -> str:
    if text.isdigit():
        raise ValueError("must not be digits only, since the API would take it for an id")
    return text


def _no_option(text: str) -> str:
    if text.startswith("-"):
        raise ValueError("must not begin with `-`, since git would take it for an option")
    return text


def _inside_repository(text: str) -> str:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError("must be a path inside the repository, as in tests/test_checkout.py")
    return text


def _variable_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,199}", text):
        raise ValueError("is no name for a variable; use letters, digits and `_`, as in CARD_TYPE")
    if text.startswith("PROCTOR_"):
        raise ValueError("belongs to Proctor, as every name that begins with PROCTOR_; choose another")
    return text


def _hub_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ValueError("must be an address as in http://grid.internal:4444")
    return text


def _resolution(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d{2,4}x[1-9]\d{2,4}", text):
        raise ValueError("must be width and height in pixels, as in 1440x900")
    return text


def _callback_secret(text: str) -> str:
    if not valid_secret(text):
        raise ValueError("must be `whsec_` and the base64 of 24 to 64 bytes; leave it out to have one made")
    return text


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _read_selection(value: object) -> object:
    if isinstance(value, str) and value.lower() != "all":
        raise ValueError("must be `all` or a list of scenarios' names, as in [pays by card, signs in]")
    return _lower(value)


def _kind_of_selection(value: object) -> str:
    return "all" if isinstance(value, str) else "names"


Text = Annotated[str, StringConstraints(max_length=20_000), AfterValidator(_storable)]
Line = Annotated[str, StringConstraints(max_length=2_000), AfterValidator(_one_line)]
Name = Annotated[str, StringConstraints(max_length=200), AfterValidator(_one_line), AfterValidator(_no_margin)]
Password = Annotated[str, StringConstraints(min_length=8, max_length=200), AfterValidator(_one_line)]
# Names that stand in a URL where an id may stand too.
Title = Annotated[Name, AfterValidator(_not_a_number)]
Upper = Annotated[Name, BeforeValidator(_upper)]
Lower = Annotated[Name, BeforeValidator(_lower)]
Duration = Annotated[timedelta, BeforeValidator(parse_duration), PlainSerializer(format_duration, when_used="json")]
Parameters = Annotated[dict[Annotated[str, AfterValidator(_variable_name)], Text], Field(max_length=200)]
Selection = Annotated[
    Annotated[Literal["all"], Tag("all")] | Annotated[tuple[Name, ...], Field(max_length=10_000), Tag("names")],
    Discriminator(_kind_of_selection),
    BeforeValidator(_read_selection),
]


# --- the document ----------------------------------------------------------------------------------------------------


class Entry(BaseModel):
    """A mapping of the manifest: a key that is not known is a mistake, and a null is as good as left out."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nulls(cls, value: object) -> object:
        if isinstance(value, dict):
            return {key: inner for key, inner in value.items() if inner is not None}
        return value


class UserEntry(Entry):
    """A user and what it may do; without a password it can use personal tokens only."""

    username: Name
    password: Password | None = Field(default=None, repr=False)
    roles: Annotated[tuple[Annotated[Role, BeforeValidator(_upper)], ...], Field(max_length=len(Role))] = ()
    email: Line = ""
    name: Line = ""
    surname: Line = ""


class HubEntry(Entry):
    """Something that offers environments; `slots` None: as many as it says itself."""

    name: Name
    kind: Annotated[Literal["local", "selenium", "appium"], BeforeValidator(_lower)]
    url: Annotated[Line, AfterValidator(_hub_url)] | None = Field(default=None, repr=False)
    slots: Annotated[int, Field(ge=1, le=1000)] | None = None


class EnvironmentEntry(Entry):
    """Where scenarios run; an empty version is any."""

    name: Name
    os: Upper
    browser: Lower
    version: Line = ""
    resolution: Annotated[Line, AfterValidator(_resolution)] | None = None
    enabled: bool = True


class CredentialEntry(Entry):
    """What fetches the repository: `username` and `token`, or `ssh_key`."""

    username: Line | None = None
    token: Line | None = Field(default=None, repr=False)
    ssh_key: Text | None = Field(default=None, repr=False)


class ScenarioEntry(Entry):
    """One thing to run: a source file and what to select in it, or a command of its own."""

    name: Title
    source: Annotated[Line, AfterValidator(_inside_repository)] = ""
    select: Line = ""
    description: Text = ""
    command: Text = ""
    parameters: Parameters = {}
    enabled: bool = True


class PlanEntry(Entry):
    """Scenarios times environments, with limits; environments that the file does not list may come from hubs."""

    name: Title
    description: Text = ""
    scenarios: Selection = "all"
    environments: Annotated[tuple[Name, ...], Field(max_length=1_000)] = ()
    parallel: Annotated[int, Field(ge=1, le=1000)] = 1
    retries: Annotated[int, Field(ge=0, le=10)] = 0
    timeout: Duration = timedelta(minutes=10)
    screenshots: Annotated[Literal["YES", "NO", "ONLY_FAILURE"], BeforeValidator(_upper)] = "ONLY_FAILURE"
    video: bool = False
    parameters: Parameters = {}
    enabled: bool = True


class ProjectEntry(Entry):
    """A repository of tests and how to run it."""

    name: Title
    description: Text = ""
    repository: Annotated[Line, AfterValidator(_no_margin), AfterValidator(_no_option)]
    branch: Annotated[Name, AfterValidator(_no_option)] = "main"
    framework: Annotated[Literal["SELENIUM", "APPIUM", "SERVICE"], BeforeValidator(_upper)]
    runner: Annotated[Literal["pytest", "command"], BeforeValidator(_lower)]
    setup: Text = ""
    command: Text = ""
    credential: CredentialEntry | None = None
    parameters: Parameters = {}
    enabled: bool = True
    scenarios: Annotated[tuple[ScenarioEntry, ...], Field(max_length=10_000)] = ()
    plans: Annotated[tuple[PlanEntry, ...], Field(max_length=1_000)] = ()


class Manifest(Entry):
    """The whole file; every part but the company may be left out."""

    company: Title
    callback_secret: Annotated[str, AfterValidator(_callback_secret)] | None = Field(default=None, repr=False)
    users: Annotated[tuple[UserEntry, ...], Field(max_length=1_000)] = ()
    hubs: Annotated[tuple[HubEntry, ...], Field(max_length=1_000)] = ()
    environments: Annotated[tuple[EnvironmentEntry, ...], Field(max_length=1_000)] = ()
    projects: Annotated[tuple[ProjectEntry, ...], Field(max_length=1_000)] = ()


# --- mistakes --------------------------------------------------------------------------------------------------------


def read_manifest(text: str, variables: Mapping[str, str]) -> Manifest:
    """Reads YAML, with `${NAME}` taken from `variables`; ManifestInvalid carries all mistakes with their lines."""
    source = read_source(text, variables)
    # One mistake a value is enough: a variable that is not set would also be too short, or no number.
    wrong = {(mistake.path, mistake.line) for mistake in source.mistakes}
    found = [source.place(mistake) for mistake in judge(source.document)]
    mistakes = source.mistakes + [mistake for mistake in found if (mistake.path, mistake.line) not in wrong]
    if mistakes:
        raise ManifestInvalid(sorted(mistakes, key=lambda mistake: (mistake.line or 0, mistake.column or 0)))
    return Manifest.model_validate(source.document)


def check_manifest(document: object) -> Manifest:
    """Reads what `Manifest.model_dump(mode="json")` wrote; ManifestInvalid carries all mistakes with their paths."""
    mistakes = judge(document)
    if mistakes:
        raise ManifestInvalid(mistakes)
    return Manifest.model_validate(document)


def locate(text: str, path: str) -> int:
    """The line, from 1, of what the path names in the YAML, or of the nearest thing around it that is there."""
    source = read_source(text, {})
    return source.place(Mistake(None, None, path, "")).line or 1


def judge(document: object) -> list[Mistake]:
    """The mistakes, at most `MAX_MISTAKES`, of a document of plain mappings, lists and scalars; without lines."""
    if _is_too_large(document):
        return [Mistake(None, None, "", f"has more than {MAX_VALUES:,} values; split it by project")]
    found = itertools.chain(_check_values(document), _cross_check(document))
    return [Mistake(None, None, path_of(loc), message) for loc, message in itertools.islice(found, MAX_MISTAKES)]


def _is_too_large(document: object) -> bool:
    waiting = [document]
    for _ in range(MAX_VALUES):
        if not waiting:
            return False
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return True


def _check_values(document: object) -> Findings:
    try:
        Manifest.model_validate({} if document is None else document)
    except ValidationError as invalid:
        for error in invalid.errors(include_url=False):
            yield _loc_in(document, error), _say(error)


def _loc_in(document: object, error: ErrorDetails) -> Loc:
    """The error's place without the steps that only pydantic knows, such as a union's branch."""
    loc: Loc = ()
    here: Any = document
    for part in error["loc"]:
        known = range(len(here)) if isinstance(here, list) else here if isinstance(here, dict) else ()
        if part in known:
            here, loc = here[part], (*loc, part)
    return (*loc, error["loc"][-1]) if error["type"] == "missing" else loc


# --- what pydantic found, in words -----------------------------------------------------------------------------------

_ENTRY_AT: Final[Mapping[tuple[str, ...], type[Entry]]] = {
    (): Manifest,
    ("users",): UserEntry,
    ("hubs",): HubEntry,
    ("environments",): EnvironmentEntry,
    ("projects",): ProjectEntry,
    ("projects", "credential"): CredentialEntry,
    ("projects", "scenarios"): ScenarioEntry,
    ("projects", "plans"): PlanEntry,
}

_SAYINGS: Final[Mapping[str, str]] = {
    "missing": "is missing",
    "string_type": "must be text; write '' for an empty one",
    "string_unicode": "contains a character that cannot be stored",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "too_long": "must have at most {max_length} entries",
    "tuple_type": "must be a list, as in [one, other]",
    "dict_type": "must be a mapping, as in {{CARD: visa}}",
    "model_type": "must be a mapping, as in {{name: value}}",
    "value_error": "{error}",
}


def _say(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    if error["type"] == "extra_forbidden":
        return _say_unknown_key(error["loc"])
    if error["type"] in {"literal_error", "enum"}:
        return _say_unknown_word(str(error["input"]), re.findall(r"'([^']*)'", context["expected"]))
    saying = _SAYINGS.get(error["type"])
    return saying.format_map(context) if saying else error["msg"]


def _say_unknown_key(loc: Loc) -> str:
    *above, key = loc
    entry = _ENTRY_AT[tuple(part for part in above if isinstance(part, str))]
    known = list(entry.model_fields)
    return "is not a key here; " + (_suggest(str(key), known) or f"there are {', '.join(known)}")


def _say_unknown_word(word: str, choices: Sequence[str]) -> str:
    suggestion = _suggest(word.upper() if choices[0].isupper() else word.lower(), choices)
    return f"cannot be `{shorten(word)}`; {suggestion or 'there is ' + ', '.join(choices)}"


def _suggest(word: str, known: Iterable[str]) -> str:
    # Comparing is quadratic in the words' lengths: a hostile manifest of 200 mistakes takes the server a second so.
    word = word[:40]
    likely = heapq.nsmallest(12, known, key=lambda one: (-_shared_start(word, one), abs(len(word) - len(one))))
    close = difflib.get_close_matches(word, [one[:40] for one in likely], n=1)
    return f"did you mean `{shorten(close[0])}`?" if close else ""


def _shared_start(one: str, other: str) -> int:
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


# --- references and rules across values ------------------------------------------------------------------------------

# They are judged on the plain document, not in validators: those would keep silent as soon as any value is wrong.
Plain = Mapping[str, Any]


def _cross_check(document: object) -> Findings:
    top: Plain = document if isinstance(document, dict) else {}
    yield from _find_repeated(top, (), "users", "username")
    for key in ("hubs", "environments", "projects"):
        yield from _find_repeated(top, (), key)
    for loc, hub in _entries(top, (), "hubs"):
        yield from _check_hub(hub, loc)
    for loc, project in _entries(top, (), "projects"):
        yield from _check_project(project, loc)


def _check_hub(hub: Plain, loc: Loc) -> Findings:
    kind = _word(hub, "kind")
    if kind == "LOCAL" and hub.get("url"):
        yield (*loc, "url"), "must be left out, since the local hub is this machine's own drivers"
    if kind in {"SELENIUM", "APPIUM"} and not hub.get("url"):
        yield (*loc, "url"), f"is missing; say where the {kind.lower()} hub is, as in http://grid.internal:4444"


def _check_project(project: Plain, loc: Loc) -> Findings:
    yield from _find_repeated(project, loc, "scenarios")
    yield from _find_repeated(project, loc, "plans")
    yield from _check_credential(project, loc)
    yield from _check_commands(project, loc)
    for plan_loc, plan in _entries(project, loc, "plans"):
        yield from _check_plan_scenarios(plan, plan_loc, project)
        yield from _check_plan_environments(plan, plan_loc, _word(project, "framework"))


def _check_credential(project: Plain, loc: Loc) -> Findings:
    credential = project.get("credential")
    if not isinstance(credential, dict):
        return
    given = {key for key in CredentialEntry.model_fields if credential.get(key)}
    if given not in ({"username", "token"}, {"ssh_key"}):
        yield (*loc, "credential"), "needs username and token, or ssh_key alone"


def _check_commands(project: Plain, loc: Loc) -> Findings:
    runner = _word(project, "runner")
    if runner == "PYTEST" and project.get("command"):
        yield (*loc, "command"), "is for `runner: command` only; leave it out, or change the runner"
    for scenario_loc, scenario in _entries(project, loc, "scenarios"):
        if runner == "PYTEST" and scenario.get("command"):
            yield (*scenario_loc, "command"), "is for `runner: command` only; leave it out, or change the runner"
        if runner == "COMMAND" and not (scenario.get("command") or project.get("command")):
            yield (*scenario_loc, "command"), "is missing; `runner: command` needs one in the scenario or the project"


def _check_plan_scenarios(plan: Plain, loc: Loc, project: Plain) -> Findings:
    chosen = plan.get("scenarios")
    if not isinstance(chosen, list) or not isinstance(project.get("scenarios") or [], list):
        return
    names = {str(scenario["name"]): None for _, scenario in _entries(project, (), "scenarios") if _named(scenario)}
    for index, name in enumerate(chosen):
        if isinstance(name, str) and name not in names:
            hint = _suggest(name, names) or "add it to the project's scenarios, or correct the name"
            yield (*loc, "scenarios", index), f"there is no scenario `{shorten(name)}` in this project; {hint}"
    yield from _find_named_twice(chosen, (*loc, "scenarios"))


def _check_plan_environments(plan: Plain, loc: Loc, framework: str) -> Findings:
    chosen = plan.get("environments")
    if framework == "SERVICE" and chosen:
        yield (*loc, "environments"), "must be left out, since SERVICE projects run without an environment"
    if framework in {"SELENIUM", "APPIUM"} and not chosen:
        yield (*loc, "environments"), f"is missing; a plan of {framework} needs at least one, as in [chrome]"
    if isinstance(chosen, list):
        yield from _find_named_twice(chosen, (*loc, "environments"))


def _find_named_twice(names: Sequence[object], loc: Loc) -> Findings:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if isinstance(name, str):
            if name in seen:
                yield (*loc, index), f"`{shorten(name)}` is named twice; leave one out"
            seen.add(name)


def _find_repeated(parent: Plain, loc: Loc, key: str, identity: str = "name") -> Findings:
    seen: set[str] = set()
    for entry_loc, entry in _entries(parent, loc, key):
        if _named(entry, identity):
            name = entry[identity]
            if name in seen:
                yield (*entry_loc, identity), f"`{shorten(name)}` is there twice; names identify, so choose another"
            seen.add(name)


def _named(entry: Plain, identity: str = "name") -> bool:
    return isinstance(entry.get(identity), str)


def _entries(parent: Plain, loc: Loc, key: str) -> Iterator[tuple[Loc, Plain]]:
    entries = parent.get(key)
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        if isinstance(entry, dict):
            yield (*loc, key, index), entry


def _word(entry: Plain, key: str) -> str:
    value = entry.get(key)
    return value.upper() if isinstance(value, str) else ""
