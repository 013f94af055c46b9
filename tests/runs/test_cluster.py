"""Hosts and ranks: what is read, and the sentence for everything that cannot be."""

import contextlib
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from soar_tf.errors import InputError, RunError
from soar_tf.runs import cluster


def tf_config(task=None, **jobs):
    return json.dumps({"cluster": jobs, "task": task or {"type": "worker", "index": 0}})


def test_flags_and_tf_config_give_the_same_cluster():
    flags = cluster.read("multi-worker", "a:1, b:2", 1)
    text = tf_config({"type": "worker", "index": 1}, worker=["a:1", "b:2"])
    assert flags == cluster.read("multi-worker", tf_config=text)
    assert flags.hosts == ("a:1", "b:2") and flags.rank == 1
    assert cluster.read("multi-worker", tf_config=flags.tf_config()) == flags


def test_a_chief_is_the_first_host():
    jobs = {"chief": ["c:1"], "worker": ["a:1"]}
    chief = cluster.read("multi-worker", tf_config=tf_config({"type": "chief", "index": 0}, **jobs))
    worker = cluster.read("multi-worker", tf_config=tf_config(**jobs))
    assert chief.hosts == worker.hosts == ("c:1", "a:1")
    assert (chief.rank, worker.rank) == (0, 1)


def test_flags_win_over_tf_config():
    assert cluster.read("multi-worker", "a:1", 0, tf_config(worker=["x:9"])).hosts == ("a:1",)


def test_tf_config_is_ignored_without_multi_worker():
    assert cluster.read("mirrored", tf_config="{").hosts == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, "a:1", None), "need --strategy multi-worker"),
        (("mirrored", None, 0), "need --strategy multi-worker"),
        (("multi-worker",), "needs `hosts` and `rank`, or the environment variable TF_CONFIG"),
        (("multi-worker", "a:1,b:1"), "`hosts` needs `rank`, too"),
        (("multi-worker", None, 0), "`rank` needs `hosts`, too"),
        (("multi-worker", "a:1,b:1", 2), "`rank` must be >= 0 and < 2.*Received: 2"),
        (("multi-worker", "a,b:1", 0), "host:port entries. Received: 'a'"),
        (("multi-worker", "a:70000", 0), "host:port entries. Received: 'a:70000'"),
        (("multi-worker", "a:1,", 0), "host:port entries. Received: ''"),
        (("multi-worker", "a:1,a:1", 0), "name each host:port once"),
        (("multi-worker", None, None, "{"), "TF_CONFIG must look like"),
        (("multi-worker", None, None, "[]"), "TF_CONFIG must look like"),
        (("multi-worker", None, None, '{"cluster": {}}'), "TF_CONFIG must look like"),
        (("multi-worker", None, None, tf_config(ps=["a:1"])), "TF_CONFIG must look like"),
        (("multi-worker", None, None, tf_config(worker=[1])), "host:port entries. Received: 1"),
        (
            ("multi-worker", None, None, tf_config({"type": "worker", "index": "0"}, worker=["a"])),
            "TF_CONFIG must look like",
        ),
        (
            ("multi-worker", None, None, tf_config({"type": "worker", "index": 3}, worker=["a:1"])),
            "`rank` must be >= 0 and < 1",
        ),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(InputError, match=message):
        cluster.read(*arguments)


def test_a_taken_port_and_a_host_without_address_are_refused():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        mine = cluster.Cluster("multi-worker", (f"127.0.0.1:{port}",), 0)
        with pytest.raises(InputError, match=f"port {port} cannot be used by rank 0: "):
            mine.check_reachable()
    nowhere = cluster.Cluster("multi-worker", ("no-such-host.invalid:1",), 0)
    with pytest.raises(InputError, match=r"no-such-host.invalid has no address"):
        nowhere.check_reachable()


