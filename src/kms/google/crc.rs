//! CRC-32C (Castagnoli), with which Cloud KMS checks fields both ways.

/// The polynomial of RFC 3720, reflected.
const POLYNOMIAL: u32 = 0x82F6_3B78;

/// Computes the checksum in the type of the API's fields, where it is a 64-bit number.
pub fn crc32c(bytes: &[u8]) -> i64 {
    let crc = bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)));
    i64::from(!crc)
}

/// Divides by one bit; what is checked is short, so no table is worth its place.
const fn step(crc: u32) -> u32 {
    (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::crc32c;

    #[test]
    fn the_vectors_of_rfc_3720_hold() {
        // RFC 3720, B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<_>>()), 0x46DD_794E);
        // The check value of the catalogue of CRC algorithms.
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(b""), 0);
    }
}
