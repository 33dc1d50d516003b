//! What once went wrong in the engine, each told in its first line.

use fsd::session::{Error, ROOT, Rename, SetXattr};

use crate::{
    common::{file, host::Opening, template::Template},
    model::{
        differ,
        engine::EngineTarget,
        history::{History, moment, observe},
        picture,
        target::{Against, Change, Target},
    },
};

fn start() -> EngineTarget {
    Template::get().start(Opening::first(3)).0
}

/// All names of a directory from a cookie on.
fn rest(target: &mut EngineTarget, dir: u64, cookie: u64) -> Vec<Vec<u8>> {
    target.list(0, dir, cookie, 1000, false).unwrap().into_iter().map(|(name, _, _)| name).collect()
}

/// `mv new old` in the middle of a listing showed `old` twice: once where it was, once as the name that was added last.
#[test]
fn a_name_that_is_replaced_during_a_listing_is_shown_once() {
    let mut target = start();
    let dir = target.make(0, ROOT, b"dir", fsd::session::New { kind: cas::Kind::Dir, ..file() }).unwrap().ino;
    for name in [b"a", b"b", b"c"] {
        target.make(0, dir, name, file()).unwrap();
    }
    for sealed in [false, true] {
        if sealed {
            target.seal(0, &mut |_| {}).unwrap();
        }
        let (first, _, cookie) = target.list(0, dir, 0, 1, false).unwrap().remove(0);
        target.make(0, dir, b"new", file()).unwrap();
        target.rename(0, (dir, b"new"), (dir, &first), Rename::Replace).unwrap();
        assert!(!rest(&mut target, dir, cookie).contains(&first), "sealed: {sealed}");
        assert_eq!(rest(&mut target, dir, 0).len(), 3);
    }
}

/// A listing that began while a seal was under way lost the names that came after its cut, once the seal was done.
#[test]
fn a_listing_that_begins_during_a_seal_goes_on_behind_it() {
    let mut target = start();
    let dir = target.make(0, ROOT, b"dir", fsd::session::New { kind: cas::Kind::Dir, ..file() }).unwrap().ino;
    target.make(0, dir, b"a", file()).unwrap();
    let mut cookie = 0;
    target
        .seal(0, &mut |target| {
            target.make(0, dir, b"b", file()).unwrap();
            target.make(0, dir, b"c", file()).unwrap();
            cookie = target.list(0, dir, 0, 1, false).unwrap()[0].2;
        })
        .unwrap();
    assert_eq!(rest(&mut target, dir, cookie), [b"b", b"c"]);
}

/// A seal that ended behind the discard of its session wrote an anchor, and the next start found a session without a root.
#[test]
fn a_session_that_is_discarded_during_its_seal_stays_discarded() {
    let mut target = start();
    target.fork(0).unwrap();
    target.make(0, ROOT, b"a", file()).unwrap();
    let held = target.session(0);
    let sealed = target.seal(0, &mut |target| target.discard(0).unwrap());
    assert!(sealed.is_err());
    assert!(matches!(held.write_anchor(), Err(Error::Unknown(_))));
    target.reopen();
    assert_eq!(target.engine.sessions().len(), 1);
    held.peek().walk(held.store(), &[]).expect("whoever holds it finds a root");
}

/// The kernel forgot the directory through which it had found a hard-linked file last, but not the file; writes to it under
/// its other name then failed with ESTALE.
#[test]
fn a_hard_linked_file_outlives_the_directory_it_was_found_in_last() {
    let mut target = start();
    let sub = target.lookup(0, ROOT, b"sub").unwrap().ino;
    let other = target.lookup(0, sub, b"other").unwrap().ino;
    let ino = target.lookup(0, ROOT, b"from the root").unwrap().ino;
    assert_eq!(target.lookup(0, other, b"from deep").unwrap().ino, ino);
    target.forget(0, ino, 1);
    target.forget(0, other, 1);
    target.forget(0, sub, 1);
    target.write(0, ino, 0, b"NAMES").unwrap();
    target.seal(0, &mut |_| {}).unwrap();
    let picture = target.picture(0).unwrap();
    for path in ["sub/deep/linked", "sub/other/from deep", "from the root"] {
        assert!(picture[path.as_bytes()].bytes.starts_with(b"NAMES in two"), "{path}");
    }
}

