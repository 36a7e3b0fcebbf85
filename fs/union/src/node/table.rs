//! All nodes alive: by inode number, and by what they are.
//!
//! A node of a lower is usually found by its number, which follows from the object's device and inode; only those that
//! had to take another number, and those of the upper, are also listed by their key.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use rustix::fs::FileType;

use super::identity::EXTRA_IDS;
use super::{Claims, FROM_LOWER, InoPlan, Key, LowerFile, Node, NodeId, NodeRef, Stack, State};

/// A power of two, well above the number of serving threads.
const SHARDS: usize = 32;

type Shard<K, V> = Mutex<HashMap<K, V>>;

/// The table of nodes. Sharded, so that one busy corner of the tree does not slow another. Where two locks are held, that
/// of a key was taken before that of a number.
#[derive(Debug)]
pub(crate) struct Table {
    by_key: Box<[Shard<Key, Weak<Node>>]>,
    by_number: Box<[Shard<u64, Slot>]>,
    hasher: RandomState,
    plan: InoPlan,
    /// Numbers of upper objects that do not follow from anything on disk.
    kept: Mutex<HashMap<Key, u64>>,
    next_extra: AtomicU32,
    /// Layers whose names are objects of their own.
    mutable: Box<[bool]>,
    pub(crate) claims: Claims,
}

/// Who has a number.
#[derive(Debug)]
enum Slot {
    /// A node that the kernel does not know, or not under this number.
    Alive(Weak<Node>),
    /// A node that the kernel holds.
    Held { node: NodeRef, lookups: NonZeroU64 },
}

impl Slot {
    fn node(&self) -> Option<NodeRef> {
        match self {
            Self::Alive(node) => node.upgrade(),
            Self::Held { node, .. } => Some(node.clone()),
        }
    }

    fn is_dead(&self) -> bool {
        matches!(self, Self::Alive(node) if node.strong_count() == 0)
    }
}

/// What is needed to make a node when none is there.
#[derive(Debug)]
pub(crate) struct Blueprint {
    pub(crate) kind: FileType,
    pub(crate) stack: Stack,
    pub(crate) state: State,
    /// Device and inode by which the number is chosen.
    pub(crate) number_from: (u64, u64),
    /// A number the object had at an earlier mount.
    pub(crate) wanted: Option<u64>,
}

impl Table {
    pub(crate) fn new(plan: InoPlan, mutable: Vec<bool>) -> Arc<Self> {
        fn shards<K, V>() -> Box<[Shard<K, V>]> {
            (0..SHARDS).map(|_| Mutex::default()).collect()
        }
        Arc::new(Self {
            by_key: shards(),
            by_number: shards(),
            hasher: RandomState::new(),
            plan,
            kept: Mutex::default(),
            next_extra: AtomicU32::new(1),
            mutable: mutable.into(),
            claims: Claims::default(),
        })
    }

