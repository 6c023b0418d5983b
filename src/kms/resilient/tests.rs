//! What is promised of a provider that faults: counted in requests and pauses on a clock that does not wait.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use crate::error::Kind;
use crate::kms::contract::{self, CONTEXT, secret};
use crate::kms::double::{Double, Step, fault};
use crate::kms::remote::Hash;
use crate::kms::{Curve, LocalKms, Setting};
use parking_lot::Mutex;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

const SECOND: Duration = Duration::from_secs(1);
/// Faults that another try cannot help.
const FINAL: [KmsFault; 7] = [
    KmsFault::Denied,
    KmsFault::NotFound,
    KmsFault::Disabled,
    KmsFault::Tampered,
    KmsFault::WrongContext,
    KmsFault::Unsupported,
    KmsFault::Failed,
];
/// Faults after which nobody knows whether the request was carried out.
const UNCERTAIN: [KmsFault; 2] = [KmsFault::Unreachable, KmsFault::TimedOut];

/// A clock that a pause moves on at once.
struct FakeClock {
    start: Instant,
    passed: Mutex<Duration>,
    pauses: Mutex<Vec<Duration>>,
    finalised: AtomicBool,
}

impl FakeClock {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            passed: Mutex::default(),
            pauses: Mutex::default(),
            finalised: AtomicBool::new(false),
        })
    }

    fn advance(&self, by: Duration) {
        *self.passed.lock() += by;
    }

    fn passed(&self) -> Duration {
        *self.passed.lock()
    }

    fn pauses(&self) -> Vec<Duration> {
        self.pauses.lock().clone()
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Instant {
        self.start + self.passed()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000) + self.passed()
    }

    fn sleep(&self, pause: Duration) -> Result<()> {
        if self.finalised.load(Ordering::SeqCst) {
            return Err(Kind::FunctionCanceled.into());
        }
        self.pauses.lock().push(pause);
        self.advance(pause);
        Ok(())
    }
}

/// A double, its clock, and what stands around it.
struct Bench {
    double: Arc<Double>,
    clock: Arc<FakeClock>,
    kms: Resilient,
}

fn settings(attempts: u32, seconds: u32) -> Settings {
    let settings = Settings::new("prod", "double").with("attempts", Setting::Number(attempts));
    settings.with("timeout_seconds", Setting::Number(seconds))
}

fn bench(attempts: u32, seconds: u32, script: impl IntoIterator<Item = Step>) -> Bench {
    let (double, clock) = (Arc::new(Double::new(script)), FakeClock::new());
    let kms = Resilient::with_clock(&settings(attempts, seconds), double.clone(), clock.clone());
    Bench { double, clock, kms }
}

/// Many times the same fault.
fn always(cause: KmsFault) -> impl Iterator<Item = Step> {
    (0..100).map(move |_| fault(cause))
}

/// Takes as long as it may.
fn hang(clock: &Arc<FakeClock>) -> Step {
    let clock = clock.clone();
    Box::new(move || {
        clock.advance(runtime::time_left(Duration::from_secs(3600)));
        Err(Error::kms(KmsFault::TimedOut, "no answer"))
    })
}

#[test]
fn r67_tries_are_bounded_and_the_error_says_how_many_there_were() {
    for attempts in 1..=4 {
        let bench = bench(attempts, 10, always(KmsFault::Unreachable));
        let error = bench.kms.describe().unwrap_err();
        assert_eq!(bench.double.requests(), usize::try_from(attempts).unwrap());
        assert_eq!(bench.clock.pauses().len() + 1, bench.double.requests());
        assert_eq!((error.kind(), error.kms_fault()), (Kind::DeviceError, Some(KmsFault::Unreachable)));
        let tried = if attempts == 1 { "tried once, for ".to_owned() } else { format!("tried {attempts} times in ") };
        let text = error.message();
        assert!(text.starts_with(&format!("kms.prod ({tried}")) && text.ends_with("s): unreachable"), "{text}");
    }
}

