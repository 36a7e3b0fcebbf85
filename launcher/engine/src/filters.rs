//! Compiled seccomp filters, kept in the run-time directory under the digest of all they are made of: the profile, the
//! capabilities, the kernel, and the program that compiles them.
//!
//! A file that is not whole is compiled anew; one that cannot be kept is not kept. Nobody but the owner of the run-time
//! directory can write there.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use mille_sandbox::seccomp::Machine;
use mille_sandbox::{BpfInstruction, SeccompProgram};
use mille_store::Digest;

use crate::error::Result;
use crate::files;

/// `struct sock_filter`.
const INSTRUCTION_BYTES: usize = 8;
/// Digits of a SHA-256 digest, which come first.
const DIGEST_BYTES: usize = 64;
/// What the kernel takes.
const MAX_INSTRUCTIONS: usize = 4096;

/// Returns the filter that `profile` (a text that stands for it) means on a machine: the kept one, or a new one.
pub(crate) fn program(
    directory: &Path,
    profile: &str,
    machine: &Machine,
    compile: impl FnOnce(&Machine) -> SeccompProgram,
) -> SeccompProgram {
    let Some(name) = name(profile, machine) else {
        return compile(machine);
    };
    let kept = fs::read(directory.join(&name)).ok();
    if let Some(program) = kept.as_deref().and_then(decode) {
        return program;
    }
    let program = compile(machine);
    if let Err(error) = keep(directory, &name, &program) {
        log::debug!("seccomp filter {name}: {error}");
    }
    program
}

/// The name of a file; `None` where this program's own file cannot be told from another version's (a copy in memory).
fn name(profile: &str, machine: &Machine) -> Option<String> {
    let own = fs::metadata("/proc/self/exe").ok()?;
    if own.nlink() == 0 {
        return None;
    }
    let key = format!(
        "{} {} {} {}.{} {:x} {:?} {profile}",
        own.dev(),
        own.ino(),
        own.size(),
        own.ctime(),
        own.ctime_nsec(),
        machine.capabilities.bits(),
        machine.kernel,
    );
    Some(Digest::of(key.as_bytes()).hex())
}

fn keep(directory: &Path, name: &str, program: &SeccompProgram) -> Result<()> {
    files::make_directory(directory, 0o700)?;
    files::replace(directory, name, &encode(program), 0o600)
}

fn encode(program: &SeccompProgram) -> Vec<u8> {
    let mut body = program.flags.to_le_bytes().to_vec();
    for one in &program.instructions {
        body.extend(one.code.to_le_bytes());
        body.extend([one.jump_true, one.jump_false]);
        body.extend(one.operand.to_le_bytes());
    }
    let mut whole = Digest::of(&body).hex().into_bytes();
    whole.append(&mut body);
    whole
}

fn decode(whole: &[u8]) -> Option<SeccompProgram> {
    let (digest, body) = whole.split_at_checked(DIGEST_BYTES)?;
    if Digest::of(body).hex().as_bytes() != digest {
        return None;
    }
    let (flags, code) = body.split_first_chunk()?;
    let chunks = code.chunks_exact(INSTRUCTION_BYTES);
    let fits = chunks.remainder().is_empty() && (1..=MAX_INSTRUCTIONS).contains(&chunks.len());
    let instructions = chunks.map(|chunk| match *chunk {
        [a, b, jump_true, jump_false, c, d, e, f] => BpfInstruction {
            code: u16::from_le_bytes([a, b]),
            jump_true,
            jump_false,
            operand: u32::from_le_bytes([c, d, e, f]),
        },
        _ => BpfInstruction {
            code: 0,
            jump_true: 0,
            jump_false: 0,
            operand: 0,
        },
    });
    fits.then(|| SeccompProgram {
        instructions: instructions.collect(),
        flags: u32::from_le_bytes(*flags),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mille_sandbox::CapSet;
    use mille_sandbox::seccomp::Profile;

    fn machine(capabilities: CapSet) -> Machine {
        Machine {
            capabilities,
            kernel: (6, 1),
        }
    }

    #[test]
    fn a_filter_is_compiled_once() {
        let guard = tempfile::tempdir().unwrap();
        let directory = guard.path().join("seccomp");
        let compile = |machine: &Machine| Profile::builtin().program(machine);
        let never = |_: &Machine| -> SeccompProgram { panic!("compiled again") };
        let default = machine(CapSet::DEFAULT);
        let first = program(&directory, "builtin", &default, compile);
        assert_eq!(program(&directory, "builtin", &default, never), first);
        // Whatever it is made of is in its name.
        let all = program(&directory, "builtin", &machine(CapSet::ALL), compile);
        assert_ne!(all, first);
        program(&directory, "other", &default, compile);
        let mut kept: Vec<_> = fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(kept.len(), 3);
        // One that is not whole is no filter.
        for (number, path) in kept.drain(..).enumerate() {
            let mut bytes = fs::read(&path).unwrap();
            match number {
                0 => bytes.truncate(100),
                1 => bytes[80] ^= 1,
                _ => bytes.clear(),
            }
            fs::write(path, bytes).unwrap();
        }
        assert_eq!(program(&directory, "builtin", &default, compile), first);
        assert_eq!(program(&directory, "builtin", &default, never), first);
    }
}
