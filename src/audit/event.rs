//! What an operation tells of itself, before it becomes a record.

use std::cell::Cell;

use crate::ck::{CK_MECHANISM_TYPE, CK_RV, CK_SESSION_HANDLE};
use crate::error;
use crate::store::Uid;

/// Who is logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// Nobody.
    Nobody,
    /// The security officer.
    So,
    /// The normal user.
    User,
}

impl User {
    /// Names the user as an export does.
    pub const fn name(self) -> &'static str {
        match self {
            User::Nobody => "nobody",
            User::So => "so",
            User::User => "user",
        }
    }
}

/// Which key or object, and which version of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyName {
    /// The unique id (`CKA_UNIQUE_ID`), random: it says nothing of the key.
    pub uid: Uid,
    /// The version of a managed key (`CKA_SR_VERSION`); 0 for an object that has none.
    pub version: u32,
}

/// One operation.
#[derive(Debug)]
pub struct Event {
    /// The function or operation: `C_GenerateKeyPair`.
    pub operation: &'static str,
    /// The session that asks; 0 is none.
    pub session: CK_SESSION_HANDLE,
    /// Who is logged in, or tries to be.
    pub user: User,
    /// The mechanism, if there is one.
    pub mechanism: Option<CK_MECHANISM_TYPE>,
    /// The objects that it is about: those made or changed first, then those that were used for it.
    pub keys: Vec<KeyName>,
    /// Owner and asset of the managed key that it is about.
    pub managed: Option<(String, String)>,
    /// More that is no secret: the name of a KMS key.
    pub detail: String,
    /// What it answers.
    pub result: CK_RV,
    /// Whether a record tells of it already.
    told: Cell<bool>,
}

impl Event {
    /// Makes the event of an operation that goes well unless it is told otherwise.
    pub fn new(operation: &'static str, session: CK_SESSION_HANDLE, user: User) -> Self {
        let (keys, detail) = (Vec::new(), String::new());
        let told = Cell::new(false);
        Self { operation, session, user, mechanism: None, keys, managed: None, detail, result: error::OK, told }
    }

    /// Names the mechanism.
    #[must_use]
    pub fn with(mut self, mechanism: CK_MECHANISM_TYPE) -> Self {
        self.mechanism = Some(mechanism);
        self
    }

    /// Names an object that it is about.
    #[must_use]
    pub fn about(mut self, key: KeyName) -> Self {
        self.keys.push(key);
        self
    }

    /// Names the managed key that it is about.
    #[must_use]
    pub fn of_managed(mut self, owner: &str, asset: &str) -> Self {
        self.managed = Some((owner.to_owned(), asset.to_owned()));
        self
    }

    /// Makes the same event with another answer.
    #[must_use]
    pub fn answering(&self, result: CK_RV) -> Self {
        let (keys, managed, detail) = (self.keys.clone(), self.managed.clone(), self.detail.clone());
        Self { result, keys, managed, detail, told: Cell::new(false), ..*self }
    }

    /// Notes that a record tells of it.
    pub fn tell(&self) {
        self.told.set(true);
    }

    /// Notes that its record was undone.
    pub fn untell(&self) {
        self.told.set(false);
    }

    /// Tells whether a record tells of it.
    pub fn is_told(&self) -> bool {
        self.told.get()
    }
}
