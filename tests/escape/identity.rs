//! Who a command is, and what it may.

use mille_tests::Store;

use crate::Verdict;
use crate::attack::{exec, image, running, sh};

const STATUS: &str = "cat /proc/self/status";

/// The value of a field of /proc/self/status in a new process of a new container, and of one more in `c1`.
fn status(store: &Store, options: &str, field: &str) -> [String; 2] {
    let of = |text: String| {
        let value = text.lines().find_map(|line| line.strip_prefix(field));
        value.unwrap_or_default().trim().to_owned()
    };
    store
        .line(&format!("run -d --name c1 {options} bb sleep 1000"))
        .ok();
    let both = [of(sh(store, options, STATUS)), of(exec(store, STATUS))];
    store.line("rm -f c1").ok();
    both
}

fn all(values: &[String; 2], want: &str) -> Verdict {
    let right = values.iter().all(|value| value == want);
    Verdict::of(right, format!("{values:?} is not {want}"))
}

/// CVE-2022-29162, CVE-2022-27650, CVE-2022-24769.
pub(crate) fn inheritable_capabilities(store: &Store) -> Verdict {
    all(&status(store, "", "CapInh:"), "0000000000000000")
        .and(|| all(&status(store, "", "CapAmb:"), "0000000000000000"))
}

/// Docker's fourteen, and nothing to be gained from a set-id program beyond them.
pub(crate) fn bounding_set(store: &Store) -> Verdict {
    all(&status(store, "", "CapBnd:"), "00000000a80425fb").and(|| {
        all(
            &status(store, "--cap-drop ALL", "CapBnd:"),
            "0000000000000000",
        )
    })
}

/// What was asked for is there, in both ways in.
pub(crate) fn no_new_privileges(store: &Store) -> Verdict {
    let options = "--security-opt no-new-privileges";
    all(&status(store, options, "NoNewPrivs:"), "1")
}

/// CVE-2026-30892: a user that cannot be understood is nobody, and never root.
pub(crate) fn users_that_are_none(store: &Store) -> Verdict {
    running(store, "bb");
    let mut verdict = Verdict::Holds;
    for user in [
        "nobody9",
        "1000:none",
        ":none",
        "-1",
        "4294967296",
        "2147483648",
        "1000 ",
        "0x0",
        "1000:-1",
    ] {
        for words in [
            &["run", "--rm", "-u", user, "bb", "id"][..],
            &["exec", "-u", user, "c1", "id"],
        ] {
            verdict = verdict.and(|| {
                let outcome = store.mille(words);
                Verdict::of(
                    outcome.code != 0 && outcome.out().lines().all(|line| !line.contains("uid=")),
                    format!("{words:?}: {}", outcome.out()),
                )
            });
        }
    }
    verdict.and(|| {
        let seven = store.line("run --rm -u 007 bb id -u").out();
        Verdict::of(seven == "7", format!("007 is {seven}"))
    })
}

/// CVE-2024-40635, CVE-2026-46680: the same from the image, and from its passwd.
pub(crate) fn user_of_the_image(store: &Store) -> Verdict {
    let script = "echo big:x:4294967296:0:::/bin/sh >> etc/passwd";
    image(store, script, &["USER 4294967296"]);
    let mut verdict = Verdict::Holds;
    for line in ["run --rm evil id -u", "run --rm -u big evil id -u"] {
        verdict = verdict.and(|| {
            let outcome = store.line(line);
            Verdict::of(outcome.code != 0, format!("{line}: {}", outcome.out()))
        });
    }
    verdict
}

/// CVE-2022-36109, CVE-2022-2989: the groups are those of the image, and none of the launcher's.
pub(crate) fn groups_of_the_launcher(store: &Store) -> Verdict {
    let script = "setpriv --groups 0,4242 \"$mille\" run --rm bb id -G";
    let groups = store.script(script).out();
    Verdict::of(groups == "0 10", groups)
}
