//! Limits of uses: counted, shared by threads and processes, never too low, and a reason to rotate.

use super::*;
use crate::mechanism::InOut;
use crate::token::Reply;

const LIMIT: u64 = 40;

fn limited(max_uses: u64) -> Rotation {
    Rotation { max_uses, ..Rotation::default() }
}

/// How many uses of a version are taken, as the store has it.
fn taken(fixture: &Fixture, name: &Name) -> Option<u64> {
    let mut taken = None;
    let visit = &mut |attributes: &Attributes| {
        taken = attributes.ulong(CKA_SR_USES).or(taken);
        Ok(())
    };
    fixture.session.visit_latest(&name.template(), visit).unwrap();
    taken
}

/// Signs until it is refused, and tells how often it was not.
fn sign_out(fixture: &Fixture, key: CK_OBJECT_HANDLE) -> u64 {
    let mut count = 0;
    loop {
        match fixture.sign(key) {
            Ok(_) => count += 1,
            Err(kind) => {
                assert_eq!(kind, Kind::KeyFunctionNotPermitted);
                return count;
            }
        }
    }
}

/// Encrypts one byte.
pub(super) fn encrypt(
    session: &Session,
    mechanism: CK_MECHANISM_TYPE,
    key: CK_OBJECT_HANDLE,
) -> crate::error::Result<Vec<u8>> {
    let params = match mechanism {
        CKM_AES_GCM => Params::Gcm { iv: vec![7; 12].into(), aad: Vec::new().into(), tag_bits: 128 },
        _ => Params::None,
    };
    session.encrypt_init(Some(Call { mechanism: mechanism::find(mechanism).unwrap(), params }), key)?;
    let mut out = [0; 128];
    match session.encrypt(InOut::from_slices(b"x", &mut out), false)? {
        Reply::Written(len) => Ok(out[..len].to_vec()),
        other => panic!("{other:?}"),
    }
}

/// Writes how many uses of a version are taken.
fn set_taken(fixture: &Fixture, name: &Name, uses: u64) {
    let change = fixture.session.change(fixture.session.event("test"), |change| {
        for half in change.find_latest(&name.template())? {
            let mut attributes = half.attributes().clone();
            attributes.set(CKA_SR_USES, uses);
            change.update(&half, attributes)?;
        }
        Ok(())
    });
    change.unwrap();
}

#[test]
fn past_its_uses_a_key_is_refused_until_it_is_rotated() {
    let fixture = Fixture::with(limited(LIMIT));
    let name = name("user", "btc");
    let key = fixture.keys().generate(&name).unwrap().version;
    let signature = fixture.sign(key.handle).unwrap();
    assert!(fixture.keys().due().unwrap().is_empty());
    assert_eq!(sign_out(&fixture, key.handle), LIMIT - 1);
    assert_eq!(taken(&fixture, &name), Some(LIMIT));
    let recoverable = fixture.session.sign_recoverable(key.handle, &[7; 32], Room::Bytes(65)).unwrap_err().message();
    assert!(recoverable.contains("version 1 of the btc key of user has been used 40 times"), "{recoverable}");
    let mut public = name.template();
    public.set(CKA_CLASS, CKO_PUBLIC_KEY);
    fixture.verify(fixture.find(&public)[0], &signature).unwrap();
    // It is due by its uses, and its successor starts anew.
    let [due] = &fixture.keys().due().unwrap()[..] else { panic!("one key is due") };
    assert_eq!((due.cause, due.version, due.days_left(START)), (Cause::Uses, 1, 0));
    assert_eq!(fixture.keys().rotate_due(9).unwrap().rotated.len(), 1);
    let new = fixture.keys().active(&name).unwrap();
    assert_eq!((new.number, new.attributes.ulong(CKA_SR_USES)), (2, None));
    assert_eq!(sign_out(&fixture, new.handle), LIMIT);
    // Who names the old version moves coins with it, as often as it takes.
    fixture.sign(key.handle).unwrap();
}

