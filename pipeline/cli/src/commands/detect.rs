//! `weir detect`: the judge of series over a CSV file, row by row, so that it can be tried and measured without a pipeline.
//!
//! One pass in constant memory: each row is scored from the rows before it and written before the next is read. There is
//! nothing to set: every input is judged with the parameters of the product.

use std::io::{BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime};
use clap::Args;
use weir_judge::series::{Series, THRESHOLD};

use crate::Outcome;
use crate::out::{complain, say};

/// Arguments of `weir detect`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weir detect --csv requests.csv > scores.csv
  weir detect --csv requests.csv | awk -F, 'NR > 1 && $2 >= 0.5'
  tail -n +1 -f requests.csv | weir detect --csv -
  weir detect --threshold")]
pub(crate) struct Detect {
    /// The file, or - for standard input; what comes through a pipe is answered as soon as it came.
    #[arg(long, value_name = "FILE", required_unless_present = "threshold")]
    csv: Option<PathBuf>,
    /// Print the score from which the product alerts: 0.5. With --csv, to standard error.
    #[arg(long)]
    threshold: bool,
}

/// Rows are read and written in blocks of so many bytes, smaller ones where input comes slowly.
const BUFFER_BYTES: usize = 64 * 1024;
/// No line may be longer.
const LINE_BYTES_MOST: u64 = 4_096;

/// Scores the file, or tells the threshold.
pub(crate) fn run(detect: &Detect) -> Outcome {
    let Some(path) = &detect.csv else {
        say!("{THRESHOLD}");
        return Outcome::done();
    };
    if detect.threshold {
        complain!("the product alerts from a score of {THRESHOLD} on");
    }
    let is_standard_input = path == Path::new("-");
    let input: Box<dyn Read> = if is_standard_input {
        Box::new(std::io::stdin().lock())
    } else {
        match std::fs::File::open(path) {
            Ok(file) => Box::new(file),
            Err(error) => {
                return Outcome::refused(format!("{}: {error}", path.display()), "name a CSV file that can be read");
            }
        }
    };
    let output = BufWriter::with_capacity(BUFFER_BYTES, std::io::stdout().lock());
    let name = if is_standard_input { "standard input".to_owned() } else { path.display().to_string() };
    match score(BufReader::with_capacity(BUFFER_BYTES, input), output) {
        Ok(()) => Outcome::done(),
        Err(Stop::Unwritable(error)) if error.kind() == ErrorKind::BrokenPipe => Outcome::done(),
        Err(Stop::Unwritable(error)) => {
            Outcome::unreachable(format!("standard output: {error}"), "make room, or write elsewhere")
        }
        Err(Stop::Refused { line, what, remedy }) => Outcome::refused(format!("{name}:{line}: {what}"), remedy),
    }
}

