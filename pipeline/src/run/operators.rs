//! A team's own operators: each that a pipeline file names, asked what it is.

use crate::bind::Bound;
use crate::config::Pipeline;
use crate::custom::{CustomOperator, OperatorRegistry};
use crate::error::Error;
use crate::problem::{Problem, nearest};

/// A use of a custom operator: its name and its source in the pipeline file, and what it is.
pub(super) struct Described {
    pub(super) name: String,
    pub(super) source: String,
    pub(super) operator: CustomOperator,
}

/// Every operator of the file, or every problem with them.
pub(super) fn describe(
    file: &str,
    pipeline: &Pipeline,
    bound: &Bound,
    operators: &OperatorRegistry,
) -> Result<Vec<Described>, Error> {
    let (mut described, mut problems) = (Vec::new(), Vec::new());
    for (name, custom) in &pipeline.operators {
        let Some(describe) = operators.get(&custom.uses) else {
            let remedy = match nearest(&custom.uses, operators.names()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "register it in the program's `main`, or run the program that does".to_owned(),
            };
            let message = format!("operator `{name}` uses `{}`, which this program doesn't know", custom.uses);
            problems.push(Problem::of_file(file, message, remedy));
            continue;
        };
        let columns = bound.source(&custom.source).map(|source| source.columns.as_slice()).unwrap_or_default();
        match describe(&custom.settings, columns) {
            Ok(operator) => {
                described.push(Described { name: name.clone(), source: custom.source.clone(), operator });
            }
            Err(message) => problems.push(Problem::of_file(
                file,
                format!("operator `{name}`: {message}"),
                "correct its `settings`, or the source that it names",
            )),
        }
    }
    if problems.is_empty() { Ok(described) } else { Err(Error::Config(problems)) }
}
