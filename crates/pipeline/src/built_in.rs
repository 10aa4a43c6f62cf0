//! The components that are linked in. A crate that nobody names is not linked, so each built-in component has its line
//! here.

use anyhow::Result;
use limber_core::Registry;
use limber_decoder_falcon as _;
use limber_decoder_gemma as _;
use limber_decoder_gemma2 as _;
use limber_decoder_gemma3 as _;
use limber_decoder_gpt_neo as _;
use limber_decoder_gpt_neox as _;
use limber_decoder_gpt2 as _;
use limber_decoder_gptj as _;
use limber_decoder_granite as _;
use limber_decoder_llama as _;
use limber_decoder_mpt as _;
use limber_decoder_olmo2 as _;
use limber_decoder_opt as _;
use limber_decoder_phi3 as _;
use limber_decoder_qwen3 as _;
use limber_decoder_smollm3 as _;
use limber_decoder_stablelm as _;
use limber_decoder_starcoder2 as _;
use limber_encoder_beit as _;
use limber_encoder_clip_resnet as _;
use limber_encoder_clip_vit as _;
use limber_encoder_dinov2 as _;
use limber_encoder_features as _;
use limber_encoder_nf_resnet as _;
use limber_encoder_siglip as _;
use limber_stitch_linear as _;
use limber_stitch_mlp as _;

/// Every component that a config can name.
///
/// # Errors
/// Two components of one kind.
pub fn registry() -> Result<Registry> {
    Registry::from_inventory()
}
