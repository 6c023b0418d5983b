//! Lengths that the caller decides: too little memory is an answer, never the end of the process.

use ffi_tests::ck::*;
use ffi_tests::{Mechanism, Rv, Session, Template, TestToken, assert_rv, call, check, isolated, template};

const MIB: usize = 1024 * 1024;

/// Leaves this process so much address space beyond what it has; `None` lifts the limit.
fn leave(bytes: Option<usize>) {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("the size of this process");
    let pages: u64 = pages.split(' ').next().expect("a number").parse().expect("a number");
    // SAFETY: takes no pointer.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64;
    let most = bytes.map_or(libc::RLIM_INFINITY, |bytes| pages * page + bytes as u64);
    let limit = libc::rlimit { rlim_cur: most, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the structure lives.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0, "setrlimit");
}

/// Takes what the allocator still has in blocks of 4 MiB: it keeps more than it uses.
fn hoard() -> Vec<Vec<u8>> {
    let mut blocks = Vec::with_capacity(4096);
    let mut block = Vec::<u8>::new();
    while blocks.len() < 4096 && block.try_reserve_exact(4 * MIB).is_ok() {
        blocks.push(std::mem::take(&mut block));
    }
    blocks
}

/// Calls again and again until a call fails, and gives its answer.
fn until_it_fails(mut call: impl FnMut() -> ffi_tests::Result<()>) -> Rv {
    (0..64).find_map(|_| call().err()).expect("one of the calls finds no memory")
}

/// Entries that all point to one buffer.
fn entries(count: u64, buffer: &[u8]) -> Vec<CK_ATTRIBUTE> {
    let entry = |index| CK_ATTRIBUTE {
        type_: CKA_VENDOR_DEFINED + 0x7000 + index,
        pValue: buffer.as_ptr().cast_mut().cast(),
        ulValueLen: buffer.len() as CK_ULONG,
    };
    (0..count).map(entry).collect()
}

fn find_init(session: &Session, entries: &mut [CK_ATTRIBUTE]) -> ffi_tests::Result<()> {
    check(call!(session.module, C_FindObjectsInit(session.handle, entries.as_mut_ptr(), entries.len() as CK_ULONG)))
}

#[test]
fn r16_a_template_has_a_largest_sum_and_its_values_may_find_no_memory() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let buffer = vec![7; 16 * MIB];
        let (mut many, mut one) = (entries(200, &buffer), entries(1, &buffer));
        let secret = Template::class(CKO_SECRET_KEY).bytes(CKA_VALUE, &buffer);

        leave(Some(8 * MIB));
        let hoarded = hoard();
        assert_rv!(find_init(&session, &mut one), CKR_HOST_MEMORY);
        assert_rv!(session.create(&secret).map(|_| ()), CKR_HOST_MEMORY);
        drop(hoarded);
        leave(Some(256 * MIB));
        assert_rv!(find_init(&session, &mut many), CKR_ATTRIBUTE_VALUE_INVALID);
        leave(None);
        session.find(&Template::new()).expect("the session searches");
    });
}

#[test]
fn r16_collected_parts_may_find_no_memory() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let part = vec![7; 16 * MIB];
        let key = session.aes(16, "key", false, &Template::new()).expect("C_GenerateKey");
        let pair = Template::new().bytes(CKA_EC_PARAMS, template::curve::ED25519);
        let private = Template::new().bool(CKA_SIGN, true);
        let (_, private) = session
            .generate_pair(&Mechanism::new(CKM_EC_EDWARDS_KEY_PAIR_GEN), &pair, &private)
            .expect("C_GenerateKeyPair");
        let gcm = Mechanism::gcm(CKM_AES_GCM, &[1; 12], &[], 128);
        let wrap = Mechanism::new(CKM_AES_KEY_WRAP);

        leave(Some(100 * MIB));
        session.sign_init(&Mechanism::new(CKM_EDDSA), private).expect("C_SignInit");
        assert_rv!(Err::<(), _>(until_it_fails(|| session.sign_update(&part))), CKR_HOST_MEMORY);
        session.encrypt_init(&wrap, key).expect("C_EncryptInit");
        assert_rv!(Err::<(), _>(until_it_fails(|| session.encrypt_update(&part).map(drop))), CKR_HOST_MEMORY);
        session.decrypt_init(&gcm, key).expect("C_DecryptInit");
        assert_rv!(Err::<(), _>(until_it_fails(|| session.decrypt_update(&part).map(drop))), CKR_HOST_MEMORY);
        leave(None);
        session.sign(&Mechanism::new(CKM_EDDSA), private, b"message").expect("the session signs");
    });
}

#[test]
fn r16_a_copy_of_the_input_may_find_no_memory() {
    isolated!(|| {
        let token = TestToken::new();
        let session = token.user();
        let mut buffer = vec![7; 17 * MIB];
        let key = session.aes(16, "key", false, &Template::new()).expect("C_GenerateKey");
        session.encrypt_init(&Mechanism::ctr(CKM_AES_CTR, 128, [1; 16]), key).expect("C_EncryptInit");
        let (mut len, given) = (16 * MIB as CK_ULONG, 16 * MIB as CK_ULONG);
        let input = buffer.as_mut_ptr();
        let output = input.wrapping_add(64);

        leave(Some(8 * MIB));
        let overlapping = call!(session.module, C_EncryptUpdate(session.handle, input, given, output, &mut len));
        assert_rv!(check(overlapping), CKR_HOST_MEMORY);
        let wrapped = session.unwrap(
            &Mechanism::new(CKM_AES_KEY_WRAP),
            key,
            &buffer,
            &Template::new().ulong(CKA_CLASS, CKO_SECRET_KEY).ulong(CKA_KEY_TYPE, CKK_GENERIC_SECRET),
        );
        assert_rv!(wrapped.map(|_| ()), CKR_HOST_MEMORY);
        leave(None);
        session.random(8).expect("the session lives");
    });
}
