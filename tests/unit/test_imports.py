import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
ROOMS = ("mlbatch", "jobs", "feature_store")


def modules(root: Path) -> dict[str, Path]:
    """Every module below the rooms, by its name."""
    paths = [path for room in ROOMS for path in sorted((root / room).rglob("*.py"))]
    return {name(path.relative_to(root)): path for path in paths}


def name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(of: str, path: Path, known: set[str]) -> set[str]:
    """What a module imports at any depth: in functions and for type checkers as well."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = absolute(node, of, is_package=path.name == "__init__.py")
            found |= {
                inner if (inner := f"{source}.{alias.name}") in known else source
                for alias in node.names
            }
    return (found & known) - {of}


def absolute(node: ast.ImportFrom, of: str, *, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parents = [*of.split("."), ""] if is_package else of.split(".")
    return ".".join([*parents[: -node.level], *([node.module] if node.module else [])])


def circle(root: Path) -> list[str]:
    """Modules that need each other, in order; none if there are no such."""
    found = modules(root)
    graph = {module: imports(module, path, set(found)) for module, path in found.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_two_modules_need_each_other():
    assert len(modules(PROJECT)) > 100
    assert circle(PROJECT) == []


@pytest.mark.parametrize(
    "back",
    [
        "from mlbatch.a import x",
        "import mlbatch.a",
        "from mlbatch import a",
        "from . import a",
        "from .a import x",
        "def late():\n    from mlbatch.a import x",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from mlbatch.a import x",
    ],
)
def test_a_circle_is_found_however_it_is_hidden(tmp_path, back):
    (tmp_path / "mlbatch").mkdir()
    (tmp_path / "mlbatch/a.py").write_text("from mlbatch.b import y")
    (tmp_path / "mlbatch/b.py").write_text(back)
    assert set(circle(tmp_path)) == {"mlbatch.a", "mlbatch.b"}


def test_a_circle_through_a_package_is_found(tmp_path):
    package = tmp_path / "mlbatch/inner"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from .b import y")
    (package / "b.py").write_text("from mlbatch import inner")
    assert set(circle(tmp_path)) == {"mlbatch.inner", "mlbatch.inner.b"}
