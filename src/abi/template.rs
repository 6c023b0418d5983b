//! `CK_ATTRIBUTE` arrays: in, as typed attributes; out, as the answers of C_GetAttributeValue (PKCS #11 v3.2, 5.7.5).
//!
//! The rules are:
//! - a value has the length and form of its attribute's type, or the template is refused with the attribute's name;
//! - all entries of a request are answered, good ones filled, each other one marked `CK_UNAVAILABLE_INFORMATION`, and then
//!   the call does not answer CKR_OK; a buffer that is too small is marked so too, as the standard says;
//! - entries, nesting, value lengths and their sum are bounded, whatever the caller's memory says;
//! - a nested template is stored with its object's other attributes, and so holds no secret.

use super::arg;
use crate::ck::*;
use crate::error::{Error, Kind, Result};
use crate::secret::SecureBytes;
use crate::token::Answer;

/// How many entries a template may have, those of nested templates included.
const MOST_ENTRIES: usize = 4096;
/// How deep templates may stand in templates.
const MOST_NESTED: usize = 3;
/// How many bytes all values of a template may have together, those of nested templates included.
const MOST_BYTES: usize = 32 * 1024 * 1024;
/// The longest value in bytes.
const LONGEST_VALUE: usize = 16 * 1024 * 1024;

/// Reads a template.
///
/// # Errors
/// `AttributeValueInvalid`, `TemplateInconsistent`, or `ArgumentsBad`, each with the attribute's name.
///
/// # Safety
/// `start` is NULL or an array of `count` entries whose values are NULL or valid for reads, nested ones likewise.
pub unsafe fn attributes(start: *const CK_ATTRIBUTE, count: CK_ULONG) -> Result<Attributes> {
    let mut reader = Reader { entries_left: MOST_ENTRIES, depth_left: MOST_NESTED, bytes_left: MOST_BYTES };
    // SAFETY: as the caller vouches.
    let mut attributes = unsafe { reader.template(start, count) }?;
    if !may_be_secret_key(&attributes) {
        reveal_values(&mut attributes)?;
    }
    Ok(attributes)
}

/// Tells whether values such as CKA_VALUE belong to a secret in this template: yes, unless its class says otherwise.
fn may_be_secret_key(attributes: &Attributes) -> bool {
    matches!(attributes.ulong(CKA_CLASS), None | Some(CKO_PRIVATE_KEY | CKO_SECRET_KEY | CKO_OTP_KEY))
}

/// Makes plain bytes of what would be secret in a key (the CKA_VALUE of a certificate or data object).
fn reveal_values(attributes: &mut Attributes) -> Result<()> {
    let ids: Vec<_> =
        attributes.iter().filter(|(_, value)| matches!(value, Value::Secret(_))).map(|(id, _)| id).collect();
    for id in ids {
        if let Some(secret) = attributes.take_secret(id) {
            attributes.set(id, Value::try_bytes(secret.expose())?);
        }
    }
    Ok(())
}

/// What is left of the bounds while a template is read.
struct Reader {
    entries_left: usize,
    depth_left: usize,
    bytes_left: usize,
}

impl Reader {
    /// As [`attributes`].
    unsafe fn template(&mut self, start: *const CK_ATTRIBUTE, count: CK_ULONG) -> Result<Attributes> {
        // SAFETY: as the caller vouches.
        let entries = unsafe { arg::array(start, count, self.entries_left) }?;
        self.entries_left = self.entries_left.saturating_sub(entries.len());
        let mut attributes = Attributes::new();
        for entry in entries {
            // SAFETY: as the caller vouches.
            let value = unsafe { self.value(&entry) }.map_err(|error| error.context(attribute_name(entry.type_)))?;
            let same = attributes.get(entry.type_).is_none_or(|earlier| *earlier == value);
            if !same {
                let text = format!("the template has {} twice, with different values", attribute_name(entry.type_));
                return Err(Error::new(Kind::TemplateInconsistent, text));
            }
            attributes.set(entry.type_, value);
        }
        Ok(attributes)
    }

