//! Order of versions: by number where they are numbers, else as text.

use std::cmp::Ordering;

/// One part of a version between dots, dashes and the like.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Part<'v> {
    /// Text sorts before numbers, so that 1.0.0-rc stands before 1.0.0.1.
    Text(&'v str),
    Number(u64),
}

fn parts(version: &str) -> Vec<Part<'_>> {
    let bare = version.trim_start_matches(['v', 'V']);
    // What follows a plus is build metadata, without a rank by semver 2.0.0, paragraph 10.
    let ranked = bare.split('+').next().unwrap_or(bare);
    let pieces = ranked.split(['.', '-', '_', ' ']).filter(|piece| !piece.is_empty());
    pieces.map(|piece| piece.parse().map_or(Part::Text(piece), Part::Number)).collect()
}

/// Orders versions as semver does where they parse; a pre-release (1.0.0-rc.1) stands before its release.
pub fn compare(left: &str, right: &str) -> Ordering {
    let (a, b) = (parts(left), parts(right));
    for (x, y) in a.iter().zip(&b) {
        match x.cmp(y) {
            Ordering::Equal => {}
            other => return other,
        }
    }
    let rest = |longer: &[Part<'_>], from: usize| match longer.get(from) {
        // 1.0.0-rc has more parts than 1.0.0 and is older; 1.0.1 has more than 1.0 and is newer.
        Some(Part::Text(_)) => Ordering::Less,
        Some(Part::Number(_)) => Ordering::Greater,
        None => Ordering::Equal,
    };
    if a.len() >= b.len() { rest(&a, b.len()) } else { rest(&b, a.len()).reverse() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_stand_in_order() {
        let ordered = ["v0.9", "1.0.0-alpha", "1.0.0-rc.1", "1.0.0", "1.0.1", "1.2.0", "1.10.0", "2.0", "10.0.0"];
        for (at, low) in ordered.iter().enumerate() {
            for high in &ordered[at + 1..] {
                assert_eq!(compare(low, high), Ordering::Less, "{low} {high}");
                assert_eq!(compare(high, low), Ordering::Greater, "{high} {low}");
            }
        }
        assert_eq!(compare("v1.2.0", "1.2.0+build5"), Ordering::Equal);
    }
}
