#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Asks coremltools about packages: one for every op and storage, and those of the demo model. PYTHON names an interpreter that
# has coremltools and numpy; BUILD the folder that `make all tests` filled.
set -eu
cd "$(dirname "$0")/../.."
build=${BUILD:-build} python=${PYTHON:-python3}
make -s BUILD="$build" all "$build/tests/coreml/test_write"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"$build/tests/coreml/test_write" "$dir/ops"
"$python" tests/coreml/check_packages.py "$dir/ops"
if [ -f demo/model/model_index.json ]; then
    "$build/alloy" convert demo/model -q --output-dir "$dir" --name half
    "$build/alloy" convert demo/model -q --output-dir "$dir" --name single --quantization float32 --target macos15
    "$python" tests/coreml/check_packages.py "$dir/half"
    "$python" tests/coreml/check_packages.py "$dir/single"
fi