    unsafe fn value(&mut self, entry: &CK_ATTRIBUTE) -> Result<Value> {
        let kind = value_kind(entry.type_);
        if kind == ValueKind::Template {
            // SAFETY: as the caller vouches.
            return unsafe { self.nested(entry) }.map(Value::Template);
        }
        // SAFETY: as the caller vouches.
        let bytes = unsafe { arg::bytes(entry.pValue.cast(), entry.ulValueLen) }?;
        if bytes.len() > LONGEST_VALUE {
            return Err(invalid(format!("the value has {} bytes; at most {LONGEST_VALUE} are taken", bytes.len())));
        }
        if kind == ValueKind::Secret && self.depth_left < MOST_NESTED {
            return Err(invalid("a secret value has no place in a nested template".to_owned()));
        }
        self.bytes_left = self.bytes_left.checked_sub(bytes.len()).ok_or_else(|| {
            invalid(format!("with this value the template has more than {MOST_BYTES} bytes; at most so many are taken"))
        })?;
        typed(kind, bytes)
    }

    unsafe fn nested(&mut self, entry: &CK_ATTRIBUTE) -> Result<Attributes> {
        let size = arg::ulong(size_of::<CK_ATTRIBUTE>());
        if !entry.ulValueLen.is_multiple_of(size) {
            return Err(invalid("the length of a nested template is no multiple of an entry's".to_owned()));
        }
        self.depth_left =
            self.depth_left.checked_sub(1).ok_or_else(|| invalid("templates are nested too deep".to_owned()))?;
        // SAFETY: as the caller vouches.
        let nested = unsafe { self.template(entry.pValue.cast(), entry.ulValueLen / size) };
        self.depth_left = self.depth_left.saturating_add(1);
        nested
    }
}

/// Makes a typed value of bytes. Booleans are 0 or 1, as CK_TRUE is 1.
fn typed(kind: ValueKind, bytes: &[u8]) -> Result<Value> {
    Ok(match (kind, bytes) {
        (ValueKind::Bool, [0]) => Value::Bool(false),
        (ValueKind::Bool, [1]) => Value::Bool(true),
        (ValueKind::Bool, _) => {
            return Err(invalid("the value must be one byte, CK_FALSE (0) or CK_TRUE (1)".to_owned()));
        }
        (ValueKind::Ulong, _) => Value::Ulong(number(bytes)?),
        (ValueKind::Mechanisms, _) => Value::try_mechanisms(bytes, CK_ULONG::from_ne_bytes)?.ok_or_else(no_number)?,
        (ValueKind::Secret, _) => Value::Secret(SecureBytes::try_copy_from(bytes)?),
        (ValueKind::Bytes | ValueKind::Template, _) => Value::try_bytes(bytes)?,
    })
}

fn number(bytes: &[u8]) -> Result<u64> {
    bytes.try_into().map(CK_ULONG::from_ne_bytes).map_err(|_| no_number())
}

fn no_number() -> Error {
    invalid(format!("the value must be a CK_ULONG of {} bytes", size_of::<CK_ULONG>()))
}

fn invalid(text: String) -> Error {
    Error::new(Kind::AttributeValueInvalid, text)
}

/// Answers a request for attributes: `ask` is handed the types that the entries name, in order.
///
/// # Errors
/// What `ask` answers, with nothing written; else, after all entries are written, `AttributeSensitive`,
/// `AttributeTypeInvalid` or `BufferTooSmall`, the first of them that applies to any entry.
///
/// # Safety
/// `start` is NULL or an array of `count` entries, valid for writes, whose values are NULL or valid for writes of their
/// length; in a buffer for a nested template, which is an array of entries, likewise.
pub unsafe fn answer(
    start: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
    ask: impl FnOnce(&[CK_ATTRIBUTE_TYPE]) -> Result<Vec<Answer>>,
) -> Result<()> {
    // SAFETY: as the caller vouches.
    let mut entries = unsafe { arg::array(start.cast_const(), count, MOST_ENTRIES) }?;
    let types: Vec<_> = entries.iter().map(|entry| entry.type_).collect();
    let answers = ask(&types)?;
    if answers.len() != entries.len() {
        return Err(Error::internal("the token answered another number of attributes than it was asked for"));
    }
    let mut faults = Faults::default();
    for (index, (entry, answer)) in entries.iter_mut().zip(answers).enumerate() {
        match answer {
            Answer::Value(mut value) => {
                // SAFETY: as the caller vouches.
                let filled = unsafe { fill(entry, &value, &mut faults) };
                value.wipe();
                filled?;
            }
            Answer::Sensitive => faults.mark(entry, Kind::AttributeSensitive),
            Answer::Invalid => faults.mark(entry, Kind::AttributeTypeInvalid),
        }
        // SAFETY: `index` is below `count`.
        unsafe { arg::put_entry(start, index, *entry) };
    }
    faults.result()
}

