//! The rules of attributes by object class: which there are, what they are by default, who may set and change them
//! (PKCS #11 v3.2, 4). The classes are tables; the functions below only apply them.

use std::sync::atomic::{AtomicBool, Ordering};

use super::policy::Plaintext;
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::log;
use crate::mechanism::{self, KeyType};
use crate::secret::SecurePrivateKey;
use crate::store::Role;

/// How an object comes into being.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// C_CreateObject.
    Create,
    /// C_GenerateKey, C_GenerateKeyPair, by this mechanism.
    Generate(CK_MECHANISM_TYPE),
    /// C_UnwrapKey.
    Unwrap,
    /// C_DeriveKey; whether the base key was always sensitive, and never extractable.
    Derive {
        /// `CKA_ALWAYS_SENSITIVE` of the base key.
        always_sensitive: bool,
        /// `CKA_NEVER_EXTRACTABLE` of the base key.
        never_extractable: bool,
    },
}

/// What an attribute is when the template does not have it.
#[derive(Debug, Clone, Copy)]
enum Default {
    /// There is none: the attribute stays away.
    None,
    /// The template must have it when the object is created (not generated).
    Required,
    False,
    True,
    Zero,
    Empty,
    /// Whether some mechanism with this flag takes keys of the type.
    Usage(CK_FLAGS),
}

/// Who may change an attribute later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// Nobody.
    Never,
    /// Only in a copy.
    Copy,
    /// Only in a copy, from false to true.
    RaiseInCopy,
    /// Only in a copy, from true to false.
    LowerInCopy,
    /// Anybody who may change the object.
    Free,
    /// Only from false to true.
    Raise,
    /// Only from true to false.
    Lower,
    /// Only the SO.
    So,
    /// Only the token: a template must not have it.
    Token,
}

/// One attribute of a class.
struct Rule {
    id: CK_ATTRIBUTE_TYPE,
    default: Default,
    change: Change,
}

const fn rule(id: CK_ATTRIBUTE_TYPE, default: Default, change: Change) -> Rule {
    Rule { id, default, change }
}

/// Storage objects (4.4).
const STORAGE: &[Rule] = &[
    rule(CKA_CLASS, Default::None, Change::Never),
    rule(CKA_TOKEN, Default::False, Change::Copy),
    rule(CKA_PRIVATE, Default::None, Change::RaiseInCopy),
    rule(CKA_MODIFIABLE, Default::True, Change::LowerInCopy),
    rule(CKA_COPYABLE, Default::True, Change::Lower),
    rule(CKA_DESTROYABLE, Default::True, Change::Free),
    rule(CKA_LABEL, Default::Empty, Change::Free),
    rule(CKA_UNIQUE_ID, Default::None, Change::Token),
];

/// Data objects (4.5).
const DATA: &[Rule] = &[
    rule(CKA_APPLICATION, Default::Empty, Change::Free),
    rule(CKA_OBJECT_ID, Default::Empty, Change::Free),
    rule(CKA_VALUE, Default::Empty, Change::Free),
];

/// Certificate objects (4.6).
const CERTIFICATE: &[Rule] = &[
    rule(CKA_CERTIFICATE_TYPE, Default::Required, Change::Never),
    rule(CKA_TRUSTED, Default::False, Change::So),
    rule(CKA_CERTIFICATE_CATEGORY, Default::Zero, Change::Never),
    rule(CKA_CHECK_VALUE, Default::None, Change::Never),
    rule(CKA_START_DATE, Default::Empty, Change::Free),
    rule(CKA_END_DATE, Default::Empty, Change::Free),
    rule(CKA_PUBLIC_KEY_INFO, Default::Empty, Change::Never),
    rule(CKA_SUBJECT, Default::Empty, Change::Free),
    rule(CKA_ID, Default::Empty, Change::Free),
    rule(CKA_ISSUER, Default::Empty, Change::Free),
    rule(CKA_SERIAL_NUMBER, Default::Empty, Change::Free),
    rule(CKA_VALUE, Default::Empty, Change::Never),
    rule(CKA_URL, Default::Empty, Change::Never),
    rule(CKA_HASH_OF_SUBJECT_PUBLIC_KEY, Default::Empty, Change::Never),
    rule(CKA_HASH_OF_ISSUER_PUBLIC_KEY, Default::Empty, Change::Never),
    rule(CKA_JAVA_MIDP_SECURITY_DOMAIN, Default::Zero, Change::Never),
    rule(CKA_NAME_HASH_ALGORITHM, Default::None, Change::Never),
    rule(CKA_OWNER, Default::None, Change::Never),
    rule(CKA_AC_ISSUER, Default::None, Change::Free),
    rule(CKA_ATTR_TYPES, Default::None, Change::Free),
];

