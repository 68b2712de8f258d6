"""A PyTorch network as a rival: as shipped and in the channels_last layout, same weights."""

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from benchmarks import harness

LAYOUTS = ("pytorch", "pytorch_channels_last")
TOLERANCE = 1e-3


class TorchRival:
    """One network in both memory layouts.

    Args:
      make: builds the ``torch.nn.Module``; called after PyTorch's number of threads is set.
      network: what it is, for the record.

    Raises:
      ImportError: PyTorch, or what ``make`` needs, is not installed.
    """

    def __init__(self, make: Callable[[], Any], network: str):
        import torch

        torch.set_num_threads(harness.cores())
        torch.manual_seed(0)
        self._torch = torch
        net = make().eval()
        last = copy.deepcopy(net).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # stubs lack it
        self.nets: dict[str, Any] = {LAYOUTS[0]: net, LAYOUTS[1]: last}
        self.facts = {"network": network, "threads": torch.get_num_threads()}

    def weights(self) -> dict[str, np.ndarray]:
        """Official key -> array."""
        return {key: value.numpy() for key, value in self.nets[LAYOUTS[0]].state_dict().items()}

    def load(self, weights: dict[str, np.ndarray]) -> None:
        """Take weights over into both layouts; strict."""
        tensors = {key: self._torch.from_numpy(value) for key, value in weights.items()}
        for net in self.nets.values():
            net.load_state_dict(tensors)

    def tensor(self, x: np.ndarray, layout: str) -> Any:
        """NCHW in memory, or channels last."""
        tensor = self._torch.from_numpy(x).permute(0, 3, 1, 2)
        return tensor.contiguous() if layout == LAYOUTS[0] else tensor

    def forward(self, layout: str, x: np.ndarray, *more: np.ndarray) -> Callable[[], np.ndarray]:
        """A call that restores ``x``; the network may want ``more`` beside it, such as a time."""
        tensor, others = self.tensor(x, layout), [self._torch.from_numpy(a) for a in more]

        def call() -> np.ndarray:
            with self._torch.inference_mode():
                return self.nets[layout](tensor, *others).permute(0, 2, 3, 1).numpy()

        return call

    def forwards(self, x: np.ndarray, *more: np.ndarray) -> dict[str, Callable[[], np.ndarray]]:
        """`forward` in both layouts."""
        return {layout: self.forward(layout, x, *more) for layout in LAYOUTS}

    def step(self, layout: str, x: np.ndarray, y: np.ndarray) -> Callable[[], float]:
        """A call that computes the L1 loss and all gradients."""
        degraded, clean = self.tensor(x, layout), self.tensor(y, layout)

        def call() -> float:
            net = self.nets[layout]
            net.zero_grad(set_to_none=True)
            value = (net(degraded) - clean).abs().mean()
            value.backward()
            return value.item()

        return call

    def steps(self, x: np.ndarray, y: np.ndarray) -> dict[str, Callable[[], float]]:
        """`step` in both layouts."""
        return {layout: self.step(layout, x, y) for layout in LAYOUTS}


Rival = TypeVar("Rival", bound=TorchRival)


def or_reason(make: Callable[[], Rival]) -> Rival | str:
    """The rival, or why there is none."""
    try:
        return make()
    except ImportError as error:
        return f"not installed: {error.name}"


def facts(rival: TorchRival | str) -> dict[str, Any]:
    """What is recorded of a rival, or of its absence."""
    return {"rival": {"absent": rival} if isinstance(rival, str) else rival.facts}


def largest_difference(theirs: Mapping[str, Callable[[], np.ndarray]], ours: Any) -> float:
    """Between the images of both libraries; more than `TOLERANCE` stops the benchmark."""
    ours = np.asarray(ours)
    worst = max(float(np.abs(call() - ours).max()) for call in theirs.values())
    if not worst <= TOLERANCE:
        raise SystemExit(f"The results differ by {worst:.2e}, more than {TOLERANCE}.")
    harness.say(f"the results agree to {worst:.1e}")
    return worst
