//! `mille run --rm IMAGE /bin/true`, warm, against what it is made of: bubblewrap on a plain directory plus one mount
//! and unmount of millefs; and against runc on a bundle.

use anyhow::Result;

use crate::rounds::{Comparison, Contender, Place, median};

const BWRAP: &str = "bwrap --unshare-all --ro-bind bb / --proc /proc --dev /dev /bin/true";
const MOUNT: &str = "$bin/millefs -o lowerdir=bb,upperdir=up,workdir=wk mnt && umount mnt";

const CONTENDERS: &[Contender] = &[
    Contender {
        name: "bwrap --unshare-all + millefs mount, unmount",
        before: "",
        script: "BWRAP; MOUNT",
    },
    Contender {
        name: "bwrap --unshare-all",
        before: "",
        script: BWRAP,
    },
    Contender {
        name: "millefs mount, unmount",
        before: "",
        script: MOUNT,
    },
    Contender {
        name: "mille run --rm",
        before: "",
        script: "$bin/mille run --rm bb /bin/true",
    },
    Contender {
        name: "runc run",
        before: "",
        script: "runc run -b bundle bench-$$",
    },
];

/// Runs the comparison. Goal: `mille run` at most twice the first line, under half of runc.
pub fn compare(place: &Place, rounds: usize) -> Result<Comparison> {
    place.shell("mkdir -p up wk mnt bundle && $bin/mille import bb.tar bb")?;
    place.shell(
        "cd bundle && runc spec && cp -a ../bb rootfs && sed -i 's/\"terminal\": true/\"terminal\": false/; s|\"sh\"|\"/bin/true\"|; /RLIMIT_NOFILE/,/soft/ s/1024/256/' config.json",
    )?;
    let both: &'static str = Box::leak(format!("{BWRAP}; {MOUNT}").into_boxed_str());
    let mut contenders = CONTENDERS.to_vec();
    contenders[0].script = both;
    let comparison = Comparison::run(place, "start-up", &contenders, rounds)?;
    let floor = comparison.median(CONTENDERS[0].name);
    let ours = comparison.median("mille run --rm");
    println!(
        "  goal: {:.2} of at most 2.00; {:.2} of at most 0.50 of runc",
        ours / floor,
        ours / comparison.median("runc run")
    );
    Ok(comparison)
}

/// How many containers start at the same time.
const AT_ONCE: usize = 16;

/// Measures the start of one container among sixteen that start at the same time against that of one alone, and the same
/// of runc. Goal: at most three times. The time of one is nearly all computing, so the least that can be reached is
/// sixteen divided by the number of processors: the goal is one for machines with six and more.
pub fn crowd(place: &Place, rounds: usize) -> Result<()> {
    for (name, run) in [
        ("mille run --rm", "$bin/mille run --rm bb /bin/true"),
        ("runc run", "runc run -b bundle bench-$$"),
    ] {
        let (mut alone, mut among) = (Vec::new(), Vec::new());
        for _ in 0..rounds.max(1) {
            alone.push(place.time(run)?.as_secs_f64() * 1e3);
            among.extend(at_once(place, run)?);
        }
        let (alone, among) = (median(&alone), median(&among));
        println!(
            "{name}, one among {AT_ONCE}: {among:.1} ms, alone {alone:.1} ms: {:.2} times (goal: 3.00)",
            among / alone
        );
    }
    Ok(())
}

/// The times of [`AT_ONCE`] runs that begin together, in milliseconds.
fn at_once(place: &Place, run: &str) -> Result<Vec<f64>> {
    std::thread::scope(|scope| {
        let starts: Vec<_> = (0..AT_ONCE)
            .map(|_| scope.spawn(|| place.time(run)))
            .collect();
        starts
            .into_iter()
            .map(|start| match start.join() {
                Ok(time) => Ok(time?.as_secs_f64() * 1e3),
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    })
}
