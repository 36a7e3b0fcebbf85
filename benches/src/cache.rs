//! The page cache that containers of one image share.

use anyhow::{Context, Result};

use crate::memory::line_of;
use crate::rounds::Place;

/// Containers that read the same files.
const READERS: usize = 4;
/// What each of them reads.
const LIBRARIES_MIB: usize = 200;

/// Prints how much the page cache grows when one container and when several read the same libraries, with passthrough and
/// on mounts of user namespaces, which have none. Goal with passthrough: the same for several as for one. Drops the
/// machine's caches, so it needs root.
pub fn report(place: &Place) -> Result<()> {
    place.shell(&format!(
        "cp -a bb libs && mkdir libs/lib && for n in $(seq {}); do head -c 10M /dev/urandom > libs/lib/$n; done && \
         tar -C libs -cf libs.tar . && $bin/mille import libs.tar libs",
        LIBRARIES_MIB / 10
    ))?;
    println!("page cache of containers that each read the same {LIBRARIES_MIB} MiB");
    for readers in [1, READERS] {
        let grown = grown_mib(
            place,
            &format!(
                "for n in $(seq {readers}); do $bin/mille run -d --name r$n libs /bin/sleep 100; done >/dev/null"
            ),
            &format!(
                "for n in $(seq {readers}); do $bin/mille exec r$n /bin/sh -c 'busybox cat /lib/* > /dev/null'; done"
            ),
        )?;
        println!("  {readers} with passthrough: {grown} MiB");
        place.shell(&format!(
            "for n in $(seq {readers}); do $bin/mille rm -f r$n; done"
        ))?;
    }
    for readers in [1, READERS] {
        // Each reads when there is a file `go`, and leaves when it is gone.
        let script = "mkdir -p m$0 && $bin/millefs -o lowerdir=libs m$0 && touch ready$0 && while [ ! -e go ]; do sleep 0.1; done; \
                      cat m$0/lib/* > /dev/null; touch done$0; while [ -e go ]; do sleep 0.1; done; umount m$0";
        let grown = grown_mib(
            place,
            &format!(
                "for n in $(seq {readers}); do unshare -Urm bash -c '{script}' $n </dev/null >/dev/null 2>&1 & \
                 while [ ! -e ready$n ]; do sleep 0.1; done; done"
            ),
            &format!(
                "touch go; for n in $(seq {readers}); do while [ ! -e done$n ]; do sleep 0.1; done; done"
            ),
        )?;
        println!("  {readers} in user namespaces: {grown} MiB");
        place.shell("rm -f go ready* done*; sleep 0.5")?;
    }
    Ok(())
}

/// How much the page cache grows over `read`, from empty; `ready` is run before.
fn grown_mib(place: &Place, ready: &str, read: &str) -> Result<u64> {
    let cached = || -> Result<u64> {
        let line = line_of("/proc/meminfo", "Cached:")?;
        let kib = line.split_whitespace().nth(1).context("meminfo")?;
        Ok(kib.parse()?)
    };
    place.shell(ready)?;
    place.shell("sync; echo 3 > /proc/sys/vm/drop_caches")?;
    let before = cached()?;
    place.shell(read)?;
    Ok(cached()?.saturating_sub(before) / 1024)
}
