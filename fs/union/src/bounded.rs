//! Caches of a bounded size that take memory only for what is in them.

use std::hash::Hash;
use std::num::NonZeroUsize;

use lru::LruCache;

/// A cache of at most `most` entries, empty: `LruCache::new` would allocate and clear the table for all of them at once,
/// which is a good part of the time a mount takes.
pub(crate) fn cache<K: Hash + Eq, V>(most: NonZeroUsize) -> LruCache<K, V> {
    let mut cache = LruCache::unbounded();
    cache.resize(most);
    cache
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_falls_out() {
        let mut cache = cache(NonZeroUsize::new(2).unwrap());
        for key in 1..=3 {
            cache.put(key, ());
        }
        assert_eq!((cache.len(), cache.contains(&1)), (2, false));
    }
}
