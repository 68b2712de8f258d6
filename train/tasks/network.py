"""What trainings of a registered network have in common, whatever their data are."""

import abc
import dataclasses
from typing import Any, ClassVar, Self

from jaxcore import registry
from jaxcore.data.images.pipeline import Stage
from jaxcore.errors import UserError
from jaxcore.models.base import Network
from jaxcore.serial import Serial
from jaxcore.train.task import GradientTask
from jaxcore.typing import Key, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkTask(Serial, GradientTask):
    """Train a network of `jaxcore.registry` in stages: what a recipe is made of.

    A subclass has a ``name``, ``data``, and what `GradientTask` asks for.
    """

    name: ClassVar[str]
    start_option: ClassVar[str] = "--init"  # where weights to start from are named
    model: str = dataclasses.field(default="adair", metadata={"option": False})  # registered
    network: Any
    stages: tuple[Stage, ...] = (Stage(steps=None, patch=128, batch_size=32),)

    def __post_init__(self) -> None:
        super().__post_init__()
        wanted = self.entry.config_class
        if not isinstance(self.network, wanted):
            raise UserError(
                f"Expected {wanted.__name__} for the model {self.model!r}, found "
                f"{type(self.network).__name__}."
            )
        if not self.stages:
            raise UserError("Expected at least one stage of patch and batch size, found none.")

    @property
    def entry(self) -> Network[Any]:
        """What the registry knows of the network."""
        return registry.network(self.model)

    @property
    def multiple(self) -> int:
        """Height and width of what the network sees are multiples of this."""
        return self.entry.multiple(self.network)

    def check(self) -> None:
        """Look for the data, and whatever else the run will need, before anything is written.

        Raises:
          UserError: something is missing or damaged, or patches do not fit the network.
        """
        uneven = [stage.patch for stage in self.stages if stage.patch % self.multiple]
        if uneven:
            raise UserError(
                f"Expected patches whose side is a multiple of {self.multiple}, found {uneven[0]}."
            )

    def settled(self) -> Self:
        """The same task with what its files say of the network; most tasks need none for it."""
        return self

    def init_params(self, key: Key) -> Params:
        """Fresh parameters of the network."""
        return self.entry.init(key, self.network)

    def trainable(self, params: Params) -> Any:
        """The network's own mask of weights that learn, if it has one."""
        return self.entry.trainable(params, self.network)

    @abc.abstractmethod
    def counts(self) -> list[tuple[str, int, int, int]]:
        """Name, unique items, repetitions and entries per epoch of every part of the data."""

    def notes(self) -> tuple[str, ...]:
        """How the data were found, where a user should see it."""
        return ()

    def steps_per_epoch(self) -> int:
        """Whole batches in one pass over all entries, at the batch size of the first stage."""
        entries = sum(row[-1] for row in self.counts())
        steps = entries // self.stages[0].batch_size
        if not steps:
            raise UserError(
                f"Expected at least one batch of {self.stages[0].batch_size} {self.items_name} per "
                f"epoch, found {entries} {self.items_name}."
            )
        return steps
