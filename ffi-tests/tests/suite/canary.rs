//! Secrets do not leak: into logs, files and texts, or into memory after their time.

use std::os::unix::fs::FileExt;
use std::path::Path;

use ffi_tests::ck::*;
use ffi_tests::{
    Config, Mechanism, Role, SO_PIN, Session, Template, TestToken, assert_rv, call, check, isolated, say, token,
};

const CANARY_PIN: &str = "Canary-Pin-6hT9wq2Z";
const CANARY_NEW_PIN: &str = "Canary-New-Pin-x81Lr";
const CANARY_WRONG_PIN: &str = "Canary-Wrong-Pin-0aB";
const CANARY_LABEL: &str = "Canary-Label-q7Yv3nKs";
const CANARY_KEY: &[u8; 32] = b"CanaryKey:4Jx8u2MpQ7vZ1sLb9RtYc3";
const CANARY_SCALAR: &[u8; 32] = b"CanaryEc:Kd73hVbn51QqWzXe0TgUy2m";

/// The forms in which bytes may turn up.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let list: Vec<String> = secret.iter().map(u8::to_string).collect();
    let mut all =
        vec![secret.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes(), list.join(", ").into_bytes()];
    all.extend((0..3).map(|skip| base64(&secret[skip..])));
    all
}

