//! Whether a failure of ClickHouse passes by itself: by its error code, as ClickHouse numbers them.
//!
//! A code that is not listed as fatal is retriable. That way round a new code makes Weir wait visibly with
//! everything kept, where the other way round it would stop over a hiccup.

use clickhouse::error::Error as ClientError;

use crate::error::DeliveryError;

/// What a failed request to ClickHouse means for the rows that it carried.
pub(crate) fn classify(error: &ClientError) -> DeliveryError {
    match error {
        ClientError::BadResponse(text) => classify_response(text),
        ClientError::InvalidParams(_) | ClientError::Unsupported(_) => DeliveryError::Fatal {
            why: format!("ClickHouse: {}", chain(error)),
            remedy: "check clickhouse.url in the pipeline file".to_owned(),
        },
        _ => DeliveryError::Retriable { why: format!("ClickHouse: {}", chain(error)) },
    }
}

/// The same for the text of an answer that is not 200.
fn classify_response(text: &str) -> DeliveryError {
    let why = format!("ClickHouse: {}", shorten(text));
    let remedy = match exception_code(text) {
        Some(code) => remedy_of_code(code),
        None => remedy_of_status(text),
    };
    match remedy {
        Some(remedy) => DeliveryError::Fatal { why, remedy: remedy.to_owned() },
        None => DeliveryError::Retriable { why },
    }
}

/// What to do about a code that time does not mend; `None` for those that it may.
fn remedy_of_code(code: u32) -> Option<&'static str> {
    match code {
        // NO_SUCH_COLUMN_IN_TABLE, UNKNOWN_IDENTIFIER, UNKNOWN_TABLE, UNKNOWN_DATABASE
        10 | 16 | 47 | 60 | 81 => {
            Some("the table was changed or dropped while Weir ran: start Weir again, it will make what is missing")
        }
        // TYPE_MISMATCH, CANNOT_PARSE_*, CANNOT_READ_ALL_DATA, CANNOT_CONVERT_TYPE, INCORRECT_DATA, ILLEGAL_COLUMN, ...
        6 | 20 | 26 | 27 | 33 | 38 | 41 | 43 | 44 | 53 | 69 | 70 | 72 | 117 | 131 | 190 | 321 | 349 => {
            Some("the table's columns are not those that Weir made: compare them with `weir check`")
        }
        // READONLY, ACCESS_DENIED, unknown user, wrong or missing password, AUTHENTICATION_FAILED
        164 | 192 | 193 | 194 | 497 | 516 => Some(
            "check clickhouse.user and clickhouse.password, and that this user may create and insert in the database",
        ),
        // UNKNOWN_SETTING, SETTING_CONSTRAINT_VIOLATION
        115 | 452 => Some("let clickhouse.user change the settings that the message names"),
        // BAD_ARGUMENTS, UNKNOWN_FUNCTION, NOT_IMPLEMENTED, SYNTAX_ERROR, SUPPORT_IS_DISABLED, ...
        36 | 42 | 46 | 48 | 50 | 56 | 62 | 80 | 344 => {
            Some("this ClickHouse is too old, or not one that Weir knows: use 25.3 or newer")
        }
        _ => None,
    }
}

/// The same for an answer without a code of ClickHouse, such as a proxy gives.
fn remedy_of_status(text: &str) -> Option<&'static str> {
    match text.get(..3) {
        Some("401" | "403") => Some("check clickhouse.user and clickhouse.password"),
        Some("404" | "405") => Some("check clickhouse.url: what answers there is not ClickHouse"),
        _ => None,
    }
}

/// The number in `Code: 241. DB::Exception: ...`.
fn exception_code(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("Code: ")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).map_or(rest, |end| &rest[..end]);
    digits.parse().ok()
}

/// ClickHouse's message without its stack trace, and without more of a query than a line can hold.
fn shorten(text: &str) -> String {
    const LONGEST: usize = 600;
    let text = text.split("Stack trace").next().unwrap_or_default().trim();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text.to_owned(),
    }
}

/// An error with its causes: the client's own text often says no more than "network error".
fn chain(error: &ClientError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_retriable(text: &str) -> bool {
        matches!(classify(&ClientError::BadResponse(text.to_owned())), DeliveryError::Retriable { .. })
    }

    #[test]
    fn a_busy_or_broken_server_is_retried() {
        for (code, name) in [
            (159, "TIMEOUT_EXCEEDED"),
            (202, "TOO_MANY_SIMULTANEOUS_QUERIES"),
            (209, "SOCKET_TIMEOUT"),
            (210, "NETWORK_ERROR"),
            (225, "NO_ZOOKEEPER"),
            (241, "MEMORY_LIMIT_EXCEEDED"),
            (242, "TABLE_IS_READ_ONLY"),
            (243, "NOT_ENOUGH_SPACE"),
            (252, "TOO_MANY_PARTS"),
            (319, "UNKNOWN_STATUS_OF_INSERT"),
            (999, "KEEPER_EXCEPTION"),
            (4242, "A_CODE_OF_THE_FUTURE"),
        ] {
            assert!(is_retriable(&format!("Code: {code}. DB::Exception: such is life. ({name})")), "{name}");
        }
        assert!(is_retriable("502 Bad Gateway"));
        assert!(is_retriable("429 Too Many Requests"));
        assert!(matches!(classify(&ClientError::TimedOut), DeliveryError::Retriable { .. }));
        assert!(matches!(classify(&ClientError::Network("refused".into())), DeliveryError::Retriable { .. }));
    }

    #[test]
    fn what_a_person_has_to_mend_is_fatal_and_says_how() {
        for (code, name) in [
            (16, "NO_SUCH_COLUMN_IN_TABLE"),
            (27, "CANNOT_PARSE_INPUT_ASSERTION_FAILED"),
            (33, "CANNOT_READ_ALL_DATA"),
            (53, "TYPE_MISMATCH"),
            (60, "UNKNOWN_TABLE"),
            (81, "UNKNOWN_DATABASE"),
            (164, "READONLY"),
            (452, "SETTING_CONSTRAINT_VIOLATION"),
            (497, "ACCESS_DENIED"),
            (516, "AUTHENTICATION_FAILED"),
        ] {
            let text = format!("Code: {code}. DB::Exception: no. ({name}) (version 25.8)");
            let DeliveryError::Fatal { why, remedy } = classify(&ClientError::BadResponse(text)) else {
                panic!("{name} is fatal");
            };
            assert!(why.contains(name) && !remedy.is_empty(), "{why}; {remedy}");
        }
        assert!(!is_retriable("403 Forbidden"));
        assert!(!is_retriable("404 Not Found"));
    }

    #[test]
    fn messages_are_cut_before_the_stack_trace() {
        let text = "Code: 241. DB::Exception: Memory limit. (MEMORY_LIMIT_EXCEEDED), Stack trace: 0. 0x0";
        assert_eq!(
            classify(&ClientError::BadResponse(text.to_owned())),
            DeliveryError::Retriable {
                why: "ClickHouse: Code: 241. DB::Exception: Memory limit. (MEMORY_LIMIT_EXCEEDED),".to_owned()
            }
        );
    }
}
