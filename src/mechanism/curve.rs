//! How curves and points look in attributes, on their way in and out (PKCS #11 v3.2, 6.3).
//!
//! The rules are:
//! - `CKA_EC_PARAMS` comes in as an object identifier or as a curve name (PrintableString). It is kept as the object
//!   identifier, for generated and imported keys, public and private, so that one key always looks the same;
//! - `CKA_EC_POINT` comes in raw, as OCTET STRING or as BIT STRING, told apart by its length, and is kept as DER OCTET
//!   STRING. The standard asks for that form for `CKK_EC`. For Edwards and Montgomery keys v3.0 asked for DER and v3.2 asks
//!   for raw bytes; OCTET STRING is what OpenSC, libp11, pkcs11-provider and SoftHSM read and write.

use der::asn1::{BitStringRef, ObjectIdentifier, OctetStringRef, PrintableStringRef};
use der::{Decode, Encode};

use crate::ck::*;
use crate::error::{Error, Kind, Result};

/// A curve by its names in `CKA_EC_PARAMS`.
pub struct Named<C: 'static> {
    /// The curve.
    pub curve: C,
    /// The object identifier; the first is the one that is kept, others are read.
    pub oids: &'static [ObjectIdentifier],
    /// The names, compared without regard to case; the first is shown to people.
    pub names: &'static [&'static str],
}

impl<C> Named<C> {
    /// Gives the `CKA_EC_PARAMS` that is kept.
    ///
    /// # Errors
    /// None that could be reached: an object identifier has an encoding.
    pub fn params(&self) -> Result<Vec<u8>> {
        let oid = self.oids.first().ok_or_else(|| Error::internal("a curve has no object identifier"))?;
        oid.to_der().map_err(|_| Error::internal("an object identifier has no encoding"))
    }
}

/// Finds the curve that a template or key names in `CKA_EC_PARAMS`.
///
/// # Errors
/// `TemplateIncomplete` when there is none, `CurveNotSupported` when it is not in the table.
pub fn find<C>(table: &'static [Named<C>], attributes: &Attributes) -> Result<&'static Named<C>> {
    let params = attributes.require_bytes(CKA_EC_PARAMS)?;
    let oid = ObjectIdentifier::from_der(params).ok();
    let name = PrintableStringRef::from_der(params).ok();
    let name = name.as_ref().map(|name| name.as_str());
    let found = table.iter().find(|row| {
        oid.is_some_and(|oid| row.oids.contains(&oid))
            || name.is_some_and(|name| row.names.iter().any(|known| known.eq_ignore_ascii_case(name)))
    });
    found.ok_or_else(|| unsupported(table, oid, name))
}

/// Takes a point out of its frame, if it has one. `lens` are the lengths that the raw point can have.
///
/// # Errors
/// `AttributeValueInvalid` for bytes in none of the three forms.
pub fn unframe<'a>(point: &'a [u8], lens: &[usize]) -> Result<&'a [u8]> {
    if lens.contains(&point.len()) {
        return Ok(point);
    }
    let octets = <&OctetStringRef>::from_der(point).ok().map(OctetStringRef::as_bytes);
    let bits = || BitStringRef::from_der(point).ok().and_then(|bits| bits.as_bytes());
    octets.or_else(bits).filter(|inner| lens.contains(&inner.len())).ok_or_else(|| {
        let text = "CKA_EC_POINT is no point of this curve, raw, as DER OCTET STRING or as DER BIT STRING";
        Error::new(Kind::AttributeValueInvalid, text)
    })
}

/// Puts a raw point into the frame in which `CKA_EC_POINT` is kept.
///
/// # Errors
/// None that could be reached: a point is short.
pub fn frame(point: &[u8]) -> Result<Vec<u8>> {
    let octets = OctetStringRef::new(point).and_then(|octets| octets.to_der());
    octets.map_err(|_| Error::internal("a point has no DER encoding"))
}

/// Checks the public parts that a private key's template may carry against those that follow from the key, and sets them.
///
/// # Errors
/// `TemplateInconsistent` for a point of another key.
pub fn set_parts(attributes: &mut Attributes, params: Vec<u8>, point: &[u8]) -> Result<()> {
    if let Some(given) = attributes.bytes(CKA_EC_POINT).filter(|given| !given.is_empty()) {
        let compressed = point.len().div_ceil(2);
        let raw = unframe(given, &[point.len(), compressed])?;
        // Of a compressed point (SEC 1) the x-coordinate is compared.
        let same = raw == point || (raw.len() == compressed && raw.get(1..) == point.get(1..compressed));
        if !same {
            return Err(Error::new(Kind::TemplateInconsistent, "CKA_EC_POINT does not belong to CKA_VALUE"));
        }
    }
    attributes.extend(parts(params, point)?);
    Ok(())
}

/// Makes the attributes that both halves of a key carry.
///
/// # Errors
/// As [`frame`].
pub fn parts(params: Vec<u8>, point: &[u8]) -> Result<Attributes> {
    let point = frame(point)?;
    Ok([(CKA_EC_PARAMS, Value::Bytes(params)), (CKA_EC_POINT, Value::Bytes(point))].into_iter().collect())
}

/// Gives the bytes over which a missing `CKA_ID` is made: the point without its frame.
pub fn id_source(attributes: &Attributes) -> Option<Vec<u8>> {
    let point = attributes.bytes(CKA_EC_POINT)?;
    <&OctetStringRef>::from_der(point).ok().map(|octets| octets.as_bytes().to_vec())
}

fn unsupported<C>(table: &[Named<C>], oid: Option<ObjectIdentifier>, name: Option<&str>) -> Error {
    let asked = match (oid, name) {
        (Some(oid), _) => oid.to_string(),
        (_, Some(name)) => format!("{name:?}"),
        _ => "in this form (neither an object identifier nor a name)".to_owned(),
    };
    let known: Vec<_> = table.iter().filter_map(|row| row.names.first().copied()).collect();
    let text = format!("the curve {asked} is not supported for this type of key; these are: {}", known.join(", "));
    Error::new(Kind::CurveNotSupported, text)
}
