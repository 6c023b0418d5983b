//! The types of keys that the command makes, each one row: mechanism and what the template needs.

use clap::ValueEnum;

use strongroom::ck::*;

/// A type of key, by the name that the command line has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub enum KeyType {
    /// ECDSA and ECDH on NIST P-256.
    P256,
    /// ECDSA and ECDH on NIST P-384.
    P384,
    /// ECDSA and ECDH on NIST P-521.
    P521,
    /// ECDSA on secp256k1 (Bitcoin, Ethereum).
    Secp256k1,
    /// EdDSA on edwards25519.
    Ed25519,
    /// ECDH on curve25519.
    X25519,
    /// RSA with 2048 bits.
    Rsa2048,
    /// RSA with 3072 bits.
    Rsa3072,
    /// RSA with 4096 bits.
    Rsa4096,
    /// AES with 128 bits.
    Aes128,
    /// AES with 256 bits.
    Aes256,
    /// A secret of 32 bytes for HMAC.
    Hmac,
}

/// What makes a key of one type.
pub struct Recipe {
    /// The mechanism that generates it.
    pub mechanism: CK_MECHANISM_TYPE,
    /// What the public key (or the secret key) needs.
    pub size: Size,
    /// What the public half, or a secret key, may be used for.
    pub public_uses: &'static [CK_ATTRIBUTE_TYPE],
    /// What the private half may be used for; empty for a secret key.
    pub private_uses: &'static [CK_ATTRIBUTE_TYPE],
}

/// What tells the size of a key.
pub enum Size {
    /// `CKA_EC_PARAMS`: the curve's object identifier in DER.
    Curve(&'static [u8]),
    /// `CKA_MODULUS_BITS`.
    ModulusBits(u64),
    /// `CKA_VALUE_LEN` in bytes.
    Bytes(u64),
}

impl KeyType {
    /// Gives the recipe of the type.
    pub fn recipe(self) -> Recipe {
        match self {
            KeyType::P256 => ec(&[0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07]),
            KeyType::P384 => ec(&[0x06, 0x05, 0x2B, 0x81, 0x04, 0x00, 0x22]),
            KeyType::P521 => ec(&[0x06, 0x05, 0x2B, 0x81, 0x04, 0x00, 0x23]),
            KeyType::Secp256k1 => {
                Recipe { private_uses: &[CKA_SIGN], ..ec(&[0x06, 0x05, 0x2B, 0x81, 0x04, 0x00, 0x0A]) }
            }
            KeyType::Ed25519 => Recipe {
                mechanism: CKM_EC_EDWARDS_KEY_PAIR_GEN,
                private_uses: &[CKA_SIGN],
                ..ec(&[0x06, 0x03, 0x2B, 0x65, 0x70])
            },
            KeyType::X25519 => Recipe {
                mechanism: CKM_EC_MONTGOMERY_KEY_PAIR_GEN,
                public_uses: &[],
                private_uses: &[CKA_DERIVE],
                ..ec(&[0x06, 0x03, 0x2B, 0x65, 0x6E])
            },
            KeyType::Rsa2048 => rsa(2048),
            KeyType::Rsa3072 => rsa(3072),
            KeyType::Rsa4096 => rsa(4096),
            KeyType::Aes128 => aes(16),
            KeyType::Aes256 => aes(32),
            KeyType::Hmac => Recipe {
                mechanism: CKM_GENERIC_SECRET_KEY_GEN,
                size: Size::Bytes(32),
                public_uses: &[CKA_SIGN, CKA_VERIFY],
                private_uses: &[],
            },
        }
    }
}

/// The recipe of a key pair on a curve.
fn ec(curve: &'static [u8]) -> Recipe {
    Recipe {
        mechanism: CKM_EC_KEY_PAIR_GEN,
        size: Size::Curve(curve),
        public_uses: &[CKA_VERIFY],
        private_uses: &[CKA_SIGN, CKA_DERIVE],
    }
}

/// The recipe of an RSA key pair.
fn rsa(bits: u64) -> Recipe {
    Recipe {
        mechanism: CKM_RSA_PKCS_KEY_PAIR_GEN,
        size: Size::ModulusBits(bits),
        public_uses: &[CKA_VERIFY, CKA_ENCRYPT, CKA_WRAP],
        private_uses: &[CKA_SIGN, CKA_DECRYPT, CKA_UNWRAP],
    }
}

/// The recipe of an AES key.
fn aes(len: u64) -> Recipe {
    Recipe {
        mechanism: CKM_AES_KEY_GEN,
        size: Size::Bytes(len),
        public_uses: &[CKA_ENCRYPT, CKA_DECRYPT, CKA_WRAP, CKA_UNWRAP],
        private_uses: &[],
    }
}

impl Recipe {
    /// Tells whether it makes a pair.
    pub fn is_pair(&self) -> bool {
        !self.private_uses.is_empty()
    }

