"""How long from the run request to the first test's process: warm workspace, beside Buildbot's force request.

`python -m bench.trigger [--triggers 20] [--without-peer] [--json]`

Does not show: a cold workspace (git fetch, set-up), and a repository across a network, whose round trip comes on top.
"""

import argparse
import re
import time

from bench import measure
from bench.instance import Instance, ProctorFailed
from bench.peers import JOB_SCRIPT
from bench.peers.buildbot import Buildbot, measure_triggers

TARGET_MS = 150.0
# Its own process tells when it runs, in nanoseconds since 1970, on its log.
COMMAND = f"echo started $(date +%s%N); {JOB_SCRIPT}"


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--triggers", type=int, default=20)
    parser.add_argument("--without-peer", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    report = measure.Report("trigger")
    async with Instance() as proctor:
        await proctor.apply(
            {"name": "stamp", "command": COMMAND, "scenarios": [{"name": "only"}], "plans": [{"name": "stamp"}]}
        )
        await measure_trigger(proctor)
        samples = [await measure_trigger(proctor) * 1000 for _ in range(args.triggers)]
    report.add("median_ms", "Proctor, run request to process", "ms", samples, limit=TARGET_MS)
    if not args.without_peer:
        async with Buildbot() as buildbot:
            peer = [seconds * 1000 for seconds in await measure_triggers(buildbot, args.triggers)]
        report.add("buildbot_ms", "Buildbot, force request to step", "ms", peer)
        report.compare("ratio", "Proctor / Buildbot", of="median_ms", to="buildbot_ms")
    report.print(as_json=args.json)


async def measure_trigger(proctor: Instance) -> float:
    """Seconds from sending the run request to the test's process running."""
    sent = time.time_ns()
    execution_id, _ = await proctor.run("stamp")
    said = re.search(r"started (\d+)", await proctor.read_log(execution_id))
    if said is None:
        raise ProctorFailed(f"Execution {execution_id} left no time stamp in its log.")
    return (int(said.group(1)) - sent) / 1e9


if __name__ == "__main__":
    measure.run(main())
