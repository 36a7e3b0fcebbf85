//! Profile files in docker's JSON format (moby, profiles/seccomp).

use std::borrow::Cow;

use serde::Deserialize;

use super::names::NATIVE;
use super::profile::{Action, Circumstances, Comparison, Condition, Profile, Rule};
use crate::Capability;

/// Why a profile was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Not JSON, or not of this shape.
    #[error("decoding seccomp profile failed: {0}")]
    Json(#[from] serde_json::Error),
    /// A word that the format does not have, or that no filter can do.
    #[error("seccomp profile: {what} {word:?} {why}")]
    Word {
        /// Of what.
        what: &'static str,
        /// The word.
        word: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Both `architectures` and `archMap`, or both `name` and `names`.
    #[error("seccomp profile: '{0}' and '{1}' were specified, use either of them")]
    Both(&'static str, &'static str),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    default_action: String,
    default_errno_ret: Option<u16>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
    #[serde(default)]
    arch_map: Option<Vec<ArchMap>>,
    #[serde(default)]
    syscalls: Option<Vec<Syscalls>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Syscalls {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u16>,
    #[serde(default)]
    args: Option<Vec<Argument>>,
    #[serde(default)]
    includes: Option<Filter>,
    #[serde(default)]
    excludes: Option<Filter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Filter {
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
    #[serde(default)]
    min_kernel: Option<String>,
}

/// docker's errno where a profile gives none: `EPERM`.
const NOT_PERMITTED: u16 = 1;

impl Profile {
    /// Reads a profile file.
    ///
    /// # Errors
    /// Not JSON; an unknown action, operator, capability or version; `SCMP_ACT_NOTIFY`, which needs an agent outside.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ProfileError> {
        let file: File = serde_json::from_slice(bytes)?;
        let architectures = architectures(file.architectures, file.arch_map)?;
        let listed = file.syscalls.unwrap_or_default();
        let rules: Result<Vec<Rule>, ProfileError> = listed.into_iter().map(rule).collect();
        Ok(Profile {
            default: action(&file.default_action, file.default_errno_ret)?,
            rules: rules?,
            architectures,
        })
    }
}

fn architectures(
    listed: Option<Vec<String>>,
    map: Option<Vec<ArchMap>>,
) -> Result<Vec<String>, ProfileError> {
    let listed = listed.unwrap_or_default();
    let map = map.unwrap_or_default();
    if !listed.is_empty() && !map.is_empty() {
        return Err(ProfileError::Both("architectures", "archMap"));
    }
    let here = map
        .into_iter()
        .find(|entry| entry.architecture == NATIVE.scmp);
    Ok(match here {
        Some(entry) => std::iter::once(entry.architecture)
            .chain(entry.sub_architectures.unwrap_or_default())
            .collect(),
        None => listed,
    })
}

fn rule(listed: Syscalls) -> Result<Rule, ProfileError> {
    let names = match (listed.name, listed.names.unwrap_or_default()) {
        (Some(_), names) if !names.is_empty() => return Err(ProfileError::Both("name", "names")),
        (Some(name), _) => vec![name],
        (None, names) => names,
    };
    let arguments = listed.args.unwrap_or_default();
    Ok(Rule {
        names: names.into_iter().map(Cow::Owned).collect(),
        action: action(&listed.action, listed.errno_ret)?,
        conditions: arguments
            .into_iter()
            .map(condition)
            .collect::<Result<_, _>>()?,
        only: circumstances(listed.includes)?,
        not: circumstances(listed.excludes)?,
    })
}

fn circumstances(filter: Option<Filter>) -> Result<Circumstances, ProfileError> {
    let filter = filter.unwrap_or_default();
    let capability = |name: String| {
        let known = Capability::from_name(&name);
        known.map_err(|_| word("capability", &name, "is not known"))
    };
    let capabilities = filter.caps.unwrap_or_default().into_iter();
    let machines = filter.arches.unwrap_or_default().into_iter();
    let kernel = filter.min_kernel.as_deref().map(version).transpose()?;
    Ok(Circumstances {
        capabilities: capabilities.map(capability).collect::<Result<_, _>>()?,
        machines: machines.map(Cow::Owned).collect(),
        kernel,
    })
}

fn version(text: &str) -> Result<(u32, u32), ProfileError> {
    let parsed = text
        .split_once('.')
        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    parsed.ok_or_else(|| word("minKernel", text, "is not MAJOR.MINOR"))
}

fn action(name: &str, number: Option<u16>) -> Result<Action, ProfileError> {
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_ERRNO" => Action::Errno(number.unwrap_or(NOT_PERMITTED)),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_TRACE" => Action::Trace(number.unwrap_or(NOT_PERMITTED)),
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_NOTIFY" => return Err(word("action", name, "needs an agent, and there is none")),
        _ => return Err(word("action", name, "is not known")),
    })
}

