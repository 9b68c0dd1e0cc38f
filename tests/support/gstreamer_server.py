"""An RTSP camera by GStreamer's server, for the system's Python (`gi`): PORT [basic|digest|open] [tcp|udp] [SECONDS].

Its user is `admin`, its password `p@ss/word`; it ends by itself after SECONDS (120).
"""

from __future__ import annotations

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

USER, PASSWORD = "admin", "p@ss/word"
PICTURES = (
    "( videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=25/1 "
    "! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 ! rtph264pay name=pay0 pt=96 config-interval=1 )"
)


def main(port: str, door: str = "open", way: str = "tcp", seconds: str = "120") -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer.new()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory.new()
    factory.set_launch(PICTURES)
    factory.set_shared(True)
    factory.set_protocols({"tcp": GstRtsp.RTSPLowerTrans.TCP, "udp": GstRtsp.RTSPLowerTrans.UDP}[way])
    if door != "open":
        token = GstRtspServer.RTSPToken.new()
        token.set_string("media.factory.role", USER)
        auth = GstRtspServer.RTSPAuth.new()
        methods = GstRtsp.RTSPAuthMethod
        auth.set_supported_methods(methods.DIGEST if door == "digest" else methods.BASIC)
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(USER, PASSWORD), token)
        auth.add_digest(USER, PASSWORD, token)
        server.set_auth(auth)
        allowed = GstRtspServer.RTSPPermissions.new()
        allowed.add_permission_for_role(USER, "media.factory.access", True)
        allowed.add_permission_for_role(USER, "media.factory.construct", True)
        factory.set_permissions(allowed)
    server.get_mount_points().add_factory("/live", factory)
    server.attach(None)
    loop = GLib.MainLoop()
    GLib.timeout_add_seconds(int(seconds), loop.quit)
    print("ready", flush=True)
    loop.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
