//! Certificates that come along with a key, as objects of PKCS #11 (v3.2, 4.6).

use der::{Decode, Encode};
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::ext::pkix::BasicConstraints;

use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::mechanism::{self, GivenKey};

/// Makes the template of a certificate. That of the key itself has no `CKA_ID` yet: it gets the key's. Others have that of their own
/// public key.
///
/// # Errors
/// `DataInvalid` for what is no X.509 certificate.
pub fn template(der: &[u8], name: Option<&str>, key: &GivenKey) -> Result<Attributes> {
    // `Raw` takes serial numbers as they are; some authorities have written longer ones than RFC 5280 allows.
    let certificate = CertificateInner::<Raw>::from_der(der).map_err(|_| invalid())?;
    let tbs = certificate.tbs_certificate();
    let encode = |part: &dyn ToDer| part.encoded();
    let info = encode(tbs.subject_public_key_info())?;
    let subject = tbs.subject();
    let authority = matches!(tbs.get_extension::<BasicConstraints>(), Ok(Some((_, constraints))) if constraints.ca);
    let label = name.map_or_else(|| subject.to_string(), str::to_owned);
    let mut template: Attributes = [
        (CKA_CLASS, Value::Ulong(CKO_CERTIFICATE)),
        (CKA_CERTIFICATE_TYPE, Value::Ulong(CKC_X_509)),
        (
            CKA_CERTIFICATE_CATEGORY,
            Value::Ulong(if authority {
                CK_CERTIFICATE_CATEGORY_AUTHORITY
            } else {
                CK_CERTIFICATE_CATEGORY_UNSPECIFIED
            }),
        ),
        (CKA_LABEL, Value::Bytes(label.into_bytes())),
        (CKA_SUBJECT, Value::Bytes(encode(subject)?)),
        (CKA_ISSUER, Value::Bytes(encode(tbs.issuer())?)),
        (CKA_SERIAL_NUMBER, Value::Bytes(encode(tbs.serial_number())?)),
        (CKA_VALUE, Value::Bytes(der.to_vec())),
    ]
    .into_iter()
    .collect();
    if info != key.public_key_info()? {
        let point = tbs.subject_public_key_info().subject_public_key.raw_bytes();
        template.set(CKA_ID, mechanism::default_id(point)?);
    }
    Ok(template)
}

/// Tells whether a template is that of the key's own certificate.
pub fn is_own(template: &Attributes) -> bool {
    !template.has(CKA_ID)
}

/// Encodes parts of different types.
trait ToDer {
    fn encoded(&self) -> Result<Vec<u8>>;
}

impl<T: Encode> ToDer for T {
    fn encoded(&self) -> Result<Vec<u8>> {
        self.to_der().map_err(|_| invalid())
    }
}

fn invalid() -> Error {
    Error::new(Kind::DataInvalid, "a certificate beside the key is no X.509 certificate")
}