#[test]
fn what_passes_is_not_seen_by_the_caller() {
    let script = [KmsFault::Unreachable, KmsFault::TimedOut, KmsFault::Throttled(None)].map(fault);
    let bench = bench(4, 10, script);
    let wrapped = bench.kms.wrap_key(&secret(), &CONTEXT).unwrap();
    assert_eq!(bench.double.requests(), 4);
    bench.double.then([fault(KmsFault::Unreachable)]);
    assert_eq!(bench.kms.unwrap_key(&wrapped, &CONTEXT).unwrap(), secret());
    bench.double.then([fault(KmsFault::Unreachable)]);
    assert_eq!(bench.kms.generate_data_key(&CONTEXT).unwrap().key.len(), 32);
    bench.double.then([fault(KmsFault::Unreachable)]);
    bench.kms.health().unwrap();
    assert_eq!(bench.double.requests(), 10);
}

#[test]
fn final_faults_are_answered_at_once_with_the_name_of_the_provider() {
    for cause in FINAL {
        let bench = bench(4, 10, always(cause));
        let error = bench.kms.describe().unwrap_err();
        assert_eq!((bench.double.requests(), error.kms_fault()), (1, Some(cause)));
        assert_eq!(error.message(), format!("kms.prod: {}", cause.name()));
    }
    let bench = bench(4, 10, [fault(KmsFault::Unreachable), fault(KmsFault::Denied)]);
    let error = bench.kms.describe().unwrap_err();
    assert_eq!((bench.double.requests(), error.kms_fault()), (2, Some(KmsFault::Denied)));
    assert!(error.message().starts_with("kms.prod (tried 2 times in "), "{error}");
}

#[test]
fn r67_the_deadline_holds_even_if_every_try_hangs() {
    for (attempts, seconds) in [(1, 10), (4, 10), (20, 10), (4, 1), (4, 600)] {
        let bench = bench(attempts, seconds, []);
        bench.double.then((0..100).map(|_| hang(&bench.clock)));
        let error = bench.kms.describe().unwrap_err();
        assert_eq!(error.kms_fault(), Some(KmsFault::TimedOut));
        assert!(bench.clock.passed() <= seconds * SECOND, "{:?}", bench.clock.passed());
        assert!(attempts == 1 || bench.double.requests() > 1, "one that hangs leaves time for another");
        assert!(bench.double.requests() <= usize::try_from(attempts).unwrap());
    }
}

#[test]
fn the_deadline_bounds_pauses_too() {
    let bench = bench(20, 1, always(KmsFault::Throttled(Some(Duration::from_millis(400)))));
    bench.kms.describe().unwrap_err();
    assert!(bench.clock.passed() <= SECOND && (2..=3).contains(&bench.double.requests()));
}

#[test]
fn r67_retry_after_is_honoured_where_it_fits() {
    let fits = bench(4, 10, [fault(KmsFault::Throttled(Some(3 * SECOND)))]);
    fits.kms.describe().unwrap();
    let pauses = fits.clock.pauses();
    assert!(pauses.len() == 1 && pauses[0] >= 3 * SECOND && pauses[0] < 4 * SECOND, "{pauses:?}");
    for wait in [11 * SECOND, Duration::MAX] {
        let too_long = bench(4, 10, [fault(KmsFault::Throttled(Some(wait)))]);
        let error = too_long.kms.describe().unwrap_err();
        assert_eq!((too_long.double.requests(), too_long.clock.pauses().len()), (1, 0));
        assert!(error.message().contains("asks to wait"), "{error}");
    }
}

#[test]
fn what_makes_a_key_or_version_is_never_made_twice() {
    let spec = KeySpec::Ec(Curve::P256);
    for cause in UNCERTAIN {
        let bench = bench(4, 10, always(cause));
        let keys = bench.kms.remote_keys().unwrap();
        for error in [bench.kms.rotate_master_key().unwrap_err(), keys.generate(spec, "label").unwrap_err()] {
            assert_eq!(error.kms_fault(), Some(cause));
            assert!(error.message().contains("may have been carried out"), "{error}");
        }
        assert_eq!((bench.double.requests(), bench.clock.pauses().len()), (2, 0));
    }
    let bench = bench(4, 10, [fault(KmsFault::Throttled(None)), fault(KmsFault::Throttled(Some(SECOND)))]);
    bench.kms.rotate_master_key().unwrap();
    assert_eq!(bench.double.requests(), 3);
    bench.double.then([fault(KmsFault::Throttled(None)), fault(KmsFault::TimedOut)]);
    let error = bench.kms.remote_keys().unwrap().generate(spec, "label").unwrap_err();
    assert_eq!((bench.double.requests(), error.kms_fault()), (5, Some(KmsFault::TimedOut)));
}

