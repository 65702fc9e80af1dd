#!/usr/bin/env bash
# Global symbols: alloy_ and ay_ only in the static library, alloy_ only out of the shared one. $1: the build folder.
set -u
b=${1:-build}
bad=$(nm -g --defined-only "$b/liballoy.a" 2>/dev/null | awk 'NF == 3 { print $3 }' | grep -vE '^_?(alloy_|ay_|__asan|__odr|\.)' | sort -u)
[ -z "$bad" ] || { echo "liballoy.a defines globals without a prefix:" $bad; exit 1; }
bad=$(nm -D --defined-only "$b/liballoy.so" 2>/dev/null | awk 'NF == 3 { print $3 }' | grep -vE '^(alloy_|_init|_fini|__)' | sort -u)
[ -z "$bad" ] || { echo "liballoy.so exports more than alloy_:" $bad; exit 1; }
