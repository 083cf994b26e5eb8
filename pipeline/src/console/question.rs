//! Questions about a view: from what a browser asks to a SELECT with parameters, and the same text to copy.
//!
//! Invariants: names come from the [`View`]; values travel as ClickHouse's own parameters (`{from:DateTime('UTC')}`), never
//! within the text; columns are qualified, so that an alias of the same name is never taken for them.
//!
//! Not here: asking (`ask`), how wide points may be (`steps`), and Weir's own tables (`health`).

use chrono::DateTime;
use weir_sinks::clickhouse::ddl::physical;
use weir_sinks::clickhouse::{base_table, identifier, literal};

use super::catalog::{Catalog, Dimension, Measure, View};
use super::fault::Fault;
use super::steps::{interval_of, step_for, steps_of, week_before};

/// Points of all lines, at most.
const POINTS_MAX: i64 = 50_000;
/// Lines of a chart by dimension, at most.
const LINES: usize = 8;
/// Rows of a ranking, and of a list of values.
const RANKED: usize = 25;
/// Values of one dimension that are offered as filters.
const OFFERED: usize = 200;
/// Filters of one question, and bytes of a value, at most.
const FILTERS_MAX: usize = 20;
const VALUE_BYTES_MAX: usize = 10_000;
/// A SELECT with parameters, ready to be asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Question {
    /// The text.
    pub(super) sql: String,
    /// Values, by name.
    pub(super) parameters: Vec<Parameter>,
}

/// A value of a question.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Parameter {
    /// Its name.
    pub(super) name: String,
    /// Its ClickHouse type.
    pub(super) kind: &'static str,
    /// Its value, as text.
    pub(super) value: String,
}

impl Parameter {
    fn placeholder(&self) -> String {
        format!("{{{}:{}}}", self.name, self.kind)
    }
}

impl Question {
    /// A question without values.
    pub(super) fn plain(sql: String) -> Question {
        Question { sql, parameters: Vec::new() }
    }

    /// The text with the values in place, to be copied.
    pub(super) fn to_copy(&self) -> String {
        let (mut copy, mut rest) = (String::with_capacity(self.sql.len()), self.sql.as_str());
        // In one pass, since a value may look like a parameter.
        while let Some(at) = rest.find('{') {
            copy.push_str(&rest[..at]);
            rest = &rest[at..];
            let here = |of: &&Parameter| rest.starts_with(&of.placeholder());
            let length = match self.parameters.iter().find(here) {
                Some(of) if of.kind == TIME => {
                    copy.push_str(&format!("toDateTime({}, 'UTC')", literal(&of.value)));
                    of.placeholder().len()
                }
                Some(of) => {
                    copy.push_str(&literal(&of.value));
                    of.placeholder().len()
                }
                None => {
                    copy.push('{');
                    1
                }
            };
            rest = &rest[length..];
        }
        copy + rest
    }
}

/// Types of parameters.
pub(super) const TIME: &str = "DateTime('UTC')";
const TEXT: &str = "String";

/// What is asked of a view, checked.
#[derive(Clone, Debug)]
pub(super) struct Asked<'a> {
    view: &'a View,
    from: String,
    measure: Option<&'a Measure>,
    by: Option<&'a Dimension>,
    range: (i64, i64),
    /// The width of a point, in seconds.
    pub(super) step_s: i64,
    filters: Vec<(&'a Dimension, Option<String>)>,
}

