//! Addresses on public chains, from the public key alone.

use bech32::segwit;
use data_encoding::HEXLOWER;
use ripemd::Ripemd160;
use sha2::{Digest, Sha256};
use sha3::Keccak256;

use crate::error::{Error, Kind, Result};

/// The version bytes of P2PKH and P2SH addresses on Bitcoin's main chain.
const P2PKH: u8 = 0;
const P2SH: u8 = 5;
/// What stands before the hash of a public key in a witness program of version 0 (BIP 141): the version, and the length.
const WITNESS: [u8; 2] = [0, 20];

/// Makes the Bitcoin address of a public key that pays to its witness hash (P2WPKH; BIP 141, BIP 173), on the main chain.
///
/// # Errors
/// `PublicKeyInvalid` for anything but an uncompressed point.
pub fn p2wpkh(point: &[u8]) -> Result<String> {
    let program = hash160(&compressed(point)?);
    segwit::encode_v0(bech32::hrp::BC, &program).map_err(|_| Error::internal("a witness program has no address"))
}

/// Makes the Bitcoin address of a public key that pays to its hash (P2PKH), compressed, on the main chain.
///
/// # Errors
/// As [`p2wpkh`].
pub fn p2pkh(point: &[u8]) -> Result<String> {
    Ok(base58check(P2PKH, &hash160(&compressed(point)?)))
}

/// Makes the Bitcoin address of a public key that pays to its hash, uncompressed, as the first wallets wrote keys.
///
/// # Errors
/// As [`p2wpkh`].
pub fn p2pkh_uncompressed(point: &[u8]) -> Result<String> {
    coordinates(point).map(|_| base58check(P2PKH, &hash160(point)))
}

/// Makes the Bitcoin address of a public key whose witness program hides in a script (P2SH-P2WPKH; BIP 141, BIP 49), on the main chain.
///
/// # Errors
/// As [`p2wpkh`].
pub fn p2sh_p2wpkh(point: &[u8]) -> Result<String> {
    let program = [&WITNESS[..], &hash160(&compressed(point)?)].concat();
    Ok(base58check(P2SH, &hash160(&program)))
}

/// Writes a version byte and a hash with their checksum.
fn base58check(version: u8, hash: &[u8]) -> String {
    let mut bytes = [&[version][..], hash].concat();
    let check = Sha256::digest(Sha256::digest(&bytes));
    bytes.extend(check.iter().take(4));
    bs58::encode(bytes).into_string()
}

/// Makes the Ethereum address of a public key, with the checksum in its capitals (EIP-55).
///
/// # Errors
/// As [`p2wpkh`].
pub fn eip55(point: &[u8]) -> Result<String> {
    let digest = Keccak256::digest(coordinates(point)?);
    let address = digest.get(12..).ok_or_else(no_point)?;
    Ok(with_checksum(&HEXLOWER.encode(address)))
}

/// Writes 40 lower-case hexadecimal digits as EIP-55 does: a letter is a capital where the digest's digit is 8 or above.
fn with_checksum(digits: &str) -> String {
    let digest = HEXLOWER.encode(&Keccak256::digest(digits));
    let letter = |(digit, check): (char, char)| if check >= '8' { digit.to_ascii_uppercase() } else { digit };
    "0x".chars().chain(digits.chars().zip(digest.chars()).map(letter)).collect()
}

/// Makes the Solana address of an Ed25519 public key.
///
/// # Errors
/// `PublicKeyInvalid` for another length.
pub fn solana(key: &[u8]) -> Result<String> {
    match key.len() {
        32 => Ok(bs58::encode(key).into_string()),
        _ => Err(Error::new(Kind::PublicKeyInvalid, "an Ed25519 public key has 32 bytes")),
    }
}

/// Takes both coordinates of an uncompressed point.
fn coordinates(point: &[u8]) -> Result<&[u8]> {
    let found = point.split_first().filter(|(form, rest)| **form == 4 && rest.len() == 64);
    found.map(|(_, rest)| rest).ok_or_else(no_point)
}

/// Compresses a point (SEC 1, 2.3.3).
fn compressed(point: &[u8]) -> Result<Vec<u8>> {
    let (x, y) = coordinates(point)?.split_at(32);
    let odd = y.last().is_some_and(|last| last & 1 == 1);
    Ok(std::iter::once(if odd { 3 } else { 2 }).chain(x.iter().copied()).collect())
}

fn hash160(data: &[u8]) -> [u8; 20] {
    Ripemd160::digest(Sha256::digest(data)).into()
}

fn no_point() -> Error {
    Error::new(Kind::PublicKeyInvalid, "the public key is no uncompressed point on secp256k1")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The generator of secp256k1 (SEC 2, 2.4.1): the public key of the private key 1.
    const GENERATOR: &str = "0479be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798\
                             483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8";

    fn hex(text: &str) -> Vec<u8> {
        HEXLOWER.decode(text.as_bytes()).expect("hexadecimal")
    }

    #[test]
    fn bitcoin_addresses_are_the_published_ones() {
        // BIP 173, Examples: P2WPKH of the generator.
        assert_eq!(p2wpkh(&hex(GENERATOR)).expect("a point"), "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4");
        // The compressed address of the private key 1.
        assert_eq!(p2pkh(&hex(GENERATOR)).expect("a point"), "1BgGZ9tcN4rm9KBzDn7KprQz87SZ26SAMH");
        // Its uncompressed address, and that of BIP 49's kind.
        assert_eq!(p2pkh_uncompressed(&hex(GENERATOR)).expect("a point"), "1EHNa6Q4Jz2uvNExL497mE43ikXhwF6kZm");
        assert_eq!(p2sh_p2wpkh(&hex(GENERATOR)).expect("a point"), "3JvL6Ymt8MVWiCNHC7oWU6nLeHNJKLZGLN");
    }

    #[test]
    fn ethereum_checksums_are_those_of_eip_55() {
        for address in [
            "0x52908400098527886E0F7030069857D2E4169EE7",
            "0x8617E340B3D01FA5F11F306F4090FD50E238070D",
            "0xde709f2102306220921060314715629080e2fb77",
            "0x27b1fdb04752bbc536007a920d24acb045561c26",
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
            "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
            "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
            "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
        ] {
            let digits = address.trim_start_matches("0x").to_ascii_lowercase();
            assert_eq!(with_checksum(&digits), address);
        }
        // The address of the private key 1.
        assert_eq!(eip55(&hex(GENERATOR)).expect("a point"), "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf");
    }

    #[test]
    fn solana_addresses_are_base58() {
        // The system program, and the public key of RFC 8032, 7.1, test 1.
        assert_eq!(solana(&[0; 32]).expect("32 bytes"), "1".repeat(32));
        let key = hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        assert_eq!(solana(&key).expect("32 bytes"), "FVen3X669xLzsi6N2V91DoiyzHzg1uAgqiT8jZ9nS96Z");
    }

    #[test]
    fn what_is_no_public_key_has_no_address() {
        let point = hex(GENERATOR);
        let (raw, compressed) = (point.get(1..).expect("coordinates"), compressed(&point).expect("a point"));
        for bad in [&[][..], &[4], raw, &compressed, &[0; 65]] {
            assert!(p2wpkh(bad).is_err() && p2pkh(bad).is_err() && eip55(bad).is_err(), "{bad:?}");
            assert!(p2pkh_uncompressed(bad).is_err() && p2sh_p2wpkh(bad).is_err(), "{bad:?}");
        }
        assert!(solana(&[1; 31]).is_err() && solana(&[]).is_err());
    }
}
