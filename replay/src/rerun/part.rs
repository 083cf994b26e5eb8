//! A part of the events: those that meet a condition, those of some partitions or offsets.
//!
//! A condition leaves whole rows whole where it asks for nothing but a view's dimensions; such rows can be held against the
//! live ones, and no others. Partitions cut through rows, so what comes of them can be looked at, and stand in for nothing.

use weir_operators::expr::Expr;
use weir_operators::view::ViewPlan;
use weir_pipeline::bind::BoundSource;
use weir_pipeline::config::{Pipeline, Source};
use weir_pipeline::slice::Stretch;
use weir_schemas::stage::system;

use super::record::Record;
use super::survey::Survey;

/// A topic, one of its partitions, or some offsets of that, as a person names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    topic: String,
    partition: Option<i32>,
    /// The first offset, and the one after the last.
    offsets: (i64, i64),
}

/// Reads `events`, `events/3` or `events/3@100..200`; the last offset is the one before the second number.
///
/// # Errors
/// What is wrong with it.
pub fn parse_chosen(text: &str) -> Result<Chosen, String> {
    let wrong =
        || "write a topic, topic/partition or topic/partition@first..next, such as events/3@100..200".to_owned();
    let (place, offsets) = match text.split_once('@') {
        Some((place, offsets)) => {
            let (first, next) = offsets.split_once("..").ok_or_else(wrong)?;
            let number = |text: &str| text.parse().ok().filter(|number: &i64| *number >= 0).ok_or_else(wrong);
            (place, Some((number(first)?, number(next)?)))
        }
        None => (text, None),
    };
    let (topic, partition) = match place.rsplit_once('/') {
        Some((topic, partition)) => {
            (topic, Some(partition.parse().ok().filter(|at: &i32| *at >= 0).ok_or_else(wrong)?))
        }
        None => (place, None),
    };
    let is_whole = offsets.is_none();
    let offsets = offsets.unwrap_or((0, i64::MAX));
    if topic.is_empty() || offsets.0 >= offsets.1 || (partition.is_none() && !is_whole) {
        return Err(wrong());
    }
    Ok(Chosen { topic: topic.to_owned(), partition, offsets })
}

impl Chosen {
    /// What of a stretch is chosen.
    fn of(&self, stretch: &Stretch) -> Option<Stretch> {
        if self.topic != stretch.topic || self.partition.is_some_and(|partition| partition != stretch.partition) {
            return None;
        }
        let (first, next) = (stretch.first.max(self.offsets.0), stretch.next.min(self.offsets.1));
        (first < next).then(|| Stretch { first, next, ..stretch.clone() })
    }
}

/// Leaves in `survey` what is chosen; says whether that is less than there was. Where two choices meet in a partition, what
/// lies between them is read, too.
pub fn choose(survey: &mut Survey, chosen: &[Chosen]) -> bool {
    if chosen.is_empty() {
        return false;
    }
    let before = survey.slice.offsets();
    let some_of = |stretch: &Stretch| {
        let mut parts = chosen.iter().filter_map(|one| one.of(stretch));
        let first = parts.next()?;
        Some(parts.fold(first, |all, part| Stretch {
            first: all.first.min(part.first),
            next: all.next.max(part.next),
            ..all
        }))
    };
    survey.slice.stretches = survey.slice.stretches.iter().filter_map(some_of).collect();
    survey.forgotten = survey.forgotten.iter().filter_map(some_of).collect();
    survey.slice.offsets() < before
}

/// Holds the sources of `pipeline` that `is_read` names to the events that meet `condition`.
pub fn narrow(pipeline: &mut Pipeline, condition: Option<&str>, is_read: impl Fn(&str, &Source) -> bool) {
    for (name, source) in &mut pipeline.sources {
        source.only = condition.filter(|_| is_read(name, source)).map(str::to_owned);
    }
}

/// Holds the sources of `pipeline` that the replay of `record` reads to the events that it is for.
pub fn narrow_to(pipeline: &mut Pipeline, record: &Record) {
    let is_read = |source: &Source| source.all_topics().iter().any(|topic| record.reads_topic(topic));
    narrow(pipeline, record.condition.as_deref(), |_, source| is_read(source));
}

/// A column that the condition of `source` asks for and that is no dimension of `view` under the same name: rows of this view
/// then hold a part of what the live ones hold.
pub fn cut_by(view: &ViewPlan, source: &BoundSource) -> Option<String> {
    let mut cut = None;
    source.only.as_ref()?.visit_columns(&mut |index| {
        let name = index.checked_sub(system::COUNT).and_then(|at| source.columns.get(at)).map(|column| &column.name);
        let is_dimension = view.dimensions.iter().any(|dimension| {
            Some(&dimension.name) == name && matches!(&dimension.value, Expr::Column { index: of, .. } if *of == index)
        });
        if !is_dimension && cut.is_none() {
            cut = Some(name.cloned().unwrap_or_else(|| "a column that isn't told".to_owned()));
        }
    });
    cut
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use weir_pipeline::slice::Slice;
    use weir_schemas::time::EventTime;

    use super::*;

    #[test]
    fn what_a_person_names_is_read_or_refused() {
        let chosen = |partition, offsets| Chosen { topic: "a/b".to_owned(), partition, offsets };
        assert_eq!(parse_chosen("a/b/3"), Ok(chosen(Some(3), (0, i64::MAX))));
        assert_eq!(parse_chosen("a/b/3@5..9"), Ok(chosen(Some(3), (5, 9))));
        assert_eq!(parse_chosen("events").map(|one| one.partition), Ok(None));
        for wrong in ["", "/3", "events/x", "events/-1", "events@1..2", "events/1@2", "events/1@2..2", "events/1@-1..2"]
        {
            assert!(parse_chosen(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_chosen_stays() {
        let stretch =
            |partition, first, next| Stretch { topic: "events".to_owned(), partition, first, next, watermark: None };
        let survey = |stretches| Survey {
            slice: Slice { stretches, from: EventTime(0), to: EventTime(1) },
            forgotten: Vec::new(),
            by_log_time: Vec::new(),
            schemas: BTreeMap::new(),
        };
        let all = vec![stretch(0, 10, 20), stretch(1, 0, 50), stretch(2, 5, 6)];
        let mut some = survey(all.clone());
        assert!(!choose(&mut some, &[]));
        assert_eq!(some.slice.stretches, all);
        let chosen: Vec<Chosen> = ["events/0@0..15", "events/1@40..90"].map(|text| parse_chosen(text).unwrap()).into();
        assert!(choose(&mut some, &chosen));
        assert_eq!(some.slice.stretches, [stretch(0, 10, 15), stretch(1, 40, 50)]);
        assert!(choose(&mut some, &[parse_chosen("others").unwrap()]));
        assert!(some.slice.stretches.is_empty());
    }
}
