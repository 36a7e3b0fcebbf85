//! Raw tars, and one call that extracts, replays and compares.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mille_layer::compare::{CompareError, compare};
use mille_layer::extract::{ExtractError, ExtractOptions, Extracted, Owners, extract};
use mille_layer::replay::replay;
use mille_layer::{Dialects, MarkSpace, Ownership};

/// One raw header and its content, everything settable.
#[derive(Debug, Clone)]
pub(crate) struct Raw {
    pub(crate) name: Vec<u8>,
    pub(crate) flag: u8,
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) ids: (u32, u32),
    pub(crate) mtime: u64,
    pub(crate) device: (u32, u32),
    pub(crate) content: Vec<u8>,
    /// In place of the content's length.
    pub(crate) size: Option<u64>,
    pub(crate) pax: Vec<(Vec<u8>, Vec<u8>)>,
    /// What fills the last block.
    pub(crate) fill: u8,
}

pub(crate) fn raw(name: impl AsRef<[u8]>, flag: u8) -> Raw {
    Raw {
        name: name.as_ref().to_vec(),
        flag,
        link: Vec::new(),
        mode: if flag == b'5' { 0o755 } else { 0o644 },
        ids: (0, 0),
        mtime: 1_700_000_000,
        device: (0, 0),
        content: Vec::new(),
        size: None,
        pax: Vec::new(),
        fill: 0,
    }
}

