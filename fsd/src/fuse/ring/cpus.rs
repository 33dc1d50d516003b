//! The CPUs that the kernel has queues for: all that could ever be there, not only those that are.

use std::{fs, io};

const POSSIBLE: &str = "/sys/devices/system/cpu/possible";
const ONLINE: &str = "/sys/devices/system/cpu/online";

/// A CPU by its number, which is its queue's, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cpu {
    pub number: u16,
    pub is_online: bool,
}

/// All of them. Error: the kernel does not say.
pub(super) fn possible() -> io::Result<Vec<Cpu>> {
    let read =
        |path| parse(&fs::read_to_string(path)?).ok_or(io::Error::other(format!("{path}: not a list")));
    let online = read(ONLINE)?;
    let cpu = |number| Cpu { number, is_online: online.contains(&number) };
    Ok(read(POSSIBLE)?.into_iter().map(cpu).collect())
}

/// A list as the kernel writes them: `0-3,8`.
fn parse(text: &str) -> Option<Vec<u16>> {
    let mut numbers = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        numbers.extend(first.parse::<u16>().ok()?..=last.parse().ok()?);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_ranges_and_numbers() {
        assert_eq!(parse("0-1\n"), Some(vec![0, 1]));
        assert_eq!(parse("0,2-4,7"), Some(vec![0, 2, 3, 4, 7]));
        assert_eq!((parse(""), parse("0-"), parse("x")), (None, None, None));
    }

    #[test]
    fn this_machine_has_one() {
        assert!(possible().unwrap().iter().any(|cpu| cpu.is_online));
    }
}
