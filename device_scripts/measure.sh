#!/system/bin/sh
# Times models on the phone that it runs on: the rounds of a plan, a visit after another, with benchmark_model.
#
# Usage:  measure.sh DIR PLAN TOKEN        DIR absolute; PLAN a name there or a path; TOKEN random and new, so that no
#                                          program's output imitates it
# Reads:  PLAN, a line each:
#             setup KEY                    copied to the begin line
#             stamp SECONDS                the computer's clock, copied
#             flags --a=b --c=d            for every call of benchmark_model
#             mask F0                      optional: the cores to run on, as hexadecimal mask
#             max_status 0                 optional: stop after a round that ended at a higher thermal status
#             round ID                     then its visits:
#             visit KEY RUNS WARMUPS TIMEOUT_S
#             end                          a plan without it arrived cut off
#         DIR/benchmark_model, libraries in DIR/lib, DIR/models/KEY.tflite, $PROC (default /proc), and what conditions.sh, beside this
#         script, reads
# Writes: each of these first to DIR/results/TOKEN.log, then to standard output:
#             TOKEN begin UPTIME_S BOOT_ID SETUP STAMP
#             TOKEN round ID UPTIME_S key=value ...     conditions at its start
#             TOKEN visit KEY UPTIME_S
#             what benchmark_model said, and the bytes of DIR/result.pb where the flags have it written, as hexadecimal
#             digits behind RESULT_FILE:
#             TOKEN end KEY STATUS                      a visit without this line does not count
#             TOKEN done ID UPTIME_S key=value ...      conditions at its end
#             TOKEN stop hot        or        TOKEN finish
#         DIR/owner (refreshed at every visit), DIR/lock
# Exits:  0 finished, 10 stopped hot, 64 usage or bad plan, 74 the log cannot be written, 75 another measure.sh runs
#
# By hand: adb shell sh DIR/scripts/measure.sh DIR DIR/plan t1
set -euf

proc=${PROC:-/proc}

# say TEXT: prints one line, byte for byte and without a fork: mksh has no printf of its own, dash no print.
if [ -n "${KSH_VERSION-}" ]; then
    say() { print -r -- "$1"; }
else
    say() { printf '%s\n' "$1"; }
fi

fail() {
    say "measure.sh: $2" >&2
    exit "$1"
}

# emit TEXT: writes the line to the log, then to standard output, so that the log holds all that anybody ever saw.
emit() {
    say "$1" >>"$log" || fail 74 "$log cannot be written; free some space on the phone's /data and run again"
    say "$1"
}

# now: sets uptime_s, '-' where a shell may not read it.
now() {
    { read -r uptime_s _ <"$proc/uptime"; } 2>/dev/null || uptime_s=-
}

# is_number TEXT...: digits only, each.
is_number() {
    for text in "$@"; do
        case $text in '' | *[!0-9]*) return 1 ;; esac
    done
}

# is_key TEXT: may be part of a file name and of a protocol line.
is_key() {
    case $1 in '' | *[!A-Za-z0-9_-]*) return 1 ;; esac
}

# read_plan: checks every line before the first visit, and sets what all visits share.
read_plan() {
    setup=- stamp=- flags='' mask='' max_status='' complete='' in_round=''
    number=0 longest_s=0
    while read -r word rest; do
        number=$((number + 1))
        [ -z "$complete" ] || fail 64 "$plan line $number: more after 'end'"
        case $word in
            setup) is_key "$rest" && setup=$rest ;;
            stamp) is_number "${rest%%.*}${rest#*.}" && stamp=$rest ;;
            flags) flags=$rest ;;
            mask) case $rest in '' | *[!0-9A-Fa-f]*) false ;; *) mask=$rest ;; esac ;;
            max_status) is_number "$rest" && max_status=$rest ;;
            round) is_key "$rest" && in_round=yes ;;
            visit) [ -n "$in_round" ] && is_visit $rest ;;
            end) complete=yes ;;
            *) false ;;
        esac || fail 64 "$plan line $number: '$word $rest' is not a line of a plan"
    done <"$plan"
    [ -n "$complete" ] || fail 64 "$plan has no 'end' line: it arrived cut off; push it again"
}

