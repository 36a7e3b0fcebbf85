//! By what an object is known, and which inode number it gets.

use std::hash::{DefaultHasher, Hash, Hasher};

/// What makes two findings the same object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// An inode of the upper.
    Upper { dev: u64, ino: u64 },
    /// An inode of an immutable lower. The layer is part of it: tools share files between layer directories by hard
    /// links, and such files are still apart.
    Lower { layer: u16, dev: u64, ino: u64 },
    /// A name of a lower, of an object with only one; or of a mutable lower, where hard links are broken by a change, so
    /// that each name is an object.
    LowerName { layer: u16, path: Box<[u8]> },
}

/// Inode numbers below this are used as the file system gives them; above, the high bits tell the device.
const DEVICE_SHIFT: u32 = 48;

/// First of the numbers chosen by the key when the scheme has none to offer.
const FALLBACK: u64 = 1 << 63;

/// First of the numbers that only the kernel sees (a second number for one object).
pub(crate) const EXTRA_IDS: u64 = (1 << 63) | (1 << 62);

/// Turns the numbers of the layers' file systems into numbers that are unique in the view and the same at the next
/// mount of the same layers: objects of the first device (the upper's, usually everybody's) keep theirs, those of other
/// devices get the device's place in the high bits.
#[derive(Debug)]
pub(crate) struct InoPlan {
    devices: Vec<u64>,
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
        Self { devices: known }
    }

    /// The number an object has by the scheme, if the scheme covers it.
    pub(crate) fn preferred(&self, dev: u64, ino: u64) -> Option<u64> {
        let place = u64::try_from(self.devices.iter().position(|&known| known == dev)?).ok()?;
        // 0 is nothing and 1 the root; bit 63 marks the other ranges.
        let fits = (2..1 << DEVICE_SHIFT).contains(&ino) && place < 1 << (63 - DEVICE_SHIFT);
        fits.then_some(place << DEVICE_SHIFT | ino)
    }

    /// A number outside the scheme for an object that it does not cover, as where a union is a lower of another: the same
    /// at the next mount, and when a directory has come to the upper.
    pub(crate) fn spread(&self, dev: u64, ino: u64) -> u64 {
        let place = self.devices.iter().position(|&known| known == dev);
        outside(hash(&(place, ino)))
    }

    /// Numbers outside the scheme, in the order in which they are to be tried: always the same for the same object, so
    /// that none need be remembered for an object that is forgotten and met again.
    pub(crate) fn fallback(key: &Key) -> impl Iterator<Item = u64> {
        let first = hash(key);
        (0..u64::MAX).map(move |step| outside(first.wrapping_add(step)))
    }
}

fn hash(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

fn outside(number: u64) -> u64 {
    FALLBACK | (number & ((EXTRA_IDS ^ FALLBACK) - 1))
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
    fn large_numbers_of_a_device_are_spread_alike_at_every_mount() {
        let first = InoPlan::new([7, 9]).spread(9, 1 << 50);
        assert_eq!(InoPlan::new([7, 12]).spread(12, 1 << 50), first);
        assert_ne!(InoPlan::new([7, 9]).spread(7, 1 << 50), first);
        assert!((FALLBACK..EXTRA_IDS).contains(&first));
    }

    #[test]
    fn fallback_numbers_stay_and_keep_to_their_range() {
        let key = |layer| Key::Lower {
            layer,
            dev: 5,
            ino: 6,
        };
        let numbers = |layer| -> Vec<u64> { InoPlan::fallback(&key(layer)).take(3).collect() };
        assert_eq!(numbers(0), numbers(0));
        assert_ne!(numbers(0), numbers(1));
        for number in (0..100).flat_map(numbers) {
            assert!((FALLBACK..EXTRA_IDS).contains(&number), "{number:x}");
        }
    }
}
