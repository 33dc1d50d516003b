//! What a token allows, and what nobody makes it allow.

use biscuit_auth::builder::{fact, string};

use super::*;

const ID: &str = "tok_0123456789abcdef";
const END: u64 = 1_000_000;

fn session(digit: char) -> SessionRef {
    format!("ses_{}", digit.to_string().repeat(16)).parse().unwrap()
}

fn rights(rights: &[Right]) -> BTreeSet<Right> {
    rights.iter().copied().collect()
}

fn token(key: &RootKey) -> String {
    mint(
        key,
        ID,
        rights(&[Right::Read, Right::Fork]),
        Some(BTreeSet::from([session('1'), session('2')])),
        END,
    )
    .unwrap()
}

fn to_read() -> Narrowing {
    Narrowing { rights: Some(rights(&[Right::Read])), ..Narrowing::default() }
}

#[test]
fn a_token_says_what_it_was_made_with() {
    let key = RootKey::generate();
    let text = token(&key);
    let told = verify(&text, &key, END - 1).unwrap();
    assert_eq!((told.id.as_str(), told.grant.expires_secs), (ID, END));
    assert_eq!(told.grant.rights, rights(&[Right::Read, Right::Fork]));
    assert_eq!(told.grant.sessions, [BTreeSet::from([session('1'), session('2')])]);
    assert_eq!(inspect(&format!("{text}\n")).unwrap(), told);
    let all = mint(&key, ID, rights(&Right::ALL), None, END).unwrap();
    assert_eq!(verify(&all, &key, 0).unwrap().grant.sessions, []);
}

#[test]
fn it_is_over_at_its_end() {
    let key = RootKey::generate();
    assert_eq!(verify(&token(&key), &key, END), Err(TokenError::Expired));
    let by = Narrowing { expires_secs: Some(10), ..Narrowing::default() };
    let narrow = narrow(&token(&key), by).unwrap();
    assert!(verify(&narrow, &key, 9).is_ok());
    assert_eq!(verify(&narrow, &key, 10), Err(TokenError::Expired));
}

#[test]
fn what_is_narrowed_stays_narrow() {
    let key = RootKey::generate();
    let by = Narrowing { sessions: Some(BTreeSet::from([session('2'), session('3')])), ..to_read() };
    let narrower = narrow(&token(&key), by).unwrap();
    let told = verify(&narrower, &key, 0).unwrap();
    assert_eq!((told.id.as_str(), told.grant.rights), (ID, rights(&[Right::Read])));
    assert_eq!(told.grant.sessions.len(), 2);
    let fork = Narrowing { rights: Some(rights(&[Right::Fork])), ..Narrowing::default() };
    assert_eq!(narrow(&narrower, fork), Err(TokenError::NotAllowed(Right::Fork)));
    // Whoever writes the block by hand gets no further.
    let wide = BlockBuilder::new().fact(fact("right", &[string("fork")])).unwrap();
    let wide = UnverifiedBiscuit::from_base64(&narrower).unwrap().append(wide).unwrap().to_base64().unwrap();
    assert_eq!(verify(&wide, &key, 0).unwrap().grant.rights, rights(&[]));
    let late = narrow(&narrower, Narrowing { expires_secs: Some(2 * END), ..Narrowing::default() }).unwrap();
    assert_eq!(verify(&late, &key, END), Err(TokenError::Expired));
    assert_eq!(narrow(&narrower, Narrowing::default()), Err(TokenError::NothingToNarrow));
}

#[test]
fn another_key_does_not_sign() {
    let (key, other) = (RootKey::generate(), RootKey::generate());
    let text = token(&other);
    assert_eq!(verify(&text, &key, 0), Err(TokenError::NotSigned));
    assert_eq!(verify(&narrow(&text, to_read()).unwrap(), &key, 0), Err(TokenError::NotSigned));
    assert!(inspect(&text).is_ok());
}

#[test]
fn a_token_that_was_changed_anywhere_is_refused() {
    let key = RootKey::generate();
    let text = narrow(&token(&key), to_read()).unwrap();
    for at in 0..text.len() {
        let mut changed = text.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        // Base64 may spell a last byte in more ways than one, but then it is the same token.
        if let Ok(told) = verify(&changed, &key, 0) {
            assert_eq!(told, verify(&text, &key, 0).unwrap(), "at {at}");
        }
        assert!(verify(&text[..at], &key, 0).is_err());
    }
}

