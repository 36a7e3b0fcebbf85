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
        // What is written is in memory until now.
        Phase::Sync => "Writing to disk:",
        Phase::Write => "Writing",
        Phase::Verify => "Verifying",
        Phase::Remove => "Removing",
    }
}

/// Longest item that is shown whole, and what is shown of a longer one: a line is to fit into 80 columns.
const ITEM_CHARS: usize = 20;
const SHORT_CHARS: usize = 12;

/// What is shown of an item: of a digest as much as docker does.
fn short(item: &str) -> String {
    let item = item.strip_prefix("blobs/sha256/").unwrap_or(item);
    if item.chars().count() <= ITEM_CHARS {
        return item.to_owned();
    }
    item.chars().take(SHORT_CHARS).chain(['…']).collect()
}

impl Progress for Bar {
    fn step(&self, step: Step<'_>) {
        let message = format!("{} {}", word(step.phase), short(step.item));
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let another = *current != message;
        if another {
            // A style is only refused if its own text is malformed; the default one shows as much.
            let template = match (step.phase, step.total) {
                (_, Some(_)) => "{msg}  [{bar:20}] {decimal_bytes}/{decimal_total_bytes}",
                (Phase::Sync, None) => "{msg}",
                (_, None) => "{msg}  {decimal_bytes}",
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                self.bar.set_style(style.progress_chars("=> "));
            }
        }
        match step.total {
            Some(total) => self.bar.set_length(total),
            None => self.bar.unset_length(),
        }
        self.bar.set_position(step.done);
        if another {
            self.bar.set_message(message.clone());
            *current = message;
            // What comes right after the last redraw would not be shown, and may last.
            self.bar.force_draw();
        }
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
    fn long_items_are_cut() {
        let hex = "0123456789abcdef".repeat(4);
        assert_eq!(short(&format!("blobs/sha256/{hex}")), "0123456789ab…");
        assert_eq!(short("layers"), "layers");
    }

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
