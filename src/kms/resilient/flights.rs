//! Unwraps that several threads want at once: one request, whose answer all of them get.
//!
//! The rules are:
//! - whoever comes while the same unwrap is under way waits for its answer; whoever comes later makes a request of his own;
//! - nothing is kept: the answer is gone with the last who waited for it, and a copy is made only if somebody waits;
//! - no lock is held while the request is made; who waits, waits for a bounded time, and ends early when the request is lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, KmsFault, Result};
use crate::kms::{Context, Wrapped};
use crate::secret::SecureBytes;

/// The unwraps that are under way.
#[derive(Default)]
pub struct Flights {
    under_way: Mutex<HashMap<Ticket, Arc<Flight>>>,
}

/// What is unwrapped, and for what.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ticket {
    key: String,
    version: u32,
    blob: Vec<u8>,
    token: String,
    purpose: String,
}

/// One unwrap, and its answer once it is there.
#[derive(Default)]
struct Flight {
    answer: Mutex<Option<Result<SecureBytes>>>,
    landed: Condvar,
}

impl Ticket {
    /// Takes down what is unwrapped.
    pub fn new(wrapped: &Wrapped, context: &Context<'_>) -> Self {
        Self {
            key: wrapped.master_key.key.clone(),
            version: wrapped.master_key.version,
            blob: wrapped.blob.clone(),
            token: context.token.to_owned(),
            purpose: context.purpose.to_owned(),
        }
    }
}

impl Flights {
    /// Makes a request, or waits for the answer of the same one that is under way, for at most `patience`.
    ///
    /// # Errors
    /// What the request answers; a KMS fault `TimedOut` when it takes longer than one is willing to wait.
    pub fn join(
        &self,
        ticket: Ticket,
        patience: Duration,
        request: impl FnOnce() -> Result<SecureBytes>,
    ) -> Result<SecureBytes> {
        let (flight, leads) = self.board(&ticket);
        if !leads {
            return flight.wait(patience);
        }
        let landing = Landing { flights: self, ticket, flight, answered: false };
        let answer = request();
        landing.land(&answer);
        answer
    }

    /// Finds the request that is under way, or starts one; tells whether it is the caller's to make.
    fn board(&self, ticket: &Ticket) -> (Arc<Flight>, bool) {
        let mut under_way = self.under_way.lock();
        if let Some(flight) = under_way.get(ticket) {
            return (flight.clone(), false);
        }
        let flight = Arc::new(Flight::default());
        under_way.insert(ticket.clone(), flight.clone());
        (flight, true)
    }

    /// Counts who is aboard of all flights.
    #[cfg(test)]
    pub fn aboard(&self) -> usize {
        self.under_way.lock().values().map(|flight| Arc::strong_count(flight) - 1).sum()
    }
}

impl Flight {
    fn wait(&self, patience: Duration) -> Result<SecureBytes> {
        let mut answer = self.answer.lock();
        self.landed.wait_while_for(&mut answer, |answer| answer.is_none(), patience);
        match &*answer {
            Some(answer) => copy(answer),
            None => {
                let text = format!("another thread asks for the same key and has no answer after {patience:?}");
                Err(Error::kms(KmsFault::TimedOut, text))
            }
        }
    }

    fn land(&self, answer: Result<SecureBytes>) {
        *self.answer.lock() = Some(answer);
        self.landed.notify_all();
    }
}

/// Copies an answer for one who waited for it.
fn copy(answer: &Result<SecureBytes>) -> Result<SecureBytes> {
    match answer {
        Ok(key) => Ok(key.clone()),
        Err(error) => Err(error.repeated()),
    }
}

/// Takes a flight from those under way, also when the request panics: who waits must not wait in vain.
struct Landing<'a> {
    flights: &'a Flights,
    ticket: Ticket,
    flight: Arc<Flight>,
    answered: bool,
}

