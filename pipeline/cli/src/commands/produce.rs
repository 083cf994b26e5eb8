//! `weir produce`: records into Kafka as Avro, from a file or a generator.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use weir_replay::produce::convert::TimeText;
use weir_replay::produce::faults::Faults;
use weir_replay::produce::files::{CsvRows, FileInput, JsonRows};
use weir_replay::produce::rows::Rows;
use weir_replay::produce::storefront::{Storefront, StorefrontRows, Wrong};
use weir_replay::produce::{Job, Progress, RETAIL_SCHEMA, Target, produce};
use weir_schemas::registry::{Credentials, Registry, Settings};

use crate::out::say;
use crate::{Outcome, paint, runtime};

/// Write records to Kafka as Avro: from CSV, JSON lines or a generator.
///
/// The schema is registered first. Faults are put in where asked, the same ones for the same seed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weir produce --topic retail --csv retail.csv.gz --retail --disorder-ms 3600000 --duplicates 0.01
  weir produce --topic clicks --csv clicks.csv --decimal price:10:2 --key user --time at --zone Europe/Berlin
  weir produce --topic events --storefront --count 100000 --rate 2000 --bad 0.001")]
pub(crate) struct Produce {
    /// The topic; made when it isn't there.
    #[arg(long)]
    topic: String,
    /// Partitions of a topic that has to be made.
    #[arg(long, default_value_t = 8)]
    partitions: i32,
    /// Kafka.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092", env = "WEIR_KAFKA")]
    kafka: String,
    /// A librdkafka setting, such as security.protocol=ssl; may be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    kafka_setting: Vec<String>,
    /// The schema registry.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8081", env = "WEIR_REGISTRY")]
    registry: String,
    /// The user for the registry.
    #[arg(long, env = "WEIR_REGISTRY_USER")]
    registry_user: Option<String>,
    /// That user's password; best given in the environment, where other users don't see it.
    #[arg(long, env = "WEIR_REGISTRY_PASSWORD", hide_env_values = true, requires = "registry_user")]
    registry_password: Option<String>,
    /// A PEM file of authorities to trust for the registry, besides the system's.
    #[arg(long, value_name = "FILE")]
    registry_ca: Option<PathBuf>,
    /// The subject; absent, the topic's name and -value.
    #[arg(long)]
    subject: Option<String>,
    /// The input.
    #[command(flatten)]
    input: Input,
    /// The Avro schema; CSV without one gets one inferred from the whole file.
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// The input is the retail data set: its schema, key, event time and row number as id.
    #[arg(long, requires = "csv")]
    retail: bool,
    /// Infer a CSV column as a decimal; may be repeated.
    #[arg(long, value_name = "COLUMN:PRECISION:SCALE")]
    decimal: Vec<String>,
    /// The field that is the Kafka key.
    #[arg(long, value_name = "FIELD")]
    key: Option<String>,
    /// The field that is the event time.
    #[arg(long, value_name = "FIELD")]
    time: Option<String>,
    /// The field that gets the row's number, as an event id.
    #[arg(long, value_name = "FIELD")]
    id_column: Option<String>,
    /// How times are written, as strftime has it; absent, RFC 3339 or 2011-12-09 12:50:00.
    #[arg(long, value_name = "FORMAT")]
    time_format: Option<String>,
    /// The zone of times that name none.
    #[arg(long, default_value = "UTC")]
    zone: String,
    /// Send the event time as the records' Kafka timestamp.
    #[arg(long)]
    event_timestamps: bool,
    /// No more rows than this.
    #[arg(long)]
    count: Option<u64>,
    /// Records per second; absent, as fast as possible.
    #[arg(long)]
    rate: Option<f64>,
    /// Events per second of the generator's own time.
    #[arg(long, default_value_t = 1000.0)]
    events_per_second: f64,
    /// When the generator's first event happens (RFC 3339); absent, now.
    #[arg(long)]
    from: Option<String>,
    /// The seed of the generator and of the faults.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Put event times out of order, by this much at most.
    #[arg(long, default_value_t = 0)]
    disorder_ms: u32,
    /// The share of records sent twice, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    duplicates: f64,
    /// The share of records that come later than the disorder allows.
    #[arg(long, default_value_t = 0.0)]
    stragglers: f64,
    /// How late those come at most.
    #[arg(long, default_value_t = 60_000)]
    straggler_ms: u32,
    /// The share of records whose bytes don't decode.
    #[arg(long, default_value_t = 0.0)]
    bad: f64,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Input {
    /// A CSV file with a header line; gzip when it ends in .gz.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// A file of one JSON object per line; gzip when it ends in .gz.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Invented events of several shops, SDKs and releases.
    #[arg(long)]
    storefront: bool,
}

/// Produces what the arguments say.
pub(crate) fn run(arguments: &Produce) -> Outcome {
    let rows = match arguments.rows() {
        Ok(rows) => rows,
        Err(outcome) => return outcome,
    };
    let mut kafka = BTreeMap::from([("bootstrap.servers".to_owned(), arguments.kafka.clone())]);
    for setting in &arguments.kafka_setting {
        let Some((name, value)) = setting.split_once('=') else {
            return Outcome::refused(format!("--kafka-setting {setting}"), "write NAME=VALUE");
        };
        kafka.insert(name.to_owned(), value.to_owned());
    }
    let registry = match arguments.registry() {
        Ok(registry) => registry,
        Err(outcome) => return outcome,
    };
    let job = Job {
        rows,
        target: Target {
            kafka,
            topic: arguments.topic.clone(),
            partitions: Some(arguments.partitions),
            event_timestamps: arguments.event_timestamps,
        },
        registry,
        subject: arguments.subject.clone(),
        rate: arguments.rate,
        limit: arguments.count,
        faults: Faults {
            seed: arguments.seed,
            disorder_ms: arguments.disorder_ms,
            duplicates: arguments.duplicates,
            stragglers: arguments.stragglers,
            straggler_ms: arguments.straggler_ms,
            bad: arguments.bad,
        },
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(outcome) => return outcome,
    };
    let bar = bar();
    let watched = bar.clone();
    let started_at = std::time::Instant::now();
    let result = runtime.block_on(produce(job, move |progress| {
        show(&watched, progress);
        true
    }));
    bar.finish_and_clear();
    match result {
        Ok(progress) => {
            report(&arguments.topic, &progress, started_at.elapsed().as_secs_f64());
            Outcome::done()
        }
        Err(error) => Outcome::unreachable(error.to_string(), "what was sent before stays in the topic"),
    }
}

impl Produce {
    fn registry(&self) -> Result<Registry, Outcome> {
        let mut settings = Settings::new(&self.registry);
        if let Some(user) = &self.registry_user {
            let password = self.registry_password.clone().unwrap_or_default();
            settings.credentials = Credentials::Basic { user: user.clone(), password };
        }
        if let Some(file) = &self.registry_ca {
            let pem = std::fs::read(file)
                .map_err(|error| Outcome::refused(format!("{}: {error}", file.display()), "correct --registry-ca"))?;
            settings.authorities_pem = Some(pem);
        }
        Registry::new(settings).map_err(|error| Outcome::refused(error.to_string(), "correct --registry"))
    }