/// Base64 of the whole groups of three bytes.
fn base64(bytes: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |chunk: &[u8]| {
        let bits = u32::from(chunk[0]) << 16 | u32::from(chunk[1]) << 8 | u32::from(chunk[2]);
        [18, 12, 6, 0].map(|shift| ALPHABET[(bits >> shift) as usize & 63])
    };
    bytes.chunks_exact(3).flat_map(group).collect()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn assert_clean(what: &str, bytes: &[u8]) {
    for (secret, name) in [
        (CANARY_PIN.as_bytes(), "PIN"),
        (CANARY_NEW_PIN.as_bytes(), "new PIN"),
        (CANARY_WRONG_PIN.as_bytes(), "wrong PIN"),
        (CANARY_LABEL.as_bytes(), "label of a private object"),
        (CANARY_KEY, "secret key"),
        (CANARY_SCALAR, "private key"),
    ] {
        for (index, form) in forms(secret).iter().enumerate() {
            assert!(!contains(bytes, form), "{what} holds the {name} (form {index})");
        }
    }
}

/// Does a bit of everything with canaries, and much of it wrong; tells every error text.
pub fn role_canary(config: &str) {
    let module = token::attach(config);
    let session = module.open(module.slot_of("test").expect("the token")).expect("C_OpenSession");
    session.login(CKU_SO, SO_PIN).expect("C_Login of the SO");
    session.init_pin(CANARY_PIN).expect("C_InitPIN");
    session.logout().expect("C_Logout");
    let errors = |what: &str| say(&format!("text of {what}: {}", module.last_error()));
    assert_rv!(session.login(CKU_USER, CANARY_WRONG_PIN), CKR_PIN_INCORRECT);
    errors("a wrong PIN");
    session.login(CKU_USER, CANARY_PIN).expect("C_Login");
    assert_rv!(session.set_pin(CANARY_WRONG_PIN, CANARY_NEW_PIN), CKR_PIN_INCORRECT);
    errors("a wrong old PIN");
    let secret = |value: &[u8]| {
        Template::class(CKO_SECRET_KEY)
            .ulong(CKA_KEY_TYPE, CKK_AES)
            .bytes(CKA_LABEL, CANARY_LABEL)
            .bytes(CKA_VALUE, value)
            .bool(CKA_TOKEN, true)
            .bool(CKA_SENSITIVE, true)
            .bool(CKA_EXTRACTABLE, true)
            .bool(CKA_WRAP, true)
            .bool(CKA_ENCRYPT, true)
    };
    let key = session.create(&secret(CANARY_KEY)).expect("C_CreateObject");
    let long = [&CANARY_KEY[..], b"x"].concat();
    assert!(session.create(&secret(&long)).is_err(), "33 bytes are no AES key");
    errors("a key of a wrong length");
    assert!(session.create(&secret(CANARY_KEY).bytes(CKA_SIGN, CANARY_KEY)).is_err());
    errors("a template that cannot be");
    let private = Template::class(CKO_PRIVATE_KEY)
        .ulong(CKA_KEY_TYPE, CKK_EC)
        .bytes(CKA_EC_PARAMS, ffi_tests::template::curve::P256)
        .bytes(CKA_LABEL, CANARY_LABEL)
        .bytes(CKA_VALUE, CANARY_SCALAR)
        .bool(CKA_TOKEN, true)
        .bool(CKA_SENSITIVE, true)
        .bool(CKA_SIGN, true)
        .bool(CKA_EXTRACTABLE, true);
    let signer = session.create(&private).expect("C_CreateObject");
    assert!(session.create(&private.clone().bytes(CKA_EC_PARAMS, [6, 1, 1])).is_err());
    errors("a curve that is none");
    session.sign(&Mechanism::new(CKM_ECDSA), signer, &[1; 32]).expect("C_Sign");
    session.wrap(&Mechanism::new(CKM_AES_KEY_WRAP_KWP), key, signer).expect("C_WrapKey");
    session.encrypt(&Mechanism::gcm(CKM_AES_GCM, &[1; 12], b"", 128), key, b"plain").expect("C_Encrypt");
    assert!(session.get(key, CKA_VALUE).is_err());
    errors("reading a secret");
    session.find(&Template::new().bytes(CKA_VALUE, CANARY_KEY)).expect("C_FindObjects");
    session.set(key, &Template::new().bytes(CKA_LABEL, "renamed")).expect("C_SetAttributeValue");
    session.copy(key, &Template::new().bool(CKA_TOKEN, false)).expect("C_CopyObject");
    session.set_pin(CANARY_PIN, CANARY_NEW_PIN).expect("C_SetPIN");
    session.logout().expect("C_Logout");
    assert_rv!(session.login(CKU_USER, CANARY_PIN), CKR_PIN_INCORRECT);
    errors("the old PIN");
    session.login(CKU_USER, CANARY_NEW_PIN).expect("C_Login");
    let found = session.find(&Template::class(CKO_PRIVATE_KEY)).expect("C_FindObjects");
    session.sign(&Mechanism::new(CKM_ECDSA), found[0], &[1; 32]).expect("C_Sign");
    if let Ok(status) = module.status() {
        say(&format!("status {status}"));
    }
    for file in ["cmdline", "environ"] {
        let bytes = std::fs::read(format!("/proc/self/{file}")).expect("/proc");
        assert_clean(file, &bytes);
    }
    module.finalize().expect("C_Finalize");
}

fn assert_directory_clean(directory: &Path) {
    for entry in std::fs::read_dir(directory).expect("the directory").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            assert_directory_clean(&entry);
        } else {
            assert_clean(&entry.display().to_string(), &std::fs::read(&entry).expect("a file"));
        }
    }
}

#[test]
fn r23_no_canary_in_logs_files_or_texts() {
    isolated!(|| {
        let more = "[audit]\nmode = \"required\"\nkey_use = true\nsinks = [\"store\", \"file:audit.jsonl\"]".to_owned();
        let token = TestToken::with(&Config { more, ..Config::plaintext("compat") });
        let log = token.directory().join("strongroom.log");
        token.module.finalize().expect("C_Finalize");
        let env = [("STRONGROOM_LOG", "trace")];
        let (status, lines, stderr) = Role::start_with("canary", &token.config_text(), &env).finish();
        assert!(status.success(), "{}", ffi_tests::isolate::tail(&stderr));
        assert!(lines.iter().filter(|line| line.starts_with("text of")).count() >= 6);
        assert!(!stderr.is_empty() || log.exists(), "at level trace there is a log to look at");
        assert_clean("the log", stderr.as_bytes());
        assert_clean("an error text", lines.join("\n").as_bytes());
        assert_directory_clean(token.directory());
        let trail = std::fs::read_to_string(token.directory().join("audit.jsonl")).expect("the audit trail");
        for operation in ["C_Login", "C_CreateObject", "C_SetAttributeValue", "C_SignInit", "C_WrapKey", "C_SetPIN"] {
            assert!(trail.contains(operation), "the trail has no {operation} to look at");
        }
    });
}

