//! Keys from passwords, as the files of other systems want them: PBKDF2 (RFC 8018, 5.2) and scrypt (RFC 7914). What Strongroom itself
//! seals is under Argon2id (`seal/`).

use aws_lc_sys as sys;

use super::hash::Hash;
use super::lc::check;
use crate::error::{Error, Kind, Result};
use crate::secret::SecureBytes;

/// The most memory in bytes that scrypt may take: four times what the costliest wallets in use ask for.
const MOST_MEMORY: usize = 1 << 30;
/// The most that N · r · p may be: about a minute on a slow machine. The costliest wallets in use have 2^21.
const MOST_WORK: u64 = 1 << 26;
/// The most rounds of PBKDF2, which AWS-LC has for PKCS #12 and PBES2 as well.
const MOST_ROUNDS: u32 = 100_000_000;

/// Derives `len` bytes by PBKDF2 with HMAC.
///
/// # Errors
/// `DataInvalid` for no round, or more than 100 million.
pub fn pbkdf2(hash: Hash, password: &SecureBytes, salt: &[u8], rounds: u32, len: usize) -> Result<SecureBytes> {
    if !(1..=MOST_ROUNDS).contains(&rounds) {
        return Err(Error::new(Kind::DataInvalid, "PBKDF2 has 1 to 100000000 rounds"));
    }
    let (from, from_len) = (password.expose().as_ptr().cast(), password.len());
    SecureBytes::try_with(len, |out| {
        let (salt, salt_len, hash, to) = (salt.as_ptr(), salt.len(), hash.evp(), out.as_mut_ptr());
        // SAFETY: password and salt are valid for their lengths, `to` for `len` bytes; the hash is static.
        let code = unsafe { sys::PKCS5_PBKDF2_HMAC(from, from_len, salt, salt_len, rounds, hash, len, to) };
        check(code, Kind::FunctionFailed)
    })
}

/// Derives `len` bytes by scrypt with the cost N = `n` and the factors `r` and `p`.
///
/// # Errors
/// `DataInvalid` for parameters that scrypt does not have, or that take more than 1 GiB or a minute.
pub fn scrypt(password: &SecureBytes, salt: &[u8], [n, r, p]: [u64; 3], len: usize) -> Result<SecureBytes> {
    let work = n.checked_mul(r).and_then(|work| work.checked_mul(p));
    if work.is_none_or(|work| work > MOST_WORK) {
        return Err(Error::new(Kind::DataInvalid, "the parameters of scrypt are beyond all use: is the file damaged?"));
    }
    let (from, from_len) = (password.expose().as_ptr().cast(), password.len());
    SecureBytes::try_with(len, |out| {
        let (salt, salt_len, to) = (salt.as_ptr(), salt.len(), out.as_mut_ptr());
        // SAFETY: password and salt are valid for their lengths, `to` for `len` bytes.
        let code = unsafe { sys::EVP_PBE_scrypt(from, from_len, salt, salt_len, n, r, p, MOST_MEMORY, to, len) };
        check(code, Kind::DataInvalid)
            .map_err(|error| error.context("scrypt does not take these parameters, or there is no memory for them"))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;

    fn secret(text: &str) -> SecureBytes {
        SecureBytes::copy_from(text.as_bytes())
    }

    #[test]
    fn gives_the_published_keys() {
        // RFC 7914, 11 and 12.
        let key = pbkdf2(Hash::Sha256, &secret("passwd"), b"salt", 1, 64).unwrap();
        let expected = "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc\
                        49ca9cccf179b645991664b39d77ef317c71b845b1e30bd509112041d3a19783";
        assert_eq!(HEXLOWER.encode(key.expose()), expected);
        let key = scrypt(&secret("pleaseletmein"), b"SodiumChloride", [16384, 8, 1], 64).unwrap();
        let expected = "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2\
                        d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887";
        assert_eq!(HEXLOWER.encode(key.expose()), expected);
    }

    #[test]
    fn absurd_parameters_are_refused_at_once() {
        for parameters in
            [[0, 8, 1], [3, 8, 1], [1 << 20, 8, 1 << 20], [u64::MAX, u64::MAX, 2], [1 << 22, 16, 1], [2, 0, 1]]
        {
            let error = scrypt(&secret("a"), b"b", parameters, 32).unwrap_err();
            assert_eq!(error.kind(), Kind::DataInvalid, "{parameters:?}");
        }
        for rounds in [0, MOST_ROUNDS + 1, u32::MAX] {
            assert_eq!(pbkdf2(Hash::Sha256, &secret("a"), b"b", rounds, 32).unwrap_err().kind(), Kind::DataInvalid);
        }
    }
}
