"""The sections of a configuration by which a run answers browsers and clients over HTTP."""

import ipaddress
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from streamlearn.config_topics import Section
from streamlearn.connectors.kafka.secrets import Secrets
from streamlearn.errors import UserError

SHORTEST_TOKEN = 16
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class ServedSection(Section):
    """Where a server listens, who may ask it, and by which names.

    Beyond loopback, or behind a proxy, there must be a token, and TLS files or the proxy.

    port: 0 takes a free one. host: the address to listen on; loopback unless told. token: what
    every request must show, at least 16 characters; ${env:NAME} and ${file:PATH} stand for it.
    tls_cert, tls_key: files in PEM. hosts: names by which it is reached, without scheme and port.
    behind_proxy: whether a proxy in front of it speaks TLS to the world.
    """

    port: Annotated[int, Field(ge=0, le=65535)]
    host: str = "127.0.0.1"
    token: str | None = Field(default=None, repr=False)
    tls_cert: str | None = None
    tls_key: str | None = None
    hosts: list[str] = Field(default=[])
    behind_proxy: bool = False

    @field_validator("hosts")
    @classmethod
    def _are_names(cls, value: list[str]) -> list[str]:
        for name in value:
            if not name or "/" in name or (":" in name and not _address(name)):
                raise ValueError(f"must be names without scheme, port and path, got {name!r}")
        return [name.lower() for name in value]

    @model_validator(mode="after")
    def _is_safe(self) -> "ServedSection":
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key must be given together")
        if not self.exposed:
            return self
        why = f"host {self.host}" if self.host not in _LOOPBACK else "behind_proxy"
        if self.token is None:
            raise ValueError(f"token must be there with {why}; say token: ${{env:NAME}}")
        if self.tls_cert is None and not self.behind_proxy:
            raise ValueError(f"tls_cert and tls_key must be there with {why}, or behind_proxy")
        if not self.hosts and self.host in ("0.0.0.0", "::", ""):
            raise ValueError(f"hosts must name what it is called from outside with {why}")
        return self

    @property
    def exposed(self) -> bool:
        """Whether others than this machine reach it."""
        return self.behind_proxy or self.host not in _LOOPBACK

    @property
    def secure(self) -> bool:
        """Whether browsers reach it by https."""
        return self.behind_proxy or self.tls_cert is not None

    @property
    def names(self) -> frozenset[str]:
        """What may stand in the header Host, without port."""
        own = {self.host.lower()} if self.host not in _LOOPBACK else set()
        return frozenset({*_LOOPBACK, *self.hosts, *own})

    def secret(self, owner: str) -> str | None:
        """The token itself. Raises: UserError where it cannot be had or is too short."""
        if self.token is None:
            return None
        try:
            found = str(Secrets({"token": self.token}).options["token"])
        except UserError as error:
            raise UserError(f"{owner}.{str(error).removeprefix('options.')}") from None
        if len(found) < SHORTEST_TOKEN:
            raise UserError(
                f"{owner}.token: must have at least {SHORTEST_TOKEN} characters, got {len(found)}; "
                f"`openssl rand -hex 16` makes one"
            )
        return found


class DashboardSection(ServedSection):
    """The live page; `dashboard: {port: 8080}` is enough.

    Beyond loopback, or behind a proxy, there must be a token, and TLS files or the proxy.

    port: 0 takes a free one. host: the address to listen on; loopback unless told. token: what
    every request must show, at least 16 characters; ${env:NAME} and ${file:PATH} stand for it.
    tls_cert, tls_key: files in PEM. hosts: names by which it is reached, without scheme and port.
    behind_proxy: whether a proxy in front of it speaks TLS to the world. title: what stands above
    it; the data that are read if absent.
    """

    title: str | None = None


def _address(name: str) -> bool:
    """Whether it is an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