impl<'a> Asked<'a> {
    /// Reads `pairs`: `measure`, `by`, `from` and `to` in seconds since 1970, `step` in seconds, `filter.NAME` and
    /// `null.NAME`, and `tenant`, which is the filter of the tenant's dimension.
    ///
    /// # Errors
    /// What is wrong with them, and what would be right.
    pub(super) fn of(catalog: &Catalog, view: &'a View, pairs: &[(String, String)]) -> Result<Asked<'a>, Fault> {
        let given = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let given = |name: &str| given(name).filter(|value| !value.is_empty());
        let number = |name: &str| -> Result<Option<i64>, Fault> {
            let Some(text) = given(name) else { return Ok(None) };
            let number = text.parse().ok().filter(|number: &i64| (0..=MAX_S).contains(number));
            number.map(Some).ok_or_else(|| Fault::asked(format!("`{name}` is no time"), "give seconds since 1970"))
        };
        let measure = match given("measure") {
            None => view.measures.iter().find(|measure| measure.is_number),
            Some(name) => Some(view.measure(name).ok_or_else(|| unknown("measure", view, name))?),
        };
        let by = match given("by") {
            None => None,
            Some(name) => Some(view.dimension(name).ok_or_else(|| unknown("dimension", view, name))?),
        };
        let to = number("to")?.unwrap_or(MAX_S);
        let from = number("from")?.unwrap_or(0);
        if from >= to {
            return Err(Fault::asked("the range ends before it begins", "give a `from` before `to`"));
        }
        let step_s = match number("step")? {
            None => step_for(view, to - from),
            Some(step) if steps_of(view).any(|(of, _)| of == step) => step,
            Some(_) => return Err(Fault::asked("no such step", "take one of those that /api/views lists")),
        };
        if (to - from) / step_s > POINTS_MAX {
            return Err(Fault::asked(
                "the range has too many points of this step",
                "take a wider step or a shorter range",
            ));
        }
        let filters = filters_of(view, pairs)?;
        Ok(Asked { view, from: catalog.qualified(&view.name), measure, by, range: (from, to), step_s, filters })
    }

    /// The same a week earlier, by the view's calendar.
    pub(super) fn week_before(&self) -> Asked<'a> {
        let (from, to) = self.range;
        let before = |at_s| week_before(self.view, at_s);
        Asked { range: (before(from).max(0), before(to).max(1)), ..self.clone() }
    }

    /// The measure in points of `step_s`: the time, the dimension's value where one is named, the value.
    ///
    /// # Errors
    /// When the view has no measure to draw.
    pub(super) fn series(&self) -> Result<Question, Fault> {
        let measure = self.measure()?;
        let mut parameters = Vec::new();
        let conditions = self.conditions("v", self.step_s, &mut parameters);
        let window = identifier(&self.view.window);
        let bucket = self.bucket(&format!("v.{window}"));
        let value = format!("{} AS {}", measure.over("v"), identifier(&measure.name));
        let from = &self.from;
        let sql = match self.by {
            None => format!(
                "SELECT {bucket} AS {window}, {value}\nFROM {from} AS v\nWHERE {conditions}\n\
                 GROUP BY {window}\nORDER BY {window}\nLIMIT {POINTS_MAX}"
            ),
            Some(by) => {
                let name = identifier(&by.name);
                let greatest = self.conditions("t", self.step_s, &mut Vec::new());
                let order = measure.over("t");
                format!(
                    "SELECT {bucket} AS {window}, v.{name} AS {name}, {value}\nFROM {from} AS v\nWHERE {conditions}\n  \
                     AND v.{name} IN (\n    SELECT t.{name} FROM {from} AS t\n    WHERE {greatest}\n    \
                     GROUP BY t.{name} ORDER BY {order} DESC LIMIT {LINES})\n\
                     GROUP BY {window}, {name}\nORDER BY {window}, {name}\nLIMIT {POINTS_MAX}\n\
                     SETTINGS transform_null_in = 1"
                )
            }
        };
        Ok(Question { sql, parameters })
    }

    /// The measure over the whole range: one value. Of a view with HAVING it is over the rows that met it.
    ///
    /// # Errors
    /// When the view has no measure to draw.
    pub(super) fn total(&self) -> Result<Question, Fault> {
        let measure = self.measure()?;
        let mut parameters = Vec::new();
        let conditions = self.conditions("v", self.step_s, &mut parameters);
        let sql = format!(
            "SELECT {} AS {}\nFROM {} AS v\nWHERE {conditions}",
            measure.over("v"),
            identifier(&measure.name),
            self.from
        );
        Ok(Question { sql, parameters })
    }

    /// The greatest values of the measure by dimension.
    ///
    /// # Errors
    /// When the view has no measure to draw, or no dimension is named.
    pub(super) fn top(&self) -> Result<Question, Fault> {
        let measure = self.measure()?;
        let by = self.by.ok_or_else(|| Fault::asked("no dimension is named", "give one as `by`"))?;
        let mut parameters = Vec::new();
        let conditions = self.conditions("v", self.step_s, &mut parameters);
        let (name, value) = (identifier(&by.name), identifier(&measure.name));
        let sql = format!(
            "SELECT v.{name} AS {name}, {} AS {value}\nFROM {} AS v\nWHERE {conditions}\n\
             GROUP BY {name}\nORDER BY {value} DESC, {name}\nLIMIT {RANKED}",
            measure.over("v"),
            self.from
        );
        Ok(Question { sql, parameters })
    }

