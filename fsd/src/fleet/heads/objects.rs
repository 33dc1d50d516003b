//! Heads in the remote store alone, by create-only writes: a folder a session, in it a file a record, named so that the newest is the first
//! of a listing.
//!
//! `If-Match` is not to be had everywhere; a write that fails if there is something already is, and of several who write one succeeds. A record of
//! which the number was used is never written again, so records that were followed can be removed, but for one thing: a request that was long on
//! its way may then succeed with an old number. So who won looks whether it is the head.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use cas::{
    base32,
    remote::{Failure, Remote, each},
};

use super::{Appended, HEAD_BYTES_MAX, Head, HeadError, HeadStore, HostId, KEPT, Nonce, Page, Place};
use crate::session::SessionId;

const HEADS: &str = "heads/";
/// Digits of a record's name.
const DIGITS: usize = 20;
const BEAT_BYTES: usize = 8;

/// See the module.
#[derive(Debug)]
pub struct ObjectHeads {
    remote: Arc<dyn Remote>,
    /// It is known that of two who create an object one hears of it.
    probed: AtomicBool,
    /// Names the objects by which that is found out.
    nonce: Nonce,
}

impl ObjectHeads {
    /// In this remote store. Nobody else has the nonce.
    pub fn new(remote: Arc<dyn Remote>, nonce: Nonce) -> ObjectHeads {
        ObjectHeads { remote, probed: AtomicBool::new(false), nonce }
    }

    fn read(&self, session: SessionId, seq: u64) -> Result<Option<Head>, HeadError> {
        let read = self.remote.read_whole(&record(session, seq), HEAD_BYTES_MAX as u64);
        self.decoded(session, seq, read)
    }

    /// The same of a record that was listed. What cannot be read then counts as damaged: it keeps nobody from the others.
    fn read_listed(&self, session: SessionId, seq: u64) -> Result<Option<Head>, HeadError> {
        let name = record(session, seq);
        match self.remote.read_whole(&name, HEAD_BYTES_MAX as u64) {
            Err(Failure::Failed { .. }) => {
                Err(self.malformed(session, &name, "larger than a record, or nothing that can be read"))
            }
            read => self.decoded(session, seq, read),
        }
    }

    fn decoded(
        &self,
        session: SessionId,
        seq: u64,
        read: Result<Vec<u8>, Failure>,
    ) -> Result<Option<Head>, HeadError> {
        let name = record(session, seq);
        match read {
            Ok(bytes) => match Head::decode(session, &bytes) {
                Ok(head) if head.seq == seq => Ok(Some(head)),
                Ok(_) => Err(self.malformed(session, &name, "of another number")),
                Err(reason) => Err(self.malformed(session, &name, reason)),
            },
            Err(Failure::NotFound(_)) => Ok(None),
            Err(failure) => Err(unknown(failure)),
        }
    }

    /// What became of a record, when this is the newest one.
    fn outcome(&self, head: &Head, newest: Option<Head>) -> Result<Appended, HeadError> {
        let behind = newest.as_ref().and_then(|newest| newest.seq.checked_sub(head.seq));
        let there = match behind {
            // Those that are further behind were removed, and may be there again because a request was long on its way.
            Some(behind) if behind < KEPT => self.read(head.session, head.seq)?,
            _ => None,
        };
        match there {
            Some(there) if there.nonce == head.nonce => Ok(Appended::Won),
            _ => Ok(Appended::Lost(newest)),
        }
    }

