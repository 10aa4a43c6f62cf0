//! The program `limber`: one module a subcommand, results on stdout, everything else on stderr.
//!
//! Exit codes: 0 done, 1 failed with one message, 2 wrong usage.

mod bench;
mod caption;
mod components;
mod config;
mod convert;
mod encode;
mod eval;
mod fit;
mod generate;
mod images;
mod manual;
mod metrics;
mod options;
mod output;
mod plugin;
mod progress;
mod pull;
mod reproduce;
mod score;
mod shapes;
mod threads;
mod train;
mod version;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::io::IsTerminal;
use std::process::ExitCode;

/// Stitch any frozen image encoder to any frozen language model through one small trained layer (projector)
#[derive(Debug, Parser)]
#[command(name = "limber", version, long_version = version::long(), propagate_version = true, styles = output::STYLES)]
struct Cli {
    #[command(flatten)]
    verbosity: output::Verbosity,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Caption images
    Caption(caption::Arguments),
    /// Continue a prompt of interleaved images and text
    Generate(generate::Arguments),
    /// Print the log-probability of every token of a text after an image and a prompt
    Score(score::Arguments),
    /// Write pixels, features or prefixes of images, or the features of a data set
    Encode(encode::Arguments),
    /// Evaluate a model on a data set of captions or questions
    Eval(Box<eval::Arguments>),
    /// Score predictions against references: BLEU, ROUGE-L, CIDEr, CLIPScore, VQA accuracy
    Metrics(metrics::Arguments),
    /// Train the stitch of a config between its frozen components
    Train(train::Arguments),
    /// Fit a linear stitch in closed form: a baseline, and an initialisation for training
    Fit(fit::Arguments),
    /// List the available encoders, stitches and decoders
    Components(components::ListArguments),
    /// Print the JSON Schema of a component's settings or of a section of a config
    Describe(components::DescribeArguments),
    /// Show or check config files, or print their JSON Schema
    #[command(subcommand)]
    Config(config::Command),
    /// Convert a checkpoint to one safetensors, PyTorch or GGUF file
    Convert(convert::Arguments),
    /// Create, list or check plugins (dynamic libraries with additional components)
    #[command(subcommand)]
    Plugin(plugin::Command),
    /// Download weights from the Hugging Face hub into its standard cache
    Pull(pull::Arguments),
    /// Measure the speed of each stage relative to the roofline of this machine
    Bench(bench::Arguments),
    /// Generate a data set of scenes of shapes with captions and questions: the demo's world
    Shapes(shapes::Arguments),
    /// Reproduce the paper's experiment in miniature and write a report
    Reproduce(reproduce::Arguments),
    /// Print the completions of a shell
    Completions(manual::CompletionArguments),
    /// Write the manual pages, one for each subcommand
    Man(manual::PageArguments),
}

fn main() -> ExitCode {
    one_thread_in_candles_own_pool();
    if std::env::args_os().any(|word| word == "train") {
        large_buffers_go_back_to_the_system();
    }
    let cli = Cli::parse();
    let level = cli.verbosity.start();
    let filter = tracing_subscriber::EnvFilter::try_from_env("LIMBER_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    // What goes over the network holds the user's token and signed addresses, so it is never logged.
    let quiet = ["ureq=warn", "ureq_proto=warn"].into_iter().filter_map(|directive| directive.parse().ok());
    let filter = quiet.fold(filter, tracing_subscriber::EnvFilter::add_directive);
    // Escape sequences are for a terminal, and for one whose user has not asked for none (https://no-color.org).
    let is_coloured =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    log.with_ansi(is_coloured).without_time().init();
    tracing::info!("limber {}", version::long().replace('\n', ", "));
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of stdout went away (`limber components | head -1`): nothing is left to say.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    // These have no config, which says how many threads there are in the others.
    if matches!(command, Command::Metrics(_) | Command::Convert(_) | Command::Plugin(_) | Command::Shapes(_)) {
        threads::start(None)?;
    }
    match command {
        Command::Caption(arguments) => caption::run(&arguments),
        Command::Generate(arguments) => generate::run(&arguments),
        Command::Score(arguments) => score::run(&arguments),
        Command::Encode(arguments) => encode::run(&arguments),
        Command::Eval(arguments) => eval::run(&arguments),
        Command::Metrics(arguments) => metrics::run(&arguments),
        Command::Train(arguments) => train::run(&arguments),
        Command::Fit(arguments) => fit::run(&arguments),
        Command::Components(arguments) => components::list(&arguments),
        Command::Describe(arguments) => components::describe(&arguments),
        Command::Config(command) => config::run(&command),
        Command::Convert(arguments) => convert::run(&arguments),
        Command::Plugin(command) => plugin::run(&command),
        Command::Pull(arguments) => pull::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Shapes(arguments) => shapes::run(&arguments),
        Command::Reproduce(arguments) => reproduce::run(&arguments),
        Command::Completions(arguments) => manual::completions(&arguments),
        Command::Man(arguments) => manual::pages(&arguments),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}

/// glibc raises the size from which a buffer is a map of its own to that of the largest one freed so far. Tensors then lie
/// between each other, and what a training step frees stays with the process.
#[allow(unsafe_code)]
fn large_buffers_go_back_to_the_system() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if std::env::var_os("MALLOC_MMAP_THRESHOLD_").is_none() {
        use std::ffi::c_int;
        unsafe extern "C" {
            fn mallopt(parameter: c_int, value: c_int) -> c_int;
        }
        const M_MMAP_THRESHOLD: c_int = -3;
        // SAFETY: the declaration is glibc's, and no other thread has been started.
        unsafe { mallopt(M_MMAP_THRESHOLD, 4 << 20) };
    }
}

/// candle's element-wise operations split their work over a pool of its own, beside rayon's, whose threads spin while they
/// wait. All that is long runs on rayon in `limber-kernels`; what is left for candle is short, and quicker on one thread:
/// ARCHITECTURE.md has the figures.
#[allow(unsafe_code)]
fn one_thread_in_candles_own_pool() {
    const THREADS: &str = "CANDLE_NUM_THREADS";
    if std::env::var_os(THREADS).is_none() {
        // SAFETY: no other thread has been started that could read the environment meanwhile.
        unsafe { std::env::set_var(THREADS, "1") }
    }
}
