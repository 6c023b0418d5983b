//! kill -9 at any moment: what was acknowledged is there, nothing is half done.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ffi_tests::ck::*;
use ffi_tests::{Mechanism, Role, Session, Template, TestToken, USER_PIN, isolated, say, token};

/// How many times the process is killed.
const ROUNDS: u64 = 200;
/// How many key pairs the loop keeps.
const KEPT: usize = 12;

/// A generator of numbers that needs no quality.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Finds all pairs by label and proves that each is whole: two halves that fit.
fn whole_pairs(session: &Session) -> BTreeMap<String, (Vec<u8>, CK_OBJECT_HANDLE, CK_OBJECT_HANDLE)> {
    let of = |class| {
        let mut found = BTreeMap::new();
        for object in session.find(&Template::class(class)).expect("C_FindObjects") {
            let label = String::from_utf8(session.get(object, CKA_LABEL).expect("CKA_LABEL")).expect("text");
            let id = session.get(object, CKA_ID).expect("CKA_ID");
            assert!(found.insert(id, (label, object)).is_none(), "two objects with one id");
        }
        found
    };
    let (public, private) = (of(CKO_PUBLIC_KEY), of(CKO_PRIVATE_KEY));
    let mechanism = Mechanism::new(CKM_ECDSA);
    let mut pairs = BTreeMap::new();
    for (id, (label, key)) in private {
        let signature = session.sign(&mechanism, key, &[4; 32]).expect("C_Sign with what survived");
        let verify = public.get(&id).unwrap_or_else(|| panic!("{label} lost its public half")).1;
        session.verify(&mechanism, verify, &[4; 32], &signature).expect("the halves fit");
        pairs.insert(label, (id, verify, key));
    }
    let halves: BTreeSet<_> = pairs.values().map(|pair| pair.0.clone()).collect();
    for (id, (label, object)) in public {
        if !halves.contains(&id) {
            // A pair is destroyed half by half: the private half first.
            say(&format!("lone {label}"));
            session.destroy(object).expect("C_DestroyObject");
        }
    }
    pairs
}

/// Opens with the first PIN that works and tells which; then tells what it finds; then works until it is killed.
pub fn role_churn(argument: &str) {
    let words: Vec<&str> = argument.split(' ').collect();
    let [config, round, pins @ ..] = &words[..] else { panic!("configuration, round, PINs") };
    let module = token::attach(config);
    let session = module.open(module.slot_of("test").expect("the token")).expect("C_OpenSession");
    let pin = pins.iter().find(|pin| session.login(CKU_USER, pin).is_ok()).expect("one of the PINs opens");
    say(&format!("pin {pin}"));
    let mut pairs = whole_pairs(&session);
    for label in pairs.keys() {
        say(&format!("have {label}"));
    }
    say("ready");
    if *round == "end" {
        module.finalize().expect("C_Finalize");
        return;
    }
    let mut numbers = Numbers(round.parse::<u64>().expect("a number") * 7919 + 1);
    let mut pin = (*pin).to_owned();
    for step in 0u64.. {
        let label = format!("r{round}s{step}");
        let victim = pairs.keys().nth(numbers.below(KEPT as u64) as usize).cloned();
        match (numbers.below(8), victim) {
            (0, _) => {
                let next = format!("pin-{round}-{step}");
                say(&format!("try pin {next}"));
                session.set_pin(&pin, &next).expect("C_SetPIN");
                say(&format!("ack pin {next}"));
                pin = next;
            }
            (1, Some(old)) => {
                say(&format!("try rename {old} {label}"));
                let pair = pairs.remove(&old).expect("it was just there");
                session.set(pair.2, &Template::new().bytes(CKA_LABEL, &label)).expect("C_SetAttributeValue");
                say(&format!("ack rename {old} {label}"));
                pairs.insert(label, pair);
            }
            (2..=4, Some(old)) => {
                say(&format!("try destroy {old}"));
                let (_, public, private) = pairs.remove(&old).expect("it was just there");
                session.destroy(private).expect("C_DestroyObject");
                say(&format!("ack destroy {old}"));
                session.destroy(public).expect("C_DestroyObject");
            }
            _ if pairs.len() < KEPT => {
                say(&format!("try create {label}"));
                let (public, private) = session.p256(&label, true);
                say(&format!("ack create {label}"));
                pairs.insert(label, (Vec::new(), public, private));
            }
            _ => {}
        }
    }
}