#[test]
fn garbage_is_refused_before_it_is_read() {
    let key = RootKey::generate();
    assert_eq!(verify(" \n", &key, 0), Err(TokenError::Empty));
    assert_eq!(
        verify(&"A".repeat(TOKEN_BYTES_MAX + 1), &key, 0),
        Err(TokenError::TooLong(TOKEN_BYTES_MAX + 1))
    );
    for text in ["x", "AAAA", "Bearer abc", "\u{fc}", &"A".repeat(TOKEN_BYTES_MAX)] {
        assert_eq!(verify(text, &key, 0), Err(TokenError::Malformed), "{text}");
        assert_eq!(inspect(text), Err(TokenError::Malformed));
    }
}

#[test]
fn blocks_that_say_more_are_refused() {
    let key = RootKey::generate();
    let append = |code: &str| {
        let block = BlockBuilder::new().code(code).unwrap();
        UnverifiedBiscuit::from_base64(token(&key)).unwrap().append(block).unwrap().to_base64().unwrap()
    };
    let codes = [
        "check if true",
        "check if right(\"read\")",
        "right($r) <- id($r)",
        "user(\"root\")",
        "right(\"everything\")",
        "id(\"tok_other\")",
        "right([\"read\"])",
    ];
    for code in codes {
        assert_eq!(verify(&append(code), &key, 0), Err(TokenError::UnknownBlock(1)), "{code}");
    }
    assert!(verify(&append(""), &key, 0).is_ok());
}

#[test]
fn what_the_daemon_never_signs_is_refused_though_it_is_signed() {
    let key = RootKey::generate();
    let signed =
        |code: &str| BiscuitBuilder::new().code(code).unwrap().build(&key.0).unwrap().to_base64().unwrap();
    for code in [
        "right(\"read\"); expires(9)",
        "id(\"t\"); right(\"read\")",
        "id(\"t\"); expires(9)",
        "check if true",
    ] {
        assert_eq!(verify(&signed(code), &key, 0), Err(TokenError::UnknownBlock(0)), "{code}");
    }
    assert!(verify(&signed("id(\"t\"); right(\"read\"); expires(9)"), &key, 0).is_ok());
}

#[test]
fn sessions_and_blocks_are_bounded() {
    let key = RootKey::generate();
    let many: BTreeSet<SessionRef> =
        (0..=crate::SESSIONS_MAX).map(|n| format!("ses_{n:016}").parse().unwrap()).collect();
    let of = |sessions| mint(&key, ID, rights(&Right::ALL), Some(sessions), END);
    assert_eq!(of(many.clone()), Err(TokenError::TooManySessions(crate::SESSIONS_MAX + 1)));
    let most: BTreeSet<_> = many.into_iter().take(crate::SESSIONS_MAX).collect();
    let mut text = of(most).unwrap();
    assert!(verify(&text, &key, 0).is_ok() && text.len() < TOKEN_BYTES_MAX / 2, "{} bytes", text.len());
    for _ in 1..BLOCKS_MAX {
        text = narrow(&text, to_read()).unwrap();
    }
    assert!(verify(&text, &key, 0).is_ok(), "{} bytes", text.len());
    assert_eq!(narrow(&text, to_read()), Err(TokenError::TooManyBlocks));
    let block = BlockBuilder::new();
    let more = UnverifiedBiscuit::from_base64(&text).unwrap().append(block).unwrap().to_base64().unwrap();
    assert_eq!(verify(&more, &key, 0), Err(TokenError::TooManyBlocks));
}

#[test]
fn a_sealed_token_is_good_and_cannot_be_narrowed() {
    let key = RootKey::generate();
    let sealed =
        Biscuit::from_base64(token(&key), key.0.public()).unwrap().seal().unwrap().to_base64().unwrap();
    assert!(verify(&sealed, &key, 0).is_ok());
    assert_eq!(narrow(&sealed, to_read()), Err(TokenError::Sealed));
}
