"""Sizes that the house keeps: small modules, small functions, few parameters, shallow nesting."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from statistics import quantiles

PROJECT = Path(__file__).parents[2]
MODULES = [
    path for room in ("mlbatch", "jobs", "feature_store") for path in (PROJECT / room).rglob("*.py")
]
BLOCKS = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.Match, ast.AsyncFor, ast.AsyncWith)


@cache
def functions():
    return [*_functions()]


def _functions():
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path.relative_to(PROJECT), node


def lines(function):
    """Of its statements: without signature and docstring."""
    has_text = isinstance(function.body[0], ast.Expr) and ast.get_docstring(function) is not None
    body = function.body[has_text:]
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def depth(node):
    """How many blocks lie in each other; an elif is no deeper than its if."""
    inner = [
        depth(child)
        - (isinstance(node, ast.If) and child in node.orelse and isinstance(child, ast.If))
        for child in ast.iter_child_nodes(node)
    ]
    return isinstance(node, BLOCKS) + max(inner, default=0)


def ninetieth(values):
    return quantiles(values, n=10)[-1]


def test_every_module_stays_below_400_lines():
    sizes = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {path: size for path, size in sizes.items() if size >= 400} == {}


def test_nine_functions_in_ten_are_below_25_lines_and_none_is_much_longer():
    sizes = {f"{path}:{function.name}": lines(function) for path, function in functions()}
    assert ninetieth([*sizes.values()]) <= 25
    assert {name: size for name, size in sizes.items() if size > 30} == {}


def test_parameters_are_few():
    counts = [len([*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs]) for _, f in functions()]
    assert ninetieth(counts) <= 4


def test_nesting_is_shallow():
    deep = {f"{path}:{f.name}": depth(f) for path, f in functions()}
    assert ninetieth([*deep.values()]) <= 3
    assert {name: levels for name, levels in deep.items() if levels > 4} == {}
