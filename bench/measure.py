"""What every benchmark shares: medians and quartiles, the machine they came from, and how they are printed."""

import asyncio
import json
import os
import platform
import signal
import statistics
import sys
from collections.abc import Coroutine, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil


class NotMeasured(Exception):
    """Something that was to be timed did not do its work, so there is no figure. The message says what to do."""


@dataclass(frozen=True)
class Spread:
    """The middle half of some samples: half of them lie between the quartiles."""

    median: float
    first_quartile: float
    third_quartile: float
    samples: int


def spread(samples: Sequence[float]) -> Spread:
    """Quartiles are interpolated between the samples (no value outside what was seen).

    Raises ValueError when there are no samples.
    """
    if not samples:
        raise ValueError("Nothing was measured, so there is no median. Ask for at least one run.")
    if len(samples) == 1:
        return Spread(samples[0], samples[0], samples[0], 1)
    first, middle, third = statistics.quantiles(samples, n=4, method="inclusive")
    return Spread(middle, first, third, len(samples))


@dataclass(frozen=True)
class Machine:
    """Where figures came from; figures of two machines are not comparable."""

    cpu: str
    cores: int
    memory_mb: int
    kernel: str
    python: str

    def __str__(self) -> str:
        memory = f"{self.memory_mb / 1024:.0f} GiB"
        return f"{self.cpu}, {self.cores} cores, {memory}, Linux {self.kernel}, Python {self.python}"


def describe_machine() -> Machine:
    """Cores are those that this process may use, which a container can hold below those that exist."""
    return Machine(
        cpu=_cpu_model(Path("/proc/cpuinfo").read_text()) or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory_mb=psutil.virtual_memory().total // 2**20,
        kernel=platform.release(),
        python=platform.python_version(),
    )


def _cpu_model(cpuinfo: str) -> str | None:
    """Only x86 names its model here; ARM's cpuinfo has numbers, and the caller falls back on the architecture."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return None


@dataclass(frozen=True)
class Figure:
    """One measured quantity; `key` names its median in the JSON, `limit` is the target beside it, in `unit`."""

    key: str
    label: str
    unit: str
    samples: tuple[float, ...]
    limit: float | None = None

    @property
    def spread(self) -> Spread:
        return spread(self.samples)


@dataclass(frozen=True)
class Ratio:
    """The median of `of` divided by the median of `to`: how many times as much `of` takes."""

    key: str
    label: str
    of: str
    to: str


@dataclass
class Report:
    """Figures and ratios of one benchmark, in the order added. Keys are unique."""

    benchmark: str
    machine: Machine = field(default_factory=describe_machine)
    figures: dict[str, Figure] = field(default_factory=dict)
    ratios: dict[str, Ratio] = field(default_factory=dict)

    def add(self, key: str, label: str, unit: str, samples: Sequence[float], *, limit: float | None = None) -> Figure:
        """Adds a figure of at least one sample; raises ValueError for none, or for a key that is taken."""
        figure = Figure(self._fresh(key), label, unit, tuple(samples), limit)
        spread(figure.samples)
        self.figures[key] = figure
        return figure

    def compare(self, key: str, label: str, *, of: str, to: str) -> Ratio:
        """Adds the ratio of two figures that were added before; raises KeyError for one that was not."""
        ratio = Ratio(self._fresh(key), label, self.figures[of].key, self.figures[to].key)
        self.ratios[key] = ratio
        return ratio

    def value(self, key: str) -> float | None:
        """A figure's median, or a ratio, which is None where the divisor's median is zero or less.

        An overhead can come out below zero, and a ratio to it would mean nothing.
        """
        if key in self.figures:
            return self.figures[key].spread.median
        ratio = self.ratios[key]
        divisor = self.figures[ratio.to].spread.median
        return self.figures[ratio.of].spread.median / divisor if divisor > 0 else None

    def as_json(self) -> dict[str, object]:
        """Medians and ratios under their own keys; what they were made of under `figures`; and the machine."""
        return {
            "benchmark": self.benchmark,
            **{key: _rounded(self.value(key)) for key in (*self.figures, *self.ratios)},
            "figures": {key: _figure_json(figure) for key, figure in self.figures.items()},
            "machine": asdict(self.machine),
        }

    def as_table(self) -> str:
        """Markdown, aligned, so that what a terminal shows can be pasted into bench/README.md."""
        rows = [("figure", "median", "quartiles", "runs", "target")]
        rows += [_figure_row(figure) for figure in self.figures.values()]
        rows += [(ratio.label, _times(self.value(key)), "", "", "") for key, ratio in self.ratios.items()]
        return "\n".join([f"{self.benchmark}: {self.machine}", "", *_aligned(rows)])

    def print(self, *, as_json: bool = False) -> None:
        """The table, and with `as_json` the JSON object as the last line of standard output."""
        print(self.as_table())
        if as_json:
            print(json.dumps(self.as_json(), allow_nan=False), flush=True)

    def _fresh(self, key: str) -> str:
        reserved = {"benchmark", "figures", "machine", *self.figures, *self.ratios}
        if key in reserved:
            raise ValueError(f"The report of {self.benchmark} has a {key!r} already. Give the new figure its own key.")
        return key


def _figure_json(figure: Figure) -> dict[str, object]:
    quartiles = figure.spread
    return {
        "label": figure.label,
        "unit": figure.unit,
        "median": _rounded(quartiles.median),
        "first_quartile": _rounded(quartiles.first_quartile),
        "third_quartile": _rounded(quartiles.third_quartile),
        "samples": [_rounded(sample) for sample in figure.samples],
        "limit": figure.limit,
    }


def _figure_row(figure: Figure) -> tuple[str, str, str, str, str]:
    quartiles = figure.spread
    between = f"{_digits(quartiles.first_quartile)} to {_digits(quartiles.third_quartile)}"
    target = "" if figure.limit is None else f"≤ {_digits(figure.limit)} {figure.unit}"
    return figure.label, f"{_digits(quartiles.median)} {figure.unit}", between, str(quartiles.samples), target


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    ruled = [rows[0], tuple("-" * width for width in widths), *rows[1:]]
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in ruled
    ]


def _digits(value: float) -> str:
    """Three significant digits, never an exponent: more would pretend to a precision that runs do not have."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _times(value: float | None) -> str:
    return "none" if value is None else f"{_digits(value)} x"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def run(benchmark: Coroutine[object, object, None]) -> None:
    """Runs a benchmark so that Ctrl-C and SIGTERM both leave through its `async with` blocks, children ended.

    Python ends at once on SIGTERM unless told otherwise, and would leave a peer's processes running.
    """

    async def cancellable() -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await benchmark

    try:
        asyncio.run(cancellable())
    except NotMeasured as reason:
        print(reason, file=sys.stderr)
        raise SystemExit(1) from None
    except asyncio.CancelledError:
        raise SystemExit(128 + signal.SIGTERM) from None
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
