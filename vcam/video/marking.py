"""What each finished film and picture says of itself: what AI made of it, by metadata and Content Credentials."""

from __future__ import annotations

import functools
import io
import os
import shutil
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from core.settings import Origin
from vcam.errors import VideoError
from vcam.video.identity import Identity, configured_identity, own_identity
from vcam.video.media import Note, reason, to_stderr

PROGRAM = "StreamV2V Camera"
_IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"
# IPTC's words: a camera's picture that a generative model has drawn over, and one that it has made of a text.
DIGITAL_SOURCES = {
    Origin.TRANSLATED: f"{_IPTC}compositeWithTrainedAlgorithmicMedia",
    Origin.GENERATED: f"{_IPTC}trainedAlgorithmicMedia",
}
SIGNED_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
_XMP_IN_FILMS = (".mp4", ".m4v", ".mov")
_XMP_BOX = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")  # the UUID that the XMP specification gives
_ANYTHING = b'<svg xmlns="http://www.w3.org/2000/svg"></svg>'  # to be signed, to see whether it can be
_TO_SPARE = 64 << 20  # bytes that marking leaves free on the disk
_METADATA_ALONE = "the file says that it is {}, but has no signed content credentials: {}"
_MISSING = "the package c2pa-python is missing; pip install c2pa-python cryptography"
_BROKEN = "what signs cannot be loaded ({}); pip install --force-reinstall c2pa-python cryptography"


class MarkingWanted(Protocol):
    """What of marking is to be chosen (vcam.settings.config.MarkingSettings)."""

    @property
    def credentials(self) -> bool:
        """Whether files carry Content Credentials."""

    @property
    def certificate(self) -> Path | None:
        """The signer's certificate and those above it (PEM); None: one that is made on this machine."""

    @property
    def key(self) -> Path | None:
        """The certificate's private key (PEM)."""


@dataclass(frozen=True)
class Marker:
    """Marks what is written. identity: who signs the Content Credentials; None: there are none, only metadata.

    note: told, once each, why something carries no credentials. origin: what it is marked as.
    """

    identity: Identity | None = None
    note: Note = to_stderr
    origin: Origin = Origin.TRANSLATED
    _said: set[str] = field(default_factory=set, repr=False, compare=False)

    def finished(self, path: Path) -> None:
        """Mark a finished film or picture where it lies; what cannot be marked stays as it is, and that is noted.

        Time and disk: about those of copying the file.
        """
        try:
            if path.suffix.lower() in _XMP_IN_FILMS:
                _append_xmp(path, xmp(self.origin))
            if self.identity is not None and path.suffix.lower() in SIGNED_SUFFIXES:
                self._sign(path, self.identity)
        except OSError as error:
            self._say(f"{path}: carries no content credentials: {reason(error)}")

    def picture(self, data: bytes, suffix: str) -> bytes:
        """Return an encoded picture with Content Credentials; one that cannot carry them as it is."""
        if self.identity is None or suffix not in SIGNED_SUFFIXES:
            return data
        signed = io.BytesIO()
        if trouble := _signed(self.identity, suffix, io.BytesIO(data), signed, self.origin):
            self._say(f"pictures carry no content credentials: {trouble}")
            return data
        return signed.getvalue()

    def _sign(self, path: Path, identity: Identity) -> None:
        if shutil.disk_usage(path.absolute().parent).free < path.stat().st_size + _TO_SPARE:
            self._say(f"{path}: carries no content credentials: the disk has no room for the copy that is signed")
            return
        copy = path.with_name(f".{path.stem}.marking{path.suffix}")
        try:
            with path.open("rb") as source, copy.open("w+b") as target:
                trouble = _signed(identity, path.suffix.lower(), source, target, self.origin)
            if trouble:
                self._say(f"{path}: carries no content credentials: {trouble}")
            else:
                shutil.copymode(path, copy)
                os.replace(copy, path)
        finally:
            copy.unlink(missing_ok=True)

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self.note(text)


METADATA_ALONE = Marker()


