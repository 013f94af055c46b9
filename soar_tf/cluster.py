"""Which processes train together: read from flags or TF_CONFIG, before TensorFlow is loaded."""

import dataclasses
import json
import re
import socket

from soar_tf.errors import InputError

STRATEGIES = ("mirrored", "multi-worker")
_HOST = re.compile(r"(?:[\w.-]+|\[[0-9a-fA-F:]+\]):(\d{1,5})")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The hosts that train together.

    Attributes:
        strategy: `"mirrored"` (all devices of this host), `"multi-worker"` or `None`.
        hosts: `host:port` of every process, the chief's first; empty on a single host.
        rank: This process's place among the hosts.
    """

    strategy: str | None = None
    hosts: tuple = ()
    rank: int = 0

    def tf_config(self):
        """The cluster as TensorFlow reads it."""
        return json.dumps(
            {
                "cluster": {"worker": list(self.hosts)},
                "task": {"type": "worker", "index": self.rank},
            }
        )


def read(strategy, hosts=None, rank=None, tf_config=None):
    """Reads and checks a cluster's description.

    Args:
        strategy: One of `STRATEGIES`, or `None`.
        hosts: `"a:port,b:port"`, or `None`.
        rank: This process's index in `hosts`, or `None`.
        tf_config: Content of the TF_CONFIG environment variable, or `None`.

    Returns:
        A `Cluster`.

    Raises:
        InputError: If something is missing, malformed or contradictory.

    Example:

    >>> from soar_tf import cluster
    >>> cluster.read("multi-worker", "a:2222,b:2222", 1).hosts
    ('a:2222', 'b:2222')
    """
    if strategy != "multi-worker":
        if hosts is not None or rank is not None:
            raise InputError("`hosts` and `rank` need --strategy multi-worker.")
        return Cluster(strategy)
    if (hosts is None) != (rank is None):
        missing, given = ("rank", "hosts") if rank is None else ("hosts", "rank")
        raise InputError(f"`{given}` needs `{missing}`, too: which of the hosts is this process?")
    if hosts is not None:
        return _checked(tuple(host.strip() for host in hosts.split(",")), rank, "hosts")
    if not tf_config:
        raise InputError(
            "--strategy multi-worker needs `hosts` and `rank`, or the environment variable "
            "TF_CONFIG."
        )
    return _from_tf_config(tf_config)


def _from_tf_config(text):
    wanted = 'TF_CONFIG must look like {"cluster": {"worker": ["a:port", "b:port"]}, "task": ' + (
        '{"type": "worker", "index": 0}}'
    )
    try:
        values = json.loads(text)
        cluster, task = values["cluster"], values["task"]
        workers = [*cluster.get("chief", []), *cluster.get("worker", [])]
        index = task["index"]
        others = set(cluster) - {"chief", "worker"}
        if task["type"] == "worker":
            index += len(cluster.get("chief", []))
        known = task["type"] in ("chief", "worker") and not others
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{wanted}. Received: {text[:200]!r}.") from None
    if not known or isinstance(index, bool) or not isinstance(index, int):
        raise InputError(f"{wanted}. Received: {text[:200]!r}.")
    return _checked(tuple(workers), index, "TF_CONFIG")


def _checked(hosts, rank, argument):
    for host in hosts:
        match = _HOST.fullmatch(host) if isinstance(host, str) else None
        if match is None or not 0 < int(match[1]) < 65536:
            raise InputError(f"`{argument}` must hold host:port entries. Received: {host!r}.")
    if len(set(hosts)) < len(hosts):
        raise InputError(f"`{argument}` must name each host:port once. Received: {hosts}.")
    if not 0 <= rank < len(hosts):
        raise InputError(
            f"`rank` must be >= 0 and < {len(hosts)}, the number of hosts. Received: {rank}."
        )
    return Cluster("multi-worker", hosts, rank)


def check_reachable(cluster):
    """Refuses hosts without an address, and an own port that is taken.

    Raises:
        InputError: If a host's name has no address, or this process's port is in use.
    """
    for host in cluster.hosts:
        name, port = _split(host)
        try:
            socket.getaddrinfo(name, port)
        except OSError:
            raise InputError(f"`hosts`: {name} has no address. Received: {host!r}.") from None
    if cluster.hosts:
        name, port = _split(cluster.hosts[cluster.rank])
        with socket.socket(socket.AF_INET6 if ":" in name else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError as error:
                raise InputError(
                    f"`hosts`: port {port} cannot be used by rank {cluster.rank}: {error.strerror}."
                ) from None


def silent(cluster):
    """The hosts whose port does not answer, for the sentence after a wait in vain."""
    found = []
    for rank, host in enumerate(cluster.hosts):
        try:
            socket.create_connection(_split(host), timeout=2).close()
        except OSError:
            found.append(f"{host} (rank {rank})")
    return found


def _split(host):
    name, _, port = host.rpartition(":")
    return name.strip("[]"), int(port)
