//! Readers first, then a writer: no write ever reaches a lower layer, and no reader is left with an error.
//!
//! Every way of reading is combined with every way of changing, on a small file (through the page cache of the mount) and
//! on a large one (past the server where the kernel grants that). The same is done to a plain copy, which tells what has to
//! come out.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mille_tests::mapping::Mapping;
use mille_tests::program::{built, run, shell};
use mille_tests::{Inside, inside, tree};
use rustix::fs::{FallocateFlags, fallocate};

/// One below and one above what goes through the page cache of the mount.
const SIZES: [usize; 2] = [100, 1 << 20];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Opened, not read yet.
    Opened,
    Read,
    Mapped,
    Direct,
}

const READINGS: [Reading; 4] = [
    Reading::Opened,
    Reading::Read,
    Reading::Mapped,
    Reading::Direct,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Write,
    WriteDirect,
    Append,
    OpenTruncated,
    TruncatePath,
    Cut,
    Map,
    Punch,
    CopyRange,
    TwoWriters,
    WriterWhileMapped,
    UnlinkBetween,
    RenameOver,
    Chmod,
}

const CHANGES: [Change; 14] = [
    Change::Write,
    Change::WriteDirect,
    Change::Append,
    Change::OpenTruncated,
    Change::TruncatePath,
    Change::Cut,
    Change::Map,
    Change::Punch,
    Change::CopyRange,
    Change::TwoWriters,
    Change::WriterWhileMapped,
    Change::UnlinkBetween,
    Change::RenameOver,
    Change::Chmod,
];

/// Somebody who holds a file to read it.
struct Reader {
    file: File,
    mapping: Option<Mapping>,
}

impl Reader {
    fn new(path: &Path, how: Reading) -> Reader {
        let mut options = OpenOptions::new();
        options.read(true);
        if how == Reading::Direct {
            options.custom_flags(nix::fcntl::OFlag::O_DIRECT.bits());
        }
        let file = options.open(path).unwrap();
        let mut reader = Reader {
            file,
            mapping: None,
        };
        match how {
            Reading::Opened => {}
            Reading::Read | Reading::Direct => {
                assert_eq!(reader.first(), Some(b'a'));
            }
            Reading::Mapped => {
                let mapping = Mapping::new(&reader.file, false).unwrap();
                assert_eq!(mapping.byte(), b'a');
                reader.mapping = Some(mapping);
            }
        }
        reader
    }

    /// The first byte, if the file has one.
    fn first(&self) -> Option<u8> {
        /// Direct reads want their buffer on a page.
        #[repr(align(4096))]
        struct Page([u8; 4096]);
        let mut page = Page([0; 4096]);
        let length = self.file.read_at(&mut page.0, 0).unwrap();
        (length > 0).then_some(page.0[0])
    }
}

fn writer(path: &Path) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap()
}