/// All key objects (4.7), and what the versions of managed keys have beside it.
const KEY: &[Rule] = &[
    rule(CKA_KEY_TYPE, Default::Required, Change::Never),
    rule(CKA_ID, Default::Empty, Change::Free),
    rule(CKA_START_DATE, Default::Empty, Change::Free),
    rule(CKA_END_DATE, Default::Empty, Change::Free),
    rule(CKA_DERIVE, Default::False, Change::Free),
    rule(CKA_LOCAL, Default::None, Change::Token),
    rule(CKA_KEY_GEN_MECHANISM, Default::None, Change::Token),
    rule(CKA_ALLOWED_MECHANISMS, Default::None, Change::Never),
    rule(CKA_SR_OWNER, Default::None, Change::Token),
    rule(CKA_SR_ASSET, Default::None, Change::Token),
    rule(CKA_SR_VERSION, Default::None, Change::Token),
    rule(CKA_SR_STATE, Default::None, Change::Token),
    rule(CKA_SR_CREATED, Default::None, Change::Token),
    rule(CKA_SR_ROTATED, Default::None, Change::Token),
    rule(CKA_SR_NEXT_ROTATION, Default::None, Change::Token),
    rule(CKA_SR_ROTATION_INTERVAL, Default::None, Change::Token),
    rule(CKA_SR_MAX_AGE, Default::None, Change::Token),
    rule(CKA_SR_AUTO_ROTATE, Default::None, Change::Token),
    rule(CKA_SR_PASSWORD, Default::None, Change::Token),
    rule(CKA_SR_PASSWORD_TRIES, Default::None, Change::Token),
    rule(CKA_SR_PASSWORD_WRONG, Default::None, Change::Token),
    rule(CKA_SR_MAX_USES, Default::None, Change::Token),
    rule(CKA_SR_USES, Default::None, Change::Token),
    rule(CKA_SR_DATA_KEY, Default::None, Change::Token),
];

/// Public key objects (4.8).
const PUBLIC_KEY: &[Rule] = &[
    rule(CKA_SUBJECT, Default::Empty, Change::Free),
    rule(CKA_ENCRYPT, Default::Usage(CKF_ENCRYPT), Change::Free),
    rule(CKA_VERIFY, Default::Usage(CKF_VERIFY), Change::Free),
    rule(CKA_VERIFY_RECOVER, Default::False, Change::Free),
    rule(CKA_WRAP, Default::False, Change::Free),
    rule(CKA_ENCAPSULATE, Default::False, Change::Free),
    rule(CKA_TRUSTED, Default::False, Change::So),
    rule(CKA_WRAP_TEMPLATE, Default::None, Change::Never),
    rule(CKA_ENCAPSULATE_TEMPLATE, Default::None, Change::Never),
    rule(CKA_PUBLIC_KEY_INFO, Default::None, Change::Never),
];

