//! All nodes alive: by what they are, by inode number, and by the number the kernel knows.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use rustix::fs::FileType;

use super::identity::EXTRA_IDS;
use super::{Copying, InoPlan, Key, LowerFile, Node, NodeId, NodeRef, Stack, State};

/// A power of two, well above the number of serving threads.
const SHARDS: usize = 32;

type Shard<K, V> = Mutex<HashMap<K, V>>;

/// The table of nodes. Sharded, so that one busy corner of the tree does not slow another.
#[derive(Debug)]
pub(crate) struct Table {
    by_key: Box<[Shard<Key, Weak<Node>>]>,
    by_ino: Box<[Shard<u64, Weak<Node>>]>,
    known: Box<[Shard<u64, Known>]>,
    hasher: RandomState,
    plan: Mutex<InoPlan>,
    next_serial: AtomicU64,
    next_extra: AtomicU64,
    /// Layers whose names are objects of their own.
    mutable: Box<[bool]>,
}

/// A node that the kernel holds.
#[derive(Debug)]
struct Known {
    node: NodeRef,
    lookups: u64,
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
            by_ino: shards(),
            known: shards(),
            hasher: RandomState::new(),
            plan: Mutex::new(plan),
            next_serial: AtomicU64::new(1),
            next_extra: AtomicU64::new(EXTRA_IDS),
            mutable: mutable.into(),
        })
    }

    fn shard<'a, K: Hash, V>(&self, shards: &'a [Shard<K, V>], key: &K) -> &'a Shard<K, V> {
        let hash = self.hasher.hash_one(key);
        &shards[usize::try_from(hash % SHARDS as u64).unwrap_or(0)]
    }

    /// The key of a lower object.
    pub(crate) fn lower_key(&self, file: &LowerFile) -> Key {
        if self
            .mutable
            .get(usize::from(file.layer))
            .copied()
            .unwrap_or(false)
        {
            Key::LowerName {
                layer: file.layer,
                path: file.path().into(),
            }
        } else {
            Key::Lower {
                layer: file.layer,
                dev: file.dev,
                ino: file.ino,
            }
        }
    }

    /// The key by which a node is known in the lowers, if it is in any.
    pub(crate) fn stack_key(&self, stack: &Stack) -> Option<Key> {
        match stack {
            Stack::None => None,
            Stack::Dirs(dirs) => dirs.first().map(|top| {
                if self
                    .mutable
                    .get(usize::from(top.layer))
                    .copied()
                    .unwrap_or(false)
                {
                    Key::LowerName {
                        layer: top.layer,
                        path: (*top.path).into(),
                    }
                } else {
                    Key::Lower {
                        layer: top.layer,
                        dev: top.dev,
                        ino: top.ino,
                    }
                }
            }),
            Stack::File(file) => Some(self.lower_key(file)),
        }
    }

    /// The node with this key, or a new one. The new node is also known by the key of its lower part.
    pub(crate) fn get_or_make(
        self: &Arc<Self>,
        key: &Key,
        blueprint: impl FnOnce() -> Blueprint,
    ) -> NodeRef {
        let mut shard = self.shard(&self.by_key, key).lock();
        if let Some(node) = shard.get(key).and_then(Weak::upgrade) {
            return node;
        }
        let node = self.make(key, blueprint());
        shard.insert(key.clone(), Arc::downgrade(&node));
        node
    }

    /// The node with this key if it is alive.
    pub(crate) fn get(&self, key: &Key) -> Option<NodeRef> {
        let shard = self.shard(&self.by_key, key).lock();
        shard.get(key).and_then(Weak::upgrade)
    }

    /// Makes the root, which is nobody's child and has the number 1.
    pub(crate) fn make_root(self: &Arc<Self>, stack: Stack, state: State) -> NodeRef {
        let serial = self.next_serial.fetch_add(1, Ordering::Relaxed);
        Arc::new(Node {
            serial,
            ino: NodeId::ROOT.0,
            kind: FileType::Directory,
            stack,
            state: RwLock::new(state),
            names: RwLock::new(()),
            copying: Copying::default(),
            unsynced: AtomicBool::new(false),
            kernel_id: AtomicU64::new(NodeId::ROOT.0),
            table: Weak::new(),
        })
    }

    fn make(self: &Arc<Self>, key: &Key, blueprint: Blueprint) -> NodeRef {
        let Blueprint {
            kind,
            stack,
            state,
            number_from: (dev, number),
            wanted,
        } = blueprint;
        let (kept, preferred) = {
            let plan = self.plan.lock();
            (plan.remembered(key), plan.preferred(dev, number))
        };
        let serial = self.next_serial.fetch_add(1, Ordering::Relaxed);
        let build = |ino| {
            Arc::new(Node {
                serial,
                ino,
                kind,
                stack,
                state: RwLock::new(state),
                names: RwLock::new(()),
                copying: Copying::default(),
                unsynced: AtomicBool::new(false),
                kernel_id: AtomicU64::new(ino),
                table: Arc::downgrade(self),
            })
        };
        for ino in [kept, wanted, preferred].into_iter().flatten() {
            let mut shard = self.shard(&self.by_ino, &ino).lock();
            if shard.get(&ino).is_none_or(|node| node.strong_count() == 0) {
                let node = build(ino);
                shard.insert(ino, Arc::downgrade(&node));
                return node;
            }
        }
        let ino = self.plan.lock().fallback(key);
        let node = build(ino);
        self.shard(&self.by_ino, &ino)
            .lock()
            .insert(ino, Arc::downgrade(&node));
        node
    }

    /// Makes a node findable by its object in the upper too. Done before the object can be met there.
    pub(crate) fn add_upper(&self, node: &NodeRef, dev: u64, ino: u64, keep_number: bool) {
        let key = Key::Upper { dev, ino };
        if keep_number {
            self.plan.lock().remember(key.clone(), node.ino);
        }
        self.shard(&self.by_key, &key)
            .lock()
            .insert(key, Arc::downgrade(node));
    }

    /// The last name of an upper object is gone: its inode number may come back as something else.
    pub(crate) fn release_upper(&self, dev: u64, ino: u64) {
        let key = Key::Upper { dev, ino };
        self.shard(&self.by_key, &key).lock().remove(&key);
        self.plan.lock().release(&key);
    }

    /// Called by a node's end of life.
    pub(super) fn forget_dropped(&self, ino: u64, upper: Option<(u64, u64)>, stack: &Stack) {
        // An entry that was replaced meanwhile belongs to a living node: only dead ones go.
        let dead = |weak: &Weak<Node>| weak.strong_count() == 0;
        let upper = upper.map(|(dev, ino)| Key::Upper { dev, ino });
        for key in upper.into_iter().chain(self.stack_key(stack)) {
            let mut shard = self.shard(&self.by_key, &key).lock();
            if shard.get(&key).is_some_and(dead) {
                shard.remove(&key);
            }
        }
        let mut shard = self.shard(&self.by_ino, &ino).lock();
        if shard.get(&ino).is_some_and(dead) {
            shard.remove(&ino);
        }
    }

    /// The kernel has been given the node once more, under `id`.
    pub(crate) fn remember(&self, id: NodeId, node: &NodeRef) {
        let mut shard = self.shard(&self.known, &id.0).lock();
        shard
            .entry(id.0)
            .or_insert_with(|| Known {
                node: node.clone(),
                lookups: 0,
            })
            .lookups += 1;
    }

    /// The kernel has given up `count` of what it was given. If it knows the number no more, `gone` is called before
    /// anybody can tell the kernel of it again; what that returns is the caller's to drop.
    pub(crate) fn forget<T>(&self, id: NodeId, count: u64, gone: impl FnOnce() -> T) -> Option<T> {
        let mut shard = self.shard(&self.known, &id.0).lock();
        let known = shard.get_mut(&id.0)?;
        known.lookups = known.lookups.saturating_sub(count);
        if known.lookups > 0 {
            return None;
        }
        let known = shard.remove(&id.0);
        let result = gone();
        drop(shard);
        // The node's own end takes other locks of the table.
        drop(known);
        Some(result)
    }

    /// The node the kernel knows by this number.
    pub(crate) fn known(&self, id: NodeId) -> Option<NodeRef> {
        self.shard(&self.known, &id.0)
            .lock()
            .get(&id.0)
            .map(|known| known.node.clone())
    }

    /// A number never used before and never an inode number.
    pub(crate) fn extra_id(&self) -> NodeId {
        NodeId(self.next_extra.fetch_add(1, Ordering::Relaxed))
    }
}