/// What went wrong with any entry, with the name of the first such attribute.
#[derive(Default)]
struct Faults {
    sensitive: Option<CK_ATTRIBUTE_TYPE>,
    invalid: Option<CK_ATTRIBUTE_TYPE>,
    too_small: Option<CK_ATTRIBUTE_TYPE>,
}

impl Faults {
    fn mark(&mut self, entry: &mut CK_ATTRIBUTE, kind: Kind) {
        entry.ulValueLen = CK_UNAVAILABLE_INFORMATION;
        let first = match kind {
            Kind::AttributeSensitive => &mut self.sensitive,
            Kind::AttributeTypeInvalid => &mut self.invalid,
            _ => &mut self.too_small,
        };
        first.get_or_insert(entry.type_);
    }

    /// Chooses the return value in the order in which the standard names the cases.
    fn result(self) -> Result<()> {
        let (kind, id) = match (self.sensitive, self.invalid, self.too_small) {
            (Some(id), _, _) => (Kind::AttributeSensitive, id),
            (None, Some(id), _) => (Kind::AttributeTypeInvalid, id),
            (None, None, Some(id)) => (Kind::BufferTooSmall, id),
            (None, None, None) => return Ok(()),
        };
        Err(Error::from(kind).context(attribute_name(id)))
    }
}

/// Fills one entry.
unsafe fn fill(entry: &mut CK_ATTRIBUTE, value: &Value, faults: &mut Faults) -> Result<()> {
    match value {
        // SAFETY: the caller vouches for the entry's buffer.
        Value::Bool(value) => unsafe { fill_bytes(entry, &[CK_BBOOL::from(*value)], faults) },
        // SAFETY: as above.
        Value::Ulong(value) => unsafe { fill_bytes(entry, &value.to_ne_bytes(), faults) },
        // SAFETY: as above.
        Value::Bytes(value) => unsafe { fill_bytes(entry, value, faults) },
        // SAFETY: as above.
        Value::Secret(value) => unsafe { fill_bytes(entry, value.expose(), faults) },
        Value::Mechanisms(list) => {
            let mut bytes = Vec::new();
            bytes.try_reserve_exact(list.len().saturating_mul(size_of::<CK_ULONG>()))?;
            bytes.extend(list.iter().flat_map(|id| id.to_ne_bytes()));
            // SAFETY: as above.
            unsafe { fill_bytes(entry, &bytes, faults) }
        }
        // SAFETY: as above.
        Value::Template(nested) => return unsafe { fill_nested(entry, nested, faults) },
    }
    Ok(())
}

unsafe fn fill_bytes(entry: &mut CK_ATTRIBUTE, value: &[u8], faults: &mut Faults) {
    // SAFETY: the caller vouches for the entry's buffer.
    match unsafe { arg::put_bytes(entry.pValue.cast(), entry.ulValueLen, value) } {
        true => entry.ulValueLen = arg::ulong(value.len()),
        false => faults.mark(entry, Kind::BufferTooSmall),
    }
}

