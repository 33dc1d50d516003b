//! The daemon's tokens: the key that signs them, and the list of those that have not expired. Both in `tokens/` of the state; docs/format.md is
//! normative.
//!
//! A token counts as long as it is on the list and not revoked there: a key that got out makes none that counts.
//! A file is replaced as a whole, and is on the disk before anybody hears of what it says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use cas::{
    base32,
    disk::{Disk, put_whole, read_whole},
};
use parking_lot::{Mutex, RwLock};
use token::{Right, RootKey, SessionRef, Token, TokenError};

use crate::session::{
    Error, Result, SessionId,
    codec::{Put, Take, opened, sealed},
};

const DIR: &str = "tokens";
const KEY: &str = "tokens/key";
const LIST: &str = "tokens/list";
const NEW: &str = "tokens/new";
const MAGIC: u32 = u32::from_le_bytes(*b"AFtk");
const VERSION: u8 = 1;
/// What every ID of a token begins with.
const PREFIX: &str = "tok_";
/// Tokens that have not expired.
pub(super) const TOKENS_MAX: usize = 1024;
/// More than so many tokens take.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A token's ID: 80 random bits.
type Id = [u8; 10];

/// What is known of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) rights: BTreeSet<Right>,
    /// None: all.
    pub(super) sessions: BTreeSet<SessionId>,
    pub(super) created_secs: u64,
    pub(super) expires_secs: u64,
    pub(super) is_revoked: bool,
}

/// Why somebody is not let in.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The token is not good.
    Bad(TokenError),
    /// It was made here, and is revoked or not on the list.
    Revoked,
}

/// What the files say.
#[derive(Clone, Debug, Default)]
struct Known {
    key: Option<Arc<RootKey>>,
    list: BTreeMap<Id, Entry>,
}

/// The tokens of a daemon.
#[derive(Debug)]
pub(super) struct Tokens {
    disk: Arc<dyn Disk>,
    /// One change at a time; taken before `known`.
    writing: Mutex<()>,
    /// As it is on the disk; `None` before it was first asked for. Never held while the disk is waited for, but when it is first read.
    known: RwLock<Option<Arc<Known>>>,
}

impl Tokens {
    /// Reads nothing yet.
    pub(super) fn new(disk: Arc<dyn Disk>) -> Tokens {
        Tokens { disk, writing: Mutex::new(()), known: RwLock::new(None) }
    }

    /// A new token, and its ID. Errors: `TooMany`, the disk's, `Damaged`.
    pub(super) fn create(&self, id: Id, entry: Entry, now_secs: u64) -> Result<(String, String)> {
        let _one = self.writing.lock();
        let mut known = self.pruned(now_secs)?;
        if known.list.len() >= TOKENS_MAX {
            let advice =
                "they are dropped when they expire; make shorter ones, or narrow one for several callers";
            return Err(Error::TooMany { what: "tokens", max: TOKENS_MAX, advice });
        }
        self.make_dir()?;
        let key = match &known.key {
            Some(key) => Arc::clone(key),
            None => {
                let key = Arc::new(RootKey::generate());
                self.write(KEY, &sealed(key.to_bytes()))?;
                known.key = Some(Arc::clone(&key));
                key
            }
        };
        let name = name(id);
        let sessions = entry.sessions.iter().map(|id| id.to_string().parse::<SessionRef>());
        let sessions: BTreeSet<_> =
            sessions.collect::<std::result::Result<_, _>>().expect("an ID is printed as it is read");
        let sessions = (!sessions.is_empty()).then_some(sessions);
        let text = token::mint(&key, &name, entry.rights.clone(), sessions, entry.expires_secs);
        let text =
            text.map_err(|_| Error::Invalid("a token with so many sessions is too long; name fewer"))?;
        known.list.insert(id, entry);
        self.save(known)?;
        Ok((text, name))
    }

    /// Those that have not expired, by age. Errors: the disk's, `Damaged`.
    pub(super) fn list(&self, now_secs: u64) -> Result<Vec<(String, Entry)>> {
        let known = self.known()?;
        let left = known.list.iter().filter(|(_, entry)| entry.expires_secs > now_secs);
        let mut list: Vec<_> = left.map(|(id, entry)| (name(*id), entry.clone())).collect();
        list.sort_by_key(|(_, entry)| entry.created_secs);
        Ok(list)
    }

    /// Lets nobody in with it any more; durable when it returns. `None` if there is none. Errors: the disk's, `Damaged`.
    pub(super) fn revoke(&self, id: &str, now_secs: u64) -> Result<Option<Entry>> {
        let _one = self.writing.lock();
        let mut known = self.pruned(now_secs)?;
        let Some(entry) = parse(id).and_then(|id| known.list.get_mut(&id)) else { return Ok(None) };
        entry.is_revoked = true;
        let entry = entry.clone();
        self.save(known)?;
        Ok(Some(entry))
    }

