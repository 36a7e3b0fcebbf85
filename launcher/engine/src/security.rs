//! What `--security-opt` asks for.

use mille_sandbox::seccomp::{Machine, Profile};
use mille_sandbox::weaken::{self, Hole};
use mille_sandbox::{CapSet, SeccompProgram};

use crate::error::{Error, Result};
use crate::filters;
use crate::layout::Layout;

/// The security options of a container, understood.
#[derive(Debug)]
pub(crate) struct Security {
    pub(crate) no_new_privileges: bool,
    /// None: every system call is the kernel's to judge.
    seccomp: Option<Rules>,
}

/// A seccomp profile and the text that stands for it.
#[derive(Debug)]
struct Rules {
    profile: Profile,
    text: String,
}

impl Rules {
    fn builtin() -> Self {
        Self {
            profile: Profile::builtin(),
            text: "builtin".to_owned(),
        }
    }
}

impl Security {
    /// Understands recorded options.
    ///
    /// # Errors
    /// An option that is not known or that this machine cannot give: a protection that was asked for and is not there
    /// must not be thought to be there.
    pub(crate) fn parse(options: &[String]) -> Result<Self> {
        let mut security = Security {
            no_new_privileges: false,
            seccomp: Some(Rules::builtin()),
        };
        for option in options {
            security.take(option)?;
        }
        Ok(security)
    }

    fn take(&mut self, option: &str) -> Result<()> {
        let understood = self.understand(option);
        if weaken::is_open(Hole::SecurityOption) {
            return Ok(());
        }
        understood
    }

    fn understand(&mut self, option: &str) -> Result<()> {
        let (name, value) = match option.split_once(['=', ':']) {
            Some((name, value)) => (name, Some(value)),
            None => (option, None),
        };
        match (name, value) {
            ("no-new-privileges", None | Some("true")) => self.no_new_privileges = true,
            ("no-new-privileges", Some("false")) => self.no_new_privileges = false,
            ("seccomp", Some("unconfined")) => self.seccomp = None,
            ("seccomp", Some("builtin")) => self.seccomp = Some(Rules::builtin()),
            ("seccomp", Some(json)) => {
                let profile = Profile::from_json(json.as_bytes());
                self.seccomp = Some(Rules {
                    profile: profile.map_err(|error| Error::Invalid(error.to_string()))?,
                    text: json.to_owned(),
                });
            }
            // Nothing of the kind confines a container of ours, so this asks for what is.
            ("apparmor", Some("unconfined")) | ("label", Some("disable")) => {}
            ("apparmor" | "label", Some(_)) => {
                return Err(Error::Invalid(format!(
                    "--security-opt {option}: there is no {name} protection here"
                )));
            }
            _ => {
                return Err(Error::Invalid(format!(
                    "invalid --security-opt 2: {option:?}"
                )));
            }
        }
        Ok(())
    }

    /// Returns the filter for these capabilities, compiled once for all containers; a privileged container has none.
    pub(crate) fn filter(
        &self,
        layout: &Layout,
        capabilities: CapSet,
        privileged: bool,
    ) -> Option<SeccompProgram> {
        let rules = self.seccomp.as_ref().filter(|_| !privileged)?;
        let machine = Machine {
            capabilities,
            kernel: kernel_version(),
        };
        let compile = |machine: &Machine| rules.profile.program(machine);
        Some(filters::program(
            &layout.seccomp(),
            &rules.text,
            &machine,
            compile,
        ))
    }
}

/// Major and minor version; 0.0 where it cannot be read, which only makes a filter stricter.
fn kernel_version() -> (u32, u32) {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|digits| digits.parse().unwrap_or(0));
    (
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Result<Security> {
        let options: Vec<String> = options.iter().map(|text| (*text).to_owned()).collect();
        Security::parse(&options)
    }

    #[test]
    fn a_filter_is_there_unless_told_otherwise() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout {
            root: directory.path().to_owned(),
            run: directory.path().to_owned(),
        };
        let filter = |options: &[&str], privileged| {
            let security = parse(options).unwrap();
            let filter = security.filter(&layout, CapSet::DEFAULT, privileged);
            filter.is_some()
        };
        assert!(filter(&[], false));
        assert!(filter(&["seccomp=unconfined", "seccomp=builtin"], false));
        assert!(!filter(&[], true));
        assert!(!filter(&["seccomp=unconfined"], false));
        assert!(!filter(&["seccomp:unconfined"], false));
        assert!(filter(
            &[r#"seccomp={"defaultAction":"SCMP_ACT_ALLOW"}"#],
            false
        ));
    }

    #[test]
    fn what_cannot_be_given_is_refused() {
        assert!(parse(&["no-new-privileges"]).unwrap().no_new_privileges);
        assert!(
            !parse(&["no-new-privileges=false"])
                .unwrap()
                .no_new_privileges
        );
        assert!(parse(&["apparmor=unconfined", "label=disable"]).is_ok());
        for (option, said) in [
            ("apparmor=docker-default", "no apparmor protection"),
            ("label=type:t", "no label protection"),
            ("seccomp={}", "decoding seccomp profile failed"),
            ("teleport=on", "invalid --security-opt 2"),
        ] {
            let error = parse(&[option]).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn this_kernel_has_a_version() {
        assert!(kernel_version() > (4, 0));
    }
}
