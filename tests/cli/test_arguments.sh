#!/usr/bin/env bash
# Wrong, missing, doubled and conflicting arguments and absent or wrong files: the exit status of the contract, one line on
# standard error, nothing on standard output, nothing written. And: --json parses, -q says nothing, no bar without a terminal.
set -u
alloy=$(cd "$(dirname "${BUILD:-build}/alloy")" && pwd)/alloy
[ -f demo/model/model_index.json ] || { echo "no demo model here"; exit 77; }
source=$PWD/demo/model
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
bad=0
wrong() { printf '%.2000s\n' "$*"; bad=1; }

"$alloy" convert "$source" --output-dir . --name m --size 64x64 --text-length 16 -q || wrong "convert failed"
mkdir folder.png folder && : >empty && : >empty.safetensors && ln -s loop loop && head -c 5000 /dev/urandom >noise.safetensors
cp -r m/TextEncoder.mlpackage later.mlpackage && sed -i 's/1\.0\.0/9.0.0/' later.mlpackage/Manifest.json
printf '\110\0\0\0\0\0\0\0%-72s%308s' '{"input_ids":{"dtype":"I32","shape":[1,77],"data_offsets":[0,308]}}' '' >ids.safetensors
long=$(printf 'a%.0s' {1..4000})

# status, then the arguments
says() {
    local want=$1 rc
    shift
    timeout 60 "$alloy" "$@" >"$dir/.out" 2>"$dir/.err" </dev/null
    rc=$?
    [ $rc = "$want" ] || wrong "status $rc, expected $want: alloy $*"
    [ "$(grep -vc ': FluxPipeline, ' "$dir/.err")" = 1 ] || wrong "not one message: alloy $*: $(cat "$dir/.err")"
    [ -s "$dir/.out" ] && wrong "something on standard output: alloy $*"
}
before=$(ls)
says 2 bogus
for word in 0 -1 1e9 99999999999 3.5 "" " 64" +64 0x40 64k; do says 2 convert "$source" --name x --width "$word"; done
for word in "" 64 64x 0x64 64x-64 "64x 64" 64x64x64; do says 2 convert "$source" --name x --size "$word"; done
says 2 convert
says 2 convert "$source" again
says 2 convert "$source" --name
says 2 convert "$source" --name x --width 64 --width 64
says 2 convert "$source" --name x --size 64x64 --height 64
says 2 convert "$source" --name x --bogus
says 2 convert "$source" --name x --force=yes
says 2 convert "$source" --name x --components ""
says 2 convert "$source" --name x --components Hyperdrive
says 2 convert "$source" --name x --size 65x64
says 2 convert "$source" --name x --text-length 100000
says 2 convert "$source" --name a/b
says 2 convert "$source" --name x.partial
says 2 convert "$source" --name x --output-dir ""
says 2 convert "$source" --name m --output-dir .
says 2 convert "$source" --name folder --output-dir . --force
says 1 convert "$source" --name x --output-dir empty/below
says 2 convert "$source" --name "$long"
says 1 convert "$source" --name x --type sdxl
for path in nowhere empty folder loop /dev/null "$long"; do
    says 1 convert "$path" --name x
    says 1 run "$path" --prompt p
    says 1 info "$path"
done
says 2 run
says 2 run m
says 2 run --prompt p
says 2 run m --prompt a --prompt b
for word in 0 99999 1.5 ""; do says 2 run m --prompt p --steps "$word"; done
for word in -1 18446744073709551616 1.0 x; do says 2 run m --prompt p --seed "$word"; done
for word in nan inf -1 1e300 ""; do says 2 run m --prompt p --guidance-scale "$word"; done
says 2 run m --prompt $'a \xff circle'
says 2 run m --prompt p --output p.jpg
says 2 run m --prompt p --benchmark-output f
says 2 run m --prompt p --benchmark-runs 2
for word in "preprocess canny" "strength 0.5" "start 0.2" "end 0.8"; do
    # shellcheck disable=SC2086
    says 2 run m --prompt p --control-$word
