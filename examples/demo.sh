#!/bin/sh
# What `make demo` shows. usage: sh examples/demo.sh STREAMLEARN
set -eu
streamlearn=$1
cd "$(dirname "$0")/.."

echo "== Real data that ships inside the river package: which web sites are after passwords?"
"$streamlearn" replay river:Phishing --target target
echo
echo "== A generated stream whose concept changes at rows 10,000, 20,000 and 30,000."
echo "== First a model that learns how fast to forget; its detector only reports:"
mkdir -p build
"$streamlearn" replay drift:abrupt --target y --drifts 10000,20000,30000 --report build/demo.html
echo "a report of this one, with plots, to open in a browser: $PWD/build/demo.html"
echo
echo "== Then one that never forgets, but starts anew when its detector fires:"
"$streamlearn" replay examples/pipeline.yaml
