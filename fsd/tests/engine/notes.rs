//! What is attached to sessions: labels, and when they go of their own accord. The service in this process, on a clock of the test's.

use std::sync::Arc;

use cas::remote::sim::SimRemote;
use fsd::session::Overdue;
use proto::v1::{unmount_request::Target, *};
use tonic::{Code, Status};

use crate::{common::ambient::ManualClock, daemon::Daemon};

const SECOND_NS: u64 = 1_000_000_000;

/// A daemon whose time a test lets pass.
struct Timed {
    daemon: Daemon,
    clock: Arc<ManualClock>,
    overdue: Overdue,
}

impl Timed {
    fn start(remote: Option<&SimRemote>) -> Timed {
        let clock = Arc::new(ManualClock::new(1));
        let daemon = Daemon::start_at(Arc::clone(&clock) as Arc<_>, remote);
        Timed { daemon, clock, overdue: Overdue::default() }
    }

    /// So many seconds go by, with a look in each, as the daemon has it.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.clock.advance(SECOND_NS);
            self.daemon.service().discard_expired(&mut self.overdue);
        }
    }

    fn create(&self, name: &str, notes: Notes) -> Result<SessionInfo, Status> {
        let request = CreateRequest { name: name.into(), notes: Some(notes), ..Default::default() };
        Ok(self.daemon.call(|mut c| async move { c.create(request).await })?.session.unwrap())
    }

    fn fork(&self, session: &str, notes: Option<Notes>) -> SessionInfo {
        let request = ForkRequest { session: session.into(), count: 1, notes, ..Default::default() };
        self.daemon.call(|mut c| async move { c.fork(request).await }).unwrap().sessions.remove(0)
    }

    fn expire(&self, session: &str, after_s: u64) -> Result<SessionInfo, Status> {
        let request = ExpireRequest { session: session.into(), after_s };
        Ok(self.daemon.call(|mut c| async move { c.expire(request).await })?.session.unwrap())
    }

    fn label(&self, session: &str, set: &[(&str, &str)], remove: &[&str]) -> Result<SessionInfo, Status> {
        let remove = remove.iter().map(|key| (*key).to_owned()).collect();
        let request = LabelRequest { session: session.into(), set: labels(set), remove };
        Ok(self.daemon.call(|mut c| async move { c.label(request).await })?.session.unwrap())
    }

    /// The names of the sessions that have these labels.
    fn named(&self, filters: &[(&str, Option<&str>)]) -> Vec<String> {
        let filter = |(key, value): &(&str, Option<&str>)| LabelFilter {
            key: (*key).to_owned(),
            value: value.map(str::to_owned),
        };
        let items = self.daemon.list_with(filters.iter().map(filter).collect()).unwrap();
        let name = |item: ListItem| match item.item {
            Some(list_item::Item::Session(session)) => session.name,
            other => panic!("{other:?} has no labels"),
        };
        items.into_iter().map(name).collect()
    }
}

fn labels(set: &[(&str, &str)]) -> Vec<Label> {
    set.iter().map(|(key, value)| Label { key: (*key).into(), value: (*value).into() }).collect()
}

fn expiring(expires_after_s: u64) -> Notes {
    Notes { expires_after_s, labels: Vec::new() }
}

#[test]
fn a_session_goes_when_its_time_is_up() {
    let mut timed = Timed::start(None);
    let session = timed.create("short", expiring(600)).unwrap();
    assert_eq!((session.expires_in_s, session.expires_ns / 1_000_000_000), (600, 1_800_000_600));
    // Its own, and not its parent's.
    let fork = timed.fork("short", None);
    assert_eq!((fork.expires_ns, fork.expires_in_s), (0, 0));
    let short = timed.fork(&fork.id, Some(expiring(60)));
    timed.pass(599);
    assert!(timed.daemon.show(&short.id).is_err());
    let info = timed.daemon.show("short").unwrap();
    assert_eq!((info.expires_ns, info.expires_in_s), (session.expires_ns, 1));
    // Sure after a minute.
    timed.pass(60);
    assert_eq!(timed.daemon.show("short").unwrap().expires_in_s, 0);
    timed.pass(3);
    assert_eq!(timed.daemon.show("short").unwrap_err().code(), Code::NotFound);
    assert_eq!(timed.daemon.show(&fork.id).unwrap().parent, session.id, "it outlives it");
    // The name is free again.
    timed.create("short", expiring(0)).unwrap();
    timed.pass(100);
    assert_eq!(timed.daemon.list().unwrap().len(), 2);
}

#[test]
fn its_time_can_be_changed_until_it_is_gone() {
    let mut timed = Timed::start(None);
    timed.create("s", expiring(60)).unwrap();
    timed.pass(119);
    assert_eq!(timed.expire("s", 0).unwrap().expires_ns, 0);
    timed.pass(1000);
    assert_eq!(timed.expire("s", 3600).unwrap().expires_in_s, 3600);
    timed.pass(3600);
    timed.expire("s", 60).unwrap();
    timed.pass(119);
    timed.daemon.show("s").unwrap();
    timed.pass(3);
    assert_eq!(timed.expire("s", 60).unwrap_err().code(), Code::NotFound);
    for seconds in [1, 59, 316_224_001, u64::MAX] {
        let refused = timed.create("", expiring(seconds)).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("1 minute at least and 10 years at most"), "{refused:?}");
    }
    assert!(timed.daemon.list().unwrap().is_empty());
}

