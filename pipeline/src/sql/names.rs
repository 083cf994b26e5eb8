//! Names that a view's columns can't have, since the table or its readers' view has a column of that name already.

use weir_operators::maintain::REVISION;
use weir_operators::view::Measure;
use weir_schemas::types::ColumnType;
use weir_sinks::clickhouse::ddl::{IS_DELETED, VERSION};
use weir_sinks::clickhouse::reader::{IS_CLOSED, IS_FINAL, STATE_SUFFIX};

use super::places::Problems;
use super::select::Item;

/// The columns that every view has besides those of its SELECT.
const TAKEN: [&str; 5] = [REVISION, IS_CLOSED, IS_FINAL, VERSION, IS_DELETED];

/// Refuses each of `items` whose name is taken, by Weir or by the state of another one of `measures`.
pub(super) fn refuse_taken(items: &[Item<'_>], measures: &[Measure], problems: &mut Problems<'_>) {
    let has_state = |measure: &&Measure| matches!(measure.call.stored_type(), ColumnType::AggregateState(_));
    for item in items {
        let of_state = item.name.strip_suffix(STATE_SUFFIX);
        let state = measures.iter().filter(has_state).find(|measure| Some(measure.name.as_str()) == of_state);
        let why = match state {
            _ if TAKEN.contains(&item.name.as_str()) => "every view has a column of that name".to_owned(),
            Some(measure) => format!("that is the state of `{}`", measure.name),
            None => continue,
        };
        problems.add(item.named_at, format!("a column can't be called `{}`: {why}", item.name), "give it another name");
    }
}
