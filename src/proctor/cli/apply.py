"""`proctor apply`: makes what a YAML file says so."""

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from proctor.cli.client import Access, Given, Refused, open_client
from proctor.errors import UsageError
from proctor.services.manifest import Manifest, locate, read_manifest
from proctor.services.yaml_source import MAX_BYTES, ManifestInvalid, Mistake


@dataclass(frozen=True)
class ManifestFile:
    """A manifest's text; `name` is what mistakes are shown with, `folder` what its relative paths begin at."""

    name: str
    folder: Path
    text: str


def open_manifest(file: str) -> ManifestFile:
    """Reads the file, `-` for stdin; raises UsageError."""
    try:
        if file == "-":
            return ManifestFile("<stdin>", Path.cwd(), _decode(sys.stdin.buffer.read(MAX_BYTES + 1)))
        path = Path(file)
        with path.open("rb") as opened:
            return ManifestFile(file, path.resolve().parent, _decode(opened.read(MAX_BYTES + 1)))
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}. Name a YAML file, or - for stdin.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file} is not text in UTF-8. Name a YAML file, or - for stdin.") from None


def _decode(raw: bytes) -> str:
    # More than MAX_BYTES is refused with its size by read_manifest; a character cut in half there is no other mistake.
    return raw.decode(errors="strict" if len(raw) <= MAX_BYTES else "ignore")


def prepare(file: ManifestFile, variables: Mapping[str, str]) -> dict[str, Any]:
    """What to send: the manifest with its folders made absolute; raises ManifestInvalid."""
    manifest = read_manifest(file.text, variables)
    projects = tuple(
        project.model_copy(update={"repository": find_repository(project.repository, file.folder)})
        for project in manifest.projects
    )
    return Manifest.model_dump(manifest.model_copy(update={"projects": projects}), mode="json")


def find_repository(repository: str, folder: Path) -> str:
    """A folder that is written relatively, as the file's reader means it; anything else stays."""
    first = repository.split("/", 1)[0]
    if first in {".", ".."}:
        return str((folder / repository).resolve())
    if first.startswith("~"):
        return str(Path(repository).expanduser())
    return repository


def apply_file(given: Given, name: str) -> None:
    """Applies the file and tells what came of it; raises UsageError after mistakes were shown."""
    file = open_manifest(name)
    try:
        # Its own mistakes first: they are found without a server.
        manifest = prepare(file, os.environ)
        answer = asyncio.run(_send(given.find(), manifest))
    except ManifestInvalid as invalid:
        raise _show_mistakes(file, invalid.mistakes) from None
    except Refused as refused:
        raise _show_mistakes(file, _read_mistakes(refused, file.text)) from refused
    for line in describe(answer):
        click.echo(line)
    if secret := answer.get("callback_secret"):
        click.echo(f"\nCallbacks are signed with this secret, shown this once: {secret}")


async def _send(access: Access, manifest: dict[str, Any]) -> dict[str, Any]:
    async with open_client(access) as client:
        return await client.apply(manifest)


def describe(answer: Mapping[str, Any]) -> list[str]:
    """A line for each thing, and the ids of the plans, which the run route takes."""
    created = [f"created  {name}" for name in answer.get("created", [])]
    kept = [f"kept     {name}" for name in answer.get("updated", [])]
    plans = [f"{name}: id {id_}" for name, id_ in answer.get("plans", {}).items()]
    hint = ["", "Run a plan with `proctor run ID --wait`:", *(f"  {plan}" for plan in plans)] if plans else []
    return [*created, *kept, *hint]


def _read_mistakes(refused: Refused, text: str) -> list[Mistake]:
    """The mistakes that only the server could see, with their lines; raises the refusal again when it is another."""
    found = refused.problem.get("mistakes")
    if not isinstance(found, list):
        raise refused
    places = [(str(one.get("path", "")), str(one.get("message", ""))) for one in found if isinstance(one, dict)]
    return [Mistake(locate(text, path), None, path, message) for path, message in places]


def _show_mistakes(file: ManifestFile, mistakes: list[Mistake]) -> UsageError:
    for mistake in mistakes:
        where = f"{mistake.path}: " if mistake.path else ""
        click.echo(f"{file.name}:{mistake.line or 1}: {where}{mistake.message}", err=True)
    count = "a mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
    return UsageError(f"{file.name} has {count}; nothing was changed. Correct it and apply it again.")