fn condition(argument: Argument) -> Result<Condition, ProfileError> {
    if argument.index > 5 {
        let index = argument.index.to_string();
        return Err(word("argument", &index, "is not one of 0 to 5"));
    }
    let (comparison, value) = match argument.op.as_str() {
        "SCMP_CMP_EQ" => (Comparison::Equal, argument.value),
        "SCMP_CMP_NE" => (Comparison::NotEqual, argument.value),
        "SCMP_CMP_LT" => (Comparison::Less, argument.value),
        "SCMP_CMP_LE" => (Comparison::LessOrEqual, argument.value),
        "SCMP_CMP_GT" => (Comparison::Greater, argument.value),
        "SCMP_CMP_GE" => (Comparison::GreaterOrEqual, argument.value),
        "SCMP_CMP_MASKED_EQ" => (Comparison::Masked(argument.value), argument.value_two),
        _ => return Err(word("operator", &argument.op, "is not known")),
    };
    Ok(Condition {
        argument: argument.index,
        comparison,
        value,
    })
}

fn word(what: &'static str, word: &str, why: &'static str) -> ProfileError {
    ProfileError::Word {
        what,
        word: word.to_string(),
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_of_dockers_is_read() {
        let text = r#"{
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
            "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
                        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]}],
            "syscalls": [
                {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
                 "args": [{"index": 0, "value": 2114060288, "op": "SCMP_CMP_MASKED_EQ"}],
                 "excludes": {"caps": ["CAP_SYS_ADMIN"], "arches": ["s390"]}},
                {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
                {"name": "clone3", "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "args": null}
            ]}"#;
        let profile = Profile::from_json(text.as_bytes()).unwrap();
        assert_eq!(profile.default, Action::Errno(1));
        assert_eq!(profile.rules.len(), 4);
        assert_eq!(
            profile.rules[1].conditions[0].comparison,
            Comparison::Masked(2_114_060_288)
        );
        assert_eq!(profile.rules[1].not.capabilities.len(), 1);
        assert_eq!(profile.rules[2].only.kernel, Some((4, 8)));
        assert_eq!(profile.rules[3].action, Action::Errno(38));
        assert_eq!(profile.architectures[0], NATIVE.scmp);
    }

    #[test]
    fn what_cannot_be_obeyed_is_refused() {
        for (text, said) in [
            ("{", "decoding seccomp profile failed"),
            (r#"{"defaultAction": "SCMP_ACT_MAYBE"}"#, "SCMP_ACT_MAYBE"),
            (r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#, "agent"),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"name": "a", "names": ["b"], "action": "SCMP_ACT_LOG"}]}"#,
                "'name' and 'names'",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "action": "SCMP_ACT_LOG", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}"#,
                "0 to 5",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "action": "SCMP_ACT_LOG", "includes": {"caps": ["CAP_FLY"]}}]}"#,
                "CAP_FLY",
            ),
        ] {
            let error = Profile::from_json(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
