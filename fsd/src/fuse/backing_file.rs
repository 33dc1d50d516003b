//! Backing files: whole copies of large contents, for the kernel to read without asking (`--io passthrough`).
//!
//! One for each content, so that all mounts which show it share the copy and its page cache. They have no names: what a daemon had
//! when it died, the file system has back. Together they take at most half of the room that there would be without them; of
//! those that nobody has open, the least recently used goes first.

use std::{
    collections::HashMap,
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

/// One of them. Its room is given back when nobody has it any more, neither the kernel nor a program's map of it.
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

    /// That of a content, made by `copy` if there is none; `bytes` is the room that it takes, and `free_bytes` tells how much there
    /// is. Waits for copies of others. Errors: `StorageFull`, what the file system, `free_bytes` and `copy` say.
    pub fn get_or_make<E: From<io::Error>>(
        &self,
        content: Digest,
        bytes: u64,
        free_bytes: impl FnOnce() -> Result<u64, E>,
        copy: impl FnOnce(&File) -> Result<(), E>,
    ) -> Result<Arc<BackingFile>, E> {
        if let Some(file) = self.get(content) {
            return Ok(file);
        }
        let _making = self.making.lock();
        if let Some(file) = self.get(content) {
            return Ok(file);
        }
        let free_bytes = free_bytes()?;
        // To give a large file's room back takes a while: not under the table's lock.
        let gone = self.table.lock().make_room(bytes, free_bytes);
        drop(gone.ok_or(io::Error::from(io::ErrorKind::StorageFull))?);
        let file = self.create()?;
        copy(&file)?;
        let file = Arc::new(BackingFile { file, bytes, last_use: AtomicU64::default() });
        let mut table = self.table.lock();
        table.files.insert(content, file);
        Ok(table.get(content).expect("it was put there"))
    }

    /// An empty file without a name. Error: what the file system says.
    pub fn create(&self) -> io::Result<File> {
        File::options().read(true).write(true).custom_flags(libc::O_TMPFILE).open(&self.dir)
    }

    /// How many bytes they take. Room of one that went while a program still has a map of it is not counted.
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

    /// Takes out files that nobody has open, until there is room for so many bytes more. None: there is not.
    fn make_room(&mut self, bytes: u64, free_bytes: u64) -> Option<Vec<Arc<BackingFile>>> {
        let held = self.bytes();
        let bytes_max = held.saturating_add(free_bytes) / 2;
        let fits = |freed: u64, gone: usize| {
            (held - freed).saturating_add(bytes) <= bytes_max && self.files.len() - gone < FILES_MAX
        };
        let mut unused: Vec<_> = self.files.iter().filter(|(_, file)| Arc::strong_count(file) == 1).collect();
        unused.sort_unstable_by_key(|(_, file)| file.last_use.load(Relaxed));
        let (mut freed, mut going) = (0, Vec::new());
        for (content, file) in unused {
            if fits(freed, going.len()) {
                break;
            }
            freed += file.bytes;
            going.push(*content);
        }
        let is_room = fits(freed, going.len());
        is_room.then(|| going.iter().filter_map(|content| self.files.remove(content)).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::fs::FileExt};

    use super::*;

    fn make(files: &BackingFiles, name: &str, bytes: u64, free_bytes: u64) -> io::Result<Arc<BackingFile>> {
        let copy = |mut file: &File| file.write_all(name.as_bytes());
        files.get_or_make(Digest::of(name.as_bytes()), bytes, || Ok(free_bytes), copy)
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
            files.get_or_make(Digest::of(b"content"), 7, || Ok(0), |_| panic!("copied a second time"));
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
        let failed =
            files.get_or_make(Digest::of(b"x"), 1, || Ok(100), |_| Err(io::Error::other("a disk fails")));
        assert_eq!(failed.unwrap_err().to_string(), "a disk fails");
        assert_eq!(files.bytes(), 0);
        make(&files, "x", 1, 100).unwrap();
    }
}
