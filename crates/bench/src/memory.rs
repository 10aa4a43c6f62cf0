//! What the system says of memory: the most that this process held, and what is left.

/// Forgets the most that was held so far, so that [`peak`] counts from now on.
pub(super) fn reset_peak() {
    // Where the system does not take it, `peak` says what was held since the start.
    #[cfg(target_os = "linux")]
    std::fs::write("/proc/self/clear_refs", "5").ok();
}

/// The most bytes that this process held in memory, mapped files included; None where the system does not say.
pub(super) fn peak() -> Option<u64> {
    kilobytes("/proc/self/status", "VmHWM:")
}

/// Bytes that can be had without pushing anything out; None where the system does not say.
pub(super) fn available() -> Option<u64> {
    kilobytes("/proc/meminfo", "MemAvailable:")
}

fn kilobytes(file: &str, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|n| n << 10)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_peak_rises_with_what_is_held() {
        let before = peak().unwrap();
        // Touched, so that it is there.
        let held = std::hint::black_box(vec![1u8; 64 << 20]);
        assert!(peak().unwrap() >= before.max(held.len() as u64));
        assert!(available().unwrap() > 0);
        assert_eq!(kilobytes("/proc/self/status", "NoSuchKey:"), None);
    }
}
