"""Logs of texts and what came of them: outcomes, recorded confounders, instruments, groups."""

from jaxcore.data.logs.pairs import Pairs, from_outcomes
from jaxcore.data.logs.records import Logs, read_logs, write_rewards
from jaxcore.data.logs.words import bag_of_words

__all__ = ["Logs", "Pairs", "bag_of_words", "from_outcomes", "read_logs", "write_rewards"]
