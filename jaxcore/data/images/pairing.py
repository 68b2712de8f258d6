r"""Which clean image belongs to which degraded one: rules on names, and how a rule is guessed.

Names are paths below their folder without ending. A rule is one of

- ``auto``: equal names, or the one rule of those below that pairs everything;
- ``name``: equal names;
- ``beginning``: the degraded name begins with the clean one, so many may belong to one clean image
  (``1400_1``, ``1400_2`` and ``1400``);
- ``{}_hazy => {}_GT``: ``{}`` is what two names share, ``*`` on the left is anything;
- ``re: (\d+)_.* => \1``: a regular expression for the whole degraded name, and the clean name;
- ``index``: by their place in the sorted lists, of equal length.

A rule without ``/`` looks at the last part of a name and keeps the folder, so that scenes may lie
in folders; a clean image is also looked for beside the folders.
"""

import itertools
import re
from collections.abc import Callable, Collection, Iterator, Sequence

from jaxcore.errors import UserError

AUTO, NAME, BEGINNING, INDEX = "auto", "name", "beginning", "index"
_WORDS = (AUTO, NAME, BEGINNING, INDEX)
_HOW = "'{}_hazy => {}_GT'"

Partners = dict[str, str]
"""Degraded name -> clean name."""


def check_rule(rule: str) -> None:
    r"""Refuse what is no rule.

    Raises:
      UserError: it is none of the words, and no pattern.

    >>> check_rule("{}_hazy => {}_GT"), check_rule(r"re: (\d+)_.* => \1"), check_rule("auto")
    (None, None, None)
    """
    if rule not in _WORDS:
        _pattern(rule)


def partners(rule: str, degraded: Sequence[str], clean: Collection[str]) -> Partners:
    """Pair names by a rule; names without a partner are left out.

    Args:
      rule: any but ``auto``, see the module.
      degraded: names, sorted.
      clean: names.

    Raises:
      UserError: no such rule, or lists of unequal length for ``index``.

    >>> partners("{}_* => {}", ["7_a", "7_b"], ["7"])
    {'7_a': '7', '7_b': '7'}
    """
    if rule == INDEX:
        if len(degraded) != len(clean):
            raise UserError(
                "Expected as many degraded as clean images to pair them by index, found "
                f"{len(degraded)} and {len(clean)}."
            )
        return dict(zip(degraded, sorted(clean), strict=True))
    known = set(clean)
    options = {NAME: _same, BEGINNING: _cuts}.get(rule) or _pattern(rule)
    whole = "/" in rule
    found = {}
    for name in degraded:
        folder, slash, last = ("", "", name) if whole else name.rpartition("/")
        tries = ((folder + slash + option, option) for option in options(last))
        partner = next((one for one in itertools.chain(*tries) if one in known), None)
        if partner is not None:
            found[name] = partner
    return found


def guess(degraded: Sequence[str], clean: Collection[str]) -> tuple[str, Partners]:
    """The rule that pairs all names, and the pairs.

    Where none does, the rule that pairs most; where no rule pairs anything, ``name``.

    Args:
      degraded: names, sorted.
      clean: names.

    Raises:
      UserError: rules that pair the names differently.

    >>> guess(["01_hazy", "02_hazy"], ["01_GT", "02_GT"])[0]
    '{}_hazy => {}_GT'
    >>> guess(["low1", "low2"], ["normal1", "normal2"])[0]
    'low{} => normal{}'
    >>> guess(["1400_1", "1400_2"], ["1400"])[0]
    'beginning'
    """
    same = partners(NAME, degraded, clean)
    if len(same) == len(degraded):
        return NAME, same
    tried = [(NAME, same), (BEGINNING, partners(BEGINNING, degraded, clean))]
    tried += [(rule, partners(rule, degraded, clean)) for rule in _affixes(degraded, clean)]
    whole = [
        (rule, found)
        for rule, found in tried
        if len(found) == len(degraded) and set(found.values()) == set(clean)
    ]
    if not whole:
        return max(tried, key=lambda one: len(one[1]))
    others = [rule for rule, found in whole[1:] if found != whole[0][1]]
    if others:
        raise UserError(
            f"Expected one way to pair the images, found {whole[0][0]!r} and {others[0]!r}: choose "
            "one as pair_by."
        )
    return whole[-1]


