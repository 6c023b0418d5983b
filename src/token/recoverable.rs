//! Signatures that tell their public key: r ‖ s ‖ v, as block chains take them.

use super::operation::{Reply, Room};
use super::session::Session;
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::mechanism::{self, RECOVERABLE_LEN};

/// The operation, as records name it.
const OPERATION: &str = "SR_SignRecoverable";

impl Session {
    /// Signs a digest of 32 bytes with a private key on secp256k1, as CKM_ECDSA does, and adds the recovery number.
    ///
    /// # Errors
    /// `DataLenRange` for another length; `KeyTypeInconsistent` for another curve; as for any signature.
    pub fn sign_recoverable(&self, key: CK_OBJECT_HANDLE, digest: &[u8], room: Room) -> Result<Reply> {
        self.using(OPERATION, Some(CKM_ECDSA), key, || self.recoverable(key, digest, room))
    }

    fn recoverable(&self, key: CK_OBJECT_HANDLE, digest: &[u8], room: Room) -> Result<Reply> {
        let row = mechanism::find(CKM_ECDSA).ok_or_else(|| Error::from(Kind::MechanismInvalid))?;
        let (object, checked) = self.checked_key(key, CKA_SIGN, row)?;
        checked.check_needs_no_login()?;
        let digest = digest.try_into();
        let digest = digest.map_err(|_| Error::new(Kind::DataLenRange, "a digest of 32 bytes is signed so"))?;
        match room {
            Room::Bytes(room) if room >= RECOVERABLE_LEN => {
                let key_of = checked.key()?;
                self.count_use(&object, CKA_SIGN, checked.limits)?;
                self.note_use(OPERATION, Some(CKM_ECDSA), &[key])?;
                mechanism::sign_recoverable(key_of, object.attributes(), digest).map(Reply::Bytes)
            }
            _ => Ok(Reply::Needs(RECOVERABLE_LEN)),
        }
    }
}