#[test]
fn a_request_that_is_not_repeated_has_the_whole_deadline() {
    let bench = bench(4, 10, []);
    bench.double.then([hang(&bench.clock)]);
    bench.kms.rotate_master_key().unwrap_err();
    assert!(bench.clock.passed() > 9 * SECOND && bench.clock.passed() <= 10 * SECOND);
}

#[test]
fn keys_that_live_there_are_used_with_patience_too() {
    let bench = bench(4, 10, []);
    let keys = bench.kms.remote_keys().unwrap();
    let again = || bench.double.then([fault(KmsFault::Unreachable)]);
    again();
    let key = keys.find("name").unwrap();
    again();
    assert_eq!(keys.list().unwrap(), std::slice::from_ref(&key));
    again();
    assert_eq!(keys.sign(&key, SignScheme::Ecdsa(Hash::Sha256), b"digest").unwrap(), b"digest");
    again();
    assert_eq!(keys.decrypt(&key, DecryptScheme::RsaPkcs1, b"text").unwrap().expose(), b"text");
    again();
    assert_eq!(keys.mac(&key, b"message").unwrap(), b"message");
    assert_eq!((bench.double.requests(), keys.abilities().len()), (10, 1));
}

#[test]
fn the_breaker_opens_lets_one_through_and_closes() {
    let bench = bench(1, 10, always(KmsFault::Unreachable).take(6));
    for _ in 0..5 {
        bench.kms.describe().unwrap_err();
    }
    bench.clock.advance(SECOND / 2);
    let error = bench.kms.describe().unwrap_err();
    assert_eq!((bench.double.requests(), error.kms_fault()), (5, Some(KmsFault::Unreachable)));
    let text = error.message();
    assert!(
        text.starts_with("kms.prod: it has been away since 1970-01-12T13:46:40Z, for 0.5 s, and was not"),
        "{text}"
    );
    assert!(text.ends_with("it is tried again in 0.5 s"), "{text}");
    bench.clock.advance(SECOND / 2);
    bench.kms.describe().unwrap_err();
    assert_eq!(bench.double.requests(), 6, "the probe");
    bench.clock.advance(SECOND);
    bench.kms.describe().unwrap_err();
    assert_eq!(bench.double.requests(), 6, "the second pause is longer");
    assert_eq!(bench.kms.health_report().unwrap().breaker.next_try_ms, Some(1000));
    bench.clock.advance(SECOND);
    bench.kms.describe().unwrap();
    bench.kms.describe().unwrap();
    assert_eq!(bench.double.requests(), 8);
    assert_eq!(bench.kms.health_report().unwrap().breaker.state, "closed");
}

#[test]
fn the_breaker_is_not_tripped_by_final_faults() {
    for cause in FINAL {
        let bench = bench(1, 10, always(cause));
        for _ in 0..20 {
            assert_eq!(bench.kms.describe().unwrap_err().kms_fault(), Some(cause));
        }
        assert_eq!(bench.double.requests(), 20);
    }
}

#[test]
fn a_call_that_is_under_way_waits_for_the_breaker_if_that_fits() {
    let waits = bench(7, 60, always(KmsFault::Unreachable).take(5));
    waits.kms.describe().unwrap();
    assert_eq!(waits.double.requests(), 6);
    assert!(waits.clock.pauses()[4] >= SECOND);
    let no_time = bench(20, 1, always(KmsFault::Unreachable));
    no_time.kms.describe().unwrap_err();
    assert!(no_time.double.requests() <= 5);
}

