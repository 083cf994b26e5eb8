//! Delivery of one table's rows: bounded inserts that may be repeated.
//!
//! A repeated insert writes the same rows with the same versions again, which the base table's engine and the
//! reader's view make one. Rows and tombstones go in inserts of their own, since a tombstone has fewer columns; which
//! of the two arrives first doesn't matter, the version decides.

use bytes::{Bytes, BytesMut};
use clickhouse::insert_formatted::InsertFormatted;
use weir_schemas::rows::Table;

use super::classify::classify;
use super::client::Client;
use super::ddl::{IS_DELETED, VERSION, physical};
use super::encode::{ROWS, TOMBSTONE};
use super::{base_table, identifier};
use crate::error::DeliveryError;
use crate::sink::{BoxFuture, Deliver, Delivery, OutRow};

/// An insert ends with the block that reaches this many rows.
const INSERT_ROWS: u64 = 100_000;
/// An insert ends with the block that reaches this many bytes, before compression.
const INSERT_BYTES: usize = 32 << 20;
/// Pieces of this size are compressed and sent at once.
const PIECE_BYTES: usize = 256 << 10;

/// Inserts rows that a [`TableEncoder`](super::TableEncoder) of the same table encoded.
pub struct TableSink {
    client: Client,
    insert_rows: String,
    insert_tombstones: String,
}

impl TableSink {
    /// A sink for `table`, whose base table has to exist.
    pub fn new(client: Client, table: &Table) -> TableSink {
        let into = client.qualified(&base_table(&table.name));
        let statement = |columns: &[weir_schemas::stage::Column], own: &[&str]| {
            let names: Vec<String> = columns
                .iter()
                .map(|column| identifier(&physical(&column.name)))
                .chain(own.iter().map(|name| identifier(name)))
                .collect();
            format!("INSERT INTO {into} ({}) FORMAT RowBinary", names.join(", "))
        };
        let key = &table.columns[..table.key_columns.min(table.columns.len())];
        TableSink {
            insert_rows: statement(&table.columns, &[VERSION]),
            insert_tombstones: statement(key, &[VERSION, IS_DELETED]),
            client,
        }
    }

    async fn deliver_kind(&self, rows: &[OutRow], kind: u8, statement: &str) -> Result<(), DeliveryError> {
        let mut insert: Option<Insert> = None;
        for row in rows {
            let Some((tag, bytes)) = row.payload.split_first() else {
                return Err(not_ours("an empty payload"));
            };
            if *tag > TOMBSTONE {
                return Err(not_ours(&format!("a payload of kind {tag}")));
            }
            if *tag != kind {
                continue;
            }
            let open = insert.get_or_insert_with(|| Insert::begin(self.client.insert(statement.to_owned())));
            open.write(bytes, u64::from(row.rows)).await?;
            if open.is_full()
                && let Some(full) = insert.take()
            {
                full.end().await?;
            }
        }
        match insert {
            Some(last) => last.end().await,
            None => Ok(()),
        }
    }
}

impl Deliver for TableSink {
    fn deliver<'a>(&'a mut self, delivery: Delivery<'a>) -> BoxFuture<'a, Result<(), DeliveryError>> {
        Box::pin(async move {
            self.deliver_kind(delivery.rows, ROWS, &self.insert_rows).await?;
            self.deliver_kind(delivery.rows, TOMBSTONE, &self.insert_tombstones).await
        })
    }
}

fn not_ours(what: &str) -> DeliveryError {
    DeliveryError::Fatal {
        why: format!("the outbox holds {what}, which this version of Weir does not write"),
        remedy: "run the version of Weir that wrote this state".to_owned(),
    }
}

/// One open INSERT.
struct Insert {
    request: InsertFormatted,
    piece: BytesMut,
    rows: u64,
    bytes: usize,
}

impl Insert {
    fn begin(request: InsertFormatted) -> Insert {
        Insert { request, piece: BytesMut::with_capacity(PIECE_BYTES), rows: 0, bytes: 0 }
    }

    async fn write(&mut self, bytes: &[u8], rows: u64) -> Result<(), DeliveryError> {
        self.piece.extend_from_slice(bytes);
        self.rows += rows;
        self.bytes += bytes.len();
        if self.piece.len() >= PIECE_BYTES {
            let piece = self.piece.split().freeze();
            self.send(piece).await?;
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.rows >= INSERT_ROWS || self.bytes >= INSERT_BYTES
    }

    async fn send(&mut self, piece: Bytes) -> Result<(), DeliveryError> {
        self.request.send(piece).await.map_err(|error| classify(&error))
    }

    /// Sends the rest and waits until ClickHouse acknowledges the rows.
    async fn end(mut self) -> Result<(), DeliveryError> {
        let rest = self.piece.split().freeze();
        if !rest.is_empty() {
            self.send(rest).await?;
        }
        self.request.end().await.map_err(|error| classify(&error))
    }
}
