"""What every command starts with: the project, its settings, and a voice on stderr."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlbatch.cli.answer import typeable
from mlbatch.project import Project, find_root, load_project
from mlbatch.settings import Settings, load_settings
from mlbatch.wiring import connect

if TYPE_CHECKING:
    from mlbatch.job import Job
    from mlbatch.tools import Tools

QUIET_SECONDS = 10.0


@dataclass(slots=True)
class Voice:
    """Tells stages on stderr. Progress is overwritten on a terminal, rare elsewhere."""

    last: float = field(default_factory=time.monotonic)

    def __call__(self, stage: str, text: str) -> None:
        """`mlbatch.tools.Notify`."""
        text = typeable(text)
        if stage != "progress":
            click.echo(f"  {stage:<10} {text}", err=True)
        elif sys.stderr is not None and sys.stderr.isatty():
            click.echo(f"  {'...':<10} {text}\r", err=True, nl=False)
        elif time.monotonic() - self.last >= QUIET_SECONDS:
            self.last = time.monotonic()
            click.echo(f"  {'...':<10} {text}", err=True)


@dataclass(frozen=True, slots=True)
class Session:
    """A loaded project."""

    project: Project
    settings: Settings

    @classmethod
    def open(cls, profile: str | None, **overrides: object) -> Session:
        """Find the project around the current folder and load it."""
        root = find_root(Path.cwd())
        settings = load_settings(root, profile)
        given = {name: value for name, value in overrides.items() if value is not None}
        return cls(load_project(root), settings.model_copy(update=given))

    def job(self, name: str) -> type[Job]:
        """The job called ``name``, or a UsageError that names the nearest."""
        return self.project.job(name)

    def tools(self, *, at_work: bool = False) -> Tools:
        """The connected tools of the chosen profile, with workers provided for where they are to work."""
        tools = connect(self.settings, Voice())
        if at_work:
            # Now, with everything imported and nothing opened.
            tools.engine.warm_up()
        return tools
