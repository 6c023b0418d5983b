//! How often the active version of a managed key makes something new: counted in memory, taken from the store in blocks.
//!
//! The rules are:
//! - uses are taken from the store before they are made. What a process takes and does not make is lost, so that the count in
//!   the store (CKA_SR_USES) may be too high after a crash, and is never too low;
//! - the first block of a process is small, and each next one twice as large, up to a 64th of what is left: few writes at any
//!   rate of use, and little lost by a process that does little;
//! - a session takes some of the process's block into its own hands, so that a signature costs one subtraction in memory that
//!   no other thread writes;
//! - keys whose uses have no limit are not counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::object::Object;
use super::operation::of_key;
use super::session::Session;
use super::token::Token;
use super::version::{self, Limits};
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::store::Uid;

/// How many versions a process remembers what it has taken of.
pub(super) const KEPT: usize = 20_000;
/// How many uses a session takes at a time at most.
const HANDFUL: u64 = 1024;
/// A session takes such a part of what is there at most, so that several find something.
const SHARE: u64 = 16;
/// The first block of a process is such a part of what is left, as a power of two.
const FIRST: u32 = 20;
/// A block is such a part of what is left at most, as a power of two.
const LARGEST: u32 = 6;

/// The uses of one version that this process has taken and not made.
pub(super) struct Uses {
    uid: Uid,
    left: AtomicU64,
    /// How many the last write took. Held while the next one takes more.
    block: Mutex<u64>,
}

impl Uses {
    fn new(uid: Uid) -> Self {
        Self { uid, left: AtomicU64::new(0), block: Mutex::new(0) }
    }

    /// Takes some uses for a session, from the block, or from the store into the block first.
    fn draw(&self, token: &Token, usage: CK_ATTRIBUTE_TYPE, most: u64) -> Result<u64> {
        loop {
            if let Some(drawn) = self.draw_from_block() {
                return Ok(drawn);
            }
            let mut block = self.block.lock();
            if self.left.load(Ordering::Acquire) == 0 {
                *block = token.take_uses(&self.uid, usage, most, *block)?;
                self.left.fetch_add(*block, Ordering::AcqRel);
            }
        }
    }

    fn draw_from_block(&self) -> Option<u64> {
        let drawn = |left: u64| (left / SHARE).clamp(1, HANDFUL);
        let rest = |left: u64| (left > 0).then(|| left - drawn(left));
        self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, rest).ok().map(drawn)
    }
}

/// The uses of one version that a session has in its own hands.
pub(super) struct Stock {
    uses: Arc<Uses>,
    usage: CK_ATTRIBUTE_TYPE,
    most: u64,
    left: u64,
}

impl Stock {
    /// Takes one use.
    ///
    /// # Errors
    /// `KeyFunctionNotPermitted` when the version has been used as often as its rules allow; the store's.
    pub(super) fn take(&mut self, token: &Token) -> Result<()> {
        if self.left == 0 {
            self.left = self.uses.draw(token, self.usage, self.most)?;
        }
        self.left -= 1;
        Ok(())
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        self.uses.left.fetch_add(self.left, Ordering::AcqRel);
    }
}

impl Session {
    /// Counts a use of a version whose uses are limited; gives the stock from which the session's next ones come.
    ///
    /// # Errors
    /// As [`Stock::take`].
    pub(super) fn count_use(&self, object: &Object, usage: CK_ATTRIBUTE_TYPE, limits: Limits) -> Result<Option<Stock>> {
        let Some(most) = limits.uses else { return Ok(None) };
        let made = || Ok::<_, Error>(Arc::new(Uses::new(object.uid)));
        let uses = self.token.uses.get_or_insert_with(&object.uid, made)?;
        let mut stock = Stock { uses, usage, most, left: 0 };
        stock.take(&self.token)?;
        Ok(Some(stock))
    }
}

