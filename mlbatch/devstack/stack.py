"""All private servers together: the whole production path on one machine, started and stopped."""

from __future__ import annotations

import fcntl
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from mlbatch.devstack import mariadb, process
from mlbatch.devstack.mariadb import MariaDb, Passwords
from mlbatch.devstack.objects import ACCESS_KEY, BUCKET, REGION, SECRET_KEY, ObjectServer
from mlbatch.devstack.process import LOOPBACK, Service
from mlbatch.devstack.registry import Registry
from mlbatch.devstack.state import PORTS, Face, Running, State, read_state, write_state
from mlbatch.devstack.warehouse import DATABASE, TOKEN, USER, Ports, Warehouse
from mlbatch.errors import MlbatchError

STORAGE_PREFIX = "staging/"
Told = Callable[[str, str], None]
"""Hears about a server, by name, what became of it."""


class Server(Protocol):
    """What every server of the stack has."""

    @property
    def name(self) -> str:
        """How people call it."""
        ...

    @property
    def log(self) -> Path:
        """What it says."""
        ...

    def prepare(self) -> Service:
        """Make its files; how it is started."""
        ...

    def answers(self) -> bool:
        """Whether it serves."""
        ...

    def complete(self) -> None:
        """What is left to do once it answers."""
        ...

    def clear(self) -> None:
        """What is left to do once it has ended."""
        ...


@dataclass(frozen=True, slots=True)
class Status:
    """One server, at this moment."""

    name: str
    state: str
    """``running``, ``silent`` (it runs and does not answer), ``dead`` or ``stopped``."""
    ports: Mapping[str, int]
    pid: int | None = None
    since: datetime | None = None
    log: Path | None = None


