"""The stream knows nothing of images: any rows, shuffled, shared among processes, resumed."""

import dataclasses
import json

import numpy as np
import pytest

from jaxcore.data.stream import stream
from jaxcore.errors import UserError


@dataclasses.dataclass(frozen=True)
class Block:
    """Rows of text of one length."""

    batch_size: int
    length: int
    steps: int | None = None


TEXT = np.frombuffer(b"the quick brown fox jumps over the lazy dog", np.uint8)
BLOCKS = (Block(4, 8, steps=3), Block(2, 16))


def cut(block, draws):
    rows = [TEXT[d.entry :][: block.length] for d in draws]
    pads = [np.pad(row, (0, block.length - len(row))) for row in rows]
    entries = [d.entry for d in draws]
    return {
        "text": np.stack(pads),
        "entry": np.array(entries),
        "u": [d.rng.random() for d in draws],
    }


def batches(**options):
    plain = {"entries": {"a": 20, "b": 11}, "seed": 5, "num_threads": 2}
    return stream(cut, BLOCKS, **{**plain, **options})


def take(iterator, count=12):
    return [{k: np.asarray(v).tolist() for k, v in next(iterator).items()} for _ in range(count)]


def test_an_epoch_holds_every_entry_once():
    entries = [e for batch in take(batches(), 18) for e in batch["entry"]]
    assert sorted(entries[:31]) == list(range(31)) and entries[:31] != sorted(entries[:31])


def test_rows_do_not_depend_on_threads_processes_or_where_one_starts():
    whole = take(batches())
    assert take(batches(num_threads=0)) == whole
    assert take(batches(start_step=5), 7) == whole[5:]
    halves = [take(batches(process_index=i, process_count=2)) for i in range(2)]
    assert [{k: a[k] + b[k] for k in a} for a, b in zip(*halves, strict=True)] == whole


def test_it_goes_on_from_its_state_as_json():
    first = batches()
    take(first, 4)
    state = json.loads(json.dumps(first.get_state()))
    assert state == {"step": 4, "entries": {"a": 20, "b": 11}}
    again = batches()
    again.set_state(state)
    assert take(again, 5) == take(first, 5)
    with pytest.raises(UserError, match="Expected the data of the checkpoint"):
        batches(entries={"a": 20}).set_state(state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"entries": {}}, "Expected groups with data"),
        ({"entries": {"a": 3, "b": 0}}, r"found none in \['b'\]"),
        ({"process_index": 0, "process_count": 3}, "divides over 3 processes"),
        ({"seed": 2**32}, "seed of 32 bits"),
    ],
)
def test_what_cannot_be_is_refused_at_once(options, message):
    with pytest.raises(UserError, match=message):
        batches(**options)


@pytest.mark.parametrize("state", [8, [], {}, None, {"step": "3"}, {"step": -1}, {"step": 2**80}])
def test_what_is_no_position_is_refused_in_one_sentence(state):
    with pytest.raises(UserError, match="Expected the position of the data in the checkpoint"):
        batches().set_state(state)
