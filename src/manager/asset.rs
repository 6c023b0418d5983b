//! The assets as Rust values.

use crate::error::Result;
use crate::keys::Name;

/// What a key is a key of: it fixes the type of the key and the form of its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuoteAsset {
    /// Bitcoin: secp256k1, P2WPKH.
    Btc,
    /// Ethereum: secp256k1, EIP-55.
    Eth,
    /// Solana: Ed25519, Base58.
    Sol,
    /// secp256k1, without an address.
    Secp256k1,
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
    /// NIST P-521.
    P521,
    /// Ed25519, without an address.
    Ed25519,
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
}

/// The assets with their names in [`crate::keys::ASSETS`].
const NAMES: [(QuoteAsset, &str); 13] = [
    (QuoteAsset::Btc, "btc"),
    (QuoteAsset::Eth, "eth"),
    (QuoteAsset::Sol, "sol"),
    (QuoteAsset::Secp256k1, "secp256k1"),
    (QuoteAsset::P256, "p256"),
    (QuoteAsset::P384, "p384"),
    (QuoteAsset::P521, "p521"),
    (QuoteAsset::Ed25519, "ed25519"),
    (QuoteAsset::Rsa2048, "rsa2048"),
    (QuoteAsset::Rsa3072, "rsa3072"),
    (QuoteAsset::Rsa4096, "rsa4096"),
    (QuoteAsset::Aes128, "aes128"),
    (QuoteAsset::Aes256, "aes256"),
];

impl QuoteAsset {
    /// Names it as the C side does.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|row| row.0 == self).map_or("", |row| row.1)
    }

    /// Makes the name of the key of an owner.
    ///
    /// # Errors
    /// `ArgumentsBad` for an owner that is none.
    pub(super) fn key_of(self, owner: &str) -> Result<Name> {
        Name::new(owner, self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::ASSETS;

    #[test]
    fn every_asset_is_here() {
        let names: Vec<_> = NAMES.iter().map(|row| row.1).collect();
        assert_eq!(names, ASSETS.iter().map(|asset| asset.name).collect::<Vec<_>>());
        assert!(NAMES.iter().all(|(asset, name)| asset.name() == *name));
    }
}
