"""Says in the header which golden files are not checked, and why."""

from tests.parity.systems import NOT_YET


def pytest_report_header(config):
    root = config.getoption("--golden-dir")
    waiting = [name for name in NOT_YET if (root / name).is_dir()]
    lines = [f"golden files: {root}"]
    if waiting:
        lines.append(f"golden files of systems not implemented yet: {', '.join(waiting)}")
    return lines