/// Fills an entry whose value is a template: the caller's buffer is an array of entries, whose own buffers are filled
/// likewise. The types are written here, since the caller cannot know them.
unsafe fn fill_nested(entry: &mut CK_ATTRIBUTE, nested: &Attributes, faults: &mut Faults) -> Result<()> {
    let len = arg::ulong(nested.len().saturating_mul(size_of::<CK_ATTRIBUTE>()));
    let fits = arg::length(entry.ulValueLen).is_ok_and(|room| arg::ulong(room) >= len);
    if !entry.pValue.is_null() && !fits {
        faults.mark(entry, Kind::BufferTooSmall);
        return Ok(());
    }
    entry.ulValueLen = len;
    let start = entry.pValue.cast::<CK_ATTRIBUTE>();
    if start.is_null() {
        return Ok(());
    }
    // SAFETY: the buffer has room for as many entries as the template has.
    let mut inner = unsafe { arg::array(start.cast_const(), arg::ulong(nested.len()), MOST_ENTRIES) }?;
    for (index, (inner, (id, value))) in inner.iter_mut().zip(nested.iter()).enumerate() {
        inner.type_ = id;
        // SAFETY: the caller vouches for nested buffers too.
        unsafe { fill(inner, value, faults) }?;
        // SAFETY: `index` is below the number of entries.
        unsafe { arg::put_entry(start, index, *inner) };
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::as_conversions)]
mod tests {
    use super::*;
    use std::ptr::null_mut;

    fn entry<T>(id: CK_ATTRIBUTE_TYPE, value: &mut [T]) -> CK_ATTRIBUTE {
        CK_ATTRIBUTE { type_: id, pValue: value.as_mut_ptr().cast(), ulValueLen: size_of_val(value) as CK_ULONG }
    }

    /// An entry whose value lives as long as the tests.
    fn given<T: Copy>(id: CK_ATTRIBUTE_TYPE, value: &[T]) -> CK_ATTRIBUTE {
        entry(id, value.to_vec().leak())
    }

    fn read(entries: &[CK_ATTRIBUTE]) -> Result<Attributes> {
        // SAFETY: the tests' entries point to live arrays.
        unsafe { attributes(entries.as_ptr(), entries.len() as CK_ULONG) }
    }

    fn kind(entries: &[CK_ATTRIBUTE]) -> Kind {
        read(entries).unwrap_err().kind()
    }

    fn get(entries: &mut [CK_ATTRIBUTE], answers: Vec<Answer>) -> Result<()> {
        // SAFETY: as above.
        unsafe { answer(entries.as_mut_ptr(), entries.len() as CK_ULONG, |_| Ok(answers)) }
    }

    #[test]
    fn values_are_typed_by_their_attribute() {
        let template = [
            given(CKA_CLASS, &[CKO_SECRET_KEY]),
            given(CKA_TOKEN, &[1_u8]),
            given(CKA_LABEL, b"key"),
            given(CKA_VALUE, &[1_u8, 2]),
            given(CKA_ALLOWED_MECHANISMS, &[CKM_ECDSA, CKM_EDDSA]),
        ];
        let read = read(&template).unwrap();
        assert_eq!(read.ulong(CKA_CLASS), Some(CKO_SECRET_KEY));
        assert!(read.is(CKA_TOKEN));
        assert!(matches!(read.get(CKA_VALUE), Some(Value::Secret(_))));
        assert_eq!(read.get(CKA_ALLOWED_MECHANISMS), Some(&Value::Mechanisms(vec![CKM_ECDSA, CKM_EDDSA])));
    }

    #[test]
    fn a_certificate_has_no_secret_value() {
        let template = read(&[given(CKA_CLASS, &[CKO_CERTIFICATE]), given(CKA_VALUE, &[1_u8, 2])]).unwrap();
        assert_eq!(template.bytes(CKA_VALUE), Some([1, 2].as_slice()));
    }

    #[test]
    fn r43_a_bad_value_names_its_attribute() {
        for bad in [given(CKA_TOKEN, &[2_u8]), given(CKA_TOKEN, &[1_u32]), given(CKA_CLASS, &[1_u32])] {
            let error = read(&[bad]).unwrap_err();
            assert_eq!(error.kind(), Kind::AttributeValueInvalid);
            assert!(error.message().starts_with(&attribute_name(bad.type_)), "{error}");
        }
        assert_eq!(kind(&[given(CKA_ALLOWED_MECHANISMS, &[0_u8; 12])]), Kind::AttributeValueInvalid);
        let null = CK_ATTRIBUTE { type_: CKA_LABEL, pValue: null_mut(), ulValueLen: 1 };
        assert_eq!(kind(&[null]), Kind::ArgumentsBad);
        let long = CK_ATTRIBUTE { ulValueLen: CK_UNAVAILABLE_INFORMATION, ..given(CKA_LABEL, &[0_u8]) };
        assert_eq!(kind(&[long]), Kind::ArgumentsBad);
    }