/// What the killed process told, and what must and may be there because of it.
#[derive(Default)]
struct Ledger {
    pins: Vec<String>,
    there: BTreeSet<String>,
    /// The one thing that was under way: what it may have removed and may have added.
    open: Option<(Option<String>, Option<String>)>,
    acknowledged: u64,
}

impl Ledger {
    fn note(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let text = |index: usize| Some(words[index].to_owned());
        match words[..2] {
            ["try", "pin"] => self.pins.push(words[2].to_owned()),
            ["ack", "pin"] => self.pins = vec![words[2].to_owned()],
            ["try", "create"] => self.open = Some((None, text(2))),
            ["try", "destroy"] => self.open = Some((text(2), None)),
            ["try", "rename"] => self.open = Some((text(2), text(3))),
            ["ack", _] => {
                let (gone, new) = self.open.take().expect("something was tried");
                gone.map(|label| self.there.remove(&label));
                self.there.extend(new);
            }
            _ => {}
        }
        self.acknowledged += u64::from(words[0] == "ack");
    }

    /// Judges what a fresh process finds, and takes it as the new state.
    fn settle(&mut self, round: &str, pin: String, found: BTreeSet<String>, lone: &BTreeSet<String>) {
        assert!(self.pins.contains(&pin), "round {round}: {pin} opens, expected one of {:?}", self.pins);
        self.pins = vec![pin];
        let (gone, new) = self.open.take().unwrap_or_default();
        let half = new.as_ref().filter(|label| lone.contains(*label));
        assert!(half.is_none(), "round {round}: half of the pair {half:?} was made");
        let before = self.there.clone();
        let mut after = before.clone();
        after.retain(|label| Some(label) != gone.as_ref());
        after.extend(new.iter().cloned());
        assert!(
            found == before || found == after,
            "round {round}: neither the old nor the new state.\nlost: {:?}\nunknown: {:?}\nunder way: {gone:?} → {new:?}",
            before.difference(&found).collect::<Vec<_>>(),
            found.difference(&after).collect::<Vec<_>>(),
        );
        self.there = found;
    }
}

#[test]
fn r24_kill_nine_loses_nothing_that_was_acknowledged() {
    isolated!(300, || {
        let store = TestToken::new();
        store.module.finalize().expect("C_Finalize");
        let mut ledger = Ledger { pins: vec![USER_PIN.to_owned()], ..Ledger::default() };
        let mut numbers = Numbers(u64::from(std::process::id()));
        for round in (0..ROUNDS).map(|round| round.to_string()).chain(["end".to_owned()]) {
            // The newest PIN first: a wrong try before a right one costs an attempt, no more.
            let pins: Vec<&str> = ledger.pins.iter().rev().map(String::as_str).collect();
            let mut child = Role::start("churn", &format!("{} {round} {}", store.config_text(), pins.join(" ")));
            let (mut pin, mut found, mut lone) = (String::new(), BTreeSet::new(), BTreeSet::new());
            loop {
                let Some(line) = child.line() else {
                    let (status, lines, stderr) = child.finish();
                    panic!(
                        "round {round}: the fresh process failed ({status}): {lines:?}\n{}",
                        ffi_tests::isolate::tail(&stderr)
                    );
                };
                match line.split_once(' ') {
                    Some(("pin", text)) => pin = text.to_owned(),
                    Some(("have", text)) => drop(found.insert(text.to_owned())),
                    Some(("lone", text)) => drop(lone.insert(text.to_owned())),
                    _ if line == "ready" => break,
                    _ => {}
                }
            }
            ledger.settle(&round, pin, found, &lone);
            if round == "end" {
                child.succeed();
                break;
            }
            std::thread::sleep(Duration::from_millis(1 + numbers.below(60)));
            child.kill();
            let (_, lines, stderr) = child.finish();
            assert!(!stderr.contains("panicked"), "round {round}: {}", ffi_tests::isolate::tail(&stderr));
            lines.iter().filter(|line| line.contains(' ')).for_each(|line| ledger.note(line));
        }
        assert!(
            ledger.acknowledged > ROUNDS,
            "{} acknowledged steps in {ROUNDS} rounds are too few to prove anything",
            ledger.acknowledged
        );
    });
}