/// A child that was moved out of a directory which was moved itself was listed as renamed, and as deleted as well.
#[test]
fn a_child_that_left_a_renamed_directory_is_listed_once() {
    let mut target = start();
    let sub = target.lookup(0, ROOT, b"sub").unwrap().ino;
    let deep = target.lookup(0, sub, b"deep").unwrap().ino;
    let deeper = target.lookup(0, deep, b"deeper").unwrap().ino;
    target.rename(0, (deep, b"deeper"), (ROOT, b"out"), Rename::Replace).unwrap();
    let new = target.make(0, ROOT, b"new", fsd::session::New { kind: cas::Kind::Dir, ..file() }).unwrap().ino;
    target.rename(0, (sub, b"deep"), (new, b"moved"), Rename::Replace).unwrap();
    let renamed = |from: &str, to: &str, ino| Change::Renamed(from.into(), ino, to.into(), ino);
    let expected = [
        Change::Added("new".into()),
        renamed("sub/deep", "new/moved", deep),
        renamed("sub/deep/deeper", "out", deeper),
    ];
    assert_eq!(target.diff(0, Against::Origin).unwrap(), expected);
}

/// A directory was renamed that had not changed; one of its files, which has a second name elsewhere, had been paired with
/// that one, and its own new name was listed nowhere.
#[test]
fn a_hard_link_in_a_renamed_directory_is_listed() {
    let mut target = start();
    let wide = target.lookup(0, ROOT, b"wide").unwrap().ino;
    let inner = target.lookup(0, wide, b"inner").unwrap().ino;
    let linked = target.lookup(0, wide, b"f000").unwrap().ino;
    target.link(0, linked, inner, b"a").unwrap();
    target.seal(0, &mut |_| {}).unwrap();
    target.fork(0).unwrap();
    target.rename(1, (ROOT, b"wide"), (ROOT, b"empty dir"), Rename::Replace).unwrap();
    let (old, new) = (target.picture(1).unwrap(), target.picture(0).unwrap());
    let changes = target.diff(0, Against::Session(1)).unwrap();
    differ::check(&old, &new, &changes).unwrap();
}

/// More extended attributes were accepted than the store holds in one object, or such as it refuses, and the session could
/// never be sealed again.
#[test]
fn as_many_attributes_as_are_accepted_can_be_sealed() {
    let mut target = start();
    let ino = target.lookup(0, ROOT, b"small").unwrap().ino;
    let mut set = 0;
    let refused = loop {
        let name = format!("user.{set:04}");
        match target.session(0).set_xattr(ino, name.as_bytes(), &[set as u8; 2000], SetXattr::Any) {
            Ok(()) => set += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::TooLarge(_)) && set > 200, "{set} attributes: {refused}");
    target.seal(0, &mut |_| {}).unwrap();
    for byte in [b"user.\0".as_slice(), b""] {
        assert!(target.session(0).set_xattr(ino, byte, b"", SetXattr::Any).is_err());
    }
}

/// A file lost the name under which it was first changed, kept another one, and was written while a seal was under way: the
/// next seal looked for it in the wrong directory, and stored it without what was written.
#[test]
fn a_file_whose_first_name_is_gone_is_sealed_under_its_other() {
    let mut target = start();
    let sub = target.lookup(0, ROOT, b"sub").unwrap().ino;
    let other = target.lookup(0, sub, b"other").unwrap().ino;
    let empty = target.lookup(0, ROOT, b"empty dir").unwrap().ino;
    for (old, old_name, dir) in [(ROOT, &b"small"[..], empty), (other, b"linked", other)] {
        let ino = target.lookup(0, old, old_name).unwrap().ino;
        if dir == empty {
            target.link(0, ino, dir, b"new name").unwrap();
        }
        target.unlink(0, old, old_name).unwrap();
        target.seal(0, &mut |target| target.write(0, ino, 0, b"written during the seal").unwrap()).unwrap();
        let live = target.picture(0).unwrap();
        let sealed = target.seal(0, &mut |_| {}).unwrap();
        picture::compare(&sealed, &live).unwrap();
        assert!(
            sealed.values().any(|item| item.seen.ino == ino && item.bytes.starts_with(b"written during"))
        );
    }
}

