//! Which steps of alerts a sender tells.
//!
//! An alert is told when it opens (or is first told for another reason: its route or suppression did not let it before),
//! when its severity gets worse, and when it is resolved; further steps only where `updates` asks for them. While it is
//! acknowledged nothing but its end is told; when the acknowledgement runs out it is told again, once. A suppressed
//! step is not told, save the end of an alert that was: whoever was told must not wait for ever.
//!
//! Invariant: what is told depends on the steps in their order and on acknowledgements alone. So the memory of a sender
//! that starts again is rebuilt from the topic, and it tells no step for which another would have stood before.
//!
//! Bound: one entry per open alert that was told, one per acknowledged alert.

use std::collections::HashMap;

use weir_sinks::kafka::acknowledgement::Acknowledgement;
use weir_sinks::kafka::read::Alert;

use crate::config::alerts::{SEVERITIES, Sender};

/// A sender's memory.
pub(super) struct Teller {
    name: String,
    severities: Option<Vec<String>>,
    owners: Option<Vec<String>>,
    updates: bool,
    told: HashMap<String, Told>,
    acknowledged: HashMap<String, Acknowledgement>,
}

/// An open alert that was told.
struct Told {
    opened_at: i64,
    severity: Option<usize>,
    /// Whether an acknowledgement held at the last step.
    is_acknowledged: bool,
}

impl Teller {
    pub(super) fn new(name: &str, sender: &Sender) -> Teller {
        Teller {
            name: name.to_owned(),
            severities: sender.severities.clone(),
            owners: sender.owners.clone(),
            updates: sender.updates,
            told: HashMap::new(),
            acknowledged: HashMap::new(),
        }
    }

    /// Takes an acknowledgement; of two the later one counts.
    pub(super) fn acknowledge(&mut self, acknowledgement: Acknowledgement) {
        let known = self.acknowledged.get(&acknowledgement.fingerprint);
        if known.is_none_or(|known| known.acknowledged_at <= acknowledgement.acknowledged_at) {
            self.acknowledged.insert(acknowledgement.fingerprint.clone(), acknowledgement);
        }
    }

    /// Whether the next step is told.
    pub(super) fn tells(&mut self, alert: &Alert) -> bool {
        if alert.is_resolved() {
            return self.told.remove(&alert.fingerprint).is_some();
        }
        let among =
            |names: &Option<Vec<String>>, name: &String| names.as_ref().is_none_or(|names| names.contains(name));
        let is_ours = alert.routes.contains(&self.name)
            && among(&self.severities, &alert.severity)
            && among(&self.owners, &alert.owner);
        if !is_ours || !alert.suppressed_by.is_empty() {
            return false;
        }
        let acknowledgement = self.acknowledged.get(&alert.fingerprint);
        let is_acknowledged = acknowledgement.is_some_and(|it| it.holds(alert.opened_at, alert.window_end));
        let severity = SEVERITIES.iter().position(|name| *name == alert.severity);
        match self.told.get_mut(&alert.fingerprint).filter(|told| told.opened_at == alert.opened_at) {
            None => {
                let told = Told { opened_at: alert.opened_at, severity, is_acknowledged };
                self.told.insert(alert.fingerprint.clone(), told);
                !is_acknowledged
            }
            Some(told) => {
                let ran_out = told.is_acknowledged && !is_acknowledged;
                told.is_acknowledged = is_acknowledged;
                if is_acknowledged {
                    return false;
                }
                let is_worse = severity > told.severity;
                told.severity = severity.max(told.severity);
                is_worse || ran_out || self.updates
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::read;

    fn sender(lines: &str) -> Sender {
        let text = format!(
            "name = \"p\"\nstate = \"s\"\n[kafka]\nbrokers = \"k\"\n[registry]\nurl = \"http://r\"\n[clickhouse]\n\
             url = \"http://c\"\n[sources.e]\ntopics = [\"e\"]\nevent_time = \"t\"\n[senders.chat]\nkind = \"slack\"\n\
             url = \"http://x\"\n{lines}"
        );
        let pipeline = read("p.toml", &text, std::path::Path::new("/srv"), &|_| None).unwrap();
        pipeline.senders["chat"].clone()
    }

    /// `fingerprint opened_at status severity`, with the window's end counting up from 1.
    fn steps(script: &str) -> Vec<Alert> {
        let step = |(at, line): (usize, &str)| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let suppressed_by = words.get(4).map_or(String::new(), |word| (*word).to_owned());
            Alert {
                fingerprint: words[0].to_owned(),
                opened_at: words[1].parse().unwrap(),
                status: words[2].to_owned(),
                severity: words[3].to_owned(),
                window_end: at as i64 + 1,
                routes: vec!["chat".to_owned()],
                owner: "payments".to_owned(),
                suppressed_by,
                ..Alert::default()
            }
        };
        script.trim().lines().enumerate().map(step).collect()
    }

    fn told(teller: &mut Teller, script: &str) -> Vec<usize> {
        let steps = steps(script);
        (1..=steps.len()).filter(|at| teller.tells(&steps[at - 1])).collect()
    }

    const SCRIPT: &str = "
        a 0 open warning
        a 0 update warning
        a 0 update critical
        a 0 update warning
        a 0 update critical
        b 5 open info load-test
        b 5 update info
        a 0 resolved warning
        a 8 reopened warning
        a 8 resolved warning load-test
        c 1 resolved info";

    #[test]
    fn an_alert_is_told_when_it_opens_gets_worse_and_ends() {
        assert_eq!(told(&mut Teller::new("chat", &sender("")), SCRIPT), [1, 3, 7, 8, 9, 10]);
        assert_eq!(told(&mut Teller::new("chat", &sender("updates = true")), SCRIPT), [1, 2, 3, 4, 5, 7, 8, 9, 10]);
        // A worse severity makes it this sender's.
        assert_eq!(told(&mut Teller::new("chat", &sender("severities = [\"critical\"]")), SCRIPT), [3, 8]);
        assert!(told(&mut Teller::new("chat", &sender("owners = [\"web\"]")), SCRIPT).is_empty());
        assert!(told(&mut Teller::new("mail", &sender("")), SCRIPT).is_empty(), "routed to another");
    }

    #[test]
    fn an_acknowledged_alert_is_not_repeated_until_it_runs_out_or_opens_anew() {
        let acknowledgement = |opened_at, until| Acknowledgement {
            fingerprint: "a".to_owned(),
            opened_at,
            acknowledged_at: 0,
            acknowledged_by: "ada".to_owned(),
            note: String::new(),
            until,
        };
        let mut teller = Teller::new("chat", &sender("updates = true"));
        teller.acknowledge(acknowledgement(0, None));
        assert_eq!(told(&mut teller, SCRIPT), [7, 8, 9, 10]);
        let mut teller = Teller::new("chat", &sender(""));
        teller.acknowledge(acknowledgement(0, Some(3)));
        assert_eq!(told(&mut teller, SCRIPT), [4, 5, 7, 8, 9, 10]);
    }
}
