#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Asks coremltools about packages: one for every op and storage, those of small models of every family in every stored form,
# and those of the demo model. PYTHON names an interpreter that has coremltools and numpy; BUILD the folder that `make all
# tests` filled.
set -eu
cd "$(dirname "$0")/../.."
build=${BUILD:-build} python=${PYTHON:-python3}
make -s BUILD="$build" all "$build/tests/coreml/test_write" "$build/tests/pipe/test_forms"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"$build/tests/coreml/test_write" "$dir/ops"
"$python" tests/coreml/check_packages.py "$dir/ops"
"$build/tests/pipe/test_forms" "$dir/forms" >/dev/null
for model in "$dir"/forms/*; do "$python" tests/coreml/check_packages.py "$model"; done
if [ -f demo/model/model_index.json ]; then
    "$build/alloy" convert demo/model -q --output-dir "$dir" --name half
    "$build/alloy" convert demo/model -q --output-dir "$dir" --name single --quantization float32 --target macos15
    "$build/alloy" convert demo/model -q --output-dir "$dir" --name sizes --quantization int4 --size 128x128 --size 192x128
    "$build/alloy" convert demo/model -q --output-dir "$dir" --name chain --quantization int8 --size 128x128 --size 64x64 --max-package-size 600KB
    "$python" tests/coreml/check_packages.py "$dir/half"
    "$python" tests/coreml/check_packages.py "$dir/sizes"
    "$python" tests/coreml/check_packages.py "$dir/chain"
    "$python" tests/coreml/check_packages.py "$dir/single"
fi
