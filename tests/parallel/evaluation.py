"""One process of a job that evaluates the task in a file, its parameters split over all."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

from jaxcore import parallel

if __name__ == "__main__":
    parallel.initialise()

    import jax

    import tests.tiny_network  # noqa: F401  # registers it
    from jaxcore.train.tasks.restoration import RestorationTask

    jax.config.update("jax_default_matmul_precision", "highest")
    count = 0

    class Counting(RestorationTask):
        """Counts the images that this process restores."""

        name = "counting"

        def restore(self, params, sample):
            """One more."""
            global count
            count += 1
            return super().restore(params, sample)

    task = Counting.from_dict(json.loads(Path(sys.argv[1]).read_text()))
    params = task.init_params(jax.random.key(0))
    mesh = parallel.make_mesh(fsdp=2)
    places = parallel.state_shardings(params, mesh)
    state = SimpleNamespace(eval_params=jax.jit(lambda x: x, out_shardings=places)(params))
    assert not state.eval_params["first"]["kernel"].is_fully_addressable
    metrics, pictures = task.evaluate(state), task.pictures(state)
    print(json.dumps({"metrics": metrics, "pictures": list(pictures), "restored": count}))
