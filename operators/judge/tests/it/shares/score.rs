//! Runs a world through the judge and holds the alerts against the labels.

use std::collections::{BTreeMap, BTreeSet};

use weir_judge::alert::{Alert, Change, NoFacts};
use weir_judge::book::{Book, Manners, WindowSignals};
use weir_judge::settings::Settings;
use weir_judge::store::MemoryStore;
use weir_judge::tally::Release;

use super::emit::Emitter;
use super::incidents::{Breadth, Incident, Kind};
use super::oracle::FACTOR;
use super::world::{HOURS, LEARN_HOURS, PLATFORMS, Plan, TYPES};

/// One incident's fate.
#[derive(Clone, Debug)]
pub(crate) struct Scored {
    pub(crate) seed: u64,
    pub(crate) incident: Incident,
    /// Windows from the first faulty one to the one whose close told of it; 0 if its own close did.
    pub(crate) delay: Option<u32>,
    pub(crate) right_release: bool,
    pub(crate) told: String,
    /// Further alerts of the same incident.
    pub(crate) more: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Scores {
    pub(crate) scored: Vec<Scored>,
    /// Alerts in the measured weeks that no incident explains, and the tenant weeks without and with incidents.
    pub(crate) false_alerts: Vec<String>,
    pub(crate) tenant_weeks: f64,
    pub(crate) series_judged: u64,
    pub(crate) judge_ns: u128,
}

impl Scores {
    /// Both together.
    pub(crate) fn and(mut self, other: Scores) -> Scores {
        self.scored.extend(other.scored);
        self.false_alerts.extend(other.false_alerts);
        self.tenant_weeks += other.tenant_weeks;
        self.series_judged += other.series_judged;
        self.judge_ns += other.judge_ns;
        self
    }
}

/// Opened and reopened alerts with their hour, and each alert's newest revision by hour.
struct Told {
    opened: Vec<(u32, Alert)>,
    revisions: Vec<(u32, Alert)>,
}

/// Runs one seed and adds its scores.
pub(crate) fn run(seed: u64, with_incidents: bool, scores: &mut Scores) {
    let plan = Plan::new(seed, with_incidents);
    let mut incidents = plan.incidents.clone();
    let (told, series) = alerts_of(&plan, &mut incidents, scores);
    let settings = Settings::default();
    let threshold = |series: u64| (series as f64 * 168.0 / settings.false_alerts_per_week).ln();
    for incident in &mut incidents {
        let of_tenant = incident.tenant.map_or_else(|| series.iter().copied().max().unwrap_or(0), |at| series[at]);
        incident.weigh((threshold(of_tenant), threshold(TYPES.len() as u64 + 1)), &settings);
    }
    score(&plan, &incidents, &told, scores);
}

/// What was told, and how many series each tenant had at most.
fn alerts_of(plan: &Plan, incidents: &mut [Incident], scores: &mut Scores) -> (Told, Vec<u64>) {
    let mut emitter = Emitter::new(plan);
    let mut store = MemoryStore::default();
    let (settings, manners) = (Settings::default(), Manners::default());
    let mut book = Book::default();
    let mut told = Told { opened: Vec::new(), revisions: Vec::new() };
    let mut series = vec![0; plan.tenants.len()];
    for hour in 0..HOURS {
        emitter.drift_common(plan.tenants.len());
        let mut of = WindowSignals { window: Emitter::window(hour).index(), ..WindowSignals::default() };
        for (tenant, series) in series.iter_mut().enumerate() {
            let tally = emitter.tally(plan, incidents, tenant, hour);
            let began = std::time::Instant::now();
            let judged = weir_judge::judge(&tally, &mut store, &settings);
            scores.judge_ns += began.elapsed().as_nanos();
            scores.series_judged += judged.series;
            *series = judged.series.max(*series);
            assert_eq!(judged.skipped, 0);
            of.signals.extend(judged.signals);
            of.releases.insert(tally.tenant.clone(), judged.releases);
            of.users.insert(tally.tenant, judged.users);
        }
        for alert in book.close(of, &manners, &NoFacts) {
            if std::env::var("WEIR_JUDGE_ALERTS").is_ok() {
                println!("seed {} hour {hour} #{:x}: {}", plan.seed, alert.fingerprint >> 48, brief(&alert));
            }
            if matches!(alert.change, Change::Opened | Change::Reopened) {
                told.opened.push((hour, alert.clone()));
            }
            told.revisions.push((hour, alert));
        }
    }
    (told, series)
}

/// Whether an alert that came in an hour is one of an incident, by a symptom that wasn't there `before`.
fn explains(plan: &Plan, incident: &Incident, (hour, alert): &(u32, Alert), before: &BTreeSet<u64>) -> bool {
    if *hour < incident.start || *hour > incident.end + 3 {
        return false;
    }
    alert.symptoms.iter().filter(|symptom| !before.contains(&symptom.series())).any(|symptom| {
        let Some(tenant) = plan.tenants.iter().position(|tenant| tenant.name == symptom.tenant) else { return false };
        let fits = incident.event_type.is_none_or(|at| {
            symptom.event_type.is_empty()
                || symptom.event_type == TYPES[at]
                || matches!(incident.kind, Kind::TypeVanished | Kind::NewType)
        });
        fits && (0..plan.tenants[tenant].releases.len())
            .any(|at| incident.concerns(plan, tenant, at) && symptom.scope.holds(&release(plan, tenant, at)))
    })
}

fn release(plan: &Plan, tenant: usize, at: usize) -> Release {
    let of = &plan.tenants[tenant].releases[at];
    Release {
        sdk: PLATFORMS[of.platform].to_owned(),
        sdk_version: of.sdk_version.clone(),
        app_version: of.app_version.clone(),
    }
}

fn score(plan: &Plan, incidents: &[Incident], told: &Told, scores: &mut Scores) {
    let mut used: BTreeSet<usize> = BTreeSet::new();
    for incident in incidents {
        let none = BTreeSet::new();
        let mine: Vec<usize> =
            (0..told.opened.len()).filter(|&at| explains(plan, incident, &told.opened[at], &none)).collect();
        used.extend(&mine);
        // It is told, too, where an alert that was open before (of another fault that looks alike) is told anew with it.
        let open = |(hour, alert): &&(u32, Alert)| *hour < incident.start && alert.change != Change::Resolved;
        let before =
            told.revisions.iter().filter(open).flat_map(|(_, alert)| alert.symptoms.iter().map(|s| s.series()));
        let before: BTreeSet<u64> = before.collect();
        let first = told.revisions.iter().find(|revision| {
            let is_new = matches!(revision.1.change, Change::Opened | Change::Reopened);
            let known = if is_new { &none } else { &before };
            revision.1.change != Change::Resolved && explains(plan, incident, revision, known)
        });
        let opened = first.is_some_and(|(_, alert)| matches!(alert.change, Change::Opened | Change::Reopened));
        let last = first.and_then(|(_, alert)| {
            let same = |(hour, other): &&(u32, Alert)| {
                other.fingerprint == alert.fingerprint && *hour <= incident.end && other.change != Change::Resolved
            };
            told.revisions.iter().rfind(same).map(|(_, alert)| alert).or(Some(alert))
        });
        let expected: Vec<Release> = incident.first_bad.iter().map(|&(tenant, at)| release(plan, tenant, at)).collect();
        let right = last.is_some_and(|alert| match &alert.first_bad {
            Some(first) => expected.contains(first),
            None => incident.breadth == Breadth::Tenant,
        });
        scores.scored.push(Scored {
            seed: plan.seed,
            incident: incident.clone(),
            delay: first.map(|(hour, _)| hour - incident.start),
            right_release: right,
            told: last.map_or_else(String::new, brief),
            more: (mine.len() as u32).saturating_sub(u32::from(opened)),
        });
    }
    for (at, (hour, alert)) in told.opened.iter().enumerate() {
        if *hour >= LEARN_HOURS && !used.contains(&at) {
            scores.false_alerts.push(format!("seed {} hour {hour}: {}", plan.seed, brief(alert)));
        }
    }
    scores.tenant_weeks += plan.tenants.len() as f64 * f64::from(HOURS - LEARN_HOURS) / 168.0;
}

/// An alert in a line.
pub(crate) fn brief(alert: &Alert) -> String {
    let symptoms: Vec<String> = alert
        .symptoms
        .iter()
        .take(4)
        .map(|s| {
            format!(
                "{}/{}/{}/{}{} {:.4}->{:.4} e{:.0}",
                s.tenant.replace("tenant-", "t"),
                s.event_type,
                s.field,
                s.indicator.family.name(),
                if s.label.is_empty() { String::new() } else { format!("[{}]", s.label) },
                s.expected,
                s.share_seen,
                s.ln_e
            )
        })
        .collect();
    let first = alert.first_bad.as_ref().map_or_else(|| "nobody".to_owned(), |first| first.to_string());
    format!(
        "{:?} {:?} {} since {} by {first} users {:.0} ({} symptoms) {}",
        alert.change,
        alert.severity,
        alert.cause.kind.name(),
        alert.since,
        alert.users,
        alert.symptoms_count,
        symptoms.join("; ")
    )
}

/// Recall, right releases and median delay of some incidents.
pub(crate) struct Summary {
    pub(crate) count: usize,
    pub(crate) found: usize,
    pub(crate) right: usize,
    pub(crate) delays: Vec<u32>,
    pub(crate) more: u32,
}

pub(crate) fn summary<'s>(scored: impl Iterator<Item = &'s Scored>) -> Summary {
    let mut summary = Summary { count: 0, found: 0, right: 0, delays: Vec::new(), more: 0 };
    for one in scored {
        summary.count += 1;
        summary.found += usize::from(one.delay.is_some());
        summary.right += usize::from(one.right_release);
        summary.delays.extend(one.delay);
        summary.more += one.more;
    }
    summary.delays.sort_unstable();
    summary
}