/// Private key objects (4.9).
const PRIVATE_KEY: &[Rule] = &[
    rule(CKA_SUBJECT, Default::Empty, Change::Free),
    rule(CKA_SENSITIVE, Default::True, Change::Raise),
    rule(CKA_DECRYPT, Default::Usage(CKF_DECRYPT), Change::Free),
    rule(CKA_SIGN, Default::Usage(CKF_SIGN), Change::Free),
    rule(CKA_SIGN_RECOVER, Default::False, Change::Free),
    rule(CKA_UNWRAP, Default::False, Change::Free),
    rule(CKA_DECAPSULATE, Default::False, Change::Free),
    rule(CKA_EXTRACTABLE, Default::False, Change::Lower),
    rule(CKA_ALWAYS_SENSITIVE, Default::None, Change::Token),
    rule(CKA_NEVER_EXTRACTABLE, Default::None, Change::Token),
    rule(CKA_WRAP_WITH_TRUSTED, Default::False, Change::Raise),
    rule(CKA_UNWRAP_TEMPLATE, Default::None, Change::Never),
    rule(CKA_DERIVE_TEMPLATE, Default::None, Change::Never),
    rule(CKA_DECAPSULATE_TEMPLATE, Default::None, Change::Never),
    rule(CKA_ALWAYS_AUTHENTICATE, Default::False, Change::Never),
    rule(CKA_PUBLIC_KEY_INFO, Default::None, Change::Never),
];

/// Secret key objects (4.10).
const SECRET_KEY: &[Rule] = &[
    rule(CKA_SENSITIVE, Default::True, Change::Raise),
    rule(CKA_ENCRYPT, Default::Usage(CKF_ENCRYPT), Change::Free),
    rule(CKA_DECRYPT, Default::Usage(CKF_DECRYPT), Change::Free),
    rule(CKA_SIGN, Default::Usage(CKF_SIGN), Change::Free),
    rule(CKA_VERIFY, Default::Usage(CKF_VERIFY), Change::Free),
    rule(CKA_WRAP, Default::False, Change::Free),
    rule(CKA_UNWRAP, Default::False, Change::Free),
    rule(CKA_EXTRACTABLE, Default::False, Change::Lower),
    rule(CKA_ALWAYS_SENSITIVE, Default::None, Change::Token),
    rule(CKA_NEVER_EXTRACTABLE, Default::None, Change::Token),
    rule(CKA_CHECK_VALUE, Default::None, Change::Never),
    rule(CKA_WRAP_WITH_TRUSTED, Default::False, Change::Raise),
    rule(CKA_TRUSTED, Default::False, Change::So),
    rule(CKA_WRAP_TEMPLATE, Default::None, Change::Never),
    rule(CKA_UNWRAP_TEMPLATE, Default::None, Change::Never),
    rule(CKA_DERIVE_TEMPLATE, Default::None, Change::Never),
];

/// Domain parameter, mechanism, hardware feature and profile objects are the token's own; callers find none that they can make.
fn class_rules(class: CK_OBJECT_CLASS) -> Result<&'static [&'static [Rule]]> {
    match class {
        CKO_DATA => Ok(&[STORAGE, DATA]),
        CKO_CERTIFICATE => Ok(&[STORAGE, CERTIFICATE]),
        CKO_PUBLIC_KEY => Ok(&[STORAGE, KEY, PUBLIC_KEY]),
        CKO_PRIVATE_KEY => Ok(&[STORAGE, KEY, PRIVATE_KEY]),
        CKO_SECRET_KEY => Ok(&[STORAGE, KEY, SECRET_KEY]),
        _ => Err(Error::new(
            Kind::AttributeValueInvalid,
            format!("objects of class {class:#x} cannot be made by a caller"),
        )),
    }
}

/// Tells who may change an attribute of an object of this class and key type; `None` when it does not belong to it.
fn change_of(class: CK_OBJECT_CLASS, key_type: Option<&KeyType>, id: CK_ATTRIBUTE_TYPE) -> Result<Option<Change>> {
    let rule = class_rules(class)?.iter().flat_map(|table| table.iter()).find(|rule| rule.id == id);
    let of_type = || key_type.filter(|row| row.public_attributes.contains(&id)).map(|_| Change::Never);
    Ok(rule.map(|rule| rule.change).or_else(of_type))
}

fn is_key(class: CK_OBJECT_CLASS) -> bool {
    holds_secret(class) || class == CKO_PUBLIC_KEY
}

