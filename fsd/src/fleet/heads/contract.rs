//! What every place of heads is held to. Public for the tests of those that need a server.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    thread,
    time::Duration,
};

use cas::{Digest, SnapshotId, Time};
use parking_lot::Mutex;

use super::{Appended, Head, HeadError, HeadStore, HostId};
use crate::session::SessionId;

/// Clients at a time, and records that each tries to append.
const CLIENTS: u8 = 6;
const RECORDS: u64 = 30;
/// Sessions whose heads are read by the page.
const SESSIONS: u8 = 15;
/// Tries of one record: an answer that is lost so often is never to be had.
const TRIES: u32 = 1000;
/// So many calls may be lost one after the other where each may.
const CALLS_LOST: u32 = 30;
const PAUSE: Duration = Duration::from_millis(20);

/// A record of a session.
pub fn head(session: u8, seq: u64, nonce: u64) -> Head {
    let mut bits = [0; 16];
    bits[..8].copy_from_slice(&nonce.to_le_bytes());
    Head {
        session: SessionId([session; 10]),
        seq,
        epoch: 1,
        holder: Some(HostId([1; 16])),
        root: SnapshotId(Digest([nonce as u8; 32])),
        origin: SnapshotId(Digest([9; 32])),
        parent: None,
        name: None,
        created: Time::default(),
        ended: false,
        nonce: bits,
    }
}

/// Asks until there is an answer, as every client has to.
#[derive(Debug)]
struct Patient<'a>(&'a dyn HeadStore);

impl Patient<'_> {
    fn again<T>(&self, ask: impl Fn(&dyn HeadStore) -> Result<T, HeadError>) -> T {
        for tries in 0..=TRIES {
            match ask(self.0) {
                Ok(answer) => return answer,
                // A server is being started, not a call lost.
                Err(HeadError::Unknown(_)) if tries < CALLS_LOST => {}
                Err(HeadError::Unknown(_)) if tries < TRIES => thread::sleep(PAUSE),
                Err(error) => panic!("{error}"),
            }
        }
        unreachable!("the last try ends it")
    }

    fn newest(&self, session: SessionId) -> Option<Head> {
        self.again(|heads| heads.newest(session))
    }

    fn append(&self, head: &Head) -> Appended {
        self.again(|heads| heads.append(head))
    }
}

/// One client.
///
/// # Panics
/// If something is not as it should be.
pub fn check(heads: &dyn HeadStore) {
    let heads = Patient(heads);
    let session = SessionId([1; 10]);
    assert_eq!(heads.newest(session), None);
    assert_eq!(heads.append(&head(1, 2, 1)), Appended::Lost(None), "there is no first one");
    let first = head(1, 1, 1);
    assert_eq!(heads.append(&first), Appended::Won);
    assert_eq!(heads.append(&first), Appended::Won, "the answer may have been lost");
    assert_eq!(heads.newest(session), Some(first.clone()));
    assert_eq!(heads.append(&head(1, 1, 2)), Appended::Lost(Some(first.clone())));
    assert_eq!(heads.append(&head(1, 3, 2)), Appended::Lost(Some(first)));
    for seq in 2..100 {
        assert_eq!(heads.append(&head(1, seq, seq)), Appended::Won);
    }
    let newest = head(1, 99, 99);
    assert_eq!(heads.append(&head(1, 5, 1000)), Appended::Lost(Some(newest.clone())));
    assert_eq!(heads.newest(session), Some(newest));
    assert_eq!(heads.append(&head(2, 1, 1)), Appended::Won);
    assert_eq!(heads.again(|heads| heads.sessions(None, 10)), [session, SessionId([2; 10])]);
    assert_eq!(heads.again(|heads| heads.sessions(Some(session), 10)), [SessionId([2; 10])]);
    assert_eq!(heads.again(|heads| heads.sessions(None, 1)), [session]);
    check_pages(&heads);
    let place = heads.again(HeadStore::place);
    assert_eq!(heads.again(HeadStore::place), place);
    let host = HostId([3; 16]);
    assert_eq!(heads.again(|heads| heads.last_beat(host)), None);
    heads.again(|heads| heads.beat(host, 7));
    heads.again(|heads| heads.beat(host, 8));
    assert_eq!(heads.again(|heads| heads.last_beat(host)), Some(8));
}

/// All heads, a page at a time: whatever the pages' size, each session once, with its newest record.
fn check_pages(heads: &Patient<'_>) {
    for session in 10..10 + SESSIONS {
        for seq in 1..=u64::from(session % 3) + 1 {
            assert_eq!(heads.append(&head(session, seq, seq)), Appended::Won);
        }
    }
    let all: Vec<Head> = [head(1, 99, 99), head(2, 1, 1)]
        .into_iter()
        .chain((10..10 + SESSIONS).map(|session| {
            let newest = u64::from(session % 3) + 1;
            head(session, newest, newest)
        }))
        .collect();
    for max in [1, 4, usize::from(SESSIONS) + 2, 1000] {
        let (mut met, mut last) = (Vec::new(), None);
        loop {
            let page = heads.again(|heads| heads.page(last, max));
            assert!(page.len() <= max);
            last = page.last().map(|(session, _)| *session).or(last);
            let is_last = page.len() < max;
            met.extend(page.into_iter().map(|(session, head)| {
                let head = head.expect("nothing is damaged");
                assert_eq!(head.session, session);
                head
            }));
            if is_last {
                break;
            }
        }
        assert_eq!(met, all, "in pages of {max}");
    }
    assert!(heads.again(|heads| heads.page(Some(SessionId([255; 10])), 10)).is_empty());
}

/// Many clients at once, of a place that may lose requests and answers: whoever is told that he won did, alone, and the numbers have no gaps.
///
/// # Panics
/// If not.
pub fn check_many(heads: &dyn HeadStore) {
    let heads = Patient(heads);
    let (session, nonces) = (SessionId([7; 10]), AtomicU64::new(1));
    let won: Mutex<HashMap<u64, Vec<u64>>> = Mutex::default();
    let client = || {
        let mut mine = 0;
        while mine < RECORDS {
            let newest = heads.newest(session);
            let seq = newest.map_or(0, |newest| newest.seq) + 1;
            let nonce = nonces.fetch_add(1, SeqCst);
            match heads.append(&head(7, seq, nonce)) {
                Appended::Won => {
                    won.lock().entry(seq).or_default().push(nonce);
                    mine += 1;
                }
                Appended::Lost(newest) => assert!(newest.is_some_and(|newest| newest.seq >= seq)),
            }
        }
    };
    thread::scope(|scope| (0..CLIENTS).for_each(|_| drop(scope.spawn(client))));
    let won = won.into_inner();
    let all = u64::from(CLIENTS) * RECORDS;
    let wrong: Vec<_> =
        (1..=all).map(|seq| (seq, won.get(&seq))).filter(|(_, w)| w.is_none_or(|w| w.len() != 1)).collect();
    assert!(
        wrong.is_empty() && won.len() as u64 == all,
        "not one winner of each: {wrong:?}, {} of {all}",
        won.len()
    );
    let newest = heads.newest(session).expect("a head");
    assert_eq!(newest, head(7, all, won[&all][0]));
}
