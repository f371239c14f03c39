"""The API's own description, and a fuzzer that believes it."""

import asyncio
import sys
from pathlib import Path

import world
from calls import Api, SignIn
from proctor.services.context import Context
from proctor.testing.worker import FAILED, FakeWorker

# No answer may be a 500, or of a kind that the description does not name.
CHECKS = "not_a_server_error,content_type_conformance,status_code_conformance,response_schema_conformance"


async def test_the_description_names_every_answers_media_type(nobody: Api) -> None:
    """§2: errors are application/problem+json, in the description too."""
    paths = (await nobody.get("/openapi.json")).body["paths"]

    operations = [(path, operation) for path, methods in paths.items() for operation in methods.values()]
    assert len(operations) > 50
    for path, operation in operations:
        if path in {"/healthz", "/readyz"} or not path.startswith(("/api/", "/Testinium.RestApi/")):
            continue
        assert set(operation["responses"]["4XX"]["content"]) == {"application/problem+json"}, path
        assert "422" not in operation["responses"], path


async def test_a_fuzzer_finds_no_server_error_and_no_undescribed_answer(
    context: Context, sign_in: SignIn, tmp_path: Path
) -> None:
    """§2: no input gives a 500. Bounded: ten examples for each operation, always the same."""
    await world.put(context, world.service(number=1))
    worker = await FakeWorker.sign_on(context)
    ci = await sign_in("ci")
    await worker.play(await ci.start(1), lambda _: FAILED)
    # Nothing runs afterwards: a summary would wait for it.
    await world.sql(context, "UPDATE scenarios SET enabled = false")

    origin = str(ci.session._base_url).rstrip("/")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{origin}/openapi.json"),
        *("--header", f"Authorization: {ci.headers['Authorization']}"),
        *("--checks", CHECKS, "--max-examples", "10", "--seed", "1", "--workers", "2"),
        *("--phases", "coverage,fuzzing", "--no-shrink", "--continue-on-failure", "--warnings", "off"),
        *("--include-path-regex", "^/(Testinium.RestApi|api/v1|healthz)", "--request-timeout", "10"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=tmp_path,
    )
    async with asyncio.timeout(120):
        output, _ = await process.communicate()

    assert process.returncode == 0, output.decode()[-10_000:]