#[test]
fn r68_one_request_answers_all_threads_and_a_failed_one_is_not_kept() {
    const THREADS: usize = 32;
    let bench = bench(1, 60, []);
    let wrapped = Double::new([]).wrap_key(&secret(), &CONTEXT).unwrap();
    for answer in [Err(KmsFault::Denied), Ok(())] {
        let (open, gate) = std::sync::mpsc::channel::<()>();
        let step: Step = Box::new(move || {
            gate.recv().unwrap();
            answer.map_err(|cause| Error::kms(cause, "no"))
        });
        bench.double.then([step]);
        let before = bench.double.requests();
        let answers: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..THREADS).map(|_| scope.spawn(|| bench.kms.unwrap_key(&wrapped, &CONTEXT))).collect();
            while bench.kms.unwraps.aboard() < THREADS {
                std::thread::yield_now();
            }
            open.send(()).unwrap();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(bench.double.requests(), before + 1);
        for got in answers {
            match answer {
                Ok(()) => assert_eq!(got.unwrap(), secret()),
                Err(cause) => {
                    let error = got.unwrap_err();
                    assert_eq!((error.kms_fault(), error.message().as_str()), (Some(cause), "kms.prod: no"));
                }
            }
        }
    }
    assert_eq!(bench.kms.unwrap_key(&wrapped, &CONTEXT).unwrap(), secret());
    assert_eq!(bench.double.requests(), 3, "an answer is not kept either");
}

#[test]
fn the_report_tells_what_happened() {
    let bench = bench(4, 10, []);
    let clock = bench.clock.clone();
    let slow: Step = Box::new(move || {
        clock.advance(Duration::from_millis(70));
        Ok(())
    });
    bench.double.then([fault(KmsFault::Denied), fault(KmsFault::Throttled(None)), slow]);
    bench.kms.describe().unwrap_err();
    bench.kms.describe().unwrap();
    let report = bench.kms.health_report().unwrap();
    assert_eq!((report.requests, report.last_latency_ms), (3, Some(70)));
    assert_eq!(report.faults.into_iter().collect::<Vec<_>>(), [("denied", 1), ("throttled", 1)]);
    let last = report.last_error.unwrap();
    assert_eq!((last.text.as_str(), last.time.as_str()), ("throttled", "1970-01-12T13:46:40Z"));
    assert_eq!(report.breaker, BreakerReport { state: "closed", away_since: None, next_try_ms: None });
}

#[test]
fn a_library_that_is_finalised_ends_the_call() {
    let bench = bench(4, 10, always(KmsFault::Unreachable));
    bench.clock.finalised.store(true, Ordering::SeqCst);
    let error = bench.kms.describe().unwrap_err();
    assert_eq!((bench.double.requests(), error.kind()), (1, Kind::FunctionCanceled));
}

/// Tells a child process of the next test that it is one: closing the runtime would take it from all other tests.
const CHILD: &str = "STRONGROOM_TEST_FINALISED_CHILD";

#[test]
fn c_finalize_ends_a_pause_on_the_machines_own_clock() {
    if std::env::var_os(CHILD).is_none() {
        let name = "kms::resilient::tests::c_finalize_ends_a_pause_on_the_machines_own_clock";
        let mut child = Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", name, "--nocapture"]).env(CHILD, "1").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        return assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }
    let double = Arc::new(Double::new(always(KmsFault::Throttled(Some(300 * SECOND)))));
    let kms = Resilient::new(&settings(4, 600), double.clone());
    let start = Instant::now();
    std::thread::scope(|scope| {
        let call = scope.spawn(|| kms.describe());
        while double.requests() == 0 {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(100));
        runtime::close();
        let error = call.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), Kind::FunctionCanceled);
    });
    assert!(start.elapsed() < 300 * SECOND && double.requests() == 1);
}

#[test]
fn a_provider_keeps_its_contract_behind_it() {
    let local = Arc::new(LocalKms::ephemeral().unwrap());
    let kms = Resilient::new(&Settings::new("prod", "local"), local);
    contract::check(&kms);
    assert_eq!(kms.kind(), "local");
    assert!(kms.remote_keys().is_none() && kms.abilities().is_empty());
    assert_eq!(kms.find("key").unwrap_err().kms_fault(), Some(KmsFault::Unsupported));
}
