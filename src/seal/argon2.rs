//! Argon2id (RFC 9106, version 1.3): from a password to a [`MasterKey`].

use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::Zeroize;

use crate::error::{Error, Kind, Result};
use crate::secret::{MasterKey, Pages, SecureBytes};

/// The length of a salt in bytes.
pub const SALT_LEN: usize = 32;

/// What Argon2id costs. A value that exists is within bounds, so that no altered blob can take the machine down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argon2Params {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Argon2Params {
    /// The least memory: 1 MiB.
    pub const MIN_MEMORY_KIB: u32 = 1024;
    /// The most memory: 4 GiB.
    pub const MAX_MEMORY_KIB: u32 = 4 * 1024 * 1024;
    /// The most passes.
    pub const MAX_PASSES: u32 = 64;
    /// The most lanes.
    pub const MAX_LANES: u32 = 64;

    /// The least of all, for an envelope without a password.
    pub const LEAST: Self = Self { memory_kib: Self::MIN_MEMORY_KIB, passes: 1, lanes: 1 };

    /// Takes memory in KiB, passes and lanes.
    ///
    /// # Errors
    /// `ArgumentsBad` for a value out of bounds.
    pub fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self> {
        check("memory in KiB", memory_kib, Self::MIN_MEMORY_KIB, Self::MAX_MEMORY_KIB)?;
        check("passes", passes, 1, Self::MAX_PASSES)?;
        check("lanes", lanes, 1, Self::MAX_LANES)?;
        Ok(Self { memory_kib, passes, lanes })
    }

    /// Tells the memory in KiB.
    pub fn memory_kib(&self) -> u32 {
        self.memory_kib
    }

    /// Tells the number of passes.
    pub fn passes(&self) -> u32 {
        self.passes
    }

    /// Tells the number of lanes.
    pub fn lanes(&self) -> u32 {
        self.lanes
    }

    /// Tells whether it costs more than another: more memory or more passes, and less of neither. Lanes are no cost.
    pub fn exceeds(&self, other: &Self) -> bool {
        let no_less = self.memory_kib >= other.memory_kib && self.passes >= other.passes;
        no_less && (self.memory_kib, self.passes) != (other.memory_kib, other.passes)
    }

    /// Derives the master key of a password.
    ///
    /// # Errors
    /// `HostMemory` when there is not enough memory; `PinLenRange` for a password of 4 GiB or more.
    pub fn derive(&self, password: &SecureBytes, salt: &[u8; SALT_LEN]) -> Result<MasterKey> {
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(MasterKey::LEN))
            .map_err(|error| Error::internal(format!("Argon2id parameters: {error}")))?;
        let mut memory = Memory::new(params.block_count())?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        MasterKey::derive(|key| {
            argon2
                .hash_password_into_with_memory(password.expose(), salt, key, memory.0.as_mut_slice())
                .map_err(|error| Error::new(Kind::PinLenRange, format!("Argon2id: {error}")))
        })
    }
}

impl Default for Argon2Params {
    /// 64 MiB, 3 passes, 4 lanes: the second choice of RFC 9106, 4.
    fn default() -> Self {
        Self { memory_kib: 64 * 1024, passes: 3, lanes: 4 }
    }
}

fn check(what: &str, value: u32, min: u32, max: u32) -> Result<()> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(Error::arguments_bad(format!("Argon2id {what}: {value} is not within {min} and {max}")))
}

/// The memory that Argon2id fills from the password: not in a core file, zero in a forked child, wiped when dropped. It is not locked
/// against swapping, for which the limits of most processes are too low.
struct Memory(Pages<Block>);

impl Memory {
    fn new(blocks: usize) -> Result<Self> {
        Pages::try_of(blocks, Block::new()).map(Self).ok_or_else(|| Error::from(Kind::HostMemory))
    }

    fn wipe(&mut self) {
        self.0.as_mut_slice().iter_mut().for_each(Zeroize::zeroize);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.wipe();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::as_conversions)]
mod tests {
    use super::*;

    #[test]
    fn derive_matches_a_published_vector() {
        // The reference implementation's test.c (version 0x13, Argon2id): t = 2, m = 64 MiB, p = 1, "password", "somesalt"
        // uses an 8-byte salt; ours is fixed at 32 bytes, so the same library call is checked with that vector.
        let params = Params::new(65536, 2, 1, Some(32)).unwrap();
        let mut out = [0; 32];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(b"password", b"somesalt", &mut out)
            .unwrap();
        assert_eq!(
            data_encoding::HEXLOWER.encode(&out),
            "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7"
        );
    }

    #[test]
    fn derive_depends_on_password_salt_and_each_parameter() {
        let derive = |params: (u32, u32, u32), password: &[u8], salt: u8| {
            let params = Argon2Params::new(params.0, params.1, params.2).unwrap();
            params.derive(&SecureBytes::copy_from(password), &[salt; 32]).unwrap().expose().to_vec()
        };
        let first = derive((1024, 1, 1), b"pin", 1);
        assert_eq!(first, derive((1024, 1, 1), b"pin", 1));
        for other in [
            derive((1024, 1, 1), b"pim", 1),
            derive((1024, 1, 1), b"pin", 2),
            derive((2048, 1, 1), b"pin", 1),
            derive((1024, 2, 1), b"pin", 1),
            derive((1024, 1, 2), b"pin", 1),
        ] {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn new_refuses_what_would_take_the_machine_down() {
        for (memory, passes, lanes) in
            [(u32::MAX, 3, 4), (1023, 3, 4), (0, 3, 4), (65536, 0, 4), (65536, 65, 4), (65536, 3, 0), (65536, 3, 65)]
        {
            let error = Argon2Params::new(memory, passes, lanes).unwrap_err();
            assert_eq!(error.kind(), Kind::ArgumentsBad);
        }
        for params in [(Argon2Params::MIN_MEMORY_KIB, 1, 1), (Argon2Params::MAX_MEMORY_KIB, 64, 64), (1024, 1, 64)] {
            assert!(Argon2Params::new(params.0, params.1, params.2).is_ok());
        }
    }

    #[test]
    fn r40_memory_is_kept_out_of_core_files_and_children() {
        let mut memory = Memory::new(64).unwrap();
        let at = memory.0.as_mut_slice().as_ptr().addr();
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let holds = |line: &str| {
            let range = line.split_once(' ')?.0.split_once('-')?;
            let [start, end] = [range.0, range.1].map(|text| usize::from_str_radix(text, 16));
            Some((start.ok()?..end.ok()?).contains(&at))
        };
        let mut lines = smaps.lines().skip_while(|line| holds(line) != Some(true));
        let flags: Vec<_> = lines.find(|line| line.starts_with("VmFlags:")).unwrap().split_whitespace().collect();
        assert!(flags.contains(&"dd") && flags.contains(&"wf"), "{flags:?}");
    }

    #[test]
    fn r40_memory_is_wiped() {
        let mut memory = Memory::new(64).unwrap();
        let params = Params::new(64, 1, 1, Some(32)).unwrap();
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        argon2.hash_password_into_with_memory(b"pin", &[7; 32], &mut [0; 32], memory.0.as_mut_slice()).unwrap();
        let nonzero = |memory: &mut Memory| {
            memory.0.as_mut_slice().iter().flat_map(|block| block.as_ref()).any(|word| *word != 0)
        };
        assert!(nonzero(&mut memory));
        memory.wipe();
        assert!(!nonzero(&mut memory));
    }
}