    /// Rows as they are, the newest first.
    pub(super) fn rows(&self, limit: usize) -> Question {
        let mut parameters = Vec::new();
        let conditions = self.conditions("v", self.view.window_s, &mut parameters);
        let names = std::iter::once(&self.view.window)
            .chain(self.view.dimensions.iter().map(|dimension| &dimension.name))
            .chain(self.view.measures.iter().map(|measure| &measure.name));
        let mut columns: Vec<String> = names.map(|name| format!("v.{0} AS {0}", identifier(name))).collect();
        let own = ["revision", "is_closed", "is_final"];
        columns.extend(own.iter().map(|name| format!("v.{0} AS {0}", identifier(name))));
        let dimensions = self.view.dimensions.iter().map(|dimension| format!(", v.{}", identifier(&dimension.name)));
        let sql = format!(
            "SELECT {}\nFROM {} AS v\nWHERE {conditions}\nORDER BY v.{} DESC{}\nLIMIT {limit}",
            columns.join(", "),
            self.from,
            identifier(&self.view.window),
            dimensions.collect::<String>()
        );
        Question { sql, parameters }
    }

    /// Values of the named dimension that occur in the range, the most frequent first.
    ///
    /// # Errors
    /// When no dimension is named.
    pub(super) fn values(&self) -> Result<Question, Fault> {
        let by = self.by.ok_or_else(|| Fault::asked("no dimension is named", "give one as `by`"))?;
        let mut parameters = Vec::new();
        let others = Asked {
            filters: self.filters.iter().filter(|(of, _)| of.name != by.name).cloned().collect(),
            ..self.clone()
        };
        let conditions = others.conditions("v", self.step_s, &mut parameters);
        let name = identifier(&by.name);
        let sql = format!(
            "SELECT v.{name} AS {name}, count() AS rows\nFROM {} AS v\nWHERE {conditions}\nGROUP BY {name}\n\
             ORDER BY rows DESC, {name}\nLIMIT {OFFERED}",
            self.from
        );
        Ok(Question { sql, parameters })
    }

    /// The measure that is asked for.
    ///
    /// # Errors
    /// When there is none that can be drawn.
    pub(super) fn measure(&self) -> Result<&'a Measure, Fault> {
        let measure = self.measure.filter(|measure| measure.is_number);
        measure.ok_or_else(|| Fault::asked("the measure is no number", "look at the view as a table"))
    }

    /// The start of the point that a time lies in.
    fn bucket(&self, time: &str) -> String {
        if self.step_s == self.view.window_s {
            return time.to_owned();
        }
        format!("toStartOfInterval({time}, INTERVAL {})", interval_of(self.step_s))
    }

    /// The range, widened to whole points at both ends, and the filters.
    fn conditions(&self, alias: &str, step_s: i64, parameters: &mut Vec<Parameter>) -> String {
        let window = format!("{alias}.{}", identifier(&self.view.window));
        let zone = literal(&self.view.zone);
        let is_date = self.view.is_date;
        let mut time = |name: &str, at: i64| {
            parameters.push(Parameter { name: name.to_owned(), kind: TIME, value: shown(at) });
            format!("{{{name}:{TIME}}}")
        };
        let in_zone = |time: &str| format!("{}({time}, {zone})", if is_date { "toDate" } else { "toTimeZone" });
        let is_own = step_s == self.view.window_s;
        let (from, to) = self.range;
        let from = time("from", if is_own { from - from.rem_euclid(step_s.min(3_600)) } else { from });
        let to = time("to", to);
        // Ends are compared as points: the length of one isn't always the same.
        let last = in_zone(&format!("{to} - INTERVAL 1 SECOND"));
        let mut conditions = match (is_own, is_date) {
            (true, false) => vec![format!("{window} >= {from}"), format!("{window} < {to}")],
            (true, true) => vec![format!("{window} >= {}", in_zone(&from)), format!("{window} <= {last}")],
            (false, _) => {
                // Of weeks it is a date, whatever its argument.
                let first = self.bucket(&in_zone(&from));
                let first = if is_date { format!("toDate({first})") } else { format!("toDateTime({first}, {zone})") };
                vec![format!("{window} >= {first}"), format!("{} <= {}", self.bucket(&window), self.bucket(&last))]
            }
        };
        for (at, (dimension, value)) in self.filters.iter().enumerate() {
            let column = format!("{alias}.{}", identifier(&dimension.name));
            let Some(value) = value else {
                conditions.push(format!("{column} IS NULL"));
                continue;
            };
            let name = format!("is{at}");
            parameters.push(Parameter { name: name.clone(), kind: TEXT, value: value.clone() });
            let column = if dimension.is_text { column } else { format!("toString({column})") };
            conditions.push(format!("{column} = {{{name}:{TEXT}}}"));
        }
        conditions.join(" AND ")
    }
}