def unknown_pairs(degraded: Sequence[str], clean: Collection[str]) -> str:
    """What names look like that no rule pairs, for a message."""
    return (
        f"names such as {degraded[0]!r} and {min(clean)!r}, which no rule pairs: give one as "
        f"pair_by, such as {_HOW}"
    )


def _same(name: str) -> Iterator[str]:
    yield name


def _cuts(name: str) -> Iterator[str]:
    """Beginnings of a name, longest first, that split no number and no word."""
    for end in range(len(name) - 1, 0, -1):
        a, b = name[end - 1], name[end]
        if not (a.isdigit() and b.isdigit()) and not (a.isalpha() and b.isalpha()):
            yield name[:end].rstrip("_-. ") if not a.isalnum() else name[:end]


def _pattern(rule: str) -> Callable[[str], Iterator[str]]:
    """The clean names that a pattern allows for a degraded one."""
    sides = [side.strip() for side in rule.removeprefix("re:").split("=>")]
    regular = rule.startswith("re:")
    plain = len(sides) == 2 and all(side.count("{}") == 1 for side in sides)
    if len(sides) != 2 or not (regular or plain) or (plain and "*" in sides[1]):
        raise UserError(
            f"Expected as pair_by one of {', '.join(_WORDS)}, unpaired, a pattern such as {_HOW} "
            f"or a regular expression such as 're: (\\d+)_.* => \\1', found {rule!r}."
        )
    left, right = sides
    if not regular:
        parts = [".*".join(map(re.escape, part.split("*"))) for part in left.split("{}")]
        left, right = "(.+?)".join(parts), right.replace("\\", r"\\").replace("{}", r"\g<1>")
    try:
        expression = re.compile(left)
        re.compile(f"{left}|").sub(right, "")  # the groups of the clean name
    except re.error as error:
        raise UserError(f"Expected a regular expression in {rule!r}, found {error}.") from None

    def options(name: str) -> Iterator[str]:
        match = expression.fullmatch(name)
        if match:
            yield match.expand(right)

    return options


def _affixes(degraded: Sequence[str], clean: Collection[str]) -> list[str]:
    """Patterns that exchange what all degraded and what all clean names begin or end with."""
    sides = [[name.rpartition("/")[2] for name in names] for names in (degraded, clean)]
    if not all(sides):
        return []
    # What a side begins with, without the end of it that the other side has too: that is part of
    # what they share.
    starts = _differing(*(_shared(side)[::-1] for side in sides))
    ends = _differing(*(_shared([n[::-1] for n in side])[::-1] for side in sides))
    start, end = [part[::-1] for part in starts], list(ends)
    none = ["", ""]
    rules = {
        f"{s[0]}{{}}{e[0]} => {s[1]}{{}}{e[1]}"
        for s, e in ((start, none), (none, end), (start, end))
        if (s, e) != (none, none)
    }
    # Names may hold what means something in a pattern.
    return sorted(rule for rule in rules if "*" not in rule and rule.count("=>") == 1)


def _shared(texts: Sequence[str]) -> str:
    """What all texts begin with."""
    low, high = min(texts), max(texts)
    end = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    return low[:end]


def _differing(a: str, b: str) -> tuple[str, str]:
    """Two texts without their common beginning, of which a separator at its end is kept."""
    shared = _shared([a, b])
    if a == b:
        return "", ""
    cut = len(shared)
    while cut and not shared[cut - 1].isalnum():
        cut -= 1
    return a[cut:], b[cut:]
