#!/system/bin/sh
# Prints the conditions of the phone that it runs on, heat, frequencies and load: one line of key=value words.
#
#   status=0                     thermal status: 0 none, 1 light, 2 moderate, 3 severe, ...
#   cpu_c= gpu_c= battery_c= skin_c=     degrees Celsius, the hottest sensor of the kind
#   freq_mhz=1704,-,2914         per core, - where it is offline or not readable
#   capped=4,5                   cores whose highest allowed frequency is below what they can do
#   voltage_mv=4213 current_ua=-350000   of the battery; some makers count a discharge as positive, or in mA
#   load1=0.53 battery=87 powered=usb|ac|wireless|dock|none uptime_s=1234.56
#
# Reads:  dumpsys thermalservice (Android 10 and later) and battery, $SYSFS (default /sys), $PROC (default /proc)
# Writes: standard output only; a word that the phone does not tell is left out
# Exits:  0
#
# By hand: adb shell sh < device_scripts/conditions.sh
set -euf

sysfs=${SYSFS:-/sys}
proc=${PROC:-/proc}
words=
newline='
'

add() {
    words="$words $1=$2"
}

# first_line FILE: sets line; '' when it is missing or not readable. Without a fork.
first_line() {
    line=
    { read -r line <"$1" || :; } 2>/dev/null || :
}

# is_number TEXT: digits only.
is_number() {
    case $1 in '' | *[!0-9]*) return 1 ;; esac
}

# milli TEXT: sets value to 1000 times a decimal number; fails on NaN, exponents and the like.
milli() {
    whole=${1%%.*} fraction=${1#"${1%%.*}"}
    fraction=${fraction#.}000
    fraction=${fraction%"${fraction#???}"}
    is_number "${whole#-}" && is_number "$fraction" || return 1
    # Shells read 057 as octal: whole numbers are not written so, decimals get a leading 1.
    case ${whole#-} in 0?*) return 1 ;; esac
    value=$((${whole#-} * 1000 + 1$fraction - 1000))
    case $whole in -*) value=-$value ;; esac
}

# hotter KIND TEXT: keeps the highest value of each kind, as text in NAME_c and in 0.001 degrees in NAME_m.
hotter() {
    milli "$2" || return 0
    eval "highest=\${$1_m:-}"
    [ -n "$highest" ] && [ "$highest" -ge "$value" ] || eval "$1_m=\$value $1_c=\$2"
}

# from_thermalservice: reads Android's own view; sensors under "Cached temperatures" are stale, so only those after
# "Current temperatures" count.
from_thermalservice() {
    said=$(dumpsys thermalservice 2>/dev/null </dev/null) || return 0
    current=
    IFS=$newline
    for line in $said; do
        case $line in
            *'Thermal Status: '*)
                value=${line##*: }
                ! is_number "$value" || add status "$value"
                ;;
            *'Current temperatures from HAL'*) current=yes ;;
            *Temperature{*)
                [ -n "$current" ] || continue
                value=${line#*mValue=}
                value=${value%%,*}
                # Some Samsung phones count the types from 1; there the names tell.
                case $line in
                    *mName=TYPE_CPU,*) hotter cpu "$value" ;;
                    *mName=TYPE_GPU,*) hotter gpu "$value" ;;
                    *mName=TYPE_BATTERY,*) hotter battery "$value" ;;
                    *mName=TYPE_SKIN,*) hotter skin "$value" ;;
                    *mName=TYPE_*) ;;
                    *mType=0,*) hotter cpu "$value" ;;
                    *mType=1,*) hotter gpu "$value" ;;
                    *mType=2,*) hotter battery "$value" ;;
                    *mType=3,*) hotter skin "$value" ;;
                esac
                ;;
            *[Cc]ooling*) current= ;;
        esac
    done
    unset IFS
}