/// The first and the last window that a view has had. Asked of the table behind it, which answers from its parts' bounds;
/// a row that was deleted may count.
pub(super) fn extent(catalog: &Catalog, view: &View) -> Question {
    let window = identifier(&physical(&view.window));
    let table = catalog.qualified(&base_table(&view.name));
    Question::plain(format!(
        "SELECT min({window}) AS first, max({window}) AS last, count() > 0 AS is_there FROM {table}"
    ))
}

/// The greatest time, in seconds: the end of ClickHouse's DateTime.
const MAX_S: i64 = 4_291_747_200;

fn filters_of<'a>(view: &'a View, pairs: &[(String, String)]) -> Result<Vec<(&'a Dimension, Option<String>)>, Fault> {
    let mut filters = Vec::new();
    for (key, value) in pairs {
        let (name, value) = match (key.strip_prefix("filter."), key.strip_prefix("null."), key.as_str()) {
            (Some(name), ..) => (name, Some(value.clone())),
            (_, Some(name), _) => (name, None),
            (.., "tenant") if !value.is_empty() => match &view.tenant {
                Some(tenant) => (tenant.as_str(), Some(value.clone())),
                None => continue,
            },
            _ => continue,
        };
        if value.as_ref().is_some_and(|value| value.len() > VALUE_BYTES_MAX) {
            return Err(Fault::asked("the value of a filter is too long", "filter by another dimension"));
        }
        filters.push((view.dimension(name).ok_or_else(|| unknown("dimension", view, name))?, value));
    }
    if filters.len() > FILTERS_MAX {
        return Err(Fault::asked("too many filters", "leave some out"));
    }
    Ok(filters)
}

fn unknown(what: &str, view: &View, name: &str) -> Fault {
    let shown: String = name.chars().take(80).collect();
    Fault::asked(format!("the view {} has no {what} `{shown}`", view.name), "take one that /api/views lists")
}

