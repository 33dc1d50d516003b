//! A whole tree as plain values, to compare: every path with what stands there.

use std::{collections::BTreeMap, sync::Arc};

use cas::Kind;
use fsd::session::ROOT;

use super::{
    target::Seen,
    tree::{Body, Tree},
};

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub seen: Seen,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// A file's bytes or a symlink's target.
    pub bytes: Arc<Vec<u8>>,
}

/// By path; the root's is empty.
pub type Picture = BTreeMap<Vec<u8>, Item>;

impl Tree {
    /// The tree as it stands.
    pub fn picture(&self) -> Picture {
        let mut picture = Picture::new();
        let mut queue = vec![(Vec::new(), ROOT)];
        while let Some((path, ino)) = queue.pop() {
            let node = &self.nodes[&ino];
            let bytes = match &node.body {
                Body::File(bytes) => Arc::clone(bytes),
                Body::Symlink(target) => Arc::new(target.clone()),
                Body::Dir(names) => {
                    queue.extend(names.iter().map(|(name, ino)| (join(&path, name), *ino)));
                    Arc::default()
                }
                Body::Special => Arc::default(),
            };
            let seen = Seen { ino, kind: node.kind, attrs: node.attrs };
            picture.insert(path, Item { seen, xattrs: node.xattrs.clone(), bytes });
        }
        picture
    }
}

/// A name behind a path.
pub fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

/// The first difference between what is and what should be, in words.
pub fn compare(is: &Picture, should: &Picture) -> Result<(), String> {
    let paths: std::collections::BTreeSet<&Vec<u8>> = is.keys().chain(should.keys()).collect();
    for path in paths {
        let shown = String::from_utf8_lossy(path);
        match (is.get(path), should.get(path)) {
            (Some(a), Some(b)) if a == b => {}
            (Some(a), Some(b)) if a.seen != b.seen => {
                return Err(format!("/{shown} is\n  {:?}, should be\n  {:?}", a.seen, b.seen));
            }
            (Some(a), Some(b)) if a.xattrs != b.xattrs => {
                return Err(format!("/{shown} has attributes {:?}, should have {:?}", a.xattrs, b.xattrs));
            }
            (Some(a), Some(b)) => {
                let at = a.bytes.iter().zip(b.bytes.iter()).take_while(|(a, b)| a == b).count();
                let (a, b) = (a.bytes.get(at), b.bytes.get(at));
                return Err(format!("/{shown} differs from byte {at} on: is {a:?}, should be {b:?}"));
            }
            (Some(a), None) => return Err(format!("/{shown} should not be there: {:?}", a.seen)),
            (None, b) => return Err(format!("/{shown} is missing: {:?}", b.map(|b| b.seen))),
        }
    }
    Ok(())
}

/// Whether two nodes differ as a diff sees it: times do not count.
pub fn same_content(a: &Item, b: &Item) -> bool {
    let key = |item: &Item| (item.seen.attrs.mode, item.seen.attrs.uid, item.seen.attrs.gid);
    let device = matches!(a.seen.kind, Kind::CharDevice | Kind::BlockDevice);
    key(a) == key(b)
        && a.xattrs == b.xattrs
        && a.bytes == b.bytes
        && (!device || a.seen.attrs.rdev == b.seen.attrs.rdev)
}
