//! What the log records, and how: `docs/format.md`, "Log records". Decoding is strict and bounded; the caller has checked
//! the checksum, so what does not decode was written by something else than this code.

use std::sync::Arc;

use cas::{Attrs, Content, Digest, Kind, SnapshotId, Time, xattrs::Xattrs};

use super::{
    Name, SessionId,
    codec::{Put, Take},
    extent::{Blob, Data, FileBody},
    inode::{BaseDir, Body, Inode, NOWHERE, XattrSet},
    notes::Notes,
    segment::{Pool, SEGMENT_ID_MAX, Segment},
    state::{DirDelta, Effect, State},
    sums::{SUM_BYTES_MAX, Sum},
};

/// What a session is called and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Its ID.
    pub id: SessionId,
    /// Its label, if it has one.
    pub name: Option<String>,
    /// The session it was forked from.
    pub parent: Option<SessionId>,
    /// The snapshot that it, or the session that its forks go back to, was created from: what a diff compares with. Seals
    /// move the base, never this.
    pub origin: SnapshotId,
    /// Forks between it and a session that was created.
    pub depth: u32,
    /// When it was created or forked.
    pub created: Time,
}

/// One record of the log.
#[derive(Clone, Debug)]
pub enum Record {
    /// The session is this: `base`, the effects of the `parts` records before, and these. Creates a session, or sums up all
    /// records about it so far, so that a replay may begin here.
    Anchor {
        /// Its identity.
        meta: Meta,
        /// What is attached to it.
        notes: Notes,
        /// Its base.
        base: SnapshotId,
        /// The number of the next inode it creates.
        next_ino: u64,
        /// How many [`Record::Part`]s belong to it.
        parts: u32,
        /// The last of its effects.
        effects: Vec<Effect>,
    },
    /// Effects that belong to the next anchor of the session, because one record would be too long.
    Part {
        /// The session.
        id: SessionId,
        /// 0 for the first; that one discards what a crash left of an earlier attempt.
        index: u32,
        /// Part of the anchor's effects.
        effects: Vec<Effect>,
    },
    /// A new session that is what `parent` is at this point of the log.
    Fork {
        /// The session that is cloned.
        parent: SessionId,
        /// The new one.
        meta: Meta,
        /// What is attached to it.
        notes: Notes,
    },
    /// The session is no more.
    Discard(SessionId),
    /// One operation on a session.
    Apply(SessionId, Vec<Effect>),
    /// Nothing before this position is needed any more, and files that end there may be gone. A log that begins later than
    /// its last such record says has lost its beginning.
    Trim(u64),
    /// What is attached to the session is this from now on.
    Notes(SessionId, Notes),
}

/// Bytes of one record. Anchors are cut into parts far below it; what is largest beside them is 1 MiB of attributes.
pub(crate) const RECORD_BYTES_MAX: usize = 4 << 20;

