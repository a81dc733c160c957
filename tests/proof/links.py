"""S3 and a warehouse as processes of their own, and proxies before both that strike at random."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from fault_proxy import BLACK_HOLE, RESET, FaultProxy, Rule
from toy.harness import ToyHarness

from mlbatch.connectors import aws
from mlbatch.connectors.aws import AwsAccess
from mlbatch.connectors.password import FixedPassword
from mlbatch.connectors.redshift import wire as wire_settings
from mlbatch.connectors.redshift.warehouse import RedshiftWarehouse
from mlbatch.connectors.redshift.wire import Wire
from mlbatch.connectors.s3 import S3Storage
from mlbatch.devstack import process
from mlbatch.devstack.objects import ACCESS_KEY, REGION, SECRET_KEY, ObjectServer
from mlbatch.devstack.process import free_ports
from mlbatch.devstack.stack import Server
from mlbatch.devstack.warehouse import DATABASE, USER, Ports, Warehouse
from mlbatch.tools import Tools

PASSWORD = "sesame"
STATEMENT_SECONDS = 3
ONE_IN = {"storage": 4, "warehouse": 4}
"""One connection in so many is struck: S3's are kept and repeated, the warehouse's are not."""


def hasten_links() -> None:
    """Nobody waits by the minute here: for child processes."""
    aws.CONNECT_SECONDS = aws.ANSWER_SECONDS = 1
    aws.ATTEMPTS = 3
    wire_settings.CONNECT_SECONDS = wire_settings.SLACK_SECONDS = 1


class Dice(deque[Rule]):
    """What happens to the next connection, by chance; it never runs out."""

    def __init__(self, seed: int, one_in: int) -> None:
        super().__init__()
        self._random, self._one_in = random.Random(seed), one_in
        self.struck: Counter[str] = Counter()
        self.is_armed = True

    def __bool__(self) -> bool:
        return self.is_armed and not self._random.randrange(self._one_in)

    def popleft(self) -> Rule:
        rule = self._random.choice(FAULTS)(self._random)
        self.struck[NAMES.get(str(rule), str(rule))] += 1
        return rule


FAULTS: tuple[Callable[[random.Random], Rule], ...] = (
    lambda _: RESET,
    lambda chance: Rule(cut_after=chance.randrange(1, 6_000)),
    lambda _: BLACK_HOLE,
    lambda chance: Rule(delay=chance.uniform(0.05, 0.4)),
    lambda _: Rule(bytes_per_second=20_000),
)
NAMES = {"cut after": "cut short", "delay": "late", "bytes per second": "slow"}


@dataclass(frozen=True, slots=True)
class Links:
    """Both servers directly, for the source and the judge, and one of them behind its proxy."""

    storage: S3Storage
    warehouse: RedshiftWarehouse
    proxy: FaultProxy
    dice: Dice
    kind: str

    def directly(self, tools: Tools) -> Tools:
        """``tools`` that reach both without a fault."""
        return replace(tools, storage=self.storage, warehouse=self.warehouse)

    def struck(self, tools: Tools) -> Tools:
        """``tools`` of which one link is struck."""
        port = self.proxy.port
        if self.kind == "storage":
            access = replace(self.storage.access, endpoint=f"http://127.0.0.1:{port}")
            storage = replace(self.storage, access=access)
            return replace(tools, storage=storage, warehouse=self.warehouse)
        transport = replace(self.warehouse.transport, port=port)  # type: ignore[type-var]
        warehouse = replace(self.warehouse, transport=transport)
        return replace(tools, storage=self.storage, warehouse=warehouse)


class LinkedHarness(ToyHarness):
    """A harness whose source is in that warehouse, and whose parts are in that store."""

    links: Links

    @property
    def tools(self) -> Tools:
        return self.links.directly(super().tools)


class _SmallParts(Warehouse):
    def _configuration(self) -> dict[str, object]:
        return {**super()._configuration(), "part_rows": 60}


@contextmanager
def linked(folder: Path, kind: str, seed: int) -> Iterator[Links]:
    """Start the servers, and a proxy before the one of ``kind``: storage or warehouse."""
    s3_port, *ports = free_ports(4)
    store = ObjectServer(folder / "s3", s3_port)
    server = _SmallParts(folder / "redshift", Ports(*ports), store, PASSWORD, "unused")
    dice = Dice(seed, ONE_IN[kind])
    with ExitStack() as running:
        for one in (store, server):
            running.enter_context(_running(one))
        target = urlsplit(store.endpoint).port if kind == "storage" else ports[0]
        proxy = running.enter_context(FaultProxy("127.0.0.1", target or 0))
        proxy.next_rules = dice
        access = AwsAccess(REGION, store.endpoint, ACCESS_KEY, SECRET_KEY)
        storage = S3Storage(store.bucket, "staging", access, block_bytes=1_000, whole_bytes=1_500)
        wire = Wire(
            "127.0.0.1", ports[0], DATABASE, USER, FixedPassword(PASSWORD), verify_tls=False,
            statement_seconds=STATEMENT_SECONDS,
        )  # fmt: skip
        yield Links(storage, RedshiftWarehouse(wire, storage), proxy, dice, kind)


@contextmanager
def _running(server: Server) -> Iterator[None]:
    service = server.prepare()
    identity = process.launch(service)
    try:
        process.wait_until_ready(service, identity)
        server.complete()
        yield
    finally:
        process.stop(identity)
        server.clear()
