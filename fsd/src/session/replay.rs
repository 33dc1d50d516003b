//! The log as a start finds it: which records count, what of it is torn or lost, and where to go on.
//!
//! Reading changes nothing on the disk. What counts depends on how the last run ended. If only the process died, every
//! intact record does. If the machine went down, a record may have outlived the bytes that it names, so what counts
//! ends where the last mark or header says that everything was durable.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::Arc,
};

use cas::disk::{Disk, Open};

use super::{
    Boot, Error, Limits, Result, SessionId,
    log::{Log, RESERVE, copy_aside, lost_path_of},
    log_file::{DIR, LogFile, parse_name, path_of},
    record::Record,
    segment::Pool,
    state::Effect,
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
    boot: Boot,
}

/// What a replay meets.
pub enum Met<'a> {
    /// A record that counts: its position, and what it records.
    Record(u64, &'a [u8]),
    /// The machine went down here, or the log is cut here: what was done last may not have been recorded.
    Interruption,
}

impl Replay {
    /// Looks through all files. Damage to records that were synced is an error, unless `accept_loss`: then everything from
    /// there on does not count. Errors: `Damaged`, `Newer`, `Io`.
    pub fn open(disk: Arc<dyn Disk>, boot: Boot, accept_loss: bool, pool: &Pool) -> Result<Replay> {
        disk.create_dir(DIR).map_err(Error::io(disk.display(DIR)))?;
        let starts = list(&*disk)?;
        let survey = Survey::of(&*disk, &starts)?;
        let damaged = survey.is_damaged(&*disk, &starts, boot)?;
        let losses = match damaged {
            true => losses(&*disk, &starts, survey.end, pool)?,
            false => Losses::new(),
        };
        for (session, loss) in &losses {
            tracing::error!(%session, %loss, "behind the damaged place of the log");
        }
        if damaged && !accept_loss {
            let start = starts.iter().rev().find(|start| **start <= survey.end).copied().unwrap_or(0);
            return Err(Error::Damaged {
                path: disk.display(&path_of(start)),
                position: survey.end,
                reason: format!(
                    "{}, and what was recorded there would be lost: {}. \
                     Copy the state away first. Then restore a backup, or run `aetherfsd --accept-loss` once, or \
                     `aetherfsd --check --accept-loss`, to keep everything up to here",
                    if survey.has_beginning {
                        "a record that was safely on disk is damaged"
                    } else {
                        "the log has lost its beginning"
                    },
                    told(&losses)
                ),
            });
        }
        let end = if survey.boot == Some(boot) { survey.end } else { survey.end.min(survey.synced) };
        if end < survey.end {
            tracing::info!(from = end, to = survey.end, "changes that no sync covered went with the machine");
        }
        let (kept, lost): (Vec<u64>, Vec<u64>) = starts.into_iter().partition(|start| *start < end);
        Ok(Replay { disk, kept: kept.into(), lost, end, damaged, boot })
    }

    /// Whether records that were synced are lost, and the caller accepted that.
    pub fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// Hands every record that counts to `visit`, in order, and says where the machine went down in between.
    pub fn each(&self, mut visit: impl FnMut(Met<'_>) -> Result<()>) -> Result<()> {
        let mut last = None;
        for (i, &start) in self.kept.iter().enumerate() {
            let end = self.kept.get(i + 1).copied().unwrap_or(self.end);
            let file = LogFile::read(&*self.disk, start)?;
            let boot = file.header.map(|header| header.boot);
            if last.replace(boot).is_some_and(|last| last != boot) {
                visit(Met::Interruption)?;
            }
            let mut position = start;
            while position < end {
                let frame = file.frame(position).expect("it was intact a moment ago");
                if !frame.is_mark() {
                    visit(Met::Record(position, frame.body))?;
                }
                position += frame.len() as u64;
            }
        }
        if self.damaged || last.is_some_and(|last| last != Some(self.boot)) {
            visit(Met::Interruption)?;
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
            copy_aside(&*self.disk, start)?;
        }
        for &start in &self.lost {
            let path = path_of(start);
            let moved = self.disk.rename(&path, &lost_path_of(start));
            moved.map_err(Error::io(self.disk.display(&path)))?;
        }
        Ok(())
    }
}

/// What the part of the log behind a damaged place still tells of a session: it happened, and cannot be carried out.
#[derive(Debug, Default)]
struct Loss {
    records: u64,
    names: BTreeSet<String>,
}

type Losses = BTreeMap<SessionId, Loss>;

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records", self.records)?;
        let shown: Vec<&str> = self.names.iter().map(String::as_str).take(NAMES_SHOWN_MAX).collect();
        match (shown.len(), self.names.len() - shown.len()) {
            (0, _) => Ok(()),
            (_, 0) => write!(f, " about {}", shown.join(", ")),
            (_, more) => write!(f, " about {} and {more} more names", shown.join(", ")),
        }
    }
}

