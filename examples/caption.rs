//! Captions images: `cargo run --release --example caption -- [CONFIG.yaml] IMAGE...`; without a config, the demo model.

use limber::Captioner;

fn main() -> limber::Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_config = arguments.first().is_some_and(|name| name.ends_with(".yaml") || name.ends_with(".toml"));
    let captioner = match is_config {
        true => Captioner::open(arguments.remove(0))?,
        false => Captioner::demo()?,
    };
    for (path, caption) in arguments.iter().zip(captioner.captions(arguments.iter().cloned())?) {
        let total: f32 = caption.logprobs.iter().sum();
        println!("{path}: {} ({} tokens, log-probability {total:.2})", caption.text, caption.tokens.len());
    }
    Ok(())
}
