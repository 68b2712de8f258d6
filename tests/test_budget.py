"""The rule on the time of tests can fail; marked tests and shared fixtures are no case for it."""

import pytest

pytest_plugins = ["pytester"]

BUSY = """
import time, subprocess, sys
import pytest

def work():
    stop = time.process_time() + 0.2
    while time.process_time() < stop:
        pass
"""


@pytest.fixture
def outcome(pytester):
    def run(code, *options):
        pytester.makeini("[pytest]\nmarkers = slow")
        pytester.makepyfile(test_it=BUSY + code)
        return pytester.runpytest("-p", "tests.budget", *options)

    return run


@pytest.mark.parametrize(
    "body", ["work()", "subprocess.run([sys.executable, '-c', 'sum(range(10**7))'])"]
)
def test_a_test_that_takes_too_long_fails_the_run(outcome, body):
    code = f"def test_long():\n    {body}\ndef test_short(): pass"
    result = outcome(code, "-o", "test_seconds=0.001")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["OVER THE BUDGET: test_it.py::test_long used * a test may use 0.001 s"]
    )
    result.assert_outcomes(passed=2)
    assert outcome(code).ret == pytest.ExitCode.OK


def test_marked_tests_have_no_limit(outcome):
    code = "@pytest.mark.slow\ndef test_long(): work()"
    assert outcome(code, "-o", "test_seconds=0.01", "-o", "system_seconds=0.01").ret == 0


def test_what_several_tests_share_counts_for_their_system(outcome):
    code = "@pytest.fixture\ndef shared(): work()\ndef test_short(shared): pass"
    assert outcome(code, "-o", "test_seconds=0.01").ret == pytest.ExitCode.OK
    result = outcome(code, "-o", "system_seconds=0.01")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["OVER THE BUDGET: test_it.py used * a system may use 0.01 s"])


def test_a_golden_set_that_is_named_has_no_limit(outcome, pytester):
    pytester.makeconftest(
        "def pytest_addoption(parser): parser.addoption('--golden-dir', default='tests/golden')"
    )
    code = "def test_long(): work()"
    assert outcome(code, "-o", "test_seconds=0.01", "--golden-dir", "elsewhere").ret == 0


def test_the_workers_of_a_parallel_run_are_counted(outcome):
    result = outcome("def test_long(): work()", "-n", "1", "-o", "test_seconds=0.01")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
