//! Root filesystems to test with: a busybox tree made in memory order, a Debian tree made once a machine.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::program::{require, shell};

/// Returns the tar of a small busybox root: applets in /bin, users root, alice (1000) and bob, and a directory `t` with
/// files, a hard link pair and a symlink for tests to change. All times are 2023-11-14, so its digest is constant.
pub fn busybox_tar() -> &'static [u8] {
    static TAR: OnceLock<Vec<u8>> = OnceLock::new();
    TAR.get_or_init(|| {
        require("busybox", "busybox-static");
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        let tar = directory.path().join("bb.tar");
        shell(&busybox_script(&root, &tar));
        std::fs::read(tar).unwrap()
    })
}

fn busybox_script(root: &Path, tar: &Path) -> String {
    let (root, tar) = (root.display(), tar.display());
    format!(
        r#"
        umask 022
        mkdir -p {root} && cd {root}
        mkdir -p bin etc root home/alice tmp data var/empty t/dir/sub t/dir2 t/dir3/x t/emptydir usr/share/doc/a
        chmod 1777 tmp; chmod 700 root
        cp "$(command -v busybox)" bin/busybox
        for applet in $(bin/busybox --list); do [ $applet = busybox ] || ln -s busybox bin/$applet; done
        printf 'root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\nalice:x:1000:1000::/home/alice:/bin/sh\nbob:x:1001:100::/:/bin/sh\n' > etc/passwd
        printf 'root:x:0:\nwheel:x:10:root,alice\nusers:x:100:\nalice:x:1000:\n' > etc/group
        echo Busybox > etc/issue; echo old > etc/hostname
        for f in a b c d e f g; do echo $f > t/$f; done
        for f in p q r; do echo $f > t/dir/$f; echo $f > t/dir2/$f; done
        echo deep > t/dir/sub/deep; echo z > t/dir3/x/z; ln -s a t/sl; echo m > t/m; ln t/m t/m2
        echo readme > usr/share/doc/a/readme
        chown 1000:1000 home/alice
        find . -exec touch -h -d @1700000000 {{}} +
        tar --sort=name --numeric-owner -cf {tar} .
        "#
    )
}

/// Returns the path of a Debian minbase tar, made by mmdebstrap on first use and kept for later runs on this machine.
pub fn debian_tar() -> PathBuf {
    let kept = PathBuf::from("/var/tmp/mille-debian-12.tar");
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| {
        if !kept.exists() {
            require("mmdebstrap", "mmdebstrap");
            let aside = kept.with_extension(format!("{}.tar", std::process::id()));
            shell(&format!(
                "mmdebstrap --quiet --variant=minbase bookworm {0} && chmod 644 {0} && mv {0} {1}",
                aside.display(),
                kept.display()
            ));
        }
    });
    kept
}

/// A program that makes one system call by number with up to three arguments and prints its errno, 0 if there was none.
pub const CALL: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(int c, char **v) {
    long a[4] = {0};
    for (int i = 1; i < c && i < 5; i++) a[i - 1] = strtol(v[i], 0, 0);
    long r = syscall(a[0], a[1], a[2], a[3]);
    printf("%d\n", r < 0 ? errno : 0);
    return 0;
}
"#;
