//! The words of rules that stand in pipeline files, tables, headers and metrics.

use serde::Deserialize;

/// What becomes of an event that breaks a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It passes, and is counted.
    Observe,
    /// It passes, marked with the rules that it breaks.
    Tag,
    /// It is refused, whole.
    #[default]
    Quarantine,
}

impl Mode {
    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Observe => "observe",
            Mode::Tag => "tag",
            Mode::Quarantine => "quarantine",
        }
    }

    /// Whether an event that breaks the rule passes.
    pub fn passes(self) -> bool {
        self != Mode::Quarantine
    }
}

/// How bad it is when a rule is broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Somebody should look at it.
    #[default]
    Warning,
    /// Numbers that people rely on are wrong.
    Critical,
}

impl Severity {
    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}
