//! `mille images --tree`: one line for each name, and below it what the image is for.

use std::collections::BTreeSet;

use mille_store::Image;

use crate::output::{human, table};

/// What stands for an image without a name.
const UNTAGGED: &str = "<untagged>";

/// Lays images out; `used` are the ids of those that containers stand on.
pub(super) fn lay_out(images: &[Image], used: &BTreeSet<String>) -> String {
    let mut text = "IMAGE\tID\tDISK USAGE\tCONTENT SIZE\tEXTRA\n".to_owned();
    for image in images {
        let size = human::size(image.size, 3);
        let extra = if used.contains(&image.id.to_string()) {
            "U"
        } else {
            ""
        };
        let mut names: Vec<String> = image.names.iter().map(|name| name.familiar()).collect();
        if names.is_empty() {
            names.push(UNTAGGED.to_owned());
        }
        let platform = [
            &image.config.os,
            &image.config.architecture,
            &image.config.variant,
        ];
        let platform: Vec<&str> = platform.map(String::as_str).to_vec();
        let platform = platform.join("/");
        let id = image.id.short();
        for name in names {
            text.push_str(&format!("{name}\t{id}\t{size}\t{size}\t{extra}\n"));
            text.push_str(&format!(
                "└─ {}\t{id}\t{size}\t{size}\t{extra}\n",
                platform.trim_end_matches('/')
            ));
        }
    }
    table::layout(&text)
}
