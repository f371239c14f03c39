"""What a new-session request asks for once the environment has had its say; pure."""

from typing import Any

from proctor.errors import InvalidInput

_Capabilities = dict[str, Any]

# The environment alone says where a test runs.
_PLACE = frozenset({"browserName", "browserVersion", "platformName"})
# Tests written for the API's other servers send the job's key along; no driver knows it.
_KEY = "key"
# Would lead to another program, to the browser of another attempt, or to a device that somebody else holds.
_PLACE_IN_OPTIONS = frozenset({"binary", "debuggerAddress", "androidPackage"})
# Start a program of the test's in the browser's place or around it; `debug` and `g` are of Debian's launcher.
_STARTING = frozenset(
    {
        *("browser-subprocess-path", "debug", "g", "gpu-launcher", "plugin-launcher", "ppapi-plugin-launcher"),
        *("renderer-cmd-prefix", "utility-cmd-prefix", "zygote-cmd-prefix"),
    }
)
# Write where they like; the driver's log and the attempt's output folder are for that.
_WRITING = frozenset({"crash-dumps-dir", "log-file"})
# Suites bring these along from machines where they were needed. Here the environment decides: left out, not refused.
_DECIDED = frozenset({"no-zygote", "remote-allow-origins", "single-process", "temp-profile", "user-data-dir"})
_DEBUGGING = "remote-debugging-"
# Of a legacy request only what the standard still knows may be passed on; drivers refuse the rest.
_STANDARD = frozenset(
    {
        *("acceptInsecureCerts", "pageLoadStrategy", "proxy", "setWindowRect", "strictFileInteractability"),
        *("timeouts", "unhandledPromptBehavior", "webSocketUrl"),
    }
)
_LEGACY_NAMES = {"chromeOptions": "goog:chromeOptions", "acceptSslCerts": "acceptInsecureCerts"}


def merge(asked: dict[str, Any], environment_caps: dict[str, Any]) -> dict[str, Any]:
    """The body of a new-session request that asks for the environment, and keeps the test's own options.

    `asked` is the body that the test sent: `capabilities` with `alwaysMatch` and `firstMatch`, or the legacy
    `desiredCapabilities`, which become standard ones. Where both name the same thing the environment wins.
    Raises InvalidInput with the reason when `asked` is not of that form.
    """
    merged = [_in_environment(candidate, environment_caps) for candidate in _candidates(asked)]
    if len(merged) == 1:
        return {"capabilities": {"alwaysMatch": merged[0], "firstMatch": [{}]}}
    # A name may not be in both, so each alternative carries everything.
    return {"capabilities": {"alwaysMatch": {}, "firstMatch": merged}}


def _candidates(asked: _Capabilities) -> list[_Capabilities]:
    if "capabilities" not in asked:
        return [_standard(_object(asked.get("desiredCapabilities", {}), "desiredCapabilities"))]
    capabilities = _object(asked["capabilities"], "capabilities")
    always = _object(capabilities.get("alwaysMatch", {}), "alwaysMatch")
    first = capabilities.get("firstMatch", [{}])
    if not isinstance(first, list) or not first:
        raise InvalidInput("`firstMatch` must be a list of at least one object of capabilities.")
    return [_joined(always, _object(alternative, "firstMatch")) for alternative in first]


def _joined(always: _Capabilities, alternative: _Capabilities) -> _Capabilities:
    if both := always.keys() & alternative.keys():
        raise InvalidInput(f"{', '.join(sorted(both))}: named in `alwaysMatch` and in `firstMatch`; keep one.")
    return {**always, **alternative}


def _standard(desired: _Capabilities) -> _Capabilities:
    renamed = {_LEGACY_NAMES.get(name, name): value for name, value in desired.items()}
    return {name: value for name, value in renamed.items() if ":" in name or name in _STANDARD}


def _in_environment(own: _Capabilities, environment_caps: _Capabilities) -> _Capabilities:
    merged = {name: value for name, value in own.items() if name not in _PLACE and name != _KEY}
    for name, value in own.items():
        if name.endswith("Options") and ":" in name:
            options = {key: option for key, option in _object(value, name).items() if key not in _PLACE_IN_OPTIONS}
            merged[name] = {**options, "args": _allowed(options["args"])} if "args" in options else options
    return _overlaid(merged, environment_caps)


def _overlaid(own: _Capabilities, ours: _Capabilities) -> _Capabilities:
    merged = dict(own)
    for name, value in ours.items():
        theirs = own.get(name)
        if isinstance(value, dict) and isinstance(theirs, dict):
            merged[name] = _overlaid(theirs, value)
        elif name == "args" and isinstance(theirs, list):
            merged[name] = _switches(value, theirs)
        elif isinstance(value, list) and isinstance(theirs, list):
            merged[name] = [*value, *(item for item in theirs if item not in value)]
        else:
            merged[name] = value
    return merged


def _allowed(switches: object) -> list[str]:
    if not isinstance(switches, list) or not all(isinstance(switch, str) for switch in switches):
        raise InvalidInput("The browser options' `args` must be a list of strings.")
    for name in map(_switch_name, switches):
        if name in _STARTING:
            raise InvalidInput(
                f"The browser switch `--{name}` is not allowed: it starts a program, and Proctor alone says which "
                "programs run in an environment. Remove it from the browser's options."
            )
        if name in _WRITING:
            raise InvalidInput(
                f"The browser switch `--{name}` is not allowed: Proctor says where the browser writes, and keeps "
                "what its driver says as driver.log. Remove it from the browser's options."
            )
    return [switch for switch in switches if not _is_decided(_switch_name(switch))]


def _is_decided(name: str) -> bool:
    return name in _DECIDED or name.startswith(_DEBUGGING)


def _switches(ours: list[str], theirs: list[str]) -> list[str]:
    # Of a switch given twice Chromium takes the last, so the test's would win.
    taken = {_switch_name(switch) for switch in ours}
    return [*ours, *(switch for switch in theirs if _switch_name(switch) not in taken)]


def _switch_name(switch: str) -> str:
    # However it is spelt: Chromium takes one hyphen or two, its driver none too.
    return switch.lstrip("- \t\r\n").partition("=")[0].rstrip()


def _object(value: object, name: str) -> _Capabilities:
    if not isinstance(value, dict):
        raise InvalidInput(f"`{name}` must be an object.")
    return value
