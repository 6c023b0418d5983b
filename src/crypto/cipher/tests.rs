//! What every cipher must do alike: parts give what one part gives, wherever the buffers lie and however small the room was.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::as_conversions)]

use proptest::prelude::*;

use super::*;
use crate::crypto::aead::{GcmDecryption, GcmEncryption};
use crate::crypto::aes::{AesKey, BlockCipher, Ctr, KeyWrap, Wrapping};
use crate::secret::SecureBytes;

/// A byte around buffers, to see who writes where he must not.
const GUARD: u8 = 0xC3;
/// How many such bytes there are on each side.
const MARGIN: usize = 32;

type Running = Box<dyn CipherOperation>;

fn ecb(key: &AesKey, direction: Direction) -> Running {
    Box::new(BlockCipher::ecb(key, direction).unwrap())
}

fn cbc(key: &AesKey, direction: Direction) -> Running {
    Box::new(BlockCipher::cbc(key, direction, [7; 16], false))
}

fn cbc_pad(key: &AesKey, direction: Direction) -> Running {
    Box::new(BlockCipher::cbc(key, direction, [7; 16], true))
}

fn ctr(key: &AesKey, direction: Direction) -> Running {
    Box::new(Ctr::new(key, direction, 32, [9; 16]).unwrap())
}

fn kw(key: &AesKey, direction: Direction) -> Running {
    Box::new(KeyWrap::new(key, direction, Wrapping::Kw(None)))
}

fn kwp(key: &AesKey, direction: Direction) -> Running {
    Box::new(KeyWrap::new(key, direction, Wrapping::Kwp))
}

fn gcm(key: &AesKey, direction: Direction) -> Running {
    gcm_with(key, direction, 12, 16)
}

fn gcm_with(key: &AesKey, direction: Direction, iv_len: usize, tag_len: usize) -> Running {
    let iv: Vec<u8> = (0..iv_len).map(|i| i as u8).collect();
    match direction {
        Direction::Encrypt => Box::new(GcmEncryption::new(key, &iv, b"associated", tag_len).unwrap()),
        Direction::Decrypt => Box::new(GcmDecryption::new(key, &iv, b"associated", tag_len).unwrap()),
    }
}