    fn shard<'a, K: Hash, V>(&self, shards: &'a [Shard<K, V>], key: &K) -> &'a Shard<K, V> {
        let hash = self.hasher.hash_one(key);
        &shards[usize::try_from(hash % SHARDS as u64).unwrap_or(0)]
    }

    fn is_mutable(&self, layer: u16) -> bool {
        let mutable = self.mutable.get(usize::from(layer));
        mutable.copied().unwrap_or(false)
    }

    fn lower_key(&self, file: &LowerFile) -> Key {
        let layer = file.layer();
        match file.id() {
            Some((dev, ino)) if !self.is_mutable(layer) => Key::Lower { layer, dev, ino },
            _ => Key::LowerName {
                layer,
                path: file.path().into(),
            },
        }
    }

    /// The key by which a node is known in the lowers, if it is in any.
    fn stack_key(&self, stack: &Stack) -> Option<Key> {
        if let Some(file) = stack.file() {
            return Some(self.lower_key(file));
        }
        let top = stack.origin_dirs().first()?;
        let layer = top.layer();
        Some(if self.is_mutable(layer) {
            Key::LowerName {
                layer,
                path: top.path().into(),
            }
        } else {
            let (dev, ino) = (top.dev, top.ino);
            Key::Lower { layer, dev, ino }
        })
    }

    /// The node of an object with this key in the upper, or of one that is only in the lowers; made if there is none.
    pub(crate) fn get_or_make(
        self: &Arc<Self>,
        upper: Option<Key>,
        blueprint: Blueprint,
    ) -> NodeRef {
        let from_lower = upper.is_none();
        let (dev, ino) = blueprint.number_from;
        let own_number = self.plan.preferred(dev, ino);
        let same = |node: &NodeRef| {
            let by_name = |layer| self.is_mutable(layer);
            from_lower && node.is_from_lower() && node.stack.is_same(&blueprint.stack, by_name)
        };
        if let Some(node) = self.with_number(own_number).filter(same) {
            return node;
        }
        let key = upper
            .or_else(|| self.stack_key(&blueprint.stack))
            .unwrap_or(Key::Upper { dev, ino });
        // Outlives the lock: the end of a node takes it.
        let neighbour;
        let mut shard = self.shard(&self.by_key, &key).lock();
        if let Some(node) = shard.get(&key).and_then(Weak::upgrade) {
            return node;
        }
        // Perhaps made since we looked.
        neighbour = self.with_number(own_number);
        if let Some(node) = neighbour.as_ref().filter(|node| same(node)) {
            return node.clone();
        }
        let node = self.make(&key, blueprint, from_lower);
        if !from_lower || Some(node.ino) != own_number {
            shard.insert(key, Arc::downgrade(&node));
        }
        node
    }

    /// The number that an object of a lower has, if the scheme covers it.
    pub(crate) fn number_of(&self, dev: u64, ino: u64) -> Option<u64> {
        self.plan.preferred(dev, ino)
    }

    /// The node that has a number.
    fn with_number(&self, number: Option<u64>) -> Option<NodeRef> {
        let number = number?;
        let shard = self.shard(&self.by_number, &number).lock();
        shard.get(&number)?.node()
    }

    /// The node with this key in the upper, if it is alive.
    pub(crate) fn get(&self, key: &Key) -> Option<NodeRef> {
        let shard = self.shard(&self.by_key, key).lock();
        shard.get(key).and_then(Weak::upgrade)
    }

    /// Makes the root, which is nobody's child and has the number 1.
    pub(crate) fn make_root(stack: Stack, state: State) -> NodeRef {
        Arc::new(Node {
            ino: NodeId::ROOT.0,
            stack,
            state: RwLock::new(state),
            table: Weak::new(),
            renumbered: AtomicU32::new(0),
            kind: FileType::Directory,
            unsynced: AtomicBool::new(false),
            flags: AtomicU8::new(FROM_LOWER),
        })
    }

    fn make(self: &Arc<Self>, key: &Key, blueprint: Blueprint, from_lower: bool) -> NodeRef {
        let Blueprint {
            kind,
            stack,
            state,
            number_from: (dev, number),
            wanted,
        } = blueprint;
        let build = |ino| {
            Arc::new(Node {
                ino,
                stack,
                state: RwLock::new(state),
                table: Arc::downgrade(self),
                renumbered: AtomicU32::new(0),
                kind,
                unsynced: AtomicBool::new(false),
                flags: AtomicU8::new(if from_lower { FROM_LOWER } else { 0 }),
            })
        };
        let kept = self.kept.lock().get(key).copied();
        // What a layer says of itself may be anything.
        let wanted = wanted.filter(|number| (2..EXTRA_IDS).contains(number));
        let own = self.plan.preferred(dev, number);
        let own = own.unwrap_or_else(|| self.plan.spread(dev, number));
        let first = [kept, wanted, Some(own)];
        let mut numbers = first.into_iter().flatten().chain(InoPlan::fallback(key));
        loop {
            // There are more numbers than there can be nodes.
            let ino = numbers.next().unwrap_or(EXTRA_IDS - 1);
            let mut shard = self.shard(&self.by_number, &ino).lock();
            if shard.get(&ino).is_none_or(Slot::is_dead) {
                let node = build(ino);
                shard.insert(ino, Slot::Alive(Arc::downgrade(&node)));
                return node;
            }
        }
    }

    /// Makes a node findable by its object in the upper too. Done before the object can be met there. `keep_number`: the
    /// object cannot carry the node's number itself.
    pub(crate) fn add_upper(&self, node: &NodeRef, dev: u64, ino: u64, keep_number: bool) {
        let key = Key::Upper { dev, ino };
        if keep_number {
            self.kept.lock().insert(key.clone(), node.ino);
        }
        self.shard(&self.by_key, &key)
            .lock()
            .insert(key, Arc::downgrade(node));
    }

    /// The last name of an upper object is gone: its inode number may come back as something else.
    pub(crate) fn release_upper(&self, dev: u64, ino: u64) {
        let key = Key::Upper { dev, ino };
        self.shard(&self.by_key, &key).lock().remove(&key);
        self.kept.lock().remove(&key);
    }

    /// Called by a node's end of life.
    pub(super) fn forget_dropped(&self, ino: u64, upper: Option<(u64, u64)>, stack: &Stack) {
        // An entry that was replaced meanwhile belongs to a living node: only dead ones go.
        let upper = upper.map(|(dev, ino)| Key::Upper { dev, ino });
        for key in upper.into_iter().chain(self.stack_key(stack)) {
            let mut shard = self.shard(&self.by_key, &key).lock();
            if shard.get(&key).is_some_and(|node| node.strong_count() == 0) {
                shard.remove(&key);
                give_back(&mut shard);
            }
        }
        let mut shard = self.shard(&self.by_number, &ino).lock();
        if shard.get(&ino).is_some_and(Slot::is_dead) {
            shard.remove(&ino);
            give_back(&mut shard);
        }
    }

    /// The kernel has been given the node once more, under `id`.
    pub(crate) fn remember(&self, id: NodeId, node: &NodeRef) {
        let mut shard = self.shard(&self.by_number, &id.0).lock();
        let lookups = match shard.get(&id.0) {
            Some(Slot::Held { lookups, .. }) => lookups.saturating_add(1),
            Some(Slot::Alive(_)) | None => NonZeroU64::MIN,
        };
        let node = node.clone();
        let _before = shard.insert(id.0, Slot::Held { node, lookups });
    }

    /// The kernel has given up `count` of what it was given. If it knows the number no more, `gone` is called before
    /// anybody can tell the kernel of it again; what that returns is the caller's to drop.
    pub(crate) fn forget<T>(&self, id: NodeId, count: u64, gone: impl FnOnce() -> T) -> Option<T> {
        let mut shard = self.shard(&self.by_number, &id.0).lock();
        let slot = shard.get_mut(&id.0)?;
        let Slot::Held { lookups, node } = slot else {
            return None;
        };
        if let Some(left) = NonZeroU64::new(lookups.get().saturating_sub(count)) {
            *lookups = left;
            return None;
        }
        let alive = Slot::Alive(Arc::downgrade(node));
        let before = if id.0 < EXTRA_IDS {
            Some(std::mem::replace(slot, alive))
        } else {
            shard.remove(&id.0)
        };
        let result = gone();
        drop(shard);
        // The node's own end takes other locks of the table.
        drop(before);
        Some(result)
    }

    /// The node the kernel knows by this number.
    pub(crate) fn known(&self, id: NodeId) -> Option<NodeRef> {
        match self.shard(&self.by_number, &id.0).lock().get(&id.0)? {
            Slot::Held { node, .. } => Some(node.clone()),
            Slot::Alive(_) => None,
        }
    }

    /// A number never used before, for the kernel only.
    pub(super) fn extra_number(&self) -> Option<u32> {
        let next = |number: u32| number.checked_add(1);
        let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
        self.next_extra.fetch_update(set, get, next).ok()
    }
}

/// Maps keep the room they once needed; one that has become much too large gives it back.
fn give_back<K: Eq + Hash, V>(map: &mut HashMap<K, V>) {
    /// Too small to matter.
    const ROOM: usize = 1024;
    if map.capacity() > ROOM && map.len() < map.capacity() / 8 {
        map.shrink_to(map.len() * 2);
    }
}
