"""The processes of a job have one run directory: its lock, its last save, a damaged step."""

import pytest

from jaxcore.train.steps import complete_steps
from tests.parallel.jobs import Job, outcomes


@pytest.mark.slow
def test_a_second_job_is_refused_by_all_its_processes(tmp_path):
    with Job(2, tmp_path / "run", PACE="0.3", STEPS="60") as first:
        first.await_line("STEP 2")
        with Job(2, tmp_path / "run", STEPS="60") as second:
            refused = second.results(timeout=120)
        results = first.results(timeout=120)
    for code, _, err in refused:
        assert code != 0 and "Expected a run directory that no other run uses" in err, err
    assert [code for code, *_ in results] == [0, 0], results
    assert all("DONE 60" in out for _, out, _ in results)


@pytest.mark.slow
def test_what_all_processes_fail_of_is_saved_first_and_a_damaged_step_is_passed_by_all(tmp_path):
    straight = outcomes(2, tmp_path / "straight")
    with Job(2, tmp_path / "run", ALL_FAIL_AT="7") as job:
        results = job.results(timeout=120)
    assert all(code != 0 and "the data are gone" in err for code, _, err in results), results
    folder = tmp_path / "run" / "checkpoints"
    assert complete_steps(folder) == [3, 6, 7]
    (folder / "7" / "loop" / "metadata").write_text("{}")
    assert outcomes(2, tmp_path / "run") == straight
    assert (folder / "7.damaged").is_dir()
