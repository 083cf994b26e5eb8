//! A view's plan: what the SQL of a view says, typed and bound to a source's columns.
//!
//! The planner writes it, `check` prints it, the `combine` and `aggregate` operators compute it. It holds no
//! SQL text beyond the names that the analyst gave.

use weir_schemas::stage::Column;
use weir_schemas::time::{EventTime, Span};
use weir_schemas::types::{ColumnType, Zone};

use crate::aggregate::Call;
use crate::expr::Expr;

/// A query that is kept live.
#[derive(Clone, Debug)]
pub struct ViewPlan {
    /// The view's name: its file's name without `.sql`.
    pub name: String,
    /// The source that stands in FROM.
    pub source: String,
    /// WHERE, over the events' columns; rows where it is false or null do not count.
    pub filter: Option<Expr>,
    /// The window that every row belongs to.
    pub window: Window,
    /// The grouping columns besides the window, in the order of the SELECT.
    pub dimensions: Vec<Dimension>,
    /// The aggregates, in the order of the SELECT.
    pub measures: Vec<Measure>,
    /// The SELECT's columns in their order.
    pub outputs: Vec<Output>,
    /// HAVING, over a batch that has the columns of `outputs` in their order, finalised.
    pub having: Option<Expr>,
}

/// A column of the SELECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The window's start.
    Window,
    /// `dimensions[i]`.
    Dimension(usize),
    /// `measures[i]`.
    Measure(usize),
}

/// A grouping column.
#[derive(Clone, Debug)]
pub struct Dimension {
    /// Its name in the SELECT.
    pub name: String,
    /// Its value, over the events' columns.
    pub value: Expr,
}

/// An aggregate column.
#[derive(Clone, Debug)]
pub struct Measure {
    /// Its name in the SELECT.
    pub name: String,
    /// What is computed.
    pub call: Call,
}

/// A tumbling window over the source's event time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The name of the window's start in the SELECT.
    pub name: String,
    /// The type of the window's start as ClickHouse gives it (`DateTime`, `Date`, `DateTime64`).
    pub column_type: ColumnType,
    /// The width.
    pub width: Width,
    /// The zone whose calendar cuts the windows; `None` is UTC.
    pub zone: Option<Zone>,
}

/// How wide a window is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// A fixed span of seconds or minutes, counted from 1970-01-01T00:00:00Z whatever the zone: so
    /// `INTERVAL 60 MINUTE` cuts at half past in `Asia/Kolkata`, as ClickHouse does.
    Fixed(Span),
    /// Hours of the zone's clock, counted from each local midnight: so `INTERVAL 5 HOUR` leaves a rest of four
    /// hours at the end of a day. 24 and more are one day.
    Hours(u32),
    /// Whole calendar days of the zone, counted from 1970-01-01.
    Days(u32),
}

/// A window of a row: `[start, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bounds {
    /// The first instant.
    pub start: EventTime,
    /// The first instant after it.
    pub end: EventTime,
}

impl ViewPlan {
    /// The SELECT's columns with their finalised types, as a reader of the view sees them.
    pub fn columns(&self) -> Vec<Column> {
        self.outputs
            .iter()
            .map(|output| match *output {
                Output::Window => Column::new(&self.window.name, self.window.column_type.clone()),
                Output::Dimension(at) => {
                    let dimension = &self.dimensions[at];
                    Column::new(&dimension.name, dimension.value.column_type().clone())
                }
                Output::Measure(at) => {
                    let measure = &self.measures[at];
                    Column::new(&measure.name, measure.call.result_type().clone())
                }
            })
            .collect()
    }
}
