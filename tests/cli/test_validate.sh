#!/usr/bin/env bash
# A model folder whose parts were swapped, edited or taken away: validate has a finding and status 1 for each, none for the whole.
set -u
alloy=$(cd "$(dirname "${BUILD:-build}/alloy")" && pwd)/alloy
[ -f demo/model/model_index.json ] || { echo "no demo model here"; exit 77; }
source=$PWD/demo/model
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
bad=0
"$alloy" convert "$source" --output-dir . --name good --size 64x64 --text-length 16 -q || exit 1
"$alloy" convert "$source" --output-dir . --name wide --size 96x64 --text-length 16 -q || exit 1
[ -z "$("$alloy" validate good -q)" ] || { echo "findings in what was just written"; bad=1; }

# what is done to the folder, and a part of what must be said
finds() {
    rm -rf m && cp -r good m
    (cd m && eval "$1") || { echo "cannot: $1"; bad=1; }
    "$alloy" validate m >out 2>err
    local rc=$?
    [ $rc = 1 ] || { echo "status $rc after: $1"; bad=1; }
    grep -q "$2" out || { echo "after: $1: no \"$2\" in: $(head -c 600 out err)"; bad=1; }
}
finds 'mv VAEDecoder.mlpackage x && mv VAEEncoder.mlpackage VAEDecoder.mlpackage && mv x VAEEncoder.mlpackage' 'VAEDecoder.mlpackage: input "x" is none'
finds 'rm -r Transformer.mlpackage && cp -r ../wide/Transformer.mlpackage .' 'Transformer.mlpackage: input "hidden_states" is'
finds 'cp ../wide/alloy.json .' 'VAEDecoder.mlpackage: input "z" is'
finds 'rm -r TextEncoder2.mlpackage' 'TextEncoder2.mlpackage'
finds 'rm TextEncoder.mlpackage/Manifest.json' 'TextEncoder.mlpackage'
finds 'rm -r tokenizer_2' 'tokenizer_2'
finds 'echo "{" >tokenizer/tokenizer.json' 'tokenizer'
finds 'sed -i "s/\"width\": 64/\"width\": 80/" alloy.json' 'alloy.json: the sizes of'
finds 'sed -i "s/\"width\": 64/\"width\": 65/" alloy.json' 'alloy.json: 65x64'
finds 'sed -i "0,/\"latent_width\": 8/s//\"latent_width\": 9/" alloy.json' 'alloy.json: the sizes of'
finds 'sed -i "0,/\"num_layers\": 2/s//\"num_layers\": 3/" alloy.json' 'has no "'
finds 'sed -i "0,/\"offset\": [0-9]*/s//\"offset\": 65/" alloy.json' 'mlpackage'
finds 'truncate -s -100 Transformer.mlpackage/Data/com.apple.CoreML/weights/weight.bin' 'Transformer.mlpackage'
finds 'truncate -s -100 Transformer.mlpackage/Data/com.apple.CoreML/model.mlmodel' 'Transformer.mlpackage'
finds 'cp TextEncoder.mlpackage/Data/com.apple.CoreML/weights/weight.bin VAEDecoder.mlpackage/Data/com.apple.CoreML/weights/' 'VAEDecoder.mlpackage'
finds 'echo >alloy.json' 'alloy.json'
exit $bad