    /// The first name of each session's folder, which is the newest record's: of the sessions that come first behind `after`, at most `max`.
    fn first_names(
        &self,
        after: Option<SessionId>,
        max: usize,
    ) -> Result<BTreeMap<SessionId, String>, HeadError> {
        let mut first: BTreeMap<SessionId, String> = BTreeMap::new();
        // What follows a `/`: all records of the session are before it.
        let behind = after.map_or_else(|| HEADS.to_owned(), |session| format!("{HEADS}{session}0"));
        let mut show = |name: &str| {
            let Some(session) = session_of(name).filter(|session| Some(*session) > after) else {
                return ControlFlow::Continue(());
            };
            let held = first.entry(session).or_insert_with(|| name.to_owned());
            if name < held.as_str() {
                name.clone_into(held);
            }
            if first.len() <= max {
                return ControlFlow::Continue(());
            }
            first.pop_last();
            if self.remote.is_sorted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        self.remote.walk(HEADS, &behind, &mut show).map_err(unknown)?;
        Ok(first)
    }

    fn malformed(&self, session: SessionId, name: &str, reason: &'static str) -> HeadError {
        HeadError::Malformed { session, place: self.remote.display(name), reason }
    }

    /// The number of the newest record.
    fn newest_seq(&self, session: SessionId) -> Result<Option<u64>, HeadError> {
        let folder = folder(session);
        let first = self.remote.first(&folder).map_err(unknown)?;
        let Some(name) = first else { return Ok(None) };
        inverted(&name)
            .map(|inverted| Some(u64::MAX - inverted))
            .ok_or_else(|| self.malformed(session, &name, "no record's name"))
    }
}

impl HeadStore for ObjectHeads {
    fn place(&self) -> Result<Place, HeadError> {
        Ok(Place::Store)
    }

    /// Some stores take `If-None-Match` and overwrite what is there.
    fn check(&self) -> Result<(), HeadError> {
        if self.probed.load(Relaxed) {
            return Ok(());
        }
        let name = format!("probes/{}", base32::encode(&self.nonce));
        self.remote.create(&name, Vec::new()).map_err(unknown)?;
        let overwrites = self.remote.create(&name, Vec::new()).map_err(unknown)?;
        if let Err(error) = self.remote.remove(&name) {
            tracing::debug!(%error, "a probe of the store stays there");
        }
        if overwrites {
            let place = self.remote.display("heads");
            return Err(HeadError::Refused(format!(
                "{place}: this store lets two writers create the same object, and each believes that it was the one; it cannot keep heads"
            )));
        }
        self.probed.store(true, Relaxed);
        Ok(())
    }

    fn newest(&self, session: SessionId) -> Result<Option<Head>, HeadError> {
        // It may be followed, and removed, between the listing and the read.
        for _ in 0..KEPT {
            let Some(seq) = self.newest_seq(session)? else { return Ok(None) };
            if let Some(head) = self.read(session, seq)? {
                return Ok(Some(head));
            }
        }
        Err(HeadError::Unknown(format!("the head of {session} changes faster than it can be read")))
    }

    fn append(&self, head: &Head) -> Result<Appended, HeadError> {
        let last = self.newest_seq(head.session)?.unwrap_or(0);
        if last.checked_add(1) != Some(head.seq) {
            // It may be this one that is there: the answer was lost the last time.
            return self.outcome(head, self.newest(head.session)?);
        }
        let is_ours = self.remote.create(&record(head.session, head.seq), head.encode()).map_err(unknown)?;
        // The look behind it says whether it came in time.
        let outcome = match self.newest_seq(head.session)? {
            Some(newest) if is_ours && newest == head.seq => Appended::Won,
            _ => self.outcome(head, self.newest(head.session)?)?,
        };
        if outcome == Appended::Won {
            self.remove_followed(head);
        }
        Ok(outcome)
    }

    fn sessions(&self, after: Option<SessionId>, max: usize) -> Result<Vec<SessionId>, HeadError> {
        Ok(self.first_names(after, max)?.into_keys().collect())
    }

    fn page(&self, after: Option<SessionId>, max: usize) -> Result<Page, HeadError> {
        let first: Vec<_> = self.first_names(after, max)?.into_iter().collect();
        each(&first, |(session, name)| {
            let there = match inverted(name) {
                Some(inverted) => self.read_listed(*session, u64::MAX - inverted),
                None => Err(self.malformed(*session, name, "no record's name")),
            };
            // One that was followed and removed meanwhile is looked for again. A session never loses its head.
            let head = match there {
                Ok(None) => self.newest(*session).map(|head| head.ok_or(())),
                there => there.map(|head| head.ok_or(())),
            };
            match head {
                Ok(Ok(head)) => Ok((*session, Ok(head))),
                Ok(Err(())) => {
                    Ok((*session, Err(self.malformed(*session, name, "it was there a moment ago"))))
                }
                Err(error @ HeadError::Malformed { .. }) => Ok((*session, Err(error))),
                Err(error) => Err(error),
            }
        })
    }

