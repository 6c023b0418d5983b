//! Attributes as Rust values: the typed map that every layer works with, and its canonical encoding.
//!
//! `abi` makes a map from a caller's template and writes values back in C form; `token` applies the rules of the object
//! classes; `seal` only sees the encoding, which `docs/format.md` states byte by byte.

use super::*;
use crate::error::{Error, Kind, Result};
use crate::secret::SecureBytes;
use zeroize::{Zeroize, Zeroizing};

/// What type of value an attribute has in C (PKCS #11 v3.2, 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// `CK_BBOOL`.
    Bool,
    /// `CK_ULONG` and its aliases.
    Ulong,
    /// Bytes of any length: text, big integers, DER, dates.
    Bytes,
    /// Bytes that are part of a secret when they belong to a key.
    Secret,
    /// A list of `CK_MECHANISM_TYPE`.
    Mechanisms,
    /// A nested template.
    Template,
}

/// The value of one attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `CK_BBOOL`.
    Bool(bool),
    /// `CK_ULONG` and its aliases.
    Ulong(u64),
    /// Bytes of any length.
    Bytes(Vec<u8>),
    /// Secret bytes; they come in through a template and are never stored among the attributes.
    Secret(SecureBytes),
    /// A list of mechanism types.
    Mechanisms(Vec<u64>),
    /// A nested template.
    Template(Attributes),
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Ulong(value)
    }
}

impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Self::Bytes(value)
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Self {
        Self::Bytes(value.to_vec())
    }
}

impl From<SecureBytes> for Value {
    fn from(value: SecureBytes) -> Self {
        Self::Secret(value)
    }
}

impl Value {
    /// Copies bytes whose length a caller of the library decides.
    ///
    /// # Errors
    /// `HostMemory` when there is not so much memory.
    pub fn try_bytes(bytes: &[u8]) -> Result<Self> {
        let mut copy = Vec::new();
        copy.try_reserve_exact(bytes.len())?;
        copy.extend_from_slice(bytes);
        Ok(Self::Bytes(copy))
    }

    /// Reads a list of mechanism types, each of 8 bytes that `read` makes a number of; `None` when the last is cut off.
    ///
    /// # Errors
    /// `HostMemory` when there is not so much memory.
    pub fn try_mechanisms(bytes: &[u8], read: fn([u8; 8]) -> u64) -> Result<Option<Self>> {
        let (numbers, []) = bytes.as_chunks() else { return Ok(None) };
        let mut list = Vec::new();
        list.try_reserve_exact(numbers.len())?;
        list.extend(numbers.iter().map(|number| read(*number)));
        Ok(Some(Self::Mechanisms(list)))
    }

    /// Wipes bytes, which may be the content of a private object; other values wipe themselves or have nothing to hide.
    pub fn wipe(&mut self) {
        if let Self::Bytes(bytes) = self {
            bytes.zeroize();
        }
    }

    /// Tells how many bytes the value takes in the canonical encoding, without its type, form and length.
    fn encoded_len(&self) -> usize {
        match self {
            Self::Bool(_) => 1,
            Self::Ulong(_) => 8,
            Self::Bytes(bytes) => bytes.len(),
            Self::Secret(_) => 0,
            Self::Mechanisms(list) => list.len().saturating_mul(8),
            Self::Template(nested) => nested.encoded_len(),
        }
    }
}