@dataclass(frozen=True, slots=True)
class Stack:
    """The servers whose files lie below ``root``."""

    root: Path

    def up(self, face: Face | None = None, told: Told = lambda *_: None) -> State:
        """Start what does not run yet; when one cannot be started, none of them stays."""
        self.root.mkdir(parents=True, exist_ok=True)
        with self._alone():
            state = read_state(self.root) or State.fresh()
            state.face = face or state.face
            _sweep(state)
            _mend_ports(state)
            missing = [s for s in self.servers(state) if not state.serves(s.name)]
            write_state(self.root, state)
            if missing:
                _Start(self.root, state, told).all(missing)
        return state

    def down(self, *, keep: bool = False) -> list[str]:
        """Stop everything and remove its data; which servers ran."""
        if not self.root.is_dir():
            return []
        with self._alone():
            state = read_state(self.root)
            if state is None:
                return []
            stopped = _stop(state, self.servers(state))
            if keep:
                write_state(self.root, state)
            else:
                shutil.rmtree(self.root)
        return stopped

    def status(self) -> list[Status]:
        """Every server, whether it runs or not."""
        state = read_state(self.root)
        if state is None:
            return [Status(name, "stopped", {}) for name in PORTS]
        return [_status(server, state) for server in self.servers(state)]

    def servers(self, state: State) -> list[Server]:
        """The four, as ``state`` describes them."""
        ports, secrets = state.ports, state.secrets
        store = ObjectServer(self.root / "s3", ports["s3"])
        faces = Ports(*(ports[name] for name in PORTS["redshift"]))
        passwords = Passwords(secrets["mysql_writer"], secrets["mysql_admin"])
        return [
            Warehouse(
                self.root / "redshift", faces, store, secrets["redshift"], secrets["queuery"]
            ),
            store,
            MariaDb(self.root / "mysql", ports["mysql"], passwords),
            Registry(self.root / "mlflow", ports["mlflow"]),
        ]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Two commands at once would start everything twice. The lock outlives the folder."""
        with self.root.with_name(f"{self.root.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _sweep(state: State) -> None:
    """End what is left of servers that died or never came to serve."""
    for name in [name for name in state.running if not state.serves(name)]:
        process.stop(state.running.pop(name).identity)


def _mend_ports(state: State) -> None:
    """Somebody else may have taken a port in the meantime."""
    store = state.ports["s3"]
    for name, ports in PORTS.items():
        for port in ports:
            if name not in state.running and not process.is_free(state.ports[port]):
                state.ports[port] = process.free_ports(1)[0]
    if state.ports["s3"] != store and "redshift" in state.running:
        # It unloads to the old port.
        process.stop(state.running.pop("redshift").identity)


def _stop(state: State, servers: Sequence[Server]) -> list[str]:
    names = list(state.running)
    with ThreadPoolExecutor(len(PORTS)) as pool:
        identities = [state.running[name].identity for name in names]
        ran = list(pool.map(process.stop, identities))
    for server in servers:
        server.clear()
    state.running.clear()
    return [name for name, was in zip(names, ran, strict=True) if was]


def _status(server: Server, state: State) -> Status:
    ports = {name: state.ports[name] for name in PORTS[server.name]}
    found = state.running.get(server.name)
    if found is None:
        return Status(server.name, "stopped", ports)
    word = "dead"
    if process.is_alive(found.identity):
        word = "running" if server.answers() else "silent"
    return Status(server.name, word, ports, found.pid, found.since, server.log)


@dataclass(slots=True)
class _Start:
    """One start of several servers at once, which can be taken back."""

    root: Path
    state: State
    told: Told
    started: list[Server] = field(default_factory=list)
    is_over: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def all(self, servers: Sequence[Server]) -> None:
        """Until every one serves; the first that cannot ends all that were started here."""
        with ThreadPoolExecutor(len(servers)) as pool:
            tasks = [pool.submit(self._one, server) for server in servers]
            try:
                done, _ = wait(tasks, return_when=FIRST_EXCEPTION)
                for task in done:
                    task.result()
            except BaseException:
                self._take_back()
                raise

    def _one(self, server: Server) -> None:
        began = time.monotonic()
        service = server.prepare()
        running = self._launch(server, service)
        process.wait_until_ready(service, running.identity)
        server.complete()
        with self.lock:
            if self.is_over:
                return
            running.is_ready = True
            write_state(self.root, self.state)
        self.told(server.name, f"ready after {time.monotonic() - began:.1f} s")

    def _launch(self, server: Server, service: Service) -> Running:
        with self.lock:
            if self.is_over:
                message = f"{server.name} was not started, since another server failed"
                raise MlbatchError(message)
            identity = process.launch(service)
            running = Running(pid=identity.pid, started_at=identity.started_at, mark=identity.mark)
            self.state.running[server.name] = running
            self.started.append(server)
            # Known before it is ready, so that `down` finds it whatever happens to this process.
            write_state(self.root, self.state)
        return running

    def _take_back(self) -> None:
        with self.lock:
            self.is_over = True
            for server in self.started:
                process.stop(self.state.running.pop(server.name).identity)
                server.clear()
            write_state(self.root, self.state)


def profile(root: Path) -> dict[str, object] | None:
    """The settings of the stack in ``root``; None where nothing runs."""
    state = read_state(root)
    if state is None or not any(state.serves(name) for name in PORTS):
        return None
    return settings(state)


def settings(state: State) -> dict[str, object]:
    """What mlbatch.toml would say to use this stack."""
    ports, secrets = state.ports, state.secrets
    storage = {
        "kind": "s3",
        "bucket": BUCKET,
        "prefix": STORAGE_PREFIX,
        "endpoint": f"http://{LOOPBACK}:{ports['s3']}",
        "region": REGION,
        "access_key": ACCESS_KEY,
        "secret_key": SECRET_KEY,
    }
    sink = {
        "kind": "mysql",
        "host": LOOPBACK,
        "port": ports["mysql"],
        "database": mariadb.DATABASE,
        "user": mariadb.WRITER,
        "password": secrets["mysql_writer"],
        "tls": "off",
        "local_infile": True,
    }
    tracking = {"kind": "mlflow", "uri": f"http://{LOOPBACK}:{ports['mlflow']}"}
    return {"warehouse": _warehouse(state), "storage": storage, "sink": sink, "tracking": tracking}


def _warehouse(state: State) -> dict[str, object]:
    if state.face == "queuery":
        return {
            "kind": "queuery",
            "endpoint": f"http://{LOOPBACK}:{state.ports['redshift_queuery']}",
            "token": TOKEN,
            "token_secret": state.secrets["queuery"],
        }
    return {
        "kind": "redshift",
        "transport": state.face,
        "database": DATABASE,
        "cluster": "devstack",
        "host": LOOPBACK,
        "port": state.ports["redshift_wire"],
        "user": USER,
        "password": state.secrets["redshift"],
        "tls": "off",
        "endpoint": f"http://{LOOPBACK}:{state.ports['redshift_data_api']}",
        "region": REGION,
        "iam_role": "default",
    }


def as_toml(values: Mapping[str, Any], name: str) -> str:
    """Settings as tables of mlbatch.toml, under the profile ``name``."""
    lines = []
    for section, keys in values.items():
        lines.append(f"[profiles.{name}.{section}]")
        # A JSON string, number or truth value without control characters is TOML as it stands.
        lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
        lines.append("")
    return "\n".join(lines)