/// Why scoring stopped before the end.
#[derive(Debug)]
enum Stop {
    Refused { line: u64, what: String, remedy: &'static str },
    Unwritable(std::io::Error),
}

const HEADER_REMEDY: &str = "begin with the line `timestamp,value`";
const ROW_REMEDY: &str = "write one timestamp and one value on each line, divided by a comma";
const TIME_REMEDY: &str = "write times as 2014-04-01 00:05:00, as ISO 8601, or as seconds or milliseconds since 1970";
const VALUE_REMEDY: &str = "write a number such as 12, -0.5 or 1e6, or nothing where a value is missing";

/// Scores the rows of `input` to `output`, which is flushed before the next row has to be waited for.
fn score(mut input: BufReader<impl Read>, mut output: impl Write) -> Result<(), Stop> {
    let refused = |line, what, remedy| Stop::Refused { line, what, remedy };
    let mut series = Series::new();
    let mut text = Vec::new();
    let mut number = 0;
    loop {
        number += 1;
        text.clear();
        let read = input.by_ref().take(LINE_BYTES_MOST).read_until(b'\n', &mut text);
        match read {
            Ok(0) if number == 1 => {
                return Err(refused(1, "there is no header, the input is empty".to_owned(), HEADER_REMEDY));
            }
            Ok(0) => break,
            Ok(read) if read as u64 == LINE_BYTES_MOST => {
                return Err(refused(number, format!("the line is longer than {LINE_BYTES_MOST} bytes"), ROW_REMEDY));
            }
            Ok(_) => {}
            Err(error) => return Err(refused(number, error.to_string(), "give a file that can be read")),
        }
        // A timestamp goes out as it came in, with the spaces around it.
        let line = text.strip_suffix(b"\n").unwrap_or(&text);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if number == 1 {
            check_header(line).map_err(|what| refused(1, what, HEADER_REMEDY))?;
            output.write_all(b"timestamp,anomaly_score\n").map_err(Stop::Unwritable)?;
        } else if !line.trim_ascii().is_empty() {
            let mut fields = line.split(|byte| *byte == b',');
            let (Some(timestamp), Some(value), None) = (fields.next(), fields.next(), fields.next()) else {
                return Err(refused(number, columns_in(line), ROW_REMEDY));
            };
            let at_us = parse_time(bare(timestamp))
                .ok_or_else(|| refused(number, shown("timestamp", timestamp), TIME_REMEDY))?;
            let value = parse_value(bare(value)).ok_or_else(|| refused(number, shown("value", value), VALUE_REMEDY))?;
            let score = series.observe(at_us, value).score;
            output.write_all(timestamp).map_err(Stop::Unwritable)?;
            writeln!(output, ",{score:.6}").map_err(Stop::Unwritable)?;
        }
        if !input.buffer().contains(&b'\n') {
            output.flush().map_err(Stop::Unwritable)?;
        }
    }
    output.flush().map_err(Stop::Unwritable)
}

/// What is wrong with the header, if anything is.
fn check_header(line: &[u8]) -> Result<(), String> {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    if line.split(|byte| *byte == b',').map(bare).eq([b"timestamp".as_slice(), b"value".as_slice()]) {
        return Ok(());
    }
    let found = excerpt(line);
    Err(format!("the header is `{found}` instead of `timestamp,value`"))
}

fn shown(column: &str, field: &[u8]) -> String {
    format!("the {column} `{}` can't be read", excerpt(field))
}

fn columns_in(line: &[u8]) -> String {
    let count = line.split(|byte| *byte == b',').count();
    format!("the line `{}` has {count} column{}", excerpt(line), if count == 1 { "" } else { "s" })
}

/// The beginning of `text`, harmless in a terminal.
fn excerpt(text: &[u8]) -> String {
    let harmless = |letter: char| if letter.is_control() { '\u{fffd}' } else { letter };
    String::from_utf8_lossy(text).chars().take(60).map(harmless).collect()
}

/// The field without spaces and quotes around it.
fn bare(field: &[u8]) -> &[u8] {
    let field = field.trim_ascii();
    let inner = field.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    inner.unwrap_or(field).trim_ascii()
}

/// A number, or NaN where the value is missing.
fn parse_value(field: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(field).ok()?;
    let is_missing = ["", "na", "null", "none"].iter().any(|word| text.eq_ignore_ascii_case(word));
    if is_missing { Some(f64::NAN) } else { text.parse().ok() }
}

/// Microseconds since 1970.
fn parse_time(field: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(field).ok()?;
    if let Ok(number) = text.parse::<f64>() {
        return parse_epoch(number);
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_micros());
    }
    let with_zone = ["%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f %#z"];
    let without = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M", "%Y%m%dT%H%M%S"];
    let naive = without.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
    let day = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().map(|day| day.and_time(NaiveTime::MIN));
    if let Some(time) = naive.or_else(day) {
        return Some(time.and_utc().timestamp_micros());
    }
    let zoned = with_zone.iter().find_map(|format| DateTime::parse_from_str(text, format).ok());
    zoned.map(|time| time.timestamp_micros())
}