impl Record {
    /// Its bytes: a kind, then its fields.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Record::Anchor { meta, notes, base, next_ino, parts, effects } => {
                out.u8(if notes.is_empty() { 1 } else { 7 });
                put_identity(out, meta, notes);
                out.digest(&base.0);
                out.u64(*next_ino);
                out.u32(*parts);
                put_effects(out, effects);
            }
            Record::Part { id, index, effects } => {
                out.u8(2);
                out.extend_from_slice(&id.0);
                out.u32(*index);
                put_effects(out, effects);
            }
            Record::Fork { parent, meta, notes } => {
                out.u8(if notes.is_empty() { 3 } else { 8 });
                out.extend_from_slice(&parent.0);
                put_identity(out, meta, notes);
            }
            Record::Discard(id) => {
                out.u8(4);
                out.extend_from_slice(&id.0);
            }
            Record::Apply(id, effects) => {
                out.u8(5);
                out.extend_from_slice(&id.0);
                put_effects(out, effects);
            }
            Record::Trim(position) => {
                out.u8(6);
                out.u64(*position);
            }
            Record::Notes(id, notes) => {
                out.u8(9);
                out.extend_from_slice(&id.0);
                notes.put(out);
            }
        }
    }

    /// The record that `bytes` are, all of them; `None` if they are none.
    pub(crate) fn decode(bytes: &[u8], pool: &Pool) -> Option<Record> {
        let mut take = Take(bytes);
        let t = &mut take;
        let record = match t.u8()? {
            kind @ (1 | 7) => {
                let (meta, notes) = take_identity(t, kind == 7)?;
                let (base, next_ino, parts) = (SnapshotId(t.digest()?), t.u64()?, t.u32()?);
                Record::Anchor { meta, notes, base, next_ino, parts, effects: take_effects(t, pool)? }
            }
            2 => Record::Part { id: take_id(t)?, index: t.u32()?, effects: take_effects(t, pool)? },
            kind @ (3 | 8) => {
                let parent = take_id(t)?;
                let (meta, notes) = take_identity(t, kind == 8)?;
                Record::Fork { parent, meta, notes }
            }
            4 => Record::Discard(take_id(t)?),
            5 => Record::Apply(take_id(t)?, take_effects(t, pool)?),
            6 => Record::Trim(t.u64()?),
            9 => Record::Notes(take_id(t)?, Notes::take(t)?),
            _ => return None,
        };
        take.is_empty().then_some(record)
    }

    /// What a trim says, without decoding others.
    pub(crate) fn trimmed(bytes: &[u8]) -> Option<u64> {
        let mut take = Take(bytes);
        (take.u8()? == 6).then(|| take.u64())?
    }
}

/// The records that sum up a session: its parts, cut where they exceed `part_bytes`, and the anchor that closes them.
pub(crate) fn anchor(meta: &Meta, notes: &Notes, state: &State, part_bytes: usize) -> Vec<Record> {
    let mut records = Vec::new();
    let (mut effects, mut bytes) = (Vec::new(), 0);
    for effect in images(state) {
        bytes += 128 + effect_bytes(&effect);
        effects.push(effect);
        if bytes >= part_bytes {
            let effects = std::mem::take(&mut effects);
            records.push(Record::Part { id: meta.id, index: records.len() as u32, effects });
            bytes = 0;
        }
    }
    records.push(Record::Anchor {
        meta: meta.clone(),
        notes: notes.clone(),
        base: state.base,
        next_ino: state.next_ino,
        parts: records.len() as u32,
        effects,
    });
    records
}

/// Effects that make `state` out of its base. Of orphans only those that may still be given a name: the rest goes with its
/// holder, and no replay has one.
fn images(state: &State) -> impl Iterator<Item = Effect> + '_ {
    let keeps = |(ino, inode): &(&u64, &Arc<Inode>)| !state.orphans.contains(*ino) || inode.parent == NOWHERE;
    let inodes = state.inodes.iter().filter(keeps).flat_map(|(&ino, inode)| {
        let unnamed = (inode.parent == NOWHERE).then_some(Effect::Orphan(ino));
        image_of(ino, inode).into_iter().chain(unnamed)
    });
    let dirs = state.dirs.iter().filter(|(ino, _)| !state.orphans.contains(*ino));
    inodes.chain(dirs.flat_map(|(&dir, delta)| names_of(dir, delta)))
}

fn image_of(ino: u64, inode: &Arc<Inode>) -> Vec<Effect> {
    let Body::File(file) = &inode.body else { return vec![Effect::Inode(ino, Arc::clone(inode))] };
    let bare = FileBody { extents: Default::default(), ..file.clone() };
    let mut effects =
        vec![Effect::Inode(ino, Arc::new(Inode { body: Body::File(bare), ..(**inode).clone() }))];
    for (start, extent) in file.extents.iter() {
        match extent.data {
            Data::Hole => effects.push(Effect::Punch(ino, start..start + extent.len)),
            Data::Segment { segment, offset, .. } => {
                let sums = segment.sums(offset..offset + extent.len);
                let write =
                    Effect::Write { ino, start, len: extent.len, segment: Arc::clone(&segment), offset };
                effects.push(write);
                let lists =
                    sums.chunks(SUMS_MAX).map(|sums| Effect::Sums(Arc::clone(&segment), sums.to_vec()));
                effects.extend(lists);
            }
        }
    }
    effects
}

