"""`proctor apply` up to the server: folders, variables, mistakes with their lines."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import test_utils, web
from click.testing import CliRunner

from proctor.cli.apply import ManifestFile, describe, find_repository, prepare
from proctor.cli.main import main

MANIFEST = """\
company: Acme
projects:
  - name: shop
    repository: ${WHERE}
    framework: SERVICE
    runner: command
    command: make test
    plans:
      - {name: smoke, retries: 1}
"""


@pytest.mark.parametrize(
    ("repository", "found"),
    [
        ("./shop", "/manifests/shop"),
        ("../shop", "/shop"),
        (".", "/manifests"),
        ("/srv/shop", "/srv/shop"),
        ("https://git.test/./shop.git", "https://git.test/./shop.git"),
        ("git@git.test:shop.git", "git@git.test:shop.git"),
        (".hidden/shop", ".hidden/shop"),
    ],
)
def test_a_relative_folder_begins_at_the_files_own(repository: str, found: str) -> None:
    assert find_repository(repository, Path("/manifests")) == found


def test_a_tilde_is_the_callers_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert find_repository("~/shop", Path("/manifests")) == "/home/ada/shop"


def test_variables_come_from_the_callers_environment_before_folders_are_resolved() -> None:
    sent = prepare(ManifestFile("proctor.yaml", Path("/manifests"), MANIFEST), {"WHERE": "./shop"})
    assert sent["projects"][0]["repository"] == "/manifests/shop"
    assert sent["projects"][0]["plans"][0]["timeout"] == "10m"


def test_each_mistake_is_shown_with_file_line_and_path_before_any_server_is_asked(tmp_path: Path) -> None:
    file = tmp_path / "proctor.yaml"
    file.write_text(MANIFEST.replace("retries: 1", "retries: 99"))
    done = CliRunner().invoke(main, ["apply", str(file), "--url", "http://127.0.0.1:1"], env={"WHERE": None})
    assert done.exit_code == 4
    first, second, last = done.stderr.splitlines()
    assert first.startswith(f"{file}:4: projects[0].repository: needs the variable WHERE")
    assert second == f"{file}:9: projects[0].plans[0].retries: must be at most 10"
    assert last == f"proctor: {file} has 2 mistakes; nothing was changed. Correct it and apply it again."
    assert done.stdout == ""


def test_stdin_is_read_for_a_dash_and_a_file_that_is_not_there_says_so() -> None:
    done = CliRunner().invoke(main, ["apply", "-"], input="company: 12\n")
    assert (done.exit_code, done.stderr.splitlines()[0].partition(": ")[0]) == (4, "<stdin>:1")
    done = CliRunner().invoke(main, ["apply", "nowhere.yaml"])
    assert (done.exit_code, done.stderr) == (
        4,
        "proctor: nowhere.yaml cannot be read: No such file or directory. Name a YAML file, or - for stdin.\n",
    )


async def test_mistakes_that_only_the_server_sees_get_their_lines_here(tmp_path: Path) -> None:
    file = tmp_path / "proctor.yaml"
    file.write_text(MANIFEST)
    mistakes = [{"path": "projects[0].plans[0].environments[0]", "message": "there is no environment 'opera'"}]

    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({"detail": "The manifest has a mistake.", "mistakes": mistakes}, status=422)

    application = web.Application()
    application.router.add_post("/api/v1/apply", refuse)
    async with test_utils.TestServer(application) as server:
        arguments = ["apply", str(file), "--url", str(server.make_url(""))]
        # In a thread, because the command brings an event loop of its own.
        done = await asyncio.to_thread(CliRunner().invoke, main, arguments, env={"WHERE": "./shop"})
    assert done.exit_code == 4
    shown, last = done.stderr.splitlines()
    assert shown == f"{file}:9: projects[0].plans[0].environments[0]: there is no environment 'opera'"
    assert last.startswith(f"proctor: {file} has a mistake; nothing was changed.")


def test_what_came_of_it_is_listed_with_the_plans_ids() -> None:
    answer = {"created": ["company Acme"], "updated": ["user ci"], "plans": {"shop / smoke": 7}}
    assert describe(answer) == [
        "created  company Acme",
        "kept     user ci",
        "",
        "Run a plan with `proctor run ID --wait`:",
        "  shop / smoke: id 7",
    ]
