//! By what an object is known, and which inode number it gets.

use std::collections::HashMap;

/// What makes two findings the same object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// An inode of the upper.
    Upper { dev: u64, ino: u64 },
    /// An inode of an immutable lower. The layer is part of it: tools share files between layer directories by hard
    /// links, and such files are still apart.
    Lower { layer: u16, dev: u64, ino: u64 },
    /// A name of a mutable lower: its hard links are broken by a change, so each name is an object.
    LowerName { layer: u16, path: Box<[u8]> },
}

/// Inode numbers below this are used as the file system gives them; above, the high bits tell the device.
const DEVICE_SHIFT: u32 = 48;

/// First of the numbers handed out one after the other when the scheme has none to offer.
const FALLBACK: u64 = 1 << 63;

/// First of the numbers that only the kernel sees (a second number for one object).
pub(crate) const EXTRA_IDS: u64 = (1 << 63) | (1 << 62);

/// Turns the numbers of the layers' file systems into numbers that are unique in the view and the same at the next
/// mount of the same layers: objects of the first device (the upper's, usually everybody's) keep theirs, those of other
/// devices get the device's place in the high bits.
#[derive(Debug)]
pub(crate) struct InoPlan {
    devices: Vec<u64>,
    next_fallback: u64,
    /// Fallback numbers given, so that an object forgotten and met again has the same one.
    remembered: HashMap<Key, u64>,
}

impl InoPlan {
    /// `devices`: that of the upper first, then of the lowers from the bottom up; repetitions do no harm.
    pub(crate) fn new(devices: impl IntoIterator<Item = u64>) -> Self {
        let mut known = Vec::new();
        for device in devices {
            if !known.contains(&device) {
                known.push(device);
            }
        }
        Self {
            devices: known,
            next_fallback: FALLBACK,
            remembered: HashMap::new(),
        }
    }

    /// The number an object has by the scheme, if the scheme covers it.
    pub(crate) fn preferred(&self, dev: u64, ino: u64) -> Option<u64> {
        let place = u64::try_from(self.devices.iter().position(|&known| known == dev)?).ok()?;
        // 0 is nothing and 1 the root; bit 63 marks the other ranges.
        let fits = (2..1 << DEVICE_SHIFT).contains(&ino) && place < 1 << (63 - DEVICE_SHIFT);
        fits.then_some(place << DEVICE_SHIFT | ino)
    }

    /// A number outside the scheme, always the same for the same object.
    pub(crate) fn fallback(&mut self, key: &Key) -> u64 {
        if let Some(&ino) = self.remembered.get(key) {
            return ino;
        }
        let ino = self.next_fallback;
        self.next_fallback += 1;
        self.remembered.insert(key.clone(), ino);
        ino
    }

    /// Keeps the number of an object under another key too (it was copied up).
    pub(crate) fn remember(&mut self, key: Key, ino: u64) {
        self.remembered.insert(key, ino);
    }

    /// The number kept for an object.
    pub(crate) fn remembered(&self, key: &Key) -> Option<u64> {
        self.remembered.get(key).copied()
    }

    /// The object is gone for ever; its inode may be used for another one.
    pub(crate) fn release(&mut self, key: &Key) {
        self.remembered.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_device_keeps_its_numbers_and_others_are_told_apart() {
        let plan = InoPlan::new([7, 9, 7, 11]);
        assert_eq!(plan.preferred(7, 1234), Some(1234));
        assert_eq!(plan.preferred(9, 1234), Some(1 << 48 | 1234));
        assert_eq!(plan.preferred(11, 1234), Some(2 << 48 | 1234));
        assert_eq!(plan.preferred(12, 1234), None);
        assert_eq!(plan.preferred(7, 1), None);
        assert_eq!(plan.preferred(7, 1 << 48), None);
    }

    #[test]
    fn fallback_numbers_stay() {
        let mut plan = InoPlan::new([1]);
        let a = Key::Lower {
            layer: 0,
            dev: 5,
            ino: 6,
        };
        let b = Key::Lower {
            layer: 1,
            dev: 5,
            ino: 6,
        };
        let first = plan.fallback(&a);
        assert_ne!(first, plan.fallback(&b));
        assert_eq!(first, plan.fallback(&a));
    }
}