/// Sums in one effect of an anchor, which is cut into parts between effects.
const SUMS_MAX: usize = 512;

fn names_of(dir: u64, delta: &DirDelta) -> impl Iterator<Item = Effect> + '_ {
    use super::state::Change;
    let gone = delta.names.iter().filter(|(_, change)| **change == Change::Gone);
    let gone = gone.map(move |(name, _)| Effect::Hide { dir, name: name.clone() });
    let added = delta.added.values().filter_map(move |name| match delta.names.get(name) {
        Some(Change::Added { ino, .. }) => Some(Effect::Add { dir, name: name.clone(), ino: *ino }),
        _ => None,
    });
    gone.chain(added)
}

/// The variable part of an effect's length, roughly.
fn effect_bytes(effect: &Effect) -> usize {
    let xattrs = |x: &Xattrs| x.iter().map(|(k, v)| 8 + k.len() + v.len()).sum();
    match effect {
        Effect::Inode(_, inode) => match &inode.xattrs {
            XattrSet::Own(own) => 4096 + xattrs(own),
            XattrSet::Base(_) => 128,
        },
        Effect::Xattrs(_, own) => xattrs(own),
        Effect::Sums(_, sums) => 20 * sums.len(),
        _ => 64,
    }
}

fn put_meta(out: &mut Vec<u8>, meta: &Meta) {
    out.extend_from_slice(&meta.id.0);
    out.bytes(meta.name.as_deref().unwrap_or("").as_bytes());
    out.extend_from_slice(&meta.parent.unwrap_or(SessionId([0; 10])).0);
    out.digest(&meta.origin.0);
    out.u32(meta.depth);
    out.time(meta.created);
}

fn take_meta(t: &mut Take<'_>) -> Option<Meta> {
    let id = take_id(t)?;
    let name = std::str::from_utf8(t.bytes()?).ok()?;
    let parent = take_id(t)?;
    Some(Meta {
        id,
        name: (!name.is_empty()).then(|| name.to_owned()),
        parent: (parent != SessionId([0; 10])).then_some(parent),
        origin: SnapshotId(t.digest()?),
        depth: t.u32()?,
        created: t.time()?,
    })
}

/// Of a session to which nothing is attached as it always was: versions that know of no notes read it.
fn put_identity(out: &mut Vec<u8>, meta: &Meta, notes: &Notes) {
    put_meta(out, meta);
    if !notes.is_empty() {
        notes.put(out);
    }
}

fn take_identity(t: &mut Take<'_>, has_notes: bool) -> Option<(Meta, Notes)> {
    let meta = take_meta(t)?;
    if !has_notes {
        return Some((meta, Notes::default()));
    }
    let notes = Notes::take(t)?;
    (!notes.is_empty()).then_some((meta, notes))
}

fn take_id(t: &mut Take<'_>) -> Option<SessionId> {
    t.array().map(SessionId)
}

fn put_effects(out: &mut Vec<u8>, effects: &[Effect]) {
    out.u32(effects.len() as u32);
    effects.iter().for_each(|effect| put_effect(out, effect));
}

fn take_effects(t: &mut Take<'_>, pool: &Pool) -> Option<Vec<Effect>> {
    let count = t.u32()?;
    // Every effect takes at least 9 bytes, so a count that lies cannot make this allocate more than the record's size.
    let mut effects = Vec::with_capacity((count as usize).min(t.0.len() / 9 + 1));
    for _ in 0..count {
        effects.push(take_effect(t, pool)?);
    }
    Some(effects)
}

