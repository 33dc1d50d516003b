//! Hostile input in short: every fuzz target takes its whole corpus, and some thousands of changed versions of it, each
//! time the same. `docs/testing.md` tells about the long form.

#[path = "../../../ci/fuzz/src/lib.rs"]
mod fuzz;

use std::{collections::BTreeMap, env, fs, path::PathBuf};

/// Bytes of a changed input; longer ones are rarely more interesting.
const INPUT_BYTES_MAX: usize = 16 << 10;

/// What the interesting values of a length, a count or an offset are.
const NUMBERS: [u64; 8] = [0, 1, 0x7f, 0xff, 0xffff, u32::MAX as u64, i64::MAX as u64, u64::MAX];

fn corpus_dir(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../ci/fuzz/corpus").join(target)
}

fn corpus(target: &str) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(corpus_dir(target)).unwrap().map(Result::unwrap);
    files.map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())).collect()
}

/// Runs a target over its corpus, and over `changes` changed versions.
fn replay(target: &str, changes: usize) {
    let run = fuzz::TARGETS.iter().find(|(name, _)| *name == target).unwrap().1;
    let corpus: Vec<(String, Vec<u8>)> = corpus(target).into_iter().collect();
    assert!(!corpus.is_empty(), "{target} has a corpus");
    for (name, input) in &corpus {
        let failed = Failed(format!("{target}: corpus/{name}"), input);
        run(input);
        std::mem::forget(failed);
    }
    let mut state = 0x0bad_cafe;
    for number in 0..changes {
        let at = |state: &mut u64| random(state) as usize % corpus.len();
        let (one, other) = (at(&mut state), at(&mut state));
        let input = change(&corpus[one].1, &corpus[other].1, &mut state);
        let failed = Failed(format!("{target}: change {number} of corpus/{}", corpus[one].0), &input);
        run(&input);
        std::mem::forget(failed);
    }
}

/// Says in the middle of a panic what the input was.
struct Failed<'a>(String, &'a [u8]);

impl Drop for Failed<'_> {
    fn drop(&mut self) {
        eprintln!("{}: {}", self.0, data_encoding::HEXLOWER.encode(self.1));
    }
}

/// The next number of a sequence (splitmix64).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// `input` with one to four changes: a bit, a byte, a number, a piece cut out, doubled, or taken from `other`.
fn change(input: &[u8], other: &[u8], state: &mut u64) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..1 + random(state) % 4 {
        let at = random(state) as usize % (bytes.len() + 1);
        let end = (at + 1 + random(state) as usize % 16).min(bytes.len());
        match random(state) % 7 {
            0 if at < bytes.len() => bytes[at] ^= 1 << (random(state) % 8),
            1 if at < bytes.len() => bytes[at] = random(state) as u8,
            2 => {
                let number = NUMBERS[random(state) as usize % NUMBERS.len()].to_le_bytes();
                let width = [1, 2, 4, 8][random(state) as usize % 4].min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&number[..width]);
            }
            3 => drop(bytes.drain(at..end)),
            4 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            5 if !other.is_empty() => {
                let from = random(state) as usize % other.len();
                let piece = &other[from..(from + end - at).min(other.len())];
                let to = (at + piece.len()).min(bytes.len());
                bytes.splice(at..to, piece.iter().copied());
            }
            _ => bytes.truncate(at),
        }
    }
    bytes.truncate(INPUT_BYTES_MAX);
    bytes
}

#[test]
fn objects() {
    replay("objects", 200_000);
}

#[test]
fn packs() {
    replay("pack", 500);
}

#[test]
fn what_the_remote_store_has() {
    replay("remote", 30_000);
}

#[test]
fn what_a_peer_answers() {
    replay("peer", 100_000);
}

#[test]
fn logs() {
    replay("log", 10_000);
}

#[test]
fn fuse_requests() {
    replay("fuse", 1000);
}

#[test]
fn requests() {
    replay("grpc", 3000);
}

#[test]
fn texts() {
    replay("text", 200_000);
}

/// The seeds are golden: what this version writes is what the corpus begins with, so that a format that changes by
/// accident is noticed here, too. With AETHERFS_WRITE_SEEDS they are written anew.
#[test]
fn the_corpus_begins_with_what_the_program_writes() {
    for (target, _) in fuzz::TARGETS {
        let seeds = fuzz::seeds::of(target);
        let named = seeds.into_iter().enumerate().map(|(number, seed)| (format!("seed-{number:02}"), seed));
        let named: BTreeMap<String, Vec<u8>> = named.collect();
        if env::var_os("AETHERFS_WRITE_SEEDS").is_some() {
            fs::create_dir_all(corpus_dir(target)).unwrap();
            named.iter().for_each(|(name, seed)| fs::write(corpus_dir(target).join(name), seed).unwrap());
        }
        let mut kept = corpus(target);
        kept.retain(|name, _| name.starts_with("seed-"));
        assert!(kept == named, "the seeds of {target} are not those of the corpus");
    }
}
