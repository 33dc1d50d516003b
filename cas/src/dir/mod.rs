//! Dir objects: a directory's entries as canonical bytes, searched in place.
//!
//! One object holds the whole directory, or, if it is wide, an index of pages that are loaded when they are first asked for.
//! The same entries always give the same bytes. What was opened was checked; from then on nothing in it can fail but the
//! loading of a page.

mod build;
#[cfg(any(test, feature = "simulation"))]
pub(crate) mod fuzzing;
mod header;
mod index;
mod leaf;
#[cfg(test)]
mod tests;

use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

pub use build::{DirEntry, OwnedNode};
use header::{Header, Shape, malformed};
use index::Index;
use leaf::Leaf;

use crate::{Attrs, Digest, Entry, Kind, Object, ObjectKind, Result, Store, store::Absence};

/// What a directory's subtree adds up to. Sums that would exceed 64 bits stay at the largest number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Names in the subtree, directories included, the root excluded.
    pub files: u64,
    /// Bytes of regular files, by size, for each of their names.
    pub bytes: u64,
    /// Names in the subtree whose inode is a non-directory with nlink > 1.
    pub links: u64,
    /// The highest inode number in the subtree; 0 if it is empty.
    pub ino_max: u64,
}

impl Totals {
    /// Both together.
    pub fn plus(&self, other: &Totals) -> Totals {
        Totals {
            files: self.files.saturating_add(other.files),
            bytes: self.bytes.saturating_add(other.bytes),
            links: self.links.saturating_add(other.links),
            ino_max: self.ino_max.max(other.ino_max),
        }
    }

    /// What an entry adds to its directory: itself, and its subtree if it is a directory.
    pub fn of_entry(entry: &DirEntry) -> Totals {
        let own = Totals::of_name(entry.node.kind(), &entry.attrs, entry.ino);
        if entry.node.kind() == Kind::Dir { own.plus(&entry.totals) } else { own }
    }

    fn of_name(kind: Kind, attrs: &Attrs, ino: u64) -> Totals {
        Totals {
            files: 1,
            bytes: if kind == Kind::File { attrs.size } else { 0 },
            links: u64::from(kind != Kind::Dir && attrs.nlink > 1),
            ino_max: ino,
        }
    }
}

/// A directory that can be opened again. Whoever remembers many directories keeps these: their bytes come and go. Clones
/// share a few bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirName(Arc<Digest>);

impl DirName {
    /// The digest of the dir object.
    pub fn digest(&self) -> Digest {
        *self.0
    }

    /// Opens the directory: out of memory if it was in use lately, else as [`Dir::open`] does.
    pub fn open(&self, store: &Store) -> Result<Dir> {
        Dir::read(store, self.clone())
    }
}

/// A directory's entries, read in place. Cheap to clone; keeps the memory it stands in alive. What becomes of who needs a page that is
/// not here is up to the store that it was opened in, or [bound](Dir::bound) to.
#[derive(Clone, Debug)]
pub struct Dir(Arc<Inner>, Absence);

#[derive(Debug)]
struct Inner {
    name: DirName,
    count: u32,
    totals: Totals,
    object: Object,
    wide: Option<Wide>,
}

/// What a directory of several pages has beside its index.
#[derive(Debug)]
struct Wide {
    store: Store,
    /// The index of each page's first entry, and behind them the count of all.
    starts: Vec<u32>,
    /// Pages that somebody has asked for.
    pages: Vec<OnceLock<Object>>,
}

impl Dir {
    /// Reads (and checks) the dir object `digest`. The pages of a wide directory are read when they are first needed.
    pub fn open(store: &Store, digest: Digest) -> Result<Dir> {
        DirName(Arc::new(digest)).open(store)
    }

    fn read(store: &Store, name: DirName) -> Result<Dir> {
        let object = store.object(ObjectKind::Dir, *name.0)?;
        let Header { shape, count, totals, .. } = Header::read(&object)?;
        object.check_once(ObjectKind::Dir, || check_dir(&object))?;
        let wide = match shape {
            Shape::Index => Some(Wide::open(store, Index::opened(&object))),
            Shape::Whole | Shape::Page => None,
        };
        Ok(Dir(Arc::new(Inner { name, count, totals, object, wide }), store.absence()))
    }

    /// The same directory for who asks through this store.
    pub fn bound(&self, store: &Store) -> Dir {
        Dir(Arc::clone(&self.0), store.absence())
    }

    /// The directory without its bytes.
    pub fn name(&self) -> DirName {
        self.0.name.clone()
    }

    /// The digest of the dir object.
    pub fn digest(&self) -> Digest {
        *self.0.name.0
    }

    /// Entries in all pages.
    pub fn count(&self) -> u32 {
        self.0.count
    }

    /// What the subtree adds up to.
    pub fn totals(&self) -> Totals {
        self.0.totals
    }