def local_hosts(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    hosts = tuple(f"127.0.0.1:{each.getsockname()[1]}" for each in sockets)
    for each in sockets:
        each.close()
    return hosts


def meet(hosts, ranks, timeout=10, others=None):
    """What each rank's `meet` gave: `None` or the error."""

    def one(rank):
        mine = hosts if rank == 0 or others is None else others
        try:
            cluster.Cluster("multi-worker", mine, rank).meet(timeout)
        except (InputError, RunError) as error:
            return error

    with ThreadPoolExecutor(len(ranks)) as pool:
        return list(pool.map(one, ranks))


def test_all_meet_and_the_port_is_free_at_once():
    hosts = local_hosts(3)
    assert meet(hosts, [2, 0, 1]) == [None] * 3
    assert meet(hosts, [0, 1, 2]) == [None] * 3


def test_a_stranger_on_the_port_is_ignored():
    hosts = local_hosts(2)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(meet, hosts, [0, 1])
        for _ in range(200):
            try:
                socket.create_connection(cluster._split(hosts[0]), timeout=1).sendall(b"GET /\n")
                break
            except OSError:
                pass
        assert done.result() == [None, None]


def test_who_does_not_come_is_named():
    hosts = local_hosts(3)
    chief, worker = meet(hosts, [0, 2], timeout=1)
    assert str(chief) == f"No answer within 1 s from {hosts[1]} (rank 1)."
    assert isinstance(worker, RunError)
    (alone,) = meet(hosts, [1], timeout=1)
    assert str(alone) == f"{hosts[0]} (rank 0) did not start the run within 1 s."


def test_other_hosts_are_refused():
    hosts = local_hosts(2)
    chief, worker = meet(hosts, [0, 1], timeout=2, others=(hosts[0], "other:1"))
    assert isinstance(worker, InputError) and "rank 0 was given the hosts" in str(worker)
    assert isinstance(chief, RunError)


def listening():
    """A port that is free, as a chief's and another host's place."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    "sent",
    [
        b"[" * 99_990 + b"\n",
        b'{"a":' * 20_000 + b"\n",
        b"\xff\xfe\x00garbage\n",
        b"\n",
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"7\n",
        b'{"hosts": 7, "rank": 1}\n',
        b'{"hosts": [], "rank": [1]}\n',
        b'{"hosts": [' + b"1" * 5000 + b'], "rank": 1}\n',
        b"x" * 200_000,
    ],
    ids=lambda sent: repr(sent[:20]),
)
def test_strangers_at_the_chiefs_port_are_sent_away(sent):
    port = listening()
    hosts = (f"localhost:{port}", "localhost:1")
    chief, worker = (cluster.Cluster("multi-worker", hosts, rank) for rank in (0, 1))
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(chief.meet, 60)
        for _ in range(200):
            try:
                stranger = socket.create_connection(("localhost", port), timeout=60)
                break
            except OSError:
                time.sleep(0.05)
        with stranger, contextlib.suppress(OSError):
            stranger.sendall(sent)
            stranger.shutdown(socket.SHUT_WR)
            while stranger.recv(4096):
                pass
        pool.submit(worker.meet, 60).result()
        assert waiting.result() is None


def test_a_stranger_who_dawdles_is_sent_away(monkeypatch):
    monkeypatch.setattr(cluster, "_SECONDS_TO_GREET", 0.3)
    here, there = socket.socketpair()
    with here, there, ThreadPoolExecutor(1) as pool:
        going = True

        def dawdle():
            while going:
                there.send(b"[")
                time.sleep(0.05)

        pool.submit(dawdle)
        try:
            with pytest.raises(OSError, match="timed out"):
                cluster._line(here)
        finally:
            going = False


@pytest.mark.parametrize("name", ["a..b", ".", "a" * 70, "a." + "b" * 64, "nobody.invalid"])
def test_a_name_that_cannot_be_one_has_no_address(name):
    hosts = (f"{name}:2222", "localhost:1")
    with pytest.raises(InputError, match="has no address"):
        cluster.Cluster("multi-worker", hosts, 1).check_reachable()