/// Attribute types whose value is not plain bytes; all others are [`ValueKind::Bytes`].
const KINDS: &[(CK_ATTRIBUTE_TYPE, ValueKind)] = &[
    (CKA_CLASS, ValueKind::Ulong),
    (CKA_TOKEN, ValueKind::Bool),
    (CKA_PRIVATE, ValueKind::Bool),
    (CKA_VALUE, ValueKind::Secret),
    (CKA_CERTIFICATE_TYPE, ValueKind::Ulong),
    (CKA_TRUSTED, ValueKind::Bool),
    (CKA_CERTIFICATE_CATEGORY, ValueKind::Ulong),
    (CKA_JAVA_MIDP_SECURITY_DOMAIN, ValueKind::Ulong),
    (CKA_NAME_HASH_ALGORITHM, ValueKind::Ulong),
    (CKA_KEY_TYPE, ValueKind::Ulong),
    (CKA_SENSITIVE, ValueKind::Bool),
    (CKA_ENCRYPT, ValueKind::Bool),
    (CKA_DECRYPT, ValueKind::Bool),
    (CKA_WRAP, ValueKind::Bool),
    (CKA_UNWRAP, ValueKind::Bool),
    (CKA_SIGN, ValueKind::Bool),
    (CKA_SIGN_RECOVER, ValueKind::Bool),
    (CKA_VERIFY, ValueKind::Bool),
    (CKA_VERIFY_RECOVER, ValueKind::Bool),
    (CKA_DERIVE, ValueKind::Bool),
    (CKA_ENCAPSULATE, ValueKind::Bool),
    (CKA_DECAPSULATE, ValueKind::Bool),
    (CKA_MODULUS_BITS, ValueKind::Ulong),
    (CKA_PRIVATE_EXPONENT, ValueKind::Secret),
    (CKA_PRIME_1, ValueKind::Secret),
    (CKA_PRIME_2, ValueKind::Secret),
    (CKA_EXPONENT_1, ValueKind::Secret),
    (CKA_EXPONENT_2, ValueKind::Secret),
    (CKA_COEFFICIENT, ValueKind::Secret),
    (CKA_SEED, ValueKind::Secret),
    (CKA_VALUE_BITS, ValueKind::Ulong),
    (CKA_VALUE_LEN, ValueKind::Ulong),
    (CKA_EXTRACTABLE, ValueKind::Bool),
    (CKA_LOCAL, ValueKind::Bool),
    (CKA_NEVER_EXTRACTABLE, ValueKind::Bool),
    (CKA_ALWAYS_SENSITIVE, ValueKind::Bool),
    (CKA_KEY_GEN_MECHANISM, ValueKind::Ulong),
    (CKA_MODIFIABLE, ValueKind::Bool),
    (CKA_COPYABLE, ValueKind::Bool),
    (CKA_DESTROYABLE, ValueKind::Bool),
    (CKA_ALWAYS_AUTHENTICATE, ValueKind::Bool),
    (CKA_WRAP_WITH_TRUSTED, ValueKind::Bool),
    (CKA_WRAP_TEMPLATE, ValueKind::Template),
    (CKA_UNWRAP_TEMPLATE, ValueKind::Template),
    (CKA_DERIVE_TEMPLATE, ValueKind::Template),
    (CKA_ENCAPSULATE_TEMPLATE, ValueKind::Template),
    (CKA_DECAPSULATE_TEMPLATE, ValueKind::Template),
    (CKA_ALLOWED_MECHANISMS, ValueKind::Mechanisms),
    (CKA_MECHANISM_TYPE, ValueKind::Ulong),
    (CKA_PROFILE_ID, ValueKind::Ulong),
    (CKA_PARAMETER_SET, ValueKind::Ulong),
    (CKA_OBJECT_VALIDATION_FLAGS, ValueKind::Ulong),
    (CKA_HW_FEATURE_TYPE, ValueKind::Ulong),
    (CKA_SR_VERSION, ValueKind::Ulong),
    (CKA_SR_STATE, ValueKind::Ulong),
    (CKA_SR_CREATED, ValueKind::Ulong),
    (CKA_SR_ROTATED, ValueKind::Ulong),
    (CKA_SR_NEXT_ROTATION, ValueKind::Ulong),
    (CKA_SR_ROTATION_INTERVAL, ValueKind::Ulong),
    (CKA_SR_MAX_AGE, ValueKind::Ulong),
    (CKA_SR_AUTO_ROTATE, ValueKind::Bool),
    (CKA_SR_PASSWORD, ValueKind::Bool),
    (CKA_SR_PASSWORD_TRIES, ValueKind::Ulong),
    (CKA_SR_PASSWORD_WRONG, ValueKind::Ulong),
    (CKA_SR_MAX_USES, ValueKind::Ulong),
    (CKA_SR_USES, ValueKind::Ulong),
    (CKA_SR_DATA_KEY, ValueKind::Bool),
];

