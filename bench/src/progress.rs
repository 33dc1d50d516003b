//! How far the run is, on stderr: a bar on a terminal, lines anywhere else.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

const BAR: &str = "{spinner} [{bar:24}] {pos}/{len} {msg} {elapsed}";
const TICK: Duration = Duration::from_millis(200);

pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(crate) fn start() -> Progress {
        let style =
            ProgressStyle::with_template(BAR).expect("the template is a constant that a test renders");
        let bar = ProgressBar::new(0).with_style(style);
        bar.enable_steady_tick(TICK);
        Progress { bar }
    }

    /// So many steps more are to be done.
    pub(crate) fn expect(&self, steps: u64) {
        self.bar.inc_length(steps);
    }

    /// What is being done now.
    pub(crate) fn say(&self, what: &str) {
        match self.bar.is_hidden() {
            true => eprintln!("{what}"),
            false => self.bar.set_message(what.to_owned()),
        }
    }

    /// The next step.
    pub(crate) fn step(&self, what: &str) {
        self.bar.inc(1);
        self.say(what);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_parses() {
        Progress::start().step("a step");
    }
}
