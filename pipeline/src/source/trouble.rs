//! What an error of one partition means: whether it passes by itself, and what a person can do about it where it doesn't.
//!
//! What isn't known to pass stops the pipeline: librdkafka goes on behind some errors (a batch that it can't decompress),
//! and to go on with it would skip records. Stopping loses nothing.

use rdkafka::error::RDKafkaErrorCode;

use super::stream::Resume;
use crate::error::Error;

/// An error in front of a partition's next record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What kind of error.
    pub kind: Kind,
    /// What the client said.
    pub detail: String,
}

/// What becomes of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The client gets over it: a broker that is away, a leader that is being chosen.
    Passing,
    /// The log no longer holds the offset.
    Expired,
    /// The topic or the partition isn't there.
    Missing,
    /// This user may not read.
    Forbidden,
    /// A record or batch is larger than the client takes.
    TooLarge,
    /// What the broker sent can't be read, or nobody knows what the error means.
    Unreadable,
    /// What the archive has can't be read.
    Damaged,
}

impl Kind {
    /// The kind of an error code.
    pub fn of(code: RDKafkaErrorCode) -> Kind {
        use RDKafkaErrorCode as Code;
        match code {
            Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::NetworkException
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::BrokerNotAvailable
            | Code::ReplicaNotAvailable
            | Code::KafkaStorageError
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch => Kind::Passing,
            Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation => Kind::Expired,
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => Kind::Missing,
            Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::Authentication
            | Code::SaslAuthenticationFailed => Kind::Forbidden,
            Code::MessageSizeTooLarge | Code::InvalidMessageSize => Kind::TooLarge,
            _ => Kind::Unreadable,
        }
    }
}

impl Trouble {
    /// Whether the client gets over it.
    pub fn passes(&self) -> bool {
        self.kind == Kind::Passing
    }

    /// The error that stops the pipeline; `None` where it passes.
    pub(super) fn error(&self, resume: &Resume, next_offset: i64) -> Option<Error> {
        let place = format!("{}/{}", resume.topic, resume.partition.number);
        let detail = format!("offset {next_offset} can't be read: {}", self.detail);
        let of_log =
            |remedy: &str| Error::Log { place: place.clone(), detail: detail.clone(), remedy: remedy.to_owned() };
        Some(match self.kind {
            Kind::Passing => return None,
            Kind::Expired => of_log(
                "the records expired or the topic was made anew; to go on from what is there, use a new state folder",
            ),
            Kind::Missing => of_log(
                "the topic or the partition is gone: if it comes back as it was, start again, and Weir goes on where it was",
            ),
            Kind::TooLarge => of_log(
                "raise `receive.message.max.bytes` and `fetch.max.bytes` under kafka.settings above the topic's \
                 max.message.bytes, and start again",
            ),
            Kind::Unreadable => of_log(
                "what the broker sends of this partition is damaged or of a kind that this Weir can't read: look at the \
                 record with Kafka's own tools; nothing was skipped",
            ),
            Kind::Damaged => of_log(
                "`weir archive verify` names all that is wrong with the archive: put back what is missing, or read what the \
                 topics still have with --source topic; nothing was skipped",
            ),
            Kind::Forbidden => Error::Unreachable {
                part: format!("kafka, {place}"),
                detail,
                remedy: "let this user read and describe the topic, or check user and password under kafka.settings"
                    .to_owned(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use weir_schemas::place::{Partition, TopicId};
    use weir_schemas::time::EventTime;

    use super::*;

    #[test]
    fn each_kind_of_error_says_what_helps_and_only_what_passes_lets_weir_go_on() {
        use RDKafkaErrorCode as Code;
        let resume = Resume {
            topic: "events".to_owned(),
            partition: Partition { topic: TopicId(0), number: 3 },
            offset: 0,
            log_begins_at: 0,
            watermark: EventTime::MIN,
            end: None,
        };
        let told = |code| Trouble { kind: Kind::of(code), detail: format!("{code:?}") }.error(&resume, 17);
        for code in [Code::BrokerTransportFailure, Code::NotLeaderForPartition, Code::LeaderNotAvailable] {
            assert!(told(code).is_none(), "{code:?} passes");
        }
        for (code, exit_code, remedy) in [
            (Code::AutoOffsetReset, 4, "a new state folder"),
            (Code::UnknownTopicOrPartition, 4, "start again"),
            (Code::TopicAuthorizationFailed, 3, "let this user read"),
            (Code::MessageSizeTooLarge, 4, "fetch.max.bytes"),
            (Code::BadCompression, 4, "nothing was skipped"),
            (Code::InvalidMessage, 4, "nothing was skipped"),
        ] {
            let error = told(code).expect("it stops the pipeline");
            let text = error.to_string();
            assert_eq!(error.exit_code(), exit_code, "{text}");
            assert!(text.contains("events/3") && text.contains("offset 17") && text.contains(remedy), "{text}");
        }
    }
}