    /// Makes the template of the public half, or of a secret key.
    pub fn first_template(&self, common: &Attributes) -> Attributes {
        let mut template = common.clone();
        match self.size {
            Size::Curve(curve) => drop(template.set(CKA_EC_PARAMS, curve)),
            Size::ModulusBits(bits) => {
                template.set(CKA_MODULUS_BITS, bits);
                template.set(CKA_PUBLIC_EXPONENT, [1, 0, 1].as_slice());
            }
            Size::Bytes(len) => drop(template.set(CKA_VALUE_LEN, len)),
        }
        template.set(CKA_PRIVATE, !self.is_pair());
        if !self.is_pair() {
            protect(&mut template);
        }
        allow(&mut template, self.public_uses);
        template
    }

    /// Makes the template of the private half.
    pub fn private_template(&self, common: &Attributes) -> Attributes {
        let mut template = common.clone();
        template.set(CKA_PRIVATE, true);
        protect(&mut template);
        allow(&mut template, self.private_uses);
        template
    }
}

/// Says that the secret stays inside.
fn protect(template: &mut Attributes) {
    template.set(CKA_SENSITIVE, true);
    template.set(CKA_EXTRACTABLE, false);
}

/// Says what the key may be used for.
fn allow(template: &mut Attributes, uses: &[CK_ATTRIBUTE_TYPE]) {
    for id in uses {
        template.set(*id, true);
    }
}

/// Names a key type (CKK_…) and what tells its size, as the command line does, for lists.
pub fn name(attributes: &Attributes) -> String {
    let curve = attributes.bytes(CKA_EC_PARAMS).and_then(of_curve);
    match (attributes.ulong(CKA_KEY_TYPE), curve) {
        (_, Some(name)) => name,
        (Some(CKK_EC_EDWARDS), None) => "ed25519".to_owned(),
        (Some(CKK_EC_MONTGOMERY), None) => "x25519".to_owned(),
        (Some(CKK_RSA), _) => format!("rsa{}", modulus_bits(attributes)),
        (Some(CKK_AES), _) => format!("aes{}", attributes.ulong(CKA_VALUE_LEN).unwrap_or(0) * 8),
        (Some(CKK_GENERIC_SECRET), _) => "hmac".to_owned(),
        (Some(other), _) => format!("type 0x{other:x}"),
        (None, _) => "?".to_owned(),
    }
}

/// Names the type that has this curve.
fn of_curve(params: &[u8]) -> Option<String> {
    let has = |kind: &&KeyType| matches!(kind.recipe().size, Size::Curve(curve) if curve == params);
    Some(KeyType::value_variants().iter().find(has)?.to_possible_value()?.get_name().to_owned())
}

/// Tells the size of an RSA key from its modulus, since a private key has no CKA_MODULUS_BITS.
fn modulus_bits(attributes: &Attributes) -> usize {
    attributes.bytes(CKA_MODULUS).map_or(0, |modulus| modulus.len() * 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_keeps_its_secret_inside() {
        for kind in KeyType::value_variants() {
            let recipe = kind.recipe();
            let first = recipe.first_template(&Attributes::new());
            let secret = if recipe.is_pair() { recipe.private_template(&Attributes::new()) } else { first };
            assert!(secret.is(CKA_SENSITIVE) && secret.is(CKA_PRIVATE), "{kind:?}");
            assert_eq!(secret.bool(CKA_EXTRACTABLE), Some(false), "{kind:?}");
        }
    }

    #[test]
    fn types_are_named_as_they_are_asked_for() {
        let mut attributes = Attributes::new();
        attributes.set(CKA_KEY_TYPE, CKK_EC_EDWARDS);
        attributes.set(CKA_EC_PARAMS, [0x06, 0x03, 0x2B, 0x65, 0x70].as_slice());
        assert_eq!(name(&attributes), "ed25519");
        let mut attributes = Attributes::new();
        attributes.set(CKA_KEY_TYPE, CKK_AES);
        attributes.set(CKA_VALUE_LEN, 32);
        assert_eq!(name(&attributes), "aes256");
        let mut attributes = Attributes::new();
        attributes.set(CKA_KEY_TYPE, CKK_RSA);
        attributes.set(CKA_MODULUS, vec![0x80; 384]);
        assert_eq!(name(&attributes), "rsa3072");
    }
}
