"""The measure of the house: which way imports point, no circles, no long module, no bare file."""

import ast
import graphlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("jaxcore", "models", "estimators", "train")
LINKED = ("models", "estimators", "train")  # at the root, imported as jaxcore.<name>
LONGEST = 450  # lines

ORDER = ("ops", "nn", "models", "train", "estimators", "cli")
"""Each package imports from itself and from those before it, and from the foundations."""

FINDERS = {"cli", "registry", "weights", "__main__"}
"""These find networks and recipes, by name or inside functions."""


class Import(NamedTuple):
    """One import statement."""

    source: str  # importing module
    target: str
    lazy: bool  # inside a function
    line: int


def modules(root: Path) -> dict[str, Path]:
    """Every module of the packages by its dotted name, each file once."""
    out = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            inside = path.relative_to(root)
            if package == "jaxcore" and len(inside.parts) > 2 and inside.parts[1] in LINKED:
                continue
            parts = list(inside.with_suffix("").parts)
            parts = parts if package == "jaxcore" else ["jaxcore", *parts]
            out[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return out


def imports(name: str, path: Path, known: dict[str, Path]) -> list[Import]:
    """What a module imports of the packages, without blocks for type checkers."""
    out: list[Import] = []

    def add(target: str, lazy: bool, line: int) -> None:
        if target.partition(".")[0] in PACKAGES and target != name:
            out.append(Import(name, target, lazy, line))

    def walk(node: ast.AST, lazy: bool) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                add(alias.name, lazy, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            start = node.module or ""
            if node.level:
                package = name if path.name == "__init__.py" else name.rpartition(".")[0]
                up = package.split(".")[: len(package.split(".")) - node.level + 1]
                start = ".".join([*up, start] if start else up)
            for alias in node.names:  # a module of the package, or a name inside it
                whole = f"{start}.{alias.name}"
                add(whole if whole in known else start, lazy, node.lineno)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        inner = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            walk(child, inner)

    walk(ast.parse(path.read_text("utf-8")), False)
    return out


def room(module: str) -> str:
    """The package or single module directly under ``jaxcore``; "" for ``jaxcore`` itself."""
    return (module.split(".") + [""])[1]


def upward(one: Import) -> bool:
    """Whether an import points from a lower package to a higher one."""
    source, target = room(one.source), room(one.target)
    if source == target or target not in ORDER or source in FINDERS:
        return False
    if source not in ORDER:  # foundations know ops and nn at most
        return ORDER.index(target) >= ORDER.index("models")
    return ORDER.index(source) < ORDER.index(target)


def circle(found: list[Import]) -> list[str]:
    """A circle among the modules; empty if there is none. What is found by name does not count."""
    graph: dict[str, set[str]] = {}
    for one in found:
        by_name = one.lazy and room(one.source) in FINDERS
        inside = one.source.startswith(one.target + ".")  # loads together with its package
        if not by_name and not inside:
            graph.setdefault(one.source, set()).add(one.target)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def faults(root: Path) -> list[str]:
    """Every breach of the rules, as ``file:line: sentence``."""
    known, found, out = modules(root), [], []
    for name, path in known.items():
        text = path.read_text("utf-8")
        place = path.relative_to(root)
        if (count := text.count("\n")) > LONGEST:
            out.append(f"{place}: {count} lines, {LONGEST} are allowed")
        if ast.get_docstring(ast.parse(text)) is None:
            out.append(f"{place}: no docstring at the start")
        found += imports(name, path, known)
    for one in found:
        place = f"{known[one.source].relative_to(root)}:{one.line}"
        if one.target.partition(".")[0] in LINKED:
            out.append(f"{place}: imports {one.target}, to be named jaxcore.{one.target}")
        elif upward(one):
            out.append(f"{place}: {room(one.source)} imports {one.target}, which is above it")
        elif (
            room(one.source) in ("registry", "weights")
            and not one.lazy
            and room(one.target) in (ORDER[3:])
        ):
            out.append(f"{place}: {one.target} is to be imported inside a function")
    if ring := circle(found):
        out.append("circle: " + " -> ".join(ring))
    return out


def test_the_house_keeps_its_rules():
    assert faults(ROOT) == []


def test_files_of_tests_have_names_of_their_own():
    """Of two in different folders pytest would collect only one."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_tests_and_benchmarks_import_from_jaxcore():
    for path in [*ROOT.glob("tests/**/*.py"), *ROOT.glob("benchmarks/*.py")]:
        for one in imports("tests", path, {}):
            assert one.target.partition(".")[0] == "jaxcore", f"{path}:{one.line}"


@pytest.fixture
def house(tmp_path):
    """A small tree that keeps the rules; a function that writes one more file and looks again."""

    def write(name: str, text: str) -> list[str]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return faults(tmp_path)

    for name in ("jaxcore", "jaxcore/ops", "jaxcore/nn", "models", "train", "estimators"):
        write(f"{name}/__init__.py", '"""A room."""\n')
    for name in LINKED:
        (tmp_path / "jaxcore" / name).symlink_to(f"../{name}")
    write("jaxcore/ops/fft.py", '"""Transforms."""\n')
    write("jaxcore/registry.py", '"""Names."""\ndef of():\n    import jaxcore.models.net\n')
    write("models/net.py", '"""A network."""\nfrom jaxcore.ops import fft\n')
    assert write("train/loop.py", '"""Steps."""\nfrom jaxcore.models import net\n') == []
    return write


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("models/a.py", "from jaxcore.train import loop", "models imports jaxcore.train.loop"),
        ("train/a.py", "import jaxcore.estimators", "train imports jaxcore.estimators"),
        ("train/a.py", "def f():\n    import jaxcore.cli", "train imports jaxcore.cli"),
        ("jaxcore/ops/fft.py", "from .. import nn", "ops imports jaxcore.nn"),
        ("jaxcore/data.py", "from .models.net import x", "data imports jaxcore.models.net"),
        ("jaxcore/registry.py", "import jaxcore.train", "to be imported inside a function"),
        ("train/a.py", "import models.net", "to be named jaxcore.models.net"),
        ("jaxcore/data.py", "from jaxcore.ops import fft", ""),
        ("models/long.py", "x = 1\n" * 450, "451 lines, 450 are allowed"),
    ],
)
def test_a_breach_is_found(house, name, text, sentence):
    found = house(name, f'"""A module."""\n{text}')
    assert len(found) == bool(sentence) and sentence in "".join(found)


def test_a_circle_and_a_bare_file_are_found(house):
    assert house("jaxcore/ops/a.py", '"""A."""\nfrom jaxcore.ops import b\n') == []
    for text in ("from jaxcore.ops import a", "def f():\n    from jaxcore.ops import a"):
        (ring,) = house("jaxcore/ops/b.py", f'"""B."""\n{text}\n')
        assert ring.startswith("circle: ") and ring.count("jaxcore.ops.") == 3
    house("jaxcore/ops/b.py", '"""B."""\n')
    assert house("train/bare.py", "x = 1\n") == ["train/bare.py: no docstring at the start"]
