//! A file's bytes on a disk that forgets: what readers see, and what power loss may leave of it.
//!
//! True at all times: where `durable` has no sector, both images are the same, as far as both reach.

use std::{collections::BTreeMap, sync::Arc};

/// What a disk keeps or loses as one piece.
const SECTOR: usize = 512;

/// A file's bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    /// What readers see. Shared by copies of the disk until one of them writes.
    live: Arc<Vec<u8>>,
    /// Length of the durable image.
    durable_len: usize,
    /// The sectors that no sync covered, as the durable image has them.
    durable: BTreeMap<usize, Box<[u8]>>,
    /// The sector written last: the one that may be torn.
    last: Option<usize>,
}

impl Image {
    /// What readers see.
    pub fn bytes(&self) -> &[u8] {
        &self.live
    }

    /// Cuts or extends it with zeros. What was cut off and comes back is zeros, which is a write like any other.
    pub fn resize(&mut self, len: usize) {
        let old = self.live.len();
        self.touch(old.min(len), old.max(len));
        Arc::make_mut(&mut self.live).resize(len, 0);
    }

    /// Overwrites a range within it.
    pub fn write(&mut self, start: usize, bytes: &[u8]) {
        let end = start + bytes.len();
        self.touch(start, end);
        Arc::make_mut(&mut self.live)[start..end].copy_from_slice(bytes);
    }

    /// Overwrites a range with zeros, as far as it reaches.
    pub fn clear(&mut self, start: usize, end: usize) {
        let (start, end) = (start.min(self.live.len()), end.min(self.live.len()));
        self.touch(start, end);
        Arc::make_mut(&mut self.live)[start..end].fill(0);
    }

    /// Makes it durable as it is.
    pub fn sync(&mut self) {
        self.durable.clear();
        self.durable_len = self.live.len();
        self.last = None;
    }

    /// Flips bits in both images.
    pub fn flip(&mut self, at: usize, mask: u8) {
        Arc::make_mut(&mut self.live)[at] ^= mask;
        if let Some(byte) =
            self.durable.get_mut(&(at / SECTOR)).and_then(|sector| sector.get_mut(at % SECTOR))
        {
            *byte ^= mask;
        }
    }

    /// What power loss leaves: every unsynced sector stays, goes, or (the last one) is torn; so does an unsynced length.
    pub fn crash(&mut self, how: &mut dyn FnMut() -> u64) {
        let keep_len = self.live.len() == self.durable_len || how().is_multiple_of(2);
        let len = if keep_len { self.live.len() } else { self.durable_len };
        let (sectors, last) = (std::mem::take(&mut self.durable), self.last);
        if len != self.live.len() || !sectors.is_empty() {
            let live = Arc::make_mut(&mut self.live);
            let seen = live.len();
            live.resize(len, 0);
            for (sector, old) in sectors {
                let start = sector * SECTOR;
                let kept = match how() % 3 {
                    0 => SECTOR,
                    1 if last == Some(sector) => how() as usize % SECTOR,
                    _ => 0,
                };
                // Behind what stays of the sector, and behind what was written, stands what was there before.
                let from = (start + kept).min(seen).max(start);
                for (at, byte) in live.iter_mut().enumerate().take((start + SECTOR).min(len)).skip(from) {
                    *byte = old.get(at - start).copied().unwrap_or(0);
                }
            }
        }
        self.sync();
    }

    /// A range is about to change: remembers what is durable there.
    fn touch(&mut self, from: usize, to: usize) {
        if from >= to {
            return;
        }
        let end = self.live.len().min(self.durable_len);
        for sector in from / SECTOR..=(to - 1) / SECTOR {
            let start = sector * SECTOR;
            let live = &self.live;
            self.durable
                .entry(sector)
                .or_insert_with(|| live[start.min(end)..(start + SECTOR).min(end)].into());
        }
        self.last = Some((to - 1) / SECTOR);
    }
}