#[test]
fn the_canary_search_sees_every_form() {
    for form in forms(CANARY_KEY) {
        let haystack = [b"noise ", &form[..], b" noise"].concat();
        let caught = std::panic::catch_unwind(|| assert_clean("haystack", &haystack));
        assert!(caught.is_err(), "{}", String::from_utf8_lossy(&form));
    }
}

// ---- memory ----

/// What secrets are masked with wherever the test itself keeps them.
const MASK: u8 = 0xa7;

/// A secret of the test: masked at rest, in the open only in one page of its own.
pub struct Masked<const N: usize>([u8; N]);

impl<const N: usize> Masked<N> {
    /// Draws letters at random.
    pub fn draw(session: &Session) -> Self {
        let mut masked = [0u8; N];
        for (to, from) in masked.iter_mut().zip(session.random(N).expect("C_GenerateRandom")) {
            *to = (b'a' + from % 26) ^ MASK;
        }
        Self(masked)
    }

    /// Writes it in the open.
    pub fn unmask(&self, page: *mut u8) {
        for (index, byte) in self.0.iter().enumerate() {
            // SAFETY: the page is longer; volatile, so that no copy is made on the way.
            unsafe { page.add(index).write_volatile(byte ^ MASK) };
        }
    }
}

/// Clears the page.
pub fn wipe(page: *mut u8) {
    for index in 0..4096 {
        // SAFETY: the page has so many bytes.
        unsafe { page.add(index).write_volatile(0) };
    }
}

/// Counts a masked secret in all readable memory of this process.
pub fn hits<const N: usize>(secret: &Masked<N>) -> Vec<String> {
    let memory = std::fs::File::open("/proc/self/mem").expect("/proc/self/mem");
    let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc/self/maps");
    const CHUNK: usize = 1 << 20;
    let mut buffer = vec![0u8; CHUNK + N];
    let own = buffer.as_ptr() as u64..buffer.as_ptr() as u64 + buffer.len() as u64;
    let mut found = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, access) = (words.next().expect("a range"), words.next().expect("an access"));
        if !access.starts_with("rw") {
            continue;
        }
        let (start, end) = range.split_once('-').expect("a range");
        let parse = |text| u64::from_str_radix(text, 16).expect("hexadecimal");
        let (mut at, end) = (parse(start), parse(end));
        while at < end {
            let len = buffer.len().min((end - at) as usize);
            // Secret memory cannot be read even here; so much the better.
            if memory.read_exact_at(&mut buffer[..len], at).is_ok() {
                for (index, window) in buffer[..len].windows(N).enumerate() {
                    let is = window.iter().zip(&secret.0).all(|(byte, masked)| byte ^ MASK == *masked);
                    let address = at + index as u64;
                    if is && !own.contains(&address) {
                        found.push(format!("{address:#x} in {line}"));
                    }
                }
            }
            at += CHUNK as u64;
        }
    }
    buffer.fill(0);
    found.dedup();
    found
}