/// Finds the row of a key's type; an object that is no key has none.
fn key_type_in(class: CK_OBJECT_CLASS, attributes: &Attributes) -> Result<Option<&'static KeyType>> {
    is_key(class).then(|| key_type(attributes)).transpose()
}

/// Tells whether objects of a class hold a secret.
pub fn holds_secret(class: CK_OBJECT_CLASS) -> bool {
    matches!(class, CKO_PRIVATE_KEY | CKO_SECRET_KEY)
}

/// Makes a caller's template complete: checks each attribute, brings it to its canonical form, adds what follows and defaults.
/// For generated, unwrapped and derived keys the secret is there already, and the template has what the mechanism contributed;
/// from a template of C_CreateObject it is taken out.
///
/// # Errors
/// `TemplateIncomplete`, `TemplateInconsistent`, `AttributeTypeInvalid`, `AttributeValueInvalid`, `AttributeReadOnly`, each
/// naming the attribute.
pub fn complete(
    mut template: Attributes,
    mut secret: Option<SecurePrivateKey>,
    origin: Origin,
    plaintext: Plaintext,
    role: Option<Role>,
) -> Result<(Attributes, Option<SecurePrivateKey>)> {
    let class = template.require_ulong(CKA_CLASS)?;
    check_template(&template, class, role)?;
    if matches!(template.get(CKA_ALLOWED_MECHANISMS), Some(Value::Mechanisms(list)) if list.is_empty()) {
        // A list that names nothing restricts nothing: a key that can do nothing is of no use.
        template.take(CKA_ALLOWED_MECHANISMS);
    }
    match origin {
        Origin::Create if holds_secret(class) => {
            check_import_allowed(plaintext)?;
            secret = Some((key_type(&template)?.import)(&mut template)?);
        }
        Origin::Create if class == CKO_PUBLIC_KEY => (key_type(&template)?.normalize_public)(&mut template)?,
        Origin::Create => take_plain_value(&mut template)?,
        _ => {}
    }
    if holds_secret(class) {
        apply_plaintext(&mut template, plaintext);
    }
    if let Some((id, _)) = template.iter().find(|(_, value)| matches!(value, Value::Secret(_))) {
        return Err(named(Kind::TemplateInconsistent, id, "cannot be given for a key that the token makes"));
    }
    add_defaults(&mut template, class, origin)?;
    add_key_facts(&mut template, class, origin)?;
    if let Some(check) = checksum(&template, class, secret.as_ref())? {
        add_check_value(&mut template, check)?;
    }
    Ok((template, secret))
}

/// Checks each attribute of a caller's template against the class.
///
/// # Errors
/// As [`complete`].
pub fn check_template(template: &Attributes, class: CK_OBJECT_CLASS, role: Option<Role>) -> Result<()> {
    let key_type = key_type_in(class, template)?;
    let secrets = key_type.map_or(&[][..], |row| row.secret_attributes);
    for (id, value) in template.iter() {
        match change_of(class, key_type, id)? {
            Some(Change::Token) => {
                return Err(named(Kind::AttributeReadOnly, id, "is set by the token and cannot be in a template"));
            }
            Some(Change::So) if *value == Value::Bool(true) && role != Some(Role::So) => {
                return Err(named(Kind::AttributeReadOnly, id, "can be set to true by the SO alone"));
            }
            Some(_) => check_value(id, value)?,
            None if holds_secret(class) && secrets.contains(&id) => {}
            // Some callers set what does not apply to a class to false.
            None if *value == Value::Bool(false) => {}
            None => return Err(stranger(class, id)),
        }
    }
    Ok(())
}

/// Checks values whose form the standard fixes.
fn check_value(id: CK_ATTRIBUTE_TYPE, value: &Value) -> Result<()> {
    match (id, value) {
        (CKA_START_DATE | CKA_END_DATE, Value::Bytes(date)) => match date.is_empty() || is_date(date) {
            true => Ok(()),
            false => Err(named(Kind::AttributeValueInvalid, id, "is not a date of 8 digits (YYYYMMDD)")),
        },
        (CKA_LABEL, Value::Bytes(label)) if label.len() > 4096 => {
            Err(named(Kind::AttributeValueInvalid, id, "is longer than 4096 bytes"))
        }
        _ => Ok(()),
    }
}

