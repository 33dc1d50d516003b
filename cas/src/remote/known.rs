//! What this host knows of the remote store: manifests, layers, and packs that it has sent and that are in no layer yet.
//!
//! Nothing of it changes but by going, so it is kept in files beside the store, each written whole, and read again at the next start.
//! What is missing or damaged there is fetched again. All of it is of one remote store, which has an ID of its own: what is known of
//! another one (a new address, a bucket that was emptied) is forgotten, and asked for again.
//!
//! What sessions and snapshots of this host stand on is in its [lease](super::lease), so that gc of the remote store keeps it. What was only published
//! from here is not: whoever relies on it later asks anew.
//!
//! Nothing is locked while the remote store is asked, but what keeps others from asking for the same.

mod files;
mod layers;
mod manifests;
mod needs;
mod objects;
mod publishing;

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    io,
    sync::Arc,
    time::Instant,
};

use parking_lot::{Mutex, RwLock};

pub(crate) use self::needs::Census;
use self::{
    files::{Files, KEPT, OWN, SENT, parse_manifest_file},
    layers::Layers,
    manifests::{Known, Wanted},
    objects::Loading,
};
use super::{
    Failure, Remote,
    layer::{LAYER_BYTES_MAX, Layer},
    lease::{Lease, Naming},
    manifest::{MANIFEST_BYTES_MAX, Manifest},
    name::{RemoteName, STORE_ID},
};
use crate::{Error, Result, SnapshotId, disk::Disk};

/// Bytes of a remote store's ID, as text.
const STORE_ID_BYTES: u64 = 26;

/// All that is known.
#[derive(Debug)]
pub struct Atlas {
    remote: Arc<dyn Remote>,
    lease: Arc<Lease>,
    files: Files,
    /// Taken behind all other locks here, a layer's and that of the files; before the lease's own.
    state: RwLock<State>,
    /// Held by who changes which manifests are known: on the disk, here and in the lease.
    learning: Mutex<()>,
    /// Held by the gc that counts what is needed.
    counting: Mutex<()>,
    /// Layers that somebody is bringing here. To look up or insert.
    loading: Mutex<HashMap<RemoteName, Arc<Loading>>>,
}

#[derive(Debug, Default)]
struct State {
    /// What the remote store is called that all this is of, once it was asked.
    bound: Option<Vec<u8>>,
    manifests: HashMap<SnapshotId, Known>,
    /// Those that are in no lease, the oldest first.
    own: VecDeque<SnapshotId>,
    /// Layers that have something which is not here and is needed, as far as somebody has asked since this was last emptied.
    needed: HashSet<RemoteName>,
    /// Something is needed, is not in the store here, and no layer that is here has it.
    is_missing: bool,
    layers: Layers,
    sent: BTreeMap<RemoteName, Arc<Layer>>,
    /// Snapshots whose manifests are not here and may be in the remote store.
    wanted: BTreeMap<SnapshotId, Wanted>,
}

impl Atlas {
    /// Reads what is known in the folder `store/remote` of a disk. `maybe` are snapshots that the remote store may have; `host` names this
    /// host's lease. Error: the disk's.
    pub fn open(
        disk: Arc<dyn Disk>,
        remote: Arc<dyn Remote>,
        host: Naming,
        maybe: Vec<SnapshotId>,
    ) -> Result<Atlas> {
        let files = Files::open(disk)?;
        let names = files.list()?;
        let atlas = Atlas {
            lease: Lease::new(Arc::clone(&remote), host),
            remote,
            files,
            state: RwLock::default(),
            learning: Mutex::new(()),
            counting: Mutex::new(()),
            loading: Mutex::default(),
        };
        let mut state = State::default();
        for file in &names {
            let Some((stem, kind)) = file.rsplit_once('.') else { continue };
            match kind {
                KEPT | OWN if let Some((id, name)) = parse_manifest_file(stem) => {
                    let (read, is_kept) = (atlas.files.read(file, MANIFEST_BYTES_MAX), kind == KEPT);
                    match read.and_then(|bytes| Manifest::decode(id, &bytes)) {
                        // One that was not kept before may be here as well.
                        Ok(_) if !is_kept && state.manifests.contains_key(&id) => {}
                        Ok(manifest) => {
                            state.own.retain(|own| *own != id);
                            if is_kept {
                                atlas.lease.keep(id);
                            } else {
                                state.own.push_back(id);
                            }
                            state.manifests.insert(id, Known::new(Arc::new(manifest), name, is_kept));
                        }
                        Err(_) if !is_kept => {}
                        Err(error) => {
                            atlas.lease.keep(id);
                            tracing::warn!(file, %error, "a manifest is damaged here; it is fetched again");
                            state.wanted.insert(id, Wanted { was_there: true, unknown: None });
                        }
                    }
                }
                // Else it is sent once more.
                SENT if let Ok(layer) = atlas.files.read(file, LAYER_BYTES_MAX).and_then(Layer::decode) => {
                    drop(state.sent.insert(layer.packs()[0].name, Arc::new(layer)));
                }
                _ => {}
            }
        }
        for id in maybe.into_iter().filter(|id| !state.manifests.contains_key(id)) {
            state.wanted.entry(id).or_default();
        }
        *atlas.state.write() = state;
        Ok(atlas)
    }

    /// Whether what is known is of this remote store; asks it once. False: nobody has published to it yet.
    fn is_bound(&self) -> Result<bool> {
        if self.state.read().bound.is_some() {
            return Ok(true);
        }
        match self.remote.read_whole(STORE_ID, STORE_ID_BYTES) {
            Err(Failure::NotFound(_)) => Ok(false),
            theirs => self.bind(theirs?).map(|()| true),
        }
    }

    /// Forgets what is known of a remote store that is called otherwise; but not which snapshots were asked for.
    pub(crate) fn bind(&self, theirs: Vec<u8>) -> Result<()> {
        let writing = self.files.alone();
        if self.state.read().bound.as_ref() == Some(&theirs) {
            return Ok(());
        }
        let ours = match self.files.read(STORE_ID, STORE_ID_BYTES) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Vec::new(),
            ours => ours?,
        };
        if ours != theirs {
            if !ours.is_empty() {
                tracing::warn!(
                    "this is another remote store than before; what is known of it is asked for again"
                );
            }
            let names = self.files.list()?;
            names.iter().try_for_each(|name| self.files.remove(name))?;
            let mut state = self.state.write();
            let mut wanted = std::mem::take(&mut state.wanted);
            let was_there = Wanted { was_there: true, unknown: None };
            wanted.extend(state.manifests.keys().map(|id| (*id, was_there)));
            *state = State { wanted, ..State::default() };
        }
        drop(writing);
        if ours != theirs {
            self.lease.forget();
        }
        self.files.write(STORE_ID, &theirs)?;
        self.state.write().bound = Some(theirs);
        Ok(())
    }
}

/// What a remote store is called; `name` is for one that nobody has published to.
pub(crate) fn initialize(remote: &dyn Remote, name: RemoteName) -> Result<Vec<u8>> {
    match remote.read_whole(STORE_ID, STORE_ID_BYTES) {
        Err(Failure::NotFound(_)) => {
            remote.create(STORE_ID, name.to_string().into_bytes())?;
            // Somebody else may have been faster.
            Ok(remote.read_whole(STORE_ID, STORE_ID_BYTES)?)
        }
        there => Ok(there?),
    }
}

#[expect(clippy::disallowed_methods, reason = "how long nobody asks again: it decides nothing that is kept")]
fn now() -> Instant {
    Instant::now()
}
