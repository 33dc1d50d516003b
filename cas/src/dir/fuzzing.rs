//! What must hold of every dir object that a reader accepts. For the fuzz targets.

use super::{
    DirEntry, OwnedNode, Totals,
    build::encode_leaf,
    check_page,
    header::{Header, Shape},
    index::{self, Index},
    leaf::Leaf,
};
use crate::{Entry, Kind, Node, Object};

/// A dir object, or a page of one: everything in it can be read and found, and written again it is the same bytes.
pub fn dir(bytes: &[u8]) {
    let Ok(header) = Header::read(bytes) else { return };
    match header.shape {
        Shape::Index => {
            if let Ok((index, _)) = Index::check(bytes) {
                whole_index(bytes, index);
            }
        }
        shape => {
            if let Ok((leaf, header)) = Leaf::check(bytes, shape) {
                whole_leaf(bytes, leaf, &header);
            }
        }
    }
}

/// A page as a wide directory loads it: what passes begins and ends where its index says.
pub fn page_of_index(index: &[u8], page: &[u8]) {
    let Ok((index, _)) = Index::check(index) else { return };
    let page = &Object::new(page.into());
    for number in 0..index.pages() {
        if check_page(page, index, number).is_ok() {
            let leaf = Leaf::checked(page, index.page(number).count);
            assert_eq!(leaf.name(0), index.page(number).first_name);
            assert_eq!(index.page_of(leaf.name(index.page(number).count - 1)), number);
        }
    }
}

fn whole_index(bytes: &[u8], index: Index<'_>) {
    let pages: Vec<_> = (0..index.pages()).map(|page| index.page(page)).collect();
    for (number, page) in pages.iter().enumerate() {
        assert_eq!(index.page_of(page.first_name), number as u32);
    }
    assert!(index.page_of(b"") == 0 && index.page_of(&[0xff; 256]) + 1 == index.pages());
    assert_eq!(index::encode(&pages).expect("it was an index before"), bytes, "an index has one spelling");
}

fn whole_leaf(bytes: &[u8], leaf: Leaf<'_>, header: &Header) {
    let mut entries = Vec::new();
    for at in 0..header.count {
        let entry = leaf.entry(at);
        assert_eq!(leaf.search(entry.name), Ok(at), "every name is found");
        entries.push(owned(&entry));
    }
    assert!(leaf.search(b"") == Err(0) && leaf.search(&[0xff; 256]) == Err(header.count));
    attribute_the_rest(&mut entries, &header.totals);
    let again = encode_leaf(&entries, header.shape).expect("it was a page before");
    assert_eq!(again, bytes, "a page has one spelling");
}

fn owned(entry: &Entry<'_>) -> DirEntry {
    let node = match entry.node {
        Node::File(content) => OwnedNode::File(content),
        Node::Dir(digest) => OwnedNode::Dir(digest),
        Node::Symlink(target) => OwnedNode::Symlink(target.to_vec()),
        Node::Fifo => OwnedNode::Fifo,
        Node::Socket => OwnedNode::Socket,
        Node::CharDevice => OwnedNode::CharDevice,
        Node::BlockDevice => OwnedNode::BlockDevice,
    };
    let (name, totals) = (entry.name.to_vec(), Totals::default());
    DirEntry { name, ino: entry.ino, attrs: entry.attrs, node, xattrs: entry.xattrs, totals }
}

/// What subdirectories add is not in the page; any division of it among them gives the same page.
fn attribute_the_rest(entries: &mut [DirEntry], totals: &Totals) {
    let own = entries.iter().fold(Totals::default(), |sum, entry| sum.plus(&Totals::of_entry(entry)));
    if let Some(dir) = entries.iter_mut().find(|entry| entry.node.kind() == Kind::Dir) {
        dir.totals = Totals {
            files: totals.files - own.files,
            bytes: totals.bytes - own.bytes,
            links: totals.links - own.links,
            ino_max: totals.ino_max,
        };
    }
}