#[test]
fn r40_no_secret_is_left_in_memory_after_its_time() {
    isolated!(|| {
        let token = TestToken::with(&Config::plaintext("import"));
        let session = token.open();
        let (pin, key) = (Masked::<24>::draw(&session), Masked::<32>::draw(&session));
        let page = own_page();
        pin.unmask(page);
        assert_eq!(hits(&pin).len(), 1, "the search finds what is there");
        session.login(CKU_SO, SO_PIN).expect("C_Login of the SO");
        check(call!(token.module, C_InitPIN(session.handle, page, 24))).expect("C_InitPIN");
        session.logout().expect("C_Logout");
        check(call!(token.module, C_Login(session.handle, CKU_USER, page, 24))).expect("C_Login");
        wipe(page);
        assert_eq!(hits(&pin), Vec::<String>::new(), "the PIN is gone as soon as it was used");

        key.unmask(page);
        let object = import(&session, page);
        let ecb = Mechanism::new(CKM_AES_ECB);
        wipe(page);
        session.encrypt(&ecb, object, &[1; 16]).expect("C_Encrypt");
        session.encrypt_init(&ecb, object).expect("C_EncryptInit");
        session.logout().expect("C_Logout");
        assert_eq!(hits(&key), Vec::<String>::new(), "the key is gone after logout");
        assert_eq!(hits(&pin), Vec::<String>::new(), "the PIN is gone after logout");

        pin.unmask(page);
        check(call!(token.module, C_Login(session.handle, CKU_USER, page, 24))).expect("C_Login");
        wipe(page);
        let object = session.find_one(&Template::class(CKO_SECRET_KEY)).expect("the key");
        session.encrypt(&ecb, object, &[1; 16]).expect("C_Encrypt");
        session.destroy(object).expect("C_DestroyObject");
        assert_eq!(hits(&key), Vec::<String>::new(), "the key is gone when destroyed");
        token.module.finalize().expect("C_Finalize");
        assert_eq!(hits(&key), Vec::<String>::new(), "the key is gone after C_Finalize");
        assert_eq!(hits(&pin), Vec::<String>::new(), "the PIN is gone after C_Finalize");
    });
}

/// Maps a page.
pub fn own_page() -> *mut u8 {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new private mapping.
    let page =
        unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) };
    assert_ne!(page, libc::MAP_FAILED);
    page.cast()
}

/// Imports the 32 bytes of a page as a token key, without a copy in the test.
fn import(session: &Session, page: *mut u8) -> CK_OBJECT_HANDLE {
    let template = Template::class(CKO_SECRET_KEY)
        .ulong(CKA_KEY_TYPE, CKK_AES)
        .bool(CKA_TOKEN, true)
        .bool(CKA_SENSITIVE, true)
        .bool(CKA_ENCRYPT, true)
        .bool(CKA_SIGN, true);
    import_as(session, &template, page)
}

fn import_as(session: &Session, template: &Template, page: *mut u8) -> CK_OBJECT_HANDLE {
    let mut raw = template.raw();
    raw.push(CK_ATTRIBUTE { type_: CKA_VALUE, pValue: page.cast(), ulValueLen: 32 });
    let mut object = 0;
    let rv =
        call!(session.module, C_CreateObject(session.handle, raw.as_mut_ptr(), raw.len() as CK_ULONG, &mut object));
    check(rv).expect("C_CreateObject");
    object
}

/// Imports the 32 bytes of a page as the scalar of a session key.
fn import_scalar(session: &Session, curve: &[u8], page: *mut u8) -> CK_OBJECT_HANDLE {
    let template = Template::class(CKO_PRIVATE_KEY)
        .ulong(CKA_KEY_TYPE, CKK_EC)
        .bytes(CKA_EC_PARAMS, curve)
        .bool(CKA_SENSITIVE, true)
        .bool(CKA_SIGN, true);
    import_as(session, &template, page)
}

/// Reads the start of a prime of an RSA key that can be read, without a copy in the test.
fn prime(session: &Session, key: CK_OBJECT_HANDLE, page: *mut u8) -> Masked<32> {
    let mut attribute = CK_ATTRIBUTE { type_: CKA_PRIME_1, pValue: page.cast(), ulValueLen: 4096 };
    check(call!(session.module, C_GetAttributeValue(session.handle, key, &mut attribute, 1))).expect("CKA_PRIME_1");
    let mut masked = [0; 32];
    for (index, to) in masked.iter_mut().enumerate() {
        // SAFETY: the page is longer.
        *to = unsafe { page.add(index).read_volatile() } ^ MASK;
    }
    wipe(page);
    Masked(masked)
}

/// Where a secret of 32 bytes stands, in either order of bytes, as AWS-LC and k256 keep numbers backwards.
fn places(secret: &Masked<32>) -> Vec<String> {
    let mut backwards = Masked(secret.0);
    backwards.0.reverse();
    [hits(secret), hits(&backwards)].concat()
}

