//! The one place that reads the clock.

use std::time::Instant;

use crate::Result;

/// Does something; returns how long that took, in seconds.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures the real time")]
pub(crate) fn seconds(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let begin = Instant::now();
    work()?;
    Ok(begin.elapsed().as_secs_f64())
}

/// Tells how long it has been running.
pub(crate) struct Clock(Instant);

impl Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "a line of so many bytes a second has them by the real time"
    )]
    pub(crate) fn start() -> Clock {
        Clock(Instant::now())
    }

    /// Since it was started.
    pub(crate) fn seconds(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}
