//! `weir query`: people's own SQL, or a question of the cookbook, asked in the pipeline's database.
//!
//! CSV and JSON are handed on as they come, so an answer may be of any size; a table is held until its columns can be
//! measured, and so has a bound. Errors are the server's own words, with the place in the statement where it names one.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use weir_pipeline::config::load::load;
use weir_pipeline::connect;
use weir_pipeline::problem::{Problem, nearest};
use weir_sinks::clickhouse::{Answer, Client, Limits, Question, Refusal};

use crate::cookbook::{self, Entry};
use crate::out::{self, safe, say};
use crate::{Outcome, paint, runtime};

/// Arguments of `weir query`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weir query shop/pipeline.toml \"SELECT sum(revenue) FROM revenue_by_minute__by_day\"
  weir query shop/pipeline.toml report.sql --format csv > report.csv
  weir query shop/pipeline.toml \"SELECT * FROM revenue_by_minute WHERE tenant = {shop:String}\" --param shop=alpine
  weir query shop/pipeline.toml --cookbook                      the questions that there are
  weir query shop/pipeline.toml --cookbook revenue_by_day --param tenant=alpine")]
pub(crate) struct Query {
    /// The pipeline file.
    file: PathBuf,
    /// The statement, a file that ends in .sql, or - for standard input.
    #[arg(required_unless_present = "cookbook", conflicts_with = "cookbook")]
    sql: Option<String>,
    /// A question of the cookbook; without a name, the list of them.
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "")]
    cookbook: Option<String>,
    /// The value of a `{name:Type}` in the statement, as name=value; a list as ['a','b'], null as \N.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parameter)]
    param: Vec<(String, String)>,
    /// How to print the answer.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Rows that a table shows at most; CSV and JSON have no such bound.
    #[arg(long, default_value_t = 1_000)]
    rows: usize,
    /// How long ClickHouse may work on it, in seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Print the statement instead of asking it.
    #[arg(long)]
    show_sql: bool,
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Aligned columns, for people.
    Table,
    /// CSV with a header.
    Csv,
    /// A JSON object a line.
    Json,
}

impl Format {
    /// The name that ClickHouse knows it by.
    fn name(self) -> &'static str {
        match self {
            Format::Table => "JSONCompactStringsEachRowWithNamesAndTypes",
            Format::Csv => "CSVWithNames",
            Format::Json => "JSONEachRow",
        }
    }
}

/// Memory that ClickHouse may take for a question, in bytes.
const MEMORY_AT_MOST: u64 = 4 << 30;
/// A statement of more bytes isn't one that a person wrote.
const STATEMENT_AT_MOST: u64 = 1 << 20;

fn parameter(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write name=value")?;
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if is_name { Ok((name.to_owned(), value.to_owned())) } else { Err(format!("`{name}` is no parameter's name")) }
}

/// A statement, and what to call it when it is complained of.
struct Statement {
    name: String,
    sql: String,
    parameters: Vec<(String, String)>,
}

/// Asks and prints.
pub(crate) fn run(query: &Query) -> Outcome {
    let outcome = match query.cookbook.as_deref() {
        Some("") => {
            list();
            Ok(())
        }
        _ => statement(query).and_then(|statement| ask(query, &statement)),
    };
    outcome.err().unwrap_or_else(Outcome::done)
}

/// Prints the cookbook's questions.
fn list() {
    let mut table = paint::table(&["name", "for", "question"]);
    for entry in cookbook::all() {
        table.add_row([entry.name, &entry.audience, &entry.question]);
    }
    say!("{table}");
}