    /// What a token says that counts now. Errors: the disk's, `Damaged`.
    pub(super) fn verify(&self, text: &str, now_secs: u64) -> Result<std::result::Result<Token, Refusal>> {
        let known = self.known()?;
        // Without a key none was ever made.
        let Some(key) = &known.key else { return Ok(Err(Refusal::Bad(TokenError::NotSigned))) };
        let token = match token::verify(text, key, now_secs) {
            Ok(token) => token,
            Err(error) => return Ok(Err(Refusal::Bad(error))),
        };
        let entry = parse(&token.id).and_then(|id| known.list.get(&id));
        Ok(if entry.is_some_and(|entry| !entry.is_revoked) { Ok(token) } else { Err(Refusal::Revoked) })
    }

    fn known(&self) -> Result<Arc<Known>> {
        if let Some(known) = &*self.known.read() {
            return Ok(Arc::clone(known));
        }
        let mut slot = self.known.write();
        if let Some(known) = &*slot {
            return Ok(Arc::clone(known));
        }
        let known = Arc::new(Known { key: self.read_key()?, list: self.read_list()? });
        Ok(Arc::clone(slot.insert(known)))
    }

    /// Without what has expired. For who holds `writing`.
    fn pruned(&self, now_secs: u64) -> Result<Known> {
        let mut known = Known::clone(&*self.known()?);
        known.list.retain(|_, entry| entry.expires_secs > now_secs);
        Ok(known)
    }

    fn read_key(&self) -> Result<Option<Arc<RootKey>>> {
        let Some(bytes) = self.read(KEY)? else { return Ok(None) };
        let key = opened(&bytes).and_then(|key| RootKey::from_bytes(key).ok());
        Ok(Some(Arc::new(key.ok_or_else(|| self.damaged(KEY))?)))
    }

    fn read_list(&self) -> Result<BTreeMap<Id, Entry>> {
        let Some(bytes) = self.read(LIST)? else { return Ok(BTreeMap::new()) };
        decode(&bytes).ok_or_else(|| self.damaged(LIST))
    }

    fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        read_whole(&*self.disk, path, FILE_BYTES_MAX).map_err(Error::io(self.disk.display(path)))
    }

    fn make_dir(&self) -> Result<()> {
        let made = self.disk.create_dir(DIR).and_then(|()| self.disk.sync_dir(""));
        made.map_err(Error::io(self.disk.display(DIR)))
    }

    /// For who holds `writing`.
    fn save(&self, known: Known) -> Result<()> {
        self.write(LIST, &encode(&known.list))?;
        *self.known.write() = Some(Arc::new(known));
        Ok(())
    }

    fn write(&self, path: &str, bytes: &[u8]) -> Result<()> {
        put_whole(&*self.disk, DIR, NEW, path, bytes).map_err(Error::io(self.disk.display(path)))
    }

    fn damaged(&self, path: &str) -> Error {
        Error::Damaged {
            path: self.disk.display(path),
            position: 0,
            reason: "it is not what was written; restore it, or remove the directory: then no token counts that was made before".into(),
        }
    }
}

fn name(id: Id) -> String {
    format!("{PREFIX}{}", base32::encode(&id))
}

fn parse(text: &str) -> Option<Id> {
    base32::decode(text.strip_prefix(PREFIX)?)?.try_into().ok()
}

fn encode(list: &BTreeMap<Id, Entry>) -> Vec<u8> {
    let mut out = Vec::new();
    out.u32(MAGIC);
    out.u8(VERSION);
    out.u32(list.len() as u32);
    for (id, entry) in list {
        out.extend(id);
        out.u64(entry.created_secs);
        out.u64(entry.expires_secs);
        out.u8(entry.is_revoked.into());
        out.u8(Right::ALL
            .iter()
            .enumerate()
            .map(|(n, right)| u8::from(entry.rights.contains(right)) << n)
            .sum());
        out.u32(entry.sessions.len() as u32);
        entry.sessions.iter().for_each(|session| out.extend(session.0));
    }
    sealed(out)
}

fn decode(bytes: &[u8]) -> Option<BTreeMap<Id, Entry>> {
    let mut from = Take(opened(bytes)?);
    if from.u32()? != MAGIC || from.u8()? != VERSION {
        return None;
    }
    let mut list = BTreeMap::new();
    for _ in 0..from.u32()? {
        let id = from.array()?;
        let (created_secs, expires_secs) = (from.u64()?, from.u64()?);
        let is_revoked = match from.u8()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let bits = from.u8()?;
        let rights: BTreeSet<_> =
            (0u8..).zip(Right::ALL).filter(|(n, _)| bits & (1 << n) != 0).map(|(_, right)| right).collect();
        if bits >> Right::ALL.len() != 0 {
            return None;
        }
        let mut sessions = BTreeSet::new();
        for _ in 0..from.u32()? {
            sessions.insert(SessionId(from.array()?));
        }
        list.insert(id, Entry { rights, sessions, created_secs, expires_secs, is_revoked });
    }
    from.is_empty().then_some(list)
}

#[cfg(test)]
mod tests;
