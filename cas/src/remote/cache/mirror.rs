//! Data packs of the remote store on disk, as far as their frames were fetched: each byte where it is in the pack, and as it came.
//!
//! Beside each pack stands a list of the frames that are here. Neither is believed: who reads a frame unpacks it, and that checks every
//! object. So nothing has to be on disk before anything else, and a list that says too much costs a fetch. A fifth of the bytes is written that is
//! in the frames, and none of it is looked at. docs/format.md is normative.
//!
//! One thread writes and evicts; any number read.

use std::{
    collections::HashMap,
    io,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::{Mutex, RwLock};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    Error, Result,
    disk::{Disk, DiskFile, Open, read_whole},
    fields::{u32_at, u64_at},
    remote::{
        layer::FrameName,
        name::RemoteName,
        pack::{FRAMES_MAX, PACK_BYTES},
    },
};

/// Where it is.
const DIR: &str = "frames";
const PACK: &str = ".pack";
const LIST: &str = ".list";
/// Of a list: a frame's number, its length, a checksum.
const ENTRY: usize = 16;
/// A list is written anew at this length: each frame was fetched and lost again so many times.
const LIST_BYTES_MAX: u64 = (8 * FRAMES_MAX * ENTRY) as u64;

/// See the module.
#[derive(Debug)]
pub(super) struct Mirror {
    disk: Arc<dyn Disk>,
    packs: RwLock<HashMap<RemoteName, Arc<Pack>>>,
    /// Counts evictions: what a pack's last use is told by.
    era: AtomicU64,
}

/// A pack, as far as it is here.
#[derive(Debug, Default)]
struct Pack {
    here: Mutex<Here>,
    /// When it was last read or written, by the count of evictions.
    era: AtomicU64,
}

#[derive(Debug, Default)]
struct Here {
    /// The stored length of each frame that is here.
    frames: HashMap<u32, u32>,
    /// Theirs in all.
    bytes: u64,
    /// Of the list: where the next entry goes.
    list_len: u64,
}

/// A frame on its way to the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored<'a> {
    /// What it is called.
    pub(super) name: FrameName,
    /// Where it is in its pack.
    pub(super) offset: u64,
    /// As it is there.
    pub(super) bytes: &'a [u8],
}

impl Mirror {
    /// Opens what is in the folder `frames` of a disk, and removes what is of no use. Error: the disk's.
    pub(super) fn open(disk: Arc<dyn Disk>) -> Result<Mirror> {
        let io = |error| Error::io(disk.display(DIR))(error);
        disk.create_dir(DIR).map_err(io)?;
        let mut packs = HashMap::new();
        let names = disk.list(DIR).map_err(io)?;
        for name in names.iter().filter_map(|file| RemoteName::parse(file.strip_suffix(PACK)?)) {
            if let Some(here) = Here::read(&*disk, name) {
                packs.insert(name, Arc::new(Pack { here: Mutex::new(here), era: AtomicU64::new(0) }));
            }
        }
        for file in names {
            let name = file.strip_suffix(LIST).or_else(|| file.strip_suffix(PACK));
            if name.and_then(RemoteName::parse).is_none_or(|name| !packs.contains_key(&name)) {
                remove(&*disk, &format!("{DIR}/{file}"))?;
            }
        }
        Ok(Mirror { disk, packs: RwLock::new(packs), era: AtomicU64::new(1) })
    }

    /// Whether a frame is here, as far as is known.
    pub(super) fn has(&self, (pack, frame): FrameName) -> bool {
        self.pack(pack).is_some_and(|pack| pack.here.lock().frames.contains_key(&frame))
    }

    /// Whether nothing is here.
    pub(super) fn is_empty(&self) -> bool {
        self.packs.read().is_empty()
    }

    /// Bytes of all frames that are here.
    pub(super) fn bytes(&self) -> u64 {
        self.packs.read().values().map(|pack| pack.here.lock().bytes).sum()
    }

    /// The bytes that are at a frame's range of its pack, whatever they are. Errors: the disk's, and `Malformed` if that is not all here.
    pub(super) fn read(&self, (name, frame): FrameName, range: Range<u64>) -> Result<Vec<u8>> {
        let malformed = || Error::Malformed { what: "frame", reason: "not as long as its layer says" };
        let pack = self.pack(name).ok_or_else(malformed)?;
        let len = range.end - range.start;
        if pack.here.lock().frames.get(&frame).is_none_or(|here| u64::from(*here) != len) {
            return Err(malformed());
        }
        pack.era.store(self.era.load(Relaxed), Relaxed);
        let mut bytes = vec![0; len as usize];
        let file = self.disk.open(&pack_path(name), Open::Read);
        let read = file.and_then(|file| file.read_at(&mut bytes, range.start));
        match read.map_err(Error::io(self.disk.display(&pack_path(name))))? {
            read if read == bytes.len() => Ok(bytes),
            _ => Err(malformed()),
        }
    }

