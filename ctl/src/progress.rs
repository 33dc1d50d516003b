//! Progress on stderr: a bar or a spinner on a terminal, nothing anywhere else.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

const BAR: &str = "{spinner} {msg} [{bar:24}] {bytes}/{total_bytes} {bytes_per_sec} eta {eta}";
const SPINNER: &str = "{spinner} {msg} {elapsed}";
const TICK: Duration = Duration::from_millis(100);

/// One long task. Disappears when it is dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
    sized: bool,
}

impl Progress {
    pub(crate) fn start(message: &str) -> Progress {
        let bar = ProgressBar::new_spinner().with_style(style(SPINNER)).with_message(message.to_string());
        bar.enable_steady_tick(TICK);
        Progress { bar, sized: false }
    }

    /// Sets what is being done, and how far it is in bytes if the total is known.
    pub(crate) fn update(&mut self, message: String, bytes_done: u64, bytes_total: u64) {
        if bytes_total > 0 {
            if !self.sized {
                // The rate counts from here: what was done before had no bytes.
                self.bar.reset();
                self.bar.set_style(style(BAR));
                self.sized = true;
            }
            self.bar.set_length(bytes_total.max(bytes_done));
            self.bar.set_position(bytes_done);
        }
        self.bar.set_message(message);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is a constant that the tests render")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_parse() {
        style(BAR);
        style(SPINNER);
    }
}
