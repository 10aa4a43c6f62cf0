//! The program `limber`.

use std::process::ExitCode;

fn main() -> ExitCode {
    one_thread_in_candles_own_pool();
    if std::env::args_os().any(|word| word == "train") {
        large_buffers_go_back_to_the_system();
    }
    limber::cli::main()
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
