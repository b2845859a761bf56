#!/system/bin/sh
# Describes the phone that it runs on, one KEY=VALUE a line: identity, cores, tools, space, thermal state, load.
#
# Reads:  system properties (getprop), $SYSFS (default /sys) for cores and thermal zones, $PROC (default /proc) for the
#         kernel, the boot, the load and the cores that a shell may use, dumpsys power, df
# Writes: standard output only; a key that the phone does not let a shell read is left out
# Exits:  0
#
# By hand: adb shell sh < device_scripts/describe.sh
set -eu

sysfs=${SYSFS:-/sys}
proc=${PROC:-/proc}

# show KEY VALUE: prints the pair unless the value is empty.
show() {
    [ -z "$2" ] || printf '%s=%s\n' "$1" "$2"
}

# show_file KEY FILE: its first line, nothing when it is missing or not readable (some phones deny single files).
show_file() {
    line=
    { read -r line <"$2" || :; } 2>/dev/null || :
    show "$1" "$line"
}

show_identity() {
    command -v getprop >/dev/null 2>&1 || return 0
    for key in ro.product.manufacturer ro.product.model ro.soc.model ro.board.platform ro.build.version.release \
        ro.build.version.sdk ro.build.fingerprint ro.product.cpu.abilist ro.product.cpu.abi ro.product.cpu.abi2 \
        ro.serialno; do
        show "$key" "$(getprop "$key" </dev/null)"
    done
}

# show_cores: their numbers are dense, but an offline core has no cpufreq: go on until the directory itself is missing.
show_cores() {
    core=0
    while [ -d "$sysfs/devices/system/cpu/cpu$core" ]; do
        for field in cpuinfo_max_freq scaling_max_freq scaling_cur_freq scaling_governor related_cpus; do
            show_file "cpu$core.$field" "$sysfs/devices/system/cpu/cpu$core/cpufreq/$field"
        done
        core=$((core + 1))
    done
    show cores "$core"
    show_file online_cores "$sysfs/devices/system/cpu/online"
    # The cores that the system's cpusets leave to a shell: those in the background may lack the big ones.
    { while read -r key value; do
        [ "$key" != Cpus_allowed_list: ] || show allowed_cores "$value"
    done <"$proc/self/status"; } 2>/dev/null || :
}

show_tools() {
    found=
    for tool in tar timeout taskset sha256sum setsid flock pkill pgrep dumpsys settings svc cmd input; do
        ! command -v "$tool" >/dev/null 2>&1 || found="$found $tool"
    done
    show tools "${found# }"
}

# show_space: the fourth column of df's last line, in kB.
show_space() {
    set -- $(df -k /data 2>/dev/null | tail -n 1)
    [ $# -lt 4 ] || show data_free_kb "$4"
}

# wakefulness: sets detail to Awake, Asleep, Dreaming or Dozing. Makers write mWakefulness= or getWakefulnessLocked()=,
# some a number after it; where neither is there, the state of the display tells. The same as in steady.sh.
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

# show_screen: asleep, dreaming and dozing are off as far as the clocks are concerned.
show_screen() {
    wakefulness || return 0
    case $detail in
        '') ;;
        Awake) show screen on ;;
        *) show screen off ;;
    esac
}

show_zones() {
    for zone in "$sysfs"/class/thermal/thermal_zone*; do
        { read -r kind <"$zone/type"; } 2>/dev/null || continue
        show_file "thermal.$kind" "$zone/temp"
    done
}

show_identity
show kernel "$(uname -r)"
show_file boot_id "$proc/sys/kernel/random/boot_id"
show_file uptime_s "$proc/uptime"
show_cores
show_tools
show_space
show_screen
show_zones
show_file loadavg "$proc/loadavg"
