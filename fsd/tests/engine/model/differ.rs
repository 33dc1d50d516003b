//! Checks a diff against two pictures, by brute force.
//!
//! From the old tree and the changes it works out where every old path went: where it stays, where a rename moved it or a
//! directory above it, or nowhere. That must fit the new tree exactly, and every path that stays must be listed as
//! modified if and only if it is.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    picture::{Item, Picture, join, same_content},
    target::Change,
};

/// Says what is wrong with `changes` as the way from `old` to `new`.
pub fn check(old: &Picture, new: &Picture, changes: &[Change]) -> Result<(), String> {
    let lists = Lists::of(changes)?;
    let moved = lists.moves(old)?;
    let mut reached: BTreeSet<&Vec<u8>> = BTreeSet::new();
    for (from, to) in &moved {
        let a = &old[from];
        let b = new.get(to).ok_or_else(|| format!("{} is gone, and not listed so", shown(from)))?;
        if !reached.insert(to) {
            return Err(format!("two old paths became {}", shown(to)));
        }
        lists.check_pair(from, a, to, b)?;
    }
    for path in new.keys() {
        if lists.added.contains(path) == reached.contains(path) {
            return Err(format!("{}: new: {}", shown(path), !reached.contains(path)));
        }
    }
    let listed = lists.added.iter().chain(&lists.modified).chain(&lists.typed);
    match listed.into_iter().find(|path| !new.contains_key(*path)) {
        Some(path) => Err(format!("{} is listed, but is not in the new tree", shown(path))),
        None => Ok(()),
    }
}

#[derive(Default)]
struct Lists {
    added: BTreeSet<Vec<u8>>,
    deleted: BTreeSet<Vec<u8>>,
    modified: BTreeSet<Vec<u8>>,
    typed: BTreeSet<Vec<u8>>,
    /// Old path to new one, with both inode numbers.
    renamed: BTreeMap<Vec<u8>, (u64, Vec<u8>, u64)>,
}

impl Lists {
    fn of(changes: &[Change]) -> Result<Lists, String> {
        let mut lists = Lists::default();
        for change in changes {
            let once = match change.clone() {
                Change::Added(path) => lists.added.insert(path),
                Change::Deleted(path) => lists.deleted.insert(path),
                Change::Modified(path) => lists.modified.insert(path),
                Change::Type(path) => lists.typed.insert(path),
                Change::Renamed(from, a, to, b) => lists.renamed.insert(from, (a, to, b)).is_none(),
            };
            if !once {
                return Err(format!("listed twice: {change:?}"));
            }
        }
        Ok(lists)
    }

    /// Where every old path went, without those that went nowhere.
    fn moves(&self, old: &Picture) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, String> {
        let mut moved: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        // In path order a directory stands before what is in it.
        for path in old.keys() {
            let to = match (self.renamed.get(path), self.deleted.contains(path)) {
                (Some(_), true) => return Err(format!("{} is renamed and deleted", shown(path))),
                (Some((_, to, _)), false) => Some(to.clone()),
                (None, true) => None,
                (None, false) if path.is_empty() => Some(Vec::new()),
                (None, false) => {
                    let at = path.iter().rposition(|b| *b == b'/');
                    let (dir, name) = at.map_or((&[][..], &path[..]), |at| (&path[..at], &path[at + 1..]));
                    let dir =
                        moved.get(dir).ok_or_else(|| format!("{} is not listed as gone", shown(path)))?;
                    Some(join(dir, name))
                }
            };
            moved.extend(to.map(|to| (path.clone(), to)));
        }
        let listed = self.renamed.keys().chain(&self.deleted);
        match listed.into_iter().find(|path| !old.contains_key(*path)) {
            Some(path) => Err(format!("{} is listed, but is not in the old tree", shown(path))),
            None => Ok(moved),
        }
    }

    fn check_pair(&self, from: &Vec<u8>, a: &Item, to: &Vec<u8>, b: &Item) -> Result<(), String> {
        if let Some((old, _, new)) = self.renamed.get(from) {
            let real = *old == a.seen.ino && *new == b.seen.ino && old == new && a.seen.kind == b.seen.kind;
            return if real {
                Ok(())
            } else {
                Err(format!("{} was not renamed to {}", shown(from), shown(to)))
            };
        }
        let typed = a.seen.kind != b.seen.kind;
        if typed != self.typed.contains(to) {
            return Err(format!("{} changed its kind: {typed}", shown(to)));
        }
        // The root has no name to be listed under.
        let modified = !typed && !from.is_empty() && !same_content(a, b);
        if modified != self.modified.contains(to) {
            return Err(format!("{} is modified: {modified}", shown(to)));
        }
        Ok(())
    }
}

fn shown(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}
