"""Says in the header which golden files are not checked, and why."""

from tests.parity.systems import NOT_YET


def pytest_report_header(config):
    root = config.getoption("--golden-dir")
    waiting = [name for name in NOT_YET if (root / name).exists()]
    lines = [f"golden files: {root}"]
    if waiting:
        lines.append(f"golden files not checked yet: {', '.join(waiting)}")
    return lines
