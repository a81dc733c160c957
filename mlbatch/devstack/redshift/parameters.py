"""A session's run-time parameters: SET, RESET, SHOW."""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, field

from mlbatch.devstack.redshift.lexer import Token
from mlbatch.devstack.redshift.refusal import Refusal

SERVER_VERSION = "8.0.2"
_DEFAULTS = {
    "analyze_threshold_percent": "10",
    "application_name": "",
    "client_encoding": "UTF8",
    "datestyle": "ISO, MDY",
    "enable_case_sensitive_identifier": "off",
    "enable_result_cache_for_session": "on",
    "extra_float_digits": "0",
    "query_group": "unset",
    "search_path": "$user, public",
    "server_version": SERVER_VERSION,
    "statement_timeout": "0",
    "timezone": "UTC",
    "transaction_isolation": "serializable",
    "wlm_query_slot_count": "1",
}
_PHRASES = frozenset(["TRANSACTION", "CHARACTERISTICS", "AUTHORIZATION"])


@dataclass(slots=True)
class Parameters:
    """Names and values as one session sees them."""

    changed: dict[str, str] = field(default_factory=dict)
    of_user: Mapping[str, str] = field(default_factory=dict)
    """What ALTER USER ... SET says of the session's user, as it was when the session began."""

    def set(self, words: list[Token]) -> str | None:
        """SET name {TO | =} value; the name, or None for a phrase without one."""
        rest = words[1:]
        if rest and rest[0].value in ("SESSION", "LOCAL"):
            rest = rest[1:]
        if not rest or rest[0].value in _PHRASES:
            return None
        sign = next((i for i, word in enumerate(rest) if word.value in ("TO", "=")), 0)
        if not sign or len(rest) == sign + 1:
            raise Refusal("42601", 'syntax error at or near "SET"')
        name = "".join(word.raw for word in rest[:sign]).lower()
        given = rest[sign + 1 :]
        self._change(name, "".join(w.raw if w.kind == "word" else w.value for w in given))
        return name

    def _change(self, name: str, value: str) -> None:
        if value.upper() == "DEFAULT":
            self.changed.pop(name, None)
            return
        if name == "statement_timeout" and not re.fullmatch(r"\d+", value):
            raise Refusal("22023", f'parameter "{name}" requires an integer value')
        self.changed[name] = value.lower() if name == "search_path" else value

    def reset(self, words: list[Token]) -> None:
        """RESET name or RESET ALL."""
        name = words[1].raw.lower() if len(words) > 1 else "all"
        if name == "all":
            self.changed.clear()
        self.changed.pop(name, None)

    def show(self, name: str) -> str:
        """The value of ``name``."""
        folded = name.lower()
        found = ChainMap(self.changed, dict(self.of_user), _DEFAULTS).get(folded)
        if found is None:
            raise Refusal("42704", f'unrecognized configuration parameter "{name}"')
        return found

    @property
    def timeout_ms(self) -> int:
        """Milliseconds that a statement may take; 0 for as long as it wants."""
        return int(self.show("statement_timeout"))

    @property
    def zone(self) -> str:
        """The time zone in which the session tells and reads what names none."""
        return self.show("timezone")

    @property
    def schemas(self) -> str:
        """The schemas in which DuckDB looks for a table."""
        named = [name.strip() for name in self.show("search_path").split(",")]
        known = [name for name in named if name and "$" not in name]
        return ",".join([*known, "redshift_catalog", "main"])
