#!/usr/bin/env bash
# Makes the demo's parts again: make.sh LIMBER OUT [WORK]
#   LIMBER  the limber program, which draws the data
#   OUT     where clip/, gptj/ and proj.ckpt go
#   WORK    where data is kept (default: OUT/data); what is there is used again
# Needs Python with requirements.txt. The README beside this file says how long it takes.
set -euo pipefail
source "$(dirname "$0")/paths.sh"

"$limber" shapes --count 36000 --seed 1000 --size 64 --out "$work/train64"
"$limber" shapes --count 12000 --seed 1001 --size 96 --out "$work/train96"
"$limber" shapes --count 12000 --seed 1002 --size 128 --out "$work/train128"
"$limber" shapes --count 600 --seed 9001 --size 64 --out "$work/held64"
"$limber" shapes --count 300 --seed 9002 --size 128 --out "$work/held128"
train=("$work/train64" "$work/train96" "$work/train128")

mkdir -p "$out/gptj" "$out/clip"
"$python" train_tokenizer.py "$out/gptj" "$work/train64"
# The two models know nothing of each other, so they train side by side.
"$python" train_lm.py "$out/gptj" --steps "${LM_STEPS:-5000}" "$work/train64" &
lm=$!
"$python" train_clip.py "$out/clip" "$out/gptj/tokenizer.json" --steps "${CLIP_STEPS:-1500}" "${train[@]}"
wait "$lm"
"$python" score_lm.py "$out/gptj" "$work/held64"
# Once over all scenes, then with fewer of those of three objects, whose long captions weigh most in the loss.
steps=${STITCH_STEPS:-3200}
stitch=("$out/proj.ckpt" --clip "$out/clip" --lm "$out/gptj" --held "$work/held64" --keep "$work/features.pt" --limit 11000)
"$python" train_stitch.py "${stitch[@]}" --steps "$steps" "${train[@]}"
"$python" train_stitch.py "${stitch[@]}" --start "$out/proj.ckpt" --three 0.2 --lr 1.5e-3 --seed 7 \
  --steps "$((steps * 2 / 3))" "${train[@]}"
"$python" train_stitch.py "${stitch[@]}" --start "$out/proj.ckpt" --three 0.1 --lr 1.2e-3 --seed 11 --batch 96 \
  --steps "$((steps * 2 / 5))" "${train[@]}"
"$python" evaluate.py "$out" "$work/held64" "$work/held128"
