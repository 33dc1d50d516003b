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
