//! The command line's words.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

/// Real-time customer analytics with data quality built in: Kafka in, ClickHouse out.
#[derive(Debug, Parser)]
#[command(name = "weir", version, max_term_width = 110, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  a bug
  2  the pipeline file, its SQL or the arguments are wrong
  3  a part around Weir (broker, registry, ClickHouse) can't be used
  4  the state or the log doesn't fit, the state's disk failed or is full, or the archive is damaged
  5  a difference was found: by `test`, `verify`, `explain`, `diff` and `demo`; by `archive verify` and `archive compact`
     objects that are damaged; by `tap` a ledger that doesn't balance
130  ended at once by a second Ctrl-C or SIGTERM

Colours are off where NO_COLOR is set or the output isn't a terminal.";

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show it working: starts Kafka, a registry and the ClickHouse engine on loopback, events and a pipeline.
    #[command(after_help = "Examples:\n  weir demo\n  weir demo --seconds 60\n  weir demo --kafka broker:9092")]
    Demo(Demo),
    /// Write a commented pipeline to start from.
    #[command(after_help = "Example:\n  weir init shop && weir check shop/pipeline.toml")]
    Init {
        /// The folder to write to; it must be empty or absent.
        folder: PathBuf,
    },
    /// Check a pipeline: file, SQL, schemas, compatibility; print the plan and the tables it will create.
    #[command(after_help = "Examples:\n  weir check shop/pipeline.toml\n  weir check shop/pipeline.toml --offline")]
    Check {
        /// The pipeline file.
        file: PathBuf,
        /// Ask neither the broker nor the registry nor ClickHouse.
        #[arg(long)]
        offline: bool,
    },
    /// Run a pipeline's scenarios: the whole engine on invented time, without broker, registry or ClickHouse.
    #[command(
        after_help = "Examples:\n  weir test shop/pipeline.toml\n  weir test shop/pipeline.toml --filter late --seed 7\n  weir test shop/pipeline.toml --update"
    )]
    Test(super::commands::test::Test),
    /// Turn a sample of a pipeline's live topics into a scenario that `weir test` runs.
    ///
    /// Fields that a source's `sensitive` names are masked; without it nothing is. Exit code 5 when the scenario's ledger doesn't
    /// balance.
    #[command(
        after_help = "Examples:\n  weir tap shop/pipeline.toml --out shop/scenarios/today.toml\n  weir tap shop/pipeline.toml --out shop/scenarios/now.toml --seconds 10 --topic events"
    )]
    Tap(super::commands::tap::Tap),
    /// Run a pipeline until it is told to stop.
    #[command(after_help = "Examples:\n  weir run shop/pipeline.toml\n  weir run shop/pipeline.toml --until-end")]
    Run {
        /// The pipeline file.
        file: PathBuf,
        /// Read to the end that the log has now, close every window, deliver, and exit.
        #[arg(long)]
        until_end: bool,
        /// Worker threads, instead of the file's.
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
        workers: Option<u16>,
        /// Log lines as JSON.
        #[arg(long)]
        log_json: bool,
    },
    /// Say how a running pipeline is: positions, watermarks and who holds them back, epochs, what is in flight.
    #[command(after_help = "Examples:\n  weir status shop/pipeline.toml\n  weir status shop/pipeline.toml --json")]
    Status {
        /// The pipeline file; its `http` says where the pipeline answers.
        file: PathBuf,
        /// Print what the pipeline answered.
        #[arg(long)]
        json: bool,
    },
    /// Run the views' own SQL in ClickHouse over the accepted events and compare every cell with what readers see.
    ///
    /// Where a replay was swapped in, readers see its rows: that is said before the verdict. Exit code 5 when something differs.
    #[command(
        after_help = "Examples:\n  weir verify shop/pipeline.toml\n  weir verify shop/pipeline.toml --view orders"
    )]
    Verify {
        /// The pipeline file; its sources must keep their events (`keep_events_days`).
        file: PathBuf,
        /// Only these views.
        #[arg(long)]
        view: Vec<String>,
        /// Differences to print for each view.
        #[arg(long, default_value_t = 10)]
        show: usize,
        /// Greatest relative difference of Float64 values, whose sums depend on order in ClickHouse, too.
        #[arg(long, default_value_t = 1e-9)]
        tolerance: f64,
    },
    /// Ask ClickHouse in the pipeline's database, reading only: SQL, or a question of the cookbook.
    Query(super::commands::query::Query),
    /// Explain a result: which records made it, and under which versions.
    #[command(subcommand)]
    Explain(super::commands::explain::Explained),
    /// Say what a pipeline reads and writes, and which field reaches which column, without running it.
    #[command(after_help = "Examples:\n  weir lineage shop/pipeline.toml\n  weir lineage shop/pipeline.toml --json")]
    Lineage {
        /// The pipeline file.
        file: PathBuf,
        /// Print OpenLineage events about the jobs, one a line.
        #[arg(long)]
        json: bool,
    },
    /// Score how unusual each value of a series is, against the values before it.
    ///
    /// In: CSV with the header timestamp,value. Out: CSV with the header timestamp,anomaly_score, a row for each row, the
    /// timestamps as they came, scores from 0 to 1. Timestamps are ISO 8601, 2014-04-01 00:05:00 (UTC where none is said),
    /// or seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by their size. A value that is empty,
    /// NaN or infinite scores 0 and teaches nothing.
    Detect(super::commands::detect::Detect),
    /// Alerts: list and show them, follow them, take one on, tell others.
    #[command(subcommand)]
    Alerts(super::commands::alerts::Alerts),
    /// Tracking plans: check one, tell what a version changes for whom, propose one from a topic.
    #[command(subcommand)]
    Plan(super::commands::plan::PlanCommand),
    /// The quarantine: list and show refused records, group them by cause, retry a cause that was mended.
    #[command(subcommand)]
    Quarantine(super::commands::quarantine::Quarantine),
    /// The archive: what is in it, whether it is whole, its records back into a topic.
    #[command(subcommand)]
    Archive(super::commands::archive::Archive),
    /// Run a stretch of history through the pipeline once more, beside the live one: tables, state and ledger of its own.
    Replay(Box<super::commands::replay::Replay>),
    /// Say what a replay's rows would change of the live ones, and why; --follow keeps it current.
    ///
    /// Exit code 5 when something differs: rows, alerts that opened, a column or view that one side lacks. A view that can't be compared is no difference.
    #[command(
        after_help = "Examples:\n  weir diff shop/pipeline.toml fixed_prices\n  weir diff shop/pipeline.toml fixed_prices --view revenue_by_minute --examples 50\n  weir diff shop/pipeline.toml fixed_prices --follow\n  weir diff shop/pipeline.toml fixed_prices --follow --until-equal --json | jq .changed"
    )]
    Diff(super::commands::diff::Diff),
    /// Put a replay's rows in the place of live ones, for their readers; --undo takes them out again.
    #[command(
        after_help = "Examples:\n  weir swap shop/pipeline.toml fixed_prices --why \"prices were in cents\"\n  weir swap shop/pipeline.toml fixed_prices --undo"
    )]
    Swap(super::commands::swap::Swap),
    /// Write records to Kafka as Avro: from CSV, JSON lines or a generator.
    Produce(Box<super::commands::produce::Produce>),
    /// Serve the ClickHouse engine over HTTP, for a laptop and for tests.
    #[command(after_help = "Example:\n  weir clickhouse --path ./data --listen 127.0.0.1:8123")]
    Clickhouse(Clickhouse),
    /// Print completions for a shell.
    #[command(after_help = "Example:\n  weir completions bash > /etc/bash_completion.d/weir")]
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// Arguments of `weir demo`.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// End by itself after this many seconds, with a summary and the verdict of `weir verify`; exit code 5 when that
    /// finds a difference.
    #[arg(long)]
    pub seconds: Option<u64>,
    /// The folder that keeps the demo's data.
    #[arg(long, default_value = "weir-demo")]
    pub folder: PathBuf,
    /// Events per second.
    #[arg(long, default_value_t = 2_000)]
    pub rate: u32,
    /// Use this Kafka instead of starting one.
    #[arg(long, value_name = "HOST:PORT")]
    pub kafka: Option<String>,
    /// Use this schema registry instead of starting one.
    #[arg(long, value_name = "URL")]
    pub registry: Option<String>,
    /// Use this ClickHouse instead of starting the engine.
    #[arg(long, value_name = "URL")]
    pub clickhouse: Option<String>,
}

/// Arguments of `weir clickhouse`.
#[derive(Debug, Args)]
pub(crate) struct Clickhouse {
    /// The data folder; one process at a time.
    #[arg(long, default_value = "clickhouse-data")]
    pub path: PathBuf,
    /// The address; keep it on loopback, as the engine's SQL can read the machine's files.
    #[arg(long, default_value = "127.0.0.1:8123")]
    pub listen: String,
    /// The one account to ask for; absent, everybody may ask.
    #[arg(long, env = "WEIR_CLICKHOUSE_USER", requires = "password")]
    pub user: Option<String>,
    /// Its password; best given in the environment, where other users don't see it.
    #[arg(long, env = "WEIR_CLICKHOUSE_PASSWORD", hide_env_values = true, requires = "user")]
    pub password: Option<String>,
    /// The library; absent, the one in the parts cache. Nothing is fetched: where it is missing, the message says how to
    /// get it.
    #[arg(long, env = "WEIR_LIBCHDB")]
    pub library: Option<PathBuf>,
    /// End when this process ends.
    #[arg(long, value_name = "PID")]
    pub parent: Option<u32>,
}