    /// Entry `index` of all pages together, in name order; loads the page if it is the first to ask.
    ///
    /// # Panics
    /// If `index` is not below [`Dir::count`].
    pub fn entry(&self, index: u32) -> Result<Entry<'_>> {
        let page = self.page_at(index);
        Ok(self.leaf(page)?.entry(index - self.page_range(page).start))
    }

    /// Binary search by name.
    pub fn find(&self, name: &[u8]) -> Result<Option<(u32, Entry<'_>)>> {
        let page = self.page_of(name);
        let leaf = self.leaf(page)?;
        Ok(leaf.search(name).ok().map(|index| (self.page_range(page).start + index, leaf.entry(index))))
    }

    /// The first index whose name is >= `name` (the count if none is).
    pub fn lower_bound(&self, name: &[u8]) -> Result<u32> {
        let page = self.page_of(name);
        let (Ok(index) | Err(index)) = self.leaf(page)?.search(name);
        Ok(self.page_range(page).start + index)
    }

    /// Pages that the entries stand in: 1 for all but wide directories.
    pub fn page_count(&self) -> u32 {
        self.0.wide.as_ref().map_or(1, |wide| wide.pages.len() as u32)
    }

    /// The digest of a page: equal digests, equal entries. For a directory of one page that of the directory.
    pub fn page_digest(&self, page: u32) -> Digest {
        match &self.0.wide {
            None => self.digest(),
            Some(_) => self.index().page(page).digest,
        }
    }

    /// The indices of a page's entries.
    pub fn page_range(&self, page: u32) -> Range<u32> {
        match &self.0.wide {
            None => 0..self.0.count,
            Some(wide) => wide.starts[page as usize]..wide.starts[page as usize + 1],
        }
    }

    /// The page that entry `index` stands in.
    pub fn page_at(&self, index: u32) -> u32 {
        assert!(index < self.0.count, "entry {index} of {}", self.0.count);
        let Some(wide) = &self.0.wide else { return 0 };
        wide.starts.partition_point(|&start| start <= index) as u32 - 1
    }

    fn page_of(&self, name: &[u8]) -> u32 {
        if self.0.wide.is_some() { self.index().page_of(name) } else { 0 }
    }

    fn leaf(&self, page: u32) -> Result<Leaf<'_>> {
        match &self.0.wide {
            None => Ok(Leaf::checked(&self.0.object, self.0.count)),
            Some(wide) => wide.leaf(self.1, self.index(), page),
        }
    }

    fn index(&self) -> Index<'_> {
        Index::checked(&self.0.object, self.page_count())
    }
}

impl Wide {
    fn open(store: &Store, index: Index<'_>) -> Wide {
        let counts = (0..index.pages()).map(|page| index.page(page).count);
        let mut starts = vec![0];
        starts.extend(counts.scan(0, |end, count| {
            *end += count;
            Some(*end)
        }));
        let pages = (0..index.pages()).map(|_| OnceLock::new()).collect();
        Wide { store: store.clone(), starts, pages }
    }

    fn leaf(&self, absence: Absence, index: Index<'_>, page: u32) -> Result<Leaf<'_>> {
        let slot = &self.pages[page as usize];
        let count = index.page(page).count;
        if let Some(object) = slot.get() {
            return Ok(Leaf::checked(object, count));
        }
        let object = self.store.with(absence).object(ObjectKind::DirPage, index.page(page).digest)?;
        check_page(&object, index, page)?;
        Ok(Leaf::checked(slot.get_or_init(|| object), count))
    }
}

/// Checks a page, and that it is the one its index speaks of.
fn check_page(object: &Object, index: Index<'_>, page: u32) -> Result<()> {
    let known = index.page(page);
    object.check_once(ObjectKind::DirPage, || check_dir_page(object))?;
    let header = Header::read(object)?;
    let leaf = Leaf::checked(object, header.count);
    if header.count != known.count || header.totals != known.totals || leaf.name(0) != known.first_name {
        return Err(malformed("a page that is not as its index says"));
    }
    let last = leaf.name(header.count - 1);
    if page + 1 < index.pages() && last >= index.page(page + 1).first_name {
        return Err(malformed("pages that overlap"));
    }
    Ok(())
}

/// Checks the bytes of an object of kind `Dir` by themselves, as [`Dir::open`] does. For fsck and for what comes from outside.
pub fn check_dir(bytes: &[u8]) -> Result<()> {
    match Header::read(bytes)?.shape {
        Shape::Index => Index::check(bytes).map(drop),
        Shape::Whole | Shape::Page => Leaf::check(bytes, Shape::Whole).map(drop),
    }
}

/// Checks the bytes of an object of kind `DirPage` by themselves.
pub fn check_dir_page(bytes: &[u8]) -> Result<()> {
    Leaf::check(bytes, Shape::Page).map(drop)
}
