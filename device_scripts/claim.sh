#!/system/bin/sh
# Claims the phone that it runs on for one computer, so that two of them do not disturb each other's times.
#
# Usage:  claim.sh DIR HOST LEASE_S    HOST names the computer; its claim lapses LEASE_S after its last sign of life
# Reads:  DIR/owner, $PROC (default /proc) for the phone's uptime and boot id
# Writes: DIR/owner: one line of UPTIME_S LEASE_S BOOT_ID HOST, which measure.sh refreshes; DIR where it is missing
# Exits:  0 claimed, 64 usage, 74 DIR cannot be written, 75 another computer holds the phone: its name is printed
#
# By hand: adb shell sh DIR/scripts/claim.sh DIR me 60
set -eu

proc=${PROC:-/proc}

fail() {
    printf 'claim.sh: %s\n' "$2" >&2
    exit "$1"
}

# is_number TEXT...: digits only, each.
is_number() {
    for word in "$@"; do
        case $word in '' | *[!0-9]*) return 1 ;; esac
    done
}

# take_lock: keeps everybody else out between reading the owner and writing it.
take_lock() {
    command -v flock >/dev/null 2>&1 || return 0
    true >>"$dir/owner.lock" || fail 74 "$dir/owner.lock cannot be written"
    exec 9>>"$dir/owner.lock"
    # mksh closes 9 for children unless it is passed on by name.
    for attempt in 1 2 3; do
        flock -n 9 9>&9 2>/dev/null && return 0
        [ "$attempt" = 3 ] || sleep 1
    done
    echo "another computer"
    exit 75
}

# is_held: whether another computer claimed the phone, in this boot, and its lease lasts.
is_held() {
    { read -r since_s lease owner_boot owner <"$dir/owner"; } 2>/dev/null || return 1
    [ "$owner" != "$host" ] && [ "$owner_boot" = "$boot" ] || return 1
    is_number "${since_s%.*}" "$lease" "${uptime_s%.*}" && [ $((${uptime_s%.*} - ${since_s%.*})) -lt "$lease" ]
}

[ $# -eq 3 ] || fail 64 "usage: claim.sh DIR HOST LEASE_S"
dir=$1 host=$2 lease_s=$3
case $dir in /*) ;; *) fail 64 "DIR must be absolute, got '$dir'" ;; esac
case $host in '' | *[!A-Za-z0-9_.@-]*) fail 64 "HOST may have letters, digits and _.@- only, got '$host'" ;; esac
is_number "$lease_s" || fail 64 "LEASE_S must be whole seconds, got '$lease_s'"

mkdir -p "$dir" || fail 74 "$dir cannot be made"
{ read -r uptime_s _ <"$proc/uptime"; } 2>/dev/null || uptime_s=-
{ read -r boot <"$proc/sys/kernel/random/boot_id"; } 2>/dev/null || boot=-
take_lock
if is_held; then
    printf '%s\n' "$owner"
    exit 75
fi
printf '%s\n' "$uptime_s $lease_s $boot $host" >"$dir/owner.new" && mv -f "$dir/owner.new" "$dir/owner" ||
    fail 74 "$dir/owner cannot be written; free some space on the phone's /data"