# from_zones: reads the kernel's sensors, for phones without that service. Their names differ from maker to maker.
from_zones() {
    zone=0
    while [ -d "$sysfs/class/thermal/thermal_zone$zone" ]; do
        first_line "$sysfs/class/thermal/thermal_zone$zone/type"
        kind=$line
        first_line "$sysfs/class/thermal/thermal_zone$zone/temp"
        zone=$((zone + 1))
        # Mostly 0.001 degrees, some whole degrees; sensors that are off say 0, -40000 or a huge number.
        is_number "$line" && [ "${#line}" -le 6 ] || continue
        [ "$line" -ge 1000 ] || line=${line}000
        [ "$line" -ge 5000 ] && [ "$line" -le 130000 ] || continue
        degrees=${line%???}
        fraction=${line#"$degrees"}
        degrees=$degrees.${fraction%??}
        case $kind in
            *[Gg][Pp][Uu]*) hotter gpu "$degrees" ;;
            *[Cc][Pp][Uu]* | BIG | MID | LITTLE) hotter cpu "$degrees" ;;
            *[Ss][Kk][Ii][Nn]* | *quiet*) hotter skin "$degrees" ;;
        esac
    done
}

from_battery() {
    said=$(dumpsys battery 2>/dev/null </dev/null) || return 0
    powered=
    IFS=$newline
    for line in $said; do
        value=${line##*: }
        case $line in
            *'AC powered: true'*) powered=ac ;;
            *'USB powered: true'*) powered=usb ;;
            *'Wireless powered: true'*) powered=wireless ;;
            *'Dock powered: true'*) powered=dock ;;
            *' powered: false'*) powered=${powered:-none} ;;
            '  level: '*) ! is_number "$value" || add battery "$value" ;;
            '  voltage: '*) ! is_number "$value" || add voltage_mv "$value" ;;
            '  temperature: '*)
                # Tenths of a degree; the service's own view replaces the thermal sensor's.
                is_number "$value" && [ "${#value}" -ge 2 ] && battery_c=${value%?}.${value#"${value%?}"}
                ;;
        esac
    done
    unset IFS
    [ -z "$powered" ] || add powered "$powered"
    first_line "$sysfs/class/power_supply/battery/current_now"
    ! is_number "${line#-}" || add current_ua "$line"
}

from_cores() {
    core=0 frequencies='' capped='' known=''
    while [ -d "$sysfs/devices/system/cpu/cpu$core" ]; do
        cpufreq=$sysfs/devices/system/cpu/cpu$core/cpufreq
        first_line "$cpufreq/scaling_cur_freq"
        if is_number "$line"; then known=yes line=$((line / 1000)); else line=-; fi
        frequencies=$frequencies,$line
        first_line "$cpufreq/cpuinfo_max_freq"
        highest=$line
        first_line "$cpufreq/scaling_max_freq"
        if is_number "$highest" && is_number "$line" && [ "$line" -lt "$highest" ]; then
            capped=$capped,$core:$((line / 1000))
        fi
        core=$((core + 1))
    done
    [ -z "$known" ] || add freq_mhz "${frequencies#,}"
    [ -z "$capped" ] || add capped "${capped#,}"
}

cpu_c='' gpu_c='' battery_c='' skin_c=''
from_thermalservice
[ -n "$cpu_c" ] || from_zones
from_battery
[ -z "$cpu_c" ] || add cpu_c "$cpu_c"
[ -z "$gpu_c" ] || add gpu_c "$gpu_c"
[ -z "$battery_c" ] || add battery_c "$battery_c"
[ -z "$skin_c" ] || add skin_c "$skin_c"
from_cores
first_line "$proc/loadavg"
[ -z "$line" ] || add load1 "${line%% *}"
first_line "$proc/uptime"
[ -z "$line" ] || add uptime_s "${line%% *}"

# echo is safe here: the words hold neither backslashes nor a leading dash, and no shell forks for it.
echo "${words# }"
