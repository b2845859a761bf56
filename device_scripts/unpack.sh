#!/system/bin/sh
# Puts the models of an archive in place: each complete, or, when anything is wrong, none.
#
# Usage:  unpack.sh DIR TAR SHA256     TAR holds *.tflite files without folders; SHA256 is the archive's
# Writes: DIR/models/*.tflite; DIR/unpacking meanwhile; removes TAR in any case
# Exits:  0, 64 usage, 65 damaged or empty archive, 66 TAR cannot be read, 69 the phone lacks sha256sum or tar,
#         74 the models cannot be written
#
# By hand: adb push models.tar DIR; adb shell sh DIR/scripts/unpack.sh DIR DIR/models.tar $(sha256sum < models.tar)
set -eu

fail() {
    [ "$1" = 64 ] || rm -rf "$staging" "$tar"
    printf 'unpack.sh: %s\n' "$2" >&2
    exit "$1"
}

[ $# -ge 3 ] || fail 64 "usage: unpack.sh DIR TAR SHA256"
dir=$1 tar=$2 expected=$3
staging=$dir/unpacking
case $dir$tar in /*) ;; *) fail 64 "DIR must be absolute, got '$dir'" ;; esac
[ -r "$tar" ] || fail 66 "$tar cannot be read"
for tool in sha256sum tar; do
    command -v "$tool" >/dev/null 2>&1 || fail 69 "the phone has no $tool; push the models one by one"
done

found=$(sha256sum <"$tar") || fail 66 "$tar cannot be read"
[ "${found%% *}" = "$expected" ] || fail 65 "$tar arrived damaged (its sha256 is ${found%% *}); push it again"

rm -rf "$staging"
mkdir -p "$staging" "$dir/models" || fail 74 "$dir cannot be written"
tar xf "$tar" -C "$staging" || fail 74 "$tar cannot be unpacked; is there space left on the phone's /data?"
cd "$staging"
set -- *.tflite
[ -e "$1" ] || fail 65 "$tar holds no .tflite files"
# Renamed only once their content is on the flash: a crash of the phone leaves no empty models under their final names.
sync
mv -f -- "$@" "$dir/models/" || fail 74 "$dir/models cannot be written"
cd /
rm -rf "$staging" "$tar"
