#!/usr/bin/env bash
# Makes the parts of the reproduction's world again: make.sh LIMBER OUT [WORK]
#   LIMBER  the limber program, which draws the data
#   OUT     where nf_resnet/, beit/, beit_ft/ and gptj/ go
#   WORK    where data is kept (default: OUT/data); what is there is used again
# CLIP is the demo's, and the language model goes on from the demo's: their recipe is ../../demo/recipe.
# Needs Python with requirements.txt. The README beside this file says how long it takes.
set -euo pipefail
source "$(dirname "$0")/../../demo/recipe/paths.sh"

"$limber" shapes --count 20000 --seed 2000 --objects 1-2 --out "$work/train"
"$limber" shapes --count 600 --seed 9100 --objects 1-2 --out "$work/held"
data=("$work/train" --held "$work/held")

# Three chains that know nothing of each other, side by side.
(
  "$python" train_lm.py "$out/gptj-first" "${data[@]}" --start ../../demo/gptj --steps 800 --seed 5
  "$python" train_lm.py "$out/gptj" "${data[@]}" --start "$out/gptj-first" --steps 900 --seed 6
  rm -r "$out/gptj-first"
) &
lm=$!
"$python" train_nf_resnet.py "$out/nf_resnet" "${data[@]}" &
nf=$!
"$python" train_beit.py "$out/beit" "${data[@]}"
"$python" train_beit.py "$out/beit_ft" "${data[@]}" --start "$out/beit" --steps 2500 --lr 1e-3
wait "$lm"
wait "$nf"
