//! Brings a snapshot to the remote store: what is not there yet, in packs, then a layer that says where that is, then the manifest.
//!
//! One walk of the tree, in its order, on top of a snapshot that is there already, if there is one that has something in common: what its
//! layers have is not sent, and below a directory that they have nobody looks. So it costs what is new. Packs go out as they fill up, a few
//! at a time. The manifest comes last; until then nobody knows of the packs but this host, which remembers them, so that a
//! publish which was broken off goes on where it was.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use crossbeam::channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use super::{
    Remote,
    layer::{Layer, PREFIX, prefix},
    lease::Held,
    manifest::{LAYERS_MAX, LayerEntry, Manifest},
    name::RemoteName,
    pack::{Builder, bytes_max},
};
use crate::{
    Content, Digest, Error, Node, ObjectKind, Result, SnapshotId, Store,
    blob::List,
    dir::{Dir, Totals},
    record::PackKind,
};

/// Packs that are sent at a time. Each is in memory meanwhile. One in tests, which go by seed.
const UPLOADS: usize = if cfg!(test) { 1 } else { 3 };
/// Objects of a layer: 12 MiB of it.
const LAYER_OBJECTS: usize = 1 << 19;

/// A published snapshot to publish on top of. Whatever object its layers have, they have all that it refers to.
#[derive(Clone, Debug, Default)]
pub struct Parent {
    /// What its manifest says of its layers.
    pub entries: Vec<LayerEntry>,
    /// They themselves.
    pub layers: Vec<Arc<Layer>>,
    /// It is the snapshot that is to be published.
    pub(super) itself: Option<(RemoteName, Manifest)>,
    /// Manifests of that which nobody can use.
    pub(crate) useless: Vec<RemoteName>,
}

impl Parent {
    pub(super) fn has(&self, kind: ObjectKind, digest: Digest) -> bool {
        self.layers.iter().rev().any(|layer| layer.find(PackKind::of(kind), digest).is_some())
    }
}

/// Packs of files that a publish has sent which did not come to its end.
#[derive(Debug, Default)]
pub(crate) struct Resumed {
    packs: Vec<Arc<Layer>>,
    /// Of each chunk, which pack.
    chunks: HashMap<[u8; PREFIX], u32>,
}

impl Resumed {
    /// Each is of one pack.
    pub(crate) fn new(packs: Vec<Arc<Layer>>) -> Resumed {
        let mut chunks = HashMap::new();
        for (nth, pack) in packs.iter().enumerate() {
            chunks.extend(pack.prefixes().map(|prefix| (prefix, nth as u32)));
        }
        Resumed { packs, chunks }
    }

    fn find(&self, chunk: Digest) -> Option<&Arc<Layer>> {
        self.chunks.get(&prefix(chunk)).map(|nth| &self.packs[*nth as usize])
    }
}

/// Layers that were made, and what a manifest says of each.
type Made = Vec<(LayerEntry, Arc<Layer>)>;

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Names of the tree that were walked or found there, of `files_total`.
    pub files: u64,
    /// Names of the tree.
    pub files_total: u64,
    /// Bytes that were sent.
    pub sent_bytes: u64,
    /// Packs that were sent.
    pub sent_packs: u64,
}

/// What it came to.
#[derive(Clone, Debug)]
pub struct Published {
    /// The snapshot's manifest.
    pub manifest: Manifest,
    /// What it is called, if it is there.
    pub(crate) name: Option<RemoteName>,
    /// Keeps gc away from it until somebody's head or pin does.
    pub held: Option<Arc<Held>>,
    /// Objects that were sent, and their bytes before compression.
    pub objects: u64,
    /// See `objects`.
    pub object_bytes: u64,
    /// Packs that were sent, and their bytes.
    pub packs: u64,
    /// See `packs`.
    pub pack_bytes: u64,
    /// Layers of it that were made, and all packs that they name.
    pub(crate) made: Made,
    /// See `made`.
    pub(crate) named: Vec<RemoteName>,
}

