"""Templates of chats: programs in Jinja that come with a stranger's model.

They are run in Jinja's sandbox, from which no attribute of Python's own can be reached and nothing
outside can be changed. Beyond it, steps and sizes are bounded here, so that a template can neither
run for ever nor fill the memory.
"""

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from jaxcore.errors import UserError, readable

_LONGEST_TEMPLATE = 2**18  # characters
_LONGEST_TEXT = 2**23  # characters of any text on the way
_STEPS = 500_000  # turns of loops, calls, parts of lists; a thousand characters count as one
_LARGEST = 2**63
_FILTERS = (
    "abs capitalize count d default dictsort first float groupby int items last length list lower "
    "map max min reject rejectattr reverse round select selectattr sort string sum title trim "
    "unique upper"
)
_METHODS = (
    "capitalize count endswith find get index isdigit items join keys lower lstrip removeprefix "
    "removesuffix replace rstrip split splitlines startswith strip title upper values"
)
_FAULTS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
)


class _Budget:
    """What is left of the steps, and the bounds of sizes."""

    def __init__(self) -> None:
        self.left = _STEPS

    def spend(self, steps: int = 1) -> None:
        self.left -= steps
        if self.left < 0:
            raise UserError("it takes too many steps")

    def each(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.spend()
            yield item

    def checked(self, value: Any) -> Any:
        """A value of bounded size, whose parts are counted as steps."""
        parts = [value]
        while parts:
            one = parts.pop()
            if isinstance(one, str):
                self.sized(len(one))
            if isinstance(one, int) and not -_LARGEST < one < _LARGEST:
                raise UserError("it makes a number that is too large")
            if isinstance(one, list | tuple | range | dict):
                self.spend(len(one))
            if isinstance(one, dict):
                one = [*one.keys(), *one.values()]
            if isinstance(one, list | tuple):
                parts.extend(one)
        return value

    def sized(self, size: int) -> None:
        """Refuse a text that is too long before it is made, and count it."""
        if size > _LONGEST_TEXT:
            raise UserError("it makes a text that is too long")
        self.spend(size // 1000)

    def shown(self, value: Any) -> Any:
        """What may be printed."""
        if value is None or isinstance(value, str | int | float | list | tuple | dict):
            return self.checked(value)
        return value if type(value).__name__.endswith("Undefined") else f"<{type(value).__name__}>"

    def replaced(self, text: str, old: str, new: str, count: int = -1) -> str:
        text, old, new = (str(self.shown(part)) for part in (text, old, new))
        times = text.count(old) if count < 0 else min(count, text.count(old))
        self.sized(len(text) + times * len(new))
        return text.replace(old, new, times)

    def joined(self, items: Iterable[Any], between: str = "", attribute: Any = None) -> str:
        parts = [item if attribute is None else item[attribute] for item in self.each(items)]
        texts = [str(self.shown(part)) for part in parts]
        self.sized(sum(map(len, texts)) + len(str(between)) * len(texts))
        return str(between).join(texts)

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter whose arguments and result are."""

        @functools.wraps(function)  # Jinja's marks of what else it is given are kept
        def filtered(*args: Any, **kwargs: Any) -> Any:
            for arg in args:
                if isinstance(arg, str | int | list | tuple | dict):
                    self.checked(arg)
            return self.checked(function(*args, **kwargs))

        return filtered


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    answer: bool = True,
    tokens: Mapping[str, str] | None = None,
    source: str = "",
) -> str:
    """Text of a chat.

    Args:
      template: Jinja, as in Hugging Face's ``tokenizer_config.json``.
      messages: each with "role" and "content".
      answer: end where the assistant begins to speak (``add_generation_prompt``).
      tokens: name -> text of special tokens, such as "bos_token".
      source: where the template comes from, for messages.

    Raises:
      UserError: it is no template, refuses the messages, or takes too many steps.

    >>> render("{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}",
    ...        [{"role": "user", "content": "Hi"}])
    '[user] Hi'
    """
    where = f"of {source} " if source else ""
    if len(template) > _LONGEST_TEMPLATE:
        raise UserError(f"The template of chats {where}has more than {_LONGEST_TEMPLATE:,} signs.")
    try:
        import jinja2
    except ImportError:
        raise UserError(
            "Expected the package jinja2 for templates of chats, found none: pip install jinja2."
        ) from None
    try:
        made = _environment(_Budget(), template)
        values = {"messages": list(messages), "add_generation_prompt": answer, **(tokens or {})}
        parts, size = [], 0
        for part in made.generate(tools=None, documents=None, **values):
            size += len(part)
            if size > _LONGEST_TEXT:
                raise UserError("it makes a text that is too long")
            parts.append(part)
        return "".join(parts)
    except (UserError, jinja2.TemplateError, *_FAULTS) as error:
        reason = readable(str(error) or type(error).__name__).removesuffix(".")
        raise UserError(f"The template of chats {where}cannot be used: {reason}.") from None


def _environment(budget: _Budget, source: str) -> Any:
    """A template in an environment of its own."""
    import jinja2
    from jinja2 import nodes, sandbox
    from jinja2.ext import Extension
    from jinja2.visitor import NodeTransformer

    class Generation(Extension):
        """What the assistant says may be marked, for trainings; here it is text like any other."""

        tags = {"generation"}  # noqa: RUF012  # as Jinja declares it

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    class Counted(NodeTransformer):
        """Loops, lists, joined texts and what is compared go through filters of ours.

        No template can replace a filter.
        """

        def through(self, name: str, node: Any) -> Any:
            return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)

        def visit_For(self, node: Any) -> Any:
            self.generic_visit(node)
            node.iter = self.through("_each", node.iter)
            return node

        def visit_List(self, node: Any) -> Any:
            return self.through("_checked", self.generic_visit(node))

        def visit_Dict(self, node: Any) -> Any:
            return self.through("_checked", self.generic_visit(node))

        def visit_Compare(self, node: Any) -> Any:
            self.generic_visit(node)
            node.expr = self.through("_checked", node.expr)
            for part in node.ops:
                part.expr = self.through("_checked", part.expr)
            return node

        def visit_Concat(self, node: Any) -> Any:
            self.generic_visit(node)
            return self.through("join", nodes.List(node.nodes, lineno=node.lineno))

    class Bounded(sandbox.ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset(("+", "*", "**", "%"))

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "**" or (operator == "%" and isinstance(left, str)):
                raise UserError(f"it uses the operator {operator}, which chats do not need")
            if operator == "*" and not all(isinstance(x, int | float) for x in (left, right)):
                raise UserError("it repeats a text or a list, which chats do not need")
            return budget.checked(super().call_binop(context, operator, left, right))

        # Jinja names its arguments otherwise, so that a call may use any name.
        def call(self, context: Any, called: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]  # as said
            budget.spend()
            owner = getattr(called, "__self__", None)
            if isinstance(owner, str | list | tuple | dict):
                name = called.__name__
                if name not in _METHODS.split():
                    raise UserError(f"it calls {name}, which chats do not need")
                if isinstance(owner, str) and name == "replace":
                    return budget.replaced(owner, *args)
                if isinstance(owner, str) and name == "join":
                    return budget.joined(*args, between=owner)
                budget.checked(owner)
            return budget.checked(super().call(context, called, *args, **kwargs))

        def wrap_str_format(self, value: Any) -> Any:
            """Widths in formats make texts of any length."""
            if getattr(value, "__name__", "") in ("format", "format_map"):
                raise UserError("it formats texts, which chats do not need")
            return None

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def now(form: str) -> str:
        import datetime

        return datetime.datetime.now().strftime(form[:100])

    def written(value: Any, indent: int | None = None, **_: Any) -> str:
        return json.dumps(budget.checked(value), ensure_ascii=False, indent=indent and 2)

    made = Bounded(
        trim_blocks=True,
        lstrip_blocks=True,
        optimized=False,  # what is constant would be computed before it can be counted
        cache_size=0,
        finalize=budget.shown,
        extensions=["jinja2.ext.loopcontrols", Generation],
    )
    known = {name: budget.counted(made.filters[name]) for name in _FILTERS.split()}
    own = {"tojson": written, "replace": budget.replaced, "join": budget.joined}
    made.filters = {**known, **own, "_each": budget.each, "_checked": budget.checked}
    made.globals = {name: made.globals[name] for name in ("range", "dict", "namespace")}
    made.globals |= {"raise_exception": refuse, "strftime_now": now}
    tree = Counted().visit(made.parse(source))
    code = made._generate(tree, None, None)
    return jinja2.Template.from_code(made, compile(code, "<template>", "exec"), made.globals)