/// Names that are told for a session.
const NAMES_SHOWN_MAX: usize = 20;

fn told(losses: &Losses) -> String {
    let each = losses.iter().map(|(session, loss)| format!("{session} ({loss})"));
    let told: Vec<String> = each.collect();
    if told.is_empty() { "of it nothing can be read".to_owned() } else { told.join("; ") }
}

/// What intact records say behind `end`, which is where the log breaks off.
fn losses(disk: &dyn Disk, starts: &[u64], end: u64, pool: &Pool) -> Result<Losses> {
    let mut losses = Losses::new();
    let first = starts.iter().rposition(|start| *start <= end).unwrap_or(0);
    for &start in &starts[first..] {
        LogFile::read(disk, start)?.each_behind(end, &mut |body| {
            let Some(record) = Record::decode(body, pool) else { return };
            let (session, effects) = match record {
                Record::Anchor { meta, effects, .. } => (meta.id, effects),
                Record::Fork { meta, .. } => (meta.id, Vec::new()),
                Record::Part { id, effects, .. } | Record::Apply(id, effects) => (id, effects),
                Record::Discard(id) | Record::Notes(id, _) => (id, Vec::new()),
                Record::Trim(_) => return,
            };
            let loss = losses.entry(session).or_default();
            loss.records += 1;
            loss.names.extend(effects.iter().filter_map(|effect| match effect {
                Effect::Add { name, .. } | Effect::Hide { name, .. } | Effect::Remove { name, .. } => {
                    Some(String::from_utf8_lossy(name.as_bytes()).into_owned())
                }
                _ => None,
            }));
        });
    }
    Ok(losses)
}

/// What the frames of all files say.
struct Survey {
    /// The position behind the last of the intact records that follow each other from the first on.
    end: u64,
    /// Everything before this position is durable, as far as these records tell.
    synced: u64,
    /// The run of the machine that wrote the last of them.
    boot: Option<Boot>,
    /// No file is missing before the first.
    has_beginning: bool,
}

impl Survey {
    fn of(disk: &dyn Disk, starts: &[u64]) -> Result<Survey> {
        let first = starts.first().copied().unwrap_or(0);
        // The reserve is made behind the first file: where it is, a log was.
        let was_there = starts.is_empty() && disk.open(RESERVE, Open::Read).is_ok();
        let mut survey =
            Survey { end: first, synced: first, boot: None, has_beginning: first == 0 && !was_there };
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
                survey.has_beginning |= Record::trimmed(frame.body).is_some_and(|needed| first <= needed);
                survey.end += frame.len() as u64;
            }
        }
        Ok(survey)
    }

    /// Whether something behind the end says that the end, or more, had been synced.
    fn is_damaged(&self, disk: &dyn Disk, starts: &[u64], boot: Boot) -> Result<bool> {
        if !self.has_beginning {
            return Ok(true);
        }
        let first = starts.iter().rposition(|start| *start <= self.end).unwrap_or(0);
        for &start in &starts[first..] {
            // The first file was synced when the ones before it went, or before it had its name. Of a later one power loss
            // may have kept records and lost the header, whoever wrote it; a kill may not.
            let whole_header = Some(&start) == starts.first() || self.boot == Some(boot);
            if LogFile::read(disk, start)?.claims_beyond(self.end, whole_header) {
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
