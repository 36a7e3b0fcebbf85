use super::*;

const STAMP: &[u8] = b"of these";

fn record(ino: u64) -> Record {
    Record {
        layer: 3,
        mode: 0o100_644,
        uid: 1,
        gid: 2,
        nlink: 2,
        blksize: 4096,
        ino,
        size: 5,
        blocks: 8,
        rdev: 0x0103,
        xattrs: true,
        atime: Moment { sec: -1, nsec: 7 },
        mtime: Moment {
            sec: 1 << 40,
            nsec: 8,
        },
        ctime: Moment {
            sec: 3,
            nsec: 999_999_999,
        },
        ..Record::default()
    }
}

fn item(name: &str, record: Record, target: &str) -> Item {
    Item {
        name: name.into(),
        record,
        target: target.into(),
    }
}

fn directory(ino: u64) -> Record {
    Record {
        directory: Some(DirNumber::ROOT),
        attributes_layer: 4,
        parts: 2,
        implied: true,
        ..record(ino)
    }
}

/// `/`, `/d`, `/d/a` … `/d/zz`, `/link`.
fn small() -> Vec<u8> {
    let mut writer = Writer::new(STAMP.to_vec(), &directory(1));
    let items = vec![
        item("link", record(3), "a/target"),
        item("d", directory(2), ""),
    ];
    let children = writer.directory(DirNumber::ROOT, items).unwrap();
    assert_eq!(children, [DirNumber(1)]);
    let items = (10..30).map(|ino| item(&"z".repeat(ino), record(ino as u64), ""));
    assert!(
        writer
            .directory(children[0], items.collect())
            .unwrap()
            .is_empty()
    );
    writer.finish().unwrap()
}

#[test]
fn what_was_written_is_answered() {
    let index = Index::open(small(), STAMP).unwrap();
    assert_eq!(index.names(DirNumber::ROOT).unwrap(), [&b"d"[..], b"link"]);
    let d = index.find(DirNumber::ROOT, b"d").unwrap().unwrap();
    assert_eq!(
        d,
        Record {
            directory: Some(DirNumber(1)),
            ..directory(2)
        }
    );
    assert_eq!(index.directory(DirNumber(1)).unwrap(), d);
    assert_eq!(index.directory(DirNumber::ROOT).unwrap().ino, 1);
    let link = index.find(DirNumber::ROOT, b"link").unwrap().unwrap();
    assert_eq!(index.target(&link).unwrap(), b"a/target");
    for ino in 10..30u8 {
        let name = vec![b'z'; usize::from(ino)];
        let found = index.find(DirNumber(1), &name).unwrap().unwrap();
        assert_eq!((found.ino, found.directory), (u64::from(ino), None));
    }
    for absent in [&b""[..], b"c", b"dd", b"zz"] {
        assert_eq!(index.find(DirNumber::ROOT, absent).unwrap(), None);
    }
    assert_eq!(index.names(DirNumber(2)), Err(Damaged));
    assert_eq!(index.find(DirNumber(u32::MAX), b"x"), Err(Damaged));
}

#[test]
fn an_index_of_something_else_is_refused() {
    let open = |bytes: Vec<u8>, stamp: &[u8]| Index::open(bytes, stamp).unwrap_err();
    assert_eq!(open(small(), b"of those"), Rejected::Stamp);
    assert_eq!(open(small(), b""), Rejected::Stamp);
    let mut other = small();
    other[8] += 1;
    assert_eq!(open(other, STAMP), Rejected::Version(VERSION + 1));
    assert_eq!(open(Vec::new(), STAMP), Rejected::Foreign);
    assert_eq!(open(vec![0; 4096], STAMP), Rejected::Foreign);
}

#[test]
fn every_cut_and_every_changed_bit_is_noticed() {
    let whole = small();
    verify(&whole).unwrap();
    for length in 0..whole.len() {
        assert!(verify(&whole[..length]).is_err());
        assert!(Index::open(whole[..length].to_vec(), STAMP).is_err());
    }
    for at in 0..whole.len() {
        for bit in [0, 3, 7] {
            let mut changed = whole.clone();
            changed[at] ^= 1 << bit;
            assert!(verify(&changed).is_err(), "byte {at} bit {bit}");
        }
    }
    let mut longer = whole;
    longer.push(0);
    assert_eq!(verify(&longer), Err(Rejected::Length));
    assert_eq!(Index::open(longer, STAMP).unwrap_err(), Rejected::Length);
}

/// Nothing looks at the digest when an index is opened: answers may be wrong then, but come from inside the bytes, and soon.
#[test]
fn hostile_numbers_lead_nowhere() {
    let whole = small();
    let sizes = [0u32, 1, 2, 21, 255, 1 << 16, u32::MAX - 1, u32::MAX];
    for at in (8..whole.len() - 4).step_by(2) {
        for size in sizes {
            let mut changed = whole.clone();
            changed[at..at + 4].copy_from_slice(&size.to_le_bytes());
            let Ok(index) = Index::open(changed, STAMP) else {
                continue;
            };
            for number in [0, 1, 2, size].map(DirNumber) {
                let names = index.names(number).map(|names| names.len());
                assert!(names.unwrap_or(0) <= 64, "byte {at}");
                let _own = index.directory(number);
                for name in [&b"d"[..], b"link", b"zzzzzzzzzzzz"] {
                    if let Ok(Some(record)) = index.find(number, name) {
                        let _target = index.target(&record);
                    }
                }
            }
        }
    }
}