done
for word in 0 3 5 9; do says 2 convert "$source" --name x --palette "$word"; done
says 2 bench --width 64
says 2 run m --prompt p --negative-prompt n
says 2 run m --prompt p --clip-skip 1
says 2 run m --prompt p --controlnet m --control-image folder.png
says 1 run m --prompt p --memory-limit 1MB
limit=$("$alloy" run m --prompt p --memory-limit 1MB 2>&1 | sed -n 's/.*most is needed by [A-Za-z0-9]*, .*; give \([0-9]*\) MB.*/\1/p')
[ -n "$limit" ] || wrong "no limit is said that would do"
if ! grep -q __asan_init "$alloy"; then # the sanitizer keeps what was freed, so the process grows by more than was foreseen
    "$alloy" run m --prompt p --steps 1 --memory-limit "${limit}MB" --output "$dir/.limit.png" -q >/dev/null || wrong "a limit that was said to do does not: $limit"
fi
mkdir q.partial; says 1 info q.partial; rmdir q.partial
says 1 run m --prompt p --output nowhere/p.png
says 1 run m --prompt p --output folder.png
says 1 run m --prompt p --save-latents /dev/full
says 1 run m --prompt p --latents empty.safetensors
says 1 run m --prompt p --latents noise.safetensors
says 2 predict m/TextEncoder.mlpackage
for path in nowhere empty.safetensors noise.safetensors folder /dev/zero; do
    says 1 predict m/TextEncoder.mlpackage --input "$path" --output x.safetensors
done
says 1 predict later.mlpackage --input ids.safetensors --output x.safetensors
says 1 predict m --input empty.safetensors --output x.safetensors
says 2 validate
says 1 validate nowhere
says 1 info empty.safetensors
says 1 info noise.safetensors
says 2 list-models here
says 1 list-models --dir nowhere
says 1 list-models --dir empty
[ "$(ls)" = "$before" ] || wrong "left behind: $(ls)"

# figures that cannot be written are a failure, and no half of them stays
"$alloy" run m --prompt p --steps 1 --output p.png -q --benchmark --benchmark-runs 1 --benchmark-output folder >run.out 2>run.err
[ $? = 1 ] && grep -q '^alloy: folder: the figures could not be written' run.err || wrong "figures into a folder: $(cat run.err)"
(ulimit -f 8 && "$alloy" run m --prompt p --steps 1 --output p.png -q --benchmark --benchmark-runs 40 --benchmark-output figures.json) >/dev/null 2>run.err
[ $? = 1 ] && grep -q '^alloy: figures.json: the figures could not be written' run.err || wrong "figures past a file size limit: $(cat run.err)"
[ -e figures.json ] && wrong "half of the figures is left"

# JSON is JSON; quiet is quiet; a seed of 64 bits and a prompt of any kind come back whole
prompt=$'a "fox"\n\ttab, \xf0\x9f\xa6\x8a, Steps: 3\n'
"$alloy" run m --prompt "$prompt" --steps 1 --seed 18446744073709551615 --output p.png --json >run.json || wrong "run failed"
"$alloy" run m --prompt p --steps 1 --seed 18446744073709551615 >files.txt 2>run.err || wrong "run failed"
[ "$(cat files.txt)" = output.png ] || wrong "not the name of the picture: $(cat files.txt)"
grep -q '18446744073709551615' run.json || wrong "the seed is not in the report"
grep -q '18446744073709551615' run.err || wrong "the seed is not in the summary"
grep -q $'[\r\033]' run.err && wrong "a progress bar where there is no terminal"
"$alloy" info p.png >info.txt || wrong "info failed"
printf '%s' "$prompt" >prompt.txt
tail -n +3 info.txt | head -c "$(wc -c <prompt.txt)" | cmp - prompt.txt || wrong "another prompt came back"
check_json() { ! command -v python3 >/dev/null || python3 -c 'import json, sys; json.load(sys.stdin)' || wrong "not JSON: $*"; }
for args in "info m" "info p.png" "info $source" "info m/VAEDecoder.mlpackage" "list-models" "validate m" "run m --prompt p --steps 1" \
    "convert $source --name again --size 64x64 --text-length 16"; do
    # shellcheck disable=SC2086
    "$alloy" $args --json 2>/dev/null | check_json "$args"
    rm -rf converted
    # shellcheck disable=SC2086
    "$alloy" $args -q 2>quiet.err >/dev/null
    [ -s quiet.err ] && wrong "not quiet: $args: $(cat quiet.err)"
done
exit $bad