    /// Takes frames, and has them on disk when it returns. Error: the disk's; some of them may be here all the same.
    pub(super) fn write(&self, frames: &[Stored<'_>]) -> Result<()> {
        let mut by_pack = HashMap::<RemoteName, Vec<Stored<'_>>>::new();
        frames.iter().for_each(|stored| by_pack.entry(stored.name.0).or_default().push(*stored));
        let mut is_new = false;
        for (name, stored) in by_pack {
            let pack = self.pack(name).unwrap_or_else(|| {
                is_new = true;
                Arc::clone(self.packs.write().entry(name).or_default())
            });
            pack.era.store(self.era.load(Relaxed), Relaxed);
            let written = pack.write(&*self.disk, name, &stored);
            written.map_err(Error::io(self.disk.display(&pack_path(name))))?;
        }
        match is_new {
            true => self.disk.sync_dir(DIR).map_err(Error::io(self.disk.display(DIR))),
            false => Ok(()),
        }
    }

    /// What was read as a frame is none: it counts as not here from now on.
    pub(super) fn disown(&self, (name, frame): FrameName) -> Result<()> {
        let Some(pack) = self.pack(name) else { return Ok(()) };
        let mut here = pack.here.lock();
        if !here.forget(frame) {
            return Ok(());
        }
        // A length that no frame has says that it is gone.
        let noted = here.note(&*self.disk, name, &[entry(name, frame, 0)]);
        noted.map(drop).map_err(Error::io(self.disk.display(&list_path(name))))
    }

    /// If frames take more than so many bytes, removes packs, those first that were used longest ago, and a few more than needed: not to be asked again at
    /// once. Who reads one goes on. Error: the disk's.
    pub(super) fn evict(&self, bytes_max: u64) -> Result<()> {
        self.era.fetch_add(1, Relaxed);
        let mut bytes = self.bytes();
        if bytes <= bytes_max {
            return Ok(());
        }
        let goal = bytes_max - bytes_max / 16;
        let mut oldest: Vec<_> =
            self.packs.read().iter().map(|(name, pack)| (pack.era.load(Relaxed), *name)).collect();
        oldest.sort_unstable();
        for (_, name) in oldest {
            if bytes <= goal {
                break;
            }
            let Some(pack) = self.packs.write().remove(&name) else { continue };
            bytes -= pack.here.lock().bytes;
            // Without its list a pack is nothing.
            [list_path(name), pack_path(name)].iter().try_for_each(|path| remove(&*self.disk, path))?;
        }
        Ok(())
    }

    fn pack(&self, name: RemoteName) -> Option<Arc<Pack>> {
        self.packs.read().get(&name).cloned()
    }
}

impl Pack {
    fn write(&self, disk: &dyn Disk, name: RemoteName, frames: &[Stored<'_>]) -> io::Result<()> {
        let file = open_or_create(disk, &pack_path(name))?;
        frames.iter().try_for_each(|stored| file.write_at(stored.bytes, stored.offset))?;
        file.sync()?;
        let mut here = self.here.lock();
        let mut entries = Vec::with_capacity(frames.len());
        for Stored { name: (_, frame), bytes, .. } in frames {
            if !here.frames.contains_key(frame) {
                here.remember(*frame, bytes.len() as u32);
                entries.push(entry(name, *frame, bytes.len() as u32));
            }
        }
        let list = here.note(disk, name, &entries)?;
        drop(here);
        list.sync()
    }
}

impl Here {
    /// What a list says; `None` if it says that nothing is here, or cannot be read.
    fn read(disk: &dyn Disk, name: RemoteName) -> Option<Here> {
        let bytes = read_whole(disk, &list_path(name), LIST_BYTES_MAX).ok()??;
        let mut here = Here::default();
        // What is behind an entry that did not reach the disk whole is not known to be.
        for (frame, len) in bytes.chunks_exact(ENTRY).map_while(|bytes| decode(name, bytes)) {
            here.list_len += ENTRY as u64;
            here.forget(frame);
            here.remember(frame, len);
        }
        (!here.frames.is_empty()).then_some(here)
    }