/// Tells what the kernel does with the memory at a place that `hits` found.
fn flags_of(place: &str) -> String {
    let line = place.split_once(" in ").expect("a place").1;
    let smaps = std::fs::read_to_string("/proc/self/smaps").expect("/proc/self/smaps");
    let range = line.split_whitespace().next().expect("a range");
    let after = smaps.split_once(range).unwrap_or_else(|| panic!("{range} is not mapped any more")).1;
    after.lines().find(|line| line.starts_with("VmFlags:")).expect("VmFlags").to_owned()
}

/// Tells whether none of the secrets stands in the memory of a child that is forked now.
fn child_has_none(secrets: &[(&str, Masked<32>)]) -> bool {
    // SAFETY: the child reads its memory and ends with `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let found: usize = secrets.iter().map(|(_, secret)| places(secret).len()).sum();
        // SAFETY: ends the child without the parent's exit handlers.
        unsafe { libc::_exit(i32::from(found > 0)) };
    }
    let mut status = 0;
    // SAFETY: the pointer lives.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    status == 0
}

/// Keys in use stand in memory that is locked, left out of core files and zero in a child, and nowhere else.
#[test]
fn r40_the_memory_of_keys_in_use_is_locked_not_dumped_and_not_inherited() {
    isolated!(|| {
        let token = TestToken::with(&Config::plaintext("compat"));
        let (session, page) = (token.user(), own_page());
        let [aes, scalar, koblitz] = [(); 3].map(|()| Masked::<32>::draw(&session));
        aes.unmask(page);
        let aes_key = import(&session, page);
        scalar.unmask(page);
        let p256 = import_scalar(&session, ffi_tests::template::curve::P256, page);
        koblitz.unmask(page);
        let secp256k1 = import_scalar(&session, ffi_tests::template::curve::SECP256K1, page);
        wipe(page);
        let public = Template::new().ulong(CKA_MODULUS_BITS, 2048).bytes(CKA_PUBLIC_EXPONENT, [1, 0, 1]);
        let open = Template::new().bool(CKA_SENSITIVE, false).bool(CKA_EXTRACTABLE, true).bool(CKA_SIGN, true);
        let generate = Mechanism::new(CKM_RSA_PKCS_KEY_PAIR_GEN);
        let (_, rsa) = session.generate_pair(&generate, &public, &open).expect("an RSA key");
        let secrets = [
            ("prime of an RSA key", prime(&session, rsa, page)),
            ("AES key", aes),
            ("scalar on P-256", scalar),
            ("scalar on secp256k1", koblitz),
        ];
        for _ in 0..2 {
            session.sign(&Mechanism::new(CKM_SHA256_RSA_PKCS), rsa, b"data").expect("C_Sign");
            session.sign(&Mechanism::new(CKM_ECDSA), p256, &[1; 32]).expect("C_Sign");
            session.sign(&Mechanism::new(CKM_ECDSA), secp256k1, &[1; 32]).expect("C_Sign");
            session.sign(&Mechanism::new(CKM_AES_CMAC), aes_key, b"data").expect("C_Sign");
            session.encrypt(&Mechanism::new(CKM_AES_ECB), aes_key, &[1; 16]).expect("C_Encrypt");
        }
        // Operations that run have states of their own.
        let gcm = Mechanism::gcm(CKM_AES_GCM, &[1; 12], b"", 128);
        session.encrypt_init(&gcm, aes_key).expect("C_EncryptInit");
        session.encrypt_update(b"a part").expect("C_EncryptUpdate");
        let other = token.open();
        other.encrypt_init(&Mechanism::new(CKM_AES_ECB), aes_key).expect("C_EncryptInit");
        other.sign_init(&Mechanism::new(CKM_AES_CMAC), aes_key).expect("C_SignInit");
        for (name, secret) in &secrets {
            let found = places(secret);
            assert!(!found.is_empty(), "the search does not see the {name}");
            for place in found {
                let flags = flags_of(&place);
                let has = |wanted| flags.split_whitespace().any(|flag| flag == wanted);
                assert!(has("lo") && has("dd") && has("wf"), "the {name} is at {place}: {flags}");
            }
        }
        assert!(child_has_none(&secrets), "a child inherits a key");
    });
}