/// A directory was removed that once had a name for a file which lives on elsewhere; a seal took it for untouched, and
/// sometimes remembered it as the place of that file, which nobody could write to any more.
#[test]
fn a_removed_directory_is_no_place_for_a_hard_link() {
    // What was remembered hung on the order of a hash map.
    for _ in 0..12 {
        let mut target = start();
        let ino = target.lookup(0, ROOT, b"from the root").unwrap().ino;
        let sub = target.lookup(0, ROOT, b"sub").unwrap().ino;
        let other = target.lookup(0, sub, b"other").unwrap().ino;
        let deep = target.lookup(0, sub, b"deep").unwrap().ino;
        let deeper = target.lookup(0, deep, b"deeper").unwrap().ino;
        target.unlink(0, other, b"from deep").unwrap();
        target.unlink(0, deep, b"linked").unwrap();
        target.unlink(0, deeper, b"bottom").unwrap();
        target.forget(0, deeper, 1);
        target.rmdir(0, deep, b"deeper").unwrap();
        target.forget(0, deep, 1);
        target.rmdir(0, sub, b"deep").unwrap();
        target.seal(0, &mut |_| {}).unwrap();
        target.write(0, ino, 0, b"written").unwrap();
    }
}

/// A directory was moved out of another one, which was removed then; a seal did not look into the moved one, because it
/// looked for it where the base has it, and stored a hard-linked file there without what had been written.
#[test]
fn a_hard_link_below_what_was_moved_out_of_a_removed_directory_is_sealed() {
    let mut target = start();
    let dir = || fsd::session::New { kind: cas::Kind::Dir, ..file() };
    let a = target.make(0, ROOT, b"a", dir()).unwrap().ino;
    let b = target.make(0, a, b"b", dir()).unwrap().ino;
    let c = target.make(0, b, b"c", dir()).unwrap().ino;
    let ino = target.lookup(0, ROOT, b"from the root").unwrap().ino;
    target.link(0, ino, c, b"fourth name").unwrap();
    target.seal(0, &mut |_| {}).unwrap();
    target.rename(0, (a, b"b"), (ROOT, b"b"), Rename::Replace).unwrap();
    target.forget(0, a, 1);
    target.rmdir(0, ROOT, b"a").unwrap();
    target.write(0, ino, 0, b"NAMES").unwrap();
    let live = target.picture(0).unwrap();
    let sealed = target.seal(0, &mut |_| {}).unwrap();
    picture::compare(&sealed, &live).unwrap();
    assert!(sealed[&b"b/c/fourth name"[..]].bytes.starts_with(b"NAMES in two"));
}

/// After a kill, a start took for durable what only the page cache of the last run held; a sync then did nothing, and
/// power loss took what it had promised.
#[test]
fn a_sync_after_a_kill_covers_what_the_last_run_wrote() {
    let (mut target, mut world) = Template::get().start(Opening::first(3));
    let tree = &mut world.live_mut(0).tree;
    tree.now = target.set_time();
    let ino = tree.make(ROOT, b"file", file()).unwrap().ino;
    tree.write(ino, 0, &[5; 3000]).unwrap();
    target.make(0, ROOT, b"file", file()).unwrap();
    target.write(0, ino, 0, &[5; 3000]).unwrap();
    target.reopen();
    target.sync().unwrap();
    let left = target.disk.crash(&mut || 2);
    let again = EngineTarget::open(left, target.opening.rebooted(), target.ids.clone()).unwrap();
    History::new(moment(&world)).explain(&observe(&again).unwrap()).unwrap();
}

