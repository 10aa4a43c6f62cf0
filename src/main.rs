//! The program `limber`.

use std::process::ExitCode;

fn main() -> ExitCode {
    one_thread_in_candles_own_pool();
    limber::cli::main()
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