def marker_for(wanted: MarkingWanted | None, note: Note = to_stderr, origin: Origin = Origin.TRANSLATED) -> Marker:
    """Return the marker that is wanted, ready to sign; raise VideoError for a certificate of the user's that cannot.

    wanted: None for metadata alone, which is also what there is, with a note, where the package is missing or broken,
    or no certificate can be made.
    """
    alone = Marker(note=note, origin=origin)
    if wanted is None or not wanted.credentials:
        return alone
    if trouble := load():
        note(_METADATA_ALONE.format(origin, trouble))
        return alone
    try:
        chosen = configured_identity(wanted.certificate, wanted.key)
    except OSError as error:
        raise VideoError(f"[marking] {error.filename} cannot be read ({reason(error)})") from error
    if chosen is not None:
        if trouble := _signed(chosen, ".svg", io.BytesIO(_ANYTHING), io.BytesIO()):
            raise VideoError(
                f"[marking] certificate {wanted.certificate} with key {wanted.key} cannot sign ({trouble}); "
                "docs/marking.md says what it must be"
            )
        return Marker(chosen, note, origin)
    try:
        return Marker(own_identity(), note, origin)
    except OSError as error:
        note(f"files carry no content credentials: the certificate cannot be kept ({reason(error)})")
        return alone


@functools.lru_cache(maxsize=1)
def load() -> str:
    """Load what signs, which takes a moment; return why it cannot be used, "" if it can."""
    try:
        import c2pa  # noqa: F401
        import cryptography.hazmat.primitives.asymmetric.ec
        import cryptography.x509  # noqa: F401
    except ModuleNotFoundError:
        return _MISSING
    except Exception as error:  # noqa: BLE001  of a native library that does not load: of no common class
        return _BROKEN.format(reason(error))
    return ""


def film_tags(origin: Origin) -> dict[str, str]:
    """Return what a film's container says: set it as its metadata before the head is written."""
    source = DIGITAL_SOURCES[origin]
    return {"comment": f"{origin} by {PROGRAM}; digital source type: {source}", "DigitalSourceType": source}


@functools.cache
def xmp(origin: Origin) -> bytes:
    """Return the XMP packet that says so, with IPTC's digital source type."""
    return f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 Iptc4xmpExt:DigitalSourceType="{DIGITAL_SOURCES[origin]}" xmp:CreatorTool="{PROGRAM} {_version()}">
<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{origin}</rdf:li></rdf:Alt></dc:description>
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>""".encode()


def _append_xmp(path: Path, packet: bytes) -> None:
    """Add the XMP packet as a box at the end of an MP4 or MOV; what cannot be added leaves the file as it was."""
    box = (24 + len(packet)).to_bytes(4, "big") + b"uuid" + _XMP_BOX + packet
    with path.open("r+b") as file:
        size = file.seek(0, io.SEEK_END)
        try:
            file.write(box)
            file.flush()
        except OSError:
            file.truncate(size)
            raise


def _signed(identity: Identity, suffix: str, source: Any, target: Any, origin: Origin = Origin.TRANSLATED) -> str:
    """Write to `target` what `source` holds, with Content Credentials; return what went wrong, "" if nothing did."""
    import c2pa

    try:
        signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(identity.algorithm, identity.chain, identity.key, None))
        builder = c2pa.Builder(_manifest(origin), c2pa.Context.from_dict(_SETTINGS))
        builder.sign(signer, suffix.removeprefix("."), source, target)
    except c2pa.C2paError as error:
        return reason(error)
    return ""


_SETTINGS = {
    "builder": {"thumbnail": {"enabled": False}},  # a second picture in each file
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},  # nothing of the network
}


def _manifest(origin: Origin) -> dict[str, Any]:
    program = {"name": PROGRAM, "version": _version()}
    made = {
        "action": "c2pa.created",
        "digitalSourceType": DIGITAL_SOURCES[origin],
        "softwareAgent": program,
        "description": str(origin),
    }
    return {
        "claim_generator_info": [program],
        "assertions": [{"label": "c2pa.actions", "data": {"actions": [made]}}],
    }


@functools.lru_cache(maxsize=1)
def _version() -> str:
    try:
        return metadata.version("streamv2v-camera")
    except metadata.PackageNotFoundError:  # a checkout that was never installed
        return "0"