/// Tells what type of value an attribute has; an unknown attribute is plain bytes.
pub fn value_kind(id: CK_ATTRIBUTE_TYPE) -> ValueKind {
    KINDS.iter().find(|row| row.0 == id).map_or(ValueKind::Bytes, |row| row.1)
}

/// How deep templates may stand in templates.
pub const MAX_DEPTH: usize = 4;

/// The attributes of an object, or of a template, in ascending order of their types. An object has some 25, which a search in a
/// row of memory finds faster than a tree does. Their bytes are wiped when they are dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes(Vec<(CK_ATTRIBUTE_TYPE, Value)>);

impl Attributes {
    /// Makes an empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// Finds the place of an attribute, or where it would be.
    fn place(&self, id: CK_ATTRIBUTE_TYPE) -> std::result::Result<usize, usize> {
        self.0.binary_search_by_key(&id, |row| row.0)
    }

    /// Sets an attribute, and tells the value it had.
    pub fn set(&mut self, id: CK_ATTRIBUTE_TYPE, value: impl Into<Value>) -> Option<Value> {
        let value = value.into();
        match self.place(id) {
            Ok(place) => self.0.get_mut(place).map(|row| std::mem::replace(&mut row.1, value)),
            Err(place) => {
                self.0.insert(place, (id, value));
                None
            }
        }
    }

    /// Sets an attribute unless it is there.
    pub fn default_to(&mut self, id: CK_ATTRIBUTE_TYPE, value: impl Into<Value>) {
        if let Err(place) = self.place(id) {
            self.0.insert(place, (id, value.into()));
        }
    }

    /// Removes an attribute, and tells the value it had.
    pub fn take(&mut self, id: CK_ATTRIBUTE_TYPE) -> Option<Value> {
        self.place(id).ok().map(|place| self.0.remove(place).1)
    }

    /// Removes an attribute that holds bytes or secret bytes, as secret bytes.
    pub fn take_secret(&mut self, id: CK_ATTRIBUTE_TYPE) -> Option<SecureBytes> {
        match self.take(id)? {
            Value::Secret(secret) => Some(secret),
            Value::Bytes(bytes) => Some(SecureBytes::take(bytes)),
            _ => None,
        }
    }

    /// Finds an attribute's value.
    pub fn get(&self, id: CK_ATTRIBUTE_TYPE) -> Option<&Value> {
        self.place(id).ok().and_then(|place| self.0.get(place)).map(|row| &row.1)
    }

    /// Tells whether the attribute is there.
    pub fn has(&self, id: CK_ATTRIBUTE_TYPE) -> bool {
        self.place(id).is_ok()
    }

    /// Finds a boolean; `None` when it is absent or no boolean.
    pub fn bool(&self, id: CK_ATTRIBUTE_TYPE) -> Option<bool> {
        match self.get(id) {
            Some(Value::Bool(value)) => Some(*value),
            _ => None,
        }
    }

    /// Tells whether a boolean is there and true.
    pub fn is(&self, id: CK_ATTRIBUTE_TYPE) -> bool {
        self.bool(id) == Some(true)
    }

    /// Finds a number; `None` when it is absent or no number.
    pub fn ulong(&self, id: CK_ATTRIBUTE_TYPE) -> Option<u64> {
        match self.get(id) {
            Some(Value::Ulong(value)) => Some(*value),
            _ => None,
        }
    }

    /// Finds bytes that are not secret; `None` when they are absent.
    pub fn bytes(&self, id: CK_ATTRIBUTE_TYPE) -> Option<&[u8]> {
        match self.get(id) {
            Some(Value::Bytes(value)) => Some(value),
            _ => None,
        }
    }

    /// Finds bytes that must be there.
    ///
    /// # Errors
    /// `TemplateIncomplete` that names the attribute.
    pub fn require_bytes(&self, id: CK_ATTRIBUTE_TYPE) -> Result<&[u8]> {
        self.bytes(id).ok_or_else(|| missing(id))
    }

