//! What the engine's tests share: a clock that is set by hand, chance from a seed, engines on simulated and real disks, and
//! a small base to work on.

pub mod ambient;
pub mod base;
pub mod counting;
pub mod faulty;
pub mod host;
pub mod template;

use cas::Kind;
use fsd::session::{Name, New};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// A name that is one.
pub fn name(text: &str) -> Name {
    Name::parse(text.as_bytes()).unwrap()
}

/// A file as most programs make it.
pub fn file() -> New {
    New { kind: Kind::File, mode: 0o644, uid: 0, gid: 0, rdev: 0, umask: 0, target: None }
}

/// The next number of a sequence (splitmix64).
pub fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A number from the environment.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A runner of `cases` cases that tries the same ones every time, unless `AETHERFS_MODEL_SEED` says otherwise.
pub fn runner(cases: u64) -> TestRunner {
    seeded(setting("AETHERFS_MODEL_SEED", 1), cases)
}

/// A runner of `cases` cases from a seed.
pub fn seeded(mut seed: u64, cases: u64) -> TestRunner {
    let mut bytes = [0; 32];
    bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&random(&mut seed).to_le_bytes()));
    let config = Config {
        cases: cases as u32,
        failure_persistence: None,
        max_shrink_iters: 3000,
        ..Config::default()
    };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}