/// Whom a publish asks and tells.
pub struct Asked<'a> {
    /// The remote store.
    pub remote: &'a dyn Remote,
    /// What was sent before.
    pub(crate) resumed: Resumed,
    /// Takes down what was sent. Durable when it returns.
    pub(crate) sent: &'a (dyn Fn(&Arc<Layer>) -> Result<()> + Sync),
    /// Makes names.
    pub name: &'a (dyn Fn() -> RemoteName + Sync),
    /// Hears how far it is.
    pub progress: &'a (dyn Fn(Progress) + Sync),
    /// Says whether to stop.
    pub is_cancelled: &'a (dyn Fn() -> bool + Sync),
}

/// Sends what a manifest of a snapshot of `store` is to name. It may be there already: then nothing is sent. Of the snapshot parts may be in the remote store alone: those of `parent`. The snapshot must be kept from gc
/// meanwhile. Several packs may have gone out when it fails; the next try finds them. Errors: `Missing`, `Remote`, `Cancelled`.
pub fn publish(store: &Store, parent: &Parent, id: SnapshotId, asked: &Asked<'_>) -> Result<Published> {
    let totals = Dir::open(store, store.snapshot(id)?.dir)?.totals();
    let sending = Sending { asked, has_failed: AtomicBool::new(false), state: Mutex::default() };
    sending.state.lock().progress.files_total = totals.files;
    let (full, queue) = bounded(0);
    let walked = std::thread::scope(|scope| {
        let spawn = |_| {
            let (queue, sending) = (queue.clone(), &sending);
            std::thread::Builder::new()
                .name("publish".into())
                .spawn_scoped(scope, move || sending.run(&queue))
        };
        let senders =
            (0..UPLOADS).map(spawn).collect::<std::io::Result<Vec<_>>>().map_err(Error::io("a thread"))?;
        drop(queue);
        let walked = Walk::new(store, parent, &sending, full).and_then(|walk| walk.snapshot(id));
        // A panic is no success.
        let sent = senders.into_iter().map(|sender| sender.join().unwrap_or(Err(Error::Cancelled)));
        let mut failed: Vec<_> = sent.filter_map(Result::err).collect();
        // Who was only told to stop does not know why.
        let why = failed.iter().position(|error| !matches!(error, Error::Cancelled)).unwrap_or(0);
        if failed.is_empty() { walked } else { Err(failed.swap_remove(why)) }
    });
    let (packs, mut used) = walked?;
    let State { sent, progress, objects, object_bytes } = sending.state.into_inner();
    used.extend(sent);
    assert!(used.len() as u64 == packs, "a manifest names packs that were sent, all of them");
    let named = used.values().map(|layer| layer.packs()[0].name).collect();
    let Totals { files, bytes, .. } = totals;
    let (layers, made) = layers(parent, used, asked)?;
    let (name, manifest) = match &parent.itself {
        Some((name, manifest)) if made.is_empty() => (Some(*name), manifest.clone()),
        _ => (None, Manifest { snapshot: id, files, bytes, layers }),
    };
    let Progress { sent_packs: packs, sent_bytes: pack_bytes, .. } = progress;
    Ok(Published { manifest, name, held: None, objects, object_bytes, packs, pack_bytes, made, named })
}

/// The layers of the parent and those of the packs; if that would be too many, fewer of all.
fn layers(
    parent: &Parent,
    used: BTreeMap<u64, Arc<Layer>>,
    asked: &Asked<'_>,
) -> Result<(Vec<LayerEntry>, Made)> {
    let new = together(used.into_values());
    let (mut entries, mut merged) = (parent.entries.clone(), new);
    if entries.len() + merged.len() > LAYERS_MAX {
        merged = together(parent.layers.iter().cloned().chain(merged.into_iter().flatten()));
        entries.clear();
    }
    if entries.len() + merged.len() > LAYERS_MAX {
        return Err(Error::Malformed { what: "snapshot", reason: "more objects than layers can name" });
    }
    let mut made = Vec::new();
    for group in merged {
        let layer = Arc::new(Layer::merge(&group)?);
        let name = (asked.name)();
        asked.remote.write(&name.layer(), layer.bytes().to_vec())?;
        let entry = LayerEntry { name, digest: Digest::of(layer.bytes()), bytes: layer.bytes().len() as u64 };
        entries.push(entry);
        made.push((entry, layer));
    }
    Ok((entries, made))
}

