#!/system/bin/sh
# Keeps the phone that it runs on steady while it is measured, and puts everything back afterwards.
#
# Usage:  steady.sh apply DIR STEP...     prints 'STEP held|refused|unavailable DETAIL' for each
#         steady.sh restore DIR           prints 'STEP restored|failed DETAIL', the last step first
# Steps:  wake                  the screen is on; comes before stay_awake, which turns it on, too
#         stay_awake            the screen stays on while the phone is plugged in
#         fixed_performance     clocks that the phone can hold for long (Android 11 and later)
#         cores=F0              checks that programs can be kept on these cores, a hexadecimal mask
#         background            checks that little else runs: load below half the cores, no app compilation
#         battery               checks that there is charge enough for full clocks, and no battery saver
# Reads:  settings, dumpsys power and battery, $SYSFS (default /sys), $PROC (default /proc)
# Writes: DIR/journal: 'STEP OLD_VALUE' before a step changes anything; restore removes a line once that is undone
# Exits:  0, also where steps were refused; 64 usage, 74 the journal cannot be written (then nothing was changed)
#
# By hand: adb shell sh DIR/scripts/steady.sh apply DIR wake stay_awake
set -euf

sysfs=${SYSFS:-/sys}
proc=${PROC:-/proc}
stay_on=stay_on_while_plugged_in
newline='
'

fail() {
    printf 'steady.sh: %s\n' "$2" >&2
    exit "$1"
}

has() {
    command -v "$1" >/dev/null 2>&1
}

# quietly COMMAND...: runs it, and sets detail to the first line of what it says. Android's tools read standard input:
# not ours.
quietly() {
    detail=$("$@" 2>&1 </dev/null) && outcome=0 || outcome=$?
    detail=${detail%%"$newline"*}
    return "$outcome"
}

# --- steps: STEP_available sets old to what there is to restore, '' for a mere check; all set detail ---

stay_awake_available() {
    has settings || return 1
    quietly settings get global $stay_on || return 1
    case $detail in null) ;; '' | *[!0-9]*) return 1 ;; esac
    old=$detail
}
stay_awake_apply() {
    # Some makers deny one of the two to the shell.
    { has svc && quietly svc power stayon true && stay_awake_verify; } || quietly settings put global $stay_on 7
}
stay_awake_verify() {
    quietly settings get global $stay_on || return 1
    case $detail in 0 | null | '' | *[!0-9]*) return 1 ;; esac
}
stay_awake_restore() {
    if [ "$1" = null ]; then
        quietly settings delete global $stay_on
    else
        quietly settings put global $stay_on "$1"
    fi || return 1
    quietly settings get global $stay_on && [ "$detail" = "$1" ]
}

# wakefulness: sets detail to Awake, Asleep, Dreaming or Dozing. Makers write mWakefulness= or getWakefulnessLocked()=,
# some a number after it; where neither is there, the state of the display tells. The same as in describe.sh.
wakefulness() {
    detail=$(dumpsys power 2>/dev/null </dev/null |
        grep -m 1 -e 'mWakefulness=' -e 'akefulnessLocked()=' -e 'Display Power: state=') || return 1
    set -- ${detail#*=}
    case ${1-} in
        0 | OFF) detail=Asleep ;;
        1 | ON) detail=Awake ;;
        2) detail=Dreaming ;;
        3 | DOZE*) detail=Dozing ;;
        *) detail=${1-} ;;
    esac
}

wake_available() {
    has input && has dumpsys && wakefulness && [ -n "$detail" ] || return 1
    # With the boot: after a reboot the screen is its user's business again.
    [ "$detail" = Awake ] || old="$detail $boot_id"
}
wake_apply() {
    wakefulness && [ "$detail" = Awake ] || quietly input keyevent KEYCODE_WAKEUP
}
wake_verify() {
    for attempt in 1 2 3; do
        wakefulness || return 1
        [ "$detail" != Awake ] || return 0
        [ "$attempt" = 3 ] || sleep 1
    done
    return 1
}
wake_restore() {
    wakefulness || return 1
    case "$1,$detail" in
        *" $boot_id,Awake") quietly input keyevent KEYCODE_SLEEP ;;
        *) detail= ;;
    esac
}

fixed_performance_available() {
    has cmd || return 1
    sdk=$(getprop ro.build.version.sdk 2>/dev/null </dev/null) || sdk=
    case $sdk in '' | *[!0-9]*) ;; *) [ "$sdk" -ge 30 ] || { detail="needs Android 11" && return 1; } ;; esac
    old=false # no phone tells; it is off unless somebody is at work here
}
fixed_performance_apply() {
    quietly cmd power set-fixed-performance-mode-enabled true
}
fixed_performance_verify() {
    :
}
fixed_performance_restore() {
    quietly cmd power set-fixed-performance-mode-enabled "$1"
}