impl Token {
    /// Takes the next block of uses of a version from the store, which is twice as large as the last one; tells how many.
    fn take_uses(&self, uid: &Uid, usage: CK_ATTRIBUTE_TYPE, most: u64, last: u64) -> Result<u64> {
        // A look before the write lock: who asks again and again after the last use costs no transaction.
        let row = self.store.object(&self.serial, uid)?.ok_or_else(|| Error::from(Kind::KeyHandleInvalid))?;
        let seen = Object::open(&self.serial, Some(&*self.token_key()?), row, 0)?;
        if next_block(seen.attributes(), usage, most, last)? == 0 {
            return Ok(1);
        }
        let mut taken = 0;
        self.write_count(&mut |transaction, token_key| {
            let row = transaction.object(&self.serial, uid)?.ok_or_else(|| Error::from(Kind::ObjectHandleInvalid))?;
            let current = Object::open(&self.serial, Some(token_key), row, 0)?;
            let mut attributes = current.attributes().clone();
            taken = next_block(&attributes, usage, most, last)?;
            attributes.set(CKA_SR_USES, used(&attributes).saturating_add(taken));
            let changed = current.changed(attributes, current.stored_secret_if_any(&self.serial, Some(token_key))?);
            transaction.update_object(&self.serial, &changed.to_row(&self.serial, token_key)?)
        })
        .map_err(|error| match error.kind() {
            Kind::TokenWriteProtected => error.context("the uses of this key are counted in the store"),
            _ => of_key(error),
        })?;
        Ok(taken.max(1))
    }
}

/// Tells how many uses of a version are taken.
pub(super) fn used(attributes: &Attributes) -> u64 {
    attributes.ulong(CKA_SR_USES).unwrap_or(0)
}

/// Tells how many uses to take next; none of a version that was rotated away meanwhile and signs for who has named it.
fn next_block(attributes: &Attributes, usage: CK_ATTRIBUTE_TYPE, most: u64, last: u64) -> Result<u64> {
    if version::is_replaced(attributes) {
        let text = "was rotated away meanwhile and makes nothing new: find the active version";
        return if usage == CKA_SIGN { Ok(0) } else { Err(version::refused(attributes, text)) };
    }
    let left = most.saturating_sub(used(attributes));
    if left == 0 {
        let text = format!(
            "has been used {most} times, which is all that max_key_uses allows: SR_RotateKey makes a new version, and this one \
             goes on verifying and decrypting"
        );
        return Err(version::refused(attributes, &text));
    }
    let first = (left >> FIRST).max(1);
    Ok(last.saturating_mul(2).clamp(first, (left >> LARGEST).max(first)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(state: CK_ULONG, uses: u64) -> Attributes {
        [(CKA_SR_STATE, Value::Ulong(state)), (CKA_SR_USES, Value::Ulong(uses))].into_iter().collect()
    }

    #[test]
    fn blocks_double_up_to_a_part_of_what_is_left_and_end_one_by_one() {
        let next = |used, most, last| next_block(&version(SR_STATE_ACTIVE, used), CKA_SIGN, most, last).ok();
        assert_eq!([next(0, 1_000_000, 0), next(1, 1_000_000, 1), next(3, 1_000_000, 2)], [Some(1), Some(2), Some(4)]);
        assert_eq!(next(0, 1_000_000, 1 << 20), Some(15_625));
        assert_eq!(next(999_999, 1_000_000, 1 << 20), Some(1));
        assert_eq!([next(1_000_000, 1_000_000, 1), next(7, 5, 0)], [None, None]);
        assert_eq!(next(0, (1 << 32) - 1, 0), Some(4095), "few writes where there is much");
        assert_eq!(next(0, 1, u64::MAX), Some(1));
        let (mut used, mut last, mut writes) = (0, 0, 0);
        while let Some(block) = next(used, 1_000_000, last) {
            (used, last, writes) = (used + block, block, writes + 1);
        }
        assert_eq!(used, 1_000_000, "no use is left over, and none is taken twice");
        assert!(writes < 1000, "{writes} writes for a million uses");
    }

    #[test]
    fn a_version_that_was_rotated_away_signs_uncounted_and_encrypts_no_more() {
        let rotated = version(SR_STATE_ROTATED, 5);
        assert_eq!(next_block(&rotated, CKA_SIGN, 5, 1).expect("it signs"), 0);
        assert_eq!(next_block(&rotated, CKA_ENCRYPT, 9, 1).expect_err("refused").kind(), Kind::KeyFunctionNotPermitted);
    }

    #[test]
    fn handfuls_come_out_of_the_block_and_go_back() {
        let uses = Arc::new(Uses::new([1; 16]));
        uses.left.store(100_000, Ordering::Release);
        assert_eq!(uses.draw_from_block(), Some(HANDFUL));
        drop(Stock { uses: uses.clone(), usage: CKA_SIGN, most: 0, left: HANDFUL - 1 });
        assert_eq!(uses.left.load(Ordering::Acquire), 99_999);
        uses.left.store(3, Ordering::Release);
        assert_eq!([(); 4].map(|()| uses.draw_from_block()), [Some(1), Some(1), Some(1), None]);
    }
}