fn statement(query: &Query) -> Result<Statement, Outcome> {
    if let Some(name) = &query.cookbook {
        let entry = cookbook::all().into_iter().find(|entry| entry.name == name).ok_or_else(|| unknown(name))?;
        let parameters = parameters_of(&entry, &query.param)?;
        return Ok(Statement { name: format!("cookbook/{name}.sql"), sql: entry.sql.to_owned(), parameters });
    }
    let given = query.sql.as_deref().unwrap_or_default();
    let (name, sql) = if given == "-" {
        ("standard input".to_owned(), read(std::io::stdin().lock(), "standard input")?)
    } else if Path::new(given).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("sql")) {
        let file = std::fs::File::open(given)
            .map_err(|error| Outcome::refused(format!("{given}: {error}"), "name a file with one statement"))?;
        (given.to_owned(), read(file, given)?)
    } else {
        ("statement".to_owned(), given.to_owned())
    };
    if sql.trim().is_empty() {
        return Err(Outcome::refused(format!("{name}: there is no statement in it"), "write a SELECT"));
    }
    Ok(Statement { name, sql, parameters: query.param.clone() })
}

fn read(input: impl Read, name: &str) -> Result<String, Outcome> {
    let refused = |what: String| Outcome::refused(format!("{name}: {what}"), "give one statement as UTF-8 text");
    let mut text = String::new();
    input.take(STATEMENT_AT_MOST + 1).read_to_string(&mut text).map_err(|error| refused(error.to_string()))?;
    if text.len() as u64 > STATEMENT_AT_MOST {
        return Err(refused(format!("is longer than {STATEMENT_AT_MOST} bytes")));
    }
    Ok(text)
}

fn unknown(name: &str) -> Outcome {
    let entries = cookbook::all();
    let near = nearest(name, entries.iter().map(|entry| entry.name));
    let remedy = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`weir query FILE --cookbook` lists them".to_owned(),
    };
    Outcome::refused(format!("the cookbook has no question `{name}`"), remedy)
}

/// The entry's parameters: what was given, else what it says itself.
fn parameters_of(entry: &Entry, given: &[(String, String)]) -> Result<Vec<(String, String)>, Outcome> {
    if let Some((name, _)) = given.iter().find(|(name, _)| !entry.parameters.iter().any(|of| of.name == *name)) {
        let known: Vec<&str> = entry.parameters.iter().map(|of| of.name.as_str()).collect();
        let remedy = if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
        return Err(Outcome::refused(format!("`{}` has no parameter `{name}`", entry.name), remedy));
    }
    let now = weir_pipeline::clock::Clock::System.now();
    let value = |of: &cookbook::Parameter| {
        let own = given.iter().rev().find(|(name, _)| *name == of.name).map(|(_, value)| value.clone());
        (of.name.clone(), own.unwrap_or_else(|| cookbook::default_value(&of.default, now)))
    };
    Ok(entry.parameters.iter().map(value).collect())
}

fn ask(query: &Query, statement: &Statement) -> Result<(), Outcome> {
    if query.show_sql {
        say!("{}", statement.sql.trim_end());
        return Ok(());
    }
    let pipeline = load(&query.file).map_err(|problems| Outcome::problems(&problems))?;
    let client = connect::clickhouse(&pipeline).map_err(|error| Outcome::of_error(&error))?;
    let question = Question {
        sql: statement.sql.clone(),
        format: query.format.name().to_owned(),
        parameters: statement.parameters.clone(),
        settings: Vec::new(),
    };
    let answered = runtime()?.block_on(answer(query, &client, &question));
    answered.map_err(|refusal| match refusal {
        Refusal::Said(text) => refused(statement, &text),
        Refusal::Away(text) => Outcome::unreachable(
            format!("clickhouse at {}: {text}", pipeline.clickhouse.url),
            "check [clickhouse], and that the server is up",
        ),
    })
}

async fn answer(query: &Query, client: &Client, question: &Question) -> Result<(), Refusal> {
    let limits = Limits {
        seconds: query.seconds,
        memory_bytes: MEMORY_AT_MOST,
        result_rows: None,
        result_bytes: None,
        threads: None,
    };
    let mut answer = client.ask(question, &limits)?;
    if query.format == Format::Table {
        return print_table(answer, query.rows).await;
    }
    // To a terminal nothing may come that it would act upon; a file or program gets the bytes.
    let is_terminal = std::io::stdout().is_terminal();
    while let Some(bytes) = answer.next().await? {
        let is_read = if is_terminal {
            out::text(safe(&String::from_utf8_lossy(&bytes)).as_bytes())
        } else {
            std::io::stdout().lock().write_all(&bytes).is_ok()
        };
        if !is_read {
            break;
        }
    }
    Ok(())
}

