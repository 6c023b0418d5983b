//! Shamir's secret sharing over GF(2^8), byte by byte: any `threshold` of the shares give the secret, fewer tell nothing of it.

use getrandom::SysRng;
use rand_core::UnwrapErr;
use vsss_rs::Gf256;
use zeroize::Zeroizing;

use crate::error::{Error, Kind, Result};
use crate::secret::SecureBytes;

/// The most shares that there can be: one for each element of the field but 0.
pub const MOST_SHARES: u8 = 255;

/// Splits a secret. Share number `i`, counted from 1, is the value of each byte's polynomial at `i`, and as long as the secret.
///
/// # Errors
/// `ArgumentsBad` unless 2 ≤ `threshold` ≤ `count`; `DeviceError` when the system has no randomness.
pub fn split(secret: &SecureBytes, threshold: u8, count: u8) -> Result<Vec<SecureBytes>> {
    if threshold < 2 || threshold > count {
        return Err(Error::arguments_bad("of 2 to 255 shares, at least 2 and at most all must be needed"));
    }
    // The generator below ends the call by a panic when the system has no randomness; once it has some, it always has.
    getrandom::fill(&mut [0; 1]).map_err(no_randomness)?;
    let shares = Gf256::split_bytes(usize::from(threshold), usize::from(count), secret.expose(), UnwrapErr(SysRng))
        .map_err(failed)?;
    let shares: Vec<_> = shares.into_iter().map(SecureBytes::take).collect();
    shares.iter().zip(1..=MOST_SHARES).map(|(share, index)| without_index(share, index)).collect()
}

/// Puts the secret together from shares with their numbers. That they are too few, or not of one secret, cannot be told here.
///
/// # Errors
/// `ArgumentsBad` for fewer than two shares, one that is there twice, or shares of different lengths.
pub fn combine(shares: &[(u8, &SecureBytes)]) -> Result<SecureBytes> {
    let joined = |(index, share): &(u8, &SecureBytes)| [&[*index], share.expose()].concat();
    let shares: Zeroizing<Vec<Vec<u8>>> = Zeroizing::new(shares.iter().map(joined).collect());
    Gf256::combine_bytes(&*shares).map(SecureBytes::take).map_err(failed)
}

/// Takes the number off the front of a share as the library gives it.
fn without_index(share: &SecureBytes, index: u8) -> Result<SecureBytes> {
    match share.expose().split_first() {
        Some((first, rest)) if *first == index => Ok(SecureBytes::copy_from(rest)),
        _ => Err(Error::internal("the shares are not numbered from 1")),
    }
}

fn no_randomness(cause: getrandom::Error) -> Error {
    Error::device("the operating system gives no random bytes").caused_by(cause)
}

fn failed(cause: vsss_rs::Error) -> Error {
    Error::new(Kind::ArgumentsBad, format!("the shares do not fit together: {cause}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    /// Multiplies in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1, as FIPS 197, 4.2 does it.
    fn multiply(mut a: u8, mut b: u8) -> u8 {
        let mut product = 0;
        while b > 0 {
            if b & 1 == 1 {
                product ^= a;
            }
            a = (a << 1) ^ if a & 0x80 == 0 { 0 } else { 0x1b };
            b >>= 1;
        }
        product
    }

    /// Interpolates at 0 from the definition (Lagrange), with nothing of the library.
    fn interpolate(points: &[(u8, u8)]) -> u8 {
        let inverse = |a: u8| (1..=255).find(|b| multiply(a, *b) == 1).unwrap();
        points.iter().fold(0, |sum, (x, y)| {
            let others = points.iter().filter(|other| other.0 != *x);
            sum ^ others.fold(*y, |term, other| multiply(term, multiply(other.0, inverse(other.0 ^ x))))
        })
    }

    fn secret() -> SecureBytes {
        SecureBytes::try_with(32, getrandom::fill).unwrap()
    }

    fn numbered(shares: &[SecureBytes]) -> Vec<(u8, &SecureBytes)> {
        (1..).zip(shares).collect()
    }

    #[test]
    fn every_subset_that_is_large_enough_gives_the_secret_and_no_smaller_one_does() {
        let secret = secret();
        for (threshold, count) in [(2, 2), (2, 3), (3, 5), (5, 5)] {
            let shares = split(&secret, threshold, count).unwrap();
            assert_eq!(shares.len(), usize::from(count));
            for subset in 1_u32..1 << count {
                let all = numbered(&shares);
                let chosen: Vec<_> = all.into_iter().filter(|(index, _)| subset & (1 << (index - 1)) != 0).collect();
                let enough = chosen.len() >= usize::from(threshold);
                let combined = combine(&chosen);
                assert_eq!(combined.is_ok_and(|combined| combined == secret), enough, "{chosen:?} of {threshold}");
            }
        }
    }

    #[test]
    fn shares_are_points_of_polynomials_by_an_independent_computation() {
        let secret = secret();
        let shares = split(&secret, 3, 255).unwrap();
        for chosen in [[1_u8, 2, 3], [255, 7, 100]] {
            for (byte, wanted) in secret.expose().iter().enumerate() {
                let points = chosen.map(|index| (index, shares[usize::from(index) - 1].expose()[byte]));
                assert_eq!(interpolate(&points), *wanted);
            }
        }
    }

    #[test]
    fn coefficients_are_drawn_from_the_whole_field() {
        // Of a line through the secret 0, share 1 is the slope: every value must come, and none twice as often as it should.
        let zero = SecureBytes::zeroed(64 * 256);
        let shares = split(&zero, 2, 2).unwrap();
        let mut seen = [0_u32; 256];
        shares[0].expose().iter().for_each(|slope| seen[usize::from(*slope)] += 1);
        assert!(seen.iter().all(|count| (16..160).contains(count)), "{seen:?}");
    }

    #[test]
    fn what_cannot_be_split_or_combined_is_refused() {
        let secret = secret();
        for (threshold, count) in [(0, 0), (0, 3), (1, 1), (1, 3), (4, 3)] {
            assert_eq!(split(&secret, threshold, count).unwrap_err().kind(), Kind::ArgumentsBad, "{threshold}/{count}");
        }
        let shares = split(&secret, 2, 3).unwrap();
        let short = SecureBytes::copy_from(&shares[1].expose()[..31]);
        for bad in
            [vec![], vec![(1, &shares[0])], vec![(1, &shares[0]), (1, &shares[0])], vec![(1, &shares[0]), (2, &short)]]
        {
            assert_eq!(combine(&bad).unwrap_err().kind(), Kind::ArgumentsBad);
        }
        assert!(combine(&[(0, &shares[0]), (2, &shares[1])]).is_err(), "number 0 would be the secret itself");
    }
}
