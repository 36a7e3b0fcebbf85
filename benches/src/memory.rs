//! Resident memory of an idle monitor.

use anyhow::{Context, Result};

use crate::rounds::Place;

/// Starts one container and prints the resident set of the processes it costs: its monitor and the guard. Goal: under 16
/// MiB.
pub fn report(place: &Place) -> Result<()> {
    place.shell(
        "$bin/mille import bb.tar bb && $bin/mille run -d --name idle bb /bin/sleep 100 && sleep 1",
    )?;
    let pid = place.shell("$bin/mille inspect -f '{{.State.Pid}}' idle")?;
    let first: u32 = pid.parse()?;
    let mut monitor = first;
    let space = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid"));
    let inside = space(monitor)?;
    while space(monitor)? == inside {
        let stat = std::fs::read_to_string(format!("/proc/{monitor}/stat"))?;
        let (_, rest) = stat.rsplit_once(") ").context("stat")?;
        monitor = rest.split(' ').nth(1).context("ppid")?.parse()?;
    }
    println!("monitor, idle");
    for field in ["VmRSS", "RssAnon", "RssFile", "Threads"] {
        let line = line_of(&format!("/proc/{monitor}/status"), field)?;
        println!("  {}", line.replace('\t', " "));
    }
    for guard in children(monitor)?.into_iter().filter(|pid| *pid != first) {
        let line = line_of(&format!("/proc/{guard}/status"), "RssAnon")?;
        println!("guard\n  {}", line.replace('\t', " "));
    }
    place.shell("$bin/mille rm -f idle")?;
    Ok(())
}

/// The children of all threads of a process.
fn children(pid: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(thread?.path().join("children"))?;
        for word in text.split_whitespace() {
            found.push(word.parse()?);
        }
    }
    Ok(found)
}

/// The line of a file of /proc that begins with a field's name; empty where there is none.
pub(crate) fn line_of(file: &str, field: &str) -> Result<String> {
    let text = std::fs::read_to_string(file)?;
    let line = text.lines().find(|line| line.starts_with(field));
    Ok(line.unwrap_or_default().to_owned())
}
