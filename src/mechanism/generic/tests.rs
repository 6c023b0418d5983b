#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::as_conversions)]

use super::*;

#[test]
fn secrets_have_between_1_and_4096_bytes() {
    for (len, good) in [(0, false), (1, true), (20, true), (4096, true), (4097, false), (u64::MAX, false)] {
        let mut template = Attributes::new();
        template.set(CKA_VALUE_LEN, len);
        match ROWS[0].generate.unwrap()(&Params::None, &template) {
            Ok(made) => {
                assert!(good && made.secret.expose().len() as u64 == len);
                assert_eq!(made.attributes.ulong(CKA_VALUE_LEN), Some(len));
            }
            Err(error) => assert!(!good && error.kind() == Kind::KeySizeRange, "{len}"),
        }
    }
}

#[test]
fn each_type_imports_reveals_and_wraps_its_bytes() {
    for kind in &KEY_TYPES {
        let mut template = Attributes::new();
        template.set(CKA_VALUE, SecureBytes::copy_from(b"twenty bytes of key."));
        let secret = (kind.import)(&mut template).unwrap();
        assert!(!template.has(CKA_VALUE) && template.ulong(CKA_VALUE_LEN) == Some(20));
        assert_eq!(kind.secret_attributes, [CKA_VALUE]);
        assert_eq!((kind.reveal)(&template, &secret, CKA_VALUE).unwrap().unwrap().expose(), b"twenty bytes of key.");
        assert_eq!((kind.reveal)(&template, &secret, CKA_PRIVATE_EXPONENT).unwrap(), None);
        let bytes = (kind.to_wrapped)(&template, &secret).unwrap();
        assert_eq!((kind.from_wrapped)(&mut template, &bytes).unwrap(), secret);
        assert!(matches!((kind.secret_key)(&template, &secret).unwrap(), Key::Generic(_)));
    }
    let ids: std::collections::HashSet<_> = KEY_TYPES.iter().map(|kind| kind.id).collect();
    assert_eq!(ids.len(), KEY_TYPES.len());
}

#[test]
fn a_template_that_contradicts_the_value_is_refused() {
    let mut template = Attributes::new();
    template.set(CKA_VALUE, vec![1; 20]);
    template.set(CKA_VALUE_LEN, 21_u64);
    assert_eq!((KEY_TYPES[0].import)(&mut template).unwrap_err().kind(), Kind::TemplateInconsistent);
    assert_eq!((KEY_TYPES[0].import)(&mut Attributes::new()).unwrap_err().kind(), Kind::TemplateIncomplete);
}