    fn remember(&mut self, frame: u32, len: u32) {
        if len > 0 {
            self.frames.insert(frame, len);
            self.bytes += u64::from(len);
        }
    }

    /// False: it was not here.
    fn forget(&mut self, frame: u32) -> bool {
        let forgotten = self.frames.remove(&frame);
        self.bytes -= u64::from(forgotten.unwrap_or(0));
        forgotten.is_some()
    }

    /// Adds entries to the list, which is not synced.
    fn note(
        &mut self,
        disk: &dyn Disk,
        name: RemoteName,
        entries: &[[u8; ENTRY]],
    ) -> io::Result<Arc<dyn DiskFile>> {
        let list = open_or_create(disk, &list_path(name))?;
        let mut bytes = entries.as_flattened().to_vec();
        if self.list_len + bytes.len() as u64 > LIST_BYTES_MAX {
            bytes = self.frames.iter().flat_map(|(frame, len)| entry(name, *frame, *len)).collect();
            list.set_len(0)?;
            self.list_len = 0;
        }
        list.write_at(&bytes, self.list_len)?;
        self.list_len += bytes.len() as u64;
        Ok(list)
    }
}

fn entry(name: RemoteName, frame: u32, len: u32) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    entry[..4].copy_from_slice(&frame.to_le_bytes());
    entry[4..8].copy_from_slice(&len.to_le_bytes());
    let sum = sum(name, &entry[..8]);
    entry[8..].copy_from_slice(&sum.to_le_bytes());
    entry
}

/// A frame and its length: zero if it is gone.
fn decode(name: RemoteName, bytes: &[u8]) -> Option<(u32, u32)> {
    let (frame, len) = (u32_at(bytes, 0), u32_at(bytes, 4));
    let is_possible = (frame as usize) < FRAMES_MAX && len as usize <= 2 * PACK_BYTES;
    (is_possible && u64_at(bytes, 8) == sum(name, &bytes[..8])).then_some((frame, len))
}

/// Of another pack it would be another one.
fn sum(name: RemoteName, bytes: &[u8]) -> u64 {
    xxh3_64(&[&name.0, bytes].concat())
}

fn pack_path(name: RemoteName) -> String {
    format!("{DIR}/{name}{PACK}")
}

fn list_path(name: RemoteName) -> String {
    format!("{DIR}/{name}{LIST}")
}

fn open_or_create(disk: &dyn Disk, path: &str) -> io::Result<Arc<dyn DiskFile>> {
    match disk.open(path, Open::Write) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => disk.open(path, Open::Create),
        file => file,
    }
}

