//! What a plan asks of a field, and the SQL that it stands for.
//!
//! A field that isn't required may be missing: null, or empty where it is text, as a map's value is that has no such key. What
//! else is asked holds where it is there.

use serde::Deserialize;
use weir_schemas::rule::{Mode, Severity};
use weir_schemas::types::ColumnType;

use crate::rules::{literal, quoted};

/// What a plan asks of a field.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// What it holds, for people.
    #[serde(default)]
    pub description: String,
    /// Whether it has to be there.
    #[serde(default)]
    pub required: bool,
    /// What its value is; a text has to read so.
    #[serde(rename = "type")]
    pub kind: Option<Kind>,
    /// The values that it may have.
    pub one_of: Option<Vec<toml::Value>>,
    /// The least number or time.
    pub min: Option<toml::Value>,
    /// The greatest.
    pub max: Option<toml::Value>,
    /// A regular expression that matches somewhere in the text, as ClickHouse's `match` reads it.
    pub pattern: Option<String>,
    /// The least length: bytes of a text, items of an array or a map.
    pub min_length: Option<u64>,
    /// The greatest.
    pub max_length: Option<u64>,
    /// Whose it is.
    pub owner: Option<String>,
    /// How bad it is to break it.
    pub severity: Option<Severity>,
    /// What becomes of events that do.
    pub mode: Option<Mode>,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A text.
    Text,
    /// A number.
    Number,
    /// A whole number.
    Integer,
    /// True or false; as text, `true` or `false`.
    Boolean,
    /// A time; as text, in the form of ISO 8601.
    Time,
    /// A UUID.
    Uuid,
    /// An array or a map.
    List,
}

/// A time in the form of ISO 8601, as far as a regular expression sees it.
pub(crate) const TIME: &str = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})?)?$";
/// A UUID in its usual form.
pub(crate) const UUID: &str = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$";

impl Kind {
    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::Number => "number",
            Kind::Integer => "integer",
            Kind::Boolean => "boolean",
            Kind::Time => "time",
            Kind::Uuid => "uuid",
            Kind::List => "list",
        }
    }

    /// The kind of a column that is no text.
    fn of(plain: &ColumnType) -> Kind {
        match plain {
            ColumnType::Bool => Kind::Boolean,
            ColumnType::Int(_) | ColumnType::UInt(_) => Kind::Integer,
            ColumnType::Float32 | ColumnType::Float64 | ColumnType::Decimal(..) => Kind::Number,
            ColumnType::Uuid => Kind::Uuid,
            ColumnType::Array(_) | ColumnType::Map(..) => Kind::List,
            ColumnType::String | ColumnType::LowCardinality | ColumnType::FixedString(_) => Kind::Text,
            _ => Kind::Time,
        }
    }
}