fn is_date(date: &[u8]) -> bool {
    date.len() == 8 && date.iter().all(u8::is_ascii_digit)
}

/// Turns the value of an object that is not a key into plain bytes: it is no secret of a key.
fn take_plain_value(template: &mut Attributes) -> Result<()> {
    if let Some(value) = template.take_secret(CKA_VALUE) {
        template.set(CKA_VALUE, value.expose());
    }
    if template.ulong(CKA_CLASS) == Some(CKO_CERTIFICATE) && !template.has(CKA_VALUE) && !template.has(CKA_URL) {
        return Err(Error::new(Kind::TemplateIncomplete, "a certificate needs CKA_VALUE or CKA_URL"));
    }
    Ok(())
}

fn check_import_allowed(plaintext: Plaintext) -> Result<()> {
    match plaintext {
        Plaintext::Never => Err(Error::new(
            Kind::TemplateInconsistent,
            "this token takes no key material in plaintext: generate or unwrap the key, or set plaintext = \"import\" for the token",
        )),
        Plaintext::Import | Plaintext::Compat => Ok(()),
    }
}

/// Makes the key sensitive whatever the template says, unless the token is set to `compat`.
fn apply_plaintext(template: &mut Attributes, plaintext: Plaintext) {
    if plaintext != Plaintext::Compat && template.bool(CKA_SENSITIVE) == Some(false) {
        // Stock tools ask for it with every key: once is enough.
        static TOLD: AtomicBool = AtomicBool::new(false);
        if !TOLD.swap(true, Ordering::Relaxed) {
            log::warn!(
                "a template asks for CKA_SENSITIVE = false; keys are sensitive all the same (plaintext policy of the token)"
            );
        }
        template.set(CKA_SENSITIVE, true);
    }
}

fn add_defaults(template: &mut Attributes, class: CK_OBJECT_CLASS, origin: Origin) -> Result<()> {
    template.default_to(CKA_PRIVATE, holds_secret(class));
    let usages = template.ulong(CKA_KEY_TYPE).map_or(0, mechanism::usages);
    for rule in class_rules(class)?.iter().flat_map(|table| table.iter()) {
        match rule.default {
            Default::None => {}
            Default::Required if origin == Origin::Create || template.has(rule.id) => {
                template.require_ulong(rule.id)?;
            }
            Default::Required => return Err(named(Kind::TemplateIncomplete, rule.id, "is needed")),
            Default::False => template.default_to(rule.id, false),
            Default::True => template.default_to(rule.id, true),
            Default::Zero => template.default_to(rule.id, 0),
            Default::Empty => template.default_to(rule.id, Vec::new()),
            Default::Usage(flag) => template.default_to(rule.id, usages & flag != 0),
        }
    }
    Ok(())
}

/// Adds what the token itself knows of a key: where it comes from, its public key info, its id.
fn add_key_facts(template: &mut Attributes, class: CK_OBJECT_CLASS, origin: Origin) -> Result<()> {
    let Some(row) = key_type_in(class, template)? else { return Ok(()) };
    template.set(CKA_LOCAL, matches!(origin, Origin::Generate(_)));
    template
        .set(CKA_KEY_GEN_MECHANISM, if let Origin::Generate(id) = origin { id } else { CK_UNAVAILABLE_INFORMATION });
    if let Some(info) = row.public_key_info {
        template.set(CKA_PUBLIC_KEY_INFO, info(template)?);
    }
    if template.bytes(CKA_ID).is_none_or(<[u8]>::is_empty)
        && let Some(source) = row.id_source.and_then(|source| source(template))
    {
        template.set(CKA_ID, mechanism::default_id(&source)?);
    }
    if holds_secret(class) {
        let (sensitive, extractable) = (template.is(CKA_SENSITIVE), template.is(CKA_EXTRACTABLE));
        let (always, never) = match origin {
            Origin::Generate(_) => (sensitive, !extractable),
            Origin::Derive { always_sensitive, never_extractable } => {
                (sensitive && always_sensitive, !extractable && never_extractable)
            }
            Origin::Create | Origin::Unwrap => (false, false),
        };
        template.set(CKA_ALWAYS_SENSITIVE, always);
        template.set(CKA_NEVER_EXTRACTABLE, never);
    }
    Ok(())
}

