"""What a run is given: the connectors, and the sources of chance and time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mlbatch.job import Job
from mlbatch.ledger import Owner
from mlbatch.scoring import Predictor
from mlbatch.throttle import Limits

if TYPE_CHECKING:
    from mlbatch.engine import Engine
    from mlbatch.model import TrainedModel
    from mlbatch.sink import Sink
    from mlbatch.storage import Storage
    from mlbatch.tracking import Tracking
    from mlbatch.warehouse import Warehouse

LoadModel = Callable[[type[Job], Path, str], Predictor]
SaveModel = Callable[["TrainedModel", Path], str]
"""Writes the model's files into a folder and returns their digest."""
Notify = Callable[[str, str], None]
"""Told the stage and a line about it."""


@dataclass(frozen=True, slots=True)
class Tools:
    """Everything outside the flow: connectors, and the sources of chance and time."""

    warehouse: Warehouse
    storage: Storage
    sink: Sink
    tracking: Tracking
    engine: Engine
    owner: Owner
    models: Path
    """Folder for fetched models; may be emptied at any time."""
    code_version: str
    dictionary: str
    """Fingerprint of the tokeniser's dictionary."""
    new_id: Callable[[], str]
    new_epoch: Callable[[], int]
    """A fresh random 63-bit number: a counter would repeat itself after a restore."""
    load_model: LoadModel
    """Must be picklable: workers call it."""
    save_model: SaveModel
    notify: Notify
    limits: Limits = field(default_factory=Limits)
    """When to hold back for others."""
