//! Everything that a PKCS #11 device may be able to do with its keys; what one cannot is `Unsupported` when it is asked.

use super::super::remote::{Ability, Curve, DecryptScheme, Hash, KeySpec, SignScheme};
use crate::secret::Table;

/// The hashes of all mechanisms here.
pub const HASHES: [Hash; 5] = [Hash::Sha1, Hash::Sha224, Hash::Sha256, Hash::Sha384, Hash::Sha512];
/// The lengths of RSA moduli in bits.
pub const RSA_BITS: [u32; 3] = [2048, 3072, 4096];
/// The curves of ECDSA.
pub const CURVES: [Curve; 4] = [Curve::P256, Curve::P384, Curve::P521, Curve::Secp256k1];

/// The table.
pub static ABILITIES: Table<Vec<Ability>> =
    Table::new(|| [rsa(), curves(), edwards(), macs()].into_iter().flatten().collect());

fn rsa() -> Vec<Ability> {
    let of_bits = |bits| {
        let spec = KeySpec::Rsa(bits);
        let of_hash = move |hash| {
            [
                Ability::Sign(spec, SignScheme::RsaPkcs1(hash)),
                Ability::Sign(spec, SignScheme::RsaPss(hash)),
                Ability::Decrypt(spec, DecryptScheme::RsaOaep(hash)),
            ]
        };
        let plain = [Ability::Generate(spec), Ability::Decrypt(spec, DecryptScheme::RsaPkcs1)];
        plain.into_iter().chain(HASHES.into_iter().flat_map(of_hash))
    };
    RSA_BITS.into_iter().flat_map(of_bits).collect()
}

fn curves() -> Vec<Ability> {
    let of_curve = |curve| {
        let spec = KeySpec::Ec(curve);
        let signs = HASHES.into_iter().map(move |hash| Ability::Sign(spec, SignScheme::Ecdsa(hash)));
        [Ability::Generate(spec)].into_iter().chain(signs)
    };
    CURVES.into_iter().flat_map(of_curve).collect()
}

fn edwards() -> Vec<Ability> {
    vec![Ability::Generate(KeySpec::Ed25519), Ability::Sign(KeySpec::Ed25519, SignScheme::Ed25519)]
}

fn macs() -> Vec<Ability> {
    HASHES.into_iter().map(KeySpec::Hmac).flat_map(|spec| [Ability::Generate(spec), Ability::Mac(spec)]).collect()
}
