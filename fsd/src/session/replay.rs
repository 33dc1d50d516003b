//! The log as a start finds it: which records count, what of it is torn or lost, and where to go on.
//!
//! Reading changes nothing on the disk. What counts depends on how the last run ended. If only the process died, every
//! intact record does. If the machine went down, a record may have outlived the bytes that it names, so what counts
//! ends where the last mark or header says that everything was durable.

use std::{collections::VecDeque, sync::Arc};

use cas::disk::{Disk, Open};

use super::{
    Boot, Error, Limits, Result,
    log::Log,
    log_file::{DIR, LogFile, parse_name, path_of},
};

/// The log of earlier runs.
pub struct Replay {
    disk: Arc<dyn Disk>,
    /// First positions of the files that hold records that count, in order.
    kept: VecDeque<u64>,
    /// First positions of those that do not.
    lost: Vec<u64>,
    /// The position behind the last record that counts.
    end: u64,
    /// Records that were synced are damaged, and the caller accepts to lose them.
    damaged: bool,
}

impl Replay {
    /// Looks through all files. Damage to records that were synced is an error, unless `accept_loss`: then everything from
    /// there on does not count. Errors: `Damaged`, `Newer`, `Io`.
    pub fn open(disk: Arc<dyn Disk>, boot: Boot, accept_loss: bool) -> Result<Replay> {
        disk.create_dir(DIR).map_err(Error::io(disk.display(DIR)))?;
        let starts = list(&*disk)?;
        let survey = Survey::of(&*disk, &starts)?;
        let damaged = survey.is_damaged(&*disk, &starts)?;
        if damaged && !accept_loss {
            let start = starts.iter().rev().find(|start| **start <= survey.end).copied().unwrap_or(0);
            return Err(Error::Damaged {
                path: disk.display(&path_of(start)),
                position: survey.end,
                reason: "a record that was safely on disk is damaged, and changes recorded behind it would be lost. \
                         Restore the state from a backup, or start once with --accept-loss to keep everything up to here"
                    .into(),
            });
        }
        let end = if survey.boot == Some(boot) { survey.end } else { survey.end.min(survey.synced) };
        if end < survey.end {
            tracing::info!(from = end, to = survey.end, "changes that no sync covered went with the machine");
        }
        let (kept, lost): (Vec<u64>, Vec<u64>) = starts.into_iter().partition(|start| *start < end);
        Ok(Replay { disk, kept: kept.into(), lost, end, damaged })
    }

    /// Whether records that were synced are lost, and the caller accepted that.
    pub fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// Hands position and body of every record that counts to `visit`, in order.
    pub fn each(&self, mut visit: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        for (i, &start) in self.kept.iter().enumerate() {
            let end = self.kept.get(i + 1).copied().unwrap_or(self.end);
            let file = LogFile::read(&*self.disk, start)?;
            let mut position = start;
            while position < end {
                let frame = file.frame(position).expect("it was intact a moment ago");
                if !frame.is_mark() {
                    visit(position, frame.body)?;
                }
                position += frame.len() as u64;
            }
        }
        Ok(())
    }

    /// Makes what counts durable, opens the log for appending behind it, and puts the rest out of the way. What the records
    /// refer to must be durable already: from here on the log says that it is.
    pub fn finish(self, boot: Boot, limits: Limits) -> Result<Log> {
        for &start in &self.kept {
            let path = path_of(start);
            let synced = self.disk.open(&path, Open::Read).and_then(|file| file.sync());
            synced.map_err(Error::io(self.disk.display(&path)))?;
        }
        if self.damaged {
            self.set_aside()?;
            return Log::begin(self.disk, self.kept, self.end, boot, limits);
        }
        // What does not count may be all that tells how much does. So the new file, which says the same, comes first.
        let disk = Arc::clone(&self.disk);
        let log = Log::begin(self.disk, self.kept, self.end, boot, limits)?;
        for &start in self.lost.iter().filter(|start| **start != self.end) {
            let path = path_of(start);
            disk.remove(&path).map_err(Error::io(disk.display(&path)))?;
        }
        // A file that comes back would stand in the middle of what is appended from here on.
        disk.sync_dir(DIR).map_err(Error::io(disk.display(DIR)))?;
        Ok(log)
    }

    /// Keeps what is damaged, and what lies behind it, where no replay reads it.
    fn set_aside(&self) -> Result<()> {
        if let Some(&start) = self.kept.back() {
            self.copy_aside(start)?;
        }
        for &start in &self.lost {
            let path = path_of(start);
            let moved = self.disk.rename(&path, &format!("{path}.lost"));
            moved.map_err(Error::io(self.disk.display(&path)))?;
        }
        Ok(())
    }

    /// Keeps a copy of a damaged file for whoever wants to look, where no replay reads it.
    fn copy_aside(&self, start: u64) -> Result<()> {
        let path = path_of(start);
        let lost = format!("{path}.lost");
        let fail = || Error::io(self.disk.display(&path));
        let file = self.disk.open(&path, Open::Read).map_err(fail())?;
        let mut bytes = vec![0; file.len().map_err(fail())? as usize];
        let read = file.read_at(&mut bytes, 0).map_err(fail())?;
        let _ = self.disk.remove(&lost);
        self.disk.open(&lost, Open::Create).and_then(|f| f.write_at(&bytes[..read], 0)).map_err(fail())
    }
}

/// What the frames of all files say.
struct Survey {
    /// The position behind the last of the intact records that follow each other from the first on.
    end: u64,
    /// Everything before this position is durable, as far as these records tell.
    synced: u64,
    /// The run of the machine that wrote the last of them.
    boot: Option<Boot>,
}

impl Survey {
    fn of(disk: &dyn Disk, starts: &[u64]) -> Result<Survey> {
        let first = starts.first().copied().unwrap_or(0);
        let mut survey = Survey { end: first, synced: first, boot: None };
        for (i, &start) in starts.iter().enumerate() {
            let file = LogFile::read(disk, start)?;
            let Some(header) = file.header.filter(|_| start == survey.end) else { break };
            survey.boot = Some(header.boot);
            survey.synced = survey.synced.max(header.synced);
            let next = starts.get(i + 1).copied();
            while next.is_none_or(|next| survey.end < next)
                && let Some(frame) = file.frame(survey.end)
            {
                survey.synced = survey.synced.max(frame.synced);
                survey.end += frame.len() as u64;
            }
        }
        Ok(survey)
    }

    /// Whether something behind the end says that the end, or more, had been synced.
    fn is_damaged(&self, disk: &dyn Disk, starts: &[u64]) -> Result<bool> {
        let first = starts.iter().rposition(|start| *start <= self.end).unwrap_or(0);
        for &start in &starts[first..] {
            if LogFile::read(disk, start)?.claims_beyond(self.end) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn list(disk: &dyn Disk) -> Result<Vec<u64>> {
    let names = disk.list(DIR).map_err(Error::io(disk.display(DIR)))?;
    let mut starts: Vec<u64> = names.iter().filter_map(|name| parse_name(name)).collect();
    starts.sort_unstable();
    Ok(starts)
}