    fn beat(&self, host: HostId, beat: u64) -> Result<(), HeadError> {
        self.remote.write(&format!("hosts/{host}"), beat.to_le_bytes().to_vec()).map_err(unknown)
    }

    fn last_beat(&self, host: HostId) -> Result<Option<u64>, HeadError> {
        match self.remote.read_whole(&format!("hosts/{host}"), BEAT_BYTES as u64) {
            Ok(bytes) => Ok(bytes.try_into().ok().map(u64::from_le_bytes)),
            Err(Failure::NotFound(_)) => Ok(None),
            Err(failure) => Err(unknown(failure)),
        }
    }
}

impl ObjectHeads {
    /// Keeps the number of records small. What is not removed now stays, and harms nobody.
    fn remove_followed(&self, head: &Head) {
        if let Some(seq) = head.seq.checked_sub(KEPT).filter(|seq| *seq > 0)
            && let Err(error) = self.remote.remove(&record(head.session, seq))
        {
            tracing::debug!(session = %head.session, seq, %error, "an old record of a head stays");
        }
    }
}

fn folder(session: SessionId) -> String {
    format!("{HEADS}{session}/")
}

fn session_of(name: &str) -> Option<SessionId> {
    name.strip_prefix(HEADS)?.split_once('/')?.0.parse().ok()
}

/// The digits of a record's name.
fn inverted(name: &str) -> Option<u64> {
    let (_, digits) = name.rsplit_once('/')?;
    Some(digits).filter(|digits| digits.len() == DIGITS)?.parse().ok()
}

fn record(session: SessionId, seq: u64) -> String {
    format!("{}{:0DIGITS$}", folder(session), u64::MAX - seq)
}

fn unknown(failure: Failure) -> HeadError {
    match failure {
        Failure::Refused { .. } => HeadError::Refused(failure.to_string()),
        failure => HeadError::Unknown(failure.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, ops::Range};

    use cas::remote::{Dated, sim::SimRemote};
    use parking_lot::Mutex;

    use super::*;
    use crate::fleet::heads::contract;

    /// Loses requests and answers, and lets requests arrive long after somebody has given them up.
    #[derive(Debug)]
    struct Flaky {
        remote: SimRemote,
        chance: Mutex<u64>,
        late: Mutex<VecDeque<(String, Vec<u8>)>>,
    }

    impl Flaky {
        fn new(seed: u64) -> Flaky {
            Flaky { remote: SimRemote::default(), chance: Mutex::new(seed | 1), late: Mutex::default() }
        }

        /// Below a hundred (xorshift).
        fn percent(&self) -> u64 {
            let mut chance = self.chance.lock();
            *chance ^= *chance << 13;
            *chance ^= *chance >> 7;
            *chance ^= *chance << 17;
            *chance % 100
        }

        fn lost(&self, name: &str) -> Failure {
            Failure::Unreachable { object: name.to_owned(), reason: "lost".to_owned() }
        }

        fn call(&self, name: &str) -> Result<(), Failure> {
            if self.percent() < 30
                && let Some((name, bytes)) = self.late.lock().pop_front()
            {
                self.remote.create(&name, bytes)?;
            }
            if self.percent() < 10 { Err(self.lost(name)) } else { Ok(()) }
        }
    }

    impl Remote for Flaky {
        fn read(&self, name: &str, range: Range<u64>) -> Result<Vec<u8>, Failure> {
            self.call(name)?;
            self.remote.read(name, range)
        }

        fn read_whole(&self, name: &str, bytes_max: u64) -> Result<Vec<u8>, Failure> {
            self.call(name)?;
            self.remote.read_whole(name, bytes_max)
        }

        fn write(&self, name: &str, bytes: Vec<u8>) -> Result<(), Failure> {
            self.call(name)?;
            self.remote.write(name, bytes)
        }

        fn create(&self, name: &str, bytes: Vec<u8>) -> Result<bool, Failure> {
            self.call(name)?;
            match self.percent() {
                0..15 => {
                    self.late.lock().push_back((name.to_owned(), bytes));
                    Err(self.lost(name))
                }
                15..30 => {
                    self.remote.create(name, bytes)?;
                    Err(self.lost(name))
                }
                _ => self.remote.create(name, bytes),
            }
        }

        fn dated(&self, prefix: &str) -> Result<Vec<Dated>, Failure> {
            self.call(prefix)?;
            self.remote.dated(prefix)
        }

        fn remove(&self, name: &str) -> Result<(), Failure> {
            self.call(name)?;
            self.remote.remove(name)
        }

        fn display(&self, name: &str) -> String {
            self.remote.display(name)
        }
    }

    #[test]
    fn an_object_store_keeps_the_contract() {
        contract::check(&ObjectHeads::new(Arc::new(SimRemote::default()), [1; 16]));
        contract::check_many(&ObjectHeads::new(Arc::new(SimRemote::default()), [1; 16]));
    }

    #[test]
    fn lost_answers_and_late_requests_make_no_second_winner() {
        (1..40).for_each(|seed| {
            contract::check_many(&ObjectHeads::new(Arc::new(Flaky::new(seed * 0x9e37_79b9)), [1; 16]))
        });
    }

    #[test]
    fn a_request_that_comes_after_its_number_was_removed_wins_nothing() {
        let remote = SimRemote::default();
        let heads = ObjectHeads::new(Arc::new(remote.clone()), [1; 16]);
        for seq in 1..=KEPT + 10 {
            assert_eq!(heads.append(&contract::head(1, seq, seq)).unwrap(), Appended::Won);
        }
        assert_eq!(remote.list("heads/").unwrap().len() as u64, KEPT);
        let late = contract::head(1, 5, 1000);
        assert!(remote.create(&record(late.session, 5), late.encode()).unwrap());
        let newest = contract::head(1, KEPT + 10, KEPT + 10);
        assert_eq!(heads.append(&late).unwrap(), Appended::Lost(Some(newest.clone())));
        assert_eq!(heads.newest(late.session).unwrap(), Some(newest));
    }

    /// Takes every write for the first.
    #[derive(Debug)]
    struct Overwriting(SimRemote);

    impl Remote for Overwriting {
        fn read(&self, name: &str, range: Range<u64>) -> Result<Vec<u8>, Failure> {
            self.0.read(name, range)
        }

        fn read_whole(&self, name: &str, bytes_max: u64) -> Result<Vec<u8>, Failure> {
            self.0.read_whole(name, bytes_max)
        }

        fn write(&self, name: &str, bytes: Vec<u8>) -> Result<(), Failure> {
            self.0.write(name, bytes)
        }

        fn create(&self, name: &str, bytes: Vec<u8>) -> Result<bool, Failure> {
            self.0.write(name, bytes).map(|()| true)
        }

        fn dated(&self, prefix: &str) -> Result<Vec<Dated>, Failure> {
            self.0.dated(prefix)
        }

        fn remove(&self, name: &str) -> Result<(), Failure> {
            self.0.remove(name)
        }

        fn display(&self, name: &str) -> String {
            self.0.display(name)
        }
    }

    #[test]
    fn a_store_that_overwrites_keeps_no_heads() {
        let remote = SimRemote::default();
        let heads = ObjectHeads::new(Arc::new(Overwriting(remote.clone())), [1; 16]);
        let error = heads.check().unwrap_err();
        assert!(
            matches!(&error, HeadError::Refused(_)) && error.to_string().contains("two writers"),
            "{error}"
        );
        assert_eq!(remote.list("").unwrap(), [""; 0], "nothing is left there");
    }

    #[test]
    fn what_is_no_record_is_named_and_followed_by_its_holder_alone() {
        let remote = SimRemote::default();
        let heads = ObjectHeads::new(Arc::new(remote.clone()), [1; 16]);
        heads.append(&contract::head(1, 1, 1)).unwrap();
        remote.flip(&record(SessionId([1; 10]), 1), 20);
        for error in [
            heads.newest(SessionId([1; 10])).unwrap_err(),
            heads.append(&contract::head(1, 1, 2)).unwrap_err(),
        ] {
            assert!(
                matches!(&error, HeadError::Malformed { .. }) && error.to_string().contains("heads/ses_"),
                "{error}"
            );
        }
        // Who knows what it said goes on.
        let next = contract::head(1, 2, 2);
        assert_eq!(heads.append(&next).unwrap(), Appended::Won);
        assert_eq!(heads.newest(next.session).unwrap(), Some(next));
    }
}
