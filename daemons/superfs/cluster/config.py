"""clusterd's configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from superfs.core.config import ConfigError
from superfs.daemon.common import CommonConfig

SESSION_TOKEN_S_MIN = 10.0
SESSION_TOKEN_S_MAX = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class ClusterdCommon(CommonConfig):
    state_dir: Path = Path("/var/lib/superfs/clusterd")
    listen: tuple[str, ...] = ("unix:/run/superfs/clusterd.sock",)


@dataclass(frozen=True, slots=True)
class HandshakeConfig:
    session_token_s: float = 86_400.0  # a client asks for a new one before that

    def __post_init__(self) -> None:
        if not SESSION_TOKEN_S_MIN <= self.session_token_s <= SESSION_TOKEN_S_MAX:
            raise ConfigError(
                f"session_token_s must be from {SESSION_TOKEN_S_MIN:g} to {SESSION_TOKEN_S_MAX:g}"
            )


@dataclass(frozen=True, slots=True)
class ClusterdConfig:
    daemon: ClusterdCommon = field(default_factory=ClusterdCommon)
    handshake: HandshakeConfig = field(default_factory=HandshakeConfig)
