//! `weir-clickhouse`: the front alone, for tests of the crates that need a ClickHouse.
//! `weir clickhouse` is the same with the product's help and configuration.

use std::process::ExitCode;
use std::time::Duration;

use weir_clickhouse::Options;

const HELP: &str = "\
The ClickHouse engine (libchdb) behind ClickHouse's HTTP interface.

Usage: weir-clickhouse [OPTIONS] [-- ENGINE ARGUMENTS]

  --library PATH       libchdb.so [WEIR_LIBCHDB, else the cache of the local parts]
  --path FOLDER        data folder [clickhouse-data]
  --listen ADDRESS     [127.0.0.1:8123]; port 0 takes a free one
  --statements N       statements at once [32]
  --body-bytes N       largest request body [2147483648]
  --body-memory N      bytes of a body held in memory, the rest in a file [4194304]
  --result-bytes N     largest result of a format that can't be streamed [1073741824]
  --parent PID         end when this process ends

WEIR_CLICKHOUSE_USER and WEIR_CLICKHOUSE_PASSWORD set the one account to ask for.
The last line printed when ready is the address.";

fn options() -> Result<Options, String> {
    let mut options = Options::default();
    if let Ok(user) = std::env::var("WEIR_CLICKHOUSE_USER") {
        options.account = Some((user, std::env::var("WEIR_CLICKHOUSE_PASSWORD").unwrap_or_default()));
    }
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        if name == "--" {
            options.engine_arguments = arguments.collect();
            break;
        }
        if !name.starts_with("--") || name == "--help" {
            return Err(HELP.to_owned());
        }
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value\n\n{HELP}"))?;
        let number = || value.parse::<u64>().map_err(|error| format!("{name} {value}: {error}"));
        match name.as_str() {
            "--library" => options.library = value.into(),
            "--path" => options.data = value.into(),
            "--listen" => options.listen = value,
            "--statements" => options.statements_at_once = u32::try_from(number()?).unwrap_or(u32::MAX),
            "--body-bytes" => options.body_bytes_at_most = number()?,
            "--body-memory" => options.body_bytes_in_memory = usize::try_from(number()?).unwrap_or(usize::MAX),
            "--result-bytes" => options.result_bytes_at_most = number()?,
            "--parent" => {
                options.parent = Some(u32::try_from(number()?).map_err(|error| format!("{name} {value}: {error}"))?)
            }
            _ => return Err(format!("unknown option {name}\n\n{HELP}")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).init();
    let options = match options() {
        Ok(options) => options,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(weir_clickhouse::serve(options));
    runtime.shutdown_timeout(Duration::from_secs(1));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-clickhouse: {error}");
            ExitCode::FAILURE
        }
    }
}
