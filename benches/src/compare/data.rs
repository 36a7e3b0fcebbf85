//! Bytes of large files.
#![allow(
    unsafe_code,
    reason = "a mapping is raw memory; nothing safer maps a file here"
)]

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::stage::Layers::Data;
use super::work::Step::{Call, Nothing};
use super::work::Workload;

const BLOCK: usize = 4096;

/// Reads and writes of one block in a workload.
const BLOCKS: usize = 4096;

pub(super) fn workloads() -> Vec<Workload> {
    let read = Call(read_through);
    vec![
        Workload::reading("sequential read, cold", Data, Call(forget_pages), read),
        Workload::reading("sequential read, warm", Data, read, Call(read_often)),
        Workload::reading("random 4 KiB pread", Data, read, Call(random_pread)),
        Workload::reading("random 4 KiB by mmap", Data, read, Call(random_mapped)),
        Workload::reading("sequential write", Data, Nothing, Call(write_through)),
        Workload::reading(
            "4 KiB sequential writes",
            Data,
            Call(make),
            Call(write_blocks),
        ),
        Workload::reading(
            "4 KiB random writes",
            Data,
            Call(make),
            Call(write_randomly),
        ),
    ]
}

fn read_through(at: &Path) -> Result<()> {
    let mut file = File::open(at.join("big"))?;
    let mut buffer = vec![0; 1 << 20];
    while file.read(&mut buffer)? > 0 {}
    Ok(())
}

fn read_often(at: &Path) -> Result<()> {
    (0..4).try_for_each(|_| read_through(at))
}

/// On a disk the next reader waits for it; a tmpfs has nothing else than memory.
fn forget_pages(at: &Path) -> Result<()> {
    let file = File::open(at.join("big"))?;
    // Written pages are kept until they are on the disk.
    file.sync_all()?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
        .with_context(|| format!("forget pages of descriptor {}", file.as_raw_fd()))?;
    Ok(())
}

/// Every block of a file of [`BLOCKS`] once, in an order that jumps about.
fn jumping() -> impl Iterator<Item = usize> {
    // An odd factor is a permutation of a power of two.
    (0..BLOCKS).map(|i| i * 2_654_435_761 % BLOCKS)
}

fn random_pread(at: &Path) -> Result<()> {
    let file = File::open(at.join("big"))?;
    let mut buffer = [0; BLOCK];
    for block in jumping() {
        file.read_exact_at(&mut buffer, (block * BLOCK) as u64)?;
    }
    Ok(())
}

fn random_mapped(at: &Path) -> Result<()> {
    let file = File::open(at.join("big"))?;
    let length = NonZeroUsize::new(BLOCKS * BLOCK).context("length")?;
    // SAFETY: a fresh mapping at an address of the kernel's choice aliases no Rust object.
    let map = unsafe {
        mmap(
            None,
            length,
            ProtFlags::PROT_READ,
            MapFlags::MAP_SHARED,
            &file,
            0,
        )
    }?;
    for block in jumping() {
        // SAFETY: the block lies inside the mapping, and the file is longer.
        std::hint::black_box(unsafe { map.cast::<u8>().add(block * BLOCK).read_volatile() });
    }
    // SAFETY: nothing refers to the mapping any more.
    unsafe { munmap(map, length.get()) }?;
    Ok(())
}

fn write_through(at: &Path) -> Result<()> {
    let mut file = File::create(at.join("written"))?;
    let buffer = vec![7; 1 << 20];
    for _ in 0..64 {
        file.write_all(&buffer)?;
    }
    Ok(())
}

fn make(at: &Path) -> Result<()> {
    std::fs::write(at.join("written"), vec![7; BLOCKS * BLOCK])?;
    Ok(())
}

fn write_all(at: &Path, blocks: impl Iterator<Item = usize>) -> Result<()> {
    let file = File::options().write(true).open(at.join("written"))?;
    let buffer = [9; BLOCK];
    for block in blocks {
        file.write_all_at(&buffer, (block * BLOCK) as u64)?;
    }
    Ok(())
}

fn write_blocks(at: &Path) -> Result<()> {
    write_all(at, 0..BLOCKS)
}

fn write_randomly(at: &Path) -> Result<()> {
    write_all(at, jumping())
}