/// Makes `CKA_CHECK_VALUE` for a secret key, or of a certificate that has its value and not only a URL.
fn checksum(
    template: &Attributes,
    class: CK_OBJECT_CLASS,
    secret: Option<&SecurePrivateKey>,
) -> Result<Option<Vec<u8>>> {
    match (class, secret) {
        (CKO_CERTIFICATE, _) => {
            let value = template.bytes(CKA_VALUE).filter(|value| !value.is_empty());
            value.map(mechanism::generic::hash_check).transpose()
        }
        (_, Some(secret)) => key_type(template)?.check_value.map(|check| check(secret)).transpose(),
        _ => Ok(None),
    }
}

/// Adds a check value. An empty one in the template asks for none; another one must be right.
fn add_check_value(template: &mut Attributes, check: Vec<u8>) -> Result<()> {
    match template.bytes(CKA_CHECK_VALUE) {
        Some([]) => {}
        Some(given) if given != check => {
            return Err(named(Kind::AttributeValueInvalid, CKA_CHECK_VALUE, "is not that of the object"));
        }
        _ => drop(template.set(CKA_CHECK_VALUE, check)),
    }
    Ok(())
}

/// Applies a template to the attributes of an object that is there (C_SetAttributeValue).
///
/// # Errors
/// `ActionProhibited` when the object is not modifiable; `AttributeReadOnly`, `AttributeTypeInvalid` naming the attribute.
pub fn changed(attributes: Attributes, template: Attributes, role: Option<Role>) -> Result<Attributes> {
    check_modifiable(&attributes)?;
    apply(attributes, template, role, false)
}

/// Refuses to change an object that is not modifiable.
///
/// # Errors
/// `ActionProhibited`.
pub fn check_modifiable(attributes: &Attributes) -> Result<()> {
    match attributes.is(CKA_MODIFIABLE) {
        true => Ok(()),
        false => Err(Error::new(Kind::ActionProhibited, "the object is not modifiable (CKA_MODIFIABLE)")),
    }
}

/// Applies a template to the attributes of an object that is copied (C_CopyObject). What the SO trusts is trusted as it is: a
/// copy of a trusted secret key is the SO's to make, and one of anything else is not trusted any more.
///
/// # Errors
/// `ActionProhibited` for a trusted secret key; `AttributeReadOnly`, `AttributeTypeInvalid` naming the attribute.
pub fn copied(mut attributes: Attributes, template: Attributes, role: Option<Role>) -> Result<Attributes> {
    if role != Some(Role::So) && attributes.is(CKA_TRUSTED) {
        if attributes.ulong(CKA_CLASS).is_some_and(holds_secret) {
            return Err(Error::new(Kind::ActionProhibited, "only the SO copies a trusted key (CKA_TRUSTED)"));
        }
        attributes.set(CKA_TRUSTED, false);
    }
    apply(attributes, template, role, true)
}

/// What a trusted key may be used for: the SO has looked at it, so the SO alone changes it.
const USAGES: &[CK_ATTRIBUTE_TYPE] = &[
    CKA_ENCRYPT,
    CKA_DECRYPT,
    CKA_SIGN,
    CKA_SIGN_RECOVER,
    CKA_VERIFY,
    CKA_VERIFY_RECOVER,
    CKA_WRAP,
    CKA_UNWRAP,
    CKA_ENCAPSULATE,
    CKA_DECAPSULATE,
    CKA_DERIVE,
];

