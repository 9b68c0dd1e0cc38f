"""The engine server on Ray Serve: replicas of one model each, started again when they die, more as cameras come.

Our front (vcam.remote.front) ends TLS; Ray's proxy behind it, which listens on this machine alone, hands each WebSocket
to a replica; the replica itself says when it is busy, because a connection that Ray holds back hangs instead of being
refused. Metrics are Ray's own (Prometheus, at its metrics port).
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from core.errors import StreamV2VError
from vcam.errors import RemoteError
from vcam.remote.certificate import Certificate
from vcam.remote.clients import ClientBook
from vcam.remote.front import Front, have_many_files
from vcam.remote.host import BESIDE, EngineHost, engine_maker
from vcam.remote.offer import Offer
from vcam.remote.server import EngineServer
from vcam.settings.toml_schema import one_line
from vcam.worker.factories import CORE_ENGINE, check_served

LOG = logging.getLogger("vcam.serve")
INSTALL = 'pip install "streamv2v-camera[serve]"'
APPLICATION, DEPLOYMENT = "vcam", "engines"
REFUSED_AT_ONCE = 512  # connections that a full replica refuses in words, instead of Ray's letting them hang
METRICS_S = 2.0
SWITCH_S = 0.001  # for which what hands pictures over waits for the Python of another thread, at most
HEALTH_S = 5.0
PORTS_TRIED = 5  # for Ray's proxy
START_S = "180"  # until Ray's processes are there: a busy machine takes over a minute


@dataclass(frozen=True)
class ServeOptions:
    """How `vcam serve` runs. folder: with certificate and clients, which every replica reads.

    replicas, most_replicas: at the least, and at the most as cameras come. address: of a Ray that runs already, "" to
    start one on this machine, which listens on 127.0.0.1 alone. threads: CPU threads of each replica's engine. gpus: of
    each replica. factory: as in vcam.worker.factories.
    """

    offer: Offer
    certificate: Certificate
    folder: Path
    host: str = "0.0.0.0"
    port: int = 8790
    replicas: int = 1
    most_replicas: int = 1
    address: str = ""
    threads: int = 1
    gpus: float = 0.0
    factory: str = CORE_ENGINE


class EngineReplica:
    """One replica: what Ray makes in a process of its own. alone: nobody on another machine may reach it."""

    def __init__(self, offer: Offer, folder: Path, threads: int, factory: str, alone: bool) -> None:
        if alone:
            _listen_here_alone()
        sys.setswitchinterval(SWITCH_S)
        self._host = EngineHost(offer, engine_maker(factory, threads))
        self._host.preload()
        self._server = EngineServer(self._host, ClientBook(folder))
        threading.Thread(target=self._measure, name="vcam-metrics", daemon=True).start()

    def __serve_build_asgi_app__(self) -> EngineServer:
        """Return what answers; Ray asks for it by this name."""
        return self._server

    def check_health(self) -> None:
        """Raise where no engine works any more: Ray then starts another replica."""
        if self._host.broken:
            raise RemoteError(self._host.broken)

    def _measure(self) -> None:
        """Tell Ray's metrics what is done here, every METRICS_S, as long as the process lives."""
        from ray.util.metrics import Counter, Gauge

        cameras = Gauge("vcam_cameras", "Cameras that have streams on this replica")
        pictures = Counter("vcam_pictures", "Pictures translated")
        busy = Counter("vcam_engine_seconds", "Seconds that the engine worked")
        received = Counter("vcam_received_bytes", "Bytes of messages from cameras")
        sent = Counter("vcam_sent_bytes", "Bytes of answers")
        refused = Counter("vcam_refused", "Connections refused", tag_keys=("why",))
        before: dict[Any, float] = {}

        def add(counter: Any, now: float, tags: dict[str, str] | None = None) -> None:
            key = counter, *(tags or {}).values()
            if (more := now - before.get(key, 0.0)) > 0:
                counter.inc(more, tags=tags)
                before[key] = now

        while True:
            counts = self._server.counts
            cameras.set(self._host.cameras)
            add(pictures, self._host.work.pictures)
            add(busy, self._host.work.busy_s)
            add(received, counts.received_bytes)
            add(sent, counts.sent_bytes)
            for why, count in list(counts.refused.items()):
                add(refused, count, {"why": str(why)})
            time.sleep(METRICS_S)


def _listen_here_alone() -> None:
    """Have the server that Ray Serve opens in each replica, for other deployments, listen on 127.0.0.1 alone.

    Ray 2.60 opens it on all addresses once the replica is made, and has no setting for that. Nobody calls it here.
    """
    replica: Any = import_module("ray.serve._private.replica")
    try:
        opened = replica.add_port_to_grpc_server
    except AttributeError:
        LOG.warning("this version of Ray Serve opens the ports of its replicas as it likes: see to the firewall")
        return

    def opened_here(server: Any, address: str) -> Any:
        return opened(server, address.replace("[::]", "127.0.0.1"))

    replica.add_port_to_grpc_server = opened_here


def no_room(offer: Offer, copies: int) -> str:
    """Return why this machine's memory is too small for what is offered, or the model cannot be had; "" if it is not.

    copies: engines that share the memory.
    """
    try:
        check_served(offer.usual, offer.streams, copies)
    except StreamV2VError as error:
        return str(error)
    return ""