fn put_effect(out: &mut Vec<u8>, effect: &Effect) {
    let head = |out: &mut Vec<u8>, kind: u8, ino: u64| {
        out.u8(kind);
        out.u64(ino);
    };
    match effect {
        Effect::Inode(ino, inode) => {
            head(out, 1, *ino);
            put_inode(out, inode);
        }
        Effect::Attrs(ino, attrs, atime) => {
            head(out, 2, *ino);
            put_attrs(out, attrs);
            out.time(*atime);
        }
        Effect::Parent(ino, parent) => {
            head(out, 3, *ino);
            out.u64(*parent);
        }
        Effect::Linked(ino) => head(out, 4, *ino),
        Effect::Xattrs(ino, xattrs) => {
            head(out, 5, *ino);
            put_xattrs(out, xattrs);
        }
        Effect::Write { ino, start, len, segment, offset } => {
            head(out, 6, *ino);
            [*start, *len, segment.id(), *offset].into_iter().for_each(|v| out.u64(v));
        }
        Effect::Punch(ino, range) => {
            head(out, 7, *ino);
            out.u64(range.start);
            out.u64(range.end);
        }
        Effect::Truncate(ino, size) => {
            head(out, 8, *ino);
            out.u64(*size);
        }
        Effect::Add { dir, name, ino } => {
            head(out, 9, *dir);
            out.bytes(name.as_bytes());
            out.u64(*ino);
        }
        Effect::Hide { dir, name } => {
            head(out, 10, *dir);
            out.bytes(name.as_bytes());
        }
        Effect::Remove { dir, name } => {
            head(out, 11, *dir);
            out.bytes(name.as_bytes());
        }
        Effect::Orphan(ino) => head(out, 12, *ino),
        Effect::Drop(ino) => head(out, 13, *ino),
        Effect::Sums(segment, sums) => {
            head(out, 14, segment.id());
            out.u32(sums.len() as u32);
            for sum in sums {
                out.u64(sum.offset);
                out.u32(sum.len as u32);
                out.u64(sum.check);
            }
        }
        Effect::Unsum(segment, range) => {
            head(out, 15, segment.id());
            out.u64(range.start);
            out.u64(range.end);
        }
    }
}

fn take_effect(t: &mut Take<'_>, pool: &Pool) -> Option<Effect> {
    let (kind, ino) = (t.u8()?, t.u64()?);
    Some(match kind {
        1 => Effect::Inode(ino, Arc::new(take_inode(t)?)),
        2 => Effect::Attrs(ino, take_attrs(t)?, t.time()?),
        3 => Effect::Parent(ino, t.u64()?),
        4 => Effect::Linked(ino),
        5 => Effect::Xattrs(ino, Arc::new(take_xattrs(t)?)),
        6 => {
            let (start, len, segment, offset) = (t.u64()?, t.u64()?, known(pool, t.u64()?)?, t.u64()?);
            let bounded = len > 0 && start.checked_add(len).is_some() && offset.checked_add(len).is_some();
            bounded.then_some(Effect::Write { ino, start, len, segment, offset })?
        }
        7 => Effect::Punch(ino, t.u64()?..t.u64()?),
        8 => Effect::Truncate(ino, t.u64()?),
        9 => Effect::Add { dir: ino, name: take_name(t)?, ino: t.u64()? },
        10 => Effect::Hide { dir: ino, name: take_name(t)? },
        11 => Effect::Remove { dir: ino, name: take_name(t)? },
        12 => Effect::Orphan(ino),
        13 => Effect::Drop(ino),
        14 => Effect::Sums(known(pool, ino)?, take_sums(t)?),
        15 => {
            let range = t.u64()?..t.u64()?;
            (range.start < range.end).then_some(Effect::Unsum(known(pool, ino)?, range))?
        }
        _ => return None,
    })
}

/// The segment of this number, if any can have it: the next one to be made gets a higher one.
fn known(pool: &Pool, id: u64) -> Option<Arc<Segment>> {
    (id <= SEGMENT_ID_MAX).then(|| pool.get(id))
}

fn take_sums(t: &mut Take<'_>) -> Option<Vec<Sum>> {
    let count = t.u32()? as usize;
    let mut sums = Vec::with_capacity(count.min(t.0.len() / 20 + 1));
    for _ in 0..count {
        let sum = Sum { offset: t.u64()?, len: u64::from(t.u32()?), check: t.u64()? };
        let bounded = (1..=SUM_BYTES_MAX).contains(&sum.len) && sum.offset.checked_add(sum.len).is_some();
        sums.push(bounded.then_some(sum)?);
    }
    Some(sums)
}

fn take_name(t: &mut Take<'_>) -> Option<Name> {
    Name::parse(t.bytes()?).ok()
}

