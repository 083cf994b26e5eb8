//! An alert as a message for Slack's incoming webhooks: a line for notifications, blocks for reading.
//!
//! Source: Slack's reference of Block Kit; its limits are 150 characters of a header, 3,000 of a section's text, 50 blocks.

use serde_json::{Value, json};

use super::{facts, headline};
use crate::kafka::read::Alert;

const HEADER_CHARACTERS: usize = 150;
/// Below Slack's 3,000, since escaping was done before.
const TEXT_CHARACTERS: usize = 2_900;

/// The message's JSON.
pub fn slack_message(alert: &Alert) -> Value {
    let sign = match (alert.is_resolved(), alert.severity.as_str()) {
        (true, _) => ":white_check_mark:",
        (false, "critical") => ":rotating_light:",
        (false, _) => ":warning:",
    };
    let headline = headline(alert);
    let lines: Vec<String> = facts(alert).iter().map(|(name, text)| format!("*{name}*  {}", escaped(text))).collect();
    let mut blocks = vec![
        json!({"type": "header", "text": {"type": "plain_text", "text": cut(&headline, HEADER_CHARACTERS)}}),
        json!({"type": "section", "text": {"type": "mrkdwn", "text": cut(&lines.join("\n"), TEXT_CHARACTERS)}}),
    ];
    if !alert.query.is_empty() {
        let query = format!("```{}```", cut(&escaped(&alert.query), TEXT_CHARACTERS - 6));
        blocks.push(json!({"type": "section", "text": {"type": "mrkdwn", "text": query}}));
    }
    let key = json!({"type": "mrkdwn", "text": format!("{} step {}", alert.fingerprint, alert.revision)});
    blocks.push(json!({"type": "context", "elements": [key]}));
    json!({"text": format!("{sign} {}", escaped(&headline)), "blocks": blocks})
}

/// The three characters that Slack takes for its own.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The first characters, with a mark where some are left out.
fn cut(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        None => text.to_owned(),
        Some(_) => text.chars().take(characters - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_keeps_slacks_limits_and_its_markup() {
        let mut alert = super::super::sample();
        alert.samples = vec!["<!channel>".repeat(2_000)];
        alert.query = "SELECT 'ä' ".repeat(2_000);
        let message = slack_message(&alert);
        let text = message["text"].as_str().expect("a text");
        assert!(
            text.starts_with(":warning: warning (update): amounts from release web 2.0 / 7 &lt;&amp;&gt;"),
            "{text}"
        );
        let blocks = message["blocks"].as_array().expect("blocks");
        assert_eq!(blocks.len(), 4);
        for block in blocks {
            let text = block["text"]["text"].as_str().unwrap_or_default();
            assert!(text.chars().count() <= 3_000 && !text.contains("<!channel>"));
        }
        assert!(blocks[0]["text"]["text"].as_str().is_some_and(|text| text.chars().count() <= 150));
        alert.status = "resolved".to_owned();
        assert!(slack_message(&alert)["text"].as_str().is_some_and(|text| text.starts_with(":white_check_mark:")));
    }
}
