#!/system/bin/sh
# Describes the phone that it runs on, one KEY=VALUE a line: identity, cores, thermal state, load.
#
# Reads:  system properties (getprop), $SYSFS (default /sys) for cores and thermal zones, /proc/loadavg
# Writes: standard output only; a key that the phone does not let a shell read is left out
# Exits:  0
#
# By hand: adb shell sh < device_scripts/describe.sh
set -eu

sysfs=${SYSFS:-/sys}

# show KEY VALUE: prints the pair unless the value is empty.
show() {
    [ -z "$2" ] || printf '%s=%s\n' "$1" "$2"
}

# first_line FILE: its first line, nothing when it is missing or not readable (some phones deny single files).
first_line() {
    head -n 1 "$1" 2>/dev/null || true
}

if command -v getprop >/dev/null 2>&1; then
    for key in ro.product.manufacturer ro.product.model ro.soc.model ro.board.platform ro.build.version.release \
        ro.build.version.sdk ro.build.fingerprint ro.product.cpu.abilist ro.serialno; do
        show "$key" "$(getprop "$key")"
    done
fi

# Core numbers are dense, but an offline core has no cpufreq: go on until the directory itself is missing.
core=0
while [ -d "$sysfs/devices/system/cpu/cpu$core" ]; do
    cpufreq=$sysfs/devices/system/cpu/cpu$core/cpufreq
    for field in cpuinfo_max_freq scaling_max_freq scaling_cur_freq scaling_governor; do
        show "cpu$core.$field" "$(first_line "$cpufreq/$field")"
    done
    core=$((core + 1))
done
show cores "$core"

for zone in "$sysfs"/class/thermal/thermal_zone*; do
    [ -d "$zone" ] || continue
    show "thermal.$(first_line "$zone/type")" "$(first_line "$zone/temp")"
done

show loadavg "$(first_line /proc/loadavg)"
