"""The bound: an asyncio loop that starts the same commands and does nothing else.

By hand: `python -m bench.peers.loop --jobs 200`.
"""

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import measure
from bench.peers import JOB, PARALLEL


class CommandFailed(measure.NotMeasured):
    """A command of the loop did not do its work, so the time it took says nothing."""


async def run_commands(n: int, argv: Sequence[str], *, folder: Path, parallel: int = PARALLEL) -> float:
    """Wall seconds for `n` runs of `argv`, `parallel` at a time, the i-th with `folder/i` as its PROCTOR_REPORT_DIR.

    Raises CommandFailed for an exit code that is not 0, or a report that is not there.
    """
    numbers = iter(range(n))
    started = time.perf_counter()
    try:
        async with asyncio.TaskGroup() as lanes:
            for _ in range(parallel):
                lanes.create_task(_run_lane(numbers, argv, folder))
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    took = time.perf_counter() - started
    missing = [i for i in range(n) if not (folder / str(i) / "junit.xml").is_file()]
    if missing:
        raise CommandFailed(f"{len(missing)} of {n} commands left no junit.xml in {folder}. Check the command.")
    return took


async def _run_lane(numbers: Iterator[int], argv: Sequence[str], folder: Path) -> None:
    for i in numbers:
        process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=folder,
            env={"PATH": os.defpath, "PROCTOR_REPORT_DIR": str(folder / str(i))},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if code:
            raise CommandFailed(f"Command {i} exited with {code}. Run it by hand: {' '.join(argv)}")


async def measure_loop(n: int, runs: int) -> list[float]:
    """Wall seconds of each of `runs` runs of `n` jobs, each in a fresh folder."""
    took = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory(prefix="proctor-bench-") as folder:
            took.append(await run_commands(n, JOB, folder=Path(folder)))
    return took


async def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    walls = await measure_loop(args.jobs, args.runs)
    report = measure.Report("loop")
    report.add("wall_s", f"bare loop, {args.jobs} jobs", "s", walls)
    report.add("per_job_ms", "bare loop, each job", "ms", [wall / args.jobs * 1000 for wall in walls])
    report.print(as_json=args.json)


if __name__ == "__main__":
    measure.run(_main())
