//! Directory entries as their writer holds them, and the objects that they become.

use super::{
    Totals,
    header::{HEADER_LEN, Header, Shape, malformed},
    index::{self, Page},
    leaf::{ENTRY_LEN, Leaf, NAME_LEN_MAX, starts_page},
};
use crate::{Attrs, Content, Digest, Kind, ObjectKind, Result, fields::digest_bytes, store::Writer};

/// What to put into a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name: 1 to 255 bytes, no `/`, no NUL, neither `.` nor `..`.
    pub name: Vec<u8>,
    /// The inode number, 2 or more and below 2^63.
    pub ino: u64,
    /// Attributes, as [`Attrs`] defines them for each kind.
    pub attrs: Attrs,
    /// Kind and content.
    pub node: OwnedNode,
    /// The digest of the extended attributes, if there are any.
    pub xattrs: Option<Digest>,
    /// Of a subdirectory: what its dir object adds up to. Zeros for the rest.
    pub totals: Totals,
}

/// A [`Node`](crate::Node) that owns its symlink target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnedNode {
    /// A regular file.
    File(Content),
    /// A directory: the digest of its dir object.
    Dir(Digest),
    /// A symlink: its target.
    Symlink(Vec<u8>),
    /// A fifo.
    Fifo,
    /// A socket.
    Socket,
    /// A character device; its number is in the attributes.
    CharDevice,
    /// A block device; its number is in the attributes.
    BlockDevice,
}

impl OwnedNode {
    /// The kind of this node.
    pub fn kind(&self) -> Kind {
        match self {
            OwnedNode::File(_) => Kind::File,
            OwnedNode::Dir(_) => Kind::Dir,
            OwnedNode::Symlink(_) => Kind::Symlink,
            OwnedNode::Fifo => Kind::Fifo,
            OwnedNode::Socket => Kind::Socket,
            OwnedNode::CharDevice => Kind::CharDevice,
            OwnedNode::BlockDevice => Kind::BlockDevice,
        }
    }
}

impl Writer {
    /// Stores a directory: one object, or pages and their index. Sorts `entries`; refuses what no reader would accept
    /// (names twice, attributes that do not fit the kind).
    pub fn put_dir(&mut self, mut entries: Vec<DirEntry>) -> Result<(Digest, Totals)> {
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let pages: Vec<&[DirEntry]> = pages(&entries).collect();
        let [first, rest @ ..] = &pages[..] else { return self.put_leaf(&[], Shape::Whole) };
        if rest.is_empty() {
            return self.put_leaf(first, Shape::Whole);
        }
        let mut table = Vec::with_capacity(pages.len());
        for page in pages {
            let (digest, totals) = self.put_leaf(page, Shape::Page)?;
            table.push(Page { first_name: &page[0].name, count: page.len() as u32, digest, totals });
        }
        let bytes = index::encode(&table)?;
        let (_, header) = index::Index::check(&bytes)?;
        let digest = Digest::of(&bytes);
        self.put_object(ObjectKind::Dir, digest, &bytes)?;
        Ok((digest, header.totals))
    }

    fn put_leaf(&mut self, entries: &[DirEntry], shape: Shape) -> Result<(Digest, Totals)> {
        let bytes = encode_leaf(entries, shape)?;
        // The reader's check is the one place that knows the rules, and costs a fraction of the hash.
        let (_, header) = Leaf::check(&bytes, shape)?;
        let digest = Digest::of(&bytes);
        let kind = if shape == Shape::Page { ObjectKind::DirPage } else { ObjectKind::Dir };
        self.put_object(kind, digest, &bytes)?;
        Ok((digest, header.totals))
    }
}

/// Sorted entries, cut where a name begins a page.
pub(super) fn pages(entries: &[DirEntry]) -> impl Iterator<Item = &[DirEntry]> {
    entries.chunk_by(|_, next| !starts_page(&next.name))
}

/// The bytes of a page with sorted `entries`; [`Leaf::check`] says whether they are right.
pub(super) fn encode_leaf(entries: &[DirEntry], shape: Shape) -> Result<Vec<u8>> {
    if entries.iter().any(|entry| entry.name.len() > NAME_LEN_MAX) {
        return Err(malformed("not a file name"));
    }
    let heap_len: usize = entries.iter().map(|entry| entry.name.len() + target(entry).len()).sum();
    let too_wide = |_| malformed("more entries than a page can have");
    let header = Header {
        shape,
        count: u32::try_from(entries.len()).map_err(too_wide)?,
        heap_len: u32::try_from(heap_len).map_err(too_wide)?,
        totals: entries.iter().fold(Totals::default(), |sum, entry| sum.plus(&Totals::of_entry(entry))),
    };
    let mut out = Vec::with_capacity(HEADER_LEN + entries.len() * ENTRY_LEN + heap_len);
    header.write(&mut out);
    let mut heap_used = 0u32;
    for entry in entries {
        write_record(&mut out, entry, heap_used);
        heap_used += (entry.name.len() + target(entry).len()) as u32;
    }
    for entry in entries {
        out.extend(&entry.name);
        out.extend(target(entry));
    }
    Ok(out)
}

/// One entry of the table, its fields in the order that leaf.rs reads them.
fn write_record(out: &mut Vec<u8>, entry: &DirEntry, name_off: u32) {
    let (content, digest) = match entry.node {
        OwnedNode::File(Content::Chunk(digest)) => (1, Some(digest)),
        OwnedNode::File(Content::List(digest)) => (2, Some(digest)),
        OwnedNode::Dir(digest) => (0, Some(digest)),
        _ => (0, None),
    };
    let attrs = &entry.attrs;
    out.extend(name_off.to_le_bytes());
    out.extend((entry.name.len() as u16).to_le_bytes());
    out.extend([entry.node.kind() as u8, content]);
    out.extend(entry.ino.to_le_bytes());
    for field in [attrs.mode, attrs.uid, attrs.gid, attrs.nlink] {
        out.extend(field.to_le_bytes());
    }
    out.extend(attrs.rdev.to_le_bytes());
    out.extend(attrs.size.to_le_bytes());
    out.extend(attrs.mtime.secs.to_le_bytes());
    out.extend(attrs.ctime.secs.to_le_bytes());
    out.extend(attrs.mtime.nanos.to_le_bytes());
    out.extend(attrs.ctime.nanos.to_le_bytes());
    out.extend(digest_bytes(digest));
    out.extend(digest_bytes(entry.xattrs));
}

fn target(entry: &DirEntry) -> &[u8] {
    match &entry.node {
        OwnedNode::Symlink(target) => target,
        _ => &[],
    }
}
