//! Bars on standard error while a long operation runs, if that is a terminal.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mille_store::{Phase, Progress, Silent, Step};

/// Returns what takes a command's progress: a bar if there is a terminal to draw it on and nobody asked for quiet.
pub(crate) fn reporter(quiet: bool) -> Arc<dyn Progress> {
    if quiet || !std::io::stderr().is_terminal() {
        Arc::new(Silent)
    } else {
        Arc::new(Bar::new(ProgressDrawTarget::stderr()))
    }
}

/// One line that always shows the newest step.
#[derive(Debug)]
struct Bar {
    bar: ProgressBar,
    /// What the line is about.
    current: Mutex<String>,
}

impl Bar {
    fn new(target: ProgressDrawTarget) -> Self {
        Bar {
            bar: ProgressBar::with_draw_target(None, target),
            current: Mutex::default(),
        }
    }
}

fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Read => "Reading",
        Phase::Extract => "Extracting",
        Phase::Sync => "Syncing",
        Phase::Write => "Writing",
        Phase::Verify => "Verifying",
        Phase::Remove => "Removing",
    }
}

impl Progress for Bar {
    fn step(&self, step: Step<'_>) {
        let message = format!("{} {}", word(step.phase), step.item);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if *current != message {
            // A style is only refused if its own text is malformed; the default one shows as much.
            let known = "{msg}  [{bar:30}] {decimal_bytes}/{decimal_total_bytes}";
            let template = if step.total.is_some() {
                known
            } else {
                "{msg}  {decimal_bytes}"
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                self.bar.set_style(style.progress_chars("=> "));
            }
            self.bar.set_message(message.clone());
            *current = message;
        }
        match step.total {
            Some(total) => self.bar.set_length(total),
            None => self.bar.unset_length(),
        }
        self.bar.set_position(step.done);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_follows_the_steps() {
        let bar = Bar::new(ProgressDrawTarget::hidden());
        bar.step(Step {
            phase: Phase::Extract,
            item: "0123456789ab",
            done: 5,
            total: Some(10),
        });
        assert_eq!(
            (
                bar.bar.message().as_str(),
                bar.bar.position(),
                bar.bar.length()
            ),
            ("Extracting 0123456789ab", 5, Some(10))
        );
        bar.step(Step {
            phase: Phase::Read,
            item: "x",
            done: 1,
            total: None,
        });
        assert_eq!(
            (bar.bar.message().as_str(), bar.bar.length()),
            ("Reading x", None)
        );
    }
}
