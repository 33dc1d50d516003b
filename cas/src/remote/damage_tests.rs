//! Bytes that rot on a host that has a remote store: in its cache, and in its own packs.

use std::time::Duration;

use super::{
    sim::SimRemote,
    tests::{cache_files, fetched, host, publish},
};
use crate::{
    Error,
    disk::{Disk, Open},
    fsck::{FsckOptions, FsckReport},
    sim::SimDisk,
    store::gc_tests::{assert_tree, tree},
};

/// What may happen to a file.
const KINDS_OF_DAMAGE: [fn(&SimDisk, &str); 4] = [
    |disk, file| {
        let len = disk.open(file, Open::Read).unwrap().len().unwrap();
        (0..len).step_by(5000).for_each(|at| disk.flip(file, at, 4));
    },
    |disk, file| disk.open(file, Open::Write).unwrap().set_len(100).unwrap(),
    |disk, file| disk.open(file, Open::Write).unwrap().set_len(0).unwrap(),
    |disk, file| disk.remove(file).unwrap(),
];

#[test]
fn damage_of_any_kind_in_the_cache_costs_a_fetch() {
    let (remote, disk, id) = fetched(0..300);
    for damage in KINDS_OF_DAMAGE {
        for file in cache_files(&disk) {
            let disk = disk.copied();
            damage(&disk, &file);
            remote.take_reads();
            let there = host(&disk, &remote);
            assert_tree(&there.fetching(), id, 0..300);
            there.settle_cache(Duration::from_secs(60));
            drop(there);
            remote.take_reads();
            let there = host(&disk, &remote);
            assert_tree(&there.fetching(), id, 0..300);
            assert_eq!(remote.take_reads().0, 0, "what came again stays: {file}");
        }
    }
}

#[test]
fn damage_in_a_pack_is_made_up_for_by_the_remote_store() {
    let (remote, disk) = (SimRemote::default(), SimDisk::new(1));
    let here = host(&disk, &remote);
    let id = tree(&here, 0..300).unwrap();
    publish(&here, id).unwrap();
    drop(here);
    let packs = disk.list("store/packs").unwrap();
    for damage in KINDS_OF_DAMAGE {
        let disk = disk.copied();
        packs.iter().for_each(|pack| damage(&disk, &format!("store/packs/{pack}")));
        let here = host(&disk, &remote);
        let checked = here.fsck(FsckOptions::default(), &[], &mut |_| {}).unwrap();
        let FsckReport { damaged_objects, elsewhere_objects, damaged_uses, .. } = checked;
        assert!(damaged_objects > 0 && elsewhere_objects == damaged_objects && !checked.is_clean());
        assert_eq!(damaged_uses, 0, "whoever reads it gets it");
        assert_tree(&here.fetching(), id, 0..300);
        assert!(remote.take_reads().0 > 0);
        here.settle_cache(Duration::from_secs(60));
        drop(here);
        let here = host(&disk, &remote);
        remote.take_reads();
        assert_tree(&here.fetching(), id, 0..300);
        assert_eq!(remote.take_reads().0, 0, "what came in its place stays");
        assert!(here.fsck(FsckOptions { repair: true }, &[], &mut |_| {}).unwrap().is_clean());
        assert!(here.fsck(FsckOptions::default(), &[], &mut |_| {}).unwrap().is_clean());
    }
}

#[test]
fn damage_to_what_nobody_else_has_is_told() {
    let (remote, disk) = (SimRemote::default(), SimDisk::new(1));
    let here = host(&disk, &remote);
    publish(&here, tree(&here, 0..10).unwrap()).unwrap();
    let private = tree(&here, 10..20).unwrap();
    drop(here);
    let packs = disk.list("store/packs").unwrap();
    packs.iter().for_each(|pack| disk.remove(&format!("store/packs/{pack}")).unwrap());
    let here = host(&disk, &remote);
    assert!(matches!(here.fetching().snapshot(private), Err(Error::Corrupt { .. })));
    let checked = here.fsck(FsckOptions::default(), &[], &mut |_| {}).unwrap();
    assert!(checked.elsewhere_objects > 0 && checked.elsewhere_objects < checked.damaged_objects);
    assert!(checked.damage[0].paths[0].starts_with(&private.to_string()), "{:?}", checked.damage[0]);
}
