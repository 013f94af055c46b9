"""Which processes train together: read from flags or TF_CONFIG, before TensorFlow is loaded."""

import contextlib
import dataclasses
import json
import re
import socket
import time

from soar_tf.errors import InputError, RunError

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

    def check_reachable(self):
        """Refuses hosts without an address, and an own port that is taken.

        Raises:
            InputError: If a host's name has no address, or this process's port is in use.
        """
        for host in self.hosts:
            name, port = _split(host)
            try:
                socket.getaddrinfo(name, port)
            except (OSError, UnicodeError):  # a name such as a..b cannot be encoded
                raise InputError(f"`hosts`: {name} has no address. Received: {host!r}.") from None
        if self.hosts:
            name, port = _split(self.hosts[self.rank])
            with socket.socket(socket.AF_INET6 if ":" in name else socket.AF_INET) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("", port))
                except OSError as error:
                    raise InputError(
                        f"`hosts`: port {port} cannot be used by rank {self.rank}: "
                        f"{error.strerror}."
                    ) from None

    def meet(self, timeout):
        """Waits until every process is there: rank 0 listens on its port, and the others come.

        TensorFlow itself waits without limit, and where no signal and no thread is heard.

        Args:
            timeout: Seconds to wait.

        Raises:
            InputError: If a process was given other hosts, or another one's rank.
            RunError: If somebody has not come in time.
        """
        end = time.monotonic() + timeout
        if self.rank == 0:
            _await_all(self, end, timeout)
            return
        greeting = json.dumps({"hosts": self.hosts, "rank": self.rank}) + "\n"
        while (left := end - time.monotonic()) > 0:
            try:
                with socket.create_connection(_split(self.hosts[0]), timeout=left) as connection:
                    connection.sendall(greeting.encode())
                    answer = connection.makefile(encoding="utf-8", errors="replace").readline(_LINE)
            except OSError:
                answer = ""
            if answer == _GO:
                return
            if answer.startswith(_REFUSED):
                raise InputError(answer.removeprefix(_REFUSED).strip())
            time.sleep(0.2)  # nobody there yet, or a run that is about to end
        raise RunError(f"{self.hosts[0]} (rank 0) did not start the run within {timeout:g} s.")


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

    >>> from soar_tf.runs import cluster
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
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
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


_SECONDS_TO_GREET = 5
_LINE, _GO, _REFUSED = 100_000, "soar-tf: go\n", "soar-tf: refused: "


def _await_all(cluster, end, timeout):
    name, port = _split(cluster.hosts[0])
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    here = {}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("", port), family=family))
        while len(here) < len(cluster.hosts) - 1:
            server.settimeout(max(0.01, end - time.monotonic()))
            rank = None
            with contextlib.suppress(OSError), contextlib.ExitStack() as one:
                connection = one.enter_context(server.accept()[0])
                if (rank := _greeted(connection, cluster, here)) is not None:
                    here[rank] = connection
                    stack.push(one.pop_all())  # strangers' connections are closed at once
            if rank is None and time.monotonic() > end:
                missing = [
                    f"{host} (rank {rank})"
                    for rank, host in enumerate(cluster.hosts)
                    if rank and rank not in here
                ]
                raise RunError(f"No answer within {timeout:g} s from {', '.join(missing)}.")
        for connection in here.values():
            connection.sendall(_GO.encode())
        for connection in here.values():
            connection.recv(1)  # the other side closes first, so that the port is free at once


def _line(connection):
    """The first line that somebody sends, who has a few seconds for all of it."""
    end, line = time.monotonic() + _SECONDS_TO_GREET, b""
    while b"\n" not in line and len(line) < _LINE:
        connection.settimeout(max(0.01, end - time.monotonic()))
        if not (more := connection.recv(4096)):
            break
        line += more
    return line.partition(b"\n")[0]


def _greeted(connection, cluster, here):
    """The rank of who has come; `None` for strangers."""
    try:
        greeting = json.loads(_line(connection))
        hosts, rank = tuple(greeting["hosts"]), greeting["rank"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    problem = None
    if hosts != cluster.hosts:
        problem = f"rank 0 was given the hosts {', '.join(cluster.hosts)}."
    elif rank not in range(1, len(hosts)):
        problem = f"`rank` {rank} is none of the other {len(hosts) - 1}."
    elif rank in here:
        problem = f"`rank` {rank} is taken by another process."
    if problem:
        connection.sendall(f"{_REFUSED}{problem}\n".encode())
        return None
    return rank


def _split(host):
    name, _, port = host.rpartition(":")
    return name.strip("[]"), int(port)
