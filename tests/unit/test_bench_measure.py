"""The benchmarks' arithmetic and what they print. What they time is not tested here: it is measured."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from bench import measure
from bench.peers import JOB
from bench.peers.loop import CommandFailed, run_commands

ROOT = Path(__file__).parents[2]
MACHINE = measure.Machine("Model 1", 2, 4096, "6.1", "3.11.7")


def report() -> measure.Report:
    made = measure.Report("trigger", machine=MACHINE)
    made.add("median_ms", "Proctor", "ms", [40.0, 60.0, 50.0], limit=150)
    made.add("buildbot_ms", "Buildbot", "ms", [100.0, 75.0])
    made.compare("ratio", "Buildbot to Proctor", of="buildbot_ms", to="median_ms")
    return made


def test_the_median_and_the_quartiles_do_not_depend_on_the_order():
    assert measure.spread([5, 1, 4, 2, 3]) == measure.Spread(3, 2, 4, 5)


def test_quartiles_lie_within_what_was_seen_when_there_are_few_samples():
    assert measure.spread([1, 2]) == measure.Spread(1.5, 1.25, 1.75, 2)


def test_one_sample_is_its_own_quartiles():
    assert measure.spread([7]) == measure.Spread(7, 7, 7, 1)


def test_no_samples_have_no_median():
    with pytest.raises(ValueError, match="at least one run"):
        measure.spread([])


def test_a_figure_without_samples_is_refused_when_it_is_added():
    with pytest.raises(ValueError, match="at least one run"):
        measure.Report("trigger", machine=MACHINE).add("median_ms", "Proctor", "ms", [])


def test_the_last_line_is_one_json_object_with_the_medians_and_the_ratio(capsys):
    report().print(as_json=True)
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["benchmark"], last["median_ms"], last["buildbot_ms"], last["ratio"]) == ("trigger", 50, 87.5, 1.75)
    assert last["figures"]["median_ms"]["samples"] == [40, 60, 50]
    assert last["figures"]["median_ms"]["limit"] == 150
    assert last["machine"]["cpu"] == "Model 1"


def test_without_json_only_the_table_is_printed(capsys):
    report().print()
    assert "{" not in capsys.readouterr().out


def test_the_table_shows_medians_quartiles_targets_and_ratios_in_aligned_columns():
    title, _, *rows = report().as_table().splitlines()
    assert title == "trigger: Model 1, 2 cores, 4 GiB, Linux 6.1, Python 3.11.7"
    assert len({len(row) for row in rows}) == 1
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert cells[2] == ["Proctor", "50.0 ms", "45.0 to 55.0", "3", "≤ 150 ms"]
    assert cells[4] == ["Buildbot to Proctor", "1.75 x", "", "", ""]


def test_a_ratio_to_an_overhead_below_zero_is_none():
    made = report()
    made.add("per_job_ms", "overhead", "ms", [-0.5])
    made.compare("odd", "Buildbot to overhead", of="buildbot_ms", to="per_job_ms")
    assert made.as_json()["odd"] is None
    assert "none" in made.as_table().splitlines()[-1]


@pytest.mark.parametrize("key", ["median_ms", "ratio", "machine", "benchmark", "figures"])
def test_a_key_is_used_once(key):
    with pytest.raises(ValueError, match="its own key"):
        report().add(key, "again", "ms", [1.0])


def test_a_ratio_is_of_figures_that_exist():
    with pytest.raises(KeyError):
        report().compare("more", "x", of="nothing", to="median_ms")


def test_the_machine_is_described_with_what_this_process_may_use():
    machine = measure.describe_machine()
    assert machine.cpu
    assert machine.cores == len(os.sched_getaffinity(0))
    assert machine.memory_mb > 0
    assert machine.python == ".".join(map(str, sys.version_info[:3]))


async def test_the_loop_runs_every_command_and_leaves_a_report_of_each(tmp_path):
    assert await run_commands(5, JOB, folder=tmp_path, parallel=2) > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2", "3", "4"]
    assert all("<testcase" in (folder / "junit.xml").read_text() for folder in tmp_path.iterdir())


async def test_the_loop_runs_as_many_at_a_time_as_it_is_told(tmp_path):
    # Each command waits until four are running, and fails when they never are.
    command = (
        'mkdir "$PROCTOR_REPORT_DIR"; i=0; while [ "$(ls | wc -l)" -lt 4 ]; do i=$((i+1)); [ $i -lt 500 ] || exit 1;'
    )
    command += ' sleep 0.01; done; touch "$PROCTOR_REPORT_DIR/junit.xml"'
    await run_commands(4, ("sh", "-c", command), folder=tmp_path, parallel=4)


async def test_a_command_that_fails_gives_no_figure(tmp_path):
    with pytest.raises(CommandFailed, match="exited with 3"):
        await run_commands(3, ("sh", "-c", "exit 3"), folder=tmp_path)


async def test_a_command_that_writes_no_report_gives_no_figure(tmp_path):
    with pytest.raises(CommandFailed, match="3 of 3 commands left no"):
        await run_commands(3, ("true",), folder=tmp_path)


async def test_one_failure_ends_the_commands_beside_it(tmp_path):
    command = '[ "${PROCTOR_REPORT_DIR##*/}" = 1 ] && exit 3; echo $$ > "$PROCTOR_REPORT_DIR.pid"; exec sleep 60'
    # The failing one waits for the other's process, so that there is something to end.
    command = f'while [ "${{PROCTOR_REPORT_DIR##*/}}" = 1 ] && [ ! -s 0.pid ]; do sleep 0.01; done; {command}'
    with pytest.raises(CommandFailed):
        await run_commands(2, ("sh", "-c", command), folder=tmp_path, parallel=2)
    pid = int((tmp_path / "0.pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_benchmark_told_to_end_leaves_through_its_exits(tmp_path):
    program = (
        "import asyncio, pathlib, contextlib\n"
        "from bench import measure\n"
        "async def main():\n"
        "    async with contextlib.AsyncExitStack() as stack:\n"
        f"        stack.callback(pathlib.Path({str(tmp_path / 'left')!r}).touch)\n"
        "        print('ready', flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "measure.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.wait(timeout=30) == 128 + signal.SIGTERM
    assert (tmp_path / "left").exists()


def test_what_could_not_be_measured_is_said_and_ends_with_1(capsys):
    async def nothing() -> None:
        raise measure.NotMeasured("It did not start.")

    with pytest.raises(SystemExit) as ended:
        measure.run(nothing())
    assert ended.value.code == 1
    assert capsys.readouterr().err == "It did not start.\n"
