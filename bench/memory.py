"""How much memory an idle Proctor takes: supervisor, server, worker and PostgreSQL.

`python -m bench.memory [--settle 20] [--json]`

Proportional set size: what is shared is counted by shares, so that the sum is what the machine really gives.
Does not show: what browsers and tests take, which is far more.
"""

import argparse
import asyncio

import psutil

from bench import measure
from bench.instance import Instance

TARGET_MB = 300.0
SAMPLES = 5


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settle", type=float, default=20.0, help="seconds of idling before the first look")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    report = measure.Report("memory")
    async with Instance() as proctor:
        await asyncio.sleep(args.settle)
        looks = []
        for _ in range(SAMPLES):
            looks.append(read_memory(proctor))
            await asyncio.sleep(1)
    report.add("pss_mb", "all of it", "MB", [sum(look.values()) for look in looks], limit=TARGET_MB)
    for part in looks[0]:
        report.add(f"{part}_mb", part, "MB", [look[part] for look in looks])
    report.compare("ratio", "all of it / PostgreSQL alone", of="pss_mb", to="postgres_mb")
    report.print(as_json=args.json)


def read_memory(proctor: Instance) -> dict[str, float]:
    """PSS in MB of each part; PostgreSQL is no child of the supervisor, and is known by its data folder."""
    postgres = (proctor.data / "postgres" / "postmaster.pid").read_text().split("\n")[0]
    parts = {"supervisor": [psutil.Process(proctor.process.pid)]}
    for child in parts["supervisor"][0].children():
        parts[child.cmdline()[-1]] = [child, *child.children(recursive=True)]
    postmaster = psutil.Process(int(postgres))
    parts["postgres"] = [postmaster, *postmaster.children(recursive=True)]
    return {part: sum(one.memory_full_info().pss for one in found) / 2**20 for part, found in parts.items()}


if __name__ == "__main__":
    measure.run(main())