/// Layers that are to become one, each with so many objects, or a few more, that it is written and read in one go.
fn together(layers: impl Iterator<Item = Arc<Layer>>) -> Vec<Vec<Arc<Layer>>> {
    let (mut groups, mut objects) = (Vec::<Vec<_>>::new(), 0);
    for layer in layers {
        if groups.is_empty() || objects + layer.object_count() > LAYER_OBJECTS {
            groups.push(Vec::new());
            objects = 0;
        }
        objects += layer.object_count();
        if let Some(group) = groups.last_mut() {
            group.push(layer);
        }
    }
    groups
}

/// What the walk and the senders share.
struct Sending<'a> {
    asked: &'a Asked<'a>,
    has_failed: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By where they come in the order of the tree.
    sent: BTreeMap<u64, Arc<Layer>>,
    progress: Progress,
    objects: u64,
    object_bytes: u64,
}

/// A pack on its way, and where it comes in the order of the tree.
struct Full(u64, Builder);

impl Sending<'_> {
    fn run(&self, queue: &Receiver<Full>) -> Result<()> {
        let sent = queue.iter().try_for_each(|pack| self.send(pack));
        if sent.is_err() {
            self.has_failed.store(true, Relaxed);
        }
        sent
    }

    fn send(&self, Full(nth, pack): Full) -> Result<()> {
        let (kind, built) = (pack.kind(), pack.finish()?);
        let name = (self.asked.name)();
        let layer = Arc::new(Layer::of_pack(name, &built));
        let bytes = built.bytes.len() as u64;
        self.check_cancelled()?;
        self.asked.remote.write(&name.pack(), built.bytes)?;
        // One of directories refers to what may never be sent, if this ends here.
        if kind == PackKind::Data {
            (self.asked.sent)(&layer)?;
        }
        let mut state = self.state.lock();
        state.progress.sent_packs += 1;
        state.progress.sent_bytes += bytes;
        state.sent.insert(nth, layer);
        (self.asked.progress)(state.progress);
        Ok(())
    }

    fn check_cancelled(&self) -> Result<()> {
        // Why it failed is told by who failed.
        if (self.asked.is_cancelled)() || self.has_failed.load(Relaxed) {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    }
}

/// The walk, and the packs that it is filling.
struct Walk<'a> {
    store: &'a Store,
    parent: &'a Parent,
    sending: &'a Sending<'a>,
    /// Nobody is at the other end once all senders failed: then so does the walk.
    full: Sender<Full>,
    data: Builder,
    meta: Builder,
    packs: u64,
    /// Objects that were met. By kind: a file may hold the very bytes of a directory, and having met the file says nothing of what that
    /// refers to.
    met: HashSet<(PackKind, Digest)>,
    /// Packs that were sent before, and where they come in the order of the tree.
    used: BTreeMap<RemoteName, (u64, Arc<Layer>)>,
}

/// A directory that is being walked.
struct Frame {
    dir: Dir,
    next: u32,
}

