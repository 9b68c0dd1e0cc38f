"""What vcam serve does before and around Ray; Ray itself is in tests/programs/test_ray_serve.py."""

from __future__ import annotations

import os
import socket
import ssl
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

from core.models import device_memory
from core.settings import EngineSettings, Runtime
from tests.support.engine_server import fake_offer, wait_long
from tests.support.fake_engine import FACTORY
from tests.support.patience import PATIENCE_S
from vcam.errors import RemoteError
from vcam.remote import cluster
from vcam.remote.certificate import Certificate, made_certificate
from vcam.remote.cluster import SWITCH_S, EngineReplica, ServeOptions, at_free_port, no_room
from vcam.remote.exchange import ServerCounts
from vcam.remote.front import Front
from vcam.remote.offer import Offer

SMALL = EngineSettings("embedded", 128, 96, 1, runtime=Runtime.EAGER, device="cpu")


class HereRay:
    """Ray, as far as it is asked before the server is started: calls functions here."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.over = False

    def remote(self, **options: Any) -> Callable[[Callable[..., Any]], Any]:
        self.asked.append(options)

        class Remote:
            def __init__(self, call: Callable[..., Any]) -> None:
                self.remote = call

        return Remote

    def get(self, result: Any) -> Any:
        return result

    def shutdown(self) -> None:
        self.over = True


def test_too_little_memory_for_the_streams_ends_the_start_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    offer = Offer(SMALL, 4)
    monkeypatch.setattr(device_memory, "free", lambda device: 40_000_000_000)
    assert no_room(offer, 1) == ""
    monkeypatch.setattr(device_memory, "free", lambda device: 400_000_000)
    own = Certificate(Path(), Path(), "")
    options = ServeOptions(replace(offer, streams=64), own, Path(), replicas=8)
    ray = HereRay()
    with pytest.raises(RemoteError, match=r"8 engines, each with 64 streams, needs .* are free on cpu"):
        cluster._predict(ray, options)
    assert ray.over
    for more in (replace(options, replicas=1, most_replicas=8), replace(options, replicas=8, most_replicas=2)):
        with pytest.raises(RemoteError, match="8 engines"):  # as many as there may once be
            cluster._predict(HereRay(), more)
    cards = HereRay()
    cluster._predict(cards, replace(options, gpus=1.0, offer=offer))  # each has its own memory
    assert cards.asked == [{"num_cpus": 1, "num_gpus": 1.0, "max_calls": 1}]
    assert not cards.over


def test_a_model_that_cannot_be_had_ends_the_start_in_a_sentence() -> None:
    assert "model 'absent' is neither a known name" in no_room(Offer(replace(SMALL, model="absent")), 1)


def test_a_port_that_somebody_took_meanwhile_is_left_for_another() -> None:
    tried: list[int] = []
    undone: list[int] = []
    holders: list[socket.socket] = []

    def listen(port: int) -> None:
        tried.append(port)
        if len(tried) == 1:
            raise RuntimeError(f"Failed to bind to address '127.0.0.1:{port}'.")
        holders.append(socket.create_server(("127.0.0.1", port)))

    assert at_free_port(listen, lambda: undone.append(len(tried))) == tried[-1]
    assert undone == [1]
    holders.pop().close()
    with pytest.raises(RemoteError, match="Ray's proxy is not there"):
        at_free_port(lambda port: None, lambda: None)

    def never(port: int) -> None:
        tried.append(port)
        raise RuntimeError("Failed to bind to it" if len(tried) < 20 else "something else")

    tried.clear()
    with pytest.raises(RuntimeError, match="Failed to bind"):
        at_free_port(never, lambda: None)
    assert len(tried) == cluster.PORTS_TRIED
    tried.extend(range(20))
    with pytest.raises(RuntimeError, match="something else"):
        at_free_port(never, lambda: None)
    assert len(tried) == cluster.PORTS_TRIED + 21


def test_cameras_reach_no_port_before_what_is_started_holds_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Any program may have a port that was found free and let go."""
    seen: list[tuple[int | None, bytes]] = []
    for name in ("ray", "ray.serve"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    options = ServeOptions(Offer(SMALL, 1), made_certificate(tmp_path), tmp_path, "127.0.0.1", 0)
    fronts: list[Front] = []

    def made(*values: Any) -> Front:
        fronts.append(Front(*values))
        return fronts[0]

    def started(ray: object, asked: ServeOptions) -> int:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(("127.0.0.1", fronts[0].port), PATIENCE_S) as plain:
            connection = context.wrap_socket(plain)
            connection.sendall(b"GET /health HTTP/1.1\r\n\r\n")
            seen.append((fronts[0].behind, connection.recv(12)))
            connection.close()
        return 4321

    wait_long(monkeypatch)
    monkeypatch.setattr(cluster, "Front", made)
    monkeypatch.setattr(cluster, "_start_behind", started)
    front = cluster.start(options)
    front.close()
    assert seen == [(None, b"HTTP/1.1 503")]
    assert front.behind == 4321


@pytest.mark.parametrize(("address", "told"), [("", "0"), ("auto", None)])
def test_a_ray_of_our_own_listens_on_this_machine_alone_and_its_engines_do_not_step_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str, told: str | None
) -> None:
    """Ray reads it when it is loaded; else it takes this machine's address of the network for 127.0.0.1."""
    names = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "RAY_worker_niceness"
    for name in names:
        monkeypatch.setenv(name, "as it was")
        monkeypatch.delenv(name)
    seen: list[str | None] = []

    def started(ray: object, asked: ServeOptions) -> int:
        seen.extend(os.environ.get(name) for name in names)
        return 1

    for one in ("ray", "ray.serve"):
        monkeypatch.setitem(sys.modules, one, ModuleType(one))
    monkeypatch.setattr(cluster, "_start_behind", started)
    options = ServeOptions(Offer(SMALL, 1), made_certificate(tmp_path), tmp_path, "127.0.0.1", 0, address=address)
    cluster.start(options).close()
    assert seen == [told, "0"]


