//! Causes: what makes two refused or tagged records the same problem.

use weir_schemas::fate::Reason;
use xxhash_rust::xxh3::xxh3_64;

/// The fingerprint of a cause: the hash of source, reason, what it is about (a rule's id, a field's path, an expression) and
/// the kind of fault. No release, tenant or place is in it, so it stays the same for all of them.
pub fn fingerprint(source: &str, reason: Reason, about: &str, fault: &str) -> String {
    let text = [source, reason.name(), about, fault].join("\0");
    format!("{:016x}", xxh3_64(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_stay_and_differ() {
        let of = |about: &str, fault: &str| fingerprint("events", Reason::Rule, about, fault);
        assert_eq!(of("a_rule", ""), of("a_rule", ""));
        assert_ne!(of("ab", ""), of("a", "b"));
        assert_ne!(of("a_rule", ""), fingerprint("other", Reason::Rule, "a_rule", ""));
    }
}
