"""`vcam serve`, its list of clients, and `vcam pair` on the other machine."""

from __future__ import annotations

import getpass
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from vcam.cli.output import counted, print_note, print_result
from vcam.errors import OptionError, RemoteError

FOLDER = "serve"  # of the state folder: certificate, clients
LONGEST_PAIRING = 4096  # characters


def serve(args: Namespace) -> int:
    """Carry out `vcam serve ...`; return the exit status."""
    words = args.action
    if not words:
        return _run(args)
    if words[0] != "clients" or len(words) < 2 or (words[1] == "list") != (len(words) == 2) or len(words) > 3:
        raise OptionError("vcam serve runs the server; vcam serve clients list | add NAME | revoke NAME")
    from vcam.remote.clients import ClientBook

    book = ClientBook(_folder())
    match words[1:]:
        case ["list"]:
            known = book.clients()
            rows = [f"{one.name}  {'revoked' if one.revoked else 'let in'}, since {one.added}" for one in known]
            data = [{"name": one.name, "added": one.added, "revoked": one.revoked} for one in known]
            print_result(args, {"clients": data}, "\n".join(rows) or "no client is let in; vcam serve clients add NAME")
        case ["add", name]:
            _add(args, book, name)
        case ["revoke", name]:
            book.revoke(name)
            print_result(args, {"revoked": name}, f"{name} is not let in any more; its streams end within a second")
        case _:
            raise OptionError("vcam serve clients list | add NAME | revoke NAME")
    return 0


def pair(args: Namespace) -> int:
    """Carry out `vcam pair`: keep what the server gave for this camera."""
    from vcam.remote import paired
    from vcam.settings.config import check_address, config_folder

    place = check_address("the address", args.server)
    paired.pair(config_folder(), place, _pairing_text(args))
    print_result(args, {"server": place}, f"paired with {place}; vcam run --remote {place}")
    return 0


def _pairing_text(args: Namespace) -> str:
    """Return the pairing text: from a file, the terminal (where it is not shown) or standard input; last, as given."""
    if args.pairing_file is not None and args.pairing is not None:
        raise OptionError("--from and TEXT exclude each other")
    if args.pairing_file is not None:
        try:
            with open(args.pairing_file, encoding="utf-8", errors="replace") as file:
                return file.readline(LONGEST_PAIRING)
        except OSError as error:
            raise OptionError(f"{args.pairing_file} cannot be read ({error.strerror or error})") from error
    if args.pairing is None and sys.stdin.isatty():
        return getpass.getpass("vcam: the text that vcam serve clients add printed (it is not shown): ")
    if args.pairing in (None, "-"):
        return sys.stdin.readline(LONGEST_PAIRING)
    print_note(
        "what is written on the command line is seen by other users of this machine, and kept by your shell: better "
        "leave the text out, and paste it when it is asked for"
    )
    return str(args.pairing)


def _folder() -> Path:
    from vcam import client

    return client.state_folder() / FOLDER


def _add(args: Namespace, book: Any, name: str) -> None:
    from vcam.remote.certificate import made_certificate
    from vcam.remote.clients import Pairing

    vouched = bool(args.certificate)
    fingerprint = "" if vouched else made_certificate(_folder()).fingerprint
    text = Pairing(book.add(name), fingerprint).to_text()
    print_note("this is shown once; whoever has it is let in. At the camera: vcam pair wss://THIS-MACHINE:8790")
    print_result(args, {"name": name, "pairing": text}, text)


def _run(args: Namespace) -> int:
    from vcam.cli.arguments import check
    from vcam.remote.certificate import made_certificate, own_certificate
    from vcam.remote.cluster import ServeOptions, start, stop, wait_until_told
    from vcam.remote.offer import Offer
    from vcam.settings.config import load_config
    from vcam.settings.engine_options import EngineOptions, engine_settings
    from vcam.settings.run_options import DEFAULT_SIZE, cores

    check(args)
    config = load_config()
    if bool(args.certificate) != bool(args.key):
        raise OptionError("--certificate and --key go together")
    folder = _folder()
    certificate = own_certificate(args.certificate, args.key) if args.certificate else made_certificate(folder)
    models = tuple(dict.fromkeys(args.model or (config.engine.model or "embedded",)))
    asked = EngineOptions.read(args, args.engine_size)
    usual = engine_settings(
        *(EngineOptions(**(asked.given() | {"model": models[0]})), config.engine), shape=DEFAULT_SIZE, automatic={}
    )
    loras = {path.name: str(path.resolve()) for path in args.lora or ()}
    if missing := [str(path) for path in args.lora or () if not path.is_file()]:
        raise RemoteError(f"there is no LoRA {missing[0]}")
    threads = args.threads or max(1, cores() // max(1, args.replicas))
    options = ServeOptions(
        Offer(usual, args.streams, models, loras, per_client=args.per_client or 0),
        certificate,
        folder,
        args.host,
        args.port,
        args.replicas,
        max(args.replicas, args.most_replicas or 0),
        args.ray or "",
        threads,
        1.0 if usual.device.startswith("cuda") else 0.0,
    )
    front = start(options, lambda: print_note("starting Ray, and an engine in each replica; this takes a minute"))
    try:
        where = f"wss://{'[' + args.host + ']' if ':' in args.host else args.host}:{front.port}"
        print_note(
            f"serving {', '.join(models)} at {where}: {counted(args.streams, 'camera')} a replica, "
            f"{counted(args.replicas, 'replica')}"
        )
        wait_until_told()
    finally:
        stop(front)
    print_result(args, {"address": where}, "the server has ended")
    return 0