    /// Finds a number that must be there.
    ///
    /// # Errors
    /// `TemplateIncomplete` that names the attribute.
    pub fn require_ulong(&self, id: CK_ATTRIBUTE_TYPE) -> Result<u64> {
        self.ulong(id).ok_or_else(|| missing(id))
    }

    /// Goes through the attributes in ascending order of their types.
    pub fn iter(&self) -> impl Iterator<Item = (CK_ATTRIBUTE_TYPE, &Value)> {
        self.0.iter().map(|row| (row.0, &row.1))
    }

    /// Tells how many attributes there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds all of `other`, which wins where both have an attribute.
    pub fn extend(&mut self, other: Attributes) {
        let mut other = other;
        for (id, value) in std::mem::take(&mut other.0) {
            if let Some(mut old) = self.set(id, value) {
                old.wipe();
            }
        }
    }

    /// Writes the canonical encoding (`docs/format.md`). Secret values have no place in it.
    ///
    /// # Errors
    /// `GeneralError` for a secret value or one longer than 4 GiB; `HostMemory`.
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>> {
        let mut out = Zeroizing::new(Vec::new());
        // All at once: a vector that grows leaves copies behind.
        out.try_reserve_exact(self.encoded_len())?;
        self.encode_into(&mut out)?;
        Ok(out)
    }

    fn encoded_len(&self) -> usize {
        self.0.iter().fold(0, |len, row| len.saturating_add(FIELD_LEN).saturating_add(row.1.encoded_len()))
    }

    fn encode_into(&self, out: &mut Vec<u8>) -> Result<()> {
        for (id, value) in &self.0 {
            out.extend_from_slice(&id.to_be_bytes());
            let len = value.encoded_len();
            match value {
                Value::Bool(value) => field(out, 0, len)?.push(u8::from(*value)),
                Value::Ulong(value) => field(out, 1, len)?.extend_from_slice(&value.to_be_bytes()),
                Value::Bytes(value) => field(out, 2, len)?.extend_from_slice(value),
                Value::Mechanisms(list) => field(out, 3, len)?.extend(list.iter().flat_map(|id| id.to_be_bytes())),
                Value::Template(nested) => nested.encode_into(field(out, 4, len)?)?,
                Value::Secret(_) => {
                    return Err(Error::internal(format!(
                        "{} is a secret and cannot be stored as an attribute",
                        attribute_name(*id)
                    )));
                }
            }
        }
        Ok(())
    }

    /// Reads the canonical encoding.
    ///
    /// # Errors
    /// `DeviceError` for anything that [`Self::encode`] would not have written; `HostMemory`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        Self::decode_at(bytes, 0)
    }

    /// Reads an encoding that stands so deep in others: a forged one must not exhaust the stack.
    fn decode_at(bytes: &[u8], depth: usize) -> Result<Self> {
        if depth > MAX_DEPTH {
            return Err(Error::damaged("the nesting of an attribute list"));
        }
        let mut all = Self::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (id, kind, value) = split_one(&mut rest).ok_or_else(damaged)?;
            if all.0.last().is_some_and(|row| row.0 >= id) {
                return Err(Error::damaged("the order of an attribute list"));
            }
            all.0.push((id, decode_value(kind, value, depth)?));
        }
        Ok(all)
    }

    fn wipe(&mut self) {
        self.0.iter_mut().for_each(|row| row.1.wipe());
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // Nested templates are dropped, and so wiped, by themselves.
        self.wipe();
    }
}

impl FromIterator<(CK_ATTRIBUTE_TYPE, Value)> for Attributes {
    fn from_iter<I: IntoIterator<Item = (CK_ATTRIBUTE_TYPE, Value)>>(iter: I) -> Self {
        let mut all = Self::new();
        for (id, value) in iter {
            all.set(id, value);
        }
        all
    }
}

fn missing(id: CK_ATTRIBUTE_TYPE) -> Error {
    Error::new(Kind::TemplateIncomplete, format!("the template needs {}", attribute_name(id)))
}

/// What stands before each value: its type, its form, its length.
const FIELD_LEN: usize = 8 + 1 + 4;