/// Changes a file that somebody reads.
fn change(path: &Path, how: Change) {
    match how {
        Change::Write => {
            let file = writer(path);
            file.write_all_at(b"B", 0).unwrap();
            file.sync_all().unwrap();
        }
        Change::WriteDirect => {
            let at = path.display();
            shell(&format!(
                "head -c 4096 /dev/zero | tr '\\0' D | dd of={at} bs=4096 oflag=direct conv=notrunc status=none"
            ));
        }
        Change::Append => {
            let file = OpenOptions::new().append(true).open(path).unwrap();
            std::io::Write::write_all(&mut &file, b"more").unwrap();
        }
        Change::OpenTruncated => {
            let file = File::create(path).unwrap();
            file.write_all_at(b"new", 0).unwrap();
        }
        Change::TruncatePath => nix::unistd::truncate(path, 0).unwrap(),
        Change::Cut => writer(path).set_len(50).unwrap(),
        Change::Map => Mapping::new(&writer(path), true)
            .unwrap()
            .store(b'M')
            .unwrap(),
        Change::Punch => {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(writer(path), flags, 0, 60).unwrap();
        }
        Change::CopyRange => {
            let other = path.with_extension("source");
            std::fs::write(&other, [b'S'; 80]).unwrap();
            let source = File::open(other).unwrap();
            rustix::fs::copy_file_range(&source, None, writer(path), None, 80).unwrap();
        }
        Change::TwoWriters => {
            let (one, two) = (writer(path), writer(&path.with_extension("link")));
            one.write_all_at(b"1", 0).unwrap();
            two.write_all_at(b"2", 1).unwrap();
            one.write_all_at(b"3", 2).unwrap();
            let mut both = [0; 3];
            two.read_exact_at(&mut both, 0).unwrap();
            assert_eq!(&both, b"123");
        }
        Change::WriterWhileMapped => {
            let mapped = writer(path);
            let mapping = Mapping::new(&mapped, true).unwrap();
            writer(path).write_all_at(b"W", 0).unwrap();
            assert_eq!(mapping.byte(), b'W');
            mapping.store(b'X').unwrap();
            drop(mapped);
            mapping.store(b'Y').unwrap();
        }
        Change::UnlinkBetween => {
            let file = writer(path);
            std::fs::remove_file(path).unwrap();
            file.write_all_at(b"U", 0).unwrap();
            std::fs::write(path, b"another").unwrap();
        }
        Change::RenameOver => {
            let aside = path.with_extension("aside");
            std::fs::write(&aside, b"replaced").unwrap();
            std::fs::rename(aside, path).unwrap();
        }
        Change::Chmod => tree::set_mode(path, 0o640),
    }
}

fn is_another_object(how: Change) -> bool {
    matches!(how, Change::UnlinkBetween | Change::RenameOver)
}

/// A layer with a file for every combination, mounted, and a plain copy of it.
struct Stage {
    directory: tempfile::TempDir,
    layer: String,
}

