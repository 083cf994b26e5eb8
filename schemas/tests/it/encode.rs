//! What the encoder writes, read back through the frame and the decoder.

use std::sync::Arc;

use apache_avro::types::Value;
use weir_schemas::avro::{Decoder, EncodeError, Encoder, ReaderSchema, Schema};
use weir_schemas::frame::frame;

use crate::cells::{Cell, row};

const MONEY: &str = r#"{"type": "record", "name": "Money", "namespace": "shop", "fields": [
    {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}}]}"#;
const ORDER: &str = r#"{"type": "record", "name": "Order", "namespace": "shop", "fields": [
    {"name": "id", "type": "string"}, {"name": "total", "type": "Money"}]}"#;

fn order(id: &str, cents: i32) -> Value {
    let total = Value::Record(vec![("amount".into(), Value::Decimal(cents.to_be_bytes().into()))]);
    Value::Record(vec![("id".into(), Value::String(id.into())), ("total".into(), total)])
}

#[test]
fn a_value_with_a_referenced_type_comes_back_and_a_misfit_leaves_nothing_behind() {
    let referenced = [MONEY.to_owned()];
    let encoder = Encoder::new(513, ORDER, &referenced).expect("a schema");
    let writer = encoder.writer().expect("names resolve");
    let mut message = b"before".to_vec();
    let misfit = writer.write(&Value::Long(1), &mut message);
    assert!(matches!(misfit, Err(EncodeError::Value(_))));
    assert_eq!(message, b"before");

    message.clear();
    writer.write(&order("o-1", -1_234), &mut message).expect("a value of the schema");
    let framed = frame(&message).expect("framed");
    assert_eq!(framed.schema_id, 513);

    let schema = Schema::parse_with(ORDER, &referenced).expect("a schema");
    let reader = Arc::new(ReaderSchema::new(schema.clone()).expect("columns"));
    let decoder = Decoder::new(&schema, reader, &[true, true]).expect("compatible");
    let decoded = decoder.decode(&[framed.datum]).expect("small");
    assert_eq!(row(&decoded.batch, 0), [Cell::Bytes(b"o-1".to_vec()), Cell::Decimal((-1_234).into())]);

    assert!(matches!(Encoder::new(1, ORDER, &[]), Err(EncodeError::Schema(_))), "an unknown name is told at once");
}