    #[test]
    fn duplicates_must_agree() {
        assert_eq!(read(&[given(CKA_ID, &[1_u8]), given(CKA_ID, &[1_u8])]).unwrap().len(), 1);
        assert_eq!(kind(&[given(CKA_ID, &[1_u8]), given(CKA_ID, &[2_u8])]), Kind::TemplateInconsistent);
    }

    #[test]
    fn nesting_and_counts_are_bounded() {
        let mut levels = vec![vec![given(CKA_SIGN, &[1_u8])]];
        for _ in 0..MOST_NESTED {
            let next = vec![entry(CKA_WRAP_TEMPLATE, levels.last_mut().unwrap())];
            levels.push(next);
        }
        assert!(read(levels.last().unwrap()).is_ok());
        let too_deep = [entry(CKA_WRAP_TEMPLATE, levels.last_mut().unwrap())];
        assert_eq!(kind(&too_deep), Kind::AttributeValueInvalid);

        let wide = vec![given(CKA_SIGN, &[1_u8]); MOST_ENTRIES / 2];
        let twice = [given(CKA_WRAP_TEMPLATE, &wide), given(CKA_UNWRAP_TEMPLATE, &wide)];
        assert_eq!(kind(&twice), Kind::ArgumentsBad);
    }

    #[test]
    fn r16_the_sum_of_all_values_is_bounded() {
        let (whole, half) = (vec![1_u8; LONGEST_VALUE], vec![2_u8; LONGEST_VALUE / 2]);
        let (whole, half) = (|id| given(id, &whole), |id| given(id, &half));
        let full = [whole(CKA_LABEL), half(CKA_ID), half(CKA_SUBJECT)];
        assert!(read(&full).is_ok());
        let nested = [given(CKA_URL, b"u")];
        let over = [full.as_slice(), &[given(CKA_UNWRAP_TEMPLATE, &nested)]].concat();
        let error = read(&over).unwrap_err();
        assert_eq!(error.kind(), Kind::AttributeValueInvalid);
        assert!(error.message().starts_with("CKA_UNWRAP_TEMPLATE: CKA_URL: with this value"), "{error}");
    }

    #[test]
    fn r43_a_secret_in_a_nested_template_is_refused_by_name() {
        let nested = [given(CKA_EXTRACTABLE, &[0_u8]), given(CKA_VALUE, b"secret")];
        for class in [CKO_SECRET_KEY, CKO_CERTIFICATE] {
            let error = read(&[given(CKA_CLASS, &[class]), given(CKA_UNWRAP_TEMPLATE, &nested)]).unwrap_err();
            assert_eq!(error.kind(), Kind::AttributeValueInvalid);
            assert!(error.message().starts_with("CKA_UNWRAP_TEMPLATE: CKA_VALUE: a secret value"), "{error}");
        }
        assert!(read(&[given(CKA_UNWRAP_TEMPLATE, &nested[..1])]).is_ok());
    }

    #[test]
    fn r41_every_entry_is_answered_and_the_worst_decides() {
        let (mut small, mut good, mut hidden) = ([9_u8; 2], [0_u8; 8], [9_u8; 8]);
        let mut entries = [
            entry(CKA_LABEL, &mut small),
            entry(CKA_VALUE, &mut hidden),
            entry(CKA_URL, &mut [] as &mut [u8]),
            entry(CKA_KEY_TYPE, &mut good),
            CK_ATTRIBUTE { type_: CKA_ID, pValue: null_mut(), ulValueLen: 77 },
        ];
        let answers = || {
            vec![
                Answer::Value(Value::Bytes(b"label".to_vec())),
                Answer::Sensitive,
                Answer::Invalid,
                Answer::Value(Value::Ulong(CKK_RSA)),
                Answer::Value(Value::Bytes(vec![1, 2, 3])),
            ]
        };
        let error = get(&mut entries, answers()).unwrap_err();
        assert_eq!(error.kind(), Kind::AttributeSensitive);
        let lens = entries.map(|entry| entry.ulValueLen);
        assert_eq!(lens, [CK_UNAVAILABLE_INFORMATION, CK_UNAVAILABLE_INFORMATION, CK_UNAVAILABLE_INFORMATION, 8, 3]);
        assert_eq!((small, hidden, good), ([9; 2], [9; 8], CKK_RSA.to_ne_bytes()));

        let mut two = [entry(CKA_LABEL, &mut small), given(CKA_URL, &[0_u8; 4])];
        let error = get(&mut two, answers().into_iter().step_by(2).take(2).collect()).unwrap_err();
        assert_eq!(error.kind(), Kind::AttributeTypeInvalid);
        let mut one = [entry(CKA_LABEL, &mut small)];
        assert_eq!(get(&mut one, answers().into_iter().take(1).collect()).unwrap_err().kind(), Kind::BufferTooSmall);
    }