/// What is wrong with a field: the key, the message, the remedy.
pub(crate) type Wrong = (&'static str, String, String);

/// Whether a column holds text.
pub(crate) fn is_text(of: &ColumnType) -> bool {
    matches!(of.without_null(), ColumnType::String | ColumnType::LowCardinality)
}

impl Field {
    /// The SQL condition that the field called `name`, of type `of`, must fulfil; `None` where nothing is asked of it.
    ///
    /// # Errors
    /// What can't be asked of such a field.
    pub(crate) fn condition(&self, name: &str, of: &ColumnType) -> Result<Option<String>, Wrong> {
        let mut asked = Vec::new();
        asked.extend(self.kind_condition(name, of)?);
        if let Some(values) = &self.one_of {
            let values: Option<Vec<String>> = values.iter().map(literal).collect();
            let values = values.filter(|values| !values.is_empty()).ok_or_else(|| {
                let message = "`one_of` names no value, or one that is no plain value".to_owned();
                ("one_of", message, "use strings, numbers or booleans".to_owned())
            })?;
            asked.push(format!("{name} IN ({})", values.join(", ")));
        }
        self.bounds(name, of, &mut asked)?;
        if let Some(pattern) = &self.pattern {
            if !is_text(of) {
                return Err(wrong("pattern", "a text", name, of));
            }
            asked.push(format!("match({name}, {})", quoted(pattern)));
        }
        self.lengths(name, of, &mut asked)?;
        let present = present(name, of);
        Ok(match (self.required, present, asked.is_empty()) {
            (_, None, true) | (false, _, true) => None,
            (_, None, false) => Some(asked.join(" AND ")),
            (true, Some((there, _)), true) => Some(there),
            (true, Some((there, _)), false) => Some(format!("{there} AND {}", asked.join(" AND "))),
            (false, Some((_, missing)), false) => Some(format!("{missing} OR ({})", asked.join(" AND "))),
        })
    }

    fn kind_condition(&self, name: &str, of: &ColumnType) -> Result<Option<String>, Wrong> {
        let Some(kind) = self.kind else { return Ok(None) };
        if !is_text(of) {
            let is = Kind::of(of.without_null());
            let fits = is == kind || (kind == Kind::Number && is == Kind::Integer);
            if !fits {
                let message = format!("`{name}` is {of} in the reader schema, and the plan says {}", kind.name());
                return Err(("type", message, format!("write type = \"{}\", or leave it out", is.name())));
            }
            return Ok(None);
        }
        Ok(match kind {
            Kind::Text => None,
            Kind::Number => Some(format!("toFloat64OrNull({name}) IS NOT NULL")),
            Kind::Integer => Some(format!("toInt64OrNull({name}) IS NOT NULL")),
            Kind::Boolean => Some(format!("{name} IN ('true', 'false')")),
            Kind::Time => Some(format!("match({name}, {})", quoted(TIME))),
            Kind::Uuid => Some(format!("match({name}, {})", quoted(UUID))),
            Kind::List => return Err(wrong("type", "an array or a map", name, of)),
        })
    }

    fn bounds(&self, name: &str, of: &ColumnType, asked: &mut Vec<String>) -> Result<(), Wrong> {
        for (key, bound, operator) in [("min", &self.min, ">="), ("max", &self.max, "<=")] {
            let Some(bound) = bound else { continue };
            let is_number = matches!(self.kind, Some(Kind::Number | Kind::Integer));
            let value = match Kind::of(of.without_null()) {
                Kind::Text if is_number => format!("toFloat64OrNull({name})"),
                Kind::Text => {
                    let message = format!("`{key}` wants a number or a time, and `{name}` is {of}");
                    return Err((key, message, "say what the text reads as: type = \"number\"".to_owned()));
                }
                Kind::Boolean | Kind::Uuid | Kind::List => return Err(wrong(key, "a number or a time", name, of)),
                _ => name.to_owned(),
            };
            let bound = literal(bound).filter(|_| !bound.is_bool()).ok_or_else(|| {
                let remedy = "write 0.5, or '2026-01-31 00:00:00'".to_owned();
                (key, format!("`{key}` is no number and no time"), remedy)
            })?;
            asked.push(format!("{value} {operator} {bound}"));
        }
        Ok(())
    }

    fn lengths(&self, name: &str, of: &ColumnType, asked: &mut Vec<String>) -> Result<(), Wrong> {
        for (key, bound, operator) in [("min_length", self.min_length, ">="), ("max_length", self.max_length, "<=")] {
            let Some(bound) = bound else { continue };
            if !is_text(of) && Kind::of(of.without_null()) != Kind::List {
                return Err(wrong(key, "a text, an array or a map", name, of));
            }
            asked.push(format!("length({name}) {operator} {bound}"));
        }
        Ok(())
    }
}

fn wrong(key: &'static str, wanted: &str, name: &str, of: &ColumnType) -> Wrong {
    (key, format!("`{key}` wants {wanted}, and `{name}` is {of}"), format!("leave `{key}` out"))
}

/// The conditions that a field is there and that it is missing; nothing where it always is.
fn present(name: &str, of: &ColumnType) -> Option<(String, String)> {
    let (is_null, is_text) = (of.is_nullable(), is_text(of));
    let is_list = matches!(of.without_null(), ColumnType::Array(_) | ColumnType::Map(..));
    match (is_null, is_text, is_list) {
        (true, true, _) => {
            Some((format!("{name} IS NOT NULL AND {name} != ''"), format!("{name} IS NULL OR {name} = ''")))
        }
        (true, false, _) => Some((format!("{name} IS NOT NULL"), format!("{name} IS NULL"))),
        (false, true, _) => Some((format!("{name} != ''"), format!("{name} = ''"))),
        (_, _, true) => Some((format!("length({name}) > 0"), format!("length({name}) = 0"))),
        _ => None,
    }
}
