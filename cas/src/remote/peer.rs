//! Another host that may have an object: what it can be asked, and its answer, of which nothing is believed before it was checked.
//!
//! [`Peer`] is how this crate sees one: a call that hands over what comes as it comes. Who implements it knows networks. Whatever arrives, in whatever order and
//! amount, an `Answer` lets through objects that were asked for, whole, with the bytes that their digests say, and nothing else.

use std::{fmt, time::Duration};

use super::Failure;
use crate::{Digest, Error, ObjectKind, blob::CHUNK_MAX, record::OBJECT_BYTES_MAX};

/// Objects that are asked for at a time.
pub const READ_MAX: usize = 256;
/// Objects behind those that are named.
pub const FOLLOWING_MAX: usize = 512;

/// What an object is called.
pub type Name = (ObjectKind, Digest);

/// An object that a host says it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// What it is called.
    pub name: Name,
    /// Its bytes, as is said.
    pub len: u32,
}

/// A part of an answer, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Bytes of an object.
    Bytes {
        /// Which of those that were asked for.
        nth: usize,
        /// Of the whole object.
        len: u32,
        /// Those behind what came of it before.
        bytes: Vec<u8>,
    },
    /// An object that is not there.
    Absent {
        /// Which.
        nth: usize,
    },
    /// What stands behind those.
    Following(Vec<Named>),
}

/// How long a host is waited for. What is done meanwhile with what has come does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For the next part.
    pub quiet: Duration,
    /// For all parts together.
    pub whole: Duration,
}

/// Is given each part of an answer. An error of it ends the call.
pub type Take<'a> = dyn FnMut(Part) -> Result<(), Failure> + 'a;

/// Another host.
pub trait Peer: fmt::Debug + Send + Sync + 'static {
    /// What a person calls it.
    fn address(&self) -> &str;
    /// Asks for objects, and for the names of so many behind them at most. Waits no longer than `patience` says. Errors: whatever kept the answer from being
    /// one, and those of `take`.
    fn read(
        &self,
        wanted: &[Name],
        following_max: usize,
        patience: Patience,
        take: &mut Take<'_>,
    ) -> Result<(), Failure>;
}

/// Where an object goes that came and is what it is called.
pub type Land<'a> = dyn FnMut(Name, &[u8]) -> crate::Result<()> + 'a;

/// An answer that is coming.
pub(crate) struct Answer<'a> {
    address: &'a str,
    wanted: &'a [Name],
    /// Their lengths, if the host has said them, by which it was decided what to ask for.
    lens: &'a [u32],
    following_max: usize,
    land: &'a mut Land<'a>,
    /// The object that is coming, of those that are wanted; and what it is to be, once its first part came.
    nth: usize,
    len: Option<u32>,
    bytes: Vec<u8>,
    /// Those that are here.
    here: usize,
    following: Option<Vec<Named>>,
    /// What was wrong on this side.
    own: Option<Error>,
}

/// What an answer came to.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    /// Objects that came.
    pub(crate) here: usize,
    /// Those that are not there.
    pub(crate) absent: usize,
    /// What stands behind.
    pub(crate) following: Vec<Named>,
}

impl<'a> Answer<'a> {
    /// Asks a host. Objects that came are where `land` puts them, also when this fails.
    pub(crate) fn of(
        peer: &'a dyn Peer,
        (wanted, lens): (&'a [Name], &'a [u32]),
        following_max: usize,
        patience: Patience,
        land: &'a mut Land<'a>,
    ) -> (Answered, crate::Result<()>) {
        let address = peer.address();
        let mut answer = Answer {
            address,
            wanted,
            lens,
            following_max,
            land,
            nth: 0,
            len: None,
            bytes: Vec::new(),
            here: 0,
            following: None,
            own: None,
        };
        let read = peer.read(wanted, following_max, patience, &mut |part| answer.take(part));
        let read = match (answer.own.take(), read) {
            (Some(own), _) => Err(own),
            (None, Ok(())) if answer.nth < wanted.len() => Err(answer.broken("it ended too early").into()),
            (None, read) => read.map_err(Error::from),
        };
        let Answer { nth, here, following, .. } = answer;
        (Answered { here, absent: nth - here, following: following.unwrap_or_default() }, read)
    }