/// Numbers up to 1e11 are seconds (the year 5138), up to 1e14 milliseconds, up to 1e17 microseconds, else nanoseconds.
fn parse_epoch(number: f64) -> Option<i64> {
    let to_us = match number.abs() {
        size if size < 1e11 => 1e6,
        size if size < 1e14 => 1e3,
        size if size < 1e17 => 1.0,
        size if size < 9e18 => 1e-3,
        _ => return None,
    };
    Some((number * to_us).round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(input: &str) -> Result<String, Stop> {
        let mut output = Vec::new();
        score(BufReader::new(input.as_bytes()), &mut output)?;
        Ok(String::from_utf8(output).unwrap())
    }

    #[test]
    fn times_are_read_in_every_form() {
        let wanted = Some(1_396_310_700_000_000);
        for text in [
            "2014-04-01 00:05:00",
            "2014-04-01 00:05:00.000",
            "2014-04-01 00:05",
            "2014-04-01T00:05:00",
            "2014-04-01T00:05:00Z",
            "2014-04-01T02:05:00+02:00",
            "2014-04-01 02:05:00+0200",
            "2014-04-01 00:05:00+00:00",
            "1396310700",
            "1396310700.0",
            "1396310700000",
            "1396310700000000",
            "1396310700000000000",
        ] {
            assert_eq!(parse_time(text.as_bytes()), wanted, "{text}");
        }
        assert_eq!(parse_time(b"2014-04-01 00:05:00.25").map(|us| us % 1_000_000), Some(250_000));
        assert_eq!(parse_time(b"2014-04-01"), Some(1_396_310_400_000_000));
        for text in ["", "yesterday", "2014-13-01 00:00:00", "NaN", "inf", "1e30"] {
            assert_eq!(parse_time(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn timestamps_come_back_as_they_were_and_every_row_has_a_score() {
        let output = scored(
            "\u{feff}timestamp,value\r\n2014-04-01 00:00:00,1\r\n1396310700000,\n\"2014-04-01T00:10:00Z\",NaN\n 7 ,2e9\n",
        );
        let lines: Vec<String> = output.unwrap().lines().map(str::to_owned).collect();
        assert_eq!(lines[0], "timestamp,anomaly_score");
        let stamps: Vec<&str> = lines[1..].iter().map(|line| line.split_once(',').unwrap().0).collect();
        assert_eq!(stamps, ["2014-04-01 00:00:00", "1396310700000", "\"2014-04-01T00:10:00Z\"", " 7 "]);
    }

    /// A pipe that gives a row at a time, and looks whether the rows before were answered.
    struct Pipe {
        rows: Vec<&'static str>,
        given: usize,
        answered: std::rc::Rc<std::cell::Cell<usize>>,
    }

    impl Read for Pipe {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            assert_eq!(self.answered.get(), self.given, "rows given are answered before the next is asked for");
            let Some(row) = self.rows.get(self.given) else { return Ok(0) };
            buffer[..row.len()].copy_from_slice(row.as_bytes());
            self.given += 1;
            Ok(row.len())
        }
    }

    /// Counts the lines that reach it.
    struct Reader(std::rc::Rc<std::cell::Cell<usize>>);

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.set(self.0.get() + bytes.iter().filter(|byte| **byte == b'\n').count());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_row_of_a_slow_pipe_is_answered_before_the_next() {
        let answered = std::rc::Rc::new(std::cell::Cell::new(0));
        let rows = vec!["timestamp,value\n", "1,2\n", "2,3\n"];
        let input = BufReader::new(Pipe { rows, given: 0, answered: answered.clone() });
        let output = BufWriter::with_capacity(BUFFER_BYTES, Reader(answered.clone()));
        assert!(score(input, output).is_ok());
        assert_eq!(answered.get(), 3);
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_line() {
        for (input, line) in [
            ("", 1),
            ("1,2\n", 1),
            ("timestamp,val\n", 1),
            ("timestamp,value,label\n", 1),
            ("timestamp,value\n1,2\n3\n", 3),
            ("timestamp,value\n1,2\n\n3,4,5\n", 4),
            ("timestamp,value\n1,2\nsoon,3\n", 3),
            ("timestamp,value\r\n1,2\r\n2,much\r\n", 3),
        ] {
            match scored(input) {
                Err(Stop::Refused { line: told, .. }) => assert_eq!(told, line, "{input:?}"),
                other => panic!("{input:?}: {other:?}"),
            }
        }
    }
}
