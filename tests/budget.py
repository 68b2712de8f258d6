"""How much processor time the default tests may take: 10 s for a test, 180 s for a system.

Processor time, of child processes too, because a busy machine adds to the clock only. A limit
counts as broken from twice as much, for threads that share a core slow each other down, times what
a fixed loop takes longer than on the machine of the budget. Fixtures count for the system alone,
for what they compile serves several tests.
"""

import resource
import time
from collections import Counter
from pathlib import Path

import pytest

HEADROOM = 2.0
WITHOUT_LIMIT = ("slow", "statistical", "torch", "network", "golden")
LOOP_SECONDS = 0.018  # on the machine of the budget
SYSTEMS = sorted(
    folder.name
    for room in ("models", "estimators")
    for folder in (Path(__file__).parent / room).iterdir()
    if folder.is_dir() and not folder.name.startswith("_")
)
_LAST = pytest.StashKey[float]()


def processor_seconds() -> float:
    """Of this process, all its threads, and its children that have ended."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(r.ru_utime + r.ru_stime for r in used)


def slowness() -> float:
    """How many times longer than on the machine of the budget a loop takes; at least 1."""
    times = []
    for _ in range(5):
        start = time.thread_time()
        for _ in range(1_000_000):
            pass
        times.append(time.thread_time() - start)
    return max(1.0, sorted(times)[2] / LOOP_SECONDS)


def system_of(nodeid: str) -> str:
    """The system named in it, else its folder: ``adair``, ``rddm``, ``tests/cli``."""
    folder = "/".join(nodeid.split("::")[0].split("/")[:2])
    return next((name for name in SYSTEMS if name in nodeid), folder)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("test_seconds", "processor time that a test without a mark may use", default="10")
    parser.addini("system_seconds", "processor time that a system may use", default="180")


def pytest_configure(config: pytest.Config) -> None:
    # Workers report to the process that started them. A golden set that is named is compiled with
    # all optimisations, as users' programs are, which is no part of the default tests' budget.
    committed = Path(__file__).parent / "golden"
    default_set = config.getoption("--golden-dir", committed) == committed
    if default_set and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Judge(config), "judge of the budget")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item):
    item.stash[_LAST] = processor_seconds()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    report: pytest.TestReport = yield
    before, item.stash[_LAST] = item.stash[_LAST], processor_seconds()
    if not any(map(item.get_closest_marker, WITHOUT_LIMIT)):
        report.user_properties.append(("processor_seconds", item.stash[_LAST] - before))
    return report


class Judge:
    """Adds up what tests and systems have used, and fails the run where it is too much."""

    def __init__(self, config: pytest.Config) -> None:
        self.limits = [float(config.getini(f"{kind}_seconds")) for kind in ("test", "system")]
        self.used: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        self.slowness = slowness()
        self.over: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        spent = dict(report.user_properties).get("processor_seconds", 0.0)
        tests, systems = self.used
        systems[system_of(report.nodeid)] += spent
        if report.when == "call":
            tests[report.nodeid] += spent

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        factor = HEADROOM * max(self.slowness, slowness())
        for kind, used, limit in zip(("test", "system"), self.used, self.limits, strict=True):
            self.over += [
                f"{name} used {spent:.1f} s of processor time, a {kind} may use {limit:g} s"
                for name, spent in used.most_common()
                if spent > factor * limit
            ]
        if self.over and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        tests, systems = self.used
        terminalreporter.section(f"{systems.total():.0f} s of processor time")
        parts = (f"{name} {spent:.0f}" for name, spent in systems.most_common())
        terminalreporter.line(", ".join(parts))
        for name, spent in tests.most_common():
            if spent > self.limits[0] / 2:
                terminalreporter.line(f"{spent:6.1f} {name}")
        for sentence in self.over:
            terminalreporter.line(f"OVER THE BUDGET: {sentence}", red=True)