impl Landing<'_> {
    fn land(mut self, answer: &Result<SecureBytes>) {
        self.answered = true;
        self.close();
        // Nobody can board any more: those who have, and this one, are all that hold the flight.
        if Arc::strong_count(&self.flight) > 1 {
            self.flight.land(copy(answer));
        }
    }

    fn close(&self) {
        self.flights.under_way.lock().remove(&self.ticket);
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.close();
            self.flight.land(Err(Error::internal("the thread that asked for the same key broke off")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kms::MasterKeyId;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};

    const THREADS: usize = 32;
    const PATIENCE: Duration = Duration::from_secs(60);

    fn ticket(blob: &[u8], purpose: &str) -> Ticket {
        let master_key = MasterKeyId { key: "key".to_owned(), version: 1 };
        Ticket::new(&Wrapped { master_key, blob: blob.to_vec() }, &Context { token: "token", purpose })
    }

    /// Lets 32 threads ask for the same; the request waits until all are aboard.
    fn together(answer: impl Fn() -> Result<SecureBytes> + Sync) -> (usize, Vec<Result<SecureBytes>>) {
        let (flights, requests) = (Flights::default(), AtomicUsize::new(0));
        let request = || {
            requests.fetch_add(1, Ordering::SeqCst);
            while flights.aboard() < THREADS {
                std::thread::yield_now();
            }
            answer()
        };
        let join = || {
            catch_unwind(AssertUnwindSafe(|| flights.join(ticket(b"blob", "purpose"), PATIENCE, request)))
                .unwrap_or_else(|_| Err(Error::internal("it panicked here")))
        };
        let answers = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(join)).collect();
            threads.into_iter().map(|thread| thread.join().expect("it ends")).collect()
        });
        assert_eq!(flights.under_way.lock().len(), 0, "nothing is kept");
        (requests.into_inner(), answers)
    }

    #[test]
    fn one_request_answers_all_who_want_the_same() {
        let (requests, answers) = together(|| Ok(SecureBytes::copy_from(b"key")));
        assert_eq!(requests, 1);
        assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|key| key.expose() == b"key")));
    }

    #[test]
    fn all_get_the_error_with_its_fault_kind_and_causes() {
        let (requests, answers) = together(|| {
            Err(Error::kms(KmsFault::Unsupported, "cannot").caused_by(std::io::Error::other("cause")).context("kms.a"))
        });
        assert_eq!(requests, 1);
        for answer in answers {
            let error = answer.expect_err("it failed");
            assert_eq!(error.message(), "kms.a: cannot: cause");
            assert_eq!(error.kms_fault(), Some(KmsFault::Unsupported));
            assert_eq!(error.kind(), crate::error::Kind::FunctionNotSupported);
        }
    }

    #[test]
    fn a_request_that_panics_wakes_those_who_wait() {
        let (requests, answers) = together(|| panic!("on purpose"));
        assert_eq!(requests, 1);
        let texts: Vec<_> = answers.into_iter().map(|answer| answer.expect_err("it failed").message()).collect();
        assert_eq!(texts.iter().filter(|text| text.contains("panicked here")).count(), 1);
        assert_eq!(texts.iter().filter(|text| text.contains("broke off")).count(), THREADS - 1);
    }

    #[test]
    fn other_blobs_and_contexts_are_other_requests_and_nobody_waits_for_ever() {
        let flights = Flights::default();
        let key = |byte: u8| Ok(SecureBytes::copy_from(&[byte]));
        let outer = flights.join(ticket(b"blob", "purpose"), PATIENCE, || {
            let other = flights.join(ticket(b"other", "purpose"), PATIENCE, || key(1))?;
            assert_eq!(other.expose(), [1]);
            let other = flights.join(ticket(b"blob", "other"), PATIENCE, || key(2))?;
            assert_eq!(other.expose(), [2]);
            let same = flights.join(ticket(b"blob", "purpose"), Duration::from_millis(1), || key(3));
            assert_eq!(same.expect_err("it is under way").kms_fault(), Some(KmsFault::TimedOut));
            key(4)
        });
        assert_eq!(outer.expect("it is answered").expose(), [4]);
    }
}
