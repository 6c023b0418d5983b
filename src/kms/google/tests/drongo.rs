//! The provider on an emulator that others wrote, drongo: Encrypt and Decrypt in the REST form, with authenticated data and CRC-32C,
//! and the errors of both. It keeps one version of a key, rotates none and ciphers nothing, so the rest is proven on the double.

use super::*;
use crate::kms::blob::{frame, unframe};

/// Makes a key, and gives the provider that uses it.
fn kms(key: &str) -> GoogleKms {
    let port = Emulator::shared("drongo").port;
    let ask = |path: &str, body: &Value| {
        let (status, answer) = exchange(port, "POST", path, body.to_string().as_bytes());
        assert!(matches!(status, 200 | 409), "{path}: {}", String::from_utf8_lossy(&answer));
    };
    ask(&format!("{LOCATION}/keyRings?keyRingId=r"), &json!({}));
    ask(&format!("{LOCATION}/keyRings/r/cryptoKeys?cryptoKeyId={key}"), &json!({"purpose": "ENCRYPT_DECRYPT"}));
    GoogleKms::new(
        &Settings::new("cloud", "google")
            .with("key", Setting::Text(format!("{}/keyRings/r/cryptoKeys/{key}", &LOCATION[4..])))
            .with("endpoint", Setting::Text(format!("http://127.0.0.1:{port}")))
            .with("anonymous", Setting::Flag(true))
            .with("timeout_seconds", Setting::Number(60)),
    )
    .unwrap()
}

#[test]
fn what_is_wrapped_unwraps_under_its_key_and_context_alone() {
    let (kms, other) = (kms("one"), kms("other"));
    let wrapped = kms.wrap_key(&secret(), &CONTEXT).unwrap();
    assert_eq!(wrapped.master_key.version, 1);
    assert_eq!(kms.unwrap_key(&wrapped, &CONTEXT).unwrap(), secret());
    let made = kms.generate_data_key(&CONTEXT).unwrap();
    assert_eq!((made.key.len(), kms.unwrap_key(&made.wrapped, &CONTEXT).unwrap()), (DATA_KEY_LEN, made.key));
    // Our own frame is told before the service is asked; made anew for another context, the service tells it.
    let elsewhere = Context { token: "FEDCBA9876543210", ..CONTEXT };
    let framed = kms.unwrap_key(&wrapped, &elsewhere).unwrap_err();
    assert_eq!(framed.kms_fault(), Some(KmsFault::WrongContext));
    let blob = frame(&elsewhere, unframe(&wrapped.blob, &CONTEXT).unwrap()).unwrap();
    let moved = Wrapped { blob, ..wrapped.clone() };
    assert!(matches!(fault(kms.unwrap_key(&moved, &elsewhere)), KmsFault::Tampered | KmsFault::WrongContext));
    // Likewise under another key, a key that is not there, and cut off.
    let master_key = other.wrap_key(&secret(), &CONTEXT).unwrap().master_key;
    let swapped = Wrapped { master_key, ..wrapped.clone() };
    assert!(matches!(fault(other.unwrap_key(&swapped, &CONTEXT)), KmsFault::Tampered | KmsFault::WrongContext));
    assert_eq!(fault(kms.unwrap_key(&swapped, &CONTEXT)), KmsFault::NotFound);
    let gone = MasterKeyId { key: format!("{}-gone", wrapped.master_key.key), ..wrapped.master_key.clone() };
    assert_eq!(fault(kms.unwrap_key(&Wrapped { master_key: gone, ..wrapped.clone() }, &CONTEXT)), KmsFault::NotFound);
    let cut = wrapped.blob[..wrapped.blob.len() - 9].to_vec();
    assert_eq!(fault(kms.unwrap_key(&Wrapped { blob: cut, ..wrapped }, &CONTEXT)), KmsFault::Tampered);
}

#[test]
fn the_key_is_described_and_a_rotation_that_it_does_not_know_changes_nothing() {
    let kms = kms("described");
    let described = kms.describe().unwrap();
    assert_eq!((described.version.as_str(), described.state), ("1", crate::kms::KeyState::Enabled));
    assert_eq!(described.algorithms, ["GOOGLE_SYMMETRIC_ENCRYPTION"]);
    kms.health().unwrap();
    let wrapped = kms.wrap_key(&secret(), &CONTEXT).unwrap();
    fault(kms.rotate_master_key());
    assert_eq!(kms.unwrap_key(&wrapped, &CONTEXT).unwrap(), secret());
}
