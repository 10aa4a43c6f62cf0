//! Buffers that a thread keeps between calls, so that no call pays for fresh pages.

use std::cell::RefCell;

/// A cache line of f32.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Line(#[allow(dead_code, reason = "reached through pointers")] [f32; 16]);

/// Zeros, at least `len` floats of them.
pub(crate) fn lines(len: usize) -> Vec<Line> {
    vec![Line([0.0; 16]); len.div_ceil(16)]
}

/// Larger buffers go back instead of staying with the thread: their work is long beside that of fresh pages.
const KEEP_BYTES: usize = 16 << 20;
/// Buffers that a thread keeps.
const KEEP: usize = 4;

thread_local! {
    static FREE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// f32 that begin at a cache line and hold leftovers: write before reading.
pub(crate) struct Scratch(Vec<Line>);

impl Scratch {
    /// At least `len` floats.
    pub(crate) fn take(len: usize) -> Scratch {
        let lines = len.div_ceil(16);
        let mut best = FREE.with_borrow_mut(|free| {
            let fits = |v: &Vec<Line>| v.len() >= lines;
            let small = (0..free.len()).filter(|&i| fits(&free[i])).min_by_key(|&i| free[i].len());
            match small {
                Some(i) => free.swap_remove(i),
                None => free.pop().unwrap_or_default(),
            }
        });
        if best.len() < lines {
            // Let go of first: the two need not be there together, and growing would take more than is asked for.
            drop(std::mem::take(&mut best));
            best = self::lines(len);
        }
        Scratch(best)
    }

    pub(crate) fn as_ptr(&self) -> *const f32 {
        self.0.as_ptr().cast()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.0.as_mut_ptr().cast()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        if size_of_val(buffer.as_slice()) > KEEP_BYTES {
            return;
        }
        // The thread may be ending, and its store gone: then the buffer just goes too.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < KEEP {
                free.push(buffer);
            }
        });
    }
}