#[test]
fn a_clock_that_jumps_for_less_than_a_minute_takes_no_session() {
    let mut timed = Timed::start(None);
    timed.create("s", expiring(86_400)).unwrap();
    for _ in 0..5 {
        timed.clock.set_back(-100_000);
        timed.pass(58);
        timed.clock.set_back(100_000);
        timed.pass(1);
    }
    timed.daemon.show("s").unwrap();
    // One that is set back is believed as well: it lives longer.
    timed.clock.set_back(7 * 86_400);
    assert_eq!(timed.expire("s", 60).unwrap().expires_in_s, 60);
    timed.clock.set_back(86_400);
    timed.pass(1000);
    timed.clock.set_back(-86_400);
    timed.pass(59);
    timed.daemon.show("s").unwrap();
    timed.pass(5);
    assert!(timed.daemon.show("s").is_err());
}

#[test]
fn a_mounted_session_goes_once_it_is_not() {
    let mut timed = Timed::start(None);
    let dir = tempfile::tempdir().unwrap();
    timed.create("s", expiring(60)).unwrap();
    let path = dir.path().as_os_str().as_encoded_bytes().to_vec();
    let request = MountRequest { session: "s".into(), dir: path.clone(), ..Default::default() };
    timed.daemon.call(|mut c| async move { c.mount(request).await }).unwrap();
    timed.pass(300);
    std::fs::write(dir.path().join("still"), "here").unwrap();
    assert_eq!(timed.daemon.show("s").unwrap().expires_in_s, 0);
    let request = UnmountRequest { target: Some(Target::Dir(path)) };
    timed.daemon.call(|mut c| async move { c.unmount(request).await }).unwrap();
    timed.pass(1);
    assert!(timed.daemon.show("s").is_err());
}

#[test]
fn a_session_that_travels_ends_on_all_hosts_when_its_time_is_up() {
    let remote = SimRemote::default();
    let (mut here, there) = (Timed::start(Some(&remote)), Timed::start(Some(&remote)));
    let session = here.create("s", expiring(60)).unwrap();
    here.daemon.publish("s").unwrap();
    assert!(there.daemon.show(&session.id).is_ok());
    here.pass(125);
    assert!(here.daemon.engine().sessions().is_empty());
    here.daemon.fleet().tick();
    assert_eq!(there.daemon.show(&session.id).unwrap_err().code(), Code::NotFound);
}

#[test]
fn labels_find_sessions() {
    let timed = Timed::start(None);
    let job = |n: &str| Notes { expires_after_s: 0, labels: labels(&[("job", n), ("team/a", "")]) };
    let one = timed.create("one", job("1")).unwrap();
    assert_eq!(one.labels, labels(&[("job", "1"), ("team/a", "")]));
    timed.create("two", job("2")).unwrap();
    timed.create("none", expiring(0)).unwrap();
    assert!(timed.fork("one", None).labels.is_empty(), "a fork has its own");
    let fork = timed.fork("one", Some(job("3")));
    assert_eq!(timed.daemon.show(&fork.id).unwrap().labels, labels(&[("job", "3"), ("team/a", "")]));
    assert_eq!(timed.named(&[("job", None)]), ["one", "two", ""]);
    assert_eq!(timed.named(&[("job", Some("2"))]), ["two"]);
    assert_eq!(timed.named(&[("job", None), ("team/a", Some("")), ("job", Some("1"))]), ["one"]);
    assert!(timed.named(&[("job", Some(""))]).is_empty());

    let changed =
        timed.label("one", &[("job", "4"), ("x", "gr\u{fc}n")], &["team/a", "nobody-has-it"]).unwrap();
    assert_eq!(changed.labels, labels(&[("job", "4"), ("x", "gr\u{fc}n")]));
    assert_eq!(timed.named(&[("x", None)]), ["one"]);
}

#[test]
fn labels_that_cannot_be_change_nothing() {
    let timed = Timed::start(None);
    timed.create("s", Notes { expires_after_s: 0, labels: labels(&[("a", "1")]) }).unwrap();
    let refused = |answer: Result<SessionInfo, Status>, words: &str| {
        let status = answer.unwrap_err();
        assert!(status.message().contains(words), "{status:?}");
        status.code()
    };
    assert_eq!(refused(timed.label("s", &[("b", "1"), ("B", "1")], &["a"]), "a-z"), Code::InvalidArgument);
    assert_eq!(refused(timed.label("s", &[("b", "\n")], &["a"]), "no control"), Code::InvalidArgument);
    assert_eq!(refused(timed.label("s", &[("b", "1")], &["b"]), "there twice"), Code::InvalidArgument);
    assert_eq!(refused(timed.label("nobody", &[("b", "1")], &[]), "nobody"), Code::NotFound);
    let many: Vec<String> = (0..16).map(|n| format!("k{n}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|key| (key.as_str(), "v")).collect();
    let notes = |set: &[(&str, &str)]| Notes { expires_after_s: 0, labels: labels(set) };
    assert_eq!(refused(timed.label("s", &many, &[]), "limit of 16 labels"), Code::ResourceExhausted);
    assert_eq!(timed.daemon.show("s").unwrap().labels, labels(&[("a", "1")]));
    timed.label("s", &many, &["a"]).unwrap();
    let one_more = [&many[..], &[("one-more", "")]].concat();
    assert_eq!(refused(timed.create("t", notes(&one_more)), "limit of 16 labels"), Code::ResourceExhausted);
    assert_eq!(
        refused(timed.create("t", notes(&[("a", ""), ("a", "")])), "there twice"),
        Code::InvalidArgument
    );
    assert_eq!(timed.daemon.list().unwrap().len(), 1);
}
