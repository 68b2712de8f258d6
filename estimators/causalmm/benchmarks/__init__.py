"""POPE, MME and VLind-Bench: files as they are published, answers scored as their scripts do."""

from jaxcore.estimators.causalmm.benchmarks import mme, pope, vlind
from jaxcore.estimators.causalmm.benchmarks.questions import Benchmark, Question
from jaxcore.estimators.causalmm.benchmarks.running import Answer, Report, report

BENCHMARKS = {
    "pope": Benchmark(pope.load, pope.score),
    "mme": Benchmark(mme.load, mme.score),
    "vlind": Benchmark(vlind.load, vlind.score),
}
"""By name."""

__all__ = [
    "BENCHMARKS",
    "Answer",
    "Benchmark",
    "Question",
    "Report",
    "mme",
    "pope",
    "report",
    "vlind",
]
