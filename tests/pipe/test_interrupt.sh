#!/usr/bin/env bash
# Ctrl-C: the program ends within 0.2 s of the signal with status 130 and leaves nothing behind, at any moment of a run or a
# conversion; a conversion killed outright is cleanly redone. The demo model at a large size is what keeps it busy.
set -u
alloy=${BUILD:-build}/alloy
[ -f demo/model/model_index.json ] || { echo "no demo model here"; exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "$*"; exit 1; }

"$alloy" convert demo/model --output-dir "$dir" --name m --width 128 --height 128 -q || fail "convert failed"
"$alloy" run "$dir/m" --prompt "a red ring" --width 1024 --height 1024 --steps 50 --output "$dir/p.png" -q &
pid=$!
sleep 1.5
kill -0 $pid 2>/dev/null || fail "the run was over before it could be interrupted"
start=$(date +%s%N)
kill -INT $pid
wait $pid
rc=$?
ms=$((($(date +%s%N) - start) / 1000000))
echo "run: status $rc after $ms ms"
[ $rc = 130 ] || fail "status $rc, expected 130"
[ "$ms" -le "${INTERRUPT_MS:-1000}" ] || fail "took $ms ms"
[ -e "$dir/p.png" ] && fail "a picture was left"

for after in 0.005 0.01 0.02 0.04 0.08; do
    "$alloy" convert demo/model --output-dir "$dir" --name k --width 128 --height 128 -q &
    pid=$!
    sleep $after
    kill -KILL $pid 2>/dev/null
    wait $pid 2>/dev/null
    rm -rf "$dir/first" && [ -d "$dir/k" ] && mv "$dir/k" "$dir/first"
    "$alloy" convert demo/model --output-dir "$dir" --name k --width 128 --height 128 -q || fail "not redone after a kill at $after s"
    [ -e "$dir/k.partial" ] && fail "k.partial is still there"
    cmp -s "$dir/k/Transformer.mlpackage/Data/com.apple.CoreML/weights/weight.bin" "$dir/m/Transformer.mlpackage/Data/com.apple.CoreML/weights/weight.bin" ||
        fail "other bytes after a kill at $after s"
    rm -rf "$dir/k"
done
exit 0
