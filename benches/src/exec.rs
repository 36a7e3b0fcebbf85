//! One more command in a running container: `mille exec` against bare `nsenter`, which only enters the namespaces.

use anyhow::Result;

use crate::rounds::{Comparison, Contender, Place};

const CONTENDERS: &[Contender] = &[
    Contender {
        name: "nsenter --all",
        before: "",
        script: "nsenter --all -t $(cat pid) /bin/true",
    },
    Contender {
        name: "mille exec",
        before: "",
        script: "$bin/mille exec idle /bin/true",
    },
    Contender {
        name: "mille exec, no seccomp filter",
        before: "",
        script: "$bin/mille exec open /bin/true",
    },
];

/// Runs the comparison. Goal: at most 5 ms more than nsenter.
pub fn compare(place: &Place, rounds: usize) -> Result<Comparison> {
    place.shell(
        "$bin/mille import bb.tar bb && $bin/mille run -d --name idle bb /bin/sleep 1000 && \
         $bin/mille run -d --name open --security-opt seccomp=unconfined bb /bin/sleep 1000 && \
         $bin/mille inspect -f '{{.State.Pid}}' idle > pid",
    )?;
    let comparison = Comparison::run(place, "exec", CONTENDERS, rounds);
    place.shell("$bin/mille rm -f idle open")?;
    let comparison = comparison?;
    println!(
        "  goal: {:.2} ms more, of at most 5.00",
        comparison.median("mille exec") - comparison.median("nsenter --all")
    );
    Ok(comparison)
}
