//! Tests that run as somebody else: the test starts itself again, as the ordinary user, and then goes on there.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::Who;
use crate::program::{built, run_within, shared_copy};

/// Set for the test that was started again.
const MARK: &str = "MILLE_TEST_INSIDE";

/// As long as the longest soak test.
const LIMIT: Duration = Duration::from_secs(3600);

/// Where a test is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inside {
    /// Root of a user and mount namespace with all the ids of the ordinary user, made without fusermount.
    Namespace,
    /// The ordinary user, in no namespace.
    Ordinary,
}

impl Inside {
    /// True in the test that was started again. Else starts `test`, a path as the test program lists it, and fails as it
    /// does; the caller then has nothing left to do.
    pub fn enter(self, test: &str) -> bool {
        if std::env::var_os(MARK).is_some() {
            return true;
        }
        let millefs = built("millefs");
        let programs = millefs.parent().unwrap();
        let own = shared_copy(&std::env::current_exe().unwrap(), "suite");
        let mut command = self.command(&own);
        command
            .args(["--exact", test, "--nocapture"])
            .env(MARK, "1")
            .env("MILLE_BIN_DIR", programs)
            .current_dir("/");
        // The runner of the tests knows how long each may take.
        let outcome = run_within(command, b"", LIMIT);
        eprint!("{}", outcome.err());
        let outcome = outcome.code(0);
        let count = outcome.out().matches("1 passed").count();
        assert_eq!(count, 1, "{test} did not run: {}", outcome.out());
        false
    }

    fn command(self, program: &Path) -> Command {
        match self {
            Inside::Ordinary => Who::Ordinary.command(program),
            Inside::Namespace => {
                let mut command = Who::Ordinary.command(Path::new("unshare"));
                command.args(["--user", "--mount", "--map-root-user", "--map-auto"]);
                command.arg(program);
                command
            }
        }
    }
}

/// Runs the rest of the test function it stands in at a place of [`Inside`] only.
#[macro_export]
macro_rules! inside {
    ($place:expr) => {{
        fn here() {}
        let path = std::any::type_name_of_val(&here);
        let path = path.strip_suffix("::here").unwrap_or(path);
        let (_program, test) = path.split_once("::").unwrap();
        if !$place.enter(test) {
            return;
        }
    }};
}
