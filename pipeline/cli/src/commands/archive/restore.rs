//! `weir archive restore`: a topic's records back into a topic.

use indicatif::{ProgressBar, ProgressStyle};
use weir_replay::restore;

use super::{Restore, Shelf, hold_to_topics};
use crate::out::say;
use crate::{Outcome, paint, runtime};

pub(super) fn run(asked: &Restore) -> Result<Outcome, Outcome> {
    let shelf = Shelf::open(&asked.file)?;
    hold_to_topics(&shelf.catalog, &asked.topic)?;
    let restore = restore::Restore {
        pipeline: &shelf.pipeline,
        archive: &shelf.archive,
        catalog: &shelf.catalog,
        topic: &asked.topic,
        to: &asked.to,
        append: asked.append,
    };
    let bar = ProgressBar::new(restore.records());
    let style = ProgressStyle::with_template("{bar:40} {percent:>3} %  {pos} of {len} records  {per_sec}  {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let runtime = runtime()?;
    let restored = restore.run(runtime.handle(), |records| bar.set_position(records));
    bar.finish_and_clear();
    let restored = restored.map_err(|error| Outcome::of_error(&error))?;
    say!("{} records of {} to {}", paint::count(restored.records), asked.topic, asked.to);
    if restored.before > 0 {
        say!("{} were there from an earlier run", paint::count(restored.before));
    }
    if restored.without_time > 0 {
        say!("{} carry no timestamp, or 0, and got the time of sending", paint::count(restored.without_time));
    }
    Ok(Outcome::done())
}
