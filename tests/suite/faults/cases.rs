//! The operations.

/// One operation.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: &'static str,
    /// Done through the mount before, undisturbed.
    pub(super) prepare: &'static str,
    /// One operation.
    pub(super) act: &'static str,
    /// It takes at least so many system calls that matter: less means that nothing was disturbed.
    pub(super) fewest: usize,
    /// Modification times stay, whatever happens.
    pub(super) times: bool,
}

/// The layers of all cases; everything is as old as the hills.
pub(super) const LAYERS: &str = "
mkdir -p l1 l2 && cd l1
mkdir -p d/e/f d/g gone/x moved/in empty; for f in a b c d/a d/b d/e/a d/e/f/a gone/x/a moved/a moved/in/a; do head -c 5000 /dev/zero | tr '\\0' $(basename $f) > $f; done
ln a d/a2; ln a d/e/a2; ln b b2; ln b2 d/b2; setfattr -n user.one -v low a b c d d/e; chmod 2755 d/e; chmod 4711 c; chown 1000:77 c d/g
ln -s ../c d/l; mkfifo d/p
cd ../l2; mkdir -p d/e moved; echo top > d/e/b; echo top > moved/b; mknod empty c 0 0
cd ..; find l1 l2 -exec touch -h -d @1700000000 {} +
mkdir u w m
";

pub(super) const CASES: &[Case] = &[
    Case {
        name: "data",
        prepare: "",
        act: "truncate -s 4000 d/a",
        fewest: 8,
        times: true,
    },
    Case {
        name: "metadata",
        prepare: "",
        act: "chmod 600 c",
        fewest: 6,
        times: true,
    },
    Case {
        name: "bring-data",
        prepare: "chmod 600 c",
        act: "truncate -s 4000 c",
        fewest: 4,
        times: false,
    },
    Case {
        name: "links",
        prepare: "",
        act: "chmod 600 b",
        fewest: 12,
        times: true,
    },
    Case {
        name: "directories",
        prepare: "",
        act: "touch -d @1500000000 d/e/f/a",
        fewest: 14,
        times: true,
    },
    Case {
        name: "over-directory",
        prepare: "rm moved/in/a; mkdir new; echo x > new/x",
        act: "mv -T new moved/in",
        fewest: 4,
        times: true,
    },
    Case {
        name: "merged-directory",
        prepare: "",
        act: "mv d dd",
        fewest: 2,
        times: true,
    },
    Case {
        name: "moved-directory",
        prepare: "mkdir new",
        act: "mv d/e new/e2",
        fewest: 5,
        times: true,
    },
    Case {
        name: "exchange",
        prepare: "mkdir new",
        act: "python3 -c 'import ctypes, os; c = ctypes.CDLL(None, use_errno=True); exit(os.strerror(ctypes.get_errno()) if c.renameat2(-100, b\"moved\", -100, b\"d/g\", 2) else 0)'",
        fewest: 8,
        times: true,
    },
    Case {
        name: "rename-file",
        prepare: "",
        act: "mv c d/a",
        fewest: 8,
        times: true,
    },
    Case {
        name: "whiteout",
        prepare: "",
        act: "rm -f c",
        fewest: 1,
        times: true,
    },
    Case {
        name: "whiteout-over-copy",
        prepare: "echo x >> c",
        act: "rm -f c",
        fewest: 2,
        times: true,
    },
    Case {
        name: "rmdir",
        prepare: "rm gone/x/a; rmdir gone/x; touch gone/y; rm gone/y",
        act: "rmdir gone",
        fewest: 2,
        times: true,
    },
    Case {
        name: "create-over-whiteout",
        prepare: "rm c",
        act: "mkfifo c",
        fewest: 3,
        times: true,
    },
    Case {
        name: "mkdir-opaque",
        prepare: "rm -r gone",
        act: "mkdir gone",
        fewest: 3,
        times: true,
    },
    Case {
        name: "link",
        prepare: "rm c",
        act: "ln d/b c",
        fewest: 8,
        times: true,
    },
    Case {
        name: "directory-onto-whiteout",
        prepare: "rm -r gone; mkdir new; echo x > new/x",
        act: "mv -T new gone",
        fewest: 1,
        times: true,
    },
];