/// Every cipher, the unit of its input, and its shortest input.
type Cipher = (&'static str, fn(&AesKey, Direction) -> Running, usize, usize);
const CIPHERS: &[Cipher] = &[
    ("ECB", ecb, 16, 0),
    ("CBC", cbc, 16, 0),
    ("CBC with padding", cbc_pad, 1, 0),
    ("CTR", ctr, 1, 0),
    ("GCM", gcm, 1, 0),
    ("KW", kw, 8, 16),
    ("KWP", kwp, 1, 1),
];

/// Where the output lies: nowhere near the input, or so many bytes after its start.
#[derive(Debug, Clone, Copy)]
enum Place {
    Apart,
    Shifted(isize),
}

fn places() -> impl Strategy<Value = Place> {
    prop_oneof![Just(Place::Apart), Just(Place::Shifted(0)), (-20_isize..20).prop_map(Place::Shifted)]
}

/// Makes one call, first with no room at all, then with what `output_len` tells; checks what was written where.
fn call(running: &mut dyn CipherOperation, step: Step, input: &[u8], place: Place) -> Result<Vec<u8>> {
    let most = running.output_len(step, input.len());
    let mut memory = vec![GUARD; 4 * MARGIN + 2 * (input.len() + most)];
    let start = 2 * MARGIN;
    let to = match place {
        Place::Apart => start + input.len() + MARGIN,
        Place::Shifted(by) => start.checked_add_signed(by).unwrap(),
    };
    memory[start..start + input.len()].copy_from_slice(input);
    let before = memory.clone();
    let base = memory.as_mut_ptr();
    for room in [0, most] {
        // SAFETY: both ranges lie in `memory`, which nothing else touches during the call.
        let data = unsafe { InOut::new(base.wrapping_add(start), input.len(), base.wrapping_add(to), room) }?;
        let written = match step {
            Step::Single => running.single(data)?,
            Step::Update => running.update(data)?,
            Step::Final => running.finish(data)?,
        };
        match written {
            Written::Needs(needed) => {
                assert!(room == 0 && (1..=most).contains(&needed), "needs {needed} of {most} with {room}");
                assert!(memory == before, "a call without room wrote something");
            }
            Written::Bytes(len) => {
                assert!(len <= room);
                assert!(memory[..to] == before[..to] && memory[to + most..] == before[to + most..], "wrote outside");
                return Ok(memory[to..to + len].to_vec());
            }
        }
    }
    unreachable!("the second call has the room that was asked for")
}

fn whole(mut running: Running, input: &[u8], place: Place) -> Result<Vec<u8>> {
    call(running.as_mut(), Step::Single, input, place)
}

fn parts(mut running: Running, input: &[u8], lens: &[usize], place: Place) -> Result<Vec<u8>> {
    let (mut rest, mut out) = (input, Vec::new());
    for len in lens {
        let part = rest.split_off(..(*len).min(rest.len())).unwrap();
        out.extend(call(running.as_mut(), Step::Update, part, place)?);
    }
    out.extend(call(running.as_mut(), Step::Update, rest, place)?);
    out.extend(call(running.as_mut(), Step::Final, &[], Place::Apart)?);
    Ok(out)
}

fn key(len: usize) -> AesKey {
    AesKey::new(SecureBytes::copy_from(&vec![0x42; len])).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn parts_give_what_one_part_gives(
        data in prop::collection::vec(any::<u8>(), 0..400),
        lens in prop::collection::vec(0_usize..70, 0..12),
        key_len in prop::sample::select(vec![16, 24, 32]),
        place in places(),
    ) {
        let key = key(key_len);
        for (name, start, unit, least) in CIPHERS {
            let plain = &data[..data.len() / unit * unit];
            if plain.len() < *least {
                continue;
            }
            let sealed = whole(start(&key, Direction::Encrypt), plain, Place::Apart).unwrap();
            prop_assert_eq!(&whole(start(&key, Direction::Encrypt), plain, place).unwrap_or_else(|error| panic!("{name}: {error}")), &sealed, "{}", name);
            prop_assert_eq!(&parts(start(&key, Direction::Encrypt), plain, &lens, place).unwrap(), &sealed, "{}", name);
            prop_assert_eq!(whole(start(&key, Direction::Decrypt), &sealed, place).unwrap(), plain, "{}", name);
            prop_assert_eq!(parts(start(&key, Direction::Decrypt), &sealed, &lens, place).unwrap(), plain, "{}", name);
        }
    }

    #[test]
    fn r48_gcm_takes_every_iv_and_tag_length_and_refuses_every_change(
        data in prop::collection::vec(any::<u8>(), 0..200),
        iv_len in 1_usize..40,
        flip in any::<prop::sample::Index>(),
        place in places(),
    ) {
        let key = key(32);
        for tag_len in [4, 8, 12, 13, 14, 15, 16] {
            let start = |direction| gcm_with(&key, direction, iv_len, tag_len);
            let mut sealed = whole(start(Direction::Encrypt), &data, place).unwrap();
            prop_assert_eq!(sealed.len(), data.len() + tag_len);
            let full = whole(gcm_with(&key, Direction::Encrypt, iv_len, 16), &data, place).unwrap();
            prop_assert_eq!(&full[..sealed.len()], &sealed, "a shorter tag is the start of the whole one");
            prop_assert_eq!(&parts(start(Direction::Encrypt), &data, &[5, 40], place).unwrap(), &sealed);
            prop_assert_eq!(&parts(start(Direction::Decrypt), &sealed, &[5, 40], place).unwrap(), &data);
            let at = flip.index(sealed.len());
            sealed[at] ^= 1;
            let whole = whole(start(Direction::Decrypt), &sealed, place).unwrap_err();
            let parts = parts(start(Direction::Decrypt), &sealed, &[5, 40], place).unwrap_err();
            prop_assert_eq!((whole.kind(), parts.kind()), (Kind::EncryptedDataInvalid, Kind::EncryptedDataInvalid));
        }
    }
}

#[test]
fn r48_gcm_releases_nothing_before_the_tag_is_verified() {
    let key = key(16);
    let mut sealed = whole(gcm(&key, Direction::Encrypt), &[0x55; 300], Place::Apart).unwrap();
    *sealed.last_mut().unwrap() ^= 1;

    let mut output = [GUARD; 300];
    let error = gcm(&key, Direction::Decrypt).single(InOut::from_slices(&sealed, &mut output)).unwrap_err();
    assert_eq!(error.kind(), Kind::EncryptedDataInvalid);
    assert!(!output.contains(&0x55), "no byte of plaintext may be seen");

    let (mut running, mut output) = (gcm(&key, Direction::Decrypt), [GUARD; 300]);
    for part in sealed.chunks(64) {
        assert_eq!(running.output_len(Step::Update, part.len()), 0);
        assert_eq!(running.update(InOut::from_slices(part, &mut output)).unwrap(), Written::Bytes(0));
    }
    assert_eq!(output, [GUARD; 300]);
    assert_eq!(running.output_len(Step::Final, 0), 300);
    assert_eq!(running.finish(InOut::from_slices(&[], &mut output)).unwrap_err().kind(), Kind::EncryptedDataInvalid);
    assert!(!output.contains(&0x55), "no byte of plaintext may be seen");
}

#[test]
fn wrong_lengths_are_told_by_direction() {
    let key = key(16);
    let cases: &[(Cipher, Direction, &[usize], Kind)] = &[
        (CIPHERS[0], Direction::Encrypt, &[1, 15, 17], Kind::DataLenRange),
        (CIPHERS[0], Direction::Decrypt, &[1, 15, 17], Kind::EncryptedDataLenRange),
        (CIPHERS[1], Direction::Encrypt, &[1, 15, 17], Kind::DataLenRange),
        (CIPHERS[1], Direction::Decrypt, &[1, 15, 17], Kind::EncryptedDataLenRange),
        (CIPHERS[2], Direction::Decrypt, &[0, 1, 15, 17], Kind::EncryptedDataLenRange),
        (CIPHERS[4], Direction::Decrypt, &[0, 15], Kind::EncryptedDataLenRange),
        (CIPHERS[5], Direction::Encrypt, &[0, 8, 15, 17], Kind::DataLenRange),
        (CIPHERS[5], Direction::Decrypt, &[0, 8, 16, 25], Kind::EncryptedDataLenRange),
        (CIPHERS[6], Direction::Encrypt, &[0], Kind::DataLenRange),
        (CIPHERS[6], Direction::Decrypt, &[0, 8, 15, 25], Kind::EncryptedDataLenRange),
    ];
    for ((name, start, ..), direction, lens, kind) in cases {
        for len in *lens {
            let input = vec![0; *len];
            let single = whole(start(&key, *direction), &input, Place::Apart).unwrap_err();
            let several = parts(start(&key, *direction), &input, &[], Place::Apart).unwrap_err();
            assert_eq!((single.kind(), several.kind()), (*kind, *kind), "{name}, {direction:?}, {len} bytes");
        }
    }
}

#[test]
fn the_counter_never_wraps() {
    let key = key(32);
    // Two bits from 1 on: three blocks, as the standard's example has it (PKCS #11 v3.2, 6.13.8); 128 bits from the top: one.
    for (bits, last, blocks) in [(2, 0xF5, 3), (2, 0xF4, 4), (1, 0xFF, 1), (8, 0xFE, 2), (128, 0xFF, 1)] {
        let mut block = [0xFF; 16];
        block[15] = last;
        let limit = blocks * 16;
        for (direction, kind) in
            [(Direction::Encrypt, Kind::DataLenRange), (Direction::Decrypt, Kind::EncryptedDataLenRange)]
        {
            let start = || -> Running { Box::new(Ctr::new(&key, direction, bits, block).unwrap()) };
            assert_eq!(whole(start(), &vec![0; limit], Place::Apart).unwrap().len(), limit);
            assert_eq!(whole(start(), &vec![0; limit + 1], Place::Apart).unwrap_err().kind(), kind);
            assert_eq!(parts(start(), &vec![0; limit], &[1, 7, 9, 20], Place::Apart).unwrap().len(), limit);
            assert_eq!(parts(start(), &vec![0; limit + 1], &[1, 7, 9, 20], Place::Apart).unwrap_err().kind(), kind);
        }
    }
    for bits in [0, 129, u64::MAX] {
        assert_eq!(
            Ctr::new(&key, Direction::Encrypt, bits, [0; 16]).err().unwrap().kind(),
            Kind::MechanismParamInvalid
        );
    }
}

#[test]
fn a_key_serves_many_threads_at_once() {
    let key = key(32);
    let expected: Vec<_> = CIPHERS
        .iter()
        .map(|(_, start, ..)| whole(start(&key, Direction::Encrypt), &[3; 64], Place::Apart).unwrap())
        .collect();
    let fresh = self::key(32);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    for ((name, start, ..), expected) in CIPHERS.iter().zip(&expected) {
                        assert_eq!(
                            &whole(start(&fresh, Direction::Encrypt), &[3; 64], Place::Apart).unwrap(),
                            expected,
                            "{name}"
                        );
                        assert_eq!(
                            whole(start(&fresh, Direction::Decrypt), expected, Place::Apart).unwrap(),
                            [3; 64],
                            "{name}"
                        );
                    }
                }
            });
        }
    });
}