#[test]
fn who_asks_for_a_length_or_may_not_use_a_key_takes_no_use() {
    let fixture = Fixture::with(limited(LIMIT));
    let (coin, secret) = (name("user", "btc"), name("user", "aes256"));
    let [key, wrapping] = [&coin, &secret].map(|name| fixture.keys().generate(name).unwrap().version.handle);
    let wrap = |target, room| {
        let call = Call { mechanism: mechanism::find(CKM_AES_KEY_WRAP_KWP).unwrap(), params: Params::None };
        fixture.session.wrap_key(call, wrapping, target, room)
    };
    for room in [Room::Query, Room::Bytes(64)] {
        let recoverable = fixture.session.sign_recoverable(key, &[7; 32], room).unwrap();
        assert!(matches!(recoverable, Reply::Needs(65)), "{recoverable:?}");
    }
    fixture.session.sign_recoverable(key, &[7; 31], Room::Bytes(65)).unwrap_err();
    assert_eq!(wrap(key, Room::Bytes(999)).unwrap_err().kind(), Kind::KeyUnextractable);
    assert_eq!([taken(&fixture, &coin), taken(&fixture, &secret)], [None, None]);
    fixture.session.sign_recoverable(key, &[7; 32], Room::Bytes(65)).unwrap();
    assert_eq!(taken(&fixture, &coin), Some(1));
}

#[test]
fn a_key_is_due_before_its_uses_run_out() {
    let fixture = Fixture::with(limited(LIMIT));
    let name = name("user", "p256");
    let key = fixture.keys().generate(&name).unwrap().version;
    let mut count = 0;
    while fixture.keys().due().unwrap().is_empty() {
        fixture.sign(key.handle).unwrap();
        count += 1;
    }
    assert!((LIMIT / 2..=LIMIT * 3 / 4).contains(&count), "due after {count} of {LIMIT} uses");
    let info: serde_json::Value = serde_json::from_str(&fixture.keys().info(&name).unwrap()).unwrap();
    assert!(info["due"].as_bool().unwrap() && info["uses"].as_u64() >= Some(count));
    assert_eq!(info["refused_after_uses"].as_u64(), Some(LIMIT));
    assert_eq!(info["policy"]["set_by"]["max_key_uses"].as_str(), Some("configuration"));
}

#[test]
fn keys_without_a_limit_are_not_counted() {
    let fixture = Fixture::new();
    let name = name("user", "p256");
    let key = fixture.keys().generate(&name).unwrap().version;
    for _ in 0..10 {
        fixture.sign(key.handle).unwrap();
    }
    assert_eq!(taken(&fixture, &name), None);
    // Given one, it is counted from then on.
    fixture.keys().set_policy(&name, limited(3)).unwrap();
    assert_eq!(sign_out(&fixture, key.handle), 3);
    fixture.keys().set_policy(&name, limited(5)).unwrap();
    assert_eq!(sign_out(&fixture, key.handle), 2);
    fixture.keys().set_policy(&name, limited(0)).unwrap();
    fixture.sign(key.handle).unwrap();
}

