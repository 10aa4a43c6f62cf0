#!/usr/bin/env bash
# Trains the demo's projection with limber itself: stitch.sh LIMBER, from the repository's root.
# Data and results go to runs/demo; what is there is used again.
set -euo pipefail
limber=$(realpath "$1")
cd "$(dirname "$0")/../../.."
work=runs/demo
mkdir -p $work

# Scenes at three sizes. The captions are the canonical ones, behind the prompt that the demo is asked with; of the scenes
# with three objects, whose long captions weigh most in the loss, three in ten are taken.
lines() {
    "$limber" shapes --count "$2" --seed "$3" --size "$1" --out "$work/$4"
    find "$work/$4/image_data" -name '*.json' | sort | xargs awk 1 |
        sed -nE "s|.*\"image_path\": ?\"([^\"]*)\", ?\"captions\": ?\\[\"([^\"]*)\".*|{\"image\": \"$4/\\1\", \"caption\": \"A picture of \\2\"}|p" |
        awk -F'"caption"' '$2 !~ /, / || n++ % 10 < 3'
}
if [ ! -e $work/train.jsonl ]; then
    { lines 64 8500 1000 train64; lines 96 6500 1001 train96; lines 128 7500 1002 train128; } > $work/part
    mv $work/part $work/train.jsonl
fi
if [ ! -e $work/held.jsonl ]; then
    lines 64 600 9001 held64 > $work/part
    mv $work/part $work/held.jsonl
fi
wc -l $work/*.jsonl

# Each image's features once, least squares as a start, then the training itself.
config=(--config configs/demo_train.yaml --set data.features=$work/features)
"$limber" encode --config configs/demo_train.yaml --data --out $work/features --precision f32
"$limber" fit "${config[@]}" --out $work/start.safetensors
"$limber" train "${config[@]}" ${RESUME:+--resume}
"$limber" convert $work/train/stitch.safetensors --out $work/proj.ckpt --to torch
