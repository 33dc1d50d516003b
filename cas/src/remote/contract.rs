//! What every implementation of [`Remote`] is held to.

#![expect(clippy::unwrap_used, reason = "a test, for whoever implements a remote store")]

use std::ops::ControlFlow;

use super::{Failure, Remote};

/// What every remote store does.
///
/// # Panics
/// If it does not.
pub fn check(remote: &dyn Remote) {
    assert!(matches!(remote.read("a/x", 0..1), Err(Failure::NotFound(_))));
    assert!(matches!(remote.read_whole("a/x", 10), Err(Failure::NotFound(_))));
    remote.write("a/x", b"hello".to_vec()).unwrap();
    assert_eq!(remote.read("a/x", 1..4).unwrap(), b"ell");
    assert_eq!(remote.read_whole("a/x", 5).unwrap(), b"hello");
    assert!(matches!(remote.read_whole("a/x", 4), Err(Failure::Failed { .. })));
    assert!(matches!(remote.read("a/x", 3..6), Err(Failure::Failed { .. })));
    assert!(!remote.create("a/x", b"other".to_vec()).unwrap());
    assert_eq!(remote.read_whole("a/x", 9).unwrap(), b"hello");
    assert!(remote.create("a/y", b"new".to_vec()).unwrap());
    remote.write("a/x", b"replaced".to_vec()).unwrap();
    assert_eq!(remote.read_whole("a/x", 9).unwrap(), b"replaced");
    remote.write("b/x", Vec::new()).unwrap();
    remote.write("a/b/z", b"z".to_vec()).unwrap();
    assert_eq!(remote.list("a/").unwrap(), ["a/b/z", "a/x", "a/y"]);
    let dated = remote.dated("a/").unwrap();
    let z = dated.iter().find(|dated| dated.name == "a/b/z").unwrap();
    assert_eq!((dated.len(), z.bytes), (3, 1));
    remote.write("a/b/z", b"zz".to_vec()).unwrap();
    let again = remote.dated("a/b/").unwrap().remove(0);
    assert!(again.written_secs >= z.written_secs && again.bytes == 2, "{again:?}, {z:?} before");
    assert!(remote.list("c/").unwrap().is_empty());
    assert_eq!(remote.first("a/").unwrap().as_deref(), Some("a/b/z"));
    assert_eq!(remote.first("c/").unwrap(), None);
    for (after, should) in
        [("a/", &["a/b/z", "a/x", "a/y"][..]), ("a/b0", &["a/x", "a/y"]), ("a/x", &["a/y"]), ("a/y", &[])]
    {
        assert_eq!(scanned(remote, after, 9), should, "behind {after}");
        assert_eq!(scanned(remote, after, 1).len(), should.len().min(1));
    }
    remote.remove("a/x").unwrap();
    remote.remove("a/x").unwrap();
    assert_eq!(remote.list("a/").unwrap(), ["a/b/z", "a/y"]);
    assert!(matches!(remote.read("a/x", 0..1), Err(Failure::NotFound(_))));
    let wins: usize = std::thread::scope(|scope| {
        let create = |nth: u8| scope.spawn(move || usize::from(remote.create("race", vec![nth]).unwrap()));
        let threads: Vec<_> = (0..8).map(create).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(wins, 1);
}

/// At most so many of the names in `a/` behind one, sorted; in their order, if it says so.
fn scanned(remote: &dyn Remote, after: &str, max: usize) -> Vec<String> {
    let mut names = Vec::new();
    let mut show = |name: &str| {
        names.push(name.to_owned());
        if names.len() < max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    remote.walk("a/", after, &mut show).unwrap();
    assert!(!remote.is_sorted() || names.is_sorted(), "{names:?}");
    names.sort();
    names
}