/// Removes a file, if it is there.
fn remove(disk: &dyn Disk, path: &str) -> Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(disk.display(path))(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimDisk;

    const FRAMES: u32 = 12;

    fn mirror(disk: &SimDisk) -> Mirror {
        Mirror::open(Arc::new(disk.clone())).unwrap()
    }

    /// A frame of a pack: where it is, and what is in it.
    fn frame(pack: u8, frame: u32) -> (FrameName, Range<u64>, Vec<u8>) {
        let start = u64::from(frame) * 1000;
        let bytes = vec![pack ^ frame as u8; 900 + frame as usize];
        ((RemoteName([pack; 16]), frame), start..start + bytes.len() as u64, bytes)
    }

    fn write(mirror: &Mirror, frames: &[(u8, u32)]) -> Result<()> {
        let all: Vec<_> = frames.iter().map(|(pack, nth)| frame(*pack, *nth)).collect();
        let stored: Vec<_> = all
            .iter()
            .map(|(name, range, bytes)| Stored { name: *name, offset: range.start, bytes })
            .collect();
        mirror.write(&stored)
    }

    fn read(mirror: &Mirror, pack: u8, nth: u32) -> Option<Vec<u8>> {
        let (name, range, _) = frame(pack, nth);
        let read = mirror.read(name, range).ok();
        assert_eq!(read.is_some(), mirror.has(name));
        read
    }

    #[test]
    fn what_is_written_is_read_and_stays() {
        let disk = SimDisk::new(1);
        let one = mirror(&disk);
        assert!(one.is_empty());
        write(&one, &[(1, 3), (1, 0), (2, 7), (1, 4)]).unwrap();
        write(&one, &[(1, 4), (1, 5)]).unwrap();
        let again = mirror(&disk);
        for mirror in [&one, &again] {
            for (pack, nth) in [(1, 0), (1, 3), (1, 4), (1, 5), (2, 7)] {
                assert_eq!(read(mirror, pack, nth), Some(frame(pack, nth).2));
            }
            for (pack, nth) in [(1, 1), (1, 2), (2, 0), (3, 0)] {
                assert_eq!(read(mirror, pack, nth), None);
            }
            assert_eq!(mirror.bytes(), 5 * 900 + 3 + 4 + 5 + 7);
        }
        // As another layer says.
        assert!(again.read((RemoteName([1; 16]), 3), 3000..3100).is_err());
        again.disown((RemoteName([1; 16]), 3)).unwrap();
        for mirror in [&again, &mirror(&disk)] {
            assert_eq!((read(mirror, 1, 3), mirror.bytes()), (None, 4 * 900 + 4 + 5 + 7));
        }
    }

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let disk = SimDisk::new(1);
        let mirror = mirror(&disk);
        for pack in 1..=4 {
            write(&mirror, &[(pack, 0), (pack, 1)]).unwrap();
            mirror.evict(u64::MAX).unwrap();
        }
        assert!(read(&mirror, 1, 0).is_some());
        mirror.evict(3 * 1801 + 500).unwrap();
        let left = (1..=4).filter(|pack| read(&mirror, *pack, 1).is_some()).collect::<Vec<_>>();
        assert_eq!((left, mirror.bytes()), (vec![1, 3, 4], 3 * 1801));
        mirror.evict(0).unwrap();
        assert!(mirror.is_empty() && disk.list(DIR).unwrap().is_empty());
    }

    #[test]
    fn a_damaged_list_costs_what_is_behind_the_damage() {
        let disk = SimDisk::new(1);
        write(&mirror(&disk), &(0..FRAMES).map(|nth| (1, nth)).collect::<Vec<_>>()).unwrap();
        let list = list_path(RemoteName([1; 16]));
        for at in 0..u64::from(FRAMES) * ENTRY as u64 {
            let disk = disk.copied();
            disk.flip(&list, at, 1);
            let mirror = mirror(&disk);
            let intact = (at / ENTRY as u64) as u32;
            for nth in 0..FRAMES {
                assert_eq!(read(&mirror, 1, nth), (nth < intact).then(|| frame(1, nth).2));
            }
            // What comes again is known again.
            write(&mirror, &[(1, FRAMES - 1)]).unwrap();
            assert_eq!(read(&self::mirror(&disk), 1, FRAMES - 1), Some(frame(1, FRAMES - 1).2));
        }
    }

    #[test]
    fn a_list_that_is_full_is_written_anew() {
        let disk = SimDisk::new(1);
        let one = mirror(&disk);
        write(&one, &[(1, 0), (1, 1)]).unwrap();
        one.disown((RemoteName([1; 16]), 1)).unwrap();
        one.pack(RemoteName([1; 16])).unwrap().here.lock().list_len = LIST_BYTES_MAX;
        write(&one, &[(1, 2)]).unwrap();
        let again = mirror(&disk);
        assert_eq!(
            disk.open(&list_path(RemoteName([1; 16])), Open::Read).unwrap().len().unwrap(),
            2 * ENTRY as u64
        );
        assert_eq!([0, 1, 2].map(|nth| read(&again, 1, nth).is_some()), [true, false, true]);
    }

    #[test]
    fn power_loss_at_any_call_takes_nothing_that_was_written() {
        for at in 0.. {
            let disk = SimDisk::new(at);
            let mirror = mirror(&disk);
            disk.crash_after(at);
            let mut written = Vec::new();
            for nth in 0..FRAMES {
                let some = [(nth as u8 % 3, nth), (nth as u8 % 2, nth + 20)];
                if write(&mirror, &some).is_ok() {
                    written.extend(some);
                }
            }
            let is_over = !disk.is_down();
            let mut random = at;
            let after = disk.crash(&mut || {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                random >> 33
            });
            let mirror = self::mirror(&after);
            for (pack, nth) in written {
                assert_eq!(read(&mirror, pack, nth), Some(frame(pack, nth).2), "power lost at {at}");
            }
            // And it goes on.
            write(&mirror, &[(1, 1)]).unwrap();
            assert_eq!(read(&self::mirror(&after), 1, 1), Some(frame(1, 1).2), "power lost at {at}");
            if is_over {
                return;
            }
        }
    }
}