/// A disk that did not answer once at a start had a segment taken for lost: it was left out of the sync, and the next power
/// loss took what had been synced.
#[test]
fn a_segment_that_cannot_be_looked_at_is_not_taken_for_lost() {
    let mut target = start();
    let ino = target.make(0, ROOT, b"file", file()).unwrap().ino;
    target.write(0, ino, 0, &[5; 3000]).unwrap();
    let (mut refused, mut call) = (0, 1);
    loop {
        let disk = target.disk.kill();
        disk.fail_read_after(call);
        let opened = EngineTarget::open(disk.clone(), target.opening.clone(), target.ids.clone());
        let over = disk.is_armed();
        disk.clear_faults();
        refused += opened.is_err() as u32;
        if let Ok(mut opened) = opened {
            opened.sync().unwrap();
            let left = disk.crash(&mut || 2);
            let mut again = EngineTarget::open(left, opened.opening.rebooted(), opened.ids.clone()).unwrap();
            assert_eq!(again.picture(0).unwrap()[&b"file"[..]].bytes.len(), 3000, "call {call}");
        }
        call += 1;
        if over {
            break;
        }
    }
    assert!(refused > 5, "{refused} of {call} starts failed");
}

/// After power loss a start removed what did not count of the log before it had its own file. If it was cut there, what had
/// told that all before was durable was gone, and the start after it dropped what had been synced.
#[test]
fn a_start_that_is_cut_anywhere_loses_nothing_synced() {
    let mut target = start();
    let ino = target.make(0, ROOT, b"file", file()).unwrap().ino;
    target.write(0, ino, 0, &[5; 3000]).unwrap();
    target.sync().unwrap();
    // The file of the log that this start makes says that all before it is durable, and holds no record that counts.
    target.reopen();
    target.make(0, ROOT, b"not synced", file()).unwrap();
    let left = target.disk.crash(&mut || 2);
    for call in 0.. {
        let disk = left.kill();
        disk.crash_after(call);
        let opened = EngineTarget::open(disk.clone(), target.opening.rebooted(), target.ids.clone());
        for again in [disk.kill(), disk.crash(&mut || 0), disk.crash(&mut || 2)] {
            let opening = target.opening.rebooted().rebooted();
            let mut again = EngineTarget::open(again, opening, target.ids.clone()).unwrap();
            assert_eq!(again.picture(0).unwrap()[&b"file"[..]].bytes.len(), 3000, "cut behind {call} calls");
        }
        if opened.is_ok() {
            break;
        }
    }
}

/// The anchor of a seal was written, and the disk said that it was not: the session stayed on its old base, gc took the
/// snapshot away, and after a kill the replay found the anchor.
#[test]
fn what_a_failed_append_leaves_is_not_found_behind_a_gc() {
    let (start, _) = Template::get().start(Opening::first(3));
    let mut failed = 0;
    for call in 1.. {
        let mut target =
            EngineTarget::open(start.disk.kill(), start.opening.clone(), start.ids.clone()).unwrap();
        let ino = target.lookup(0, ROOT, b"small").unwrap().ino;
        target.write(0, ino, 0, b"changed").unwrap();
        target.sync().unwrap();
        let before = target.picture(0).unwrap();
        target.disk.fail_with(call, cas::sim::Failure::Late);
        let sealed = target.seal(0, &mut |_| {});
        let over = target.disk.is_armed();
        if sealed.is_err() && target.gc().is_ok() {
            failed += 1;
            target.reopen();
            assert!(target.picture(0).unwrap() == before, "call {call}");
        }
        if over {
            break;
        }
    }
    assert!(failed > 2, "{failed} seals failed");
}

/// A hard-linked file was held open by a name that was removed, and a seal left it with one other name in a directory that
/// the kernel had never asked for; writes to it failed with ESTALE.
#[test]
fn a_held_file_whose_last_name_nobody_looked_up_can_be_written() {
    let mut target = start();
    let sub = target.lookup(0, ROOT, b"sub").unwrap().ino;
    let other = target.lookup(0, sub, b"other").unwrap().ino;
    target.unlink(0, other, b"from deep").unwrap();
    target.forget(0, other, 1);
    target.forget(0, sub, 1);
    let ino = target.lookup(0, ROOT, b"from the root").unwrap().ino;
    target.unlink(0, ROOT, b"from the root").unwrap();
    target.seal(0, &mut |_| {}).unwrap();
    target.write(0, ino, 0, b"NAMES").unwrap();
    let live = target.picture(0).unwrap();
    assert!(live[&b"sub/deep/linked"[..]].bytes.starts_with(b"NAMES in two"));
    picture::compare(&target.seal(0, &mut |_| {}).unwrap(), &live).unwrap();
}

