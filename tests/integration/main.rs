//! The one integration-test binary of the root package; each module is a theme.
#![allow(missing_docs, clippy::unwrap_used)]

/// The workspace's folder.
pub const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

mod beit;
mod bench;
mod bounds;
mod broken;
mod chat;
mod clip_resnet;
mod clip_score;
mod clip_vit;
mod config;
mod configs;
mod decoders;
mod demo;
mod dinov2;
mod encode;
mod encoders;
mod eval;
mod features;
mod fit;
mod formats;
mod gemma2;
mod gguf;
mod gguf_families;
mod gguf_refused;
mod gguf_tokenizers;
mod gguf_types;
mod golden;
mod gpt2;
mod gpt_neox;
mod gptj;
#[cfg(feature = "hub")]
mod hub;
mod images;
mod llama;
mod manners;
mod matrix;
mod metrics;
mod nf_resnet;
mod opt;
mod own_cache;
mod plugins;
mod plugins_c;
mod program;
mod projections;
mod qwen3;
mod ranks;
mod real;
#[cfg(unix)]
mod releases;
mod reproduce;
mod rounded;
mod runs;
mod schema;
mod siglip;
mod stops;
mod structure;
mod tokenizer;
mod tokenizer_models;
mod train;
mod webdataset;
mod weights;