async fn print_table(answer: Answer, rows_at_most: usize) -> Result<(), Refusal> {
    let mut lines = answer.lines();
    let mut cells = async || -> Result<Option<Vec<String>>, Refusal> {
        let Some(line) = lines.next().await? else { return Ok(None) };
        serde_json::from_slice(&line).map(Some).map_err(|_| {
            Refusal::Said("the statement has a FORMAT of its own: leave it out, or use --format".to_owned())
        })
    };
    let (names, types) = (cells().await?.unwrap_or_default(), cells().await?.unwrap_or_default());
    let mut rows = Vec::new();
    while rows.len() <= rows_at_most {
        let Some(row) = cells().await? else { break };
        rows.push(row);
    }
    let is_cut = rows.len() > rows_at_most;
    rows.truncate(rows_at_most);
    let count = rows.len();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut table = paint::table(&names);
    for (at, column_type) in types.iter().enumerate() {
        if is_number(column_type) {
            table.align_right(at);
        }
    }
    rows.into_iter().for_each(|row| table.add_row(row.iter().map(|cell| out::printable(cell))));
    say!("{table}");
    let told = crate::counted(count, "row");
    if is_cut {
        say!("{}", paint::dim(&format!("the first {told}; --rows shows more, --format csv all")));
    } else {
        say!("{}", paint::dim(&told));
    }
    Ok(())
}

fn is_number(column_type: &str) -> bool {
    let plain = column_type.trim_start_matches("LowCardinality(").trim_start_matches("Nullable(");
    ["Int", "UInt", "Float", "Decimal", "BFloat"].iter().any(|prefix| plain.starts_with(prefix))
}

/// What the server said, at the place of the statement that it names.
fn refused(statement: &Statement, text: &str) -> Outcome {
    let remedy = match code_of(text) {
        Some(159 | 241 | 307 | 396) => "ask for less: a shorter range, fewer columns; --seconds gives it more time",
        Some(164 | 497) => "`weir query` only reads",
        Some(456) => "give it with --param name=value",
        Some(60 | 81) => {
            "`weir query FILE 'SHOW TABLES'` tells what there is; the pipeline makes it when it first runs"
        }
        _ => "correct the statement",
    };
    let problem = match place_of(text) {
        Some(at) => Problem::at_line(&statement.name, &statement.sql, at, text, remedy),
        None => Problem::of_file(&statement.name, text, remedy),
    };
    Outcome::problems(&[problem])
}

/// The number in `Code: 62. DB::Exception: ...`.
fn code_of(text: &str) -> Option<u32> {
    text.split_once("Code: ")?.1.split('.').next()?.parse().ok()
}

/// Line and column in `... (line 2, col 5) ...`.
fn place_of(text: &str) -> Option<(usize, usize)> {
    let (line, rest) = text.split_once("(line ")?.1.split_once(", col ")?;
    Some((line.parse().ok()?, rest.split(')').next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_where_the_server_says() {
        let text =
            "Code: 62. DB::Exception: Syntax error: failed at position 12 (FRM) (line 2, col 5): FRM x. (SYNTAX_ERROR)";
        assert_eq!((code_of(text), place_of(text)), (Some(62), Some((2, 5))));
        assert_eq!(place_of("Code: 60. DB::Exception: Unknown table"), None);
    }

    #[test]
    fn numbers_stand_on_the_right() {
        assert!(is_number("Nullable(Decimal(38, 2))") && !is_number("String") && !is_number("DateTime"));
    }

    #[test]
    fn parameters_have_names() {
        assert_eq!(parameter("shop=a=b"), Ok(("shop".to_owned(), "a=b".to_owned())));
        assert!(parameter("shop").is_err() && parameter("=x").is_err());
    }
}