    #[test]
    fn a_length_from_an_earlier_failure_is_no_room() {
        let mut byte = [9_u8];
        let mut stale = [CK_ATTRIBUTE { ulValueLen: CK_UNAVAILABLE_INFORMATION, ..entry(CKA_TOKEN, &mut byte) }];
        assert_eq!(get(&mut stale, vec![Answer::Value(Value::Bool(true))]).unwrap_err().kind(), Kind::BufferTooSmall);
        assert_eq!(byte, [9]);
        // A buffer for one entry, and a nested template of two.
        let nested = [(CKA_SIGN, Value::Bool(true)), (CKA_WRAP, Value::Bool(true))].into_iter().collect();
        let mut inner = [CK_ATTRIBUTE { type_: 77, pValue: null_mut(), ulValueLen: 77 }; 2];
        let outer = entry(CKA_WRAP_TEMPLATE, &mut inner[..1]);
        for room in [outer.ulValueLen, CK_UNAVAILABLE_INFORMATION] {
            let mut stale = [CK_ATTRIBUTE { ulValueLen: room, ..outer }];
            let answer = get(&mut stale, vec![Answer::Value(Value::Template(Attributes::clone(&nested)))]);
            assert_eq!(answer.unwrap_err().kind(), Kind::BufferTooSmall);
            assert_eq!(stale[0].ulValueLen, CK_UNAVAILABLE_INFORMATION);
            assert_eq!(inner.map(|entry| (entry.type_, entry.ulValueLen)), [(77, 77); 2]);
        }
    }

    #[test]
    fn r41_nested_templates_are_filled_entry_by_entry() {
        let nested: Attributes =
            [(CKA_SIGN, Value::Bool(true)), (CKA_LABEL, Value::Bytes(b"ab".to_vec()))].into_iter().collect();
        let value = || vec![Answer::Value(Value::Template(nested.clone()))];
        let size = size_of::<CK_ATTRIBUTE>() as CK_ULONG;
        let mut query = [CK_ATTRIBUTE { type_: CKA_WRAP_TEMPLATE, pValue: null_mut(), ulValueLen: 0 }];
        get(&mut query, value()).unwrap();
        assert_eq!(query[0].ulValueLen, 2 * size);

        let (mut sign, mut label) = ([0_u8], [0_u8; 2]);
        let mut inner = [CK_ATTRIBUTE { type_: 0, pValue: null_mut(), ulValueLen: 0 }; 2];
        get(&mut [entry(CKA_WRAP_TEMPLATE, &mut inner)], value()).unwrap();
        assert_eq!(inner.map(|entry| (entry.type_, entry.ulValueLen)), [(CKA_LABEL, 2), (CKA_SIGN, 1)]);
        (inner[0].pValue, inner[1].pValue) = (label.as_mut_ptr().cast(), sign.as_mut_ptr().cast());
        get(&mut [entry(CKA_WRAP_TEMPLATE, &mut inner)], value()).unwrap();
        assert_eq!((sign, &label), ([1], b"ab"));

        inner[0].ulValueLen = 1;
        let mut outer = [entry(CKA_WRAP_TEMPLATE, &mut inner)];
        assert_eq!(get(&mut outer, value()).unwrap_err().kind(), Kind::BufferTooSmall);
        assert_eq!((inner[0].ulValueLen, outer[0].ulValueLen), (CK_UNAVAILABLE_INFORMATION, 2 * size));
    }
}
