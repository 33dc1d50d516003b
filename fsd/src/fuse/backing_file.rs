//! Backing files: whole copies of large contents, for the kernel to read without asking (`--io passthrough`).
//!
//! One for each content, so that all mounts which show it share the copy and its page cache. They have no names: what a daemon had
//! when it died, the file system has back. Together they take at most half of the room that there would be without them; of
//! those that nobody has open, the least recently used goes first.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io,
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use cas::Digest;
use parking_lot::Mutex;

/// Each is an open file of the daemon.
const FILES_MAX: usize = 1024;

/// Those of a daemon.
#[derive(Debug)]
pub(super) struct BackingFiles {
    dir: PathBuf,
    /// Held while one is made, so that no content is copied twice and room is counted right. Taken before `table`.
    making: Mutex<()>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    files: HashMap<Digest, Arc<BackingFile>>,
    uses: u64,
}

/// One of them. Its room is given back when nobody has it any more, the kernel included.
#[derive(Debug)]
pub(super) struct BackingFile {
    file: File,
    bytes: u64,
    last_use: AtomicU64,
}

impl BackingFile {
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl BackingFiles {
    /// None yet; they will be on the file system of `dir`.
    pub fn new(dir: PathBuf) -> BackingFiles {
        BackingFiles { dir, making: Mutex::new(()), table: Mutex::default() }
    }

    /// That of a content, if there is one.
    pub fn get(&self, content: Digest) -> Option<Arc<BackingFile>> {
        self.table.lock().get(content)
    }

    /// That of a content, made by `copy` if there is none; `bytes` is the room that it takes, of `free_bytes` that there are. Errors:
    /// `StorageFull`, what the file system and what `copy` says.
    pub fn get_or_make<E: From<io::Error>>(
        &self,
        content: Digest,
        bytes: u64,
        free_bytes: u64,
        copy: impl FnOnce(&File) -> Result<(), E>,
    ) -> Result<Arc<BackingFile>, E> {
        let _making = self.making.lock();
        if let Some(file) = self.get(content) {
            return Ok(file);
        }
        if !self.table.lock().make_room(bytes, free_bytes) {
            return Err(io::Error::from(io::ErrorKind::StorageFull).into());
        }
        let file = File::options().read(true).write(true).custom_flags(libc::O_TMPFILE).open(&self.dir)?;
        copy(&file)?;
        let file = Arc::new(BackingFile { file, bytes, last_use: AtomicU64::default() });
        let mut table = self.table.lock();
        table.files.insert(content, file);
        Ok(table.get(content).expect("it was put there"))
    }

    /// How many bytes they take.
    pub fn bytes(&self) -> u64 {
        self.table.lock().bytes()
    }
}

impl Table {
    fn get(&mut self, content: Digest) -> Option<Arc<BackingFile>> {
        self.uses += 1;
        let file = self.files.get(&content)?;
        file.last_use.store(self.uses, Relaxed);
        Some(Arc::clone(file))
    }

    fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.bytes).sum()
    }

    /// Lets files go that nobody has open, until there is room for so many bytes more. False: there is not.
    fn make_room(&mut self, bytes: u64, free_bytes: u64) -> bool {
        let held = self.bytes();
        let bytes_max = held.saturating_add(free_bytes) / 2;
        let fits = |freed: u64, gone: usize| {
            (held - freed).saturating_add(bytes) <= bytes_max && self.files.len() - gone < FILES_MAX
        };
        let mut unused: Vec<_> = self.files.iter().filter(|(_, file)| Arc::strong_count(file) == 1).collect();
        unused.sort_unstable_by_key(|(_, file)| file.last_use.load(Relaxed));
        let (mut freed, mut going) = (0, HashSet::new());
        for (content, file) in unused {
            if fits(freed, going.len()) {
                break;
            }
            freed += file.bytes;
            going.insert(*content);
        }
        let is_room = fits(freed, going.len());
        if is_room {
            self.files.retain(|content, _| !going.contains(content));
        }
        is_room
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::fs::FileExt};

    use super::*;

    fn make(files: &BackingFiles, name: &str, bytes: u64, free_bytes: u64) -> io::Result<Arc<BackingFile>> {
        let copy = |mut file: &File| file.write_all(name.as_bytes());
        files.get_or_make(Digest::of(name.as_bytes()), bytes, free_bytes, copy)
    }

    fn kept(files: &BackingFiles, names: &[&str]) -> Vec<bool> {
        let table = files.table.lock();
        names.iter().map(|name| table.files.contains_key(&Digest::of(name.as_bytes()))).collect()
    }

    #[test]
    fn a_content_is_copied_once_and_leaves_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let files = BackingFiles::new(dir.path().to_owned());
        let first = make(&files, "content", 7, 100).unwrap();
        let again: io::Result<_> =
            files.get_or_make(Digest::of(b"content"), 7, 0, |_| panic!("copied a second time"));
        assert!(Arc::ptr_eq(&first, &again.unwrap()));
        let mut bytes = [0; 7];
        first.file().read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"content");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn half_of_the_room_is_used_and_what_was_used_last_stays() {
        let dir = tempfile::tempdir().unwrap();
        let files = BackingFiles::new(dir.path().to_owned());
        // Of 100 bytes there are 50 for backing files.
        drop(make(&files, "a", 20, 100).unwrap());
        let open = make(&files, "b", 20, 80).unwrap();
        assert!(files.get(Digest::of(b"a")).is_some());
        drop(make(&files, "c", 10, 60).unwrap());
        assert_eq!(kept(&files, &["a", "b", "c"]), [true; 3]);
        drop(make(&files, "d", 20, 50).unwrap());
        assert_eq!(kept(&files, &["a", "b", "c", "d"]), [false, true, true, true]);
        let refused = make(&files, "e", 31, 50).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        assert_eq!(kept(&files, &["b", "c", "d"]), [true; 3], "nothing goes for what does not fit");
        drop(open);
        drop(make(&files, "e", 50, 50).unwrap());
        assert_eq!(kept(&files, &["b", "c", "d", "e"]), [false, false, false, true]);
        assert_eq!(files.bytes(), 50);
    }

    #[test]
    fn a_copy_that_fails_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let files = BackingFiles::new(dir.path().to_owned());
        let failed = files.get_or_make(Digest::of(b"x"), 1, 100, |_| Err(io::Error::other("a disk fails")));
        assert_eq!(failed.unwrap_err().to_string(), "a disk fails");
        assert_eq!(files.bytes(), 0);
        make(&files, "x", 1, 100).unwrap();
    }
}
