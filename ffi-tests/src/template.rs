//! Templates as values.

use crate::ck::*;

/// A list of attributes for a call.
#[derive(Debug, Clone, Default)]
pub struct Template(Vec<(CK_ATTRIBUTE_TYPE, Vec<u8>)>);

impl Template {
    /// Makes an empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes one that starts with a class.
    pub fn class(class: CK_OBJECT_CLASS) -> Self {
        Self::new().ulong(CKA_CLASS, class)
    }

    /// Adds bytes.
    #[must_use]
    pub fn bytes(mut self, kind: CK_ATTRIBUTE_TYPE, value: impl AsRef<[u8]>) -> Self {
        self.0.push((kind, value.as_ref().to_vec()));
        self
    }

    /// Adds a `CK_BBOOL`.
    #[must_use]
    pub fn bool(self, kind: CK_ATTRIBUTE_TYPE, value: bool) -> Self {
        self.bytes(kind, [u8::from(value)])
    }

    /// Adds a `CK_ULONG`.
    #[must_use]
    pub fn ulong(self, kind: CK_ATTRIBUTE_TYPE, value: CK_ULONG) -> Self {
        self.bytes(kind, value.to_ne_bytes())
    }

    /// Adds the attributes of another; one that is there already is replaced.
    #[must_use]
    pub fn and(mut self, other: &Template) -> Self {
        for (kind, value) in &other.0 {
            self.0.retain(|row| row.0 != *kind);
            self.0.push((*kind, value.clone()));
        }
        self
    }

    /// Keeps the attributes of one kind.
    #[must_use]
    pub fn only(mut self, kind: CK_ATTRIBUTE_TYPE) -> Self {
        self.0.retain(|row| row.0 == kind);
        self
    }

    /// Gives the C form; it points into this value.
    pub fn raw(&self) -> Vec<CK_ATTRIBUTE> {
        let attribute = |(kind, value): &(CK_ATTRIBUTE_TYPE, Vec<u8>)| CK_ATTRIBUTE {
            type_: *kind,
            pValue: value.as_ptr().cast_mut().cast(),
            ulValueLen: value.len() as CK_ULONG,
        };
        self.0.iter().map(attribute).collect()
    }
}

/// DER of named curves (`CKA_EC_PARAMS`).
pub mod curve {
    /// P-256.
    pub const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    /// P-384.
    pub const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
    /// P-521.
    pub const P521: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23];
    /// secp256k1.
    pub const SECP256K1: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a];
    /// Ed25519 by the OID of RFC 8410.
    pub const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
    /// Ed25519 by name, a PrintableString.
    pub const ED25519_NAME: &[u8] = b"\x13\x0cedwards25519";
    /// Ed25519 by the older OID 1.3.6.1.4.1.11591.15.1.
    pub const ED25519_OLD: &[u8] = &[0x06, 0x09, 0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01];
    /// X25519 by the OID of RFC 8410.
    pub const X25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x6e];
}
