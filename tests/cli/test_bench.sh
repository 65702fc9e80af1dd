#!/usr/bin/env bash
# alloy bench and run --profile: ceilings and kernels come out, a model's operations add up to the time of the clock, wrong
# words are refused.
set -u
alloy=${BUILD:-build}/alloy
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "$*"; exit 1; }

"$alloy" bench --only "layer_norm" --runs 1 -q >"$dir/kernels" || fail "bench failed"
grep -q "^ceilings, [0-9]* threads" "$dir/kernels" || fail "no ceilings: $(cat "$dir/kernels")"
grep -q "of memory .*layer_norm" "$dir/kernels" || fail "no kernel: $(cat "$dir/kernels")"
"$alloy" bench --only "layer_norm" --runs 1 --json -q >"$dir/json" || fail "bench --json failed"
for what in fma_gflops int8_gops int4_gops; do
    grep -q "\"$what\": [1-9]" "$dir/json" || fail "no $what in JSON: $(head -20 "$dir/json")"
done
"$alloy" bench --only "blocks of 4 bits" --runs 1 -q >"$dir/kernels" || fail "bench of four-bit weights failed"
grep -q "GOP/s .* % of int4 .*in int8" "$dir/kernels" || fail "no share of the ceiling of four-bit weights: $(cat "$dir/kernels")"
"$alloy" bench --only "no such kernel" -q 2>"$dir/err"
[ $? = 2 ] && grep -q "no such kernel" "$dir/err" || fail "a kernel that is not there: $(cat "$dir/err")"
"$alloy" bench "$dir/nothing" -q 2>"$dir/err"
[ $? = 1 ] && grep -q "nothing" "$dir/err" || fail "a model that is not there: $(cat "$dir/err")"
"$alloy" bench a b -q 2>/dev/null
[ $? = 2 ] || fail "two models were taken"

[ -f demo/model/model_index.json ] || exit 0
"$alloy" convert demo/model --output-dir "$dir" --name m --width 128 --height 128 --text-length 16 -q || fail "convert failed"
for how in "bench $dir/m --runs 2" "run $dir/m --prompt ring --steps 2 --profile -o $dir/p.png"; do
    "$alloy" $how -q >"$dir/out" || fail "$how failed"
    for package in TextEncoder TextEncoder2 Transformer VAEDecoder; do
        share=$(sed -n "s/^$package: .*; \([0-9.]*\) % of .* of the clock.*/\1/p" "$dir/out")
        [ -n "$share" ] || fail "$how: no line for $package: $(head -5 "$dir/out")"
        awk -v s="$share" 'BEGIN { exit !(s >= 95 && s <= 100.01) }' || fail "$how: the operations of $package add up to $share % of its time"
    done
    grep -q "ms .* FLOP\|GFLOP/s .* % .*linear" "$dir/out" || fail "$how: no rates"
done

# a single package: 77 token ids of zero, as safetensors
header='{"input_ids":{"dtype":"I32","shape":[1,77],"data_offsets":[0,308]}}     '
{ printf "$(printf '\\x%02x' "${#header}")\\0\\0\\0\\0\\0\\0\\0"; printf '%s' "$header"; head -c 308 /dev/zero; } >"$dir/ids.safetensors"
"$alloy" predict "$dir/m/TextEncoder.mlpackage" --input "$dir/ids.safetensors" --output "$dir/o.safetensors" --profile -q >"$dir/out" ||
    fail "predict --profile failed"
grep -q "^TextEncoder.mlpackage: .*of the clock" "$dir/out" || fail "predict --profile: $(head -5 "$dir/out")"
"$alloy" predict "$dir/m/TextEncoder.mlpackage" --input "$dir/ids.safetensors" --output "$dir/o.safetensors" --json -q | grep -q '"seconds": [0-9]' ||
    fail "predict --json says no time"
exit 0
