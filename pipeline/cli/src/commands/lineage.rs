//! `weir lineage`: what reads and writes what, and which field reaches which column, without running anything.

use std::path::Path;

use weir_pipeline::bind::bind;
use weir_pipeline::clock::Clock;
use weir_pipeline::config::load::load;
use weir_pipeline::lineage::openlineage::columns::{Columns, Fields};
use weir_pipeline::lineage::openlineage::{Graph, static_events};
use weir_pipeline::{connect, readers, run};

use crate::out::say;
use crate::{OperatorRegistry, Outcome, paint, runtime};

/// Prints the graph, or its events a line each.
pub(crate) fn run(file: &Path, as_json: bool, operators: &OperatorRegistry) -> Outcome {
    let graph = match graph(file, operators) {
        Ok(graph) => graph,
        Err(outcome) => return outcome,
    };
    if as_json {
        for event in static_events(&graph, Clock::default().now()) {
            say!("{event}");
        }
    } else {
        print(&graph);
    }
    Outcome::done()
}

/// Of the parts around Weir, only the registry is asked, and only for reader schemas that aren't in a file or in the state.
fn graph(file: &Path, operators: &OperatorRegistry) -> Result<Graph, Outcome> {
    let pipeline = load(file).map_err(|problems| Outcome::problems(&problems))?;
    let registry = connect::registry(&pipeline).map_err(|error| Outcome::of_error(&error))?;
    let chosen = runtime()?.block_on(readers::choose(&pipeline, Some(&registry)));
    let readers = chosen.map_err(|error| Outcome::of_error(&error))?;
    let name = file.display().to_string();
    let bound = bind(&name, &pipeline, &readers.schemas).map_err(|problems| Outcome::problems(&problems))?;
    run::graph(&name, &pipeline, &bound, operators).map_err(|error| Outcome::of_error(&error))
}

fn print(graph: &Graph) {
    let name = |at: &usize| {
        let of = &graph.datasets[*at];
        format!("{}/{}", of.namespace, of.name)
    };
    for job in &graph.jobs {
        say!("{} {}/{}", paint::bold("job"), graph.namespace, job.name);
        job.inputs.iter().for_each(|at| say!("  reads   {}", name(at)));
        for written in &job.outputs {
            say!("  writes  {}", name(&written.dataset));
            written.columns.iter().for_each(|(_, columns)| print_columns(columns));
        }
        say!("");
    }
}

fn print_columns(columns: &Columns) {
    let mut table = paint::table(&["  column", "from", "how", "as"]);
    let mut add = |column: &str, fields: &Fields| {
        if fields.is_empty() {
            table.add_row([&format!("  {column}"), "", "", ""]);
        }
        for (field, ways) in fields {
            for way in ways {
                let (kind, subtype) = way.how.names();
                let masks = if way.masks { ", masks" } else { "" };
                let how = format!("{} {subtype}{masks}", kind.to_lowercase());
                table.add_row([&format!("  {column}"), field, &how, &way.description]);
            }
        }
    };
    columns.columns.iter().for_each(|(column, fields)| add(column, fields));
    if !columns.whole.is_empty() {
        add("(every row)", &columns.whole);
    }
    say!("{table}");
}
