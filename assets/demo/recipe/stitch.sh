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
# Then the scenes of two objects, the shapes and sizes of which are hardest, with every second one of three and every third
# of one.
if [ ! -e $work/again.jsonl ]; then
    awk '{ three = /, /; two = / (above|below|left of|right of) / && !three; one = !two && !three }
         two || (three && a++ % 2 == 0) || (one && b++ % 3 == 0)' $work/train.jsonl > $work/part
    mv $work/part $work/again.jsonl
fi
wc -l $work/*.jsonl

# Each image's features once, least squares as a start, then the training itself.
config=(--config configs/demo_train.yaml --set data.features=$work/features)
"$limber" encode --config configs/demo_train.yaml --data --out $work/features --precision f32
"$limber" fit "${config[@]}" --out $work/start.safetensors
"$limber" train "${config[@]}" ${RESUME:+--resume}
config=(--config configs/demo_train.yaml --set data.path=$work/again.jsonl)
"$limber" encode "${config[@]}" --data --out $work/again_features --precision f32
"$limber" train "${config[@]}" --set data.features=$work/again_features \
    --set stitch.weights=$work/train/stitch.safetensors --set train.output=$work/again \
    --set train.steps=600 --set train.lr=2.0e-3 --set train.warmup=20
"$limber" convert $work/again/stitch.safetensors --out $work/proj.ckpt --to torch
