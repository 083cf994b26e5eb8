//! The registry client and the cache of schemas against a real registry; what they make of every other answer is tested
//! where they are.

use weir_replay::parts::{shared, unique};
use weir_schemas::registry::{Cached, Failure, Lookup, Registry, SchemaCache, Settings};

const EVENT: &str = r#"{"type":"record","name":"Event","fields":[{"name":"id","type":"long"}]}"#;

#[tokio::test]
async fn a_real_registry_registers_finds_and_checks() {
    let registry = Registry::new(Settings::new(shared().registry())).expect("settings");
    let subject = format!("{}/value", unique("registry"));
    assert!(matches!(registry.latest(&subject).await, Lookup::Unknown));
    assert!(matches!(registry.by_id(987_654_321).await, Lookup::Unknown));
    let id = registry.register(&subject, EVENT).await.expect("registers");
    assert_eq!(registry.register(&subject, EVENT).await, Ok(id), "the same schema keeps its id");
    let Lookup::Found(by_id) = registry.by_id(id).await else { panic!("just registered") };
    let Lookup::Found(latest) = registry.latest(&subject).await else { panic!("just registered") };
    assert_eq!((by_id.id, latest.id), (id, id));
    assert_eq!(latest.schema.name(), Some("Event"));
    registry.compatibility_of(&subject).await.expect("the registry's default, whatever it is");
    assert_eq!(registry.is_compatible(&subject, EVENT).await, Ok(true));
    assert!(matches!(
        registry.is_compatible(&format!("{subject}-none"), EVENT).await,
        Ok(true) | Err(Failure::Unknown(_))
    ));
    assert!(matches!(registry.register(&subject, r#"{"type": "recor"}"#).await, Err(Failure::Invalid(_))));

    let cache = SchemaCache::new(registry, tokio::runtime::Handle::current());
    let mut waited = 0;
    while !matches!(cache.get(id, waited), Cached::Ready(_)) {
        assert!(waited < 10_000, "the registry is up");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        waited += 20;
    }
}
