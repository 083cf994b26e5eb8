//! Output formats: which of them the front can send piece by piece, and their content types.
//!
//! The engine formats each streamed piece as a document of its own. Pieces of a format without
//! beginning and end are simply joined; of a format with a header, the header is taken off every
//! piece but the first. Anything else (JSON, Parquet, Arrow, Pretty …) is made as a whole.

/// How the pieces of a streamed result become one document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Joining {
    /// Pieces follow one another.
    Plain,
    /// Each piece starts with this many header lines.
    HeaderLines { count: usize, quoted: bool },
    /// Each piece starts with RowBinary's column count, names, and types when `types` is set.
    BinaryHeader { types: bool },
    /// The format can't be joined: ask the engine for the whole document.
    Whole,
}

/// How pieces of `format` are joined; formats unknown here are made as a whole.
pub(crate) fn joining_of(format: &str) -> Joining {
    match format {
        "TSV"
        | "TabSeparated"
        | "TSVRaw"
        | "TabSeparatedRaw"
        | "CSV"
        | "TSKV"
        | "JSONEachRow"
        | "JSONLines"
        | "NDJSON"
        | "JSONStringsEachRow"
        | "JSONCompactEachRow"
        | "JSONCompactStringsEachRow"
        | "RowBinary"
        | "Native"
        | "LineAsString"
        | "MsgPack"
        | "Null" => Joining::Plain,
        "CSVWithNames" => Joining::HeaderLines { count: 1, quoted: true },
        "CSVWithNamesAndTypes" => Joining::HeaderLines { count: 2, quoted: true },
        "TSVWithNames"
        | "TabSeparatedWithNames"
        | "JSONCompactEachRowWithNames"
        | "JSONCompactStringsEachRowWithNames" => Joining::HeaderLines { count: 1, quoted: false },
        "TSVWithNamesAndTypes"
        | "TabSeparatedWithNamesAndTypes"
        | "JSONCompactEachRowWithNamesAndTypes"
        | "JSONCompactStringsEachRowWithNamesAndTypes" => Joining::HeaderLines { count: 2, quoted: false },
        "RowBinaryWithNames" => Joining::BinaryHeader { types: false },
        "RowBinaryWithNamesAndTypes" => Joining::BinaryHeader { types: true },
        _ => Joining::Whole,
    }
}

/// Takes the repeated header off the pieces of one result.
pub(crate) struct Joiner {
    joining: Joining,
    header: Option<Vec<u8>>,
}

impl Joiner {
    pub(crate) fn new(joining: Joining) -> Joiner {
        Joiner { joining, header: None }
    }

    /// How many bytes at the start of `piece` repeat the header; `None` when the piece doesn't
    /// start with the header of the first one, so that joining would give wrong rows.
    pub(crate) fn repeated(&mut self, piece: &[u8]) -> Option<usize> {
        match &self.header {
            Some(header) => piece.starts_with(header).then_some(header.len()),
            None => {
                let length = header_length(self.joining, piece)?;
                self.header = Some(piece[..length].to_vec());
                Some(0)
            }
        }
    }
}

fn header_length(joining: Joining, piece: &[u8]) -> Option<usize> {
    match joining {
        Joining::Plain | Joining::Whole => Some(0),
        Joining::HeaderLines { count, quoted } => {
            let (mut lines, mut inside) = (0, false);
            let end = piece.iter().position(|&byte| {
                inside ^= quoted && byte == b'"';
                lines += usize::from(byte == b'\n' && !inside);
                lines == count
            })?;
            Some(end + 1)
        }
        Joining::BinaryHeader { types } => {
            let mut at = 0;
            let columns = variable_length(piece, &mut at)?;
            let texts = if types { columns.checked_mul(2)? } else { columns };
            for _ in 0..texts {
                let length = usize::try_from(variable_length(piece, &mut at)?).ok()?;
                at = at.checked_add(length).filter(|&end| end <= piece.len())?;
            }
            Some(at)
        }
    }
}

/// An unsigned LEB128 number at `at`, which moves behind it.
fn variable_length(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..63).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// The `Content-Type` that a server sends for `format`.
pub(crate) fn content_type(format: &str) -> &'static str {
    let is_one_of = |starts: &[&str]| starts.iter().any(|start| format.starts_with(start));
    if format.starts_with("JSON") && format.contains("EachRow") || matches!(format, "JSONLines" | "NDJSON") {
        "application/x-ndjson; charset=UTF-8"
    } else if format.starts_with("JSON") {
        "application/json; charset=UTF-8"
    } else if format.starts_with("CSV") {
        if format.contains("WithNames") {
            "text/csv; charset=UTF-8; header=present"
        } else {
            "text/csv; charset=UTF-8; header=absent"
        }
    } else if is_one_of(&["TSV", "TabSeparated"]) {
        "text/tab-separated-values; charset=UTF-8"
    } else if format == "XML" {
        "application/xml; charset=UTF-8"
    } else if is_one_of(&["Native", "RowBinary", "Arrow", "Parquet", "ORC", "Avro", "MsgPack"]) {
        "application/octet-stream"
    } else {
        "text/plain; charset=UTF-8"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(format: &str, pieces: &[&[u8]], joined: &[u8]) {
        let mut joiner = Joiner::new(joining_of(format));
        let mut all = Vec::new();
        for piece in pieces {
            all.extend_from_slice(&piece[joiner.repeated(piece).expect("a joinable piece")..]);
        }
        assert_eq!(all, joined, "{format}");
    }

    #[test]
    fn headers_come_once() {
        check("CSV", &[b"1\n", b"2\n"], b"1\n2\n");
        check("CSVWithNames", &[b"\"a\nb\"\n1\n", b"\"a\nb\"\n2\n"], b"\"a\nb\"\n1\n2\n");
        check("TSVWithNamesAndTypes", &[b"a\nUInt8\n1\n", b"a\nUInt8\n2\n"], b"a\nUInt8\n1\n2\n");
        check(
            "RowBinaryWithNamesAndTypes",
            &[b"\x01\x01a\x05UInt8\x07", b"\x01\x01a\x05UInt8\x08"],
            b"\x01\x01a\x05UInt8\x07\x08",
        );
    }

    #[test]
    fn a_piece_without_the_header_is_refused() {
        let mut joiner = Joiner::new(joining_of("CSVWithNames"));
        assert_eq!(joiner.repeated(b"a\n1\n"), Some(0));
        assert_eq!(joiner.repeated(b"\n5\n"), None);
        assert_eq!(Joiner::new(joining_of("RowBinaryWithNames")).repeated(b"\x02\x01a\xff"), None);
    }

    #[test]
    fn documents_are_made_whole() {
        for format in ["JSON", "Parquet", "Arrow", "Values", "Pretty", "XML", "something new"] {
            assert_eq!(joining_of(format), Joining::Whole);
        }
    }
}