impl Stage {
    fn new(script: &str, options: &str) -> Stage {
        let directory = tempfile::Builder::new()
            .prefix("mille-r-")
            .tempdir_in("/var/tmp")
            .unwrap();
        tree::set_mode(directory.path(), 0o755);
        let at = directory.path().display();
        shell(&format!("cd {at} && mkdir l u w m && cd l && {script}"));
        shell(&format!("cp -a {at}/l {at}/plain"));
        let mut command = Command::new(built("millefs"));
        command.arg("-o").arg(format!(
            "lowerdir={at}/l,upperdir={at}/u,workdir={at}/w,{options}"
        ));
        command.arg(directory.path().join("m"));
        run(command, b"").code(0);
        let layer = tree::fingerprint(&directory.path().join("l"));
        Stage { directory, layer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn assert_layer_unchanged(&self) {
        assert_eq!(tree::fingerprint(&self.path("l")), self.layer, "the layer");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        nix::mount::umount2(&self.path("m"), nix::mount::MntFlags::MNT_DETACH).ok();
    }
}

fn all_combinations() -> impl Iterator<Item = (Reading, Change)> {
    READINGS
        .into_iter()
        .flat_map(|reading| CHANGES.map(|change| (reading, change)))
}

fn readers_then_writers(size: usize, options: &str) {
    let names: Vec<String> = all_combinations()
        .map(|(reading, change)| format!("{reading:?}-{change:?}"))
        .collect();
    let script = format!(
        "head -c {size} /dev/zero | tr '\\0' a > /dev/shm/mille-r-$$; \
         for f in {}; do cp /dev/shm/mille-r-$$ $f; ln $f $f.link; done; rm /dev/shm/mille-r-$$",
        names.join(" ")
    );
    let stage = Stage::new(&script, options);
    for (reading, how) in all_combinations() {
        let name = format!("{reading:?}-{how:?}");
        let what = format!("{name}, {size} bytes, {options}");
        let (path, plain) = (
            stage.path(&format!("m/{name}")),
            stage.path(&format!("plain/{name}")),
        );
        let before = path.metadata().unwrap();
        let reader = Reader::new(&path, reading);
        change(&path, how);
        change(&plain, how);
        // Who comes now sees what the plain file holds.
        let (content, meta) = (std::fs::read(&plain).unwrap(), plain.metadata().unwrap());
        let now = path.metadata().unwrap();
        assert!(std::fs::read(&path).unwrap() == content, "{what}");
        assert_eq!((now.len(), now.mode()), (meta.len(), meta.mode()), "{what}");
        assert_eq!(now.nlink(), meta.nlink(), "{what}");
        assert_eq!(now.ino() == before.ino(), !is_another_object(how), "{what}");
        let link = format!("{name}.link");
        assert!(
            std::fs::read(stage.path(&format!("m/{link}"))).unwrap()
                == std::fs::read(stage.path(&format!("plain/{link}"))).unwrap(),
            "{what}: the other name"
        );
        // The reader sees what was there, or what is there now.
        let truth = plain_of_reader(&stage, &name, how);
        let seen = reader.first();
        assert!(seen == Some(b'a') || seen == truth, "{what}: {seen:?}");
        assert_eq!(
            reader.file.metadata().unwrap().ino(),
            before.ino(),
            "{what}"
        );
        if let Some(mapping) = reader.mapping.as_ref().filter(|_| truth.is_some()) {
            let seen = Some(mapping.byte());
            assert!(
                seen == Some(b'a') || seen == truth,
                "{what}: mapped {seen:?}"
            );
        }
    }
    stage.assert_layer_unchanged();
}

/// The first byte of the object that the reader holds, as the plain tree has it.
fn plain_of_reader(stage: &Stage, name: &str, how: Change) -> Option<u8> {
    let name = if is_another_object(how) {
        format!("plain/{name}.link")
    } else {
        format!("plain/{name}")
    };
    std::fs::read(stage.path(&name)).unwrap().first().copied()
}

#[test]
fn root_fuse_readers_then_writers() {
    for size in SIZES {
        readers_then_writers(size, "metacopy=off");
        readers_then_writers(size, "metacopy=on");
    }
}

#[test]
fn root_fuse_readers_then_writers_before_the_file_is_copied() {
    readers_then_writers(SIZES[1], "block_copyup=1");
    readers_then_writers(SIZES[1], "block_copyup=1,passthrough=off");
}

#[test]
fn root_fuse_readers_then_writers_without_passthrough() {
    for size in SIZES {
        readers_then_writers(size, "passthrough=off,metacopy=on");
    }
}

#[test]
fn user_namespace_fuse_readers_then_writers() {
    inside!(Inside::Namespace);
    for size in SIZES {
        readers_then_writers(size, "userxattr");
    }
}

/// A program of a layer runs while it is written to, replaced and removed: it runs on, and the layer stays.
fn running_programs(options: &str) {
    let stage = Stage::new(
        "for f in written replaced removed; do cp /bin/sleep $f; head -c 300000 /dev/zero >> $f; done",
        options,
    );
    const ETXTBSY: i32 = 26;
    for (name, how) in [
        ("written", Change::Write),
        ("replaced", Change::RenameOver),
        ("removed", Change::UnlinkBetween),
    ] {
        let path = stage.path(&format!("m/{name}"));
        let mut running = Command::new(&path)
            .arg("1")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        if how == Change::RenameOver {
            change(&path, how);
        } else {
            // Refused, as a disk file system does, or done to a copy, as the kernel's overlayfs does.
            match OpenOptions::new().write(true).open(&path) {
                Ok(file) => file.write_all_at(b"broken", 0).unwrap(),
                Err(error) => assert_eq!(error.raw_os_error(), Some(ETXTBSY), "{name}"),
            }
            if how == Change::UnlinkBetween {
                std::fs::remove_file(&path).unwrap();
            }
        }
        assert!(running.wait().unwrap().success(), "{name}, {options}");
    }
    stage.assert_layer_unchanged();
}

#[test]
fn root_fuse_running_programs_are_written_to() {
    running_programs("metacopy=on");
    running_programs("passthrough=off");
}
