#!/usr/bin/env bash
# Ctrl-C: the program ends within 0.2 s of the signal with status 130 and leaves no picture and no half model, at any moment of
# a run or a conversion; a conversion that was interrupted or killed outright goes on after the last whole tensor and gives the
# same bytes. The demo model at a large size is what keeps it busy.
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

# signal after so many tensors -> the same folder as one that was left alone
resumed=0 rounds=0
for round in KILL:1 KILL:40 KILL:120 KILL:200 INT:90 KILL:300; do
    signal=${round%:*} tensors=${round#*:}
    "$alloy" convert demo/model --output-dir "$dir" --name k --width 128 --height 128 -q 2>/dev/null &
    pid=$!
    until [ -d "$dir/k" ] || [ "$(wc -l <"$dir/k.partial/journal" 2>/dev/null || echo 0)" -gt "$tensors" ]; do sleep 0.001; done
    kill -$signal $pid 2>/dev/null
    wait $pid 2>/dev/null
    rounds=$((rounds + 1))
    if [ ! -d "$dir/k" ]; then
        "$alloy" convert demo/model --output-dir "$dir" --name k --width 128 --height 128 2>"$dir/log" || fail "not redone after $round: $(cat "$dir/log")"
        grep -q "resuming after [1-9][0-9]* of [1-9][0-9]* tensors" "$dir/log" && resumed=$((resumed + 1))
    fi
    [ -e "$dir/k.partial" ] && fail "k.partial is still there"
    sed -i.bak 's/"name": "k"/"name": "m"/' "$dir/k/alloy.json" && rm "$dir/k/alloy.json.bak"
    diff -r "$dir/k" "$dir/m" || fail "other bytes after $round"
    rm -rf "$dir/k"
done
echo "$resumed of $rounds went on"
[ $resumed -gt 0 ] || fail "none went on where it was"
exit 0