    fn rows(&self) -> Result<Box<dyn Rows + Send>, Outcome> {
        let refused = |error: weir_replay::produce::ProduceError| {
            Outcome::refused(error.to_string(), "correct the input or its schema; nothing was sent")
        };
        if let Some(path) = &self.input.csv {
            return Ok(Box::new(CsvRows::open(&self.file(path)?).map_err(refused)?));
        }
        if let Some(path) = &self.input.json {
            return Ok(Box::new(JsonRows::open(&self.file(path)?).map_err(refused)?));
        }
        let start_at_ms = match &self.from {
            Some(text) => chrono::DateTime::parse_from_rfc3339(text)
                .map_err(|error| Outcome::refused(format!("--from {text}: {error}"), "write 2026-01-31T00:00:00Z"))?
                .timestamp_millis(),
            None => weir_pipeline::clock::Clock::System.now_ms(),
        };
        Ok(Box::new(StorefrontRows::new(Storefront {
            seed: self.seed,
            start_at_ms,
            events_per_second: self.events_per_second,
            count: self.count,
            wrong: Wrong::NegativeAmount,
            wrong_from: self.count.unwrap_or(120_000) / 2,
            ..Storefront::default()
        })))
    }

    fn file(&self, path: &std::path::Path) -> Result<FileInput, Outcome> {
        let schema = match &self.schema {
            _ if self.retail => Some(RETAIL_SCHEMA.to_owned()),
            Some(file) => Some(
                std::fs::read_to_string(file)
                    .map_err(|error| Outcome::refused(format!("{}: {error}", file.display()), "correct --schema"))?,
            ),
            None => None,
        };
        let mut decimals = BTreeMap::new();
        for text in &self.decimal {
            let parts: Vec<&str> = text.rsplitn(3, ':').collect();
            let number = |at: usize| parts.get(at).and_then(|part: &&str| part.parse::<usize>().ok());
            let (Some(scale), Some(precision), Some(column)) = (number(0), number(1), parts.get(2)) else {
                return Err(Outcome::refused(
                    format!("--decimal {text}"),
                    "write COLUMN:PRECISION:SCALE, such as price:10:2",
                ));
            };
            decimals.insert((*column).to_owned(), (precision, scale));
        }
        let zone = self.zone.parse().map_err(|_| {
            Outcome::refused(format!("--zone {}", self.zone), "write an IANA name such as Europe/Berlin")
        })?;
        let preset = |given: &Option<String>, of_retail: &str| {
            given.clone().or_else(|| self.retail.then(|| of_retail.to_owned()))
        };
        Ok(FileInput {
            path: path.to_owned(),
            schema,
            decimals,
            times: TimeText { format: self.time_format.clone(), zone },
            id_field: preset(&self.id_column, "row"),
            key_field: preset(&self.key, "InvoiceNo"),
            time_field: preset(&self.time, "InvoiceDate"),
        })
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new(1_000);
    let style = ProgressStyle::with_template("{bar:40} {percent:>3} %  {msg}  {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

fn show(bar: &ProgressBar, progress: &Progress) {
    match progress.share_done {
        Some(share) => bar.set_position((share * 1_000.0) as u64),
        None => bar.set_length(0),
    }
    let per_second = progress.acknowledged as f64 / bar.elapsed().as_secs_f64().max(0.001);
    bar.set_message(format!(
        "{} records, {}/s",
        paint::count(progress.acknowledged),
        paint::count(per_second.round() as u64)
    ));
}

fn report(topic: &str, progress: &Progress, seconds: f64) {
    say!(
        "{} {} records to {topic} in {seconds:.1} s ({}/s): {} rows, {} duplicates, {} stragglers, {} bad",
        paint::good("sent"),
        paint::count(progress.acknowledged),
        paint::count((progress.acknowledged as f64 / seconds.max(0.001)).round() as u64),
        paint::count(progress.rows),
        progress.injected.duplicates,
        progress.injected.stragglers,
        progress.injected.bad
    );
}