def start(options: ServeOptions, begins: Callable[[], None] = lambda: None) -> Front:
    """Start Ray, unless one runs, and the server on it; return its front when it takes cameras. Raises RemoteError.

    begins: called once Ray is known to be installed, before the minute that all of it takes.
    """
    # nothing of a user's is told to anybody, and no page that runs code is opened
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_raylet_start_wait_time_s", START_S)
    # Ray's own is 15: on a machine that does anything else an engine then had a sixth of the pictures
    os.environ.setdefault("RAY_worker_niceness", "0")
    if not options.address:
        # read when Ray is loaded; else it takes the network's address in place of 127.0.0.1, and listens on all
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray.serve
    except ImportError as error:
        raise RemoteError(f"vcam serve needs Ray Serve, which cannot be loaded ({error}): {INSTALL}") from error

    begins()
    have_many_files()
    front = Front(options.host, options.port, options.certificate)  # a port that is taken is told before Ray starts
    try:
        front.behind = _start_behind(ray, options)
    except BaseException:
        front.close()
        raise
    return front


def at_free_port(listen: Callable[[int], None], undo: Callable[[], None]) -> int:
    """Have a program listen at a free port of this machine, and return the port.

    listen: raises where it cannot. Another port is tried, after `undo`, where somebody has taken the first meanwhile.
    Raises RemoteError where nobody holds the port afterwards: whoever took it then would hear what cameras say.
    """
    for left in reversed(range(PORTS_TRIED)):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
        try:
            listen(port)
        except Exception as error:  # Ray's own: its cause is an OSError in another process
            if not left or "bind" not in str(error):
                raise
            undo()
        else:
            if _is_free(port):
                raise RemoteError(
                    "Ray's proxy is not there: its Serve ran already, or this is not its head; end it there "
                    "(serve shutdown), and start vcam serve on the head"
                )
            return port
    raise AssertionError("the last try returns or raises")


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _start_behind(ray: Any, options: ServeOptions) -> int:
    """Start Ray and its proxy, which listens at a port of this machine alone; return the port."""
    from ray import serve
    from ray.serve.config import AutoscalingConfig, HTTPOptions, ProxyLocation

    try:
        if options.address:
            ray.init(options.address, log_to_driver=False)
        else:
            own = max(os.cpu_count() or 1, options.most_replicas + 1)
            ray.init(num_cpus=own, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    except Exception as error:  # Ray raises plain Exception where its processes do not come
        raise RemoteError(f"Ray cannot be started or reached: {one_line(error)}") from error
    if options.factory == CORE_ENGINE:
        _predict(ray, options)

    def listen(port: int) -> None:
        serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port), proxy_location=ProxyLocation.HeadOnly)

    autoscaling = AutoscalingConfig(
        min_replicas=options.replicas,
        max_replicas=max(options.replicas, options.most_replicas),
        target_ongoing_requests=options.offer.streams,
        upscale_delay_s=2.0,
        downscale_delay_s=300.0,
    )
    deployment = serve.deployment(
        name=DEPLOYMENT,
        autoscaling_config=autoscaling,
        max_ongoing_requests=options.offer.streams * (1 + BESIDE) + REFUSED_AT_ONCE,
        health_check_period_s=HEALTH_S,
        graceful_shutdown_timeout_s=2.0,
        ray_actor_options={"num_cpus": 1, "num_gpus": options.gpus},
    )(serve.ingress()(EngineReplica))
    bound = deployment.bind(options.offer, options.folder, options.threads, options.factory, not options.address)
    try:
        port = at_free_port(listen, serve.shutdown)
        serve.run(bound, name=APPLICATION, route_prefix="/")
    except Exception as error:
        ray.shutdown()
        raise RemoteError(f"the server could not be started on Ray: {one_line(error)}") from error
    return port


def _predict(ray: Any, options: ServeOptions) -> None:
    """Raise RemoteError where a machine that replicas start on has too little memory; nothing is loaded for it."""
    # replicas of another cluster's machines, or with a card each, have memory of their own
    copies = 1 if options.address or options.gpus else max(options.replicas, options.most_replicas)
    asked = ray.remote(num_cpus=1, num_gpus=options.gpus, max_calls=1)(no_room)  # its process goes, and its memory
    try:
        why = ray.get(asked.remote(options.offer, copies))
    except Exception as error:
        ray.shutdown()
        raise RemoteError(f"the memory could not be looked at: {one_line(error)}") from error
    if why:
        ray.shutdown()
        raise RemoteError(why)


def stop(front: Front) -> None:
    """End the server, and the Ray that was started for it."""
    import ray
    from ray import serve

    front.close()
    serve.shutdown()
    ray.shutdown()


def wait_until_told(beat_s: float = 0.5) -> None:
    """Return when the process is told to end (SIGINT, SIGTERM)."""
    import signal

    told = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told.set())
    while not told.wait(beat_s):  # a wait without end would not hear a signal on Windows
        pass
    print("vcam: the server ends", file=sys.stderr, flush=True)