impl<'a> Walk<'a> {
    fn new(
        store: &'a Store,
        parent: &'a Parent,
        sending: &'a Sending<'a>,
        full: Sender<Full>,
    ) -> Result<Walk<'a>> {
        Ok(Walk {
            store,
            parent,
            sending,
            full,
            data: Builder::new(PackKind::Data)?,
            meta: Builder::new(PackKind::Meta)?,
            packs: 0,
            met: HashSet::new(),
            used: BTreeMap::new(),
        })
    }

    /// Walks the snapshot and sends what is not there. Returns how many packs hold that, and those of them that were sent before, by where they
    /// come in the order of the tree.
    fn snapshot(mut self, id: SnapshotId) -> Result<(u64, BTreeMap<u64, Arc<Layer>>)> {
        let snapshot = self.store.snapshot(id)?;
        self.object(ObjectKind::Snapshot, id.0)?;
        if let Some(xattrs) = snapshot.xattrs {
            self.object(ObjectKind::Xattrs, xattrs)?;
        }
        let mut stack: Vec<Frame> = self.enter(snapshot.dir)?.into_iter().collect();
        while let Some(frame) = stack.last_mut() {
            if frame.next == frame.dir.count() {
                stack.pop();
                continue;
            }
            let (dir, index) = (frame.dir.clone(), frame.next);
            frame.next += 1;
            self.sending.state.lock().progress.files += 1;
            let entry = dir.entry(index)?;
            if let Some(xattrs) = entry.xattrs {
                self.object(ObjectKind::Xattrs, xattrs)?;
            }
            match entry.node {
                Node::Dir(below) => stack.extend(self.enter(below)?),
                Node::File(content) => self.content(content)?,
                Node::Symlink(_) | Node::Fifo | Node::Socket | Node::CharDevice | Node::BlockDevice => {}
            }
        }
        for kind in [PackKind::Data, PackKind::Meta] {
            self.hand_over(kind)?;
        }
        Ok((self.packs, self.used.into_values().collect()))
    }

    /// Opens a directory, unless it was met or the remote store has all that is below it.
    fn enter(&mut self, digest: Digest) -> Result<Option<Frame>> {
        self.sending.check_cancelled()?;
        if !self.met.insert((PackKind::Meta, digest)) || self.parent.has(ObjectKind::Dir, digest) {
            return Ok(None);
        }
        let dir = Dir::open(self.store, digest)?;
        self.put(ObjectKind::Dir, digest)?;
        if dir.page_count() > 1 {
            (0..dir.page_count())
                .try_for_each(|page| self.object(ObjectKind::DirPage, dir.page_digest(page)))?;
        }
        Ok(Some(Frame { dir, next: 0 }))
    }

    fn content(&mut self, content: Content) -> Result<()> {
        match content {
            Content::Empty => Ok(()),
            Content::Chunk(digest) => self.object(ObjectKind::Chunk, digest),
            Content::List(digest) => {
                if !self.met.insert((PackKind::Meta, digest)) || self.parent.has(ObjectKind::List, digest) {
                    return Ok(());
                }
                self.put(ObjectKind::List, digest)?;
                let object = self.store.chunk_list(digest)?;
                for extent in List::open(&object)?.extents_from(0) {
                    if let Some(chunk) = extent?.chunk {
                        self.object(ObjectKind::Chunk, chunk)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Puts an object into a pack, unless it is in one.
    fn object(&mut self, kind: ObjectKind, digest: Digest) -> Result<()> {
        if !self.met.insert((PackKind::of(kind), digest)) || self.parent.has(kind, digest) {
            return Ok(());
        }
        if kind == ObjectKind::Chunk
            && let Some(layer) = self.sending.asked.resumed.find(digest)
        {
            let name = layer.packs()[0].name;
            if !self.used.contains_key(&name) {
                self.packs += 1;
                self.used.insert(name, (self.packs, Arc::clone(layer)));
            }
            return Ok(());
        }
        self.put(kind, digest)
    }

    fn put(&mut self, kind: ObjectKind, digest: Digest) -> Result<()> {
        let bytes = self.store.bytes_of(kind, digest)?;
        let pack_kind = PackKind::of(kind);
        if !(1..=bytes_max(pack_kind)).contains(&bytes.len()) {
            return Err(Error::Malformed { what: "object", reason: "empty, or larger than one of its kind" });
        }
        let pack = match pack_kind {
            PackKind::Data => &mut self.data,
            PackKind::Meta => &mut self.meta,
        };
        pack.add(kind, digest, &bytes)?;
        let is_full = pack.is_full();
        let mut state = self.sending.state.lock();
        state.objects += 1;
        state.object_bytes += bytes.len() as u64;
        drop(state);
        if is_full { self.hand_over(pack_kind) } else { Ok(()) }
    }

    /// Has a pack sent, if there is anything in it.
    fn hand_over(&mut self, kind: PackKind) -> Result<()> {
        let pack = match kind {
            PackKind::Data => &mut self.data,
            PackKind::Meta => &mut self.meta,
        };
        if pack.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(pack, Builder::new(kind)?);
        self.packs += 1;
        // Nobody takes it: all senders failed, and say why.
        self.full.send(Full(self.packs, full)).map_err(|_| Error::Cancelled)
    }
}
