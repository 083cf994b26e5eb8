//! `weir archive verify`: whether the archive is whole.

use std::path::Path;

use weir_pipeline::clock::Clock;

use super::{Shelf, of_archive};
use crate::out::say;
use crate::{Outcome, counted, paint};

/// Objects that a killed writer left which are named, at most.
const SHOWN: usize = 10;

pub(super) fn run(file: &Path) -> Result<Outcome, Outcome> {
    let shelf = Shelf::open(file)?;
    if shelf.catalog.number == 0 {
        let remedy = "check the address; the first `weir run` makes it";
        return Err(Outcome::refused(format!("there is no archive at {}", shelf.archive.store().url()), remedy));
    }
    let now = chrono::DateTime::from_timestamp_millis(Clock::default().now_ms()).unwrap_or_default();
    let bar = indicatif::ProgressBar::new(shelf.catalog.entries.len() as u64);
    let verified = shelf.archive.verify(&shelf.catalog, now, || bar.inc(1));
    bar.finish_and_clear();
    let verified = verified.map_err(of_archive)?;
    say!(
        "{} objects, {} records, {} of commit {}",
        paint::count(verified.objects),
        paint::count(verified.records),
        paint::bytes(verified.bytes),
        shelf.catalog.number
    );
    for (topic, logs) in &shelf.catalog.topics {
        for (partition, log) in logs {
            for gap in &log.gaps {
                say!(
                    "gap  {topic}/{partition}: offsets {} to {} expired before they were archived",
                    gap.first,
                    gap.next
                );
            }
        }
    }
    if verified.waiting > 0 {
        say!("{}", paint::dim(&format!("{} replaced or expired, deleted later", counted(verified.waiting, "object"))));
    }
    for name in verified.left_over.iter().take(SHOWN) {
        say!("{}", paint::dim(&format!("left over from an interrupted write, swept later: {name}")));
    }
    if verified.left_over.len() > SHOWN {
        say!("{}", paint::dim(&format!("and {} more of those", verified.left_over.len() - SHOWN)));
    }
    for fault in &verified.faults {
        say!("{}  {}: {}", paint::bad(fault.kind), fault.name, fault.detail);
    }
    if verified.faults.is_empty() {
        say!("{}", paint::good("whole"));
        return Ok(Outcome::done());
    }
    say!("{}", paint::bad(&format!("{} found", counted(verified.faults.len(), "fault"))));
    Ok(Outcome::different())
}