/// Without the extents of a file: those are effects of their own.
fn put_inode(out: &mut Vec<u8>, inode: &Inode) {
    out.u64(inode.parent);
    out.u8(inode.kind as u8);
    out.u8(inode.linked as u8);
    put_attrs(out, &inode.attrs);
    out.time(inode.atime);
    match &inode.xattrs {
        XattrSet::Base(digest) => {
            out.u8(0);
            out.digest(&digest.unwrap_or(Digest([0; 32])));
        }
        XattrSet::Own(own) => {
            out.u8(1);
            put_xattrs(out, own);
        }
    }
    match &inode.body {
        Body::File(file) => {
            assert!(file.extents.is_empty(), "extents are recorded as effects");
            let (tag, digest) = match file.base.map(|blob| blob.content) {
                None | Some(Content::Empty) => (0, Digest([0; 32])),
                Some(Content::Chunk(digest)) => (1, digest),
                Some(Content::List(digest)) => (2, digest),
            };
            out.u8(tag);
            out.digest(&digest);
            out.u64(file.base.map_or(0, |blob| blob.size));
            out.u64(file.base_visible);
        }
        Body::Dir(base) => {
            out.digest(&base.as_ref().map_or(Digest([0; 32]), BaseDir::digest));
        }
        Body::Symlink(target) => out.bytes(target),
        Body::Special => {}
    }
}

fn take_inode(t: &mut Take<'_>) -> Option<Inode> {
    let parent = t.u64()?;
    let kind = Kind::from_u8(t.u8()?)?;
    let linked = match t.u8()? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let (attrs, atime) = (take_attrs(t)?, t.time()?);
    let some = |digest: Digest| (digest != Digest([0; 32])).then_some(digest);
    let xattrs = match t.u8()? {
        0 => XattrSet::Base(some(t.digest()?)),
        1 => XattrSet::Own(Arc::new(take_xattrs(t)?)),
        _ => return None,
    };
    let body = match kind {
        Kind::File => {
            let (tag, digest, size, base_visible) = (t.u8()?, t.digest()?, t.u64()?, t.u64()?);
            let content = match tag {
                0 if digest == Digest([0; 32]) && size == 0 => None,
                1 => Some(Content::Chunk(digest)),
                2 => Some(Content::List(digest)),
                _ => return None,
            };
            let base = content.map(|content| Blob { content, size });
            Body::File(FileBody { base, base_visible, extents: Default::default() })
        }
        Kind::Dir => Body::Dir(some(t.digest()?).map(BaseDir::new)),
        Kind::Symlink => Body::Symlink(t.bytes()?.into()),
        Kind::Fifo | Kind::Socket | Kind::CharDevice | Kind::BlockDevice => Body::Special,
    };
    Some(Inode { parent, kind, linked, attrs, atime, xattrs, body })
}

fn put_attrs(out: &mut Vec<u8>, a: &Attrs) {
    [a.mode, a.uid, a.gid, a.nlink].into_iter().for_each(|v| out.u32(v));
    out.u64(a.rdev);
    out.u64(a.size);
    out.time(a.mtime);
    out.time(a.ctime);
}

fn take_attrs(t: &mut Take<'_>) -> Option<Attrs> {
    let (mode, uid, gid, nlink) = (t.u32()?, t.u32()?, t.u32()?, t.u32()?);
    Some(Attrs { mode, uid, gid, nlink, rdev: t.u64()?, size: t.u64()?, mtime: t.time()?, ctime: t.time()? })
}

fn put_xattrs(out: &mut Vec<u8>, xattrs: &Xattrs) {
    out.u32(xattrs.len() as u32);
    for (name, value) in xattrs {
        out.bytes(name);
        out.bytes(value);
    }
}

fn take_xattrs(t: &mut Take<'_>) -> Option<Xattrs> {
    let count = t.u32()?;
    let mut xattrs = Xattrs::new();
    for _ in 0..count {
        let (name, value) = (t.bytes()?, t.bytes()?);
        if xattrs.last_key_value().is_some_and(|(last, _)| last.as_slice() >= name) {
            return None;
        }
        xattrs.insert(name.to_vec(), value.to_vec());
    }
    Some(xattrs)
}

#[cfg(test)]
mod tests;