/// A change so deep in an untouched tree that the directories above it did not fit into one record could not be made.
#[test]
fn a_change_thirty_thousand_directories_deep_is_recorded() {
    let mut target = start();
    let mut dir = ROOT;
    for _ in 0..30_000 {
        dir = target.make(0, dir, b"d", fsd::session::New { kind: cas::Kind::Dir, ..file() }).unwrap().ino;
    }
    target.session(0).write_anchor().unwrap();
    target.engine.seal(&target.session(0), false, &mut |_| {}).unwrap();
    assert!(!target.session(0).has_changes());
    target.make(0, dir, b"at the bottom", file()).unwrap();
    target.reopen();
    let mut at = ROOT;
    while let Ok(found) = target.lookup(0, at, b"d") {
        at = found.ino;
    }
    target.lookup(0, at, b"at the bottom").unwrap();
}

/// `sed -i` left files with the mode 0600 of its temporary one: it sets the old file's mode as an access list, which was
/// stored and changed no mode. And a chmod did not change the list.
#[test]
fn an_access_list_and_the_permission_bits_are_one_thing() {
    const LIST: &[u8] = b"system.posix_acl_access";
    let entry = |tag: u16, bits: u16, id: u32| {
        [&tag.to_le_bytes()[..], &bits.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let list = |entries: &[Vec<u8>]| [&2u32.to_le_bytes()[..], &entries.concat()].concat();
    let none = u32::MAX;
    let plain = list(&[entry(1, 6, none), entry(4, 4, none), entry(32, 4, none)]);
    let named = |mask| {
        list(&[
            entry(1, 6, none),
            entry(2, 7, 12),
            entry(4, 4, none),
            entry(16, mask, none),
            entry(32, 0, none),
        ])
    };
    let mut target = start();
    let ino = target.make(0, ROOT, b"a", fsd::session::New { mode: 0o4600, ..file() }).unwrap().ino;
    let session = target.session(0);
    let mode = || session.stat(ino).unwrap().attrs.mode;

    session.set_xattr(ino, LIST, &plain, SetXattr::Any).unwrap();
    assert_eq!((mode(), session.xattrs(ino).unwrap().len()), (0o4644, 0), "the bits say all of it");
    session.set_xattr(ino, LIST, &named(6), SetXattr::Any).unwrap();
    assert_eq!((mode(), &session.xattrs(ino).unwrap()[LIST]), (0o4660, &named(6)));
    let chmod = fsd::session::SetAttrs { mode: Some(0o610), ..Default::default() };
    assert_eq!(session.set_attrs(ino, chmod).unwrap().attrs.mode, 0o610);
    assert_eq!(session.xattrs(ino).unwrap()[LIST], named(1));
    assert!(matches!(session.set_xattr(ino, LIST, b"no list", SetXattr::Any), Err(Error::Invalid(_))));
    target.reopen();
    let session = target.session(0);
    assert_eq!(session.xattrs(ino).unwrap()[LIST], named(1));
    session.remove_xattr(ino, LIST).unwrap();
    session.remove_xattr(ino, LIST).expect("every inode has a list, if only in its bits");
    assert_eq!(session.stat(ino).unwrap().attrs.mode, 0o610);
}

/// The kernel knows an inode by its place in a directory that a seal wrote anew; gc removed the old object, and the inode,
/// which nobody had touched, could not be found any more.
#[test]
fn what_the_kernel_knows_is_found_after_a_seal_and_a_gc() {
    let mut target = start();
    let sub = target.lookup(0, ROOT, b"sub").unwrap().ino;
    let wide = target.lookup(0, ROOT, b"wide").unwrap().ino;
    target.make(0, ROOT, b"first", file()).unwrap();
    target.make(0, wide, b"first", file()).unwrap();
    target.seal(0, &mut |_| {}).unwrap();
    // In the present base, which no snapshot keeps.
    let known: Vec<u64> =
        [b"f007", b"f300"].iter().map(|name| target.lookup(0, wide, *name).unwrap().ino).collect();
    target.make(0, wide, b"second", file()).unwrap();
    target.seal(0, &mut |_| {}).unwrap();
    target.gc().unwrap();
    for ino in known.into_iter().chain([sub, wide]) {
        assert_eq!(target.stat(0, ino).unwrap().ino, ino);
    }
}