/// A time as ClickHouse reads it.
pub(super) fn shown(at_s: i64) -> String {
    DateTime::from_timestamp(at_s, 0).unwrap_or_default().format("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog() -> Catalog {
        let dimension = |name: &str, kind: &str| Dimension {
            name: name.to_owned(),
            kind: kind.to_owned(),
            is_text: kind == "String",
        };
        let measure = |name: &str, rollup: &str, column: &str| Measure {
            name: name.to_owned(),
            kind: "UInt64".to_owned(),
            function: String::new(),
            is_number: true,
            is_additive: false,
            empty_is_zero: false,
            rollup: rollup.to_owned(),
            column: column.to_owned(),
        };
        let view = View {
            name: "by_minute".to_owned(),
            window: "window_start".to_owned(),
            window_s: 60,
            wider_s: vec![300, 3_600, 21_600, 86_400],
            zone: "UTC".to_owned(),
            dimensions: vec![dimension("tenant", "String"), dimension("level", "UInt8")],
            tenant: Some("tenant".to_owned()),
            measures: vec![
                measure("orders", "sum({})", "orders"),
                measure("users", "uniqExactMerge({})", "users_state"),
            ],
            ..View::default()
        };
        Catalog { database: "weir".to_owned(), views: vec![view], ..Catalog::default() }
    }

    fn asked<'a>(catalog: &'a Catalog, pairs: &[(&str, &str)]) -> Result<Asked<'a>, Fault> {
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Asked::of(catalog, &catalog.views[0], &pairs)
    }

    #[test]
    fn wider_points_merge_states_and_values_stay_outside_of_the_text() {
        let catalog = catalog();
        let pairs = [("measure", "users"), ("from", "90"), ("to", "9000"), ("step", "3600"), ("tenant", "o'hara")];
        let question = asked(&catalog, &pairs).expect("fine").series().expect("a number");
        assert_eq!(
            question.sql,
            "SELECT toStartOfInterval(v.`window_start`, INTERVAL 1 HOUR) AS `window_start`, \
             uniqExactMerge(v.`users_state`) AS `users`\nFROM `weir`.`by_minute` AS v\n\
             WHERE v.`window_start` >= \
             toDateTime(toStartOfInterval(toTimeZone({from:DateTime('UTC')}, 'UTC'), INTERVAL 1 HOUR), 'UTC') \
             AND toStartOfInterval(v.`window_start`, INTERVAL 1 HOUR) <= \
             toStartOfInterval(toTimeZone({to:DateTime('UTC')} - INTERVAL 1 SECOND, 'UTC'), INTERVAL 1 HOUR) \
             AND v.`tenant` = {is0:String}\nGROUP BY `window_start`\nORDER BY `window_start`\nLIMIT 50000"
        );
        let copy = question.to_copy();
        assert!(copy.contains("v.`tenant` = 'o\\'hara'"), "{copy}");
        assert!(copy.contains("toTimeZone(toDateTime('1970-01-01 02:30:00', 'UTC') - INTERVAL 1 SECOND"), "{copy}");
    }

    #[test]
    fn what_isnt_there_is_refused_by_name() {
        let catalog = catalog();
        for (pairs, told) in [
            (&[("measure", "x; DROP TABLE y")][..], "has no measure `x; DROP TABLE y`"),
            (&[("by", "orders")], "has no dimension `orders`"),
            (&[("filter.nobody", "1")], "has no dimension `nobody`"),
            (&[("from", "-1")], "`from` is no time"),
            (&[("from", "9"), ("to", "9")], "ends before it begins"),
            (&[("step", "90")], "no such step"),
            (&[("step", "60")], "too many points"),
        ] {
            let fault = asked(&catalog, pairs).err().map(|fault| fault.what).unwrap_or_default();
            assert!(fault.contains(told), "{fault}");
        }
    }

    #[test]
    fn a_week_earlier_asks_the_same_of_other_times() {
        let catalog = catalog();
        let of = asked(&catalog, &[("from", "1209600"), ("to", "1209660")]).expect("fine");
        let (now, before) = (of.series().expect("now"), of.week_before().series().expect("before"));
        assert_eq!(now.sql, before.sql);
        assert_eq!(before.parameters[0].value, "1970-01-08 00:00:00");
    }

    #[test]
    fn dates_are_taken_by_whole_weeks_and_the_day_that_a_range_ends_in_counts() {
        let mut catalog = catalog();
        let view = &mut catalog.views[0];
        (view.is_date, view.window_s, view.wider_s, view.zone) =
            (true, 86_400, vec![604_800], "Europe/Berlin".to_owned());
        let sql = |step: &str| {
            let pairs = [("measure", "orders"), ("from", "90"), ("to", "900000"), ("step", step)];
            asked(&catalog, &pairs).expect("fine").total().expect("a number").to_copy()
        };
        let (from, to) = ("toDateTime('1970-01-01 00:01:30', 'UTC')", "toDateTime('1970-01-11 10:00:00', 'UTC')");
        let last = format!("toDate({to} - INTERVAL 1 SECOND, 'Europe/Berlin')");
        let weeks = sql("604800");
        let first = format!("toDate(toStartOfInterval(toDate({from}, 'Europe/Berlin'), INTERVAL 1 WEEK))");
        assert!(weeks.contains(&format!("v.`window_start` >= {first} AND ")), "{weeks}");
        let ends = format!(
            "toStartOfInterval(v.`window_start`, INTERVAL 1 WEEK) <= toStartOfInterval({last}, INTERVAL 1 WEEK)"
        );
        assert!(weeks.contains(&ends), "{weeks}");
        let days = sql("86400");
        assert!(days.ends_with(&format!("v.`window_start` <= {last}")), "{days}");
    }

    #[test]
    fn a_view_with_having_has_points_of_its_own_windows_only() {
        let mut catalog = catalog();
        catalog.views[0].wider_s.clear();
        let fault = asked(&catalog, &[("to", "9000"), ("step", "3600")]).err().map(|fault| fault.what);
        assert_eq!(fault.as_deref(), Some("no such step"));
    }
}
