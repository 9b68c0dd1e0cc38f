#!/usr/bin/env bash
# Sets up the virtual camera "StreamV2V Camera", so that Zoom, Teams, OBS and browsers list it. Can be run again.
#
#   ./install_scripts/camera.sh            says what it would do, asks, does it
#   ./install_scripts/camera.sh --yes      does not ask
#   ./install_scripts/camera.sh --dry-run  only says it
#   ./install_scripts/camera.sh --undo     takes everything back that it did
#
# Linux: the kernel module v4l2loopback, loaded now and at every start. macOS: says what to click in OBS.
set -euo pipefail

LABEL="StreamV2V Camera"
ROOT=${CAMERA_ROOT:-} # tests put another system's files there
OPTIONS="$ROOT/etc/modprobe.d/streamv2v-camera.conf"
AT_BOOT="$ROOT/etc/modules-load.d/streamv2v-camera.conf"
KERNEL=$(uname -r)
WHO=${SUDO_USER:-${USER:-$(id -un)}}
YES='' DRY='' UNDO=''
STEPS=() # what will be done: a line for people, then the function that does it
NOTES=() # what will be written down for --undo

say() { printf '%s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "this needs administrator rights, and there is no sudo: run it as root"
    fi
}

step() { STEPS+=("$1" "$2"); }

