//! What is sealed here is opened by a script that was written from `docs/format.md` alone, and the other way round.

use std::path::Path;
use std::process::Command;

use data_encoding::HEXLOWER as HEX;
use serde_json::{Value, json};

use super::super::token_key::Purpose;
use super::*;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/check_open_token.py");
const LABEL: &str = "кошелёк";

/// Reads a hash of the document's audit record.
fn audit_hash(document: &str, what: &str) -> [u8; 32] {
    let hash = document.split(&format!("| {what} | `")).nth(1).unwrap().split('`').next().unwrap();
    HEX.decode(hash.as_bytes()).unwrap().try_into().unwrap()
}

#[test]
fn derivations_are_those_that_the_document_states() {
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/format.md")).unwrap();
    let key = TokenKey::from_bytes(SecureBytes::copy_from(&std::array::from_fn::<u8, 32, _>(|i| i as u8))).unwrap();
    let uid = std::array::from_fn(|i| 0xA0 + i as u8);
    let object_key = |purpose| HEX.encode(&key.object_key(purpose, &uid)[..]);
    for (what, value) in [
        ("key id", HEX.encode(key.id())),
        ("backup key", HEX.encode(&key.backup_key()[..])),
        ("object key, purpose 1", object_key(Purpose::Attributes)),
        ("object key, purpose 2", object_key(Purpose::Secret)),
        ("object key, purpose 3", object_key(Purpose::Tag)),
        ("tag", HEX.encode(&key.audit_tag(&audit_hash(&document, "hash")))),
        ("tag of the end", HEX.encode(&key.audit_tag(&audit_hash(&document, "end")))),
        ("private index digest (8), field 3, value \"wallet\"", HEX.encode(&key.index_digest(3, b"wallet"))),
        (
            "public index digest (8), serial \"0123456789ABCDEF\", field 3, value \"wallet\"",
            HEX.encode(&public_index_digest(b"0123456789ABCDEF", 3, b"wallet")),
        ),
    ] {
        assert!(document.contains(&format!("| {what} | `{value}` |")), "{what}: {value}");
    }
    for (field, attribute) in INDEX_FIELDS {
        let row = format!("| {field} | {} |", crate::ck::attribute_name(attribute));
        assert!(document.contains(&row), "{row}");
    }
}

#[test]
#[allow(clippy::print_stderr)]
fn a_script_written_from_the_document_opens_what_is_sealed() {
    let Some(python) = std::env::var_os("STRONGROOM_TEST_PYTHON") else {
        eprintln!("skipped: STRONGROOM_TEST_PYTHON names no Python with the packages cryptography and argon2-cffi");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let file = |name| directory.path().join(name);
    let (objects, sealed, keys) = (file("objects.json"), file("sealed.json"), file("master.keys"));
    let run = |arguments: &[&std::ffi::OsStr]| {
        let mut command = Command::new(&python);
        let output = command.arg("-B").arg(SCRIPT).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    run(&["make".as_ref(), objects.as_ref()]);
    let made: Value = serde_json::from_slice(&std::fs::read(&objects).unwrap()).unwrap();
    std::fs::write(&sealed, seal_all(&made, &keys).to_string()).unwrap();
    let said = run(&["check".as_ref(), objects.as_ref(), sealed.as_ref()]);
    assert_eq!(said, format!("{} objects opened from the document alone\n", made.as_array().unwrap().len()));
}

/// Seals the objects that the script made under a new token key.
fn seal_all(made: &Value, key_file: &Path) -> Value {
    let provider = LocalKms::from_file(key_file);
    provider.make_first_key(&|| Ok(())).unwrap();
    let sealer = Sealer::new(Arc::new(provider), Argon2Params::new(1024, 2, 3).unwrap());
    let key = TokenKey::generate().unwrap();
    let envelope = |role, pin| {
        let id = EnvelopeId { token: SERIAL, label: LABEL, role };
        HEX.encode(&seal(&sealer, &id, pin, &key))
    };
    let (pin, so_pin) = ("верная лошадь", "so horse battery");
    json!({
        "serial": std::str::from_utf8(&SERIAL).unwrap(),
        "label": LABEL,
        "pin": pin,
        "so_pin": so_pin,
        "key_file": key_file,
        "key_id": HEX.encode(key.id()),
        "user_envelope": envelope(Role::User, pin),
        "so_envelope": envelope(Role::So, so_pin),
        "objects": made.as_array().unwrap().iter().map(|object| seal_one(&key, object)).collect::<Vec<_>>(),
        "index": [index(&key, 3, b"label"), index(&key, 1, &3_u64.to_be_bytes()), index(&key, 4, b"")],
    })
}

fn seal_one(key: &TokenKey, object: &Value) -> Value {
    let uid = HEX.decode(object["uid"].as_str().unwrap().as_bytes()).unwrap().try_into().unwrap();
    let id = ObjectId { token: SERIAL, uid, revision: object["revision"].as_u64().unwrap() };
    let encoded = encode(&object["attributes"]);
    let private = object["private"].as_bool().unwrap();
    let secret = object["secret"].as_str().map(|hex| {
        let secret = SecurePrivateKey::new(SecureBytes::take(HEX.decode(hex.as_bytes()).unwrap()));
        HEX.encode(&seal_secret(key, &id, &encoded, &secret).unwrap())
    });
    let attributes = HEX.encode(&seal_attributes(key, &id, private, &encoded).unwrap());
    json!({ "uid": object["uid"], "revision": object["revision"], "attributes": attributes, "secret": secret })
}

/// Encodes attributes as chapter 6 of the document says.
fn encode(attributes: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    for row in attributes.as_array().unwrap() {
        let (kind, value) = (row[1].as_u64().unwrap() as u8, &row[2]);
        let value = match kind {
            0 => vec![u8::from(value.as_bool().unwrap())],
            1 => value.as_u64().unwrap().to_be_bytes().to_vec(),
            2 => HEX.decode(value.as_str().unwrap().as_bytes()).unwrap(),
            3 => value.as_array().unwrap().iter().flat_map(|item| item.as_u64().unwrap().to_be_bytes()).collect(),
            _ => encode(value),
        };
        bytes.extend_from_slice(&row[0].as_u64().unwrap().to_be_bytes());
        bytes.push(kind);
        bytes.extend_from_slice(&(value.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&value);
    }
    bytes
}

fn index(key: &TokenKey, field: u8, value: &[u8]) -> Value {
    json!({
        "field": field,
        "value": HEX.encode(value),
        "private": HEX.encode(&key.index_digest(field, value)),
        "public": HEX.encode(&public_index_digest(&SERIAL, field, value)),
    })
}