pub(crate) fn file(name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Raw {
    Raw {
        content: content.as_ref().to_vec(),
        ..raw(name, b'0')
    }
}

pub(crate) fn dir(name: impl AsRef<[u8]>) -> Raw {
    raw(name, b'5')
}

pub(crate) fn symlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Raw {
    Raw {
        link: target.as_ref().to_vec(),
        ..raw(name, b'2')
    }
}

pub(crate) fn hardlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Raw {
    Raw {
        link: target.as_ref().to_vec(),
        ..raw(name, b'1')
    }
}

impl Raw {
    pub(crate) fn pax(mut self, key: &str, value: impl AsRef<[u8]>) -> Raw {
        self.pax
            .push((key.as_bytes().to_vec(), value.as_ref().to_vec()));
        self
    }

    pub(crate) fn mode(self, mode: u32) -> Raw {
        Raw { mode, ..self }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.pax.is_empty() {
            let mut body = Vec::new();
            for (key, value) in &self.pax {
                push_pax(&mut body, key, value);
            }
            out.extend(
                Raw {
                    content: body,
                    ..raw("PaxHeaders/x", b'x')
                }
                .bytes(),
            );
        }
        if self.name.len() > 100 {
            let content = [&self.name[..], b"\0"].concat();
            out.extend(
                Raw {
                    content,
                    ..raw("././@LongLink", b'L')
                }
                .bytes(),
            );
        }
        if self.link.len() > 100 {
            let content = [&self.link[..], b"\0"].concat();
            out.extend(
                Raw {
                    content,
                    ..raw("././@LongLink", b'K')
                }
                .bytes(),
            );
        }
        out.extend(self.header());
        out.extend(&self.content);
        let padded = out.len().next_multiple_of(512);
        out.resize(padded, self.fill);
        out
    }

    pub(crate) fn header(&self) -> [u8; 512] {
        let mut block = [0u8; 512];
        let mut put = |offset: usize, bytes: &[u8]| {
            block[offset..offset + bytes.len()].copy_from_slice(bytes);
        };
        put(0, &self.name[..self.name.len().min(100)]);
        put(100, format!("{:07o}", self.mode).as_bytes());
        put(108, format!("{:07o}", self.ids.0).as_bytes());
        put(116, format!("{:07o}", self.ids.1).as_bytes());
        put(
            124,
            format!("{:011o}", self.size.unwrap_or(self.content.len() as u64)).as_bytes(),
        );
        put(136, format!("{:011o}", self.mtime).as_bytes());
        put(156, &[self.flag]);
        put(157, &self.link[..self.link.len().min(100)]);
        put(257, b"ustar\x0000");
        put(329, format!("{:07o}", self.device.0).as_bytes());
        put(337, format!("{:07o}", self.device.1).as_bytes());
        checksum(&mut block);
        block
    }
}

pub(crate) fn checksum(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

pub(crate) fn push_pax(body: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    body.extend(format!("{length} ").bytes());
    body.extend(key);
    body.push(b'=');
    body.extend(value);
    body.push(b'\n');
}

/// A whole archive with its end marker.
pub(crate) fn tar(entries: &[Raw]) -> Vec<u8> {
    let mut out: Vec<u8> = entries.iter().flat_map(Raw::bytes).collect();
    out.extend([0u8; 1024]);
    out
}

/// A layer directory in its own temporary one, with a probe beside it that must stay empty.
pub(crate) struct Layer {
    pub(crate) base: tempfile::TempDir,
    fd: File,
    pub(crate) stream: Vec<u8>,
}

impl Layer {
    pub(crate) fn new() -> Layer {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir(base.path().join("tree")).unwrap();
        std::fs::create_dir(base.path().join("probe")).unwrap();
        let fd = File::open(base.path().join("tree")).unwrap();
        Layer {
            base,
            fd,
            stream: Vec::new(),
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.base.path().join("tree")
    }

    pub(crate) fn probe(&self) -> PathBuf {
        self.base.path().join("probe")
    }

    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root().join(path)
    }

    pub(crate) fn extract(
        &mut self,
        tar: &[u8],
        options: &ExtractOptions,
    ) -> Result<Extracted, ExtractError> {
        let mut stream = Vec::new();
        let done = extract(tar, self.fd.as_fd(), options, &mut stream)?;
        self.stream = stream;
        Ok(done)
    }

    /// Lets an ordinary user at everything in it, as root always is: nobody else can replay, or remove, what its mode
    /// closes to its owner.
    pub(crate) fn open_up(&self) {
        if !rustix::process::geteuid().is_root() {
            open_up(&self.root());
        }
    }

    /// What replay makes.
    pub(crate) fn replayed(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let length = replay(self.fd(), self.stream.as_slice(), &mut out).unwrap();
        assert_eq!(length, out.len() as u64);
        out
    }

    /// Where the layer is not what `tar` unpacks to, as `fsck` asks.
    pub(crate) fn difference(&self, tar: &[u8], options: &ExtractOptions) -> Option<String> {
        let mut fresh = Layer::new();
        let mut bare = options.clone();
        bare.content = false;
        fresh.extract(tar, &bare).unwrap();
        let dialects = Dialects::new(options.space, options.ownership);
        match compare(self.fd(), fresh.fd(), &dialects) {
            Ok(found) => found.map(|difference| difference.to_string()),
            // A directory that an ordinary user may not list; root may.
            Err(CompareError::Fresh(_)) if !rustix::process::geteuid().is_root() => None,
            Err(error) => panic!("{}", chain(&error)),
        }
    }

    pub(crate) fn assert_outside_untouched(&self) {
        let mut names: Vec<_> = std::fs::read_dir(self.base.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["probe", "tree"]);
        assert_eq!(std::fs::read_dir(self.probe()).unwrap().count(), 0);
    }
}

fn open_up(dir: &Path) {
    let set = |path: &Path, mode| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    set(dir, 0o700);
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let kind = path.symlink_metadata().unwrap().file_type();
        if kind.is_dir() {
            open_up(&path);
        } else if kind.is_file() {
            set(&path, 0o600);
        }
    }
}

/// Marks in `user.overlay.*` and own files only: works for every user.
pub(crate) fn plain() -> ExtractOptions {
    let mut options = ExtractOptions::new(MarkSpace::User, Ownership::Real);
    options.owners = Owners::Ignore;
    options
}

/// As root stores layers.
pub(crate) fn as_root() -> ExtractOptions {
    assert!(rustix::process::geteuid().is_root(), "this test needs root");
    ExtractOptions::new(MarkSpace::Trusted, Ownership::Real)
}

/// Extracts, checks that replay gives the same bytes, and returns the layer.
pub(crate) fn round_trip(tar: &[u8], options: &ExtractOptions) -> (Layer, Extracted) {
    let mut layer = Layer::new();
    let done = layer
        .extract(tar, options)
        .unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert!(layer.replayed() == tar, "replay differs");
    assert_eq!(done.tar_bytes, tar.len() as u64);
    layer.assert_outside_untouched();
    assert_eq!(layer.difference(tar, options), None, "compared with itself");
    (layer, done)
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

pub(crate) fn get_xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0u8; 65536];
    match rustix::fs::lgetxattr(path, name, &mut value[..]) {
        Ok(length) => {
            value.truncate(length);
            Some(value)
        }
        Err(rustix::io::Errno::NODATA) => None,
        Err(error) => panic!("{name} of {path:?}: {error}"),
    }
}

/// Every object below `root` as one line; enough to compare trees.
pub(crate) fn describe(root: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt as _;
    let mut lines = Vec::new();
    let mut waiting = vec![root.to_path_buf()];
    while let Some(path) = waiting.pop() {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let shown = path
            .strip_prefix(root)
            .unwrap()
            .as_os_str()
            .as_bytes()
            .escape_ascii()
            .to_string();
        let mut line = format!(
            "{shown} {:o} {}:{} {}.{:09}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec()
        );
        if meta.is_symlink() {
            let target = std::fs::read_link(&path).unwrap();
            line += &format!(" -> {}", target.as_os_str().as_bytes().escape_ascii());
        } else if meta.is_dir() {
            waiting.extend(
                std::fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if meta.is_file() {
            let content = std::fs::read(&path).unwrap();
            let sum = content.iter().fold(0u64, |sum, &byte| {
                sum.wrapping_mul(1_099_511_628_211)
                    .wrapping_add(u64::from(byte) + 1)
            });
            line += &format!(" {} {sum:x} nlink {}", content.len(), meta.nlink());
        } else {
            line += &format!(" rdev {:x}", meta.rdev());
        }
        lines.push(line);
    }
    lines.sort();
    lines
}