fn apply(mut attributes: Attributes, template: Attributes, role: Option<Role>, copy: bool) -> Result<Attributes> {
    let class = attributes.ulong(CKA_CLASS).unwrap_or(CK_UNAVAILABLE_INFORMATION);
    let key_type = key_type_in(class, &attributes)?;
    let (trusted, modifiable) = (attributes.is(CKA_TRUSTED), attributes.is(CKA_MODIFIABLE));
    for (id, value) in template.iter() {
        if attributes.get(id) == Some(value) {
            continue;
        }
        let change = change_of(class, key_type, id)?.ok_or_else(|| stranger(class, id))?;
        if role != Some(Role::So) && trusted && USAGES.contains(&id) {
            return Err(named(
                Kind::AttributeReadOnly,
                id,
                "of a trusted key (CKA_TRUSTED) is changed by the SO alone",
            ));
        }
        let wanted = if let Value::Bool(wanted) = value { *wanted } else { false };
        let allowed = match change {
            // A copy of what is not modifiable is no way to modify it.
            Change::Free => modifiable,
            Change::Copy => copy,
            Change::RaiseInCopy => copy && wanted,
            Change::LowerInCopy => copy && !wanted,
            Change::Raise => wanted,
            Change::Lower => !wanted,
            Change::So => role == Some(Role::So),
            Change::Never | Change::Token => false,
        };
        if !allowed {
            return Err(named(Kind::AttributeReadOnly, id, "cannot be changed so"));
        }
        check_value(id, value)?;
        let value = match value {
            Value::Secret(bytes) => Value::Bytes(bytes.expose().to_vec()),
            other => other.clone(),
        };
        attributes.set(id, value);
    }
    Ok(attributes)
}

/// Finds the row of the template's key type.
///
/// # Errors
/// `TemplateIncomplete`; `AttributeValueInvalid` for a type that is not supported.
pub fn key_type(template: &Attributes) -> Result<&'static KeyType> {
    let id = template.require_ulong(CKA_KEY_TYPE)?;
    let row = mechanism::key_type(id);
    let row =
        row.ok_or_else(|| named(Kind::AttributeValueInvalid, CKA_KEY_TYPE, &format!("{id:#x} is not supported")))?;
    // Types with a public half come as public and private keys, the others as secret keys.
    match (template.ulong(CKA_CLASS) == Some(CKO_SECRET_KEY)) == row.public_key.is_none() {
        true => Ok(row),
        false => Err(named(Kind::TemplateInconsistent, CKA_KEY_TYPE, &format!("{id:#x} does not fit CKA_CLASS"))),
    }
}

/// Sets what a template must have, and refuses another value there.
///
/// # Errors
/// `TemplateInconsistent` naming the attribute.
pub fn fix(template: &mut Attributes, id: CK_ATTRIBUTE_TYPE, value: u64) -> Result<()> {
    match template.set(id, value) {
        None => Ok(()),
        Some(found) if found == Value::Ulong(value) => Ok(()),
        Some(_) => Err(named(Kind::TemplateInconsistent, id, "does not fit the mechanism")),
    }
}

fn class_name(class: CK_OBJECT_CLASS) -> &'static str {
    match class {
        CKO_DATA => "a data object",
        CKO_CERTIFICATE => "a certificate",
        CKO_PUBLIC_KEY => "a public key",
        CKO_PRIVATE_KEY => "a private key",
        CKO_SECRET_KEY => "a secret key",
        _ => "an object of this class",
    }
}

/// The error of an attribute that objects of this class, or keys of this type, do not have.
fn stranger(class: CK_OBJECT_CLASS, id: CK_ATTRIBUTE_TYPE) -> Error {
    let of_type = if is_key(class) { " of this type" } else { "" };
    named(Kind::AttributeTypeInvalid, id, &format!("does not belong to {}{of_type}", class_name(class)))
}

fn named(kind: Kind, id: CK_ATTRIBUTE_TYPE, how: &str) -> Error {
    Error::new(kind, format!("{} {how}", attribute_name(id)))
}
