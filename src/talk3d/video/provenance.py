"""What films made here say of themselves in their metadata: that they are no recordings, what made them, and who agreed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import __version__

NOTICE = "AI-generated: this is not a recording."


def provenance(consent: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata for `VideoWriter`.

    Args:
        consent: who agreed to be portrayed: self, permission, or synthetic where nobody is.
        facts: what the film was made of, and how; JSON values.
    """
    return {"generator": f"talk3d {__version__}", "notice": NOTICE, "consent": consent, "talk3d": dict(facts)}


def consent_carried(metadata: Mapping[str, Any]) -> str | None:
    """The consent that a film made here carries in its metadata; None if it is none, or does not say."""
    consent = metadata.get("consent")
    return consent if "talk3d" in metadata and isinstance(consent, str) else None
