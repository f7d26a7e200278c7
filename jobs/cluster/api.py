"""A Ray cluster seen from outside: over the address of its dashboard, with its token.

Nothing here joins the cluster, so the versions of Ray and Python on both sides may differ.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from jobs.runtime.losses import knock
from wpcrack.errors import WpcrackError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Ray would prefer these to an address that it is given."""

TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
TOKEN_FILE = Path(".ray") / "auth_token"
"""Below the home directory: where Ray looks for a token if no variable names one."""

TALKATIVE = (
    "ray._private.runtime_env.packaging",
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
)
"""Loggers that tell of every upload and of every connection that ends."""

NODES_TIMEOUT_S = 30
"""For the list of nodes; the request itself takes a fraction of a second."""

NODES_PATIENCE_S = 20.0
"""A head that has just started lists no node for some seconds."""


class ClusterError(WpcrackError):
    """A cluster does not answer, refuses us, or cannot take the job."""


@dataclass(frozen=True)
class Node:
    """A machine of a cluster.

    Attributes:
        ip: address inside the cluster.
        is_head: whether the dashboard, and with it the driver of a job, runs there.
        resources: what Ray may hand out, like {"CPU": 8.0, "GPU": 1.0}.
    """

    ip: str
    is_head: bool
    resources: Mapping[str, float]

    @property
    def is_this_machine(self) -> bool:
        """Whether the address belongs to this machine: only then a socket can be bound to it."""
        family = socket.AF_INET6 if ":" in self.ip else socket.AF_INET
        try:
            with socket.socket(family) as probe:
                probe.bind((self.ip, 0))
        except OSError:
            return False
        return True


def connect(address: str) -> JobSubmissionClient:
    """Open the job interface of a cluster.

    Args:
        address: Of its dashboard: http://HOST:PORT, or HOST:PORT.

    Raises:
        ClusterError: Not such an address, nobody listens, or the token is missing or wrong.
    """
    url = dashboard_url(address)
    bypass_proxy(url)
    _knock(url)
    use_token()
    with explain_refusals(url), only_this_address():
        from ray.job_submission import JobSubmissionClient

        for name in TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        return JobSubmissionClient(url)


def nodes(address: str) -> list[Node]:
    """List machines of a cluster that are alive; wait a moment for a head that has just started.

    Raises:
        ClusterError: No answer, or the token is missing or wrong.
    """
    url = dashboard_url(address)
    bypass_proxy(url)
    use_token()
    end = time.monotonic() + NODES_PATIENCE_S
    while True:
        with explain_refusals(url), only_this_address():
            from ray.util.state import list_nodes

            states = list_nodes(
                address=url, filters=[("state", "=", "ALIVE")], timeout=NODES_TIMEOUT_S
            )
        if states or time.monotonic() > end:
            return [Node(s.node_ip, s.is_head_node, s.resources_total) for s in states]
        time.sleep(0.5)


def dashboard_url(address: str) -> str:
    """Return `http://HOST:PORT` of what a user gives.

    >>> dashboard_url("10.0.0.5:8265")
    'http://10.0.0.5:8265'

    Raises:
        ClusterError: An address of another kind.
    """
    url = address.rstrip("/") if "://" in address else f"http://{address.rstrip('/')}"
    parts = urlsplit(url)
    try:
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ClusterError(
            f"got --address {address}; give the address of the cluster's dashboard, like "
            "http://127.0.0.1:8265"
        )
    return url


def use_token() -> None:
    """Have Ray send its token wherever there is one, unless the user decided otherwise.

    `ray job submit` does the same; the client class does not. Call before `import ray`.
    """
    named = any(os.environ.get(name) for name in TOKEN_VARIABLES)
    if named or (Path.home() / TOKEN_FILE).is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def bypass_proxy(url: str) -> None:
    """Have this process speak to its own machine directly, whatever the proxy of its network is."""
    host = urlsplit(url).hostname or ""
    if not _is_loopback(host):
        return
    for name in ("NO_PROXY", "no_proxy"):
        known = [text for text in os.environ.get(name, "").split(",") if text]
        if host not in known:
            os.environ[name] = ",".join([*known, host])


def proxy_of(url: str) -> str | None:
    """Return the proxy that the environment names for an address."""
    parts = urlsplit(url)
    if proxy_bypass(parts.hostname or ""):
        return None
    return getproxies().get(parts.scheme)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def only_this_address() -> Iterator[None]:
    """Hide the variables by which Ray would replace the address that the user gave."""
    hidden = {name: os.environ.pop(name) for name in ADDRESS_VARIABLES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


@contextmanager
def explain_refusals(url: str) -> Iterator[None]:
    """Turn what Ray's client raises into one sentence."""
    try:
        yield
    except WpcrackError:
        raise
    except Exception as error:
        if type(error).__name__ == "AuthenticationError":
            raise ClusterError(
                f"the cluster at {url} asks for a token and got none, or a wrong one; put the "
                "token of that cluster into ~/.ray/auth_token, or set RAY_AUTH_MODE=token and "
                "RAY_AUTH_TOKEN_PATH=FILE"
            ) from error
        if isinstance(error, OSError | RuntimeError) and (proxy := proxy_of(url)):
            host = urlsplit(url).hostname
            raise ClusterError(
                f"the cluster at {url} was asked through the proxy {proxy}, which the environment "
                f"names, and gave no usable answer ({_one_line(error)}); if it can be reached "
                f"directly, set NO_PROXY={host}"
            ) from error
        if type(error) is ConnectionError:  # Ray's own; those of sockets and of requests derive
            raise ClusterError(
                f"what listens at {url} does not answer like a Ray dashboard; give the address of "
                "the dashboard (port 8265 where nobody chose another), and if this is a tunnel, "
                "see that its far end is there"
            ) from error
        if isinstance(error, OSError | RuntimeError):  # also what requests and aiohttp raise
            raise ClusterError(f"the cluster at {url} refused: {_one_line(error)}") from error
        raise


def _knock(url: str) -> None:
    """Fail within seconds where nobody listens; the client alone would try for minutes."""
    parts = urlsplit(url)
    try:
        knock(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
    except OSError as error:
        raise ClusterError(
            f"no Ray dashboard answers at {url} ({error.strerror or error}); start the cluster, "
            "or the tunnel to it (`ray dashboard cluster.yaml`, `kubectl port-forward`)"
        ) from error


def _one_line(error: Any) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]} ..."
