//! Components that limber links in, shipped as a plugin with its own copy of candle: what the tests compare with
//! themselves.

use limber_decoder_gptj as _;
use limber_encoder_clip_resnet as _;
use limber_stitch_linear as _;
use limber_stitch_mlp as _;

limber_sdk::export_plugin!();
