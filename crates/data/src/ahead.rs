//! Work on numbered positions ahead of whoever needs it: several threads, a bounded number of results, delivered in
//! order.
//!
//! A panic while a position is worked on is that position's error, so that whoever waits for it learns of it instead of
//! waiting for ever.

use super::panicked::caught;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard};

/// Results of the positions of a range, made by other threads.
pub struct Ahead<'a, T> {
    make: Box<dyn Fn(u64) -> Result<T> + Sync + 'a>,
    end: u64,
    ahead: u64,
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    /// The next position that a thread takes.
    next: u64,
    /// The next position that is delivered.
    delivered: u64,
    ready: BTreeMap<u64, Result<T>>,
    stop: bool,
}

impl<'a, T: Send> Ahead<'a, T> {
    /// `make` of each position of `start..end`, at most `ahead` of them waiting or under way.
    pub fn new((start, end): (u64, u64), ahead: usize, make: impl Fn(u64) -> Result<T> + Sync + 'a) -> Self {
        let state = State { next: start, delivered: start, ready: BTreeMap::new(), stop: false };
        let ahead = ahead.max(1) as u64;
        Self { make: Box::new(make), end, ahead, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Runs `body` while `workers` threads work ahead of it; they end when it does, however it ends.
    ///
    /// # Errors
    /// A thread that cannot be started, and what `body` reports.
    pub fn with_workers<R>(&self, workers: usize, body: impl FnOnce() -> Result<R>) -> Result<R> {
        std::thread::scope(|scope| {
            // Dropped before the scope waits for its threads.
            let _stop = Stop(self);
            for worker in 0..workers {
                let thread = std::thread::Builder::new().name(format!("worker {worker}"));
                thread
                    .spawn_scoped(scope, || self.work())
                    .with_context(|| format!("cannot start thread {} of {workers} that read ahead", worker + 1))?;
            }
            body()
        })
    }

    /// What a thread does: takes positions until there are none left or it is to stop.
    fn work(&self) {
        loop {
            let position = {
                let mut state = self.lock();
                while !state.stop && state.next < self.end && state.next >= state.delivered.saturating_add(self.ahead) {
                    state = self.changed.wait(state).unwrap_or_else(|e| e.into_inner());
                }
                if state.stop || state.next >= self.end {
                    return;
                }
                state.next += 1;
                state.next - 1
            };
            let made = self.made(position);
            self.lock().ready.insert(position, made);
            self.changed.notify_all();
        }
    }

    /// The next result in order. Without other threads the caller's own makes it.
    ///
    /// # Errors
    /// What the work on it reports, or a panic in it.
    pub fn next(&self) -> Result<T> {
        let mut state = self.lock();
        let position = state.delivered;
        loop {
            if let Some(made) = state.ready.remove(&position) {
                state.delivered += 1;
                self.changed.notify_all();
                return made;
            }
            if state.next == position {
                // Nobody has taken it: there are no threads, or they are behind.
                state.next += 1;
                drop(state);
                let made = self.made(position);
                state = self.lock();
                state.ready.insert(position, made);
                continue;
            }
            state = self.changed.wait(state).unwrap_or_else(|e| e.into_inner());
        }
    }

    fn made(&self, position: u64) -> Result<T> {
        caught(|| format!("item {}", position.saturating_add(1)), || (self.make)(position))
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Lets the threads end when it is dropped.
struct Stop<'a, 'b, T: Send>(&'a Ahead<'b, T>);

impl<T: Send> Drop for Stop<'_, '_, T> {
    fn drop(&mut self) {
        self.0.lock().stop = true;
        self.0.changed.notify_all();
    }
}
