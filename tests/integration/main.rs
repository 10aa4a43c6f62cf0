//! The one integration-test binary of the root package; each module is a theme.
#![allow(missing_docs, clippy::unwrap_used)]

mod beit;
mod bench;
mod clip_resnet;
mod clip_vit;
mod config;
mod configs;
mod decoders;
mod demo;
mod dinov2;
mod encode;
mod features;
mod golden;
mod gpt2;
mod gpt_neox;
mod gptj;
#[cfg(feature = "hub")]
mod hub;
mod images;
mod llama;
mod matrix;
mod nf_resnet;
mod opt;
mod program;
mod projections;
mod siglip;
mod structure;
mod tokenizer;
mod train;
mod webdataset;
mod weights;