impl Summary {
    pub(crate) fn recall(&self) -> f64 {
        self.found as f64 / self.count.max(1) as f64
    }
    /// Of those found.
    pub(crate) fn right_share(&self) -> f64 {
        self.right as f64 / self.found.max(1) as f64
    }
    pub(crate) fn delay(&self, quantile: f64) -> u32 {
        self.delays.get(((self.delays.len() as f64 - 1.0) * quantile).round() as usize).copied().unwrap_or(0)
    }
    fn line(&self) -> String {
        format!(
            "{:>4} {:>6.3} {:>6.3} {:>6} {:>6} {:>5}",
            self.count,
            self.recall(),
            self.right_share(),
            self.delay(0.5),
            self.delay(0.9),
            self.more
        )
    }
}

/// Prints the table by kind and size and by who is affected.
pub(crate) fn print(title: &str, scores: &Scores) {
    println!("\n{title}");
    println!("{:<44} {:>4} {:>6} {:>6} {:>6} {:>6} {:>5}", "", "n", "recall", "right", "p50", "p90", "more");
    let stated = || scores.scored.iter().filter(|one| one.incident.is_of_stated_size);
    let mut rows: BTreeMap<String, Vec<&Scored>> = BTreeMap::new();
    for one in stated() {
        let incident = &one.incident;
        rows.entry(format!("kind {:?}, {}", incident.kind, incident.size_class())).or_default().push(one);
        rows.entry(format!("for {:?}, {}", incident.breadth, incident.size_class())).or_default().push(one);
        let lasts = match incident.end - incident.start {
            0..=6 => "up to 6 h",
            7..=24 => "up to a day",
            _ => "longer than a day",
        };
        rows.entry(format!("lasting {lasts}")).or_default().push(one);
    }
    for (name, of) in rows {
        println!("{name:<44} {}", summary(of.into_iter()).line());
    }
    println!("{:<44} {}", "all of the stated minimum size", summary(stated()).line());
    let below = || scores.scored.iter().filter(|one| !one.incident.is_of_stated_size);
    println!("{:<44} {}", "below it", summary(below()).line());
    for range in [0.0..1.0, 1.0..2.0, 2.0..FACTOR, FACTOR..2.0 * FACTOR, 2.0 * FACTOR..f64::INFINITY] {
        let within = |one: &&Scored| range.contains(&one.incident.ratio);
        let title = format!("evidence / threshold {} to {}", range.start, range.end);
        println!("{title:<44} {}", summary(scores.scored.iter().filter(within)).line());
        println!("{:<44} {}", "    of these below the stated size", summary(below().filter(within)).line());
    }
    let weeks = scores.tenant_weeks;
    println!(
        "false alerts: {} in {weeks} tenant weeks = {:.3} per tenant and week; {} ns per series",
        scores.false_alerts.len(),
        scores.false_alerts.len() as f64 / weeks.max(1e-9),
        scores.judge_ns / u128::from(scores.series_judged.max(1))
    );
}
