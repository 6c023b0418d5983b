//! The token: slots, login, sessions, objects and operations, as PKCS #11 v3.2 has them. No SQL, no cloud, no unsafe.
//!
//! What the token does not own comes in through [`Parts`], which `abi/compose.rs` fills from the configuration.

mod attend;
mod attribute;
mod backup;
mod data_key;
mod deferred;
mod find;
mod handle;
mod import;
mod itself;
mod key;
mod library;
mod login;
mod managed;
mod master;
mod object;
mod operation;
mod password;
mod policy;
mod recoverable;
mod remote;
mod rescope;
mod restore;
mod rotation;
mod running;
mod sealed;
mod session;
mod token;
mod trail;
mod unlocked;
mod uses;
mod version;

pub use attend::{Attendant, Wake};
pub use backup::{Here, Record, Source};
pub use find::object_name;
pub use library::{Clock, Library, MechanismInfo, Parts, SlotInfo, TokenInfo, slot_of};
pub use login::now_seconds;
pub use managed::{Change, Found, Prepared};
pub use master::MasterKeyChange;
pub use object::Answer;
pub use operation::{Call, Reply, Room};
pub use password::{KnownKeys, Resealed};
pub use policy::{CharacterClass, PasswordRules, PinSource, Plaintext, Policy, Profile, Profiles, ReadPin};
pub use remote::{RemoteObject, RemoteToken};
pub use restore::{NewPins, Restore, check_envelopes, open_by_pin, reseal, row_of};
pub use rotation::{Effective, MOST_USES, Origin, Rotation, Rules};
pub use session::{Session, SessionInfo};