def test_in_a_replica_no_thread_waits_long_for_the_python_of_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = sys.getswitchinterval()
    monkeypatch.setattr(EngineReplica, "_measure", lambda self: None)
    replica = EngineReplica(fake_offer(), tmp_path, 1, FACTORY, alone=False)
    try:
        assert before > SWITCH_S
        assert sys.getswitchinterval() == pytest.approx(SWITCH_S)
    finally:
        sys.setswitchinterval(before)
        replica.__serve_build_asgi_app__().close()


class HereServe(ModuleType):
    """Ray Serve, as far as it is asked: holds the port, and keeps what the deployment was to be."""

    def __init__(self) -> None:
        super().__init__("ray.serve")
        self.listening: list[socket.socket] = []
        self.deployed: dict[str, Any] = {}
        self.bound: tuple[Any, ...] = ()

    def start(self, http_options: Any, proxy_location: object) -> None:
        self.listening.append(socket.create_server((http_options.host, http_options.port)))

    def deployment(self, **options: Any) -> Callable[[Any], Any]:
        self.deployed = options
        return lambda made: SimpleNamespace(bind=self.bind)

    def bind(self, *values: Any) -> object:
        self.bound = values
        return self

    def ingress(self) -> Callable[[Any], Any]:
        return lambda made: made

    def run(self, bound: object, name: str, route_prefix: str) -> None:
        assert bound is self

    def shutdown(self) -> None:
        """Nothing runs."""


@pytest.mark.parametrize(("replicas", "most"), [(1, 1), (1, 5), (3, 2)])
def test_replicas_come_with_the_streams_that_cameras_take(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, replicas: int, most: int
) -> None:
    serve = HereServe()
    configured = ModuleType("ray.serve.config")
    vars(configured).update(
        AutoscalingConfig=dict, HTTPOptions=SimpleNamespace, ProxyLocation=SimpleNamespace(HeadOnly="")
    )
    ray: Any = ModuleType("ray")
    ray.serve, ray.init = serve, lambda *values, **options: None
    for one in (ray, serve, configured):
        monkeypatch.setitem(sys.modules, one.__name__, one)
    own = made_certificate(tmp_path)
    options = ServeOptions(fake_offer(4), own, tmp_path, replicas=replicas, most_replicas=most, factory=FACTORY)
    port = cluster._start_behind(ray, options)
    assert [one.getsockname() for one in serve.listening] == [("127.0.0.1", port)]
    for one in serve.listening:
        one.close()
    scaling = serve.deployed["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (replicas, max(replicas, most))
    assert scaling["target_ongoing_requests"] == 4  # a camera's connection is one
    assert serve.deployed["max_ongoing_requests"] > 4 + 200  # what is too much is refused by us, in words
    assert serve.bound[:2] == (options.offer, tmp_path)


class Meter:
    """One of Ray's metrics: what it was told, by its tags."""

    every: ClassVar[dict[str, dict[str, float]]] = {}

    def __init__(self, name: str, text: str, tag_keys: tuple[str, ...] = ()) -> None:
        assert text
        self.told: dict[str, float] = {}
        self.every[name] = self.told

    def set(self, value: float) -> None:
        self.told[""] = value

    def inc(self, value: float, tags: dict[str, str] | None = None) -> None:
        assert value > 0  # Ray takes no other
        tag = "".join((tags or {}).values())
        self.told[tag] = self.told.get(tag, 0) + value


class OverError(Exception):
    """The metrics were told as often as was wanted."""


def test_what_a_replica_does_is_told_to_rays_metrics_as_it_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = ModuleType("ray.util.metrics")
    vars(metrics).update(Counter=Meter, Gauge=Meter)
    monkeypatch.setattr(Meter, "every", {})
    monkeypatch.setitem(sys.modules, "ray.util.metrics", metrics)
    replica: Any = object.__new__(EngineReplica)
    work = SimpleNamespace(pictures=10, busy_s=0.5)
    counts = ServerCounts(received_bytes=1000, sent_bytes=0, refused=Counter(busy=3))
    replica._host, replica._server = SimpleNamespace(cameras=2, work=work), SimpleNamespace(counts=counts)
    beats: list[float] = []

    def sleep(seconds: float) -> None:
        beats.append(seconds)
        if len(beats) == 3:
            raise OverError
        replica._host.cameras, work.pictures, work.busy_s, counts.sent_bytes = 1, 25, 1.5, 700
        counts.refused["token"] = 1

    monkeypatch.setattr(cluster, "time", SimpleNamespace(sleep=sleep))
    with pytest.raises(OverError):
        replica._measure()
    assert Meter.every == {
        "vcam_cameras": {"": 1},
        "vcam_pictures": {"": 25},
        "vcam_engine_seconds": {"": 1.5},
        "vcam_received_bytes": {"": 1000},
        "vcam_sent_bytes": {"": 700},
        "vcam_refused": {"busy": 3, "token": 1},
    }
