//! A worked example of a custom operator: carts that nobody came back to.
//!
//! When a customer puts something into a cart and buys nothing within `wait_ms` of event time, a row says so. It
//! shows all that an operator has: batches, typed keyed state, timers, and rows of a table of its own. The built-in
//! operators are written against the same interface.
//!
//! Invariant: a cart is known from its last addition on until a purchase or its timer, whichever the watermark meets
//! first; so state is bounded by the customers of one waiting time.
//!
//! Not here: putting a customer's events into order. Within the disorder of the log, a purchase that is read before its
//! addition doesn't save the cart.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, UInt16Type};
use arrow_array::{Array, ArrayRef, BinaryArray, RecordBatch, TimestampMicrosecondArray};
use weir::CustomOperator;
use weir_operators::error::Error;
use weir_operators::operator::{Context, Operator, Timer};
use weir_operators::state::{Codec, KeyedTable, StateRegistry};
use weir_schemas::rows::{Changes, Table, TableKind};
use weir_schemas::stage::{Column, system};
use weir_schemas::time::{EventTime, Span};
use weir_schemas::types::{ColumnType, Zone};

/// Memory of one worker's carts; the rest is on disk.
const WORKING_SET_BYTES: usize = 32 << 20;

/// The number of the carts in the operator's keys on disk.
const CARTS: u16 = 0;

/// Tenant and customer.
type Customer = (Vec<u8>, Vec<u8>);

/// Describes the operator for one use in a pipeline file: `settings = { wait_ms = 1800000 }`.
///
/// # Errors
/// What is wrong with the settings, or which column the source lacks.
pub fn describe(settings: &toml::Table, columns: &[Column]) -> Result<CustomOperator, String> {
    let wait_ms = match settings.get("wait_ms").map(toml::Value::as_integer) {
        Some(Some(wait_ms)) if wait_ms > 0 => wait_ms,
        None => 1_800_000,
        Some(_) => return Err("`wait_ms` must be a whole number of milliseconds above 0".to_owned()),
    };
    if let Some(unknown) = settings.keys().find(|key| *key != "wait_ms") {
        return Err(format!("unknown setting `{unknown}`; there is only `wait_ms`"));
    }
    let index = |name: &str| {
        let found = columns.iter().position(|column| column.name == name);
        found.map(|at| at + system::COUNT).ok_or_else(|| format!("the source has no column `{name}`"))
    };
    let at = Columns { kind: index("type")?, tenant: index("tenant")?, user: index("user_id")? };
    let group = system::COUNT + columns.len();
    let table = table();
    let written = table.clone();
    Ok(CustomOperator {
        key: vec!["tenant".to_owned(), "user_id".to_owned()],
        tables: vec![table],
        build: Arc::new(move |state| {
            Ok(Box::new(AbandonedCarts::new(state, at, group, Span::from_ms(wait_ms), written.clone())?))
        }),
    })
}

/// The table that it writes.
fn table() -> Table {
    let column = |name: &str, column_type, comment: &str| Column {
        name: name.to_owned(),
        column_type,
        comment: comment.to_owned(),
    };
    let time = || ColumnType::DateTime64(6, Some(Zone::from("UTC")));
    Table {
        name: Arc::from("abandoned_carts"),
        comment: "Carts that nobody came back to".to_owned(),
        columns: vec![
            column("added_at", time(), "when something was put into the cart for the last time"),
            column("tenant", ColumnType::LowCardinality, "the shop"),
            column("user_id", ColumnType::String, "the customer"),
            column("given_up_at", time(), "when the waiting time was over, in event time"),
        ],
        key_columns: 3,
        partition_by: Some(0),
        kind: TableKind::Appended,
        retention_days: None,
    }
}

/// Indices of the columns it reads.
#[derive(Clone, Copy)]
struct Columns {
    kind: usize,
    tenant: usize,
    user: usize,
}

struct AbandonedCarts {
    /// When something was last put into a customer's cart, in microseconds.
    carts: KeyedTable<Customer, i64>,
    at: Columns,
    group: usize,
    wait: Span,
    table: Table,
    given_up: Vec<(EventTime, Customer)>,
}

impl AbandonedCarts {
    fn new(state: &mut StateRegistry, at: Columns, group: usize, wait: Span, table: Table) -> Result<Self, Error> {
        let carts = state.keyed(CARTS, WORKING_SET_BYTES)?;
        Ok(AbandonedCarts { carts, at, group, wait, table, given_up: Vec::new() })
    }

    fn timer(&self, added_at: i64, group: u16, customer: &Customer) -> Timer {
        let mut key = Vec::new();
        customer.encode(&mut key);
        Timer { at: EventTime(added_at).plus(self.wait), key, group }
    }

    /// Takes the customer's cart out of the state, with its timer.
    fn forget(&mut self, group: u16, customer: &Customer, cx: &mut Context<'_>) -> Result<(), Error> {
        let added_at = self.carts.get(group, customer)?.map(|added_at| *added_at);
        if let Some(added_at) = added_at {
            cx.cancel_timer(self.timer(added_at, group, customer));
            self.carts.remove(group, customer)?;
        }
        Ok(())
    }
}

impl Operator for AbandonedCarts {
    fn on_batch(&mut self, batch: RecordBatch, cx: &mut Context<'_>) -> Result<(), Error> {
        let kinds = batch.column(self.at.kind).as_binary::<i32>();
        let tenants = batch.column(self.at.tenant).as_binary::<i32>();
        let users = batch.column(self.at.user).as_binary::<i32>();
        let times = batch.column(system::EVENT_TIME).as_primitive::<Int64Type>();
        let groups = batch.column(self.group).as_primitive::<UInt16Type>();
        for row in (0..batch.num_rows()).filter(|row| users.is_valid(*row)) {
            let (group, added_at) = (groups.value(row), times.value(row));
            let customer = || (tenants.value(row).to_vec(), users.value(row).to_vec());
            match kinds.value(row) {
                b"add_to_cart" => {
                    let customer = customer();
                    self.forget(group, &customer, cx)?;
                    self.carts.insert(group, &customer, added_at)?;
                    cx.set_timer(self.timer(added_at, group, &customer));
                }
                b"purchase" => self.forget(group, &customer(), cx)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn on_timer(&mut self, timer: Timer, _cx: &mut Context<'_>) -> Result<(), Error> {
        let customer = Customer::decode(&mut timer.key.as_slice()).map_err(|error| Error::Custom {
            operator: "abandoned_carts".to_owned(),
            detail: format!("a timer's key: {error}"),
        })?;
        self.carts.remove(timer.group, &customer)?;
        self.given_up.push((timer.at, customer));
        Ok(())
    }

    fn end_of_epoch(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        if self.given_up.is_empty() {
            return Ok(());
        }
        let given_up = std::mem::take(&mut self.given_up);
        let added_at = given_up.iter().map(|(at, _)| at.minus(self.wait).0);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampMicrosecondArray::from_iter_values(added_at)),
            Arc::new(BinaryArray::from_iter_values(given_up.iter().map(|(_, (tenant, _))| tenant))),
            Arc::new(BinaryArray::from_iter_values(given_up.iter().map(|(_, (_, user))| user))),
            Arc::new(TimestampMicrosecondArray::from_iter_values(given_up.iter().map(|(at, _)| at.0))),
        ];
        let names = self.table.columns.iter().map(|column| column.name.as_str());
        let rows = RecordBatch::try_from_iter(names.zip(columns))?;
        cx.write(Changes { table: self.table.name.clone(), rows, deleted: None });
        Ok(())
    }
}