#[test]
fn r36_a_secret_key_is_refused_before_its_random_nonces_may_repeat() {
    let (first, open) = Fixture::in_file(Rotation::default());
    let name = name("user", "aes256");
    let key = first.keys().generate(&name).unwrap().version;
    encrypt(&first.session, CKM_SR_SEALED, key.handle).unwrap();
    let taken = taken(&first, &name).unwrap();
    assert!((1..10_000).contains(&taken), "{taken}");
    assert!(first.keys().due().unwrap().is_empty());
    set_taken(&first, &name, (1 << 32) - 3);
    let [due] = &first.keys().due().unwrap()[..] else { panic!("one key is due") };
    assert!(due.cause == Cause::Uses && due.automatic);
    // Two are left for a fresh process, whichever mechanism makes them.
    let second = open(Rotation::default());
    let key = second.keys().active(&name).unwrap().handle;
    let sealed = encrypt(&second.session, CKM_SR_SEALED, key).unwrap();
    encrypt(&second.session, CKM_AES_GCM, key).unwrap();
    for mechanism in [CKM_SR_SEALED, CKM_AES_GCM, CKM_SR_SEALED] {
        let error = encrypt(&second.session, mechanism, key).unwrap_err();
        assert_eq!(error.kind(), Kind::KeyFunctionNotPermitted);
        assert!(error.message().contains("used 4294967295 times"), "{error}");
    }
    // What is there can be read, and the next version writes on.
    let call = Call { mechanism: mechanism::find(CKM_SR_SEALED).unwrap(), params: Params::None };
    second.session.decrypt_init(Some(call), key).unwrap();
    second.session.decrypt(InOut::from_slices(&sealed, &mut [0; 128]), false).unwrap();
    assert_eq!(second.keys().rotate_due(9).unwrap().rotated.len(), 1);
    encrypt(&second.session, CKM_SR_SEALED, second.keys().active(&name).unwrap().handle).unwrap();
}

#[test]
fn threads_share_a_limit_to_the_last_use() {
    let fixture = Fixture::with(limited(500));
    let name = name("user", "p256");
    let key = fixture.keys().generate(&name).unwrap().version.handle;
    let slot = fixture.session.info().unwrap().slot;
    let count = || {
        let handle = fixture.library.open_session(slot, CKF_SERIAL_SESSION).unwrap();
        let session = fixture.library.session(handle).unwrap();
        let signed = || {
            let call = Call { mechanism: mechanism::find(CKM_ECDSA).unwrap(), params: Params::None };
            session.sign_init(Some(call), key).and_then(|()| session.sign(&[7; 32], Room::Bytes(64))).is_ok()
        };
        (0..).take_while(|_| signed()).count()
    };
    let made: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(count)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    // A thread that finds none may leave before another one gives some back.
    assert!(made <= 500 && made + usize::try_from(sign_out(&fixture, key)).unwrap() == 500, "{made}");
}

#[test]
fn processes_share_a_limit_and_a_crash_counts_too_high() {
    let (first, open) = Fixture::in_file(limited(1000));
    let name = name("user", "p256");
    first.keys().generate(&name).unwrap();
    let second = open(limited(1000));
    let sign = |fixture: &Fixture| fixture.sign(fixture.keys().active(&name).unwrap().handle).unwrap();
    let mut made = 0;
    for _ in 0..100 {
        sign(&first);
        sign(&second);
        made += 2;
    }
    // One of them dies: what it had taken and not made is lost, and counted.
    std::mem::forget(second);
    let third = open(limited(1000));
    let stored = taken(&third, &name).unwrap();
    assert!(stored >= made, "{stored} are counted, {made} were made");
    let rest = sign_out(&third, third.keys().active(&name).unwrap().handle);
    let last = sign_out(&first, first.keys().active(&name).unwrap().handle);
    made += rest + last;
    assert!(made <= 1000 && made > 900, "{made} of 1000 were made");
    assert_eq!(taken(&third, &name), Some(1000));
}

#[test]
fn a_use_with_a_password_of_its_own_is_one_use() {
    let fixture = Fixture::with(limited(LIMIT));
    let name = name("user", "p256");
    let password = || SecureBytes::copy_from(b"a password 1");
    let key = fixture.keys().generate_with_password(&name, &password()).unwrap().version.handle;
    let sign = || {
        let call = Call { mechanism: mechanism::find(CKM_ECDSA).unwrap(), params: Params::None };
        fixture.session.sign_init(Some(call), key)?;
        fixture.session.login(CKU_CONTEXT_SPECIFIC, Some(password()))?;
        fixture.session.sign(&[7; 32], Room::Bytes(64))
    };
    let signed = (0..).map_while(|_| sign().ok()).count();
    assert_eq!(u64::try_from(signed).unwrap(), LIMIT);
    assert_eq!(sign().map(drop).unwrap_err().kind(), Kind::KeyFunctionNotPermitted);
}
