//! Collections one after the other, by a host or two. Those of many at a time are in [`gc_tests`](super::super::gc_tests).

use std::{sync::Arc, time::Duration};

use super::{Asked, Progress};
use crate::{
    Error, Result, SnapshotId, Store,
    disk::Disk,
    remote::{Remote, lease::Naming, name, sim::SimRemote, tests::fresh},
    sim::SimDisk,
    store::{
        gc_tests::{assert_tree, tree},
        tests::open,
    },
};

/// Seconds.
pub(in crate::remote) const DELAY: i64 = 100;
const LEASE: i64 = 1_000_000;

/// By name, what heads name.
pub(in crate::remote) fn asked(heads: &dyn Fn() -> Result<Vec<(String, SnapshotId)>>) -> Asked<'_> {
    Asked {
        delay: Duration::from_secs(DELAY as u64),
        lease: Duration::from_secs(LEASE as u64),
        dry_run: false,
        name: &fresh,
        heads,
        progress: &|_: Progress| {},
        is_cancelled: &|| false,
    }
}

/// A host with a store, alone.
fn alone(remote: &SimRemote) -> Store {
    on(&SimDisk::new(1), remote)
}

fn on(disk: &SimDisk, remote: &SimRemote) -> Store {
    let store = open(disk);
    let naming = Naming { host: fresh(), fresh: Box::new(fresh) };
    store.attach(Arc::new(remote.clone()), naming, 1 << 20).unwrap();
    store
}

fn publish(store: &Store, id: SnapshotId) {
    store.publish(id, &[], &fresh, &|_| {}, &|| false).unwrap();
}

#[test]
fn a_head_that_is_not_there_keeps_everything() {
    let remote = SimRemote::default();
    let store = alone(&remote);
    let (first, second) = (tree(&store, 0..5).unwrap(), tree(&store, 5..9).unwrap());
    publish(&store, first);
    store.renew_lease().unwrap();
    remote.pass(10 * DELAY);
    let before = remote.list("").unwrap();
    let heads = || Ok(vec![("ses_x".to_owned(), second)]);
    let error = store.gc_there(&asked(&heads)).unwrap_err();
    assert!(matches!(&error, Error::Doubt { reason, .. } if reason.contains("ses_x")), "{error}");
    assert_eq!(remote.list("").unwrap(), before);
    // What cannot be read is no less needed.
    let manifest = remote.list(&name::manifests(first)).unwrap().remove(0);
    let layer = remote.list(name::LAYERS).unwrap().remove(0);
    let heads = || Ok(vec![("ses_x".to_owned(), first)]);
    for damaged in [&manifest, &layer] {
        remote.flip(damaged, 0);
        let error = store.gc_there(&asked(&heads)).unwrap_err();
        assert!(matches!(&error, Error::Doubt { .. }), "{error}");
        assert_eq!(remote.list("").unwrap(), before);
        remote.flip(damaged, 0);
    }
    let lease = format!("{}{}/{}", name::LEASES, fresh(), fresh());
    remote.write(&lease, b"no lease".to_vec()).unwrap();
    assert!(matches!(store.gc_there(&asked(&heads)).unwrap_err(), Error::Doubt { .. }));
    remote.remove(&lease).unwrap();
    store.gc_there(&asked(&heads)).unwrap();
}

#[test]
fn it_is_told_why_something_is_needed() {
    let remote = SimRemote::default();
    let store = alone(&remote);
    let (first, second) = (tree(&store, 0..5).unwrap(), tree(&store, 5..9).unwrap());
    publish(&store, first);
    publish(&store, second);
    store.pin(second, fresh()).unwrap();
    store.renew_lease().unwrap();
    let heads = || Ok(vec![("ses_x".to_owned(), first)]);
    let told = |wanted: &str| store.why_there(&asked(&heads), wanted).unwrap().join("\n");
    assert!(told(&first.to_string()).contains("ses_x"), "{}", told(&first.to_string()));
    assert!(told(&second.to_string()).contains("pinned"));
    assert!(told("ses_x").contains(&first.to_string()));
    let pack = remote.list(name::PACKS).unwrap().remove(0);
    let pack = told(pack.strip_prefix(name::PACKS).unwrap());
    assert!(pack.contains("needed") && pack.contains("by snp_"), "{pack}");
    assert_eq!(told("nothing"), "");
    assert!(store.unpin(second).unwrap() && !store.unpin(second).unwrap());
    // The lease has what was pinned, until this host does not need it.
    assert!(told(&second.to_string()).contains("read by host"));
}

#[test]
fn what_is_read_there_in_place_of_damage_is_needed_there() {
    let (remote, disk) = (SimRemote::default(), SimDisk::new(1));
    let store = on(&disk, &remote);
    let id = tree(&store, 0..5).unwrap();
    publish(&store, id);
    let reader = |store: Store| {
        assert_tree(&store.fetching(), id, 0..5);
        store.gc(|| Ok(Default::default()), false, &mut |_| {}).unwrap();
        store.renew_lease().unwrap();
        let nobody = || Ok(Vec::new());
        store.why_there(&asked(&nobody), &id.to_string()).unwrap().join("\n").contains("read by host")
    };
    assert!(!reader(store), "all of it is here");
    let packs = disk.list("store/packs").unwrap();
    packs.iter().for_each(|pack| disk.flip(&format!("store/packs/{pack}"), 300, 1));
    assert!(reader(on(&disk, &remote)));
}

#[test]
fn a_lease_that_nobody_renews_counts_no_more() {
    let remote = SimRemote::default();
    let (here, there) = (alone(&remote), alone(&remote));
    let id = tree(&here, 0..5).unwrap();
    publish(&here, id);
    there.discover(id).unwrap();
    here.renew_lease().unwrap();
    let nobody = || Ok(Vec::new());
    let collect = || here.gc_there(&asked(&nobody)).unwrap();
    remote.pass(LEASE - 1);
    let report = collect();
    assert!(report.needed.objects > 0 && report.condemned.objects == 0, "{report:?}");
    remote.pass(1);
    let report = collect();
    assert!(report.gone_hosts.len() == 2 && report.condemned.objects > 0, "{report:?}");
    remote.pass(DELAY);
    let report = collect();
    assert!(report.removed.objects > 0 && report.needed.objects == 0, "{report:?}");
    assert_eq!(there.renew_lease().unwrap(), [id], "the host that comes back is told");
}

#[test]
fn a_dry_run_changes_nothing() {
    let remote = SimRemote::default();
    let store = alone(&remote);
    publish(&store, tree(&store, 0..5).unwrap());
    store.renew_lease().unwrap();
    let nobody = || Ok(Vec::new());
    for _ in 0..2 {
        remote.pass(DELAY);
        let before = remote.dated("").unwrap();
        let dry = store.gc_there(&Asked { dry_run: true, ..asked(&nobody) }).unwrap();
        assert_eq!(remote.dated("").unwrap(), before);
        let report = store.gc_there(&asked(&nobody)).unwrap();
        assert_eq!(dry, report);
        assert!(report.condemned.objects + report.removed.objects > 0, "{report:?}");
    }
}