cores_available() {
    has taskset
}
cores_apply() {
    case $argument in '' | *[!0-9A-Fa-f]*) detail="'$argument' is not a hexadecimal mask" && return 1 ;; esac
    quietly taskset "$argument" true
}
cores_verify() {
    # The system silently takes away cores that its cpusets do not leave to a shell.
    quietly taskset "$argument" grep Cpus_allowed: "$proc/self/status" || return 0
    set -- ${detail#*:}
    held=${1-0}
    while [ "$held" != "${held#*,}" ]; do held=${held%%,*}${held#*,}; done
    detail="only $held of $argument"
    [ $((0x$held)) -eq $((0x$argument)) ] || return 1
    detail=$argument
}

background_available() {
    { read -r load _ <"$proc/loadavg"; } 2>/dev/null || return 1
    cores=0
    while [ -d "$sysfs/devices/system/cpu/cpu$cores" ]; do cores=$((cores + 1)); done
    [ "$cores" -gt 0 ]
}
background_apply() {
    detail="load $load on $cores cores"
    fraction=${load#*.}
    # In hundredths; the leading 1 keeps 08 from being read as octal.
    [ $(((${load%%.*} * 100 + 1$fraction - 100) * 2)) -lt $((cores * 100)) ]
}
background_verify() {
    ! has pgrep || ! pgrep dex2oat >/dev/null 2>&1 || { detail="apps are being compiled (dex2oat)" && return 1; }
}

# Android's battery saver may turn itself on at 20 %, and makers hold the clocks back about there, too.
battery_available() {
    level=$(dumpsys battery 2>/dev/null </dev/null | grep -m 1 '^ *level: ') || level=
    level=${level##*: } saver=
    case $level in *[!0-9]*) level= ;; esac
    ! has settings || ! quietly settings get global low_power || saver=$detail
    detail=
    [ -n "$level" ] || [ "$saver" = 1 ]
}
battery_apply() {
    detail="${level:+at $level %}"
    [ "$saver" != 1 ] || { detail="battery saver on${level:+, $level %}" && return 1; }
    [ "$level" -ge 20 ]
}
battery_verify() {
    :
}

# --- the journal ---

# read_journal: sets entries to its complete lines. A line that was cut off belongs to a step that was not applied.
read_journal() {
    entries=
    { while IFS= read -r line; do
        entries=$entries${entries:+$newline}$line
    done <"$journal"; } 2>/dev/null || :
}

# write_journal: writes entries back as well as it can, for restoring twice does no harm.
write_journal() {
    if [ -n "$entries" ]; then
        { printf '%s\n' "$entries" >"$journal.new" && mv -f "$journal.new" "$journal"; } 2>/dev/null || :
    else
        rm -f "$journal" "$journal.new"
    fi
}

# remember STEP OLD: adds a line to the journal; undone in reverse order, so the value before the first change is the
# last word.
remember() {
    printf '%s\n' "$1 $2" >>"$journal" || fail 74 "$journal cannot be written; free some space on the phone's /data"
    entries=$entries${entries:+$newline}"$1 $2"
}

# forget STEP OLD: removes its line, which is the last one.
forget() {
    entries=${entries%"$1 $2"}
    entries=${entries%"$newline"}
    write_journal
}

# --- apply and restore ---

apply() {
    step=${1%%=*} argument=${1#"${1%%=*}"}
    argument=${argument#=} old='' detail=''
    if ! "${step}_available"; then
        state=unavailable
    else
        [ -z "$old" ] || remember "$step" "$old"
        if "${step}_apply" && "${step}_verify"; then
            state=held
        else
            state=refused
            reason=$detail
            [ -z "$old" ] || { "${step}_restore" "$old" || :; forget "$step" "$old"; }
            detail=$reason
        fi
    fi
    printf '%s\n' "$step $state${detail:+ $detail}"
}

restore() {
    failed=
    while [ -n "$entries" ]; do
        entry=${entries##*"$newline"}
        entries=${entries%"$entry"}
        entries=${entries%"$newline"}
        step=${entry%% *} detail=''
        case $step in
            stay_awake | wake | fixed_performance) "${step}_restore" "${entry#* }" && state=restored || state=failed ;;
            *) state=failed detail="unknown step" ;;
        esac
        printf '%s\n' "$step $state${detail:+ $detail}"
        if [ $state = restored ]; then
            rest=$entries
            entries=$entries${entries:+${failed:+$newline}}$failed
            write_journal
            entries=$rest
        else
            failed=$entry${failed:+$newline}$failed
        fi
    done
}

[ $# -ge 2 ] || fail 64 "usage: steady.sh apply DIR STEP... | restore DIR"
action=$1 dir=$2
shift 2
case $dir in /*) ;; *) fail 64 "DIR must be absolute, got '$dir'" ;; esac
journal=$dir/journal
{ read -r boot_id <"$proc/sys/kernel/random/boot_id"; } 2>/dev/null || boot_id=-
read_journal
case $action in
    apply)
        [ ! -e "$journal" ] || write_journal
        for word in "$@"; do
            case ${word%%=*} in
                stay_awake | wake | fixed_performance | cores | background | battery) ;;
                *) fail 64 "there is no step '$word'" ;;
            esac
        done
        for word in "$@"; do apply "$word"; done
        ;;
    restore) restore ;;
    *) fail 64 "unknown action '$action'" ;;
esac
