"""What is wrong with settings: every fault at once, in plain words, with where it came from.

Values are never among the words, since passwords may be among the values; only a wrong ``kind`` is.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

PREFIX = "MLBATCH_"
ELSEWHERE = ("MLBATCH_FAILPOINT", "MLBATCH_DEVSTACK_MARK", "MLBATCH_SHARED_DATA")
"""Variables that other rooms, the proof and the benchmarks read."""
_TESTS = "MLBATCH_TEST_"
_OF_A_CLUSTER = re.compile(
    r"MLBATCH_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)\w*)"
)
"""What Kubernetes puts into every pod beside a service whose name begins with mlbatch."""

Sections = dict[str, type[BaseModel]]
"""The shapes that one table of settings may have, by kind."""


@dataclass(frozen=True, slots=True)
class Faults:
    """Tells what is wrong with values for ``model`` from ``file`` and from the ``environment``."""

    model: type[BaseModel]
    file: str
    """How the file and its profile are named to people."""
    environment: Mapping[str, str]

    def of(self, error: ValidationError) -> list[str]:
        """One line for each fault, unknown names first: they are often why others are missing."""
        faults = error.errors(include_input=False, include_url=False)
        faults.sort(key=lambda fault: fault["type"] != "extra_forbidden")
        return [self._line(fault) for fault in faults]

    def of_variables(self) -> list[str]:
        """One line for each variable that begins as ours do and that nothing reads."""
        known = list(_variables(self.model))
        lines = []
        for name, value in sorted(self.environment.items()):
            if not _is_ours(name, value) or _is_read(name.upper(), self.model):
                continue
            lines.append(f"environment: {name} is no setting{_did_you_mean(name.upper(), known)}")
        return lines

    def _line(self, fault: Mapping[str, Any]) -> str:
        section, *rest = (str(part) for part in fault["loc"])
        kinds = sections(self.model, section)
        kind = rest.pop(0) if len(kinds) > 1 and rest else None
        of_kind = f" of the kind {kind}" if kind else ""
        name, text = ".".join([section, *rest]), fault["msg"].removeprefix("Value error, ")
        match fault["type"]:
            case "extra_forbidden":
                told = f"{name} is no setting{of_kind}{self._meant(section, kind, rest)}"
            case "missing":
                return f"{self._around(section)}: {name} is required{of_kind}"
            case "union_tag_invalid":
                name, tag = f"{section}.kind", str(fault["ctx"]["tag"])
                told = f"{name}: {tag!r} is none of {fault['ctx']['expected_tags']}"
                told += _did_you_mean(tag, kinds)
            case "value_error":
                return f"{self._around(section)}: {section}: {text}"
            case "model_type":
                told = f"{name} is a table of settings, not one value"
            case _:
                told = f"{name}: {text}"
        return f"{self._origin(name)}: {told}"

    def _meant(self, section: str, kind: str | None, rest: list[str]) -> str:
        """The nearest name, or the other kinds that have this one."""
        if not rest:
            return _did_you_mean(section, _settable(self.model))
        kinds, key = sections(self.model, section), rest[-1]
        having = [other for other, shape in kinds.items() if key in shape.model_fields]
        if having:
            return f"; it is one of the kind {' or '.join(having)}"
        fields = kinds[kind or next(iter(kinds))].model_fields
        return _did_you_mean(f"{section}.{key}", [f"{section}.{field}" for field in fields])

    def _origin(self, name: str) -> str:
        """The variable that says what stands under ``name``, or else the file."""
        whole = PREFIX + name.upper().replace(".", "__")
        above = whole.partition("__")[0]
        for variable in self.environment:
            if variable.upper() in (whole, above) or variable.upper().startswith(f"{whole}__"):
                return f"environment, {variable}"
        return self.file

    def _around(self, section: str) -> str:
        """The file, and the variables that have a say in the ``section``."""
        start = f"{PREFIX}{section.upper()}"
        having = [n for n in self.environment if n.upper().partition("__")[0] == start]
        return f"{self.file}, with {', '.join(sorted(having))}" if having else self.file


def sections(model: type[BaseModel], name: str) -> Sections:
    """The shapes of the table ``name``; none where it is one value or unknown."""
    field = model.model_fields.get(name)
    found = _shapes(field.annotation) if field else []
    return {_kind(shape): shape for shape in found}


def _kind(shape: type[BaseModel]) -> str:
    field = shape.model_fields.get("kind")
    return str(get_args(field.annotation)[0]) if field else ""


def _shapes(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [shape for part in get_args(annotation) for shape in _shapes(part)]


def _settable(model: type[BaseModel]) -> list[str]:
    """Without the project's folder, which is found and not set."""
    return [name for name in model.model_fields if name != "root"]


def _variables(model: type[BaseModel]) -> Iterable[str]:
    for name in _settable(model):
        yield f"{PREFIX}{name.upper()}"
        for shape in sections(model, name).values():
            yield from (f"{PREFIX}{name.upper()}__{key.upper()}" for key in shape.model_fields)


def _is_ours(name: str, value: str) -> bool:
    known = name.upper()
    if not known.startswith(PREFIX) or known in ELSEWHERE or known.startswith(_TESTS):
        return False
    by_cluster = _OF_A_CLUSTER.fullmatch(known) or (known.endswith("_PORT") and "://" in value)
    return "__" in known or not by_cluster


def _is_read(variable: str, model: type[BaseModel]) -> bool:
    """Whether pydantic looks at it; it then says itself what is wrong below a table."""
    name, _, key = variable.removeprefix(PREFIX).lower().partition("__")
    return name in _settable(model) and not (key and not sections(model, name))


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""
