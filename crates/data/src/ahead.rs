//! Work on numbered places ahead of whoever needs it: several threads, a bounded number of results, delivered in order.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard};

/// Results of the places of a range, made by other threads.
pub struct Ahead<'a, T> {
    make: Box<dyn Fn(u64) -> T + Sync + 'a>,
    end: u64,
    ahead: u64,
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    /// The next place that a thread takes.
    next: u64,
    /// The next place that is delivered.
    delivered: u64,
    ready: BTreeMap<u64, T>,
    stop: bool,
}

impl<'a, T: Send> Ahead<'a, T> {
    /// `make` of each place of `start..end`, at most `ahead` of them waiting or under way.
    pub fn new((start, end): (u64, u64), ahead: usize, make: impl Fn(u64) -> T + Sync + 'a) -> Self {
        let state = State { next: start, delivered: start, ready: BTreeMap::new(), stop: false };
        let ahead = ahead.max(1) as u64;
        Self { make: Box::new(make), end, ahead, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// What a thread does: takes places until there are none left or [`Self::stop`] was called.
    pub fn work(&self) {
        loop {
            let place = {
                let mut state = self.lock();
                while !state.stop && state.next < self.end && state.next >= state.delivered + self.ahead {
                    state = self.changed.wait(state).unwrap_or_else(|e| e.into_inner());
                }
                if state.stop || state.next >= self.end {
                    return;
                }
                state.next += 1;
                state.next - 1
            };
            let made = (self.make)(place);
            self.lock().ready.insert(place, made);
            self.changed.notify_all();
        }
    }

    /// The next result in order. Without other threads the caller's own makes it.
    pub fn next(&self) -> T {
        let mut state = self.lock();
        let place = state.delivered;
        loop {
            if let Some(made) = state.ready.remove(&place) {
                state.delivered += 1;
                self.changed.notify_all();
                return made;
            }
            if state.next == place {
                // Nobody has taken it: there are no threads, or they are behind.
                state.next += 1;
                drop(state);
                let made = (self.make)(place);
                state = self.lock();
                state.ready.insert(place, made);
                continue;
            }
            state = self.changed.wait(state).unwrap_or_else(|e| e.into_inner());
        }
    }

    /// Lets the other threads end.
    pub fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}
