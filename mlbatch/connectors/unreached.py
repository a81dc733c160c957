"""Why nobody answers, in a few words, and where to look: the same for every system outside."""

from __future__ import annotations

from dataclasses import dataclass

from mlbatch.errors import MlbatchError, SettingsError, TemporaryError, causes


@dataclass(frozen=True, slots=True)
class _Reason:
    says: tuple[str, ...]
    """What libraries write of it, which quote the system's words."""
    words: str
    look: str
    """``{}`` is the setting that names the server."""
    lasts: bool = False
    """Whether trying again cannot help."""


_REASONS = (
    _Reason(
        # The last is urllib3's own check of a host's name.
        ("CERTIFICATE_VERIFY_FAILED", "certificate verify failed", "CertificateError"),
        "its certificate does not verify",
        "look at {}, at the host that the certificate names, and at who signed it",
        lasts=True,
    ),
    _Reason(
        ("UNEXPECTED_EOF", "EOF occurred", "BAD_RECORD_MAC"),
        "TLS broke off",
        "look at {}, and whether that server speaks TLS",
    ),
    _Reason(
        ("[SSL", "Server refuses SSL"),
        "TLS failed",
        "look at {}, and whether that server speaks TLS, of which version",
        lasts=True,
    ),
    _Reason(
        (
            "Name or service not known",
            "No address associated",
            "nodename nor servname",
            "name resolution",
            "Failed to resolve",
        ),
        "no host of that name is known",
        "look at {}, and at this machine's DNS or VPN",
    ),
    _Reason(
        ("Connection refused",),
        "connection refused",
        "nothing listens there: look at {}, and whether the server runs",
    ),
    _Reason(
        ("No route to host", "Network is unreachable"),
        "there is no way there",
        "look at {}, and at this machine's network or VPN",
    ),
    _Reason(
        ("timed out", "TimeoutError", "Timeout"),
        "no answer in time",
        "look at {}, and at firewalls or security groups on the way",
    ),
)


def reason(error: BaseException) -> str | None:
    """Why no connection came about, as ``error`` or one behind it says; None where none does."""
    found = _found(error)
    return found.words if found else None


def advice(error: BaseException, setting: str, otherwise: str) -> str:
    """Where to look, ``setting`` being what names the server; ``otherwise`` where nobody can tell."""
    found = _found(error)
    return f"{found.look.format(setting)}; then {otherwise}" if found else otherwise


def lasts(error: BaseException) -> bool:
    """Whether no connection will come about until somebody mends the settings or the server."""
    found = _found(error)
    return found is not None and found.lasts


def unreached(error: BaseException, message: str, hint: str, trust: str) -> MlbatchError:
    """``message`` as what it is: temporary, or a matter of settings where it `lasts`.

    ``trust`` names the variable by which the library trusts another authority.
    """
    if not lasts(error):
        return TemporaryError(message, hint=hint)
    known = f"{hint}; {trust} may name a file with an authority of your own"
    return SettingsError(message, hint=known)


def _found(error: BaseException) -> _Reason | None:
    said = " ".join(f"{type(cause).__name__} {cause}" for cause in causes(error))
    return next((r for r in _REASONS if any(words in said for words in r.says)), None)
