//! The remote store of a host that has none, but other hosts: nothing is there, and nothing can be put there.

use std::ops::Range;

use super::{Dated, Failure, Remote};

/// See the module.
#[derive(Debug)]
pub(crate) struct Nowhere;

impl Nowhere {
    fn refused(name: &str) -> Failure {
        let reason = "this host has no remote store; start aetherfsd with --remote".to_owned();
        Failure::Refused { object: name.to_owned(), reason }
    }
}

impl Remote for Nowhere {
    fn read(&self, name: &str, _: Range<u64>) -> Result<Vec<u8>, Failure> {
        Err(Failure::NotFound(name.to_owned()))
    }

    fn read_whole(&self, name: &str, _: u64) -> Result<Vec<u8>, Failure> {
        Err(Failure::NotFound(name.to_owned()))
    }

    fn write(&self, name: &str, _: Vec<u8>) -> Result<(), Failure> {
        Err(Nowhere::refused(name))
    }

    fn create(&self, name: &str, _: Vec<u8>) -> Result<bool, Failure> {
        Err(Nowhere::refused(name))
    }

    fn dated(&self, _: &str) -> Result<Vec<Dated>, Failure> {
        Ok(Vec::new())
    }

    fn remove(&self, name: &str) -> Result<(), Failure> {
        Err(Nowhere::refused(name))
    }

    fn display(&self, name: &str) -> String {
        name.to_owned()
    }
}
