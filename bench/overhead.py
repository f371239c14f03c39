"""What Proctor adds to each job: a plan of commands that do nothing, beside a bare loop and Buildbot.

`python -m bench.overhead [--runs 3] [--jobs 200] [--more-jobs 2000] [--without-peer] [--json]`

Does not show: real tests, whose seconds hide these milliseconds; and what browsers cost.
"""

import argparse
import tempfile
from pathlib import Path

from bench import measure
from bench.instance import Instance
from bench.peers import JOB, JOB_SCRIPT, PARALLEL
from bench.peers.buildbot import measure_builds
from bench.peers.loop import run_commands

TARGET_MS = 30.0


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--more-jobs", type=int, default=2000, help="0 leaves it out")
    parser.add_argument("--without-peer", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    report = measure.Report("overhead")
    walls, added = await measure_added(args.jobs, args.runs)
    report.add("per_job_ms", f"added to each of {args.jobs} jobs", "ms", added, limit=TARGET_MS)
    report.add("proctor_wall_s", f"Proctor, {args.jobs} jobs", "s", walls)
    if args.more_jobs:
        _, added = await measure_added(args.more_jobs, args.runs)
        report.add("per_job_ms_2000", f"added to each of {args.more_jobs} jobs", "ms", added, limit=TARGET_MS)
        report.compare("growth", "many jobs / few jobs", of="per_job_ms_2000", to="per_job_ms")
    if not args.without_peer:
        builds = await measure_builds(args.jobs, args.runs)
        report.add("buildbot_wall_s", f"Buildbot, {args.jobs} builds", "s", builds)
        report.compare("ratio", "Proctor / Buildbot", of="proctor_wall_s", to="buildbot_wall_s")
    report.print(as_json=args.json)


async def measure_added(jobs: int, runs: int) -> tuple[list[float], list[float]]:
    """Proctor's wall seconds, and the milliseconds that it adds to each job; loop and Proctor take turns."""
    walls: list[float] = []
    added: list[float] = []
    async with Instance() as proctor:
        await proctor.apply(
            {
                "name": "nothing",
                "command": JOB_SCRIPT,
                "scenarios": [{"name": f"job {number} of {jobs}"} for number in range(jobs)],
                "plans": [
                    {"name": "warm-up", "scenarios": [f"job 0 of {jobs}"]},
                    {"name": "all", "parallel": PARALLEL},
                ],
            }
        )
        await proctor.run("warm-up")
        for _ in range(runs):
            with tempfile.TemporaryDirectory(prefix="proctor-bench-") as folder:
                loop = await run_commands(jobs, JOB, folder=Path(folder))
            _, wall = await proctor.run("all")
            walls.append(wall)
            added.append((wall - loop) / jobs * 1000)
    return walls, added


if __name__ == "__main__":
    measure.run(main())
