//! Work over the threads of the current rayon pool: one queue of pieces, pulled as they finish.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A pointer that crosses threads.
///
/// Kernels that hold one write to disjoint elements.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T>(pub *mut T);
// SAFETY: users of `Shared` write to disjoint elements, and join before the borrow ends.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    #[inline(always)]
    pub(crate) fn get(&self) -> *mut T {
        self.0
    }
}

/// Where the share `i` of `n` things begins that are shared out among `parts` nearly evenly; the last one's end for `parts`.
///
/// No product of two sizes, which could wrap round.
#[inline(always)]
pub(crate) fn share(n: usize, parts: usize, i: usize) -> usize {
    i * (n / parts) + i.min(n % parts)
}

/// Runs `f(0), .., f(n - 1)` once each, on all threads of the current pool.
///
/// Threads take the next index from one counter, so a slow core only delays its own piece.
/// The calling thread works too and does not wait for others to wake up.
pub(crate) fn for_each(n: usize, f: impl Fn(usize) + Sync) {
    let threads = rayon::current_num_threads().min(n);
    if threads <= 1 {
        (0..n).for_each(f);
        return;
    }
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= n {
                break;
            }
            f(i);
        }
    };
    rayon::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|_| work());
        }
        work();
    });
}

/// Runs `f(start, piece)` over pieces of `size` elements.
pub(crate) fn chunks_mut<T: Send>(data: &mut [T], size: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let (n, size) = (data.len(), size.max(1));
    let start = Shared(data.as_mut_ptr());
    for_each(n.div_ceil(size), |i| {
        let (a, b) = (i * size, ((i + 1) * size).min(n));
        // SAFETY: pieces do not overlap, lie within `data`, and `for_each` joins.
        f(a, unsafe { std::slice::from_raw_parts_mut(start.get().add(a), b - a) });
    });
}
