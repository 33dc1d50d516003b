//! Keeps gc apart from whoever has put objects into the store that no root names yet.
//!
//! gc closes the gate for as long as it runs; a [`Hold`] keeps it open. A gc that waits does not stop new holds, so a
//! thread may hold the gate twice.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    holds: usize,
    closed: bool,
}

/// While it lives gc does not run. Hold it from before the first object is put until a root (the catalogue, a
/// session's base) names the result.
#[derive(Debug)]
#[must_use = "gc may run as soon as this is dropped"]
pub struct Hold(Arc<Gate>);

/// While it lives nobody holds the gate.
#[derive(Debug)]
pub(crate) struct Closed<'a>(&'a Gate);

impl Gate {
    /// Waits until no gc runs.
    pub(crate) fn hold(self: &Arc<Gate>) -> Hold {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |s| s.closed);
        state.holds += 1;
        Hold(self.clone())
    }

    /// Waits until nobody holds the gate.
    pub(crate) fn close(&self) -> Closed<'_> {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |s| s.closed || s.holds > 0);
        state.closed = true;
        Closed(self)
    }

    /// The same at once, or not at all.
    pub(crate) fn try_close(&self) -> Option<Closed<'_>> {
        let mut state = self.state.lock();
        let is_free = !state.closed && state.holds == 0;
        state.closed |= is_free;
        is_free.then(|| Closed(self))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.state.lock().holds -= 1;
        self.0.changed.notify_all();
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.state.lock().closed = false;
        self.0.changed.notify_all();
    }
}
