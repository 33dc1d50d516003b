//! Tokens that are made, revoked, and remembered.

use cas::sim::SimDisk;

use super::*;

fn entry() -> Entry {
    Entry {
        rights: BTreeSet::from([Right::Read, Right::Manage]),
        sessions: BTreeSet::from([SessionId([1; 10]), SessionId([2; 10])]),
        created_secs: 5,
        expires_secs: 100,
        is_revoked: false,
    }
}

fn tokens(disk: &SimDisk) -> Tokens {
    Tokens::new(Arc::new(disk.clone()))
}

#[test]
fn what_was_made_and_revoked_survives_power_loss() {
    let disk = SimDisk::new(1);
    let own = tokens(&disk);
    let (one, one_id) = own.create([1; 10], entry(), 10).unwrap();
    let (two, two_id) = own.create([2; 10], entry(), 10).unwrap();
    assert_eq!(own.verify(&one, 10).unwrap().unwrap().id, one_id);
    assert!(own.revoke(&one_id, 10).unwrap().unwrap().is_revoked);
    assert!(matches!(own.verify(&one, 10).unwrap(), Err(Refusal::Revoked)));

    let after = tokens(&disk.crash(&mut || 1));
    assert!(matches!(after.verify(&one, 10).unwrap(), Err(Refusal::Revoked)));
    assert_eq!(after.verify(&two, 10).unwrap().unwrap().id, two_id);
    let list = after.list(10).unwrap();
    assert_eq!(list, [(one_id, Entry { is_revoked: true, ..entry() }), (two_id, entry())]);
    assert_eq!(after.revoke("tok_none", 10).unwrap(), None);
}

#[test]
fn what_was_narrowed_goes_with_what_it_was_narrowed_from() {
    let disk = SimDisk::new(1);
    let own = tokens(&disk);
    let (text, id) = own.create([1; 10], entry(), 10).unwrap();
    let by = token::Narrowing { expires_secs: Some(50), ..token::Narrowing::default() };
    let narrow = token::narrow(&text, by).unwrap();
    assert!(own.verify(&narrow, 10).unwrap().is_ok());
    own.revoke(&id, 10).unwrap();
    assert!(matches!(own.verify(&narrow, 10).unwrap(), Err(Refusal::Revoked)));
}

#[test]
fn a_token_that_is_not_on_the_list_does_not_count() {
    let disk = SimDisk::new(1);
    let own = tokens(&disk);
    assert!(matches!(own.verify("x", 10).unwrap(), Err(Refusal::Bad(TokenError::NotSigned))));
    let (text, _) = own.create([1; 10], entry(), 10).unwrap();
    // Signed by the right key all the same.
    let key = own.known().unwrap().key.clone().unwrap();
    let forged = token::mint(&key, &name([9; 10]), BTreeSet::from([Right::Read]), None, 100).unwrap();
    assert!(matches!(own.verify(&forged, 10).unwrap(), Err(Refusal::Revoked)));
    // Nor does one that was dropped, though the clock goes back.
    assert!(matches!(own.verify(&text, 100).unwrap(), Err(Refusal::Bad(TokenError::Expired))));
    own.create([2; 10], Entry { expires_secs: 900, ..entry() }, 100).unwrap();
    assert!(matches!(own.verify(&text, 10).unwrap(), Err(Refusal::Revoked)));
}

#[test]
fn there_are_at_most_so_many() {
    let disk = SimDisk::new(1);
    let own = tokens(&disk);
    let list = (0..TOKENS_MAX as u64).map(|n| {
        let mut id = [0; 10];
        id[..8].copy_from_slice(&n.to_le_bytes());
        (id, entry())
    });
    own.make_dir().unwrap();
    own.save(Known { key: None, list: list.collect() }).unwrap();
    assert!(matches!(own.create([9; 10], entry(), 10), Err(Error::TooMany { max: TOKENS_MAX, .. })));
    own.create([9; 10], Entry { expires_secs: 200, ..entry() }, 100).unwrap();
    assert_eq!(own.list(100).unwrap().len(), 1);
}

#[test]
fn the_largest_list_fits() {
    let sessions: BTreeSet<_> = (0..token::SESSIONS_MAX as u8).map(|n| SessionId([n; 10])).collect();
    let list = (0..TOKENS_MAX as u32).map(|n| {
        let mut id = [0; 10];
        id[..4].copy_from_slice(&n.to_le_bytes());
        (id, Entry { sessions: sessions.clone(), ..entry() })
    });
    assert!((encode(&list.collect()).len() as u64) < FILE_BYTES_MAX);
}

#[test]
fn damage_is_told() {
    let list = BTreeMap::from([([1; 10], entry()), ([2; 10], Entry { is_revoked: true, ..entry() })]);
    let bytes = encode(&list);
    assert_eq!(decode(&bytes), Some(list));
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        assert_eq!(decode(&flipped), None, "at {at}");
        assert_eq!(decode(&bytes[..at]), None);
    }
    let disk = SimDisk::new(1);
    tokens(&disk).create([1; 10], entry(), 10).unwrap();
    disk.open(LIST, cas::disk::Open::Write).unwrap().write_at(b"?", 0).unwrap();
    assert!(matches!(tokens(&disk).verify("x", 10), Err(Error::Damaged { .. })));
}