    fn take(&mut self, part: Part) -> Result<(), Failure> {
        match part {
            Part::Bytes { nth, len, bytes } => self.bytes(nth, len, &bytes),
            Part::Absent { nth } if nth == self.nth && nth < self.wanted.len() && self.len.is_none() => {
                self.nth += 1;
                Ok(())
            }
            Part::Absent { .. } => Err(self.broken("it lacks an object that nobody asked for")),
            Part::Following(named) => {
                if self.nth < self.wanted.len()
                    || self.following.is_some()
                    || named.len() > self.following_max
                {
                    return Err(self.broken("it names objects that nobody asked for"));
                }
                self.following = Some(named);
                Ok(())
            }
        }
    }

    fn bytes(&mut self, nth: usize, len: u32, bytes: &[u8]) -> Result<(), Failure> {
        let Some(&name) = self.wanted.get(nth).filter(|_| nth == self.nth) else {
            return Err(self.broken("it has an object that nobody asked for"));
        };
        let is_other = self.lens.get(nth).is_some_and(|said| *said != len);
        if is_other || *self.len.get_or_insert(len) != len || len as usize > len_max(name.0) {
            return Err(self.broken("an object has a length that it cannot have"));
        }
        // Memory is taken as bytes come: a length alone costs nothing.
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > len as usize {
            return Err(self.broken("an object has more bytes than it is said to have"));
        }
        if bytes.is_empty() && len > 0 {
            return Err(self.broken("a part without bytes"));
        }
        if self.bytes.len() < len as usize {
            return Ok(());
        }
        if Digest::of(&self.bytes) != name.1 {
            return Err(self.broken("the bytes do not have the digest that was asked for"));
        }
        if let Err(error) = (self.land)(name, &self.bytes) {
            let reason = error.to_string();
            self.own = Some(error);
            return Err(self.broken(&reason));
        }
        self.here += 1;
        self.nth += 1;
        self.len = None;
        self.bytes.clear();
        Ok(())
    }

    fn broken(&self, reason: &str) -> Failure {
        let object = match self.wanted.get(self.nth) {
            Some((_, digest)) => format!("{digest} at {}", self.address),
            None => self.address.to_owned(),
        };
        Failure::Failed { object, reason: reason.to_owned() }
    }
}

fn len_max(kind: ObjectKind) -> usize {
    match kind {
        ObjectKind::Chunk => CHUNK_MAX,
        ObjectKind::List
        | ObjectKind::Dir
        | ObjectKind::DirPage
        | ObjectKind::Xattrs
        | ObjectKind::Snapshot => OBJECT_BYTES_MAX,
    }
}

/// A door for the fuzz targets: parts from anywhere, as an answer to who asked for two objects. What comes through is what it is called.
#[cfg(any(test, feature = "simulation"))]
pub fn fuzz_answer(wanted: &[Name], following_max: usize, parts: Vec<Part>) {
    #[derive(Debug)]
    struct Fuzzed(Vec<Part>);
    impl Peer for Fuzzed {
        fn address(&self) -> &str {
            "https://fuzzed:1"
        }
        fn read(&self, _: &[Name], _: usize, _: Patience, take: &mut Take<'_>) -> Result<(), Failure> {
            self.0.iter().cloned().try_for_each(take)
        }
    }
    let patience = Patience { quiet: Duration::ZERO, whole: Duration::ZERO };
    let mut landed = Vec::new();
    let peer = Fuzzed(parts);
    let mut land = |name: Name, bytes: &[u8]| {
        assert_eq!(Digest::of(bytes), name.1, "an object is what it is called");
        landed.push(name);
        Ok(())
    };
    let (answered, read) = Answer::of(&peer, (wanted, &[]), following_max, patience, &mut land);
    assert!(landed.len() == answered.here && answered.here + answered.absent <= wanted.len());
    assert!(landed.iter().all(|name| wanted.contains(name)), "only what was asked for");
    assert!(answered.following.len() <= following_max);
    assert!(read.is_err() || answered.here + answered.absent == wanted.len(), "all of it, or an error");
}
