//! Alerts as e-mail: one digest per recipient.
//!
//! A digest lists steps; of several steps of one alert it shows the newest. Its Message-ID is made of the idempotency keys
//! of what it lists, so that the same digest sent twice is one mail to servers and readers that look.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{Message, SmtpTransport, Transport};

use super::{NotTaken, facts, headline};
use crate::error::Error;
use crate::kafka::read::Alert;

/// How long the server may take for one command.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Alerts that a digest tells whole; of the others it has the headlines.
const TOLD_WHOLE: usize = 50;

/// How a connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// STARTTLS, required.
    Starttls,
    /// TLS from the first byte.
    Tls,
    /// Nothing.
    None,
}

/// An SMTP server, and whom mails are from.
#[derive(Clone, Debug)]
pub struct EmailSettings {
    /// How the pipeline file calls it, for errors.
    pub setting: String,
    /// The host.
    pub server: String,
    /// The port; absent, the usual one of the protection.
    pub port: Option<u16>,
    /// How the connection is protected.
    pub protection: Protection,
    /// User and password.
    pub login: Option<(String, String)>,
    /// The sender's address.
    pub from: String,
}

/// Sends digests over one server.
pub struct Email {
    transport: SmtpTransport,
    from: Mailbox,
    host: String,
}

impl Email {
    /// A sender of digests. Nothing is asked yet.
    ///
    /// # Errors
    /// When the address or the host can't be right.
    pub fn new(settings: &EmailSettings) -> Result<Email, Error> {
        let wrong =
            |key: &str, detail: String| Error::Setting { setting: format!("{}.{key}", settings.setting), detail };
        let parameters =
            || TlsParameters::new(settings.server.clone()).map_err(|error| wrong("server", error.to_string()));
        let (tls, usual_port) = match settings.protection {
            Protection::Starttls => (Tls::Required(parameters()?), 587),
            Protection::Tls => (Tls::Wrapper(parameters()?), 465),
            Protection::None => (Tls::None, 25),
        };
        let mut transport = SmtpTransport::builder_dangerous(&settings.server)
            .port(settings.port.unwrap_or(usual_port))
            .tls(tls)
            .timeout(Some(ANSWER_WITHIN));
        if let Some((user, password)) = &settings.login {
            transport = transport.credentials(Credentials::new(user.clone(), password.clone()));
        }
        let from = mailbox(&settings.from).map_err(|detail| wrong("from", detail))?;
        let host = from.email.domain().to_owned();
        Ok(Email { transport: transport.build(), from, host })
    }

    /// Sends a digest of `alerts`, which stand in their order, to `to`. Blocks until the server has taken it.
    ///
    /// # Errors
    /// Why it wasn't taken. Replies 550 to 559 are about this mail or its recipient and don't change by themselves; a login
    /// that is refused (530 to 539) is mended while the mail waits.
    pub fn send(&self, to: &str, owner: &str, alerts: &[Alert]) -> Result<(), NotTaken> {
        let to = mailbox(to).map_err(|why| NotTaken::Poisoned { why })?;
        let newest = newest(alerts);
        let message = Message::builder()
            .from(self.from.clone())
            .to(to)
            .subject(subject(owner, &newest))
            .message_id(Some(format!("<{}@{}>", message_id(alerts), self.host)))
            .header(ContentType::TEXT_PLAIN)
            .body(body(&newest))
            .map_err(|error| NotTaken::Poisoned { why: error.to_string() })?;
        self.transport.send(&message).map(drop).map_err(|error| {
            let source = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            let why = format!("{error}{source}");
            match error.status().map(u16::from) {
                Some(550..=559) => NotTaken::Poisoned { why },
                _ => NotTaken::NotYet { why, wait_ms: None },
            }
        })
    }
}

/// An address as a mail has it, or why it is none.
fn mailbox(text: &str) -> Result<Mailbox, String> {
    text.parse().map_err(|error| format!("`{text}` is no address: {error}"))
}

/// Of each alert the newest step, in the order of their first ones.
fn newest(alerts: &[Alert]) -> Vec<&Alert> {
    let mut newest: Vec<&Alert> = Vec::new();
    for alert in alerts {
        match newest.iter_mut().find(|known| known.fingerprint == alert.fingerprint) {
            Some(known) => *known = alert,
            None => newest.push(alert),
        }
    }
    newest
}

fn message_id(alerts: &[Alert]) -> String {
    let mut hasher = DefaultHasher::new();
    alerts.iter().for_each(|alert| alert.idempotency_key().hash(&mut hasher));
    format!("weir.{:016x}", hasher.finish())
}

fn subject(owner: &str, newest: &[&Alert]) -> String {
    let resolved = newest.iter().filter(|alert| alert.is_resolved()).count();
    let critical = newest.iter().filter(|alert| !alert.is_resolved() && alert.severity == "critical").count();
    let whose = if owner.is_empty() { String::new() } else { format!(" for {owner}") };
    let open = newest.len() - resolved;
    format!("Weir: {open} open alerts{whose}, {critical} of them critical, {resolved} resolved")
}

fn body(newest: &[&Alert]) -> String {
    let mut body = String::new();
    for (at, alert) in newest.iter().enumerate() {
        body.push_str(&format!("{}\n", headline(alert)));
        if at < TOLD_WHOLE {
            facts(alert).iter().for_each(|(name, text)| body.push_str(&format!("  {name}: {text}\n")));
            if !alert.query.is_empty() {
                body.push_str(&format!("  look further:\n    {}\n", alert.query.replace('\n', "\n    ")));
            }
        }
        body.push_str(&format!("  step: {}\n\n", alert.idempotency_key()));
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_tells_the_newest_step_of_each_alert() {
        let first = super::super::sample();
        let mut other = Alert { fingerprint: "beef".to_owned(), severity: "critical".to_owned(), ..first.clone() };
        let mut last = Alert { revision: 4, status: "resolved".to_owned(), ..first.clone() };
        let alerts = [first.clone(), other.clone(), last.clone()];
        let newest = newest(&alerts);
        assert_eq!(newest, [&last, &other]);
        assert_eq!(subject("payments", &newest), "Weir: 1 open alerts for payments, 1 of them critical, 1 resolved");
        let body = body(&newest);
        assert!(
            body.contains("warning (resolved): amounts") && body.contains("step: f00d/1767600000000000/4"),
            "{body}"
        );
        assert!(!body.contains("/3\n\nwarning"), "{body}");

        // The same steps have the same id, others another one.
        assert_eq!(message_id(&alerts), message_id(&alerts.clone()));
        assert_ne!(message_id(&alerts[..2]), message_id(&alerts));
        (other.owner, last.owner) = ("x".to_owned(), "y".to_owned());
        assert_eq!(message_id(&[first, other, last]), message_id(&alerts));
    }

    #[test]
    fn settings_that_cannot_work_are_refused_by_name() {
        let settings = EmailSettings {
            setting: "senders.mail".to_owned(),
            server: "localhost".to_owned(),
            port: None,
            protection: Protection::None,
            login: None,
            from: "nobody".to_owned(),
        };
        let error = Email::new(&settings).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.starts_with("senders.mail.from: `nobody` is no address"), "{error}");
    }
}
