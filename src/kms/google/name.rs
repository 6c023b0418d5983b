//! The names of Google Cloud: a collection and an id, again and again.

const RING: &[&str] = &["projects", "locations", "keyRings"];
const KEY: &[&str] = &["projects", "locations", "keyRings", "cryptoKeys"];
const VERSION: &[&str] = &["projects", "locations", "keyRings", "cryptoKeys", "cryptoKeyVersions"];

/// Tells whether this is the full name of a key ring.
pub fn is_ring(name: &str) -> bool {
    has_form(name, RING)
}

/// Tells whether this is the full name of a key.
pub fn is_key(name: &str) -> bool {
    has_form(name, KEY)
}

/// Tells whether this is the full name of a version.
pub fn is_version(name: &str) -> bool {
    has_form(name, VERSION)
}

/// Gives the key ring of a key or a version.
pub fn ring_of(name: &str) -> &str {
    name.split_once("/cryptoKeys/").map_or(name, |(ring, _)| ring)
}

/// Makes the name of a version.
pub fn version_of(key: &str, number: u32) -> String {
    format!("{key}/cryptoKeyVersions/{number}")
}

/// Splits the name of a version into its key and its number.
pub fn split_version(name: &str) -> Option<(&str, u32)> {
    let (key, number) = name.split_once("/cryptoKeyVersions/")?;
    Some((key, number.parse().ok()?))
}

/// Gives a name for people: the last part of the key's name, with the version where it is not the first.
pub fn label(version: &str) -> String {
    let (key, number) = split_version(version).unwrap_or((version, 1));
    let last = key.rsplit('/').next().unwrap_or(key);
    if number == 1 { last.to_owned() } else { format!("{last}/{number}") }
}

/// Finds the full name of the version that somebody names: in full, or within a key ring as `KEY` or `KEY/VERSION`. A key
/// alone means its first version, for a key that signs or decrypts has no primary one.
pub fn resolve(name: &str, ring: Option<&str>) -> Option<String> {
    let full = match ring {
        _ if name.starts_with("projects/") => name.to_owned(),
        Some(ring) => match name.split_once('/') {
            Some((key, number)) if !number.contains('/') => {
                format!("{ring}/cryptoKeys/{key}/cryptoKeyVersions/{number}")
            }
            _ => format!("{ring}/cryptoKeys/{name}"),
        },
        None => return None,
    };
    let full = if is_key(&full) { version_of(&full, 1) } else { full };
    (is_version(&full) && split_version(&full).is_some()).then_some(full)
}

/// Makes the id of a key from a label: letters, digits, `_` and `-`, at most 63 of them.
pub fn id_from(label: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let id: String = label.chars().map(keep).take(63).collect();
    if id.chars().any(|c| c != '-') { id } else { "key".to_owned() }
}

fn has_form(name: &str, collections: &[&str]) -> bool {
    let mut parts = name.split('/');
    let whole = collections.iter().all(|wanted| parts.next() == Some(wanted) && parts.next().is_some_and(is_id));
    whole && parts.next().is_none()
}

/// Tells whether this can be an id: a project's may have a domain in front, as in `example.com:project`.
fn is_id(id: &str) -> bool {
    !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric() || "_-.:".contains(c)) && id.trim_matches('.') == id
}

#[cfg(test)]
mod tests {
    use super::*;

    const R: &str = "projects/example.com:p/locations/europe-west3/keyRings/r";

    #[test]
    fn a_name_has_exactly_its_parts() {
        assert!(is_ring(R) && is_key(&format!("{R}/cryptoKeys/k")));
        assert!(is_version(&format!("{R}/cryptoKeys/k/cryptoKeyVersions/1")));
        for bad in ["", "k", "projects/p", &format!("{R}/cryptoKeys/"), &format!("{R}/cryptoKeys/a b")] {
            assert!(!is_key(bad), "{bad}");
        }
        for bad in ["..", "k:encrypt?x", "k/", "k%2F", "k#"] {
            assert!(!is_key(&format!("{R}/cryptoKeys/{bad}")), "{bad}");
        }
    }

    #[test]
    fn r65_a_key_is_found_by_its_name_alone() {
        let first = format!("{R}/cryptoKeys/k/cryptoKeyVersions/1");
        let third = format!("{R}/cryptoKeys/k/cryptoKeyVersions/3");
        for (name, full) in [("k", &first), ("k/1", &first), ("k/3", &third), (first.as_str(), &first)] {
            assert_eq!(resolve(name, Some(R)).as_ref(), Some(full));
        }
        assert_eq!(resolve(&format!("{R}/cryptoKeys/k"), None), Some(first));
        for bad in ["", "k/x", "k/1/2", "a b", "projects/p", "k/-1"] {
            assert_eq!(resolve(bad, Some(R)), None, "{bad}");
        }
        assert_eq!(resolve("k", None), None);
    }

    #[test]
    fn labels_become_ids_and_come_back() {
        assert_eq!(id_from("code signing: käse_1"), "code-signing--k-se_1");
        assert_eq!((id_from(""), id_from("ключ")), ("key".to_owned(), "key".to_owned()));
        assert_eq!(id_from(&"x".repeat(100)).len(), 63);
        assert_eq!(label(&format!("{R}/cryptoKeys/k/cryptoKeyVersions/1")), "k");
        assert_eq!(label(&format!("{R}/cryptoKeys/k/cryptoKeyVersions/2")), "k/2");
    }
}