/// Writes form and length of a value, and gives the place where the value goes.
fn field(out: &mut Vec<u8>, kind: u8, len: usize) -> Result<&mut Vec<u8>> {
    let len = u32::try_from(len).map_err(|_| Error::internal("an attribute is longer than 4 GiB"))?;
    out.push(kind);
    out.extend_from_slice(&len.to_be_bytes());
    Ok(out)
}

fn damaged() -> Error {
    Error::damaged("an attribute list")
}

/// Splits off the type, form and bytes of one attribute.
fn split_one<'a>(rest: &mut &'a [u8]) -> Option<(CK_ATTRIBUTE_TYPE, u8, &'a [u8])> {
    let id = u64::from_be_bytes(*rest.split_off(..8)?.first_chunk()?);
    let kind = *rest.split_off_first()?;
    let len = u32::from_be_bytes(*rest.split_off(..4)?.first_chunk()?);
    Some((id, kind, rest.split_off(..usize::try_from(len).ok()?)?))
}

fn decode_value(kind: u8, value: &[u8], depth: usize) -> Result<Value> {
    Ok(match (kind, value) {
        (0, [0]) => Value::Bool(false),
        (0, [1]) => Value::Bool(true),
        (1, value) => Value::Ulong(u64::from_be_bytes(value.try_into().map_err(|_| damaged())?)),
        (2, value) => Value::try_bytes(value)?,
        (3, value) => Value::try_mechanisms(value, u64::from_be_bytes).transpose().ok_or_else(damaged)??,
        (4, value) => Value::Template(Attributes::decode_at(value, depth + 1)?),
        _ => return Err(damaged()),
    })
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn sample() -> Attributes {
        let mut nested = Attributes::new();
        nested.set(CKA_SIGN, true);
        let mut all = Attributes::new();
        all.set(CKA_CLASS, CKO_PRIVATE_KEY);
        all.set(CKA_LABEL, b"label".as_slice());
        all.set(CKA_TOKEN, true);
        all.set(CKA_ALLOWED_MECHANISMS, Value::Mechanisms(vec![CKM_ECDSA, CKM_EDDSA]));
        all.set(CKA_UNWRAP_TEMPLATE, Value::Template(nested));
        all
    }

    #[test]
    fn encoding_reads_back() {
        let all = sample();
        assert_eq!(Attributes::decode(&all.encode().expect("no secret")).expect("own encoding"), all);
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = sample().encode().expect("no secret");
        let whole: Vec<usize> = (1..bytes.len()).filter(|len| Attributes::decode(&bytes[..*len]).is_ok()).collect();
        assert!(whole.len() < sample().len(), "only cuts between attributes may pass: {whole:?}");
    }

    #[test]
    fn nesting_is_bounded() {
        let mut bytes = Vec::new();
        for _ in 0..10_000 {
            let mut outer = CKA_UNWRAP_TEMPLATE.to_be_bytes().to_vec();
            field(&mut outer, 4, bytes.len()).expect("short").extend_from_slice(&bytes);
            bytes = outer;
        }
        assert!(Attributes::decode(&bytes).is_err());
    }

    #[test]
    fn the_length_of_an_encoding_is_known_before() {
        let all = sample();
        let encoded = all.encode().expect("no secret");
        assert_eq!((encoded.len(), encoded.capacity()), (all.encoded_len(), all.encoded_len()));
    }

    #[test]
    fn r40_bytes_are_wiped() {
        let mut all = sample();
        all.wipe();
        // Wiping a vector leaves zeros in all of its room, and no length.
        assert_eq!(all.bytes(CKA_LABEL), Some([].as_slice()));

        let (mut first, mut second) = (sample(), Attributes::new());
        second.set(CKA_LABEL, b"other".as_slice());
        first.extend(second);
        assert_eq!(first.bytes(CKA_LABEL), Some(b"other".as_slice()), "what is moved is not wiped");
    }

    #[test]
    fn a_secret_is_never_encoded() {
        let mut all = sample();
        all.set(CKA_VALUE, SecureBytes::copy_from(b"secret"));
        assert!(all.encode().is_err());
    }
}
