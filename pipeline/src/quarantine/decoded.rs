//! What a refused record says, as far as it decodes: by its writer schema, under the names of the source's reader schema.
//!
//! Those are the names that `sensitive` means, so a field that the reader schema doesn't have isn't shown: it might be a
//! sensitive one by another name. Values are cut, and what is shown in all is bounded.

use std::sync::Arc;

use serde_json::{Map, Value};
use weir_schemas::avro::{Decoder, ReaderSchema};
use weir_schemas::frame::{FRAME_BYTES, frame};
use weir_schemas::registry::{Lookup, Registry};

use crate::config::{self, Pipeline};
use crate::connect;
use crate::readers;
use crate::rules::is_sensitive;
use crate::samples;

/// The event in a refused record's value, as fields with what people may see of them.
///
/// # Errors
/// Why it doesn't decode, in words that hold none of its values.
pub async fn decode(pipeline: &Pipeline, source: &str, value: &[u8]) -> Result<Map<String, Value>, String> {
    let config = pipeline.sources.get(source).ok_or_else(|| format!("there is no source {source}"))?;
    let framed = frame(value).map_err(|(reason, detail)| format!("{}: {detail}", reason.name()))?;
    let registry = connect::registry(pipeline).map_err(|error| error.to_string())?;
    let chosen = readers::choose(pipeline, Some(&registry)).await.map_err(|error| error.to_string())?;
    let reader = chosen.schemas.get(source).ok_or_else(|| format!("source {source} has no reader schema"))?;
    let decoder = decoder(&registry, framed.schema_id, reader).await?;
    let body = value.get(FRAME_BYTES..).unwrap_or_default();
    let decoded = decoder.decode(&[body]).map_err(|_| "it is too large to be shown".to_owned())?;
    if let Some(refused) = decoded.refused.first() {
        let is_masked = is_sensitive(&config.sensitive, &refused.field);
        let detail = if is_masked { refused.fault.replace('_', " ") } else { refused.detail.clone() };
        return Err(format!("{}: {} {detail}", refused.reason.name(), refused.field).replace("  ", " "));
    }
    let text = samples::event_text(&decoded.batch, &first_fields(config), &config.sensitive);
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

async fn decoder(registry: &Registry, id: u32, reader: &Arc<ReaderSchema>) -> Result<Decoder, String> {
    let writer = match registry.by_id(id).await {
        Lookup::Found(writer) => writer,
        Lookup::Unknown => return Err(format!("the registry doesn't know schema {id}")),
        Lookup::Unusable(why) => return Err(why),
        Lookup::Unavailable(why) | Lookup::Refused(why) => {
            return Err(format!("the registry can't be asked for schema {id}: {why}"));
        }
    };
    let wanted = vec![true; reader.columns.len()];
    Decoder::new(&writer.schema, Arc::clone(reader), &wanted).map_err(|incompatible| {
        let told: Vec<String> = incompatible.iter().map(ToString::to_string).collect();
        format!("schema {id} doesn't fit the reader schema: {}", told.join("; "))
    })
}

/// The fields that people look for first.
fn first_fields(config: &config::Source) -> Vec<&String> {
    let named = [&config.event_id, &config.event_type, &config.tenant];
    std::iter::once(&config.event_time).chain(named.into_iter().flatten()).collect()
}
