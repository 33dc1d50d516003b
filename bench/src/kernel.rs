//! The state that the kernel is put into: without caches, with memory at hand, with a module's parameter for the time of a run.

use std::{
    fs,
    hint::black_box,
    path::{Path, PathBuf},
};

use crate::{Result, machine, shell};

const PAGE_BYTES: usize = 4096;

/// Drops the page cache, directory entries and inodes. Of dirty pages it drops none: they are written out first.
pub(crate) fn drop_caches() -> Result<()> {
    shell::settle()?;
    Ok(fs::write("/proc/sys/vm/drop_caches", "3")?)
}

/// Has free memory be there, so much or half of it. A hypervisor takes back what its guest freed, and whoever touches such a page
/// first waits for it, 10 to 15 us: so does who fills the page cache of a new mount, or writes files. Whose tree is in memory
/// touches none (docs/decisions/0018).
pub(crate) fn touch_memory(bytes_max: u64) {
    let bytes = bytes_max.min(machine::memory_bytes("MemFree") / 2);
    let mut memory = vec![0_u8; bytes as usize];
    memory.chunks_mut(PAGE_BYTES).for_each(|page| page[0] = 1);
    black_box(memory);
}

/// A parameter that was changed; put back when this is dropped.
pub(crate) struct Parameter {
    path: PathBuf,
    before: String,
}

impl Parameter {
    pub(crate) fn set(path: &Path, value: &str) -> Result<Parameter> {
        let name = |e| format!("{}: {e}", path.display());
        let before = fs::read_to_string(path).map_err(name)?;
        fs::write(path, value).map_err(name)?;
        Ok(Parameter { path: path.to_owned(), before })
    }
}

impl Drop for Parameter {
    fn drop(&mut self) {
        if let Err(e) = fs::write(&self.path, &self.before) {
            eprintln!("aether-bench: {} could not be put back to {}: {e}", self.path.display(), self.before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_put_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("parameter");
        fs::write(&path, "N\n").unwrap();
        let parameter = Parameter::set(&path, "Y").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "Y");
        drop(parameter);
        assert_eq!(fs::read_to_string(&path).unwrap(), "N\n");
        assert!(Parameter::set(&dir.path().join("none"), "Y").is_err());
    }
}
