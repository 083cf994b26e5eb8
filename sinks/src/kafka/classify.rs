//! Whether a failure of Kafka passes by itself: by librdkafka's and the brokers' error codes.
//!
//! As with ClickHouse, a code that is not listed as fatal is retriable: waiting visibly loses nothing.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::error::DeliveryError;

/// What a failure while sending to `topic` means. `said` is what the client reported meanwhile, such as a failed login,
/// which the failed call itself shows only as a timeout.
pub(crate) fn classify(error: &KafkaError, topic: &str, said: Option<String>) -> DeliveryError {
    let why = match said {
        Some(said) => format!("Kafka topic {topic}: {error} ({said})"),
        None => format!("Kafka topic {topic}: {error}"),
    };
    match remedy(error) {
        Some(remedy) => DeliveryError::Fatal { why, remedy: remedy.to_owned() },
        None => DeliveryError::Retriable { why },
    }
}

/// What to do about an error that time does not mend; `None` for those that it may.
fn remedy(error: &KafkaError) -> Option<&'static str> {
    use RDKafkaErrorCode as Code;
    if matches!(error, KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_)) {
        return Some("check kafka.settings in the pipeline file");
    }
    Some(match error.rdkafka_error_code()? {
        Code::TopicAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed => {
            "let this user describe, create, read and write the topic, and use transactional ids and groups that begin \
             with the pipeline's name"
        }
        Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism | Code::Authentication => {
            "check user, password and mechanism under kafka.settings"
        }
        Code::Fenced | Code::InvalidProducerEpoch | Code::ProducerFenced => {
            "another Weir has taken over this pipeline's name: stop one of the two, or give one another name"
        }
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => {
            "raise max.message.bytes of the topic above the largest record that can be refused"
        }
        Code::InvalidTopic => "give the topic a name of letters, digits, dots, dashes and underscores",
        Code::PolicyViolation | Code::InvalidConfig | Code::InvalidReplicationFactor | Code::InvalidPartitions => {
            "make the topic by hand, as the cluster's policy wants it"
        }
        Code::UnsupportedVersion | Code::UnsupportedFeature => "use Kafka 2.5 or newer, which has transactions",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_fatal(error: &KafkaError) -> bool {
        matches!(classify(error, "alerts", None), DeliveryError::Fatal { .. })
    }

    #[test]
    fn a_broker_that_is_away_or_busy_is_retried() {
        use RDKafkaErrorCode as Code;
        for code in [
            Code::OperationTimedOut,
            Code::AllBrokersDown,
            Code::BrokerTransportFailure,
            Code::MessageTimedOut,
            Code::NotEnoughReplicas,
            Code::CoordinatorLoadInProgress,
            Code::CoordinatorNotAvailable,
            Code::LeaderNotAvailable,
            Code::UnknownTopicOrPartition,
            Code::ConcurrentTransactions,
            Code::QueueFull,
        ] {
            assert!(!is_fatal(&KafkaError::MessageProduction(code)), "{code:?}");
        }
        assert!(!is_fatal(&KafkaError::Canceled));
    }

    #[test]
    fn what_a_person_has_to_mend_is_fatal_and_says_how() {
        use RDKafkaErrorCode as Code;
        for code in [
            Code::TopicAuthorizationFailed,
            Code::TransactionalIdAuthorizationFailed,
            Code::SaslAuthenticationFailed,
            Code::Fenced,
            Code::ProducerFenced,
            Code::MessageSizeTooLarge,
            Code::InvalidTopic,
            Code::PolicyViolation,
        ] {
            assert!(is_fatal(&KafkaError::MessageProduction(code)), "{code:?}");
        }
    }

    #[test]
    fn what_the_client_said_meanwhile_is_told() {
        let error = KafkaError::Global(RDKafkaErrorCode::OperationTimedOut);
        let DeliveryError::Retriable { why } = classify(&error, "alerts", Some("login refused".to_owned())) else {
            panic!("a timeout is retriable");
        };
        assert!(why.starts_with("Kafka topic alerts: ") && why.ends_with("(login refused)"), "{why}");
    }
}