# is_visit KEY RUNS WARMUPS TIMEOUT_S
is_visit() {
    [ $# -eq 4 ] && is_key "$1" && is_number "$2" "$3" "$4" || return 1
    [ "$4" -le "$longest_s" ] || longest_s=$4
}

# take_lock: descriptor 9 holds it as long as this script lives. A session whose cable was pulled ends with its visit,
# and the one that comes after it has the same time limits: so long it waits.
take_lock() {
    command -v flock >/dev/null 2>&1 || return 0
    true >>"$dir/lock" || fail 74 "$dir/lock cannot be written"
    exec 9>>"$dir/lock"
    waited_s=0
    # mksh closes 9 for children unless it is passed on by name.
    until flock -n 9 9>&9 2>/dev/null; do
        [ "$waited_s" -lt $((longest_s + 6)) ] || fail 75 "another measure.sh is running in $dir"
        sleep 1
        waited_s=$((waited_s + 1))
    done
}

# find_timeout: sets limit to how `timeout` is called here, '' where there is none: then only the computer's patience
# ends a visit that hangs. --foreground leaves the program in the process group that a hang-up reaches; versions without
# it do so anyway. 127 is no failure: toybox 0.8 says it, now and then, of programs that end within a millisecond.
find_timeout() {
    limit=
    command -v timeout >/dev/null 2>&1 || return 0
    for limit in 'timeout --foreground -k 5' 'timeout -k 5' timeout; do
        $limit 5 true >/dev/null 2>&1 && return 0
        [ $? -ne 127 ] || return 0
    done
}

# stop_leftovers: ends what an earlier session left running under `timeout`, which would disturb this one.
stop_leftovers() {
    command -v pkill >/dev/null 2>&1 || return 0
    program=$(say "$dir/benchmark_model" | sed 's/[][\.*^$+?(){}|]/\\&/g')
    # timeout and its child both match, but no shell whose command only mentions the program.
    if pkill -KILL -f "^([^ ]*timeout [^/]*|[^ ]+ (-[^c ][^ ]* )?)?$program --graph="; then
        sleep 1
    fi
}

# refresh_owner: renews the claim on this phone (see claim.sh). The line is overwritten where it stands, without
# a fork; as the phone's uptime only gets longer, nothing of the old line is left behind it.
refresh_owner() {
    { read -r _ lease_s boot host <"$dir/owner"; } 2>/dev/null || return 0
    { say "$uptime_s $lease_s $boot $host" 1<>"$dir/owner"; } 2>/dev/null || :
}

# mark WORD ID: emits a round's first or last line; sets words to the conditions.
mark() {
    now
    words=$(. "$scripts/conditions.sh") || words=
    emit "$token $1 $2 $uptime_s $words"
}

# visit KEY RUNS WARMUPS TIMEOUT_S: runs benchmark_model once; `exec` makes the substitution's own process the
# program: a visit is one fork.
visit() {
    now
    refresh_owner
    emit "$token visit $1 $uptime_s"
    code=0
    [ -z "$result" ] || rm -f "$result"
    said=$([ ! -d "$dir/lib" ] || export LD_LIBRARY_PATH="$dir/lib" ADSP_LIBRARY_PATH="$dir/lib"
        exec $limit ${limit:+"$4"} ${mask:+taskset "$mask"} "$dir/benchmark_model" \
        --graph="$dir/models/$1.tflite" --num_runs="$2" --warmup_runs="$3" --min_secs=0 --warmup_min_secs=0 $flags \
        2>&1 3<&- 9>&- </dev/null) || code=$?
    if [ -n "$result" ] && [ -s "$result" ]; then
        said=$said${newline}RESULT_FILE:$newline$(od -An -v -tx1 "$result" 2>/dev/null) || :
    fi
    emit "$said${said:+$newline}$token end $1 $code"
}

# end_round ID: exits where the phone got too hot to go on.
end_round() {
    mark done "$1"
    case " $words " in
        *' status='[0-9]*)
            status=${words#*status=}
            [ -z "$max_status" ] || [ "${status%% *}" -le "$max_status" ] || {
                emit "$token stop hot"
                exit 10
            }
            ;;
    esac
}

measure() {
    round=
    exec 3<"$plan"
    while read -r word key rest <&3; do
        case $word in
            round | end)
                [ -z "$round" ] || end_round "$round"
                round=$key
                [ "$word" = round ] || continue
                mark round "$round"
                ;;
            visit) visit "$key" $rest ;;
        esac
    done
    emit "$token finish"
}

[ $# -eq 3 ] || fail 64 "usage: measure.sh DIR PLAN TOKEN"
dir=$1 plan=$2 token=$3
case $dir in /*) ;; *) fail 64 "DIR must be absolute, got '$dir'" ;; esac
is_key "$token" || fail 64 "TOKEN must be of letters, digits, - and _, got '$token'"
case $plan in */*) ;; *) plan=$dir/$plan ;; esac
[ -r "$plan" ] || fail 64 "$plan cannot be read"
case $0 in */*) scripts=${0%/*} ;; *) scripts=. ;; esac
log=$dir/results/$token.log
newline='
'
[ ! -e "$log" ] || fail 64 "$log exists: a token serves one session only"
read_plan
take_lock
stop_leftovers

find_timeout
case $flags in *--result_file_path=*) result=$dir/result.pb ;; *) result= ;; esac
mkdir -p "$dir/results" || fail 74 "$dir/results cannot be made"
now
{ read -r boot_id <"$proc/sys/kernel/random/boot_id"; } 2>/dev/null || boot_id=-
emit "$token begin $uptime_s $boot_id $setup $stamp"
measure
exit 0