go() { # say the steps, ask, do them
    local i answer
    if [ ${#STEPS[@]} = 0 ]; then
        say "$1"
        return
    fi
    say "This will be done, with administrator rights:"
    for ((i = 0; i < ${#STEPS[@]}; i += 2)); do say "  - ${STEPS[i]}"; done
    [ -z "$DRY" ] || exit 0
    if [ -z "$YES" ]; then
        [ -t 0 ] || fail "nobody can be asked here; --yes does it without asking"
        read -r -p "Go on? [y/N] " answer
        case $answer in [yY]*) ;; *) say "Nothing was done."; exit 1 ;; esac
    fi
    for ((i = 0; i < ${#STEPS[@]}; i += 2)); do "${STEPS[i + 1]}"; done
}

# ------------------------------------------------------------------------------------------------- what is there

family() { # debian, fedora, arch or unknown
    local ID='' ID_LIKE=''
    # shellcheck disable=SC1091
    [ ! -r "$ROOT/etc/os-release" ] || . "$ROOT/etc/os-release"
    case " $ID $ID_LIKE " in
        *" debian "* | *" ubuntu "*) echo debian ;;
        *" fedora "* | *" rhel "*) echo fedora ;;
        *" arch "*) echo arch ;;
        *) echo unknown ;;
    esac
}

has_module() { [ -n "$(find "$ROOT/lib/modules/$KERNEL" -name 'v4l2loopback.ko*' -print -quit 2>/dev/null)" ] || is_loaded; }
is_loaded() { [ -d "$ROOT/sys/module/v4l2loopback" ]; }
has_camera() { grep -qsx "$LABEL" "$ROOT"/sys/class/video4linux/*/name; }
in_video() { id -nG "$WHO" 2>/dev/null | tr ' ' '\n' | grep -qx video; }

secure_boot() {
    local file
    for file in "$ROOT"/sys/firmware/efi/efivars/SecureBoot-*; do
        [ -r "$file" ] && [ "$(od -An -tu1 "$file" | tr -s ' ' '\n' | tail -n 1)" = 1 ] && return 0
    done
    return 1
}

explain_secure_boot() {
    say "Secure Boot is on: the kernel loads only modules that are signed with a key it knows. DKMS signs with a key of"
    say "this machine; it must be enrolled once:"
    case $(family) in
        debian) say "  sudo mokutil --import /var/lib/dkms/mok.pub   (Ubuntu: /var/lib/shim-signed/mok/MOK.der)" ;;
        fedora) say "  sudo kmodgenca -a; sudo mokutil --import /etc/pki/akmods/certs/public_key.der" ;;
        *) say "  sudo mokutil --import /var/lib/dkms/mok.pub" ;;
    esac
    say "It asks for a new password. Restart; on the blue screen choose Enroll MOK, Continue, Yes, and type the password."
    say "Then run this script again."
}

# What somebody else has told the module: ours would be mixed with it.
other_options() {
    grep -lsE '^[[:space:]]*options[[:space:]]+v4l2loopback' "$ROOT"/etc/modprobe.d/*.conf | grep -vFx "$OPTIONS" || true
}

# --------------------------------------------------------------------------------------------------- what is done

packages() {
    case $(family) in
        debian) echo "v4l2loopback-dkms linux-headers-$KERNEL" ;;
        fedora) echo "akmod-v4l2loopback" ;;
        arch) echo "v4l2loopback-dkms $(cat "$ROOT/usr/lib/modules/$KERNEL/pkgbase" 2>/dev/null || echo linux)-headers" ;;
    esac
}

install_module() {
    local names
    names=$(packages)
    # shellcheck disable=SC2086 # one word a package
    case $(family) in
        debian)
            as_root apt-get update
            as_root apt-get install -y $names
            ;;
        fedora)
            as_root dnf install -y $names ||
                fail "the package is in RPM Fusion: enable it (https://rpmfusion.org/Configuration), then try again"
            as_root akmods --force || true
            ;;
        arch) as_root pacman -S --needed --noconfirm $names ;;
    esac
    as_root depmod -a || true
    NOTES+=("package ${names%% *}")
}

write_files() {
    local note
    {
        echo "# Written by StreamV2V Camera's install_scripts/camera.sh; --undo removes it."
        for note in ${NOTES[@]+"${NOTES[@]}"}; do echo "# did: $note"; done
        echo "options v4l2loopback exclusive_caps=1 card_label=\"$LABEL\""
    } | as_root tee "$OPTIONS" >/dev/null
    echo v4l2loopback | as_root tee "$AT_BOOT" >/dev/null
}

join_video() {
    as_root usermod -aG video "$WHO"
    NOTES+=("group $WHO")
    say "You are in the group video from your next login on."
}

load_module() {
    if is_loaded; then
        as_root modprobe -r v4l2loopback ||
            fail "v4l2loopback is in use and cannot be loaded anew: close what uses it (fuser -v /dev/video*), try again"
    fi
    if ! as_root modprobe v4l2loopback exclusive_caps=1 "card_label=$LABEL"; then
        if secure_boot; then explain_secure_boot; fi
        fail "the kernel does not load v4l2loopback: the line above says why (sudo dmesg | tail tells more)"
    fi
}

set_up_linux() {
    local others
    [ "$(family)" != unknown ] || has_module ||
        fail "this distribution is not known here: install its package of v4l2loopback, then run this script again"
    others=$(other_options)
    [ -z "$others" ] || fail "$others sets options of v4l2loopback already. Add our camera there: devices=2" \
        "card_label=\"its name,$LABEL\" exclusive_caps=1,1 (and delete what does not fit), then restart"
    if secure_boot && ! is_loaded; then explain_secure_boot; fi
    [ ! -r "$OPTIONS" ] || while read -r line; do NOTES+=("$line"); done < <(sed -n 's/^# did: //p' "$OPTIONS")
    has_module || step "install $(packages)" install_module
    in_video || [ "$WHO" = root ] || step "put $WHO in the group video" join_video
    if [ ${#STEPS[@]} != 0 ] || ! grep -qs "card_label=\"$LABEL\"" "$OPTIONS" || ! grep -qsx v4l2loopback "$AT_BOOT"; then
        step "write $OPTIONS and $AT_BOOT: the module is loaded at every start, labelled \"$LABEL\"" write_files
    fi
    has_camera || step "load v4l2loopback (exclusive_caps=1, card_label=\"$LABEL\")" load_module
    go "All is there: \"$LABEL\" needs nothing."
    say "Ready: start ./install_scripts/run.sh, then choose \"$LABEL\" in Zoom, Teams, OBS or the browser."
}

# ---------------------------------------------------------------------------------------------------- undo, Linux

remove_files() { as_root rm -f "$OPTIONS" "$AT_BOOT"; }
unload_module() {
    as_root modprobe -r v4l2loopback || say "v4l2loopback is in use: it is gone after the next restart"
}
leave_video() { as_root gpasswd -d "$(did group)" video; }
remove_package() {
    local name
    name=$(did package)
    case $(family) in
        debian) as_root apt-get remove -y "$name" ;;
        fedora) as_root dnf remove -y "$name" ;;
        arch) as_root pacman -R --noconfirm "$name" ;;
    esac
}

did() { printf '%s\n' ${NOTES[@]+"${NOTES[@]}"} | sed -n "s/^$1 //p" | tail -n 1; }

undo_linux() {
    if [ -r "$OPTIONS" ]; then
        while read -r line; do NOTES+=("$line"); done < <(sed -n 's/^# did: //p' "$OPTIONS")
    fi
    if has_camera && [ -e "$OPTIONS" ]; then step "unload v4l2loopback" unload_module; fi
    [ -z "$(did package)" ] || step "remove the package $(did package)" remove_package
    [ -z "$(did group)" ] || step "take $(did group) out of the group video" leave_video
    if [ -e "$OPTIONS" ] || [ -e "$AT_BOOT" ]; then step "delete $OPTIONS and $AT_BOOT" remove_files; fi
    go "Nothing is left of it."
}

# ----------------------------------------------------------------------------------------------------------- macOS

explain_mac() {
    local version app="$ROOT/Applications/OBS.app"
    version=$(sw_vers -productVersion 2>/dev/null || echo 0)
    [ "${version%%.*}" -ge 13 ] || fail "this is macOS $version; OBS's camera needs macOS 13 or newer"
    if [ -n "$UNDO" ]; then
        say "macOS keeps OBS's camera until OBS is deleted: move OBS from Applications to the bin, and confirm."
        return
    fi
    [ -d "$app" ] || say "1. Install OBS 30 or newer: https://obsproject.com (or: brew install --cask obs)"
    say "2. Start OBS, click Start Virtual Camera. macOS asks: allow the extension in System Settings > General >"
    say "   Login Items & Extensions > Camera Extensions. Click Stop Virtual Camera again."
    say "3. Start ./install_scripts/run.sh, then choose \"OBS Virtual Camera\" in Zoom or Teams (that name is fixed)."
    say "Nothing was changed by this script. vcam doctor tells whether the extension is on."
}

# ------------------------------------------------------------------------------------------------------------ main

for argument in "$@"; do
    case $argument in
        --yes | -y) YES=1 ;;
        --dry-run) DRY=1 ;;
        --undo) UNDO=1 ;;
        -h | --help) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) say "error: unknown argument $argument; there are --yes, --dry-run, --undo"; exit 2 ;;
    esac
done

case $(uname -s) in
    Linux) if [ -n "$UNDO" ]; then undo_linux; else set_up_linux; fi ;;
    Darwin) explain_mac ;;
    *) fail "this is for Linux and macOS; on Windows: .\\install_scripts\\camera.ps1" ;;
esac
