#!/usr/bin/env bash
# What the demo's pictures show: held-out prompts drawn at float16, int8 and int4 and judged, each also against a prompt that
# is wrong in one word, which must be rejected.
set -u
alloy=$(cd "$(dirname "${BUILD:-build}/alloy")" && pwd)/alloy
[ -f demo/model/model_index.json ] || { echo "no demo model here"; exit 77; }
model=$PWD/demo/model
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
make -s -C demo/judge BUILD="$dir" all || exit 1
cd "$dir" || exit 1
bad=0
# seed, prompt, one wrong word for a right one
cat >prompts <<'TEXT'
3|a big red circle to the left of a small blue square on a yellow background|s/left/right/
11|four green triangles on a black background|s/four/three/
5|a small white ring at the bottom on blue|s/small/big/
8|in the top right corner, a big purple star on white|s/star/cross/
2|two orange crosses on a purple background|s/purple/red/
TEXT
for kind in float16 int8 int4; do
    "$alloy" convert "$model" --output-dir . --name "$kind" --quantization "$kind" --width 128 --height 128 -q || exit 1
    accepted=0
    while IFS='|' read -r seed prompt change; do
        "$alloy" run "$kind" --prompt "$prompt" --seed "$seed" --steps 6 --output p.png -q >out </dev/null || { cat out; exit 1; }
        if ./judge p.png "$prompt" >>verdicts; then accepted=$((accepted + 1)); fi
        ./judge p.png "$(sed "$change" <<<"$prompt")" >out && { echo "$kind: the wrong prompt passes too: $(cat out)"; bad=1; }
    done <prompts
    [ "$accepted" -ge 4 ] || { echo "$kind: $accepted of 5 pictures show their prompts"; bad=1; }
done
[ "$bad" = 0 ] || cat verdicts
exit "$bad"
